// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// OverrideSnapshot is what the status of one TrafficOverride depends on.
type OverrideSnapshot struct {
	Override *v1alpha1.TrafficOverride
	// All overrides, itself among them.
	All []*v1alpha1.TrafficOverride
	// Now decides what has expired.
	Now time.Time
	// Members are the names of all MemberClusters.
	Members []string
	// Routes and Imports are those of the named ones that exist in the hub.
	Routes, Imports []v1alpha1.ObjectReference
	// Plans are all RoutePlans.
	Plans []v1alpha1.RoutePlan
}

// OverrideStatus is what became of an override: Accepted, InForce and, of a drain, Drained.
func OverrideStatus(s OverrideSnapshot) v1alpha1.TrafficOverrideStatus {
	missing := s.missing()
	inForce := s.inForce(missing)
	status := v1alpha1.TrafficOverrideStatus{ObservedGeneration: s.Override.Generation,
		Conditions: []metav1.Condition{overrideAccepted(missing), inForce}}
	if s.Override.Spec.Type == v1alpha1.OverrideDrain {
		drained, since := s.drained(inForce.Status == metav1.ConditionTrue)
		status.Conditions, status.EmptySince = append(status.Conditions, drained), since
	}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = s.Override.Generation
	}
	return status
}

func overrideAccepted(missing []string) metav1.Condition {
	if len(missing) > 0 {
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonTargetNotFound,
			"there is no "+strings.Join(missing, ", no ")+": correct the name, or create it; what is there is overridden all the same")
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "everything that it names is there")
}

// missing is what the override names and does not exist.
func (s OverrideSnapshot) missing() []string {
	spec, out := s.Override.Spec, []string{}
	if spec.Cluster != "" && !slices.Contains(s.Members, spec.Cluster) {
		out = append(out, "MemberCluster "+spec.Cluster)
	}
	for _, w := range spec.Weights {
		if !slices.Contains(s.Members, w.Cluster) {
			out = append(out, "MemberCluster "+w.Cluster)
		}
	}
	for _, ref := range spec.Imports {
		if !slices.Contains(s.Imports, ref) {
			out = append(out, "ServiceImport "+ref.Namespace+"/"+ref.Name)
		}
	}
	for _, ref := range spec.Routes {
		if !slices.Contains(s.Routes, ref) {
			out = append(out, "HTTPRoute "+ref.Namespace+"/"+ref.Name)
		}
	}
	slices.Sort(out)
	return out
}

// inForce goes through what can keep an override from deciding, in this order:
//
//	it has expired                          False Expired
//	nothing that it names is there          False TargetNotFound
//	a stronger one decides all that it says False Conflicted
//	a stronger one decides a part of it     True, and the message names it
func (s OverrideSnapshot) inForce(missing []string) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return condition(v1alpha1.OverrideInForce, metav1.ConditionFalse, reason, message)
	}
	if Expired(s.Override, s.Now) {
		return no(v1alpha1.ReasonExpired, "it ended by itself at spec.expires: delete it, or give it a later end")
	}
	if len(missing) > 0 && !s.concernsAnything() {
		return no(v1alpha1.ReasonTargetNotFound, "nothing that it names is there, so it does nothing: correct the names")
	}
	weaker, whole := s.overruled()
	message := "in force"
	if s.Override.Spec.Expires == nil {
		message += " until it is deleted"
	}
	if len(weaker) == 0 {
		return condition(v1alpha1.OverrideInForce, metav1.ConditionTrue, v1alpha1.ReasonInForce, message)
	}
	text := strings.Join(weaker, "; ")
	if whole {
		return no(v1alpha1.ReasonConflicted, "it does nothing, since stronger ones decide: "+text+"; delete one of them")
	}
	return condition(v1alpha1.OverrideInForce, metav1.ConditionTrue, v1alpha1.ReasonInForce, message+", but "+text)
}

