// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Overrides are the words of people that are in force, the oldest first. Which of them decides is the table above
// v1alpha1.TrafficOverride.
type Overrides []*v1alpha1.TrafficOverride

// OverridesInForce leaves out what has expired at a time, and what is being deleted.
func OverridesInForce(all []*v1alpha1.TrafficOverride, now time.Time) Overrides {
	var out Overrides
	for _, o := range all {
		if o.DeletionTimestamp == nil && !Expired(o, now) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.TrafficOverride) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return out
}

// Expired tells whether an override has ended by itself.
func Expired(o *v1alpha1.TrafficOverride, now time.Time) bool {
	return o.Spec.Expires != nil && !now.Before(o.Spec.Expires.Time)
}

// first is the first override that will do, or nil.
func (o Overrides) first(does func(v1alpha1.TrafficOverrideSpec) bool) *v1alpha1.TrafficOverride {
	i := slices.IndexFunc(o, func(o *v1alpha1.TrafficOverride) bool { return does(o.Spec) })
	if i < 0 {
		return nil
	}
	return o[i]
}

// freeze is what keeps everything as it is, or nil.
func (o Overrides) freeze() *v1alpha1.TrafficOverride {
	return o.first(func(s v1alpha1.TrafficOverrideSpec) bool { return s.Type == v1alpha1.OverrideFreeze })
}

// hold is what keeps a route's weights as they were last decided, or nil: a freeze, else a hold of that route.
func (o Overrides) hold(route ServiceKey) *v1alpha1.TrafficOverride {
	if freeze := o.freeze(); freeze != nil {
		return freeze
	}
	return o.first(func(s v1alpha1.TrafficOverrideSpec) bool {
		return s.Type == v1alpha1.OverrideHold && names(s.Routes, route)
	})
}

// pin is what gives a route its weights, or nil. Of several the oldest holds.
func (o Overrides) pin(route ServiceKey) *v1alpha1.TrafficOverride {
	return o.first(func(s v1alpha1.TrafficOverrideSpec) bool {
		return s.Type == v1alpha1.OverridePin && names(s.Routes, route)
	})
}

// drain is what drains a service in a cluster, or nil. A forced one comes before one that is not.
func (o Overrides) drain(cluster string, service ServiceKey) *v1alpha1.TrafficOverride {
	drains := func(s v1alpha1.TrafficOverrideSpec) bool {
		return s.Type == v1alpha1.OverrideDrain && s.Cluster == cluster && (len(s.Imports) == 0 || names(s.Imports, service))
	}
	if forced := o.first(func(s v1alpha1.TrafficOverrideSpec) bool { return s.Force && drains(s) }); forced != nil {
		return forced
	}
	return o.first(drains)
}

// drainsAll tells whether a cluster is drained as a whole.
func (o Overrides) drainsAll(cluster string) bool {
	return o.first(func(s v1alpha1.TrafficOverrideSpec) bool {
		return s.Type == v1alpha1.OverrideDrain && s.Cluster == cluster && len(s.Imports) == 0
	}) != nil
}

// failback is when a person last let a service return to a cluster; the zero value where nobody did.
func (o Overrides) failback(cluster string, service ServiceKey) time.Time {
	var said time.Time
	for _, word := range o {
		if s := word.Spec; s.Type == v1alpha1.OverrideFailback && s.Cluster == cluster && (len(s.Imports) == 0 || names(s.Imports, service)) {
			said = word.CreationTimestamp.Time // the youngest is last
		}
	}
	return said
}

func names(refs []v1alpha1.ObjectReference, key ServiceKey) bool {
	return slices.Contains(refs, v1alpha1.ObjectReference{Namespace: key.Namespace, Name: key.Name})
}

// pinned marks the candidates to which a pin gives weight, and tells whether there are any: where there are none, the
// pin says nothing of the backend.
func pinned(pin *v1alpha1.TrafficOverride, candidates []Candidate) bool {
	if pin == nil {
		return false
	}
	found := false
	for _, w := range pin.Spec.Weights {
		for i := range candidates {
			if candidates[i].Cluster == w.Cluster && w.Weight > 0 {
				candidates[i].Pinned, found = pin.Name, true
			}
		}
	}
	return found
}

// pinOf names the pin that gives weight to any of the candidates; empty where there is none.
func pinOf(candidates []Candidate) string {
	for _, c := range candidates {
		if c.Pinned != "" {
			return c.Pinned
		}
	}
	return ""
}

// holdSlots gives each slot of a rule the weight that was last decided for it, to the last unit. What is new since
// takes nothing, and the share of what is gone goes to those that are left. Where nothing was decided before, or
// nothing of it is left, there is nothing to hold.
func holdSlots(slots []slot, last v1alpha1.PlannedRule, hold *v1alpha1.TrafficOverride) []slot {
	weights, sum := lastWeights(slots, last)
	if sum == 0 {
		return slots
	}
	reason, message := v1alpha1.WeightOnHold, "held by TrafficOverride "+hold.Name
	if hold.Spec.Type == v1alpha1.OverrideFreeze {
		reason, message = v1alpha1.WeightFrozen, "frozen by TrafficOverride "+hold.Name
	}
	for i := range slots {
		e := &slots[i]
		e.fraction, e.displaced = Fraction{Weight: weights[i], WeightSum: sum, Parts: 1, PartsSum: 1}, false
		if weights[i] > 0 {
			e.spare = 0
		}
		switch e.planned.Reason {
		case v1alpha1.WeightResolving, v1alpha1.WeightWithdrawing, v1alpha1.ReasonImportNotFound:
			// How far the member has come is not a matter of weights.
		default:
			e.planned.Reason, e.planned.Message = reason, message
			if weights[i] > 0 && Verdict(e.planned.Verdict).out() {
				e.planned.Message += ", although it is not fit"
			}
		}
	}
	// A drain that is weaker than the hold needs nobody to stand for it.
	return slices.DeleteFunc(slots, func(e slot) bool { return e.refuses && e.fraction.Weight == 0 })
}

// lastWeights are the weights that were last decided for slots, and their sum. Each is taken once: two references to
// one import are two slots. An import that exists no longer keeps what its clusters had.
func lastWeights(slots []slot, last v1alpha1.PlannedRule) ([]uint64, uint64) {
	weights, left, sum := make([]uint64, len(slots)), slices.Clone(last.Backends), uint64(0)
	take := func(i int, same func(v1alpha1.PlannedBackend) bool) bool {
		j := slices.IndexFunc(left, same)
		if j < 0 {
			return false
		}
		weight := uint64(max(0, left[j].Weight))
		weights[i], sum, left = weights[i]+weight, sum+weight, slices.Delete(left, j, j+1)
		return true
	}
	for i, e := range slots {
		if e.planned.Reason != v1alpha1.WeightWithdrawing {
			take(i, func(b v1alpha1.PlannedBackend) bool {
				return b.Import == e.planned.Import && b.Port == e.planned.Port && b.Cluster == e.planned.Cluster
			})
		}
	}
	for i, e := range slots {
		gone := e.planned.Reason == v1alpha1.ReasonImportNotFound
		for gone && take(i, func(b v1alpha1.PlannedBackend) bool { return b.Import == e.planned.Import }) {
			continue
		}
	}
	return weights, sum
}
