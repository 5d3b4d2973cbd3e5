// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Outcome is how far a member has come with the newest plan of a route.
type Outcome struct {
	// Problem is why the plan is not in the member, as a condition; nil when it is.
	Problem *metav1.Condition
	// Plan is the value of the annotation isthmus.dev/plan on the object as it was planned, by which it is told from
	// the one before; empty where that is not known.
	Plan string
}

// RouteReport is what is said of a plan, in the hub.
type RouteReport struct {
	// Plans is the status of each member's RoutePlan.
	Plans map[string]v1alpha1.RoutePlanStatus
	// Conditions of the route for each of its parents: ResolvedRefs, Programmed, TrafficShifted, and Probed where it is.
	Conditions []metav1.Condition
}

// ReportRoute says what a plan is and how far it has come.
func ReportRoute(s RouteSnapshot, plan RoutePlan, outcomes map[string]Outcome) RouteReport {
	report := RouteReport{Plans: map[string]v1alpha1.RoutePlanStatus{}}
	for _, m := range s.Members {
		if planned := plan.Members[m.Name]; planned.Object != nil || planned.Refused.Type != "" {
			report.Plans[m.Name] = planStatus(s.Route, m, planned, outcomes[m.Name])
		}
	}
	report.Conditions = []metav1.Condition{plan.ResolvedRefs, routeProgrammed(s, report.Plans), trafficShifted(s, plan)}
	if probed := routeProbed(s); probed.Type != "" {
		report.Conditions = append(report.Conditions, probed)
	}
	for i := range report.Conditions {
		report.Conditions[i].ObservedGeneration = s.Route.Generation
	}
	return report
}

func planStatus(route *gatewayv1.HTTPRoute, m RouteMember, planned MemberRoute, outcome Outcome) v1alpha1.RoutePlanStatus {
	status := v1alpha1.RoutePlanStatus{Route: "HTTPRoute/" + route.Name, Member: m.Name,
		ObservedGeneration: route.Generation, Rules: planned.Rules}
	written := condition(v1alpha1.PlanWritten, metav1.ConditionTrue, v1alpha1.PlanWritten, "the member holds the route as planned")
	switch {
	case planned.Refused.Type != "":
		// What the member holds stays, so what was last decided is still what is in force.
		written, status.Rules = planned.Refused, m.Last
	case outcome.Problem != nil:
		written = *outcome.Problem
		written.Type = v1alpha1.PlanWritten
	}
	status.Summary = summarize(status.Rules)
	status.Conditions = []metav1.Condition{planProgrammed(m, planned.Object, outcome.Plan, written), written}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = route.Generation
	}
	return status
}

// planProgrammed is what the member's own controller says of its route, once that is the one that was planned: a
// route that was written a moment ago is not yet the one that was observed, whatever of it changed.
func planProgrammed(m RouteMember, planned *gatewayv1.HTTPRoute, plan string, written metav1.Condition) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return condition(v1alpha1.PlanProgrammed, metav1.ConditionFalse, reason, message)
	}
	switch {
	case written.Status != metav1.ConditionTrue:
		return condition(v1alpha1.PlanProgrammed, written.Status, written.Reason, written.Message)
	case m.Observed == nil || !processed(m.Observed) || m.Observed.Annotations[v1alpha1.AnnotationPlan] != plan ||
		!sameSplit(m.Observed, planned):
		return no(v1alpha1.ReasonPending, "the member's controller has not looked at the newest route yet")
	}
	for _, p := range m.Observed.Status.Parents {
		for _, kind := range []gatewayv1.RouteConditionType{gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs} {
			if c := findCondition(p.Conditions, string(kind)); c != nil && c.Status == metav1.ConditionFalse {
				return no(v1alpha1.ReasonMemberRefused, fmt.Sprintf("the member's controller says %s=False (%s): %s", kind, c.Reason, c.Message))
			}
		}
	}
	return condition(v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "accepted by the member's controller")
}

// sameSplit tells whether two routes send the same shares to the same backends.
func sameSplit(a, b *gatewayv1.HTTPRoute) bool {
	return slices.EqualFunc(a.Spec.Rules, b.Spec.Rules, func(a, b gatewayv1.HTTPRouteRule) bool {
		return slices.EqualFunc(a.BackendRefs, b.BackendRefs, func(a, b gatewayv1.HTTPBackendRef) bool {
			return backendWeight(a) == backendWeight(b) && deref(a.Port) == deref(b.Port) &&
				sameBackend(a.BackendObjectReference, b.BackendObjectReference, "")
		})
	})
}

