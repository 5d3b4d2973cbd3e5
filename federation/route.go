// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// maxBackendRefs is what a rule of an HTTPRoute holds (Gateway API, HTTPRouteRule.backendRefs).
const maxBackendRefs = 16

// RouteSnapshot is all that the plan of one hub HTTPRoute depends on.
type RouteSnapshot struct {
	Route *gatewayv1.HTTPRoute
	// Parents are the route's parentRefs that lead to Gateways of the class, in the order of the spec.
	Parents []Parent
	// Policies of the namespaces of the route, its Gateways and its imports.
	Policies []*v1alpha1.TrafficDistributionPolicy
	// Services by key: every import that the route refers to.
	Services map[ServiceKey]ServiceSnapshot
	// Grants are the hub's ReferenceGrants of the namespaces of the imports.
	Grants []*gatewayv1.ReferenceGrant
	// Members sorted by name.
	Members []RouteMember
	// Overrides that are in force.
	Overrides Overrides
	// Rollouts of the route's namespace.
	Rollouts []*v1alpha1.TrafficRollout
	// Now is when the plan is made.
	Now time.Time
}

// Imports lists the imports that the route refers to, and those to which its rollout leads, sorted, each once.
func (s RouteSnapshot) Imports() []ServiceKey { return ImportsWith(s.Route, s.Rollouts) }

// RouteMember is one member as the route sees it.
type RouteMember struct {
	Member
	// HasNamespace is whether the member has the route's namespace.
	HasNamespace bool
	// Hosts are the host names that ServiceEntries of the route's namespace make known in the member.
	Hosts []string
	// Granted are the services of other namespaces to which a ReferenceGrant in the member lets the route refer.
	Granted []ServiceKey
	// Observed is the route that the member holds now; nil where it holds none.
	Observed *gatewayv1.HTTPRoute
	// Last is what was last decided for this member.
	Last []v1alpha1.PlannedRule
}

// RoutePlan is what was decided for a hub route.
type RoutePlan struct {
	// Members by name.
	Members map[string]MemberRoute
	// ResolvedRefs is the route's condition.
	ResolvedRefs metav1.Condition
	// WakeAfter is how long the plan stays as it is, if nothing else happens; 0 for ever.
	WakeAfter time.Duration
}

// MemberRoute is what was decided for a hub route in one member.
type MemberRoute struct {
	// Object to be written. Nil together with an empty Refused means that the member is to hold none.
	Object *gatewayv1.HTTPRoute
	// Preview is the route of a rollout's preview under a host name of its own; nil where there is none.
	Preview *gatewayv1.HTTPRoute
	// Refused says why nothing is written: what the member holds stays as it is.
	Refused metav1.Condition
	// Rules with every weight and its reason.
	Rules []v1alpha1.PlannedRule

	// displaced are the backends whose share, or a part of it, others serve.
	displaced []v1alpha1.PlannedBackend
	// wake is when it changes by itself; the zero value where it does not.
	wake time.Time
}

// RouteOwner owns what is written for a hub HTTPRoute.
func RouteOwner(namespace, name string) Owner {
	return Owner{Noun: "httproute", Namespace: namespace, Name: name}
}

// ImportKey reads a reference to a ServiceImport, with the namespace of the route as its default.
func ImportKey(ref gatewayv1.BackendObjectReference, namespace string) (ServiceKey, bool) {
	if deref(ref.Group) != mcsv1beta1.GroupName || deref(ref.Kind) != mcsv1beta1.ServiceImportKindName {
		return ServiceKey{}, false
	}
	return ServiceKey{cmp.Or(string(deref(ref.Namespace)), namespace), string(ref.Name)}, true
}

