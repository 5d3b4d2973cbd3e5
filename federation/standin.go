// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// expandedBackend is one backendRef of a rule as it is spread over the clusters.
type expandedBackend struct {
	weight uint64
	slots  []slot
}

// served tells whether a cluster that takes a share of it can be sent requests now.
func (b expandedBackend) served() bool {
	return slices.ContainsFunc(b.slots, func(e slot) bool { return e.served && e.fraction.Parts > 0 })
}

// had is the weight that was last decided for it.
func (b expandedBackend) had() uint64 {
	var sum uint64
	for _, e := range b.slots {
		sum += e.had
	}
	return sum
}

// standIn changes the weights of a rule that a client wrote which does not know whether its backends can serve: what such a
// client leaves behind takes no request away, and what it moves everything to in one write gets it once it is there.
//
//	some backend with weight is served | one without, that had some before, is | then
//	yes                                | any                                   | those that are served share all, and the rest waits at 0
//	no                                 | yes                                   | it goes on as before until another can serve
//	no                                 | no                                    | as written: there is nobody to stand in
func standIn(backends []expandedBackend) {
	keep := func(b expandedBackend) bool { return b.weight > 0 && b.served() }
	if !slices.ContainsFunc(backends, keep) {
		before := func(b expandedBackend) bool { return b.weight == 0 && b.had() > 0 && b.served() }
		if !slices.ContainsFunc(backends, before) {
			return
		}
		for i := range backends {
			if before(backends[i]) {
				backends[i].goOn()
			}
		}
	}
	for i := range backends {
		if b := &backends[i]; b.weight > 0 && !b.served() {
			b.wait()
		}
	}
}

// wait leaves the share to the other backends. Every cluster stays listed, so that it gets its share by one write.
func (b *expandedBackend) wait() {
	b.weight = 0
	for i := range b.slots {
		e := &b.slots[i]
		// A member's controller says of a route that names what does not exist that it is not as it should be.
		e.unwritten = e.planned.Cluster == ""
		if e.fraction.Parts == 0 || e.absence.reason == "" {
			continue // nobody exports it, which it says itself
		}
		e.waits = true
		e.planned.Reason, e.planned.Message = e.absence.reason, e.absence.message+"; the other backends of its rule take its share"
	}
}

// unanswered is what becomes of the share of a backend that nobody exports (Gateway API, HTTPBackendRef).
func (s routePlanner) unanswered() string {
	if readsImports(s.Route) {
		return "the other backends of its rule take its share, and where none of them serves it answers 500"
	}
	return "its share answers 500"
}

// goOn lets a backend from which everything was moved serve as before.
func (b *expandedBackend) goOn() {
	b.weight = b.had()
	for i := range b.slots {
		if e := &b.slots[i]; e.fraction.Parts > 0 {
			e.planned.Reason, e.planned.Message = v1alpha1.WeightKept, "as before, until the backend to which the route moves it can serve"
		}
	}
}

// absence is why a cluster that takes a share cannot be sent requests now.
type absence struct{ reason, message string }

func absenceOf(c Candidate) absence {
	switch {
	case c.Resolving:
		return absence{v1alpha1.WeightResolving, "new here: weight follows once the member has resolved it"}
	case !c.Serving():
		return absence{weightOut(c.Finding.Verdict, c.Before), c.Finding.Message}
	}
	return absence{}
}
