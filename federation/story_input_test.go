// SPDX-License-Identifier: Apache-2.0

package federation_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// story is the parsed in.yaml: hub objects as they are, and members in a kind that only these tests have.
type story struct {
	head     storyHead
	gateways []*gatewayv1.Gateway
	routes   []*gatewayv1.HTTPRoute
	policies []*v1alpha1.TrafficDistributionPolicy
	words    []*v1alpha1.TrafficOverride
	grants   []*gatewayv1.ReferenceGrant
	memories []storyMemory
	members  []*storyMember
	steps    []storyStep
	now      time.Time
}

// storyStep is the document of kind Then: what happens some time later, and what holds then.
type storyStep struct {
	Kind  string `json:"kind"`
	After string `json:"after"`
	// What happens, in words.
	What string `json:"what"`
	// Ready endpoints of each service by member, as "3" or "3 of 10".
	Ready map[string]string `json:"ready,omitempty"`
	// Unreachable and Unsynced are those members that are so from now on, where it is given.
	Unreachable *[]string `json:"unreachable,omitempty"`
	Unsynced    *[]string `json:"unsynced,omitempty"`
}

// storyHead is the document of kind Story.
type storyHead struct {
	Kind string `json:"kind"`
	// About says what the story is about.
	About string `json:"about"`
	// Show lists what out.yaml holds: plan (the default), route, service, probe, probing, eastwest, gateway, policies, overrides, exports;
	// in time also fallbacks, beside the plan.
	Show []string `json:"show,omitempty"`
	// Only these members are told of, where the others say nothing new.
	Only []string `json:"only,omitempty"`
	// Lose and Drain are what is supposed, each by itself, as CLUSTER or CLUSTER/NAMESPACE/NAME; LoseTogether is one supposition.
	Lose         []string `json:"lose,omitempty"`
	LoseTogether []string `json:"loseTogether,omitempty"`
	Drain        []string `json:"drain,omitempty"`
	// Rounds is how often everything is planned; between two rounds each member takes over and confirms its plan.
	Rounds int `json:"rounds,omitempty"`
}

// storyMemory is the document of kind Remembered: an import as the hub last recorded it.
type storyMemory struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Ports    []string `json:"ports"`
	Clusters []string `json:"clusters"`
}

// storyMember is the document of kind Member.
type storyMember struct {
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	Region      string `json:"region,omitempty"`
	Zone        string `json:"zone,omitempty"`
	EastWest    string `json:"eastWest,omitempty"`
	Unreachable bool   `json:"unreachable,omitempty"`
	Unsynced    bool   `json:"unsynced,omitempty"`
	// Namespaces that the member has.
	Namespaces []string       `json:"namespaces,omitempty"`
	Services   []storyService `json:"services,omitempty"`
	// Before is the verdict that was last acted on, by service.
	Before map[string]federation.Verdict `json:"before,omitempty"`
	// Hosts that the member knows; where it is not given, those that the services' plans make known.
	Hosts *[]string `json:"hosts,omitempty"`
	// Holds is the route that the member has now, rule by rule, each backend as
	// "namespace/name:port cluster weight reason".
	Holds map[string][]string `json:"holds,omitempty"`
	// Unconfirmed is whether the member's controller has yet to look at what it holds.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Probes by service: what the looks at it have come to.
	Probes map[string]storyProbe `json:"probes,omitempty"`
	// Metrics by service: what its metric has come to.
	Metrics map[string]storyMetric `json:"metrics,omitempty"`
	// GatewayAddress of its programmed Gateway; empty while it has none.
	GatewayAddress string `json:"gatewayAddress,omitempty"`

	observed  *gatewayv1.HTTPRoute
	last      []v1alpha1.PlannedRule
	endpoints map[string]federation.Endpoints
}

// storyProbe is what the looks at a service in a member have come to.
type storyProbe struct {
	Hub  storySight `json:"hub,omitempty"`
	Peer storySight `json:"peer,omitempty"`
	// Unproven is whether the probe has succeeded nowhere, Held why the guard holds.
	Unproven bool   `json:"unproven,omitempty"`
	Held     string `json:"held,omitempty"`
}