// ImportsOf lists the imports that a route refers to, also as Services where it means imports by them, sorted, each once.
func ImportsOf(route *gatewayv1.HTTPRoute) []ServiceKey {
	var keys []ServiceKey
	for _, ref := range backendsOf(route) {
		if key, ok := ImportKey(meant(route, ref), route.Namespace); ok && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func backendsOf(route *gatewayv1.HTTPRoute) []gatewayv1.BackendObjectReference {
	var refs []gatewayv1.BackendObjectReference
	for _, rule := range route.Spec.Rules {
		for _, b := range rule.BackendRefs {
			refs = append(refs, b.BackendObjectReference)
		}
		for _, f := range rule.Filters {
			if f.RequestMirror != nil {
				refs = append(refs, f.RequestMirror.BackendRef)
			}
		}
	}
	return refs
}

// PlanRoute makes the route of each member: every rule, match, filter and timeout as written, and each
// reference to a ServiceImport expanded over the clusters that export it.
func PlanRoute(snapshot RouteSnapshot) RoutePlan {
	snapshot.Members = sortedBy(snapshot.Members, func(m RouteMember) string { return m.Name })
	// What is remembered of a time is kept to the microsecond, in this process as in a RoutePlan.
	snapshot.Now = snapshot.Now.Truncate(time.Microsecond)
	s := newRoutePlanner(snapshot)
	plan := RoutePlan{Members: map[string]MemberRoute{}, ResolvedRefs: s.resolvedRefs()}
	var wake time.Time
	for _, m := range s.Members {
		planned := s.planMember(m)
		plan.Members[m.Name], wake = planned, earlier(wake, planned.wake)
	}
	if !wake.IsZero() {
		plan.WakeAfter = max(time.Millisecond, wake.Sub(s.Now))
	}
	return plan
}

// routePlanner is a snapshot with its imports merged once, not once a member and rule.
type routePlanner struct {
	RouteSnapshot
	imports map[ServiceKey]*Import
	// overlay is what a rollout lays over the route; nil where none does.
	overlay *overlay
	// copied are the rules of which copies stand in the route because of the overlay, by the index of the copy.
	copied map[int]gatewayv1.HTTPRouteRule
	// previewFrom is the first of the rules that are the preview's.
	previewFrom int
	// refused says why no member can be given the route.
	refused *metav1.Condition
}

func newRoutePlanner(snapshot RouteSnapshot) routePlanner {
	s := routePlanner{RouteSnapshot: snapshot, imports: map[ServiceKey]*Import{}, refused: refuseRoute(snapshot.Route),
		overlay: overlayOf(snapshot.Route, snapshot.Rollouts)}
	written := intent(s.Route)
	s.Route, s.copied = s.overlay.layRules(written)
	s.Route, s.previewFrom = s.overlay.layPreview(s.Route, written)
	for key, service := range snapshot.Services {
		s.imports[key] = service.Import()
	}
	return s
}

func (s routePlanner) planMember(m RouteMember) MemberRoute {
	refs := s.acceptedRefs()
	if len(refs) == 0 || s.Route.DeletionTimestamp != nil {
		return MemberRoute{}
	}
	if !m.Synced {
		// Its hosts and its route are not known: a plan made now would drop what it does not see.
		return MemberRoute{Refused: condition(v1alpha1.PlanWritten, metav1.ConditionUnknown, v1alpha1.ReasonSyncing,
			"the member's contents have not been read yet: what it holds stays as it is")}
	}
	if !m.HasNamespace {
		return MemberRoute{Refused: condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonNamespaceMissing,
			fmt.Sprintf("the member has no namespace %s: create it there, and the route follows", s.Route.Namespace))}
	}
	if s.refused != nil {
		return MemberRoute{Refused: *s.refused}
	}
	object := &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Route.Namespace, Name: s.Route.Name},
	}
	s.Route.Spec.DeepCopyInto(&object.Spec)
	object.Spec.ParentRefs = refs
	result := MemberRoute{Object: object}
	for i := range object.Spec.Rules {
		expanded := s.expandRule(m, i)
		if len(expanded.refs) > maxBackendRefs {
			return MemberRoute{Refused: tooManyBackends(expanded)}
		}
		object.Spec.Rules[i].BackendRefs = expanded.refs
		object.Spec.Rules[i].Filters = s.mirrorLocally(m, append(object.Spec.Rules[i].Filters, s.overlay.mirrors(s.routed(i), m.Name)...))
		result.Rules = append(result.Rules, expanded.planned)
		result.displaced = append(result.displaced, expanded.displaced...)
		result.wake = earlier(result.wake, expanded.wake)
	}
	RouteOwner(s.Route.Namespace, s.Route.Name).Mark(&object.ObjectMeta)
	result.Preview = s.cutPreview(object)
	return result
}

