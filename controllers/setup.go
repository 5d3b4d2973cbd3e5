// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	metricsregistry "github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/alert"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/federation"
)

// concurrently lets several keys be worked on at once; one key never is.
var concurrently = controller.Options{MaxConcurrentReconciles: 4}

// specChanged leaves out events that only tell of a status: most of them are our own.
var specChanged = predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})

var namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace")

// HubCache restricts the hub's cache to what is needed: Secrets only of Isthmus's own namespace.
func HubCache() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}:       {Namespaces: map[string]cache.Config{systemNamespace: {}}},
			&gatewayv1.HTTPRoute{}: {Transform: keepWritesOfDrivers},
		},
	}
}

// keepWritesOfDrivers strips a route's managed fields but for those by which two drivers of one route are known.
func keepWritesOfDrivers(o any) (any, error) {
	if route, ok := o.(*gatewayv1.HTTPRoute); ok {
		route.ManagedFields = federation.WritesOfDrivers(route.ManagedFields)
	}
	return o, nil
}

// Options of Setup.
type Options struct {
	// Fleet is completed with the scheme, the kinds and the handlers.
	Fleet fleet.Options
	// Registerer takes the metrics.
	Registerer metricsregistry.Registerer
	// MaxSuspected is the share of clusters that may be out on suspicion, in percent, 1 to 100; 0 is the default of the core.
	MaxSuspected int
	// Prometheus is asked about members that name none of their own; nil where there is none.
	Prometheus *v1alpha1.Prometheus
	// Prepare runs once as leader, before anything is written; nil does nothing.
	Prepare func(context.Context) error
	// look takes the place of looks over the network, where there is none.
	look lookFunc
}

// Setup adds everything to a manager: the fleet of members and one reconciler per question.
func Setup(ctx context.Context, mgr ctrl.Manager, opts Options) error {
	if err := indexHub(ctx, mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("index the hub's routes: %w", err)
	}
	wake := &triggers{}
	watch := &watcher{triggers: wake, scheme: mgr.GetScheme()}
	opts.Fleet.Scheme, opts.Fleet.Kinds, opts.Fleet.Handlers = mgr.GetScheme(), MemberKinds(), watch.Handlers()
	opts.Fleet.Registerer = opts.Registerer
	members := fleet.New(opts.Fleet)
	if err := mgr.Add(leading{prepare: opts.Prepare, fleet: members}); err != nil {
		return err
	}
	say := recorder{mgr.GetEventRecorder("isthmus")}
	teller := alert.New(alert.Options{Secrets: mgr.GetClient(), Events: say, Registerer: opts.Registerer,
		Log: mgr.GetLogger().WithName("alert")})
	if err := mgr.Add(teller); err != nil {
		return err
	}
	if opts.look == nil {
		opts.look = lookOut
	}
	value := valueOf(prometheus.NewDirectory(mgr.GetClient(), opts.Prometheus))
	probes := newProber(opts.look, value,
		federation.Guard{MaxSuspected: cmp.Or(opts.MaxSuspected, federation.DefaultMaxSuspected)}, newProbeMetrics(opts.Registerer))
	if err := mgr.Add(probes); err != nil {
		return err
	}
	measures := newMeasurer(value, wake.rollouts.wake)
	if err := mgr.Add(measures); err != nil {
		return err
	}
	gather := gatherer{hub: mgr.GetClient(), fleet: members, probes: probes, endpoints: newEndpoints(), decided: newMemory()}
	watch.gather, probes.changed, probes.answered = gather, watch.probeChanged, wake.wakePolicy
	measure := newMetrics(opts.Registerer)
	return errors.Join(
		(&gatewayClassReconciler{Client: mgr.GetClient()}).setup(mgr),
		(&memberReconciler{Client: mgr.GetClient(), gatherer: gather, fleet: members, watcher: watch, triggers: wake}).setup(mgr),
		(&serviceReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake, metrics: measure, events: say}).setup(mgr),
		(&gatewayReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake, metrics: measure}).setup(mgr),
		(&routeReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake, metrics: measure}).setup(mgr),
		(&routeReporter{Client: mgr.GetClient(), gatherer: gather, triggers: wake, metrics: measure,
			events: say, alerts: teller}).setup(mgr),
		(&probeReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake, metrics: measure}).setup(mgr),
		(&policyReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake}).setup(mgr),
		(&rolloutReconciler{Client: mgr.GetClient(), gatherer: gather, triggers: wake, events: say, alerts: teller, measurer: measures,
			metrics: newRolloutMetrics(opts.Registerer)}).setup(mgr),
		(&overrideReconciler{Client: mgr.GetClient(), gatherer: gather, watcher: watch, metrics: measure,
			events: say, alerts: teller, known: map[string]overrideState{}}).setup(mgr),
		(&webhookReconciler{Client: mgr.GetClient(), events: say, teller: teller, known: map[string]string{}}).setup(mgr),
	)
}

// alerts takes what a person on call wants to hear of at once.
type alerts interface{ Raise(federation.Alert) }

// leading starts the fleet once this process leads: the epoch is known before the first write.
type leading struct {
	prepare func(context.Context) error
	fleet   *fleet.Fleet
}

// Start runs until the context ends.
func (l leading) Start(ctx context.Context) error {
	if l.prepare != nil {
		if err := l.prepare(ctx); err != nil {
			return err
		}
	}
	return l.fleet.Start(ctx)
}

// NeedLeaderElection is true: members are written by the leader alone.
func (leading) NeedLeaderElection() bool { return true }

// listOf makes an empty typed list of a kind that the scheme knows.
func listOf(s *runtime.Scheme, gvk schema.GroupVersionKind) client.ObjectList {
	o, err := s.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err != nil {
		return nil
	}
	list, _ := o.(client.ObjectList)
	return list
}