func summarize(rules []v1alpha1.PlannedRule) string {
	var parts []string
	for _, r := range rules {
		if len(r.Backends) == 0 {
			continue
		}
		var clusters []string
		var weights []int32
		for _, b := range r.Backends {
			clusters, weights = append(clusters, nameOf(b)), append(weights, b.Weight)
		}
		text := summary(clusters, weights)
		if len(rules) > 1 {
			text = r.Name + ": " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func nameOf(b v1alpha1.PlannedBackend) string {
	switch {
	case b.Cluster != "":
		return b.Cluster
	case b.Import != "":
		return "unresolved"
	}
	return "as-written"
}

// routeProgrammed is True when every member has accepted the newest plan, and that gives every backend its share: the weights of
// the route's generation are in force.
func routeProgrammed(s RouteSnapshot, plans map[string]v1alpha1.RoutePlanStatus) metav1.Condition {
	if len(s.Members) == 0 {
		return condition(v1alpha1.RouteProgrammed, metav1.ConditionFalse, v1alpha1.ReasonNoMembers, "there is no MemberCluster: join one")
	}
	if len(plans) == 0 {
		return condition(v1alpha1.RouteProgrammed, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted,
			"no Gateway accepts the route, so no member holds it: see the condition Accepted")
	}
	var worst metav1.Condition
	var waiting []string
	for _, m := range s.Members {
		plan, planned := plans[m.Name]
		if !planned {
			continue
		}
		if c := inForce(plan); c.Status != metav1.ConditionTrue {
			if worst.Type == "" || needs(c) > needs(worst) {
				worst = c
			}
			waiting = append(waiting, m.Name+": "+withoutMember(c.Message, m.Name))
		}
	}
	if len(waiting) > 0 {
		return condition(v1alpha1.RouteProgrammed, worst.Status, worst.Reason, strings.Join(waiting, "; "))
	}
	return condition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "accepted by every member's controller")
}

// inForce is whether a member has programmed a plan, and nothing in that plan waits for the next one: what is new is listed
// first, and given its share once the member has seen it.
func inForce(plan v1alpha1.RoutePlanStatus) metav1.Condition {
	c := *findCondition(plan.Conditions, v1alpha1.PlanProgrammed)
	for _, rule := range plan.Rules {
		for _, b := range rule.Backends {
			if c.Status == metav1.ConditionTrue && b.Reason == v1alpha1.WeightResolving {
				return condition(v1alpha1.PlanProgrammed, metav1.ConditionFalse, v1alpha1.ReasonPending,
					fmt.Sprintf("%s is new there, and its share follows once the member has seen it", strings.TrimSuffix(b.Import+" in "+b.Cluster, " in ")))
			}
		}
	}
	return c
}

// withoutMember is a message of the write path without the member's name, where that is said before it.
func withoutMember(message, member string) string {
	return strings.TrimPrefix(message, "member "+member+": ")
}

// needs orders what is not programmed: what a person has to mend comes before what is not known, and that before what
// only takes a moment.
func needs(c metav1.Condition) int {
	switch {
	case c.Reason == v1alpha1.ReasonPending:
		return 0
	case c.Status == metav1.ConditionUnknown:
		return 1
	}
	return 2
}

// trafficShifted is True while clusters take no share, or less or more than theirs, because of their health or of a
// person's word. What is worst gives the reason.
func trafficShifted(s RouteSnapshot, plan RoutePlan) metav1.Condition {
	said := map[string][]string{}
	for _, m := range s.Members {
		for _, b := range plan.Members[m.Name].displaced {
			where := b.Import
			if b.Cluster != "" {
				where += " in " + b.Cluster
			}
			said[displacedBy(b)] = append(said[displacedBy(b)], where+": "+b.Message)
		}
		for _, rule := range plan.Members[m.Name].Rules {
			for _, b := range rule.Backends {
				switch {
				case b.Reason == v1alpha1.WeightHeld:
					said[v1alpha1.ReasonNoFitCluster] = append(said[v1alpha1.ReasonNoFitCluster], b.Import+" in "+b.Cluster)
				case b.Reason == v1alpha1.WeightOver:
					said[v1alpha1.ReasonCapacityExceeded] = append(said[v1alpha1.ReasonCapacityExceeded], b.Import+" in "+b.Cluster+": "+b.Message)
				case slices.Contains(weightByOverride, b.Reason):
					said[v1alpha1.ReasonOverridden] = append(said[v1alpha1.ReasonOverridden], b.Message)
				}
			}
		}
	}
	for _, shift := range trafficShifts {
		if texts := said[shift.reason]; len(texts) > 0 {
			slices.Sort(texts)
			return condition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, shift.reason, shift.message+strings.Join(slices.Compact(texts), shift.between))
		}
	}
	return condition(v1alpha1.RouteTrafficShifted, metav1.ConditionFalse, v1alpha1.ReasonAsIntended, "every share is where its intent says")
}

// trafficShifts are the reasons of TrafficShifted, the worst first.
var trafficShifts = []struct{ reason, message, between string }{
	{v1alpha1.ReasonNoFitCluster, "no cluster is fit, so the split stays as it is, for ", ", "},
	{v1alpha1.ReasonCapacityExceeded, "clusters carry more than they can: ", "; "},
	{v1alpha1.ReasonFailedOver, "the other clusters take the share of: ", "; "},
	{v1alpha1.ReasonAwaitingFailback, "the other clusters take the share of: ", "; "},
	{v1alpha1.ReasonDegraded, "the other clusters take a part of the share of: ", "; "},
	{v1alpha1.ReasonFailingBack, "the other clusters still take a part of the share of: ", "; "},
	{v1alpha1.ReasonOverridden, "by a person's word: ", "; "},
}

// displacedBy is why a share is served elsewhere, as a reason of TrafficShifted.
func displacedBy(b v1alpha1.PlannedBackend) string {
	switch b.Reason {
	case v1alpha1.WeightDrained:
		return v1alpha1.ReasonOverridden
	case v1alpha1.WeightAwaiting:
		return v1alpha1.ReasonAwaitingFailback
	case v1alpha1.WeightDegraded:
		return v1alpha1.ReasonDegraded
	case v1alpha1.WeightHolding, v1alpha1.WeightReturning:
		return v1alpha1.ReasonFailingBack
	}
	return v1alpha1.ReasonFailedOver
}

// weightByOverride are the reasons of weights that a TrafficOverride gives.
var weightByOverride = []string{v1alpha1.WeightOnHold, v1alpha1.WeightFrozen, v1alpha1.WeightPinned}

// RoutePlanName is the name of the RoutePlan of a route in a member.
func RoutePlanName(kind, route, member string) string {
	return boundedName(253, kind, route, member)
}
