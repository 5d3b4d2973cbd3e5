// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// sideRef is a backend that is an import, with the port that is meant.
type sideRef struct {
	gatewayv1.HTTPBackendRef
	key  ServiceKey
	port int32
}

// sides are the two sides of a backend that a rollout is laid over; the zero value where none is.
type sides struct {
	*overlay
	planner routePlanner
	member  RouteMember
	rule    routedRule
	// old and next are what the route names, and what the rollout leads to; next has no port where it does not resolve.
	old, next sideRef
	// weights are how much of each cluster's part goes to the new side, in percent.
	weights map[string]int32
	// candidates of the new side in their order, is the same by cluster, and wakes when each changes by itself.
	candidates []Candidate
	is         map[string]Candidate
	wakes      map[string]time.Time
	// replaced are the clusters of which the new side stands for the whole, and was what their old sides are.
	replaced map[string]bool
	was      map[string]Candidate
	// kept is how much of a cluster's part the new side keeps although less is said, in hundredths of a percent.
	kept map[string]uint64
}

// layOver makes of the candidates of the old side those that a backend is spread over.
func (s routePlanner) layOver(m RouteMember, rule routedRule, old sideRef, candidates []Candidate) (sides, []Candidate) {
	if s.overlay.moves() {
		return sides{overlay: s.overlay}, s.overlay.judged(candidates)
	}
	both := s.sidesOf(m, rule, old)
	if rule.pinned {
		return both.pin(candidates)
	}
	return both, both.merge(candidates)
}

// sidesOf finds the candidates of the new side.
func (s routePlanner) sidesOf(m RouteMember, rule routedRule, old sideRef) sides {
	out := sides{overlay: s.overlay, planner: s, member: m, rule: rule, old: old, weights: s.overlay.weights, is: map[string]Candidate{},
		wakes: map[string]time.Time{}, replaced: map[string]bool{}, was: map[string]Candidate{}, kept: map[string]uint64{}}
	out.next = sideRef{s.overlay.newRef(old.HTTPBackendRef), ServiceKey{s.Route.Namespace, s.overlay.to.Name}, 0}
	port, problem := s.resolve(out.next.key, out.next.BackendObjectReference)
	if problem != nil {
		return out
	}
	if out.next.port = port; s.overlay.sticks() {
		out.next.HTTPBackendRef = s.overlay.withCookie(out.next.HTTPBackendRef)
	}
	observer := out.observer(out.next)
	out.candidates = observer.observe(s.candidates(m, rule.name, out.next.key, port))
	for i := range out.candidates {
		c := &out.candidates[i]
		c.Resolving = c.Resolving || c.LastWeight == 0 && !seenThere(m.Observed, out.refTo(out.next, c.Cluster).BackendObjectReference)
		out.is[c.Cluster], out.wakes[c.Cluster] = *c, observer.wake(c.State, c.sight())
	}
	return out
}

// observer sees the candidates of a side by the policy that holds for it.
func (s sides) observer(side sideRef) splitter {
	e := EffectivePolicy(s.planner.policyPath(s.rule.HTTPRouteRule, side.key), s.planner.Policies)
	return splitter{Effective: e, Recovery: RecoveryOf(e.Health, e.Failback), entered: s.member.Member, now: s.planner.Now}
}

// pin leads requests that ask for the new side there, whatever its share:
//
//	in the clusters that the rollout reaches, the new side | then
//	may take requests where the policy, or a pin, has some | it takes all, wherever they enter
//	may not                                                | each cluster's part goes where it would at 100
func (s sides) pin(old []Candidate) (sides, []Candidate) {
	var reached []Candidate
	s.weights = map[string]int32{}
	for _, c := range s.candidates {
		if s.reaches(c.Cluster) {
			s.weights[c.Cluster] = 100
			reached = append(reached, c)
		}
	}
	if !s.mayLead(reached) {
		return s, s.merge(old)
	}
	for _, c := range reached {
		s.replaced[c.Cluster] = true
	}
	return s, reached
}