func tooManyBackends(r expandedRule) metav1.Condition {
	return condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonTooManyBackends,
		fmt.Sprintf("rule %s needs %d backends that take traffic and a rule holds %d: name fewer clusters in its policy, or fewer backends",
			r.planned.Name, len(r.refs), maxBackendRefs))
}

// acceptedRefs are the parentRefs under which the route is accepted.
func (s routePlanner) acceptedRefs() []gatewayv1.ParentReference {
	var refs []gatewayv1.ParentReference
	for _, p := range s.Parents {
		if p.IsAccepted() {
			refs = append(refs, *p.Ref.DeepCopy())
		}
	}
	return refs
}

// expandedRule is a rule's backends in one member, and what was decided about each.
type expandedRule struct {
	refs      []gatewayv1.HTTPBackendRef
	planned   v1alpha1.PlannedRule
	displaced []v1alpha1.PlannedBackend
	wake      time.Time
	// pairs are the clusters of which both sides of a rollout take a part.
	pairs int
}

// earlier is the earlier of two times; one that is zero never comes.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// slot is one backendRef to be written: a part of one of the rule's own backendRefs.
type slot struct {
	ref      gatewayv1.HTTPBackendRef
	fraction Fraction
	planned  v1alpha1.PlannedBackend
	// spare is how easily the slot is given up where a rule has more than it holds and this one has no weight: 0 is
	// never given up, and the highest goes first.
	spare int
	// displaced is whether others serve its share.
	displaced bool
	// refuses is whether it stands for clusters all of which are drained by force.
	refuses bool
	// served is whether its cluster can be sent requests now, and absence why not; had is its weight in the last plan.
	served  bool
	absence absence
	had     uint64
	// second is whether it is the new side of a cluster whose old one takes a part too.
	second bool
	// waits is whether the other backends of its rule stand in for it, and unwritten whether there is nothing to list meanwhile.
	waits, unwritten bool
	// wake is when it changes by itself; the zero value where it does not.
	wake time.Time
}

// routedRule is a rule as it is planned.
type routedRule struct {
	// HTTPRouteRule as the route has it; of a copy, the rule that was copied.
	gatewayv1.HTTPRouteRule
	// name under which it is planned, and remembered.
	name string
	// pinned is whether it is a copy, which leads to the new side of a rollout.
	pinned   bool
	backends []gatewayv1.HTTPBackendRef
	// single is in how many clusters, the last ones, a rollout lists the old side alone, since the rule does not hold both of all.
	single int
}

func (s routePlanner) routed(index int) routedRule {
	rule := s.Route.Spec.Rules[index]
	out := routedRule{HTTPRouteRule: rule, name: RuleName(rule, index), backends: rule.BackendRefs}
	if source, copied := s.copied[index]; copied {
		out.HTTPRouteRule, out.pinned = source, true
	}
	return out
}

// expandRule spreads a rule's backends over the clusters. Where it does not hold both sides of a rollout in all of them, the new one
// is left out of as many as it takes: without a plan, no failover would be written either.
func (s routePlanner) expandRule(m RouteMember, index int) expandedRule {
	rule := s.routed(index)
	out := s.expand(m, rule)
	for pairs := out.pairs; len(out.refs) > maxBackendRefs && rule.single < pairs; {
		rule.single++
		out = s.expand(m, rule)
	}
	return out
}

func (s routePlanner) expand(m RouteMember, rule routedRule) expandedRule {
	out := expandedRule{planned: v1alpha1.PlannedRule{Name: rule.name}}
	var sum uint64
	for _, b := range rule.backends {
		sum += backendWeight(b)
	}
	if sum == 0 {
		// No backend, or all of them at 0: both answer 500, and a rule of zeros is never written.
		return out
	}
	backends := make([]expandedBackend, 0, len(rule.backends))
	for _, b := range rule.backends {
		expanded, policy := s.expandBackend(m, rule, b)
		out.planned.Policy = cmp.Or(policy, out.planned.Policy)
		backends = append(backends, expandedBackend{backendWeight(b), expanded})
	}
	if readsImports(s.Route) {
		standIn(backends)
	}
	slots := weighed(backends)
	slots = append(slots, s.withdrawn(m, out.planned.Name, slots)...)
	if hold := s.Overrides.hold(s.key()); hold != nil {
		slots = holdSlots(slots, lastRule(m.Last, out.planned.Name), hold)
	}
	weigh(slots)
	for _, e := range fitSlots(slots) {
		if !e.unwritten {
			out.refs = append(out.refs, withoutStamps(e.ref))
		}
		out.planned.Backends = append(out.planned.Backends, e.planned)
	}
	for _, e := range slots {
		if e.second {
			out.pairs++
		}
		if e.displaced && e.fraction.Weight > 0 || e.waits {
			out.displaced = append(out.displaced, e.planned)
		}
		out.wake = earlier(out.wake, e.wake)
	}
	return out
}