type storySight struct {
	Sight federation.Seen `json:"sight"`
	Said  string          `json:"said,omitempty"`
}

func (p storyProbe) signal() *federation.ProbeSignal {
	return &federation.ProbeSignal{Proven: !p.Unproven, Held: p.Held, ProbeState: federation.ProbeState{
		Hub: federation.Streak{Sight: p.Hub.Sight, Said: p.Hub.Said}, Peer: federation.Streak{Sight: p.Peer.Sight, Said: p.Peer.Said}}}
}

// storyMetric is what the metric of a service in a member has come to.
type storyMetric struct {
	Sight federation.Seen `json:"sight,omitempty"`
	Said  string          `json:"said,omitempty"`
	// Unproven is whether it was well nowhere, Held why the guard holds.
	Unproven bool   `json:"unproven,omitempty"`
	Held     string `json:"held,omitempty"`
}

func (p storyMetric) signal(member string) *federation.MetricSignal {
	return &federation.MetricSignal{Name: "error rate", Source: "prometheus." + member, Fall: 3, Proven: !p.Unproven, Held: p.Held,
		MetricState: federation.MetricState{Streak: federation.Streak{Sight: p.Sight, Said: p.Said}}}
}

// storyService is a Service in a member, exported unless Private.
type storyService struct {
	Name     string   `json:"name"`
	Ports    []string `json:"ports"`
	Ready    int      `json:"ready"`
	Wanted   int      `json:"wanted,omitempty"`
	Created  string   `json:"created,omitempty"`
	Headless bool     `json:"headless,omitempty"`
	Affinity string   `json:"affinity,omitempty"`
	// Private is whether there is no ServiceExport, Missing whether there is no Service.
	Private bool `json:"private,omitempty"`
	Missing bool `json:"missing,omitempty"`
}

func readStory(t *testing.T, in []byte) *story {
	t.Helper()
	s := &story{now: storyTime}
	for _, doc := range documents(in) {
		s.add(t, doc)
	}
	slices.SortFunc(s.members, func(a, b *storyMember) int { return strings.Compare(a.Name, b.Name) })
	require.NotEmpty(t, s.head.About, "a document of kind Story says what the story is about")
	return s
}

func (s *story) add(t *testing.T, doc []byte) {
	t.Helper()
	var meta struct {
		Kind string `json:"kind"`
	}
	require.NoError(t, yamlUnmarshal(doc, &meta))
	switch meta.Kind {
	case "Story":
		decode(t, doc, &s.head)
	case "Member":
		s.members = append(s.members, decoded[storyMember](t, doc))
	case "Remembered":
		s.memories = append(s.memories, *decoded[storyMemory](t, doc))
	case "Then":
		s.steps = append(s.steps, *decoded[storyStep](t, doc))
	case "Gateway":
		s.gateways = append(s.gateways, decoded[gatewayv1.Gateway](t, doc))
	case "HTTPRoute":
		s.routes = append(s.routes, decoded[gatewayv1.HTTPRoute](t, doc))
	case "TrafficDistributionPolicy":
		s.policies = append(s.policies, decoded[v1alpha1.TrafficDistributionPolicy](t, doc))
	case "TrafficOverride":
		s.words = append(s.words, decoded[v1alpha1.TrafficOverride](t, doc))
	case "ReferenceGrant":
		s.grants = append(s.grants, decoded[gatewayv1.ReferenceGrant](t, doc))
	default:
		t.Fatalf("no kind %q in a story", meta.Kind)
	}
}

func decoded[T any](t *testing.T, doc []byte) *T {
	t.Helper()
	into := new(T)
	decode(t, doc, into)
	return into
}

// count takes in how many endpoints there are now.
func (s *story) count() {
	for _, m := range s.members {
		if m.endpoints == nil {
			m.endpoints = map[string]federation.Endpoints{}
		}
		for _, svc := range m.Services {
			if !m.Unsynced {
				m.endpoints[svc.Name] = m.endpoints[svc.Name].Step(svc.Ready, svc.Wanted)
			}
		}
	}
}