// mayLead tells whether some of the candidates may take requests, not only as a last resort.
func (s sides) mayLead(candidates []Candidate) bool {
	d := s.observer(s.old).Distribution
	if pin := s.planner.Overrides.pin(s.planner.key()); pin != nil {
		d = v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted, Weights: pin.Spec.Weights}
	}
	may := func(c Candidate) bool { return c.Serving() && !c.drained() && c.percent() > 0 }
	if d.Type == v1alpha1.DistributionLocal {
		return slices.ContainsFunc(candidates, may)
	}
	return firstWith(namedTiers(d, candidates), candidates, may) != nil
}

// seenThere tells whether the member's route lists a backend, and the member has looked at that route. A rollout is never in such
// a hurry that a request may meet a backend which is not there yet.
func seenThere(observed *gatewayv1.HTTPRoute, ref gatewayv1.BackendObjectReference) bool {
	if observed == nil {
		return false
	}
	weight, listed := observedWeight(observed, ref)
	return weight > 0 || listed && processed(observed)
}

// merge makes one candidate of the two sides of each cluster:
//
//	weight  | new side serves | old side | the cluster is judged by
//	100     | yes             | any      | the new side
//	100     | no              | there    | the old side, which serves instead
//	less    | any             | there    | the old side, of whose part the new one takes its share
//	less    | any             | none     | nothing: no step says that it is to serve
//
// What the new side keeps counts as weight.
func (s sides) merge(old []Candidate) []Candidate {
	s.keep(old)
	var merged []Candidate
	for _, c := range old {
		is, there := s.is[c.Cluster]
		if there && s.whole(c.Cluster) && is.Serving() {
			s.replaced[c.Cluster], s.was[c.Cluster] = true, c
			merged = append(merged, is)
			continue
		}
		c.LastWeight += is.LastWeight
		merged = append(merged, c)
	}
	for _, is := range s.candidates {
		if s.whole(is.Cluster) && !slices.ContainsFunc(merged, func(m Candidate) bool { return m.Cluster == is.Cluster }) {
			s.replaced[is.Cluster] = true
			merged = append(merged, is)
		}
	}
	return merged
}

// keep lets the new side go on with what it had where it is to give that back, and the old one serves nowhere: an abort would lead
// every request to nobody.
func (s sides) keep(old []Candidate) {
	if s.rule.pinned || slices.ContainsFunc(old, Candidate.Serving) {
		return
	}
	for _, is := range s.candidates {
		had, beside := uint64(max(0, is.LastWeight)), uint64(0)
		if i := slices.IndexFunc(old, func(c Candidate) bool { return c.Cluster == is.Cluster }); i >= 0 {
			beside = uint64(max(0, old[i].LastWeight))
		}
		if !is.Serving() || is.drained() || had == 0 {
			continue
		}
		if share := had * 100 * 100 / (had + beside); share > uint64(s.weights[is.Cluster])*100 {
			s.kept[is.Cluster] = share
		}
	}
}

// whole tells whether the new side is to take all of a cluster's part.
func (s sides) whole(cluster string) bool {
	return s.weights[cluster] == 100 || s.kept[cluster] == 100*100
}

// split gives each cluster's part to its two sides. Both stay listed, so that the way back is one write.
func (s sides) split(slots []slot, candidates []Candidate, sum uint64) []slot {
	if s.moves() {
		s.move(slots, candidates, sum)
		return slots
	}
	scale := scaleOf(sum)
	room := s.pairs(slots) - s.rule.single
	var out []slot
	for _, e := range slots {
		cluster := e.planned.Cluster
		is, there := s.is[cluster]
		parts, takes := e.fraction.Parts*scale, uint64(0)
		second := s.pair(e)
		if second {
			room--
		}
		if second = second && room >= 0; second {
			takes = parts * s.share(is) / (100 * 100)
		}
		e.fraction.Parts, e.fraction.PartsSum = parts-takes, sum*scale
		if s.replaced[cluster] {
			e.ref, e.planned.Import, e.planned.Port = s.refTo(s.next, cluster), s.next.key.String(), s.next.port
			s.sayKept(&e)
		} else if there {
			next := s.newSlot(is, takes, sum*scale)
			s.sayKept(&next)
			if next.second = second; second {
				next.spare = 0
			} else if s.pair(e) {
				next.planned.Reason, next.planned.Message = v1alpha1.ReasonTooManyBackends, "the rule does not hold both sides of so many clusters: here the old one serves alone"
			}
			out = append(out, next)
		}
		out = append(out, e)
		if was, stood := s.was[cluster]; stood {
			out = append(out, s.oldSlot(was))
		}
	}
	return out
}