// weighed are the slots of a rule's backends, each with the weight of its backend.
func weighed(backends []expandedBackend) []slot {
	var sum uint64
	for _, b := range backends {
		sum += b.weight
	}
	var slots []slot
	for _, b := range backends {
		for _, e := range b.slots {
			e.fraction.Weight, e.fraction.WeightSum = b.weight, sum
			slots = append(slots, e)
		}
	}
	return slots
}

// key is the route's own.
func (s routePlanner) key() ServiceKey { return ServiceKey{s.Route.Namespace, s.Route.Name} }

// RuleName is the rule's name, or its index where it has none.
func RuleName(rule gatewayv1.HTTPRouteRule, index int) string {
	return cmp.Or(string(deref(rule.Name)), strconv.Itoa(index))
}

func backendWeight(b gatewayv1.HTTPBackendRef) uint64 {
	if b.Weight == nil {
		return 1
	}
	return uint64(min(max(0, *b.Weight), maxWeight))
}

func weigh(slots []slot) {
	fractions := make([]Fraction, len(slots))
	for i := range slots {
		fractions[i] = slots[i].fraction
	}
	for i, w := range Apportion(TotalWeight, fractions) {
		slots[i].ref.Weight = &w
		slots[i].planned.Weight = w
	}
}

// fitSlots leaves out slots without weight while there are more than a rule holds, the farthest clusters first: a
// cluster at weight 0 is listed to make an emergency quicker, and never at the price of one that serves or is about to. Those
// of whose health something is remembered go last: who is not listed is forgotten, and would return as if it were new.
func fitSlots(slots []slot) []slot {
	kept := slices.Clone(slots)
	for len(kept) > maxBackendRefs {
		drop := -1
		for i, e := range kept {
			if e.planned.Weight == 0 && e.spare > 0 && (drop < 0 || e.sparedBefore(kept[drop])) {
				drop = i
			}
		}
		if drop < 0 {
			break
		}
		kept = slices.Delete(kept, drop, drop+1)
	}
	return kept
}

// sparedBefore tells whether a slot is given up before one that stands in front of it.
func (e slot) sparedBefore(other slot) bool {
	if remembered := e.planned.Health != nil; remembered != (other.planned.Health != nil) {
		return !remembered
	}
	return e.spare >= other.spare
}

