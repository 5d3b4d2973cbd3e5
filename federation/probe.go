// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const (
	// ProbeHeader carries, in a request, the token without which no probe route is matched, and, in an answer, the member
	// whose probe route was: by it an answer of the probe route is told from one of any other route.
	ProbeHeader = "x-isthmus-probe"
	// probeHost is asked for where the listener admits any host.
	probeHost = "probe" + hostSuffix
	// grpcHealthPath is the method of the gRPC health checking protocol.
	grpcHealthPath = "/grpc.health.v1.Health/Check"
	// maxPeers is through how many others each cluster can be looked at: more would only be more objects.
	maxPeers = 3
)

// ProbeSnapshot is all that the probing of one import depends on.
type ProbeSnapshot struct {
	Key ServiceKey
	// Routes of the hub that refer to the import. Of their Services only this one is needed.
	Routes []RouteSnapshot
	// Gateways that members hold now, by the hub's Gateway and by member.
	Gateways map[NamespacedName]map[string]*gatewayv1.Gateway
	// Token that requests have to carry; known to nobody but the hub and the API servers of members.
	Token string
}

// ProbePlan is how an import is probed.
type ProbePlan struct {
	// Probe in force; nil where there is none, and then everything else is empty.
	Probe *v1alpha1.Probe
	// Policy that has it, and Route and Gateway over which the looks are taken.
	Policy         string
	Route, Gateway NamespacedName
	// Objects by member: routes that only the hub can reach.
	Objects map[string][]*gatewayv1.HTTPRoute
	// Targets to be looked at, sorted by cluster.
	Targets []ProbeTarget
	// Metric in force; nil where there is none. It may be of another policy, MetricPolicy, than the probe.
	Metric       *v1alpha1.Metric
	MetricPolicy string
	// MetricClusters are those to be asked about, sorted.
	MetricClusters []string
}

// ProbeTarget is one cluster that is to be looked at.
type ProbeTarget struct {
	Cluster string
	// Direct is the request to its own gateway; nil while that has no address.
	Direct *ProbeRequest
	// Peers are the requests through others, sorted by member.
	Peers []ProbeRequest
}

// ProbeRequest is one request of the hub.
type ProbeRequest struct {
	// Member whose gateway is asked, and Cluster that has to answer.
	Member, Cluster string
	// Address host:port to be dialled.
	Address string
	// Host of the request, and of its certificate where TLS.
	Host string
	// Path that the probe's route matches.
	Path string
	// TLS is whether the listener speaks it.
	TLS bool
}

// ProbeOwner owns what is written for the probing of an import.
func ProbeOwner(key ServiceKey) Owner {
	return Owner{Noun: "probe", Namespace: key.Namespace, Name: key.Name}
}

// PlanProbe decides how an import is probed: over one of its routes' Gateways, by routes beside that one's. In each member
//
//	one rule that is 100 % local         the hub looks at the cluster itself
//	up to maxPeers rules, each pinned    the hub looks at other clusters through this one
//	  to the host of another cluster
//
// matched by a path and by a header of which only the hub knows the value.
//
// A metric needs no route: it is asked for in each cluster that serves the port.
func PlanProbe(s ProbeSnapshot) ProbePlan {
	plan := ProbePlan{}
	if use, found := s.chosen(func(h v1alpha1.Health) bool { return h.Metric != nil }); found {
		plan.Metric, plan.MetricPolicy, plan.MetricClusters = use.health.Metric, use.policy, use.clusters()
	}
	use, found := s.chosen(func(h v1alpha1.Health) bool { return h.Probe != nil })
	if !found {
		return plan
	}
	use.probe = use.health.Probe
	if use.probe.Port != nil {
		use.port = *use.probe.Port
	}
	plan.Probe, plan.Policy, plan.Objects = use.probe, use.policy, map[string][]*gatewayv1.HTTPRoute{}
	plan.Route = NamespacedName{use.planner.Route.Namespace, use.planner.Route.Name}
	plan.Gateway = NamespacedName{use.parent.Gateway.Namespace, use.parent.Gateway.Name}
	for _, m := range use.planner.Members {
		if object := use.object(m); object != nil {
			plan.Objects[m.Name] = []*gatewayv1.HTTPRoute{object}
		}
	}
	for _, cluster := range use.clusters() {
		plan.Targets = append(plan.Targets, use.target(cluster, s.Gateways[plan.Gateway]))
	}
	return plan
}