// sayKept says of a new side that it goes on with what it had.
func (s sides) sayKept(e *slot) {
	if s.kept[e.planned.Cluster] > 0 {
		e.planned.Reason, e.planned.Message = v1alpha1.WeightKept, fmt.Sprintf("as before, until %s, to which TrafficRollout %s leads back, serves in some cluster", s.from.Name, s.Name)
	}
}

// pair tells whether both sides of a cluster take a part, or are about to.
func (s sides) pair(e slot) bool {
	_, there := s.is[e.planned.Cluster]
	return there && !s.replaced[e.planned.Cluster] && (s.weights[e.planned.Cluster] > 0 || s.kept[e.planned.Cluster] > 0) && e.spare == 0
}

func (s sides) pairs(slots []slot) int {
	pairs := 0
	for _, e := range slots {
		if s.pair(e) {
			pairs++
		}
	}
	return pairs
}

// share is how much of a cluster's part its new side takes, in hundredths of a percent: as much as the rollout says, as far as
// the new side can carry it.
func (s sides) share(is Candidate) uint64 {
	if s.replaced[is.Cluster] || !is.Serving() || is.drained() {
		return 0
	}
	return max(s.kept[is.Cluster], uint64(s.weights[is.Cluster])*uint64(is.percent()))
}

func (s sides) refTo(side sideRef, cluster string) gatewayv1.HTTPBackendRef {
	return s.planner.backendRef(side.HTTPBackendRef, side.key, side.port, s.member, cluster)
}

func (s sides) newSlot(is Candidate, parts, sum uint64) slot {
	weight := s.weights[is.Cluster]
	e := s.slotOf(s.next, is, fmt.Sprintf("%d %% of what %s serves, by TrafficRollout %s", weight, is.Cluster, s.Name))
	e.fraction, e.wake = Fraction{Parts: parts, PartsSum: sum}, s.wakes[is.Cluster]
	return e
}

// oldSlot lists the old side where the new one stands for the whole: else an abort would have to wait until it is seen there again, and
// the other clusters would serve its part meanwhile.
func (s sides) oldSlot(was Candidate) slot {
	observer := s.observer(s.old)
	was = observer.observe([]Candidate{was})[0]
	e := s.slotOf(s.old, was, fmt.Sprintf("all of what %s serves goes to %s, by TrafficRollout %s", was.Cluster, s.to.Name, s.Name))
	e.fraction, e.wake = Fraction{Parts: 0, PartsSum: 1}, observer.wake(was.State, was.sight())
	return e
}

// slotOf lists a side in a cluster without a share.
func (s sides) slotOf(side sideRef, c Candidate, message string) slot {
	e := slot{ref: s.refTo(side, c.Cluster), served: c.Serving(), absence: absenceOf(c), spare: 2 + c.distance(s.member.Member),
		planned: v1alpha1.PlannedBackend{Import: side.key.String(), Port: side.port, Cluster: c.Cluster, Verdict: string(c.Finding.Verdict),
			Reason: v1alpha1.WeightByRollout, Message: message, Health: c.State.record(c.Endpoints)}}
	if e.absence.reason != "" {
		e.planned.Reason, e.planned.Message = e.absence.reason, e.absence.message
	}
	return e
}