// happen lets time pass, and what a step says happen.
func (s *story) happen(t *testing.T, step storyStep) {
	t.Helper()
	after, err := time.ParseDuration(step.After)
	require.NoError(t, err)
	s.now = s.now.Add(after)
	for _, m := range s.members {
		if step.Unreachable != nil {
			m.Unreachable = slices.Contains(*step.Unreachable, m.Name)
		}
		if step.Unsynced != nil {
			m.Unsynced = slices.Contains(*step.Unsynced, m.Name)
		}
		ready, wanted, partly := strings.Cut(step.Ready[m.Name], " of ")
		for i := range m.Services {
			if n, err := strconv.Atoi(ready); err == nil {
				m.Services[i].Ready, m.Services[i].Wanted = n, n
			}
			if n, err := strconv.Atoi(wanted); partly && err == nil {
				m.Services[i].Wanted = n
			}
		}
	}
}

func (m *storyMember) member() federation.Member {
	out := federation.Member{Name: m.Name, Region: m.Region, Zone: m.Zone, GatewayClassName: "istio", TrustDomain: "cluster.local",
		Reachable: !m.Unreachable, Synced: !m.Unsynced}
	if host, port, ok := strings.Cut(m.EastWest, ":"); ok {
		n, _ := strconv.Atoi(port)
		out.EastWest = federation.Address{Host: host, Port: int32(n)}
	}
	return out
}

// storyTime is when every story begins.
var storyTime = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func (s *story) overrides() federation.Overrides {
	said := slices.DeleteFunc(slices.Clone(s.words), func(o *v1alpha1.TrafficOverride) bool { return o.CreationTimestamp.After(s.now) })
	return federation.OverridesInForce(said, s.now)
}

// services gathers every service that some member has, some route names or the hub remembers.
func (s *story) services() map[federation.ServiceKey]federation.ServiceSnapshot {
	keys := map[federation.ServiceKey]bool{}
	for _, m := range s.members {
		for _, svc := range m.Services {
			keys[serviceKey(svc.Name)] = true
		}
	}
	for _, r := range s.routes {
		for _, key := range federation.ImportsOf(r) {
			keys[key] = true
		}
	}
	out := map[federation.ServiceKey]federation.ServiceSnapshot{}
	for key := range keys {
		out[key] = s.service(key)
	}
	return out
}

func (s *story) service(key federation.ServiceKey) federation.ServiceSnapshot {
	snapshot := federation.ServiceSnapshot{Key: key, Overrides: s.overrides()}
	for _, memory := range s.memories {
		if memory.Name == key.String() {
			snapshot.Remembered = &federation.RememberedImport{Clusters: memory.Clusters,
				Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP}}
			for _, p := range memory.Ports {
				port := servicePort(p)
				snapshot.Remembered.Spec.Ports = append(snapshot.Remembered.Spec.Ports,
					mcsv1beta1.ServicePort{Name: port.Name, Port: port.Port, Protocol: port.Protocol})
			}
		}
	}
	for _, r := range s.routes {
		if r.Namespace != key.Namespace && federation.Granted(s.grants, r.Namespace, key) &&
			!slices.Contains(snapshot.RouteNamespaces, r.Namespace) && slices.Contains(federation.ImportsOf(r), key) {
			snapshot.RouteNamespaces = append(snapshot.RouteNamespaces, r.Namespace)
		}
	}
	for _, g := range s.gateways {
		snapshot.Gateways = append(snapshot.Gateways, federation.NamespacedName{Namespace: g.Namespace, Name: g.Name})
	}
	decided := federation.Decided{}
	for _, m := range s.members {
		decided.Add(m.last)
	}
	for _, m := range s.members {
		member, decision := m.service(key, snapshot.RouteNamespaces), decided.Of(key, m.Name)
		if before := m.Before[key.String()]; before != "" {
			decision = federation.Decision{Verdict: before, Out: before != federation.Fit}
		}
		member.Before, member.LeftOut = decision.Verdict, decision.Out
		snapshot.Members = append(snapshot.Members, member)
	}
	return snapshot
}

