// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// sides are the candidates of the new side of a backend that a rollout is laid over; the zero value where none is.
type sides struct {
	*overlay
	planner routePlanner
	member  RouteMember
	ref     gatewayv1.HTTPBackendRef
	key     ServiceKey
	port    int32
	// is by cluster, and when each changes by itself.
	is    map[string]Candidate
	wakes map[string]time.Time
	// replaced are the clusters of which the new side stands for the whole.
	replaced map[string]bool
}

// layOver makes of the candidates of the old side those that a backend is spread over.
func (s routePlanner) layOver(m RouteMember, rule gatewayv1.HTTPRouteRule, ruleName string, b gatewayv1.HTTPBackendRef,
	candidates []Candidate) (sides, []Candidate) {
	if s.overlay.moves() {
		return sides{overlay: s.overlay}, s.overlay.judged(candidates)
	}
	both := s.sidesOf(m, rule, ruleName, b)
	return both, both.merge(candidates)
}

// sidesOf finds the candidates of the new side.
func (s routePlanner) sidesOf(m RouteMember, rule gatewayv1.HTTPRouteRule, ruleName string, b gatewayv1.HTTPBackendRef) sides {
	out := sides{overlay: s.overlay, planner: s, member: m, ref: s.overlay.newRef(b), is: map[string]Candidate{},
		wakes: map[string]time.Time{}, replaced: map[string]bool{}}
	out.key = ServiceKey{s.Route.Namespace, s.overlay.to.Name}
	port, problem := s.resolve(out.key, out.ref.BackendObjectReference)
	if problem != nil {
		return out
	}
	out.port = port
	if s.overlay.sticks() {
		out.ref = s.overlay.withCookie(out.ref)
	}
	e := EffectivePolicy(s.policyPath(rule, out.key), s.Policies)
	observer := splitter{Effective: e, Recovery: RecoveryOf(e.Health, e.Failback), entered: m.Member, now: s.Now}
	for _, c := range observer.observe(s.candidates(m, ruleName, out.key, port)) {
		c.Resolving = c.Resolving || c.LastWeight == 0 && !seenThere(m.Observed, s.backendRef(out.ref, out.key, port, m, c.Cluster).BackendObjectReference)
		out.is[c.Cluster], out.wakes[c.Cluster] = c, observer.wake(c.State, c.sight())
	}
	return out
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
func (s sides) merge(old []Candidate) []Candidate {
	var merged []Candidate
	for _, c := range old {
		is, there := s.is[c.Cluster]
		if there && s.weights[c.Cluster] == 100 && is.Serving() {
			s.replaced[c.Cluster] = true
			merged = append(merged, is)
			continue
		}
		c.LastWeight += is.LastWeight
		merged = append(merged, c)
	}
	for _, c := range s.Status.Clusters {
		is, there := s.is[c.Cluster]
		if there && c.Weight == 100 && !slices.ContainsFunc(merged, func(m Candidate) bool { return m.Cluster == c.Cluster }) {
			s.replaced[c.Cluster] = true
			merged = append(merged, is)
		}
	}
	return merged
}

// split gives each cluster's part to its two sides. Both stay listed, so that the way back is one write.
func (s sides) split(slots []slot, candidates []Candidate, sum uint64) []slot {
	if s.moves() {
		s.move(slots, candidates, sum)
		return slots
	}
	scale := scaleOf(sum)
	var out []slot
	for _, old := range slots {
		is, there := s.is[old.planned.Cluster]
		parts := old.fraction.Parts * scale
		takes := uint64(0)
		if there {
			takes = parts * s.share(is) / (100 * 100)
		}
		old.fraction.Parts, old.fraction.PartsSum = parts-takes, sum*scale
		if s.replaced[old.planned.Cluster] {
			old.ref, old.planned.Import, old.planned.Port = s.refTo(old.planned.Cluster), s.key.String(), s.port
		} else if there {
			out = append(out, s.newSlot(is, takes, sum*scale))
		}
		out = append(out, old)
	}
	return out
}

// share is how much of a cluster's part its new side takes, in hundredths of a percent: as much as the rollout says, as far as
// the new side can carry it.
func (s sides) share(is Candidate) uint64 {
	if s.replaced[is.Cluster] || !is.Serving() || is.drained() {
		return 0
	}
	return uint64(s.weights[is.Cluster]) * uint64(is.percent())
}

func (s sides) refTo(cluster string) gatewayv1.HTTPBackendRef {
	return s.planner.backendRef(s.ref, s.key, s.port, s.member, cluster)
}

func (s sides) newSlot(is Candidate, parts, sum uint64) slot {
	weight := s.weights[is.Cluster]
	e := slot{ref: s.refTo(is.Cluster), fraction: Fraction{Parts: parts, PartsSum: sum}, wake: s.wakes[is.Cluster], served: is.Serving(), absence: absenceOf(is),
		planned: v1alpha1.PlannedBackend{Import: s.key.String(), Port: s.port, Cluster: is.Cluster, Verdict: string(is.Finding.Verdict),
			Reason: v1alpha1.WeightByRollout, Health: is.State.record(is.Endpoints),
			Message: fmt.Sprintf("%d %% of what %s serves, by TrafficRollout %s", weight, is.Cluster, s.Name)}}
	switch {
	case is.Resolving:
		e.planned.Reason, e.planned.Message = v1alpha1.WeightResolving, "new here: weight follows once the member has resolved it"
	case !is.Serving():
		e.planned.Reason, e.planned.Message = weightOut(is.Finding.Verdict, is.Before), is.Finding.Message
	}
	if weight == 0 {
		e.spare = 2 + is.distance(s.member.Member)
	}
	return e
}