// concernsAnything tells whether any of what it names is there: a cluster to drain or to send to, and something that
// is to be sent.
func (s OverrideSnapshot) concernsAnything() bool {
	spec := s.Override.Spec
	switch spec.Type {
	case v1alpha1.OverrideDrain, v1alpha1.OverrideFailback:
		return slices.Contains(s.Members, spec.Cluster) && (len(spec.Imports) == 0 || len(s.Imports) > 0)
	case v1alpha1.OverridePin:
		return len(s.Routes) > 0 && slices.ContainsFunc(spec.Weights, func(w v1alpha1.ClusterWeight) bool {
			return w.Weight > 0 && slices.Contains(s.Members, w.Cluster)
		})
	case v1alpha1.OverrideHold:
		return len(s.Routes) > 0
	case v1alpha1.OverrideFreeze:
	}
	return true
}

// overruled says which stronger overrides decide what, and whether they leave nothing over.
func (s OverrideSnapshot) overruled() (by []string, whole bool) {
	spec, all := s.Override.Spec, OverridesInForce(s.All, s.Now)
	if freeze := all.freeze(); freeze != nil && spec.Type != v1alpha1.OverrideFreeze {
		return []string{fmt.Sprintf("TrafficOverride %s freezes everything", freeze.Name)}, true
	}
	switch spec.Type {
	case v1alpha1.OverrideDrain:
		for _, hold := range all {
			if hold.Spec.Type == v1alpha1.OverrideHold {
				by = append(by, fmt.Sprintf("TrafficOverride %s holds %s", hold.Name, listRefs(hold.Spec.Routes)))
			}
		}
	case v1alpha1.OverridePin:
		return s.overruledPin(all)
	case v1alpha1.OverrideFailback:
		return s.overruledFailback(all)
	case v1alpha1.OverrideHold, v1alpha1.OverrideFreeze:
	}
	return by, false
}

// overruledFailback: what is drained does not return, whoever lets it.
func (s OverrideSnapshot) overruledFailback(all Overrides) (by []string, whole bool) {
	spec := s.Override.Spec
	if whole = all.drainsAll(spec.Cluster); !whole && len(spec.Imports) > 0 {
		whole = !slices.ContainsFunc(spec.Imports, func(ref v1alpha1.ObjectReference) bool {
			return all.drain(spec.Cluster, ServiceKey{ref.Namespace, ref.Name}) == nil
		})
	}
	for _, drain := range all {
		if d := drain.Spec; d.Type == v1alpha1.OverrideDrain && d.Cluster == spec.Cluster && (len(d.Imports) == 0 || len(spec.Imports) == 0 ||
			slices.ContainsFunc(spec.Imports, func(ref v1alpha1.ObjectReference) bool { return slices.Contains(d.Imports, ref) })) {
			by = append(by, fmt.Sprintf("TrafficOverride %s drains %s", drain.Name, spec.Cluster))
		}
	}
	return by, whole
}

func (s OverrideSnapshot) overruledPin(all Overrides) (by []string, whole bool) {
	left := len(s.Override.Spec.Routes)
	for _, ref := range s.Override.Spec.Routes {
		route := ServiceKey{ref.Namespace, ref.Name}
		if hold := all.hold(route); hold != nil {
			by, left = append(by, fmt.Sprintf("TrafficOverride %s holds HTTPRoute %s", hold.Name, route)), left-1
		} else if older := all.pin(route); older != nil && older.Name != s.Override.Name {
			by, left = append(by, fmt.Sprintf("the older TrafficOverride %s pins HTTPRoute %s", older.Name, route)), left-1
		}
	}
	undrained := false
	for _, w := range s.Override.Spec.Weights {
		if w.Weight == 0 {
			continue
		}
		drain := all.first(func(d v1alpha1.TrafficOverrideSpec) bool {
			return d.Type == v1alpha1.OverrideDrain && d.Cluster == w.Cluster && len(d.Imports) == 0
		})
		if undrained = undrained || drain == nil; drain != nil {
			by = append(by, fmt.Sprintf("TrafficOverride %s drains %s", drain.Name, w.Cluster))
		}
	}
	return by, left == 0 || !undrained
}

func listRefs(refs []v1alpha1.ObjectReference) string {
	var out []string
	for _, ref := range refs {
		out = append(out, "HTTPRoute "+ref.Namespace+"/"+ref.Name)
	}
	return strings.Join(out, ", ")
}

