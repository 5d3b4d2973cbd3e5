// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// routeReporter answers: what was decided for a hub HTTPRoute, and how far has each member come?
type routeReporter struct {
	client.Client
	gatherer
	triggers *triggers
	metrics  *metrics
	events   events.EventRecorder
	alerts   alerts
}

func (r *routeReporter) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("httproute-report").WithOptions(concurrently).
		For(&gatewayv1.HTTPRoute{}).
		Owns(&v1alpha1.RoutePlan{}).
		WatchesRawSource(&r.triggers.reports).
		Complete(r)
}

// Reconcile reports on one hub HTTPRoute: RoutePlans, the route's own status, Events and metrics.
func (r *routeReporter) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	route := &gatewayv1.HTTPRoute{}
	if err := r.Get(ctx, req.NamespacedName, route); err != nil {
		if apierrors.IsNotFound(err) {
			r.metrics.forgetRoute(req.Namespace, req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	d, decided := r.decided.latest(req.NamespacedName)
	if !decided || d.snapshot.Route.Generation != route.Generation {
		// The decision follows, and wakes this key again.
		return ctrl.Result{}, nil
	}
	d.snapshot.Route = route
	members, err := r.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	plans, err := plansOf(ctx, r.hub, route)
	if err != nil {
		return ctrl.Result{}, err
	}
	outcomes := outcomesOf(members, federation.RouteOwner(req.Namespace, req.Name))
	unknown, wait := settling(members)
	early := wait > 0 || slices.ContainsFunc(members, d.beforeRead)
	for _, m := range members {
		p := plans[m.Name]
		unknown[m.Name] = p != nil && p.Status.ObservedGeneration == route.Generation &&
			(unknown[m.Name] || d.beforeRead(m) || (early || inFlight(outcomes[m.Name])) && d.repeats(p))
	}
	maps.DeleteFunc(unknown, func(_ string, stands bool) bool { return !stands })
	return ctrl.Result{RequeueAfter: wait}, r.report(ctx, d, plans, unknown, outcomes)
}

// plansOf reads the RoutePlans of a route, by member.
func plansOf(ctx context.Context, hub client.Reader, route *gatewayv1.HTTPRoute) (map[string]*v1alpha1.RoutePlan, error) {
	var list v1alpha1.RoutePlanList
	if err := hub.List(ctx, &list, client.InNamespace(route.Namespace)); err != nil {
		return nil, err
	}
	plans := map[string]*v1alpha1.RoutePlan{}
	for i := range list.Items {
		if metav1.IsControlledBy(&list.Items[i], route) {
			plans[list.Items[i].Labels[v1alpha1.LabelMember]] = &list.Items[i]
		}
	}
	return plans, nil
}

// report says a decision. What was last said of the members in unknown stands.
func (r *routeReporter) report(ctx context.Context, d decision, plans map[string]*v1alpha1.RoutePlan, unknown map[string]bool,
	errs map[string]error) error {
	outcomes, err := r.outcomes(d, errs)
	if err != nil {
		return err
	}
	s, report := d.snapshot, federation.ReportRoute(d.snapshot, d.plan, outcomes)
	var all []error
	var shifts []federation.Shift
	for _, m := range s.Members {
		status, planned := report.Plans[m.Name]
		switch {
		case !planned:
			all = append(all, r.deletePlan(ctx, s.Route, m.Name, plans[m.Name]))
		case !unknown[m.Name] && !inFlight(errs[m.Name]):
			shift, err := r.writePlan(ctx, s.Route, plans[m.Name], status)
			shifts, all = append(shifts, shift...), append(all, unlessStale(err))
			r.metrics.weights(s.Route, status)
		}
	}
	for name, p := range plans {
		if !slices.ContainsFunc(s.Members, func(m federation.RouteMember) bool { return m.Name == name }) {
			all = append(all, r.deletePlan(ctx, s.Route, name, p))
		}
	}
	for _, alert := range federation.RouteAlerts(s.Route.Namespace, s.Route.Name, shifts) {
		r.alerts.Raise(alert)
	}
	if len(unknown) == 0 {
		all = append(all, unlessStale(r.writeParents(ctx, s, report.Conditions)))
	}
	return errors.Join(all...)
}

// outcomes say how far each member has come, and by what the planned object is known there.
func (r *routeReporter) outcomes(d decision, errs map[string]error) (map[string]federation.Outcome, error) {
	outcomes := map[string]federation.Outcome{}
	owner := federation.RouteOwner(d.snapshot.Route.Namespace, d.snapshot.Route.Name)
	for name, err := range errs {
		outcome := federation.Outcome{Problem: problemOf(err)}
		if object := d.plan.Members[name].Object; object != nil {
			if outcome.Plan, err = fleet.PlanOf(object, owner, r.Scheme()); err != nil {
				return nil, err
			}
		}
		outcomes[name] = outcome
	}
	return outcomes, nil
}

func (r *routeReporter) deletePlan(ctx context.Context, route *gatewayv1.HTTPRoute, member string, p *v1alpha1.RoutePlan) error {
	if p == nil {
		return nil
	}
	r.metrics.weights(route, v1alpha1.RoutePlanStatus{Member: member})
	return client.IgnoreNotFound(r.Delete(ctx, p))
}

// writePlan says what was decided for a member, and returns the shift that it is, if it is one.
func (r *routeReporter) writePlan(ctx context.Context, route *gatewayv1.HTTPRoute, have *v1alpha1.RoutePlan,
	status v1alpha1.RoutePlanStatus) ([]federation.Shift, error) {
	if have == nil {
		have = &v1alpha1.RoutePlan{ObjectMeta: metav1.ObjectMeta{Namespace: route.Namespace,
			Name:   federation.RoutePlanName("httproute", route.Name, status.Member),
			Labels: map[string]string{v1alpha1.LabelMember: status.Member, v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}}}
		if err := controllerutil.SetControllerReference(route, have, r.Scheme()); err != nil {
			return nil, err
		}
		if err := r.Create(ctx, have, client.FieldOwner(v1alpha1.FieldOwner)); err != nil {
			return nil, client.IgnoreAlreadyExists(err)
		}
	}
	changed := have.DeepCopy()
	conditions := mergeConditions(have.Status.Conditions, status.Conditions...)
	changed.Status = status
	changed.Status.Conditions = conditions
	if err := patchStatus(ctx, r.Client, have, changed); err != nil {
		return nil, err
	}
	shift, shifted := federation.ShiftOf(have.Status, changed.Status)
	if !shifted {
		return nil, nil
	}
	r.announce(route, changed, shift)
	return []federation.Shift{shift}, nil
}

// announce makes an Event of a split that changed, and counts it. The plan tells it from that of another member.
func (r *routeReporter) announce(route *gatewayv1.HTTPRoute, plan *v1alpha1.RoutePlan, shift federation.Shift) {
	kind := corev1.EventTypeNormal
	if federation.AlertReasons[shift.Reason] == federation.SeverityWarning {
		kind = corev1.EventTypeWarning
	}
	r.metrics.changed(route, shift.Member, shift.Reason)
	r.events.Eventf(route, plan, kind, shift.Reason, "Shift", "%s", shift.Explain())
}

// writeParents sets the route's status for our Gateways, and leaves the entries of other controllers alone.
func (r *routeReporter) writeParents(ctx context.Context, s federation.RouteSnapshot, conditions []metav1.Condition) error {
	changed := s.Route.DeepCopy()
	// Not nil: the field is required, and a status without it is refused.
	changed.Status.Parents = []gatewayv1.RouteParentStatus{}
	for _, entry := range s.Route.Status.Parents {
		if entry.ControllerName != v1alpha1.ControllerName {
			changed.Status.Parents = append(changed.Status.Parents, *entry.DeepCopy())
		}
	}
	for _, p := range s.Parents {
		entry := gatewayv1.RouteParentStatus{ParentRef: p.Ref, ControllerName: v1alpha1.ControllerName}
		for _, have := range s.Route.Status.Parents {
			if have.ControllerName == v1alpha1.ControllerName && equalRefs(have.ParentRef, p.Ref) {
				entry.Conditions = have.Conditions
			}
		}
		if !slices.ContainsFunc(conditions, isProbed) {
			entry.Conditions = slices.DeleteFunc(slices.Clone(entry.Conditions), isProbed)
		}
		entry.Conditions = mergeConditions(entry.Conditions, append([]metav1.Condition{p.Accepted}, conditions...)...)
		changed.Status.Parents = append(changed.Status.Parents, entry)
	}
	if len(changed.Status.Parents) == 0 && len(s.Route.Status.Parents) == 0 {
		return nil
	}
	if err := patchStatus(ctx, r.Client, s.Route, changed); err != nil {
		return err
	}
	for _, entry := range changed.Status.Parents {
		r.alertOf(s.Route, entry)
	}
	r.warnOfProbes(s.Route, changed)
	return nil
}

// alertOf raises what moved nothing, and so is no shift: there is nowhere to move to.
func (r *routeReporter) alertOf(route *gatewayv1.HTTPRoute, entry gatewayv1.RouteParentStatus) {
	object := federation.AlertObject{Kind: "HTTPRoute", Namespace: route.Namespace, Name: route.Name}
	for _, is := range entry.Conditions {
		var was *metav1.Condition
		for _, have := range route.Status.Parents {
			if have.ControllerName == v1alpha1.ControllerName && equalRefs(have.ParentRef, entry.ParentRef) {
				was = meta.FindStatusCondition(have.Conditions, is.Type)
			}
		}
		if alert, raised := federation.ConditionAlert(object, was, is); raised && entry.ControllerName == v1alpha1.ControllerName {
			r.alerts.Raise(alert)
		}
	}
}

func isProbed(c metav1.Condition) bool { return c.Type == v1alpha1.RouteProbed }

// warnOfProbes makes an Event when what the probes of a route see is believed no more, or again.
func (r *routeReporter) warnOfProbes(was, is *gatewayv1.HTTPRoute) {
	before, after := probedOf(was), probedOf(is)
	switch {
	case after.Reason == before.Reason, after.Status == metav1.ConditionUnknown, after.Type == "":
	case after.Status == metav1.ConditionFalse:
		r.events.Eventf(is, nil, corev1.EventTypeWarning, after.Reason, "Probe", "%s", after.Message)
	case before.Status == metav1.ConditionFalse:
		r.events.Eventf(is, nil, corev1.EventTypeNormal, after.Reason, "Probe", "%s", after.Message)
	}
}

// probedOf is what a route's status says of its probes, which is the same for each of its parents.
func probedOf(route *gatewayv1.HTTPRoute) metav1.Condition {
	for _, p := range route.Status.Parents {
		if c := meta.FindStatusCondition(p.Conditions, v1alpha1.RouteProbed); c != nil && p.ControllerName == v1alpha1.ControllerName {
			return *c
		}
	}
	return metav1.Condition{}
}