func (m *storyMember) service(key federation.ServiceKey, routeNamespaces []string) federation.ServiceMember {
	out := federation.ServiceMember{Member: m.member()}
	if probe, probed := m.Probes[key.String()]; probed {
		out.Probe = probe.signal()
	}
	if metric, measured := m.Metrics[key.String()]; measured {
		out.Metric = metric.signal(m.Name)
	}
	if m.Unsynced {
		return out
	}
	for _, namespace := range append([]string{key.Namespace}, routeNamespaces...) {
		if slices.Contains(m.Namespaces, namespace) {
			out.Namespaces = append(out.Namespaces, namespace)
		}
	}
	if m.observed != nil {
		out.Names = federation.NamedClusters(m.observed)[key]
	}
	for _, svc := range m.Services {
		if svc.Name != key.String() {
			continue
		}
		out.Exported, out.ReadyEndpoints, out.Open = !svc.Private, svc.Ready, true
		out.Endpoints = m.endpoints[svc.Name]
		out.Created, _ = time.Parse(time.DateOnly, cmp.Or(svc.Created, "2026-01-01"))
		if !svc.Missing {
			out.Service = svc.object()
		}
	}
	return out
}

func (svc storyService) object() *corev1.Service {
	key := serviceKey(svc.Name)
	out := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10",
			SessionAffinity: corev1.ServiceAffinity(cmp.Or(svc.Affinity, "None"))}}
	if svc.Headless {
		out.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range svc.Ports {
		out.Spec.Ports = append(out.Spec.Ports, servicePort(p))
	}
	return out
}

// servicePort reads "name 80" or "name 80/UDP".
func servicePort(s string) corev1.ServicePort {
	name, rest, found := strings.Cut(s, " ")
	if !found {
		name, rest = "", s
	}
	number, protocol, _ := strings.Cut(rest, "/")
	n, _ := strconv.Atoi(number)
	return corev1.ServicePort{Name: name, Port: int32(n), Protocol: corev1.Protocol(cmp.Or(protocol, "TCP"))}
}

func serviceKey(s string) federation.ServiceKey {
	namespace, name, _ := strings.Cut(s, "/")
	return federation.ServiceKey{Namespace: namespace, Name: name}
}

// adoptHeld turns what the member is said to hold into a route and into what was last decided.
func (m *storyMember) adoptHeld(t *testing.T, route *gatewayv1.HTTPRoute) {
	t.Helper()
	if m.Holds == nil || m.observed != nil {
		return
	}
	observed := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: route.Namespace, Name: route.Name, Generation: 1}}
	for i, rule := range route.Spec.Rules {
		name := federation.RuleName(rule, i)
		planned, held := v1alpha1.PlannedRule{Name: name}, gatewayv1.HTTPRouteRule{Name: rule.Name}
		for _, text := range m.Holds[name] {
			b := plannedBackend(t, text)
			planned.Backends = append(planned.Backends, b)
			held.BackendRefs = append(held.BackendRefs, heldRef(b, m.Name))
		}
		m.last, observed.Spec.Rules = append(m.last, planned), append(observed.Spec.Rules, held)
	}
	if !m.Unconfirmed {
		confirm(observed)
	}
	m.observed = observed
}

func plannedBackend(t *testing.T, text string) v1alpha1.PlannedBackend {
	t.Helper()
	fields := strings.Fields(text)
	require.Len(t, fields, 4, "a held backend is \"namespace/name:port cluster weight reason\", not %q", text)
	name, port, _ := strings.Cut(fields[0], ":")
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	weight, err := strconv.Atoi(fields[2])
	require.NoError(t, err)
	return v1alpha1.PlannedBackend{Import: name, Port: int32(n), Cluster: fields[1], Weight: int32(weight), Reason: fields[3]}
}

