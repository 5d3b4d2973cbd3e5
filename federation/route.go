// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

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
}

// RouteMember is one member as the route sees it.
type RouteMember struct {
	Member
	// HasNamespace is whether the member has the route's namespace.
	HasNamespace bool
	// Hosts are the host names that ServiceEntries of the route's namespace make known in the member.
	Hosts []string
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
}

// MemberRoute is what was decided for a hub route in one member.
type MemberRoute struct {
	// Object to be written. Nil together with an empty Refused means that the member is to hold none.
	Object *gatewayv1.HTTPRoute
	// Refused says why nothing is written: what the member holds stays as it is.
	Refused metav1.Condition
	// Rules with every weight and its reason.
	Rules []v1alpha1.PlannedRule
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

// ImportsOf lists the imports that a route refers to, sorted, each once.
func ImportsOf(route *gatewayv1.HTTPRoute) []ServiceKey {
	var keys []ServiceKey
	for _, ref := range backendsOf(route) {
		if key, ok := ImportKey(ref, route.Namespace); ok && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b ServiceKey) int { return strings.Compare(a.String(), b.String()) })
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
	s := routePlanner{RouteSnapshot: snapshot, imports: map[ServiceKey]*Import{}}
	for key, service := range snapshot.Services {
		s.imports[key] = service.Import()
	}
	plan := RoutePlan{Members: map[string]MemberRoute{}, ResolvedRefs: s.resolvedRefs()}
	for _, m := range s.Members {
		plan.Members[m.Name] = s.planMember(m)
	}
	return plan
}

// routePlanner is a snapshot with its imports merged once, not once a member and rule.
type routePlanner struct {
	RouteSnapshot
	imports map[ServiceKey]*Import
}

func (s routePlanner) planMember(m RouteMember) MemberRoute {
	refs := s.acceptedRefs()
	if len(refs) == 0 || s.Route.DeletionTimestamp != nil {
		return MemberRoute{}
	}
	if !m.Synced {
		// Its hosts and its route are not known: a plan made now would drop what it does not see.
		return MemberRoute{Refused: condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonSyncing,
			fmt.Sprintf("the contents of %s have not been read yet: what it holds stays as it is", m.Name))}
	}
	if !m.HasNamespace {
		return MemberRoute{Refused: condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonNamespaceMissing,
			fmt.Sprintf("%s has no namespace %s: create it there, and the route follows", m.Name, s.Route.Namespace))}
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
		object.Spec.Rules[i].Filters = s.mirrorLocally(m, object.Spec.Rules[i].Filters)
		result.Rules = append(result.Rules, expanded.planned)
	}
	RouteOwner(s.Route.Namespace, s.Route.Name).Mark(&object.ObjectMeta)
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
	refs    []gatewayv1.HTTPBackendRef
	planned v1alpha1.PlannedRule
}

// slot is one backendRef to be written: a part of one of the rule's own backendRefs.
type slot struct {
	ref      gatewayv1.HTTPBackendRef
	fraction Fraction
	planned  v1alpha1.PlannedBackend
}

func (s routePlanner) expandRule(m RouteMember, index int) expandedRule {
	rule := s.Route.Spec.Rules[index]
	out := expandedRule{planned: v1alpha1.PlannedRule{Name: RuleName(rule, index)}}
	var sum uint64
	for _, b := range rule.BackendRefs {
		sum += backendWeight(b)
	}
	if sum == 0 {
		// No backend, or all of them at 0: both answer 500, and a rule of zeros is never written.
		return out
	}
	var slots []slot
	for _, b := range rule.BackendRefs {
		expanded, policy := s.expandBackend(m, rule, out.planned.Name, b)
		if policy != "" {
			out.planned.Policy = policy
		}
		for _, e := range expanded {
			e.fraction.Weight, e.fraction.WeightSum = backendWeight(b), sum
			slots = append(slots, e)
		}
	}
	weigh(slots)
	for _, e := range fitSlots(slots) {
		out.refs = append(out.refs, e.ref)
		out.planned.Backends = append(out.planned.Backends, e.planned)
	}
	return out
}

// RuleName is the rule's name, or its index where it has none.
func RuleName(rule gatewayv1.HTTPRouteRule, index int) string {
	return cmp.Or(string(deref(rule.Name)), strconv.Itoa(index))
}

