// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Alert is what a person on call wants to hear of at once: what happened to which object, what moved, and what was
// seen that made it move. As JSON it is the data of the CloudEvent; fields are added to it and never renamed.
type Alert struct {
	// Reason is one of AlertReasons.
	Reason string `json:"reason"`
	// Severity is "warning" where requests are, or may soon be, worse off for it; else "info".
	Severity string      `json:"severity"`
	Object   AlertObject `json:"object"`
	// Summary is the whole in a line.
	Summary string `json:"summary"`
	// Moved are the splits before and after, by the member that requests enter; none where nothing moved.
	Moved []Move `json:"moved,omitempty"`
	// Seen is what it rests on: who is judged how, and by what.
	Seen []Observation `json:"seen,omitempty"`
	// Author and Why are a person's, of a TrafficOverride.
	Author string `json:"author,omitempty"`
	Why    string `json:"why,omitempty"`
}

// AlertObject is what an alert is about.
type AlertObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (o AlertObject) String() string {
	return o.Kind + " " + strings.TrimPrefix(o.Namespace+"/"+o.Name, "/")
}

// Move is the split of the requests that enter a member, before and after.
type Move struct {
	Member string `json:"member"`
	Before string `json:"before,omitempty"`
	After  string `json:"after"`
}

func (m Move) String() string {
	text := fmt.Sprintf("requests that enter %s: %s", m.Member, m.After)
	if m.Before != "" {
		text += ", before: " + m.Before
	}
	return text
}

// Severities of an Alert.
const (
	SeverityInfo    = "info"
	SeverityWarning = "warning"
)

// AlertReasons are all the reasons of an Alert, by its severity. What is not here makes an Event at most.
//
//	FailedOver, FailedBack, Drained, Undrained  a route's split changed for it
//	NoFitCluster                                a route has a backend that nobody serves: nothing moves
//	GuardHolds, ProbeMisconfigured,
//	MetricIllEverywhere                         what probes or metrics see is not acted on: nothing moves
//	InForce, Expired, Ended                     a Freeze or a Hold began or ended
//	Drained, DrainBlocked                       what a Drain empties is empty, or cannot be
//	RolloutAborted, RolloutLate, RolloutWaits,
//	RolloutCompleted                            a rollout went back, makes no progress, cannot decide, or is at its end
var AlertReasons = map[string]string{
	v1alpha1.ReasonFailedOver: SeverityWarning, v1alpha1.ShiftFailedBack: SeverityInfo,
	v1alpha1.ShiftDrained: SeverityInfo, v1alpha1.ShiftUndrained: SeverityInfo,
	v1alpha1.ReasonNoFitCluster: SeverityWarning,
	v1alpha1.ReasonGuardHolds:   SeverityWarning, v1alpha1.ReasonProbeMisconfigured: SeverityWarning,
	v1alpha1.ReasonMetricIllEverywhere: SeverityWarning,
	v1alpha1.ReasonInForce:             SeverityWarning, v1alpha1.ReasonExpired: SeverityInfo, v1alpha1.ReasonEnded: SeverityInfo,
	v1alpha1.ReasonDrainBlocked:   SeverityWarning,
	v1alpha1.ReasonRolloutAborted: SeverityWarning, v1alpha1.ReasonRolloutLate: SeverityWarning, v1alpha1.ReasonRolloutWaits: SeverityWarning,
	v1alpha1.ReasonRolloutCompleted: SeverityInfo,
}

// notBelieved are the reasons of Probed that are told at once.
var notBelieved = []string{v1alpha1.ReasonGuardHolds, v1alpha1.ReasonProbeMisconfigured, v1alpha1.ReasonMetricIllEverywhere}

// RouteAlerts are what to say of a route's shifts, one for each reason, in the order of the reasons' names.
func RouteAlerts(namespace, name string, shifts []Shift) []Alert {
	byReason := map[string]*Alert{}
	for _, s := range shifts {
		severity, alerts := AlertReasons[s.Reason]
		if !alerts {
			continue
		}
		a := byReason[s.Reason]
		if a == nil {
			a = &Alert{Reason: s.Reason, Severity: severity, Object: AlertObject{"HTTPRoute", namespace, name}}
			byReason[s.Reason] = a
		}
		a.Moved = append(a.Moved, s.move())
		a.Seen = append(a.Seen, s.Seen...)
	}
	out := make([]Alert, 0, len(byReason))
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		out = append(out, byReason[reason].tidied())
	}
	return out
}