// expandBackend turns one backendRef into slots. What is not an import passes through as written.
func (s routePlanner) expandBackend(m RouteMember, rule routedRule, b gatewayv1.HTTPBackendRef) ([]slot, string) {
	key, isImport := ImportKey(b.BackendObjectReference, s.Route.Namespace)
	if !isImport {
		return []slot{{ref: *b.DeepCopy(), fraction: Fraction{Parts: 1, PartsSum: 1}, spare: 1, served: true}}, ""
	}
	port, problem := s.resolve(key, b.BackendObjectReference)
	laid := s.overlay.concerns(rule.HTTPRouteRule, b, s.Route.Namespace)
	switch {
	case problem != nil && laid && allMoved(s.overlay.Status):
		return s.expandBackend(m, rule, s.overlay.newRef(b))
	case problem != nil:
		return []slot{unresolvedSlot(key, b, problem.Message)}, ""
	}
	effective := EffectivePolicy(s.policyPath(rule.HTTPRouteRule, key), s.Policies)
	candidates := s.candidates(m, rule.name, key, port)
	var both sides
	if laid {
		both, candidates = s.layOver(m, rule, sideRef{b, key, port}, candidates)
	}
	if len(candidates) == 0 {
		message := fmt.Sprintf("no cluster that exports %s can be reached from %s yet", key, m.Name)
		unknown := unresolvedSlot(key, b, message)
		unknown.absence = absence{v1alpha1.WeightResolving, message}
		return []slot{unknown}, effective.Policy
	}
	if pin := s.Overrides.pin(s.key()); pinned(pin, candidates) {
		effective.Policy = ""
		effective.Distribution = v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted, Weights: pin.Spec.Weights}
	}
	var slots []slot
	var sum uint64
	shares := Distribute(effective, m.Member, candidates, s.Now)
	for _, share := range shares {
		sum += uint64(share.Parts)
	}
	for i, share := range shares {
		e := slot{ref: s.backendRef(b, key, port, m, share.Cluster),
			fraction: Fraction{Parts: uint64(share.Parts), PartsSum: sum}, displaced: share.Displaced,
			planned: v1alpha1.PlannedBackend{Import: key.String(), Port: port, Cluster: share.Cluster,
				Verdict: string(share.Finding.Verdict), Reason: share.Reason, Message: share.Message,
				Health: share.State.record(candidates[i].Endpoints)}, wake: share.Wake,
			served: candidates[i].Serving(), absence: absenceOf(candidates[i]), had: uint64(max(0, candidates[i].LastWeight))}
		if backendWeight(b) == 0 {
			e.planned.Reason, e.planned.Message = withoutShare(share)
		}
		if takes := share.Parts > 0 || share.Awaited; !takes || backendWeight(b) == 0 {
			// Whoever takes a share stays, also where it rounds to 0: else it would be left out and awaited by turns.
			e.spare = 2 + candidates[i].distance(m.Member)
		}
		slots = append(slots, e)
	}
	if laid {
		slots = both.split(slots, candidates, sum)
	}
	if sum == 0 {
		refused := unresolvedSlot(key, b, "every cluster that exports it is drained by force: "+s.unanswered())
		refused.refuses = true
		slots = append(slots, refused)
	}
	return slots, effective.Policy
}

// withoutShare is why a cluster takes nothing of a backend to which the route itself gives weight 0.
func withoutShare(share Share) (reason, message string) {
	switch {
	case share.Reason == v1alpha1.WeightResolving, share.Reason == v1alpha1.WeightDrained:
		return share.Reason, share.Message
	case share.Finding.Verdict.out():
		return weightOut(share.Finding.Verdict, ""), share.Finding.Message
	}
	return v1alpha1.WeightByRoute, "the route gives this backend weight 0"
}

func unresolvedSlot(key ServiceKey, b gatewayv1.HTTPBackendRef, message string) slot {
	ref := *b.DeepCopy()
	port := deref(b.Port)
	if port == 0 {
		// A reference without a port would cost the whole route, not only its own share.
		port = 1
	}
	group, kind := gatewayv1.Group(istioGroup), gatewayv1.Kind(hostnameKind)
	ref.BackendObjectReference = gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: unresolvedHost(key), Port: &port}
	return slot{ref: ref, fraction: Fraction{Parts: 1, PartsSum: 1}, spare: 1, planned: v1alpha1.PlannedBackend{
		Import: key.String(), Port: deref(b.Port), Reason: v1alpha1.ReasonImportNotFound, Message: message}}
}

// policyPath is where a policy for one backend of one rule can be attached, from the highest to the lowest.
func (s routePlanner) policyPath(rule gatewayv1.HTTPRouteRule, key ServiceKey) []Target {
	var path []Target
	for _, p := range s.Parents {
		if p.IsAccepted() {
			path = append(path, Target{Kind: "Gateway", Namespace: p.Gateway.Namespace, Name: p.Gateway.Name})
		}
	}
	for _, p := range s.Parents {
		for _, l := range p.Listeners {
			path = append(path, Target{"Gateway", p.Gateway.Namespace, p.Gateway.Name, string(l)})
		}
	}
	route := Target{Kind: "HTTPRoute", Namespace: s.Route.Namespace, Name: s.Route.Name}
	path = append(path, route)
	if rule.Name != nil {
		route.Section = string(*rule.Name)
		path = append(path, route)
	}
	return append(path, Target{Kind: "ServiceImport", Namespace: key.Namespace, Name: key.Name})
}

