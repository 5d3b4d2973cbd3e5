// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Shift is a change of a route's split for the requests that enter one member.
type Shift struct {
	Member string
	// Reason is one of v1alpha1.Shift…, or FailedOver.
	Reason string
	// Before and After are the splits in a line; Before is empty where there was none.
	Before, After string
	// Seen is what the change rests on: the shares that are not where the intent alone would put them, and those that
	// were not and now are.
	Seen []Observation
}

// Observation is what was seen of a service in a cluster, by whom, and what its share is because of it.
type Observation struct {
	Import  string `json:"import"`
	Cluster string `json:"cluster"`
	Verdict string `json:"verdict,omitempty"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// ShiftOf is what changed between two plans of a route for one member; false where the split is the same.
func ShiftOf(was, is v1alpha1.RoutePlanStatus) (Shift, bool) {
	if was.Summary == is.Summary {
		return Shift{}, false
	}
	return Shift{Member: is.Member, Reason: shiftReason(was, is), Before: was.Summary, After: is.Summary,
		Seen: observations(was, is)}, true
}

// Explain says in a line what moved in the member and why.
func (s Shift) Explain() string {
	var why []string
	for _, o := range s.Seen {
		line := strings.TrimSpace(o.Cluster + ": " + o.Message)
		if slices.Contains(displacing, o.Reason) && !slices.Contains(why, line) {
			why = append(why, line)
		}
	}
	return s.move().String() + inBrackets(why)
}

func (s Shift) move() Move { return Move{s.Member, s.Before, s.After} }

// inBrackets are reasons behind what they explain; empty where there are none.
func inBrackets(why []string) string {
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, "; ") + ")"
}

// displacing are the reasons of shares that are not where the intent alone would put them.
var displacing = slices.Concat(failedOver, weightByHealth, weightByOverride,
	[]string{v1alpha1.WeightDrained, v1alpha1.WeightDrainBlocked, v1alpha1.WeightOver})

// shiftReason is the first that holds: somebody drained a cluster or ended a drain, a cluster became unfit or lost a part of
// its endpoints, one that was out begins to come back or is back, one takes another step on its way, anything else.
func shiftReason(was, is v1alpha1.RoutePlanStatus) string {
	switch {
	case began(was, is, v1alpha1.WeightDrained):
		return v1alpha1.ShiftDrained
	case began(is, was, v1alpha1.WeightDrained):
		return v1alpha1.ShiftUndrained
	case began(was, is, failedOver...):
		return v1alpha1.ReasonFailedOver
	case began(was, is, v1alpha1.WeightDegraded):
		return v1alpha1.ShiftDegraded
	case began(was, is, v1alpha1.WeightReturning), began(is, was, slices.Concat(failedOver, weightByHealth)...) && !returning(was):
		return v1alpha1.ShiftFailedBack
	case returning(was):
		return v1alpha1.ShiftReturning
	}
	return v1alpha1.ShiftWeightsChanged
}

// failedOver are the reasons of shares that were taken from a cluster for its health.
var failedOver = []string{v1alpha1.WeightUnfit, v1alpha1.WeightSuspected}

// returning tells whether any share grows step by step.
func returning(s v1alpha1.RoutePlanStatus) bool {
	return len(sharesWith(s, v1alpha1.WeightReturning)) > 0
}

// began tells whether any share has one of the reasons after and had none of them before.
func began(before, after v1alpha1.RoutePlanStatus, reasons ...string) bool {
	had := sharesWith(before, reasons...)
	return slices.ContainsFunc(sharesWith(after, reasons...), func(s Observation) bool {
		return !slices.ContainsFunc(had, s.sameShare)
	})
}

func (o Observation) sameShare(other Observation) bool {
	return o.Import == other.Import && o.Cluster == other.Cluster
}

// sharesWith are the shares that have one of the reasons, sorted and each once.
func sharesWith(status v1alpha1.RoutePlanStatus, reasons ...string) []Observation {
	return sharesWhere(status, func(o Observation) bool { return slices.Contains(reasons, o.Reason) })
}

// observations are the shares that are displaced now, and as they are now those that were displaced before.
func observations(was, is v1alpha1.RoutePlanStatus) []Observation {
	before := sharesWith(was, displacing...)
	return sharesWhere(is, func(o Observation) bool {
		return slices.Contains(displacing, o.Reason) || slices.ContainsFunc(before, o.sameShare)
	})
}

// sharesWhere are the shares that are meant, sorted and each once.
func sharesWhere(status v1alpha1.RoutePlanStatus, meant func(Observation) bool) []Observation {
	var out []Observation
	for _, rule := range status.Rules {
		for _, b := range rule.Backends {
			o := Observation{b.Import, b.Cluster, b.Verdict, b.Reason, b.Message}
			if meant(o) && !slices.Contains(out, o) {
				out = append(out, o)
			}
		}
	}
	slices.SortFunc(out, compareObservations)
	return out
}

func compareObservations(a, b Observation) int {
	return slices.Compare([]string{a.Import, a.Cluster, a.Reason, a.Message}, []string{b.Import, b.Cluster, b.Reason, b.Message})
}
