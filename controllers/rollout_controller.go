// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// rolloutReconciler answers: which step of a TrafficRollout is it, and what does that wait for? The route's own reconciler lays
// over the route what the status says.
type rolloutReconciler struct {
	client.Client
	gatherer
	triggers *triggers
	events   events.EventRecorder
	alerts   alerts
	measurer *measurer
	metrics  *rolloutMetrics
}

func (r *rolloutReconciler) setup(mgr ctrl.Manager) error {
	ofNamespace := handler.EnqueueRequestsFromMapFunc(r.ofNamespace)
	return ctrl.NewControllerManagedBy(mgr).Named("rollout").WithOptions(concurrently).For(&v1alpha1.TrafficRollout{}).
		// Another of the same route may end, and a route may come to name the new side.
		Watches(&v1alpha1.TrafficRollout{}, ofNamespace, builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.HTTPRoute{}, ofNamespace, builder.WithPredicates(specChanged)).
		// A host name that a preview has or wants may be taken, or let go, anywhere.
		Watches(&gatewayv1.HTTPRoute{}, handler.EnqueueRequestsFromMapFunc(r.ofHostnames), builder.WithPredicates(specChanged)).
		// How far members have come.
		Watches(&v1alpha1.RoutePlan{}, ofNamespace).
		WatchesRawSource(&r.triggers.rollouts).
		Complete(r)
}

func (r *rolloutReconciler) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	rollouts, err := rolloutsOf(ctx, r.Client, o.GetNamespace())
	if err != nil {
		return nil
	}
	out := make([]reconcile.Request, 0, len(rollouts))
	for _, rollout := range rollouts {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(rollout)})
	}
	return out
}

// ofHostnames wakes the rollouts of all namespaces whose preview has a host name that a route serves.
func (r *rolloutReconciler) ofHostnames(ctx context.Context, o client.Object) []reconcile.Request {
	rollouts, err := rolloutsOf(ctx, r.Client, metav1.NamespaceAll)
	if err != nil {
		return nil
	}
	var out []reconcile.Request
	for _, rollout := range rollouts {
		b := rollout.Spec.BlueGreen
		if b != nil && slices.Contains(o.(*gatewayv1.HTTPRoute).Spec.Hostnames, gatewayv1.Hostname(b.PreviewHostname)) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(rollout)})
		}
	}
	return out
}

// Reconcile takes one rollout to its next state, and comes back when time alone changes it.
func (r *rolloutReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	rollout := &v1alpha1.TrafficRollout{}
	if err := r.Get(ctx, req.NamespacedName, rollout); err != nil {
		if apierrors.IsNotFound(err) {
			r.measurer.taken(req.NamespacedName, len(r.measurer.look(req.NamespacedName)))
			r.metrics.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if rollout.DeletionTimestamp == nil && !controllerutil.ContainsFinalizer(rollout, v1alpha1.FinalizerRollout) {
		// Before anything is moved: one that is deleted in between would leave no trace of what it had moved.
		return ctrl.Result{}, r.hold(ctx, rollout, controllerutil.AddFinalizer)
	}
	snapshot, known, err := r.snapshot(ctx, rollout)
	if err != nil || !known {
		return ctrl.Result{}, err
	}
	snapshot.Measured = r.measurer.look(req.NamespacedName)
	plan := federation.AdvanceRollout(snapshot)
	if err := r.report(ctx, rollout, plan); err != nil {
		return ctrl.Result{}, unlessStale(err)
	}
	r.measurer.taken(req.NamespacedName, len(snapshot.Measured))
	rollout.Status = plan.Status
	r.measurer.start(rollout, plan.Due)
	if rollout.DeletionTimestamp != nil && !plan.Finalizer {
		return ctrl.Result{}, r.hold(ctx, rollout, controllerutil.RemoveFinalizer)
	}
	return ctrl.Result{RequeueAfter: plan.WakeAfter}, nil
}

// hold gives a rollout its finalizer, or takes it. A patch of that alone: what a newer version's schema has beside it stays.
func (r *rolloutReconciler) hold(ctx context.Context, rollout *v1alpha1.TrafficRollout, change func(client.Object, string) bool) error {
	changed := rollout.DeepCopy()
	if !change(changed, v1alpha1.FinalizerRollout) {
		return nil
	}
	patch := client.MergeFromWithOptions(rollout, client.MergeFromWithOptimisticLock{})
	return unlessStale(client.IgnoreNotFound(r.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.FieldOwner))))
}