// candidates are the clusters that export a port of an import and can be reached from a member.
func (s routePlanner) candidates(m RouteMember, ruleName string, key ServiceKey, port int32) []Candidate {
	service, imp := s.Services[key], s.imports[key]
	last := lastRule(m.Last, ruleName)
	decided := slices.ContainsFunc(last.Backends, func(b v1alpha1.PlannedBackend) bool { return b.Import == key.String() })
	var out []Candidate
	for _, cluster := range imp.Clusters {
		exporter, ok := service.member(cluster)
		if !ok || !exporter.serves(port) || !s.known(m, key, cluster) {
			continue
		}
		was := lastBackend(last, key, port, cluster)
		if was.Cluster == "" {
			was = heldBackend(m, ruleName, key, port, cluster)
		}
		if !exporter.Synced && decided && was.Cluster == "" {
			// It was left out before, for a reason that cannot be seen now.
			continue
		}
		candidate := Candidate{Cluster: cluster, Region: exporter.Region, Zone: exporter.Zone,
			Finding: exporter.Finding(), Before: exporter.Before, LastWeight: was.Weight,
			Resolving: cluster != m.Name && s.resolving(m.Observed, key, remoteService(key, cluster, port), was),
			State:     s.remembered(ruleName, was, key, port, cluster), Fresh: exporter.Synced && exporter.Reachable,
			Endpoints: exporter.Endpoints, Word: s.Overrides.failback(cluster, key)}
		if !candidate.Endpoints.Seen {
			candidate.Endpoints = EndpointsOf(was)
		}
		if drain := s.Overrides.drain(cluster, key); drain != nil {
			candidate.Drained, candidate.Forced = drain.Name, drain.Spec.Force
		}
		out = append(out, candidate)
	}
	return out
}

// remembered is the state of a backend in a cluster as the member's own last plan has it. A member that does not list it yet
// goes by what the others remember, the worst of it.
func (s routePlanner) remembered(ruleName string, was v1alpha1.PlannedBackend, key ServiceKey, port int32, cluster string) HealthState {
	if was.Cluster != "" {
		return HealthOf(was)
	}
	found, state := false, HealthState{}
	for _, m := range s.Members {
		other := lastBackend(lastRule(m.Last, ruleName), key, port, cluster)
		if h := HealthOf(other); other.Cluster != "" && (!found || h.worse(state)) {
			found, state = true, h
		}
	}
	return state
}

// known tells whether a member's route may name a service of a cluster: a host has to be there before it is named, and
// so has the grant that lets the route refer to a Service of another namespace.
func (s routePlanner) known(m RouteMember, key ServiceKey, cluster string) bool {
	if cluster == m.Name {
		return key.Namespace == s.Route.Namespace || slices.Contains(m.Granted, key)
	}
	return slices.Contains(m.Hosts, RemoteHost(key, cluster))
}

func lastRule(last []v1alpha1.PlannedRule, name string) v1alpha1.PlannedRule {
	i := slices.IndexFunc(last, func(r v1alpha1.PlannedRule) bool { return r.Name == name })
	if i < 0 {
		return v1alpha1.PlannedRule{}
	}
	return last[i]
}

// ActedOn is the verdict that a planned backend was made from; empty where it does not say. The weight's reason alone
// would not do: a cluster that is held serves its share and is still unfit.
func ActedOn(b v1alpha1.PlannedBackend) Verdict {
	switch verdict := Verdict(b.Verdict); {
	case verdict == Fit, verdict.out():
		return verdict
	case b.Reason == v1alpha1.WeightSuspected:
		return Suspected
	case b.Reason == v1alpha1.WeightUnfit, b.Reason == v1alpha1.WeightHeld:
		return Unfit
	case b.Reason == v1alpha1.WeightResolving, b.Reason == v1alpha1.WeightWithdrawing, b.Cluster == "":
		return "" // these say nothing of its health
	}
	return Fit
}

// lastBackend is what was last decided for a cluster, with the weights of several backendRefs to one import summed up.
func lastBackend(last v1alpha1.PlannedRule, key ServiceKey, port int32, cluster string) v1alpha1.PlannedBackend {
	var out v1alpha1.PlannedBackend
	for _, b := range last.Backends {
		if b.Import == key.String() && b.Port == port && b.Cluster == cluster {
			b.Weight += out.Weight
			out = b
		}
	}
	return out
}

