// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// maxRules is what an HTTPRoute holds (Gateway API, HTTPRouteSpec.rules).
const maxRules = 16

// overlay is what a rollout lays over a route: of the requests that a cluster would serve of the old side, a percentage goes to
// the new one.
type overlay struct {
	*v1alpha1.TrafficRollout
	from, to v1alpha1.RolloutSide
	weights  map[string]int32
}

// RolloutInForce is the rollout that is laid over a route: the oldest of those that name it and have not been retired, by creation
// time and then by name; nil where there is none.
func RolloutInForce(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) *v1alpha1.TrafficRollout {
	var found *v1alpha1.TrafficRollout
	for _, r := range rollouts {
		if r.Namespace == route.Namespace && r.Spec.Route.Name == route.Name && !retired(r) && (found == nil || olderRollout(r, found)) {
			found = r
		}
	}
	return found
}

// retired tells whether a rollout has nothing to do any more, unless its spec changes.
func retired(r *v1alpha1.TrafficRollout) bool {
	return r.Status.Retired && r.Status.ObservedGeneration == r.Generation
}

func olderRollout(a, b *v1alpha1.TrafficRollout) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name)) < 0
}

// overlayOf is what the rollout in force lays over a route; nil where that is nothing.
func overlayOf(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) *overlay {
	r := RolloutInForce(route, rollouts)
	if r == nil || r.Status.Phase == "" {
		return nil
	}
	o := &overlay{TrafficRollout: r, weights: map[string]int32{}}
	o.from, o.to = sidesOf(r.Spec)
	for _, c := range r.Status.Clusters {
		o.weights[c.Cluster] = c.Weight
	}
	return o
}