// snapshot gathers what a rollout's next state depends on; false until its route has been decided in this process.
func (r *rolloutReconciler) snapshot(ctx context.Context, rollout *v1alpha1.TrafficRollout) (federation.RolloutSnapshot, bool, error) {
	s := federation.RolloutSnapshot{Rollout: rollout, Now: time.Now()}
	s.Since = r.measurer.leads()
	checks, err := r.checks(ctx, rollout)
	if err != nil {
		return s, false, err
	}
	if s.Standing = checks.Standing(); s.Standing.Refused != "" || s.Standing.Adopted {
		return s, true, nil
	}
	d, decided := r.decided.latest(client.ObjectKeyFromObject(checks.Route))
	if !decided {
		return s, false, nil // the decision follows, and wakes this key again
	}
	plans, err := plansOf(ctx, r.hub, checks.Route)
	if err != nil {
		return s, false, err
	}
	view := federation.RolloutView{Rollout: rollout, Route: d.snapshot, Plan: d.plan, Programmed: map[string]bool{}, Labels: map[string]map[string]string{}}
	for name, p := range plans {
		view.Programmed[name] = d.repeats(p) && meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.PlanProgrammed)
	}
	members, err := r.members(ctx)
	for _, m := range members {
		view.Labels[m.Name] = m.object.Labels
	}
	s.Members, s.Lagging, s.Held, s.Kept = view.Members(), view.Lagging(), view.Held(), view.Kept()
	return s, true, err
}

func (r *rolloutReconciler) checks(ctx context.Context, rollout *v1alpha1.TrafficRollout) (federation.RolloutChecks, error) {
	checks := federation.RolloutChecks{Rollout: rollout, Exporters: map[federation.ServiceKey][]string{}}
	route := &gatewayv1.HTTPRoute{}
	err := r.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: rollout.Spec.Route.Name}, route)
	if client.IgnoreNotFound(err) != nil {
		return checks, err
	}
	if err == nil {
		checks.Route = route
	}
	if checks.Rollouts, err = rolloutsOf(ctx, r.Client, rollout.Namespace); err != nil {
		return checks, err
	}
	if b := rollout.Spec.BlueGreen; b != nil && b.PreviewHostname != "" && checks.Route != nil {
		if err := r.checkPreview(ctx, &checks); err != nil {
			return checks, err
		}
	}
	for _, key := range federation.ImportsOfRollout(rollout) {
		remembered, err := r.remembered(ctx, key)
		if err != nil {
			return checks, err
		}
		if remembered != nil {
			checks.Exporters[key] = remembered.Clusters
		}
	}
	return checks, nil
}

// checkPreview adds what tells whether the preview can have its host name.
func (r *rolloutReconciler) checkPreview(ctx context.Context, checks *federation.RolloutChecks) (err error) {
	if checks.Parents, err = r.parents(ctx, checks.Route); err != nil {
		return err
	}
	var routes gatewayv1.HTTPRouteList
	if err := r.List(ctx, &routes); err != nil {
		return err
	}
	for i := range routes.Items {
		checks.Routes = append(checks.Routes, &routes.Items[i])
	}
	return nil
}

// report writes the state, and makes Events of what people want to know.
func (r *rolloutReconciler) report(ctx context.Context, rollout *v1alpha1.TrafficRollout, plan federation.RolloutPlan) error {
	changed := rollout.DeepCopy()
	changed.Status = plan.Status
	changed.Status.Conditions = mergeConditions(rollout.Status.Conditions, federation.RolloutConditions(plan.Status)...)
	if err := patchStatus(ctx, r.Client, rollout, changed); err != nil {
		return err
	}
	r.metrics.told(changed)
	if raised, ok := federation.RolloutAlert(rollout, plan.Status); ok {
		r.alerts.Raise(raised)
	}
	for _, text := range plan.Unheard {
		r.events.Eventf(rollout, nil, corev1.EventTypeWarning, v1alpha1.ReasonNothingToDo, "Rollout", "%s", bounded(text, maxNote))
	}
	if was, is := rollout.Status, plan.Status; was.Phase != is.Phase || was.Wave != is.Wave || was.Step != is.Step {
		kind := corev1.EventTypeNormal
		if is.Phase == v1alpha1.RolloutDegraded {
			kind = corev1.EventTypeWarning
		}
		r.events.Eventf(rollout, nil, kind, string(is.Phase), "Rollout", "%s", bounded(is.Message, maxNote))
	}
	return nil
}