// drained says whether anything is still sent to a drained cluster, from what the members hold and have confirmed, and
// since when nothing is. What the cluster had before then is given the grace period to end.
func (s OverrideSnapshot) drained(inForce bool) (drained metav1.Condition, emptySince *metav1.Time) {
	no := func(reason, message string) metav1.Condition {
		return condition(v1alpha1.OverrideDrained, metav1.ConditionFalse, reason, message)
	}
	if !inForce {
		return no(v1alpha1.ReasonNotInForce, "nothing is drained while it is not in force"), nil
	}
	cluster, flow := s.Override.Spec.Cluster, s.flow()
	switch {
	case len(flow.blocked) > 0:
		return no(v1alpha1.ReasonDrainBlocked, fmt.Sprintf("no other cluster can serve, so %s goes on with %s: bring another cluster back, or set spec.force to drain it all the same",
			cluster, strings.Join(flow.blocked, ", "))), nil
	case len(flow.open) > 0:
		return no(v1alpha1.ReasonDraining, fmt.Sprintf("%s is still sent requests by %s", cluster, strings.Join(flow.open, ", "))), nil
	case len(flow.unconfirmed) > 0:
		return no(v1alpha1.ReasonDraining, "not confirmed yet: "+strings.Join(flow.unconfirmed, ", ")), nil
	}
	emptySince = s.Override.Status.EmptySince
	if emptySince == nil {
		emptySince = &metav1.Time{Time: s.Now.Truncate(time.Second)} // as it is kept
	}
	if grace := s.Override.Spec.DrainGrace(); s.Now.Before(emptySince.Add(grace)) {
		return no(v1alpha1.ReasonSettling, fmt.Sprintf("nothing new is sent to %s; the requests that it has are given %s to end", cluster, grace)), emptySince
	}
	return condition(v1alpha1.OverrideDrained, metav1.ConditionTrue, v1alpha1.ReasonDrained, fmt.Sprintf(
		"no route in any member sends anything to %s, every member has confirmed it, and the requests that it had were given %s to end",
		cluster, s.Override.Spec.DrainGrace())), emptySince
}

// flow is what is still sent to a drained cluster: by routes that nobody else could serve, by others, and by routes
// of which a member has not yet said that it holds the newest. Sorted.
type flow struct{ blocked, open, unconfirmed []string }

func (s OverrideSnapshot) flow() flow {
	var f flow
	for _, plan := range s.Plans {
		_, route, _ := strings.Cut(plan.Status.Route, "/")
		name := fmt.Sprintf("HTTPRoute %s/%s in %s", plan.Namespace, route, plan.Status.Member)
		concerned, sends, blocked := s.concerns(plan.Status)
		switch programmed := findCondition(plan.Status.Conditions, v1alpha1.PlanProgrammed); {
		case blocked:
			f.blocked = append(f.blocked, name)
		case sends:
			f.open = append(f.open, name)
		case concerned && programmed != nil && programmed.Status != metav1.ConditionTrue:
			f.unconfirmed = append(f.unconfirmed, name+" ("+programmed.Reason+")")
		case concerned && programmed == nil:
			f.unconfirmed = append(f.unconfirmed, name)
		}
	}
	slices.Sort(f.blocked)
	slices.Sort(f.open)
	slices.Sort(f.unconfirmed)
	return f
}

// concerns tells whether a plan names what is drained, whether it still sends something there, and whether that is
// because nobody else could serve it. A backend that a route passes on as written is served in the cluster that its
// request entered, which only the drain of a whole cluster is about.
func (s OverrideSnapshot) concerns(plan v1alpha1.RoutePlanStatus) (concerned, sends, blocked bool) {
	drain := Overrides{s.Override}
	for _, rule := range plan.Rules {
		for _, b := range rule.Backends {
			namespace, name, _ := strings.Cut(b.Import, "/")
			asWritten := b.Import == "" && plan.Member == s.Override.Spec.Cluster && drain.drainsAll(plan.Member)
			if !asWritten && (b.Import == "" || drain.drain(b.Cluster, ServiceKey{namespace, name}) == nil) {
				continue
			}
			concerned = true
			sends = sends || b.Weight > 0
			blocked = blocked || b.Weight > 0 && (b.Reason == v1alpha1.WeightDrainBlocked || b.Reason == v1alpha1.WeightHeld)
		}
	}
	return concerned, sends, blocked
}