func heldRef(b v1alpha1.PlannedBackend, entered string) gatewayv1.HTTPBackendRef {
	key := serviceKey(b.Import)
	group, kind, name := gatewayv1.Group("networking.istio.io"), gatewayv1.Kind("Hostname"), federation.RemoteHost(key, b.Cluster)
	if b.Cluster == entered {
		group, kind, name = "", "Service", key.Name
	}
	return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{Weight: &b.Weight,
		BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind,
			Name: gatewayv1.ObjectName(name), Port: &b.Port}}}
}

// confirm is what the member's own controller does when it has looked at a route.
func confirm(route *gatewayv1.HTTPRoute) {
	route.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: "istio.io/gateway-controller",
		Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, ObservedGeneration: route.Generation}}}}
}

func (s *story) route(route *gatewayv1.HTTPRoute) federation.RouteSnapshot {
	services := s.services()
	snapshot := federation.RouteSnapshot{Route: route, Services: services, Policies: s.policies, Grants: s.grants, Overrides: s.overrides(), Now: s.now}
	for _, ref := range route.Spec.ParentRefs {
		for _, g := range s.gateways {
			namespace := route.Namespace
			if ref.Namespace != nil {
				namespace = string(*ref.Namespace)
			}
			if string(ref.Name) == g.Name && namespace == g.Namespace {
				snapshot.Parents = append(snapshot.Parents, federation.Attach(route, ref, g, nil))
			}
		}
	}
	for _, m := range s.members {
		rm := federation.RouteMember{Member: m.member(), Last: m.last}
		if !m.Unsynced {
			rm.HasNamespace = slices.Contains(m.Namespaces, route.Namespace)
			rm.Observed, rm.Hosts, rm.Granted = m.observed, m.hosts(services, route.Namespace), m.granted(services, route.Namespace)
		}
		snapshot.Members = append(snapshot.Members, rm)
	}
	return snapshot
}

func (m *storyMember) hosts(services map[federation.ServiceKey]federation.ServiceSnapshot, namespace string) []string {
	if m.Hosts != nil {
		return *m.Hosts
	}
	var hosts []string
	for _, service := range services {
		for _, o := range federation.PlanService(service).Objects[m.Name].All() {
			hosts = append(hosts, entryHosts(o, namespace)...)
		}
	}
	slices.Sort(hosts)
	return hosts
}