func backendWeight(b gatewayv1.HTTPBackendRef) uint64 {
	if b.Weight == nil {
		return 1
	}
	return uint64(max(0, *b.Weight))
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

// fitSlots leaves out standbys, the last first, while there are more than a rule holds: a cluster at weight 0
// is listed to make an emergency quicker, and never at the price of one that serves.
func fitSlots(slots []slot) []slot {
	for i := len(slots) - 1; i >= 0 && len(slots) > maxBackendRefs; i-- {
		if slots[i].planned.Weight == 0 && slots[i].planned.Reason != v1alpha1.WeightWithdrawing {
			slots = slices.Delete(slots, i, i+1)
		}
	}
	return slots
}

// expandBackend turns one backendRef into slots. What is not an import passes through as written.
func (s routePlanner) expandBackend(m RouteMember, rule gatewayv1.HTTPRouteRule, ruleName string,
	b gatewayv1.HTTPBackendRef) ([]slot, string) {
	whole := Fraction{Parts: 1, PartsSum: 1}
	key, isImport := ImportKey(b.BackendObjectReference, s.Route.Namespace)
	if !isImport {
		return []slot{{ref: *b.DeepCopy(), fraction: whole}}, ""
	}
	port, problem := s.resolve(key, b)
	if problem != nil {
		return append([]slot{unresolvedSlot(key, b, problem.Message)}, s.withdrawn(m, ruleName, key, b, nil)...), ""
	}
	effective := EffectivePolicy(s.policyPath(rule, key), s.Policies)
	candidates := s.candidates(m, ruleName, key, port)
	if len(candidates) == 0 {
		message := fmt.Sprintf("no cluster that exports %s can be reached from %s yet", key, m.Name)
		return append([]slot{unresolvedSlot(key, b, message)}, s.withdrawn(m, ruleName, key, b, nil)...), effective.Policy
	}
	var slots []slot
	var sum uint64
	shares := Distribute(effective.Distribution, m.Member, candidates)
	for _, share := range shares {
		sum += uint64(share.Parts)
	}
	for _, share := range shares {
		slots = append(slots, slot{
			ref:      backendRef(b, key, port, m.Name, share.Cluster, s.Route.Namespace),
			fraction: Fraction{Parts: uint64(share.Parts), PartsSum: sum},
			planned: v1alpha1.PlannedBackend{Import: key.String(), Port: port, Cluster: share.Cluster,
				Verdict: string(share.Finding.Verdict), Reason: share.Reason, Message: share.Message},
		})
	}
	return append(slots, s.withdrawn(m, ruleName, key, b, candidates)...), effective.Policy
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
	return slot{ref: ref, fraction: Fraction{Parts: 1, PartsSum: 1}, planned: v1alpha1.PlannedBackend{
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

// candidates are the clusters that export an import and can be reached from a member: itself, and those whose
// host the member already knows, since a route must not name a host before it exists.
func (s routePlanner) candidates(m RouteMember, ruleName string, key ServiceKey, port int32) []Candidate {
	service, imp := s.Services[key], s.imports[key]
	last := lastWeights(m.Last, ruleName, key, port)
	var out []Candidate
	for _, cluster := range imp.Clusters {
		exporter, ok := service.member(cluster)
		host := RemoteHost(key, cluster)
		if !ok || (cluster != m.Name && !slices.Contains(m.Hosts, host)) {
			continue
		}
		out = append(out, Candidate{Cluster: cluster, Region: exporter.Region, Zone: exporter.Zone,
			Finding: exporter.Finding(), Before: exporter.Before, LastWeight: last[cluster],
			Resolving: cluster != m.Name && resolving(m.Observed, key, host)})
	}
	return out
}

func lastWeights(last []v1alpha1.PlannedRule, ruleName string, key ServiceKey, port int32) map[string]int32 {
	weights := map[string]int32{}
	for _, r := range last {
		for _, b := range r.Backends {
			if r.Name == ruleName && b.Import == key.String() && b.Port == port {
				weights[b.Cluster] = b.Weight
			}
		}
	}
	return weights
}

// resolving tells whether a host is new to a route that already sends this import somewhere: it is listed at 0
// first and gets weight once the member has seen it, so that no request meets a backend that is not there yet.
func resolving(observed *gatewayv1.HTTPRoute, key ServiceKey, host string) bool {
	if observed == nil || !sendsSomewhere(observed, key) {
		return false
	}
	_, listed := observedWeight(observed, host)
	return !listed || !processed(observed)
}

func sendsSomewhere(observed *gatewayv1.HTTPRoute, key ServiceKey) bool {
	prefix := key.Name + "." + key.Namespace + "."
	return slices.ContainsFunc(backendsOf(observed), func(r gatewayv1.BackendObjectReference) bool {
		name := string(r.Name)
		return (name == key.Name && deref(r.Kind) != hostnameKind) ||
			(strings.HasPrefix(name, prefix) && name != string(unresolvedHost(key)))
	})
}

// observedWeight is the highest weight with which any rule names a host, and whether one does.
func observedWeight(observed *gatewayv1.HTTPRoute, name string) (uint64, bool) {
	var weight uint64
	found := false
	for _, rule := range observed.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if string(b.Name) == name {
				weight, found = max(weight, backendWeight(b)), true
			}
		}
	}
	return weight, found
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

// withdrawn keeps clusters that were listed and are candidates no more, at weight 0, until the member has
// confirmed it: whatever is removed was first at 0 and seen so.
func (s routePlanner) withdrawn(m RouteMember, ruleName string, key ServiceKey, b gatewayv1.HTTPBackendRef,
	candidates []Candidate) []slot {
	if m.Observed == nil {
		return nil
	}
	port := deref(b.Port)
	last := lastWeights(m.Last, ruleName, key, port)
	var slots []slot
	for _, other := range s.Members {
		_, was := last[other.Name]
		is := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Cluster == other.Name })
		if !was || is {
			continue
		}
		name := RemoteHost(key, other.Name)
		if other.Name == m.Name {
			name = key.Name
		}
		weight, listed := observedWeight(m.Observed, name)
		if !listed || (weight == 0 && processed(m.Observed)) {
			continue
		}
		slots = append(slots, slot{ref: backendRef(b, key, port, m.Name, other.Name, s.Route.Namespace),
			fraction: Fraction{Parts: 0, PartsSum: 1},
			planned: v1alpha1.PlannedBackend{Import: key.String(), Port: port, Cluster: other.Name,
				Reason: v1alpha1.WeightWithdrawing, Message: "no longer exported; removed once the member has confirmed weight 0"}})
	}
	return slots
}

// backendRef refers to a service of one cluster from a member: by the Service itself at home, by the host of
// its cluster elsewhere.
func backendRef(b gatewayv1.HTTPBackendRef, key ServiceKey, port int32, entered, cluster, routeNamespace string) gatewayv1.HTTPBackendRef {
	ref := *b.DeepCopy()
	if cluster == entered {
		ref.BackendObjectReference = localService(key, port, routeNamespace)
		return ref
	}
	group, kind := gatewayv1.Group(istioGroup), gatewayv1.Kind(hostnameKind)
	ref.BackendObjectReference = gatewayv1.BackendObjectReference{Group: &group, Kind: &kind,
		Name: gatewayv1.ObjectName(RemoteHost(key, cluster)), Port: &port}
	ref.Filters = withHeader(ref.Filters, gatewayv1.HTTPHeader{Name: BackendHeader, Value: backendValue(key, port)})
	return ref
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

// withHeader sets a header on the way to a backend. A list holds one RequestHeaderModifier at most, so one that
// the user wrote is extended.
func withHeader(filters []gatewayv1.HTTPRouteFilter, header gatewayv1.HTTPHeader) []gatewayv1.HTTPRouteFilter {
	for i := range filters {
		if filters[i].RequestHeaderModifier != nil {
			filters[i].RequestHeaderModifier.Set = append(filters[i].RequestHeaderModifier.Set, header)
			return filters
		}
	}
	return append(filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
		RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{header}}})
}

// mirrorLocally points a mirror of an import at the cluster's own Service: a mirror cannot carry the header
// that names the service of another cluster. Where the cluster does not export it, the mirror goes nowhere,
// and answers nobody.
func (s routePlanner) mirrorLocally(m RouteMember, filters []gatewayv1.HTTPRouteFilter) []gatewayv1.HTTPRouteFilter {
	kept := make([]gatewayv1.HTTPRouteFilter, 0, len(filters))
	for _, f := range filters {
		if f.RequestMirror == nil {
			kept = append(kept, f)
			continue
		}
		key, isImport := ImportKey(f.RequestMirror.BackendRef, s.Route.Namespace)
		if !isImport {
			kept = append(kept, f)
			continue
		}
		imp := s.imports[key]
		if imp == nil || !slices.Contains(imp.Clusters, m.Name) || !s.granted(key) {
			continue
		}
		f = *f.DeepCopy()
		f.RequestMirror.BackendRef = localService(key, deref(f.RequestMirror.BackendRef.Port), s.Route.Namespace)
		kept = append(kept, f)
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}
