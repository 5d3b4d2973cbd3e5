// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// gatewayReconciler answers: what Gateway does each member get for a hub Gateway, and who serves it?
type gatewayReconciler struct {
	client.Client
	gatherer
	triggers *triggers
	metrics  *metrics
}

func (r *gatewayReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("gateway").For(&gatewayv1.Gateway{}).
		Watches(&gatewayv1.GatewayClass{}, handler.EnqueueRequestsFromMapFunc(r.ofClass), builder.WithPredicates(specChanged)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.ofNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&gatewayv1.HTTPRoute{}, handler.EnqueueRequestsFromMapFunc(ofRoute), builder.WithPredicates(specChanged)).
		WatchesRawSource(&r.triggers.gateways).
		Complete(r)
}

func (r *gatewayReconciler) ofClass(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range gatewaysOfClass(ctx, r.Client, o.GetName()) {
		out = append(out, reconcile.Request{NamespacedName: key})
	}
	return out
}

// ofNamespace wakes the Gateways to which a namespace's routes attach, or not, by the labels of the namespace.
func (r *gatewayReconciler) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	var list gatewayv1.HTTPRouteList
	if err := r.List(ctx, &list, client.InNamespace(o.GetName())); err != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		out = append(out, ofRoute(ctx, &list.Items[i])...)
	}
	return out
}

func ofRoute(_ context.Context, o client.Object) []reconcile.Request {
	route := o.(*gatewayv1.HTTPRoute)
	var out []reconcile.Request
	for _, ref := range route.Spec.ParentRefs {
		if key, ok := gatewayKey(ref, route.Namespace); ok {
			out = append(out, reconcile.Request{NamespacedName: key})
		}
	}
	return out
}

// Reconcile plans one hub Gateway.
func (r *gatewayReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	members, err := r.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	gateway, err := r.gateway(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	owner := federation.GatewayOwner(req.Namespace, req.Name)
	if gateway == nil {
		fanOut(members, owner, withdraw)
		return ctrl.Result{}, nil
	}
	snapshot, err := r.snapshot(ctx, gateway, members)
	if err != nil {
		return ctrl.Result{}, err
	}
	if snapshot.Overrides, err = r.overrides(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.addSuspects(ctx, req.NamespacedName, members, &snapshot); err != nil {
		return ctrl.Result{}, err
	}
	started := time.Now()
	plan := federation.PlanGateway(snapshot)
	r.metrics.planned(nounGateway, started)
	outcomes := fanOut(members, owner, func(m member) (fleet.Desired, bool) {
		if object := plan.Objects[m.Name]; object != nil && !m.leaving {
			objects := []client.Object{object}
			if retries := plan.Retries[m.Name]; retries != nil {
				// After the Gateway: one of somebody else's is not to be patched either.
				objects = append(objects, retries)
			}
			return fleet.Desired{Objects: objects}, true
		}
		return fleet.Desired{}, true
	})
	if _, wait := settling(members); wait > 0 && saidOf(gateway) {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	for i := range snapshot.Members {
		if err := outcomes[snapshot.Members[i].Name]; err != nil && !inFlight(err) {
			snapshot.Members[i].Problem = err.Error()
		}
	}
	return ctrl.Result{}, unlessStale(r.report(ctx, gateway, federation.PlanGateway(snapshot).Status))
}

// saidOf tells whether the status speaks of the Gateway as it is now.
func saidOf(gateway *gatewayv1.Gateway) bool {
	c := meta.FindStatusCondition(gateway.Status.Conditions, string(gatewayv1.GatewayConditionAccepted))
	return c != nil && c.ObservedGeneration == gateway.Generation
}

func (r *gatewayReconciler) snapshot(ctx context.Context, gateway *gatewayv1.Gateway, members []member) (federation.GatewaySnapshot, error) {
	err := r.Get(ctx, classOf(gateway), &gatewayv1.GatewayClass{})
	s := federation.GatewaySnapshot{Gateway: gateway, Attached: r.attached(ctx, gateway), ClassMissing: apierrors.IsNotFound(err)}
	if client.IgnoreNotFound(err) != nil {
		return s, err
	}
	for _, m := range members {
		if m.leaving {
			continue
		}
		gm := federation.GatewayMember{Member: m.Member, HasNamespace: m.hasNamespace(ctx, gateway.Namespace)}
		observed := &gatewayv1.Gateway{}
		if m.get(ctx, gateway.Namespace, gateway.Name, observed) && federation.IsOurs(observed) {
			gm.Observed = observed
		}
		s.Members = append(s.Members, gm)
	}
	return s, nil
}

// addSuspects marks the members that are suspected as entries.
func (r *gatewayReconciler) addSuspects(ctx context.Context, gateway client.ObjectKey, members []member, s *federation.GatewaySnapshot) error {
	names, known, err := r.suspects(ctx, gateway, members)
	s.ProbesAwaited = !known
	for i := range s.Members {
		s.Members[i].Suspected = slices.Contains(names, s.Members[i].Name)
	}
	return err
}

// attached counts the routes on each listener.
func (r *gatewayReconciler) attached(ctx context.Context, gateway *gatewayv1.Gateway) map[gatewayv1.SectionName]int32 {
	counts := map[gatewayv1.SectionName]int32{}
	key := client.ObjectKeyFromObject(gateway)
	routes := routesOfGateway(ctx, r.Client, key)
	for i := range routes {
		parents, err := r.parents(ctx, &routes[i])
		if err != nil {
			continue
		}
		on := map[gatewayv1.SectionName]bool{}
		for _, p := range parents {
			if client.ObjectKeyFromObject(p.Gateway) != key {
				continue
			}
			for _, l := range p.Listeners {
				on[l] = true
			}
		}
		for l := range on {
			counts[l]++
		}
	}
	return counts
}

func (r *gatewayReconciler) report(ctx context.Context, gateway *gatewayv1.Gateway, status gatewayv1.GatewayStatus) error {
	changed := gateway.DeepCopy()
	changed.Status.Addresses = status.Addresses
	changed.Status.Conditions = mergeConditions(gateway.Status.Conditions, status.Conditions...)
	for i := range status.Listeners {
		for _, have := range gateway.Status.Listeners {
			if have.Name == status.Listeners[i].Name {
				status.Listeners[i].Conditions = mergeConditions(have.Conditions, status.Listeners[i].Conditions...)
			}
		}
		status.Listeners[i].Conditions = mergeConditions(nil, status.Listeners[i].Conditions...)
	}
	changed.Status.Listeners = status.Listeners
	return patchStatus(ctx, r.Client, gateway, changed)
}