func (m *storyMember) granted(services map[federation.ServiceKey]federation.ServiceSnapshot, namespace string) []federation.ServiceKey {
	var keys []federation.ServiceKey
	for key, service := range services {
		for _, o := range federation.PlanService(service).Objects[m.Name].All() {
			if grant, ok := o.(*gatewayv1.ReferenceGrant); ok && string(grant.Spec.From[0].Namespace) == namespace {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// probe is how an import is probed.
func (s *story) probe(t *testing.T, key federation.ServiceKey) federation.ProbePlan {
	t.Helper()
	snapshot := federation.ProbeSnapshot{Key: key, Token: "token", Gateways: map[federation.NamespacedName]map[string]*gatewayv1.Gateway{}}
	for _, r := range s.routes {
		if slices.Contains(federation.ImportsOf(r), key) {
			snapshot.Routes = append(snapshot.Routes, s.route(r))
		}
	}
	for _, g := range s.gateways {
		held := map[string]*gatewayv1.Gateway{}
		for _, m := range s.members {
			if observed := m.gateway(g); observed != nil {
				held[m.Name] = observed
			}
		}
		snapshot.Gateways[federation.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = held
	}
	return federation.PlanProbe(snapshot)
}

func (s *story) gateway(g *gatewayv1.Gateway) federation.GatewaySnapshot {
	snapshot := federation.GatewaySnapshot{Gateway: g, Attached: map[gatewayv1.SectionName]int32{}, Overrides: s.overrides()}
	for _, r := range s.routes {
		for _, p := range s.route(r).Parents {
			for _, l := range p.Listeners {
				snapshot.Attached[l]++
			}
		}
	}
	for _, m := range s.members {
		gm := federation.GatewayMember{Member: m.member()}
		if !m.Unsynced {
			gm.HasNamespace, gm.Observed = slices.Contains(m.Namespaces, g.Namespace), m.gateway(g)
		}
		for name := range m.Probes {
			gm.Suspected = s.service(serviceKey(name)).Suspects(m.Name)
		}
		snapshot.Members = append(snapshot.Members, gm)
	}
	return snapshot
}

func (m *storyMember) gateway(hub *gatewayv1.Gateway) *gatewayv1.Gateway {
	if m.GatewayAddress == "" {
		return nil
	}
	kind := gatewayv1.IPAddressType
	return &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: hub.Namespace, Name: hub.Name},
		Status: gatewayv1.GatewayStatus{
			Addresses:  []gatewayv1.GatewayStatusAddress{{Type: &kind, Value: m.GatewayAddress}},
			Conditions: []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionTrue}}}}
}

func (s *story) policyStatus(p *v1alpha1.TrafficDistributionPolicy) []gatewayv1.PolicyAncestorStatus {
	snapshot := federation.PolicySnapshot{Policy: p, Exists: map[federation.Target]bool{}}
	for _, other := range s.policies {
		if other != p && other.Namespace == p.Namespace {
			snapshot.Others = append(snapshot.Others, other)
		}
	}
	for _, m := range s.members {
		snapshot.Members = append(snapshot.Members, m.Name)
	}
	for _, t := range federation.TargetsOf(p) {
		snapshot.Exists[t] = s.exists(t)
	}
	return federation.PolicyStatus(snapshot)
}

func (s *story) exists(t federation.Target) bool {
	switch t.Kind {
	case "Gateway":
		return slices.ContainsFunc(s.gateways, func(g *gatewayv1.Gateway) bool {
			return g.Namespace == t.Namespace && g.Name == t.Name &&
				(t.Section == "" || slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool { return string(l.Name) == t.Section }))
		})
	case "HTTPRoute":
		return slices.ContainsFunc(s.routes, func(r *gatewayv1.HTTPRoute) bool {
			return r.Namespace == t.Namespace && r.Name == t.Name &&
				(t.Section == "" || slices.ContainsFunc(r.Spec.Rules, func(rule gatewayv1.HTTPRouteRule) bool {
					return rule.Name != nil && string(*rule.Name) == t.Section
				}))
		})
	}
	service, known := s.services()[federation.ServiceKey{Namespace: t.Namespace, Name: t.Name}]
	return known && service.Import() != nil
}

// overrideStatus is what is said of an override once every member has confirmed what was planned.
func (s *story) overrideStatus(t *testing.T, o *v1alpha1.TrafficOverride) v1alpha1.TrafficOverrideStatus {
	t.Helper()
	snapshot := federation.OverrideSnapshot{Override: o, All: s.words, Now: s.now}
	for _, m := range s.members {
		snapshot.Members = append(snapshot.Members, m.Name)
	}
	for _, ref := range o.Spec.Imports {
		if s.exists(federation.Target{Kind: "ServiceImport", Namespace: ref.Namespace, Name: ref.Name}) {
			snapshot.Imports = append(snapshot.Imports, ref)
		}
	}
	for _, ref := range o.Spec.Routes {
		if s.exists(federation.Target{Kind: "HTTPRoute", Namespace: ref.Namespace, Name: ref.Name}) {
			snapshot.Routes = append(snapshot.Routes, ref)
		}
	}
	for _, r := range s.routes {
		prepared := s.prepared(t, r)
		plan := federation.PlanRoute(prepared)
		for i, m := range prepared.Members {
			if object := plan.Members[m.Name].Object; object != nil {
				prepared.Members[i].Observed = object.DeepCopy()
				confirm(prepared.Members[i].Observed)
			}
		}
		for _, status := range federation.ReportRoute(prepared, plan, nil).Plans {
			snapshot.Plans = append(snapshot.Plans, v1alpha1.RoutePlan{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace}, Status: status})
		}
	}
	return federation.OverrideStatus(snapshot)
}

// conditionWords is a condition in one line.
func conditionWords(c metav1.Condition) string {
	return fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
}