// ProbeConfigured tells whether any policy has a probe or a metric at all.
func ProbeConfigured(policies []*v1alpha1.TrafficDistributionPolicy) bool {
	return slices.ContainsFunc(policies, func(p *v1alpha1.TrafficDistributionPolicy) bool {
		return slices.ContainsFunc([]*v1alpha1.TrafficDistribution{p.Spec.Defaults, p.Spec.Overrides}, func(d *v1alpha1.TrafficDistribution) bool {
			return probeOf(d) != nil || metricOf(d) != nil
		})
	})
}

func probeOf(d *v1alpha1.TrafficDistribution) *v1alpha1.Probe {
	if d == nil || d.Health == nil {
		return nil
	}
	return d.Health.Probe
}

// probeUse is how an import is looked at, the policy that says so, and the route and Gateway over which that policy holds.
type probeUse struct {
	key      ServiceKey
	token    string
	health   v1alpha1.Health
	probe    *v1alpha1.Probe
	policy   string
	planner  routePlanner
	parent   Parent
	listener gatewayv1.Listener
	port     int32
}

// chosen is the first use among the routes of which the policy says something, those of the import's own namespace before others, then by name. A policy of a
// namespace that merely uses the import does not decide how all others see it, unless it is the Gateway's.
func (s ProbeSnapshot) chosen(says func(v1alpha1.Health) bool) (probeUse, bool) {
	routes := slices.SortedStableFunc(slices.Values(s.Routes), func(a, b RouteSnapshot) int {
		foreign := func(r RouteSnapshot) int {
			if r.Route.Namespace == s.Key.Namespace {
				return 0
			}
			return 1
		}
		return cmp.Or(foreign(a)-foreign(b), strings.Compare(a.Route.Namespace, b.Route.Namespace), strings.Compare(a.Route.Name, b.Route.Name))
	})
	for _, route := range routes {
		planner := newRoutePlanner(route)
		if route.Route.DeletionTimestamp != nil || planner.imports[s.Key] == nil {
			continue
		}
		for _, rule := range intent(route.Route).Spec.Rules {
			for _, b := range rule.BackendRefs {
				if use, ok := s.useOf(planner, rule, b); ok && says(use.health) {
					return use, true
				}
			}
		}
	}
	return probeUse{}, false
}

func (s ProbeSnapshot) useOf(planner routePlanner, rule gatewayv1.HTTPRouteRule, b gatewayv1.HTTPBackendRef) (probeUse, bool) {
	key, isImport := ImportKey(b.BackendObjectReference, planner.Route.Namespace)
	if !isImport || key != s.Key {
		return probeUse{}, false
	}
	port, problem := planner.resolve(key, b.BackendObjectReference)
	effective := EffectivePolicy(planner.policyPath(rule, key), planner.Policies)
	if problem != nil {
		return probeUse{}, false
	}
	use := probeUse{key: key, token: s.Token, health: effective.Health, policy: effective.HealthPolicy, planner: planner, port: port}
	namespace, _, _ := strings.Cut(effective.HealthPolicy, "/")
	for _, p := range planner.Parents {
		if p.IsAccepted() && (namespace == key.Namespace || namespace == p.Gateway.Namespace) {
			use.parent, use.listener = p, probeListener(p)
			return use, true
		}
	}
	return probeUse{}, false
}

// probeListener is the one over which the looks are taken: a plain one where there is one.
func probeListener(p Parent) gatewayv1.Listener {
	var found gatewayv1.Listener
	for _, l := range p.Gateway.Spec.Listeners {
		if slices.Contains(p.Listeners, l.Name) && (found.Name == "" || found.Protocol != gatewayv1.HTTPProtocolType && l.Protocol == gatewayv1.HTTPProtocolType) {
			found = l
		}
	}
	return found
}