// heldBackend is what a rule of the member's own route says of a cluster of which no plan speaks: plans are recorded
// after the route is written, and a hub that died in between finds only the route.
func heldBackend(m RouteMember, ruleName string, key ServiceKey, port int32, cluster string) v1alpha1.PlannedBackend {
	var out v1alpha1.PlannedBackend
	if m.Observed == nil {
		return out
	}
	ref := backendRef(gatewayv1.HTTPBackendRef{}, key, port, m.Name, cluster, m.Observed.Namespace)
	if cluster == m.Name && namesHome(m.Observed, key, cluster) {
		ref = homeRef(gatewayv1.HTTPBackendRef{}, key, port, cluster)
	}
	for i, rule := range m.Observed.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if RuleName(rule, i) == ruleName && deref(b.Port) == port &&
				sameBackend(b.BackendObjectReference, ref.BackendObjectReference, m.Observed.Namespace) {
				out.Import, out.Port, out.Cluster = key.String(), port, cluster
				out.Weight += int32(backendWeight(b))
			}
		}
	}
	return out
}

// resolving tells whether a host is new to a route that already sends this import somewhere: it is listed at 0
// first and gets weight once the member has seen it, so that no request meets a backend that is not there yet.
//
//	listed in the member's route | its weight | newest route confirmed | last decided | resolving
//	no                           |            |                        |              | yes
//	yes                          | above 0    | any                    | any          | no: it takes traffic already
//	yes                          | 0          | yes                    | any          | no
//	yes                          | 0          | no                     | Resolving    | yes
//	yes                          | 0          | no                     | another      | no: confirmed by an earlier route
//
// Where other backends of a rule stand in, an import that is new to the route waits beside them.
func (s routePlanner) resolving(observed *gatewayv1.HTTPRoute, key ServiceKey, ref gatewayv1.BackendObjectReference, was v1alpha1.PlannedBackend) bool {
	if observed == nil || !readsImports(s.Route) && !sendsSomewhere(observed, key) {
		return false
	}
	weight, listed := observedWeight(observed, ref)
	if !listed {
		return true
	}
	return weight == 0 && !processed(observed) && (was.Reason == "" || was.Reason == v1alpha1.WeightResolving)
}

// sendsSomewhere tells whether a member's route names an import's Service or a host of it.
func sendsSomewhere(observed *gatewayv1.HTTPRoute, key ServiceKey) bool {
	if len(NamedClusters(observed)[key]) > 0 {
		return true
	}
	// At home in its own namespace it is a plain Service.
	_, listed := observedWeight(observed, localService(key, 0, observed.Namespace))
	return listed
}

// observedWeight is the highest weight with which any rule names a backend, and whether one does. The port is not
// compared: what takes time to resolve is the name.
func observedWeight(observed *gatewayv1.HTTPRoute, ref gatewayv1.BackendObjectReference) (uint64, bool) {
	var weight uint64
	found := false
	for _, rule := range observed.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if sameBackend(b.BackendObjectReference, ref, observed.Namespace) {
				weight, found = max(weight, backendWeight(b)), true
			}
		}
	}
	return weight, found
}

// ruleOnly is a route with its rule of a name alone.
func ruleOnly(route *gatewayv1.HTTPRoute, name string) *gatewayv1.HTTPRoute {
	only := &gatewayv1.HTTPRoute{ObjectMeta: route.ObjectMeta}
	for i, rule := range route.Spec.Rules {
		if RuleName(rule, i) == name {
			only.Spec.Rules = append(only.Spec.Rules, rule)
		}
	}
	return only
}

func sameBackend(a, b gatewayv1.BackendObjectReference, namespace string) bool {
	return a.Name == b.Name && deref(a.Group) == deref(b.Group) &&
		cmp.Or(deref(a.Kind), "Service") == cmp.Or(deref(b.Kind), "Service") &&
		cmp.Or(string(deref(a.Namespace)), namespace) == cmp.Or(string(deref(b.Namespace)), namespace)
}

// processed tells whether the member's own controller has looked at the newest generation of its route.
func processed(observed *gatewayv1.HTTPRoute) bool {
	for _, p := range observed.Status.Parents {
		for _, c := range p.Conditions {
			if c.Type == string(gatewayv1.RouteConditionAccepted) && c.ObservedGeneration == observed.Generation {
				return true
			}
		}
	}
	return false
}

