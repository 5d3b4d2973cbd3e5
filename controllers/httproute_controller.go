// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// routeReconciler answers: which weights does each member get for a hub HTTPRoute, and why?
type routeReconciler struct {
	client.Client
	gatherer
	triggers *triggers
	metrics  *metrics
}

func (r *routeReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("httproute").WithOptions(concurrently).
		For(&gatewayv1.HTTPRoute{}, builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.Gateway{}, handler.EnqueueRequestsFromMapFunc(r.ofGateway), builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.GatewayClass{}, handler.EnqueueRequestsFromMapFunc(r.ofClass), builder.WithPredicates(specChanged)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.ofNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&v1alpha1.TrafficDistributionPolicy{}, handler.EnqueueRequestsFromMapFunc(r.ofPolicy), builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.ReferenceGrant{}, handler.EnqueueRequestsFromMapFunc(r.ofGrant)).
		Watches(&v1alpha1.TrafficRollout{}, handler.EnqueueRequestsFromMapFunc(ofRollout)).
		WatchesRawSource(&r.triggers.routes).
		Complete(r)
}

func (r *routeReconciler) ofGateway(ctx context.Context, o client.Object) []reconcile.Request {
	return requestsFor(routesOfGateway(ctx, r.Client, client.ObjectKeyFromObject(o)))
}

// ofClass wakes the routes of a class's Gateways: by its class a Gateway is ours or not.
func (r *routeReconciler) ofClass(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range gatewaysOfClass(ctx, r.Client, o.GetName()) {
		out = append(out, requestsFor(routesOfGateway(ctx, r.Client, key))...)
	}
	return out
}

// ofNamespace wakes the routes of a namespace, whose labels decide which listeners admit them.
func (r *routeReconciler) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.inNamespace(ctx, o.GetName())
}

func (r *routeReconciler) inNamespace(ctx context.Context, namespace string) []reconcile.Request {
	var list gatewayv1.HTTPRouteList
	if err := r.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil
	}
	return requestsFor(list.Items)
}

// ofPolicy wakes what a policy's targets lead to.
func (r *routeReconciler) ofPolicy(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, t := range federation.TargetsOf(o.(*v1alpha1.TrafficDistributionPolicy)) {
		switch t.Kind {
		case "Gateway":
			out = append(out, requestsFor(routesOfGateway(ctx, r.Client, client.ObjectKey{Namespace: t.Namespace, Name: t.Name}))...)
		case "ServiceImport":
			if routes, err := routesOfImport(ctx, r.Client, federation.ServiceKey{Namespace: t.Namespace, Name: t.Name}); err == nil {
				out = append(out, requestsFor(routes)...)
			}
		default:
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: t.Namespace, Name: t.Name}})
		}
	}
	return out
}

// ofRollout wakes the route that a rollout is laid over.
func ofRollout(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: o.(*v1alpha1.TrafficRollout).Spec.Route.Name}}}
}

// ofGrant wakes the routes that refer to anything in the grant's namespace.
func (r *routeReconciler) ofGrant(ctx context.Context, o client.Object) []reconcile.Request {
	grant := o.(*gatewayv1.ReferenceGrant)
	var out []reconcile.Request
	for _, from := range grant.Spec.From {
		out = append(out, r.inNamespace(ctx, string(from.Namespace))...)
	}
	return out
}

func requestsFor(routes []gatewayv1.HTTPRoute) []reconcile.Request {
	out := make([]reconcile.Request, 0, len(routes))
	for i := range routes {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&routes[i])})
	}
	return out
}

// Reconcile plans one hub HTTPRoute. It writes nothing in the hub: what is to be said is said by the reporter, on a
// queue of its own, so that no failover waits behind a status.
func (r *routeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	members, err := r.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	owner := federation.RouteOwner(req.Namespace, req.Name)
	route := &gatewayv1.HTTPRoute{}
	if err := r.Get(ctx, req.NamespacedName, route); err != nil {
		if client.IgnoreNotFound(err) == nil {
			fanOut(members, owner, withdraw)
			r.decided.forget(req.NamespacedName)
			r.triggers.reports.wake(req.Namespace, req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	plans, err := plansOf(ctx, r.hub, route)
	if err != nil {
		return ctrl.Result{}, err
	}
	snapshot, err := r.route(ctx, route, members, r.decided.recall(req.NamespacedName, plans))
	if err != nil {
		return ctrl.Result{}, err
	}
	started := time.Now()
	plan := federation.PlanRoute(snapshot)
	r.metrics.planned(nounRoute, started)
	fanOut(members, owner, func(m member) (fleet.Desired, bool) { return routeWish(m, plan) })
	r.keep(decision{snapshot, plan})
	r.triggers.reports.wake(req.Namespace, req.Name)
	if rollout := federation.RolloutInForce(route, snapshot.Rollouts); rollout != nil {
		r.triggers.rollouts.wake(rollout.Namespace, rollout.Name)
	}
	r.wakeProbes(snapshot)
	return ctrl.Result{RequeueAfter: plan.WakeAfter}, nil
}

// keep notes what was decided, and wakes the services of which something else was decided than before: proxies' fallback lists
// follow it.
func (r *routeReconciler) keep(d decision) {
	name, was, is := client.ObjectKeyFromObject(d.snapshot.Route), federation.Decided{}, federation.Decided{}
	r.decided.addTo(was, name)
	r.decided.keep(name, d)
	r.decided.addTo(is, name)
	for _, key := range d.snapshot.Imports() {
		if slices.ContainsFunc(d.snapshot.Services[key].Members, func(m federation.ServiceMember) bool {
			return was.Of(key, m.Name) != is.Of(key, m.Name)
		}) {
			r.triggers.services.wake(key.Namespace, key.Name)
		}
	}
}

// wakeProbes wakes the probing of what a route refers to: whatever changes the route's plan may change that too.
func (r *routeReconciler) wakeProbes(s federation.RouteSnapshot) {
	configured := federation.ProbeConfigured(s.Policies)
	for _, key := range s.Imports() {
		if known, probed := r.probes.decided(key); configured || probed || !known {
			r.triggers.probes.wake(key.Namespace, key.Name)
		}
	}
}

// routeWish is what one member is to hold; nothing is wished where the plan refuses, so that what is there stays.
func routeWish(m member, plan federation.RoutePlan) (fleet.Desired, bool) {
	planned := plan.Members[m.Name]
	switch {
	case planned.Refused.Type != "":
		return fleet.Desired{}, false
	case planned.Object == nil || m.leaving:
		return fleet.Desired{}, true
	}
	wish := fleet.Desired{Objects: []client.Object{planned.Object}}
	if planned.Preview != nil {
		wish.Objects = append(wish.Objects, planned.Preview)
	}
	return wish, true
}