// clusters that serve the port that is probed.
func (u probeUse) clusters() []string {
	service := u.planner.Services[u.key]
	return slices.DeleteFunc(slices.Clone(u.planner.imports[u.key].Clusters), func(cluster string) bool {
		m, ok := service.member(cluster)
		return !ok || m.Leaving || !m.serves(u.port)
	})
}

// peersOf are the members through which a cluster is looked at: the next ones by name, around, that know its host.
func (u probeUse) peersOf(cluster string) []RouteMember {
	members := u.planner.Members
	var peers []RouteMember
	start := slices.IndexFunc(members, func(m RouteMember) bool { return m.Name == cluster })
	for i := 1; i < len(members) && len(peers) < maxPeers; i++ {
		if m := members[(start+i)%len(members)]; u.holds(m) && m.Name != cluster && u.planner.known(m, u.key, cluster) {
			peers = append(peers, m)
		}
	}
	slices.SortFunc(peers, func(a, b RouteMember) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// holds tells whether a member can hold the probe's route.
func (u probeUse) holds(m RouteMember) bool { return m.Synced && m.HasNamespace }

// local tells whether a member's own Service can be looked at.
func (u probeUse) local(m RouteMember) bool {
	return u.holds(m) && slices.Contains(u.clusters(), m.Name) && u.planner.known(m, u.key, m.Name)
}

// object is the probe's route in one member; nil where there is nothing to be asked of it.
func (u probeUse) object(m RouteMember) *gatewayv1.HTTPRoute {
	if !u.holds(m) {
		return nil
	}
	var rules []gatewayv1.HTTPRouteRule
	for _, cluster := range u.clusters() {
		peer := slices.ContainsFunc(u.peersOf(cluster), func(p RouteMember) bool { return p.Name == m.Name })
		if cluster == m.Name && u.local(m) || peer {
			rules = append(rules, u.rule(m, cluster))
		}
	}
	slices.SortStableFunc(rules, func(a, b gatewayv1.HTTPRouteRule) int { return isLocal(b) - isLocal(a) })
	// A route holds 16 rules. Each cluster is looked at through maxPeers others, so that there are about four.
	rules = rules[:min(len(rules), 16)]
	if len(rules) == 0 {
		return nil
	}
	ref := *u.parent.Ref.DeepCopy()
	ref.SectionName, ref.Port = &u.listener.Name, nil
	route := &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"},
		ObjectMeta: metav1.ObjectMeta{Namespace: u.planner.Route.Namespace, Name: ProbeRouteName(u.key)},
		Spec: gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{ref}},
			Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(u.host())}, Rules: rules},
	}
	ProbeOwner(u.key).Mark(&route.ObjectMeta)
	return route
}

// isLocal is 1 of a rule that leads to the member's own Service, which comes first.
func isLocal(rule gatewayv1.HTTPRouteRule) int {
	if deref(rule.BackendRefs[0].Kind) == hostnameKind {
		return 0
	}
	return 1
}

// ProbeRouteName is the name of the route by which an import is probed, beside one of the routes that refer to it.
func ProbeRouteName(key ServiceKey) string { return key.Name + "." + key.Namespace + ".isthmus-probe" }

// rule leads to one cluster and no other. The stamp of who answered is the east-west gateway's; at home it is set here.
func (u probeUse) rule(m RouteMember, cluster string) gatewayv1.HTTPRouteRule {
	exact, path, replace := gatewayv1.HeaderMatchExact, gatewayv1.PathMatchExact, u.path(cluster)
	target := grpcHealthPath
	if u.probe.HTTP != nil {
		target = u.probe.HTTP.Path
	}
	rewrite := &gatewayv1.HTTPURLRewriteFilter{Hostname: u.rewrittenHost(),
		Path: &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: &target}}
	answer := []gatewayv1.HTTPHeader{{Name: ProbeHeader, Value: m.Name}}
	if cluster == m.Name {
		answer = append(answer, gatewayv1.HTTPHeader{Name: ServedByHeader, Value: cluster})
	}
	return gatewayv1.HTTPRouteRule{
		Matches: []gatewayv1.HTTPRouteMatch{{
			Path:    &gatewayv1.HTTPPathMatch{Type: &path, Value: &replace},
			Headers: []gatewayv1.HTTPHeaderMatch{{Type: &exact, Name: ProbeHeader, Value: u.token}}}},
		Filters: []gatewayv1.HTTPRouteFilter{
			{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
				RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{ProbeHeader}}},
			{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: rewrite},
			{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier,
				ResponseHeaderModifier: &gatewayv1.HTTPHeaderFilter{Set: answer}}},
		BackendRefs: []gatewayv1.HTTPBackendRef{backendRef(gatewayv1.HTTPBackendRef{}, u.key, u.port, m.Name, cluster, u.planner.Route.Namespace)},
	}
}