// ImportsWith lists the imports that a route refers to, and those to which its rollout leads, sorted, each once.
func ImportsWith(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) []ServiceKey {
	keys := ImportsOf(route)
	if r := RolloutInForce(route, rollouts); r != nil {
		for _, key := range ImportsOfRollout(r) {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		slices.SortFunc(keys, func(a, b ServiceKey) int { return strings.Compare(a.String(), b.String()) })
	}
	return keys
}

// ImportsOfRollout are the two sides of a rollout.
func ImportsOfRollout(r *v1alpha1.TrafficRollout) []ServiceKey {
	var keys []ServiceKey
	was, is := sidesOf(r.Spec)
	for _, side := range []v1alpha1.RolloutSide{was, is} {
		key := ServiceKey{r.Namespace, side.Name}
		if side.Name != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// concerns tells whether a backend of a rule is the old side.
func (o *overlay) concerns(rule gatewayv1.HTTPRouteRule, b gatewayv1.HTTPBackendRef, namespace string) bool {
	if o == nil || o.Spec.Route.Rule != nil && deref(rule.Name) != *o.Spec.Route.Rule {
		return false
	}
	key, isImport := ImportKey(b.BackendObjectReference, namespace)
	return isImport && key == ServiceKey{o.Namespace, o.from.Name}
}

// moves tells whether the rollout is from one cluster to another, of one import.
func (o *overlay) moves() bool { return o.from.Cluster != "" }

// target is the candidate of the cluster to which everything moves; nil where it cannot serve.
func (o *overlay) target(candidates []Candidate) *Candidate {
	i := slices.IndexFunc(candidates, func(c Candidate) bool { return c.Cluster == o.to.Cluster })
	if i < 0 || !candidates[i].Serving() || candidates[i].drained() {
		return nil
	}
	return &candidates[i]
}

// judged has the old cluster judged by the new one, once everything has moved and while that serves: the old one may be empty then.
func (o *overlay) judged(candidates []Candidate) []Candidate {
	target := o.target(candidates)
	if target == nil || o.weights[o.from.Cluster] < 100 {
		return candidates
	}
	out := slices.Clone(candidates)
	for i := range out {
		if c := &out[i]; c.Cluster == o.from.Cluster {
			c.Finding, c.Before, c.State, c.Fresh, c.Endpoints = target.Finding, target.Before, target.State, target.Fresh, target.Endpoints
		}
	}
	return out
}

// move gives a part of what the old cluster would serve to the new one.
func (o *overlay) move(slots []slot, candidates []Candidate, sum uint64) {
	at := func(cluster string) *slot {
		i := slices.IndexFunc(slots, func(e slot) bool { return e.planned.Cluster == cluster })
		if i < 0 {
			return nil
		}
		return &slots[i]
	}
	from, to, target, weight := at(o.from.Cluster), at(o.to.Cluster), o.target(candidates), o.weights[o.from.Cluster]
	if from == nil || to == nil || target == nil || weight == 0 || from.fraction.Parts == 0 {
		return
	}
	scale := scaleOf(sum)
	for i := range slots {
		slots[i].fraction.Parts *= scale
		slots[i].fraction.PartsSum *= scale
	}
	takes := from.fraction.Parts * uint64(weight) * uint64(target.percent()) / (100 * 100)
	from.fraction.Parts -= takes
	to.fraction.Parts += takes
	text := fmt.Sprintf("%d %% of what %s would serve goes to %s, by TrafficRollout %s", weight, o.from.Cluster, o.to.Cluster, o.Name)
	from.planned.Message += "; " + text
	to.planned.Reason, to.planned.Message, to.spare = v1alpha1.WeightByRollout, text, 0
}

// scaleOf is by what parts of a sum are multiplied, so that a percentage of a percentage of them is a whole number, and the
// products of Apportion stay within 64 bits.
func scaleOf(sum uint64) uint64 {
	if sum <= TotalWeight {
		return 100 * 100
	}
	return 1
}

// switched tells whether the rollout is complete: everything that it moves is at the new side.
func (o *overlay) switched() bool {
	return len(o.weights) > 0 && !slices.ContainsFunc(o.Status.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Weight < 100 })
}

// newRef is a backend of the old side turned into one of the new.
func (o *overlay) newRef(b gatewayv1.HTTPBackendRef) gatewayv1.HTTPBackendRef {
	ref := *b.DeepCopy()
	ref.Name = gatewayv1.ObjectName(o.to.Name)
	return ref
}

// layRules adds the rules by which requests reach the new side whatever its share: those with the headers of a step, and those of
// clients that were there before. They stand behind the route's own, which keep their indexes, and go before them by what
// they match (Gateway API, HTTPRouteRule.matches: more headers go first).
func (o *overlay) layRules(route *gatewayv1.HTTPRoute) *gatewayv1.HTTPRoute {
	if o == nil || len(o.Status.HeaderRoute) == 0 && o.Status.Mirror == 0 && !o.sticks() {
		return route
	}
	laid := &gatewayv1.HTTPRoute{TypeMeta: route.TypeMeta, ObjectMeta: route.ObjectMeta, Status: route.Status}
	route.Spec.DeepCopyInto(&laid.Spec)
	for i, rule := range route.Spec.Rules {
		at := slices.IndexFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool { return o.concerns(rule, b, route.Namespace) })
		if at < 0 {
			continue
		}
		target := o.newRef(rule.BackendRefs[at])
		if o.Status.Mirror > 0 {
			laid.Spec.Rules[i].Filters = append(laid.Spec.Rules[i].Filters, o.mirror(target))
		}
		if len(o.Status.HeaderRoute) > 0 {
			laid.Spec.Rules = append(laid.Spec.Rules, o.pinnedRule(rule, RuleName(rule, i)+"-header", target, o.Status.HeaderRoute))
		}
		if o.sticks() {
			laid.Spec.Rules = append(laid.Spec.Rules, o.pinnedRule(rule, RuleName(rule, i)+"-sticky", target, o.cookieMatch()))
		}
	}
	return laid
}

// pinnedRule is a copy of a rule that leads to the new side alone, for requests with certain headers.
func (o *overlay) pinnedRule(rule gatewayv1.HTTPRouteRule, name string, target gatewayv1.HTTPBackendRef,
	headers []gatewayv1.HTTPHeaderMatch) gatewayv1.HTTPRouteRule {
	pinned := *rule.DeepCopy()
	section := gatewayv1.SectionName(name)
	one := int32(1)
	pinned.Name, target.Weight = &section, &one
	pinned.BackendRefs = []gatewayv1.HTTPBackendRef{target}
	if len(pinned.Matches) == 0 {
		pinned.Matches = []gatewayv1.HTTPRouteMatch{{}}
	}
	for i := range pinned.Matches {
		m := &pinned.Matches[i]
		for _, h := range headers {
			m.Headers = slices.DeleteFunc(m.Headers, func(have gatewayv1.HTTPHeaderMatch) bool {
				return strings.EqualFold(string(have.Name), string(h.Name))
			})
			m.Headers = append(m.Headers, h)
		}
	}
	return pinned
}

func (o *overlay) mirror(target gatewayv1.HTTPBackendRef) gatewayv1.HTTPRouteFilter {
	percent := o.Status.Mirror
	return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestMirror,
		RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: target.BackendObjectReference, Percent: &percent}}
}

