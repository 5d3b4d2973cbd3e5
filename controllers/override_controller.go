// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// overrideReconciler answers: is a TrafficOverride in force, and is what it drains empty? It also wakes everything
// when one begins, changes or ends, since any route may be concerned.
type overrideReconciler struct {
	client.Client
	gatherer
	watcher *watcher
	metrics *metrics
	events  events.EventRecorder
	alerts  alerts
	// known is what was last seen of each override. One worker uses it at a time.
	known map[string]overrideState
}

// overrideState is what plans depend on.
type overrideState struct {
	generation int64
	ended      bool
	// last is the override as it was.
	last *v1alpha1.TrafficOverride
}

func (s overrideState) same(other overrideState) bool {
	return s.generation == other.generation && s.ended == other.ended
}

func (r *overrideReconciler) setup(mgr ctrl.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(r.all)
	return ctrl.NewControllerManagedBy(mgr).Named("override").For(&v1alpha1.TrafficOverride{}).
		// Another may be stronger, or end.
		Watches(&v1alpha1.TrafficOverride{}, all, builder.WithPredicates(specChanged)).
		Watches(&v1alpha1.MemberCluster{}, all, builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.HTTPRoute{}, all, builder.WithPredicates(specChanged)).
		Watches(&mcsv1beta1.ServiceImport{}, all, builder.WithPredicates(specChanged)).
		// What is still sent to a drained cluster.
		Watches(&v1alpha1.RoutePlan{}, all).
		Complete(r)
}

func (r *overrideReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var list v1alpha1.TrafficOverrideList
	if err := r.List(ctx, &list); err != nil {
		return nil
	}
	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// Reconcile writes one override's status, and comes back when it expires.
func (r *overrideReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	now := time.Now()
	all, err := r.allOverrides(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	r.metrics.overrides(all)
	snapshot := federation.OverrideSnapshot{All: all, Now: now}
	for _, o := range all {
		if o.Name == req.Name {
			snapshot.Override = o
		}
	}
	r.wake(ctx, req.Name, snapshot.Override, now)
	if snapshot.Override == nil {
		return ctrl.Result{}, nil
	}
	if err := r.complete(ctx, &snapshot); err != nil {
		return ctrl.Result{}, err
	}
	status := federation.OverrideStatus(snapshot)
	return untilNext(snapshot.Override, status, now), unlessStale(r.report(ctx, snapshot.Override, status))
}

// wake wakes every plan when an override began, changed or ended. The plans read overrides from the same cache, which
// shows the change already.
func (r *overrideReconciler) wake(ctx context.Context, name string, o *v1alpha1.TrafficOverride, now time.Time) {
	was, known := r.known[name]
	if o == nil {
		delete(r.known, name)
		if known && !was.ended {
			r.watcher.wakeObjects(ctx)
			if alert, raised := federation.OverrideEnded(was.last); raised {
				r.alerts.Raise(alert)
			}
		}
		return
	}
	is := overrideState{o.Generation, o.DeletionTimestamp != nil || federation.Expired(o, now), o}
	if r.known[name] = is; !is.same(was) || !known {
		r.watcher.wakeObjects(ctx)
	}
}

// complete gathers what an override's status depends on.
func (r *overrideReconciler) complete(ctx context.Context, s *federation.OverrideSnapshot) error {
	var err error
	if s.Members, err = memberNames(ctx, r.Client); err != nil {
		return err
	}
	if s.Routes, err = existing(ctx, r.Client, s.Override.Spec.Routes, func() client.Object { return &gatewayv1.HTTPRoute{} }); err != nil {
		return err
	}
	if s.Imports, err = existing(ctx, r.Client, s.Override.Spec.Imports, func() client.Object { return &mcsv1beta1.ServiceImport{} }); err != nil {
		return err
	}
	if s.Override.Spec.Type != v1alpha1.OverrideDrain {
		return nil
	}
	var plans v1alpha1.RoutePlanList
	err = r.List(ctx, &plans)
	s.Plans = plans.Items
	return err
}

// existing are those of the named objects that are there.
func existing(ctx context.Context, hub client.Reader, refs []v1alpha1.ObjectReference, object func() client.Object) ([]v1alpha1.ObjectReference, error) {
	var out []v1alpha1.ObjectReference
	for _, ref := range refs {
		err := hub.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, object())
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if err == nil {
			out = append(out, ref)
		}
	}
	return out, nil
}

func (r *overrideReconciler) report(ctx context.Context, o *v1alpha1.TrafficOverride, status v1alpha1.TrafficOverrideStatus) error {
	changed := o.DeepCopy()
	changed.Status.ObservedGeneration, changed.Status.EmptySince = status.ObservedGeneration, status.EmptySince
	changed.Status.Conditions = mergeConditions(o.Status.Conditions, status.Conditions...)
	if o.Spec.Type != v1alpha1.OverrideDrain {
		meta.RemoveStatusCondition(&changed.Status.Conditions, v1alpha1.OverrideDrained)
	}
	if err := patchStatus(ctx, r.Client, o, changed); err != nil {
		return err
	}
	for _, c := range changed.Status.Conditions {
		r.announce(o, c)
	}
	return nil
}

// announce makes an Event of a condition that changed, but not of one that began as anybody would expect.
func (r *overrideReconciler) announce(o *v1alpha1.TrafficOverride, is metav1.Condition) {
	was := meta.FindStatusCondition(o.Status.Conditions, is.Type)
	if alert, raised := federation.OverrideAlert(o, was, is); raised {
		r.alerts.Raise(alert)
	}
	if (was != nil && was.Reason == is.Reason) || is.Reason == v1alpha1.ReasonAccepted || is.Reason == v1alpha1.ReasonNotInForce {
		return
	}
	kind := corev1.EventTypeNormal
	switch is.Reason {
	case v1alpha1.ReasonTargetNotFound, v1alpha1.ReasonConflicted, v1alpha1.ReasonDrainBlocked:
		kind = corev1.EventTypeWarning
	}
	r.events.Eventf(o, nil, kind, is.Reason, "Override", "%s (%s: %s)", is.Message, o.Spec.Author, o.Spec.Reason)
}

// untilNext comes back when an override ends by itself, or when what a drained cluster had has been given its time.
func untilNext(o *v1alpha1.TrafficOverride, status v1alpha1.TrafficOverrideStatus, now time.Time) ctrl.Result {
	var next time.Time
	if o.Spec.Expires != nil && !federation.Expired(o, now) {
		next = o.Spec.Expires.Time
	}
	if since := status.EmptySince; since != nil {
		if settled := since.Add(o.Spec.DrainGrace()); settled.After(now) && (next.IsZero() || settled.Before(next)) {
			next = settled
		}
	}
	if next.IsZero() {
		return ctrl.Result{}
	}
	return ctrl.Result{RequeueAfter: next.Sub(now)}
}

// allOverrides reads every TrafficOverride.
func (g gatherer) allOverrides(ctx context.Context) ([]*v1alpha1.TrafficOverride, error) {
	var list v1alpha1.TrafficOverrideList
	if err := g.hub.List(ctx, &list); err != nil {
		return nil, err
	}
	out := make([]*v1alpha1.TrafficOverride, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}

// overrides are those in force now.
func (g gatherer) overrides(ctx context.Context) (federation.Overrides, error) {
	all, err := g.allOverrides(ctx)
	return federation.OverridesInForce(all, time.Now()), err
}