// ConditionAlert is what to say of a condition of a route or an override that changed, if anything.
func ConditionAlert(object AlertObject, was *metav1.Condition, is metav1.Condition) (Alert, bool) {
	known := is.Type == v1alpha1.RouteTrafficShifted && is.Reason == v1alpha1.ReasonNoFitCluster ||
		is.Type == v1alpha1.RouteProbed && slices.Contains(notBelieved, is.Reason) ||
		is.Type == v1alpha1.OverrideInForce && (is.Reason == v1alpha1.ReasonInForce || is.Reason == v1alpha1.ReasonExpired) ||
		is.Type == v1alpha1.OverrideDrained && (is.Reason == v1alpha1.ReasonDrained || is.Reason == v1alpha1.ReasonDrainBlocked)
	if !known || was != nil && was.Reason == is.Reason {
		return Alert{}, false
	}
	return Alert{Reason: is.Reason, Severity: AlertReasons[is.Reason], Object: object,
		Summary: fmt.Sprintf("%s: %s: %s", object, is.Reason, is.Message)}, true
}

// OverrideAlert is what to say of an override's condition that changed. Of a Drain only what became of it counts, since
// the routes that it moves say the rest; of a Pin nothing, since it is one route's owner that says it.
func OverrideAlert(o *v1alpha1.TrafficOverride, was *metav1.Condition, is metav1.Condition) (Alert, bool) {
	begins := is.Type == v1alpha1.OverrideInForce
	if begins && o.Spec.Type != v1alpha1.OverrideFreeze && o.Spec.Type != v1alpha1.OverrideHold {
		return Alert{}, false
	}
	a, ok := ConditionAlert(AlertObject{"TrafficOverride", "", o.Name}, was, is)
	a.Author, a.Why = o.Spec.Author, o.Spec.Reason
	return a, ok
}

// OverrideEnded is what to say when an override that was in force is deleted.
func OverrideEnded(o *v1alpha1.TrafficOverride) (Alert, bool) {
	if o.Spec.Type != v1alpha1.OverrideFreeze && o.Spec.Type != v1alpha1.OverrideHold {
		return Alert{}, false
	}
	object := AlertObject{"TrafficOverride", "", o.Name}
	return Alert{Reason: v1alpha1.ReasonEnded, Severity: SeverityInfo, Object: object, Author: o.Spec.Author, Why: o.Spec.Reason,
		Summary: fmt.Sprintf("%s: Ended: the %s is over", object, o.Spec.Type)}, true
}

// RolloutAlert is what to say of a rollout's next state, if anything: that it went back, makes no progress any more, waits for a
// verdict that its analysis could not give, or is complete.
func RolloutAlert(r *v1alpha1.TrafficRollout, is v1alpha1.TrafficRolloutStatus) (Alert, bool) {
	var reason string
	was := r.Status
	switch {
	case is.Aborted != "" && was.Aborted == "":
		reason = v1alpha1.ReasonRolloutAborted
	case is.Aborted == "" && is.Phase == v1alpha1.RolloutDegraded && was.Phase != is.Phase:
		reason = v1alpha1.ReasonRolloutLate
	case slices.ContainsFunc(is.Analysis, undecided) && !slices.ContainsFunc(was.Analysis, undecided):
		reason = v1alpha1.ReasonRolloutWaits
	case is.Phase == v1alpha1.RolloutHealthy && was.Phase != is.Phase && !is.Retired:
		reason = v1alpha1.ReasonRolloutCompleted
	default:
		return Alert{}, false
	}
	object := AlertObject{"TrafficRollout", r.Namespace, r.Name}
	return Alert{Reason: reason, Severity: AlertReasons[reason], Object: object, Summary: fmt.Sprintf("%s: %s: %s", object, reason, is.Message)}, true
}

// Merge joins two alerts about one object for one reason: those of several members come moments apart. Where both say
// how requests that enter a member moved, the first says from where and the second to where.
func (a Alert) Merge(b Alert) Alert {
	if len(b.Moved) == 0 {
		return b
	}
	a.Moved = slices.Clone(a.Moved)
	for _, m := range b.Moved {
		if i := slices.IndexFunc(a.Moved, func(have Move) bool { return have.Member == m.Member }); i >= 0 {
			a.Moved[i].After = m.After
			continue
		}
		a.Moved = append(a.Moved, m)
	}
	a.Seen = slices.DeleteFunc(slices.Clone(a.Seen), func(o Observation) bool { return slices.ContainsFunc(b.Seen, o.sameShare) })
	a.Seen = append(a.Seen, b.Seen...)
	return a.tidied()
}

// tidied is the alert with what it says in order and once, and the summary made of it.
func (a Alert) tidied() Alert {
	slices.SortFunc(a.Moved, func(x, y Move) int { return strings.Compare(x.Member, y.Member) })
	slices.SortFunc(a.Seen, compareObservations)
	a.Seen = slices.Compact(a.Seen)
	var moved, why []string
	for _, m := range a.Moved {
		moved = append(moved, m.String())
	}
	for _, o := range a.Seen {
		if line := strings.TrimPrefix(o.Import+" in "+o.Cluster+": "+o.Message, " in "); !slices.Contains(why, line) {
			why = append(why, line)
		}
	}
	a.Summary = fmt.Sprintf("%s: %s: %s", a.Object, a.Reason, strings.Join(moved, "; ")) + inBrackets(why)
	return a
}