// sticks tells whether clients are kept where they were: while the new side takes a share, and not yet everything.
func (o *overlay) sticks() bool {
	return o.Spec.Canary != nil && o.Spec.Canary.Sticky != nil && !o.switched() &&
		slices.ContainsFunc(o.Status.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Weight > 0 })
}

// cookie is the value by which a client is known that this rollout, and no earlier one, sent to the new side.
func (o *overlay) cookie() string {
	return fmt.Sprintf("%s-%d", o.to.Name, o.Generation)
}

func (o *overlay) cookieName() string { return cmp.Or(o.Spec.Canary.Sticky.Cookie, "isthmus-canary") }

func (o *overlay) cookieMatch() []gatewayv1.HTTPHeaderMatch {
	regex := gatewayv1.HeaderMatchRegularExpression
	quote := strings.NewReplacer(".", `\.`)
	return []gatewayv1.HTTPHeaderMatch{{Type: &regex, Name: "Cookie",
		Value: `(.*; *)?` + quote.Replace(o.cookieName()) + `=` + quote.Replace(o.cookie()) + `(;.*)?`}}
}

// withCookie makes the answers of a backend set the cookie.
func (o *overlay) withCookie(ref gatewayv1.HTTPBackendRef) gatewayv1.HTTPBackendRef {
	header := gatewayv1.HTTPHeader{Name: "Set-Cookie", Value: o.cookieName() + "=" + o.cookie() + "; Path=/; HttpOnly; SameSite=Lax"}
	for _, f := range ref.Filters {
		if own := f.ResponseHeaderModifier; own != nil {
			own.Add = append(own.Add, header)
			return ref
		}
	}
	ref.Filters = append(ref.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier,
		ResponseHeaderModifier: &gatewayv1.HTTPHeaderFilter{Add: []gatewayv1.HTTPHeader{header}}})
	return ref
}

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
	e := slot{ref: s.refTo(is.Cluster), fraction: Fraction{Parts: parts, PartsSum: sum}, wake: s.wakes[is.Cluster],
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

// RolloutChecks is what is needed to tell whether a rollout can run.
type RolloutChecks struct {
	Rollout *v1alpha1.TrafficRollout
	// Route that it names; nil where there is none.
	Route *gatewayv1.HTTPRoute
	// Rollouts of the namespace.
	Rollouts []*v1alpha1.TrafficRollout
	// Exporters of the imports that exist.
	Exporters map[ServiceKey][]string
}

// RolloutStanding is how a rollout and its route stand to each other.
type RolloutStanding struct {
	// Refused is why the rollout cannot run; empty where it can.
	Refused string
	// Adopted is whether the route itself names the new side, and the old one no more.
	Adopted bool
	// Idle is whether the rollout lies over nothing, so that nothing changes when it goes.
	Idle bool
}

// Standing says whether a rollout can run:
//
//	route              | old side in it | new side in it | says
//	absent             |                |                | refused
//	there              | no             | yes            | adopted
//	another rollout's  |                |                | refused: the older holds
//	there              | no             | no             | refused
//	there              | yes            | yes            | refused: the route splits them itself
//	there              | yes            | no             | runs, once the new side is exported
//
// Of a move the old side is in the route while its cluster exports the import, and the new one when it does no more.
func (c RolloutChecks) Standing() RolloutStanding {
	from, to := sidesOf(c.Rollout.Spec)
	name := "HTTPRoute " + c.Rollout.Spec.Route.Name
	idle := func(format string, args ...any) RolloutStanding {
		return RolloutStanding{Refused: fmt.Sprintf(format, args...), Idle: true}
	}
	refused := func(format string, args ...any) RolloutStanding {
		return RolloutStanding{Refused: fmt.Sprintf(format, args...)}
	}
	if c.Route == nil {
		return idle("there is no %s in namespace %s: name one", name, c.Rollout.Namespace)
	}
	old, next := c.uses(from), c.uses(to)
	if from.Cluster != "" {
		next = !slices.Contains(c.Exporters[ServiceKey{c.Rollout.Namespace, from.Name}], from.Cluster)
		old = old && !next
	}
	first := RolloutInForce(c.Route, c.Rollouts)
	key := ServiceKey{c.Rollout.Namespace, to.Name}
	switch {
	case retired(c.Rollout), next && !old:
		return RolloutStanding{Adopted: true, Idle: true}
	case first != nil && first.Name != c.Rollout.Name:
		return idle("TrafficRollout %s is older and rolls out the same route: delete one of them", first.Name)
	case c.Rollout.Spec.Route.Rule != nil && !HasRule(c.Route, string(*c.Rollout.Spec.Route.Rule)):
		return idle("%s has no rule %s: name one that it has", name, *c.Rollout.Spec.Route.Rule)
	case !old:
		return idle("%s has neither ServiceImport %s nor %s among its backends: name the one that serves now", name, from.Name, to.Name)
	case next:
		return refused("%s names both %s and %s: leave its split to the rollout, and only %s in the route", name, from.Name, to.Name, from.Name)
	case len(c.Exporters[key]) == 0:
		return refused("no cluster exports %s: create a ServiceExport of that name next to its Service", key)
	}
	if rules := c.rules(); rules > maxRules {
		return refused("with its headers and cookies %s would have %d rules, and an HTTPRoute holds %d: name one rule, or split the route", name, rules, maxRules)
	}
	return RolloutStanding{}
}

// rules that the route has when all those of the rollout are laid.
func (c RolloutChecks) rules() int {
	each := 0
	if b := c.Rollout.Spec.BlueGreen; b != nil && len(b.PreviewMatch) > 0 {
		each++
	}
	if s := c.Rollout.Spec.Canary; s != nil {
		if slices.ContainsFunc(s.Steps, func(step v1alpha1.CanaryStep) bool { return step.SetHeaderRoute != nil }) {
			each++
		}
		if s.Sticky != nil {
			each++
		}
	}
	from, _ := sidesOf(c.Rollout.Spec)
	return len(c.Route.Spec.Rules) + each*len(c.rulesWith(from))
}

// uses tells whether the rules that are meant have a side among their backends.
func (c RolloutChecks) uses(side v1alpha1.RolloutSide) bool { return len(c.rulesWith(side)) > 0 }

func (c RolloutChecks) rulesWith(side v1alpha1.RolloutSide) []gatewayv1.HTTPRouteRule {
	o := &overlay{TrafficRollout: c.Rollout, from: side}
	var out []gatewayv1.HTTPRouteRule
	for _, rule := range c.Route.Spec.Rules {
		if slices.ContainsFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool { return o.concerns(rule, b, c.Route.Namespace) }) {
			out = append(out, rule)
		}
	}
	return out
}