// withdrawn keeps clusters that a rule listed and lists no more, at weight 0, until the member has confirmed it:
// whatever is removed was first at 0 and seen so. A host that the member no longer knows is not kept: naming it any
// longer would help nobody.
func (s routePlanner) withdrawn(m RouteMember, ruleName string, slots []slot) []slot {
	if m.Observed == nil {
		return nil
	}
	var out []slot
	for _, was := range lastRule(m.Last, ruleName).Backends {
		key := ParseServiceKey(was.Import)
		if was.Cluster == "" || (was.Cluster != m.Name && !slices.Contains(m.Hosts, RemoteHost(key, was.Cluster))) {
			continue
		}
		ref := backendRef(gatewayv1.HTTPBackendRef{}, key, was.Port, m.Name, was.Cluster, s.Route.Namespace)
		if was.Cluster == m.Name && namesHome(m.Observed, key, was.Cluster) {
			ref = homeRef(gatewayv1.HTTPBackendRef{}, key, was.Port, was.Cluster)
		}
		same := func(e slot) bool {
			// Of its own share a route names either the Service or the home host, and they are the same backend.
			return sameBackend(e.ref.BackendObjectReference, ref.BackendObjectReference, s.Route.Namespace) ||
				was.Cluster == m.Name && e.planned.Cluster == m.Name && e.planned.Import == was.Import
		}
		// Another rule may go on sending requests there.
		weight, listed := observedWeight(ruleOnly(m.Observed, ruleName), ref.BackendObjectReference)
		if !listed || (weight == 0 && processed(m.Observed)) || slices.ContainsFunc(slots, same) || slices.ContainsFunc(out, same) {
			continue
		}
		out = append(out, slot{ref: ref, fraction: Fraction{Parts: 0, PartsSum: 1}, spare: 1,
			planned: v1alpha1.PlannedBackend{Import: was.Import, Port: was.Port, Cluster: was.Cluster,
				Reason: v1alpha1.WeightWithdrawing, Message: "no longer exported, or no longer named; removed once the member has confirmed weight 0"}})
	}
	return out
}

// backendRef refers to a service of one cluster from a member: by the Service itself at home, by the host of
// its cluster elsewhere.
func backendRef(b gatewayv1.HTTPBackendRef, key ServiceKey, port int32, entered, cluster, routeNamespace string) gatewayv1.HTTPBackendRef {
	ref := *b.DeepCopy()
	if cluster == entered {
		ref.BackendObjectReference = localService(key, port, routeNamespace)
		return ref
	}
	ref.BackendObjectReference = remoteService(key, cluster, port)
	ref.Filters = withHeader(ref.Filters, gatewayv1.HTTPHeader{Name: BackendHeader, Value: backendValue(key, port)})
	return ref
}

// backendRef refers to a service of one cluster from a member, at home by its home host where there is one.
func (s routePlanner) backendRef(b gatewayv1.HTTPBackendRef, key ServiceKey, port int32, m RouteMember, cluster string) gatewayv1.HTTPBackendRef {
	service := s.Services[key]
	home, known := service.member(m.Name)
	if cluster == m.Name && known && service.hasHome(home, s.imports[key]) && slices.Contains(m.Hosts, HomeHost(key, cluster)) {
		return homeRef(b, key, port, cluster)
	}
	return backendRef(b, key, port, m.Name, cluster, s.Route.Namespace)
}

func homeRef(b gatewayv1.HTTPBackendRef, key ServiceKey, port int32, cluster string) gatewayv1.HTTPBackendRef {
	ref := *b.DeepCopy()
	ref.BackendObjectReference = remoteService(key, cluster, port)
	ref.Name = gatewayv1.ObjectName(HomeHost(key, cluster))
	ref.Filters = withoutHeader(ref.Filters, BackendHeader)
	return ref
}

func remoteService(key ServiceKey, cluster string, port int32) gatewayv1.BackendObjectReference {
	group, kind := gatewayv1.Group(istioGroup), gatewayv1.Kind(hostnameKind)
	return gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(RemoteHost(key, cluster)), Port: &port}
}

func localService(key ServiceKey, port int32, routeNamespace string) gatewayv1.BackendObjectReference {
	group, kind := gatewayv1.Group(""), gatewayv1.Kind("Service")
	ref := gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(key.Name), Port: &port}
	if key.Namespace != routeNamespace {
		namespace := gatewayv1.Namespace(key.Namespace)
		ref.Namespace = &namespace
	}
	return ref
}