// path is matched exactly, and so before whatever else the host's routes match.
func (u probeUse) path(cluster string) string {
	return "/.isthmus/probe/" + u.key.Namespace + "/" + u.key.Name + "/" + cluster
}

// host under which the listener admits the probe's route, apart from those of other routes where that can be. Where the listener
// has none of its own and speaks TLS it is one of the route's: only of those its certificate can be.
func (u probeUse) host() string {
	switch host := string(deref(u.listener.Hostname)); {
	case host == "" && u.listener.Protocol == gatewayv1.HTTPSProtocolType && u.routeHost() != nil:
		return string(*u.routeHost())
	case host == "":
		return probeHost
	case strings.HasPrefix(host, "*."):
		return "isthmus-probe" + host[1:]
	default:
		return host
	}
}

// rewrittenHost is the one that the service sees; nil leaves that of the probe.
func (u probeUse) rewrittenHost() *gatewayv1.PreciseHostname {
	if u.probe.HTTP != nil && u.probe.HTTP.Host != nil {
		return u.probe.HTTP.Host
	}
	return u.routeHost()
}

// routeHost is the first of the route's host names that has no wildcard; nil where there is none.
func (u probeUse) routeHost() *gatewayv1.PreciseHostname {
	for _, h := range u.planner.Route.Spec.Hostnames {
		if !strings.HasPrefix(string(h), "*") {
			host := gatewayv1.PreciseHostname(h)
			return &host
		}
	}
	return nil
}

func (u probeUse) target(cluster string, gateways map[string]*gatewayv1.Gateway) ProbeTarget {
	target := ProbeTarget{Cluster: cluster}
	request := func(member string) *ProbeRequest {
		gateway := gateways[member]
		if gateway == nil || len(gateway.Status.Addresses) == 0 {
			return nil
		}
		address := Address{gateway.Status.Addresses[0].Value, u.listener.Port}
		return &ProbeRequest{Member: member, Cluster: cluster, Address: address.String(), Host: u.host(), Path: u.path(cluster),
			TLS: u.listener.Protocol == gatewayv1.HTTPSProtocolType}
	}
	target.Direct = request(cluster)
	for _, peer := range u.peersOf(cluster) {
		if r := request(peer.Name); r != nil {
			target.Peers = append(target.Peers, *r)
		}
	}
	return target
}

// ProbeTiming is how often looks are taken, and how many count.
type ProbeTiming struct {
	Interval, Timeout time.Duration
	Rise, Fall        int32
}

// TimingOf a probe. What the API server would have filled in, or refused, is filled in here.
func TimingOf(p *v1alpha1.Probe) ProbeTiming {
	t := ProbeTiming{Interval: time.Second, Timeout: time.Second, Rise: cmp.Or(p.Rise, 2), Fall: cmp.Or(p.Fall, 3)}
	if d, err := time.ParseDuration(string(p.Interval)); err == nil && d >= 500*time.Millisecond {
		t.Interval = d
	}
	if d, err := time.ParseDuration(string(p.Timeout)); err == nil && d > 0 {
		t.Timeout = min(d, t.Interval)
	}
	return t
}

// ExpectsStatus tells whether an HTTP status is a success.
func ExpectsStatus(p *v1alpha1.HTTPProbe, status int) bool {
	if len(p.Statuses) == 0 {
		return status >= 200 && status <= 299
	}
	return slices.Contains(p.Statuses, int32(status))
}
