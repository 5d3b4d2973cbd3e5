// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// hostileWeights are those at which arithmetic goes wrong, if it does.
var hostileWeights = []int32{0, 0, 1, 1, 2, 3, 7, 10, 33, 50, 90, 100, 9999, 10000, 10001, 999_983, 1_000_000}

func init() {
	// A failure is told with its seed; no file is left behind.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

var worldKeys = []ServiceKey{sampleKey, {Namespace: "sample", Name: "canary"}, {Namespace: "elsewhere", Name: "far"}}

// world is a whole clusterset as a snapshot of one route, with everything that a test may want to turn.
type world struct{ RouteSnapshot }

// drawWorld draws up to maxMembers members with everything about them, and a route with policies.
func drawWorld(t *rapid.T, maxMembers int) world {
	w := world{RouteSnapshot{Services: map[ServiceKey]ServiceSnapshot{}}}
	w.Route = drawRoute(t)
	w.Parents = []Parent{{Ref: gatewayv1.ParentReference{Name: "g"}, Listeners: []gatewayv1.SectionName{"web"},
		Gateway: &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"}}}}
	if rapid.Bool().Draw(t, "granted") {
		w.Grants = []*gatewayv1.ReferenceGrant{{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere"}, Spec: gatewayv1.ReferenceGrantSpec{
			From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "sample"}},
			To:   []gatewayv1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport"}}}}}
	}
	members := make([]Member, rapid.IntRange(1, maxMembers).Draw(t, "members"))
	for i := range members {
		members[i] = Member{Name: fmt.Sprintf("c%02d", i), GatewayClassName: "istio", TrustDomain: "cluster.local",
			Region: rapid.SampledFrom([]string{"", "eu", "us"}).Draw(t, "region"), Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"),
			EastWest: Address{"10.0.0.1", 15443}}
	}
	w.Policies = drawPolicies(t, members)
	for _, m := range members {
		w.Members = append(w.Members, RouteMember{Member: m, HasNamespace: rapid.IntRange(0, 9).Draw(t, "namespace") > 0})
	}
	return w.turned(t)
}

// turned is the world after everything that can change by itself has changed: health, reachability, exports, hosts.
func (w world) turned(t *rapid.T) world {
	next := w
	next.Services, next.Members = map[ServiceKey]ServiceSnapshot{}, slices.Clone(w.Members)
	for i := range next.Members {
		next.Members[i].Reachable = rapid.IntRange(0, 4).Draw(t, "reachable") > 0
		next.Members[i].Synced = rapid.IntRange(0, 9).Draw(t, "synced") > 0
		next.Members[i].Hosts, next.Members[i].Granted = nil, nil
		if rapid.IntRange(0, 9).Draw(t, "granted there") > 0 {
			next.Members[i].Granted = []ServiceKey{{Namespace: "elsewhere", Name: "far"}}
		}
	}
	for _, key := range worldKeys {
		service := ServiceSnapshot{Key: key}
		if rapid.Bool().Draw(t, "remembered") {
			service.Remembered = &RememberedImport{Spec: mcsv1beta1.ServiceImportSpec{Ports: []mcsv1beta1.ServicePort{{Port: 80}}}}
		}
		for i, m := range next.Members {
			service.Members = append(service.Members, drawService(t, m.Member))
			if service.Remembered != nil && rapid.Bool().Draw(t, "remembered here") {
				service.Remembered.Clusters = append(service.Remembered.Clusters, m.Name)
			}
			// Few are not known: the bits that are set in two draws.
			unknown := rapid.Uint32().Draw(t, "unknown") & rapid.Uint32().Draw(t, "unknown too")
			for j, other := range next.Members {
				if unknown>>(j%32)&1 == 0 {
					next.Members[i].Hosts = append(next.Members[i].Hosts, RemoteHost(key, other.Name))
				}
			}
		}
		next.Services[key] = service
	}
	next.Overrides = drawOverrides(t, next.Members)
	for key, service := range next.Services {
		service.Overrides = next.Overrides
		next.Services[key] = service
	}
	return next
}

// drawOverrides draws what people may say, mostly nothing.
func drawOverrides(t *rapid.T, members []RouteMember) Overrides {
	var all []*v1alpha1.TrafficOverride
	for i := range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3}).Draw(t, "overrides") {
		o := override(fmt.Sprintf("o%d", i), rapid.SampledFrom([]v1alpha1.OverrideType{v1alpha1.OverrideDrain, v1alpha1.OverrideDrain,
			v1alpha1.OverridePin, v1alpha1.OverrideHold, v1alpha1.OverrideFreeze}).Draw(t, "word"))
		cluster := rapid.SampledFrom(members).Draw(t, "overridden").Name
		switch o.Spec.Type {
		case v1alpha1.OverrideDrain:
			o.Spec.Cluster, o.Spec.Force = cluster, rapid.IntRange(0, 3).Draw(t, "force") == 0
			if rapid.Bool().Draw(t, "of one service") {
				o.Spec.Imports = []v1alpha1.ObjectReference{{Namespace: "sample", Name: "helloworld"}}
			}
		case v1alpha1.OverridePin:
			o.Spec.Routes = []v1alpha1.ObjectReference{{Namespace: "sample", Name: "r"}}
			o.Spec.Weights = []v1alpha1.ClusterWeight{{Cluster: cluster, Weight: rapid.SampledFrom(hostileWeights).Draw(t, "pin")}}
		case v1alpha1.OverrideHold:
			o.Spec.Routes = []v1alpha1.ObjectReference{{Namespace: "sample", Name: "r"}}
		case v1alpha1.OverrideFreeze, v1alpha1.OverrideFailback:
		}
		all = append(all, o)
	}
	return OverridesInForce(all, time.Time{})
}

func drawService(t *rapid.T, m Member) ServiceMember {
	out := ServiceMember{Member: m, Before: rapid.SampledFrom([]Verdict{"", Fit, Unfit}).Draw(t, "before")}
	if !m.Synced {
		return out
	}
	out.Namespaces = []string{"sample", "elsewhere"}
	out.Exported = rapid.IntRange(0, 3).Draw(t, "exported") > 0
	out.ReadyEndpoints = rapid.IntRange(0, 2).Draw(t, "ready")
	out.Open = rapid.IntRange(0, 9).Draw(t, "open") > 0
	if rapid.IntRange(0, 9).Draw(t, "service") > 0 {
		out.Service = serviceWith(rapid.SampledFrom([][]string{{"http 80"}, {"http 80", "admin 81"}, {"admin 81"}}).Draw(t, "ports")...)
	}
	return out
}

func drawRoute(t *rapid.T) *gatewayv1.HTTPRoute {
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "r"}}
	for range rapid.IntRange(1, 2).Draw(t, "rules") {
		var rule gatewayv1.HTTPRouteRule
		for range rapid.IntRange(0, 3).Draw(t, "backends") {
			var b gatewayv1.HTTPBackendRef
			key := rapid.SampledFrom(worldKeys).Draw(t, "import")
			b.Name, b.Port = gatewayv1.ObjectName(key.Name), new(int32(rapid.IntRange(80, 82).Draw(t, "port")))
			b.Namespace = new(gatewayv1.Namespace(key.Namespace))
			if rapid.IntRange(0, 5).Draw(t, "is import") > 0 {
				b.Group, b.Kind = new(gatewayv1.Group(mcsv1beta1.GroupName)), new(gatewayv1.Kind("ServiceImport"))
			}
			if rapid.Bool().Draw(t, "weighted") {
				b.Weight = new(rapid.SampledFrom(hostileWeights).Draw(t, "weight"))
			}
			if rapid.IntRange(0, 5).Draw(t, "no port") == 0 {
				b.Port = nil
			}
			rule.BackendRefs = append(rule.BackendRefs, b)
		}
		route.Spec.Rules = append(route.Spec.Rules, rule)
	}
	return route
}

func drawPolicies(t *rapid.T, members []Member) []*v1alpha1.TrafficDistributionPolicy {
	var out []*v1alpha1.TrafficDistributionPolicy
	for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
		target := rapid.SampledFrom([]string{"Gateway g", "HTTPRoute r", "ServiceImport helloworld"}).Draw(t, "target")
		p := policyOn(fmt.Sprintf("p%d", i), rapid.SampledFrom([]string{"default", "override"}).Draw(t, "what"), target)
		d := v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted}
		for _, m := range members {
			if rapid.Bool().Draw(t, "named") {
				d.Weights = append(d.Weights, v1alpha1.ClusterWeight{Cluster: m.Name, Weight: rapid.SampledFrom(hostileWeights).Draw(t, "share")})
			}
		}
		if rapid.IntRange(0, 2).Draw(t, "in tiers") == 0 {
			d = inTiers(t, d)
		}
		for _, said := range []*v1alpha1.TrafficDistribution{p.Spec.Defaults, p.Spec.Overrides} {
			if said != nil {
				said.Distribution = d
			}
		}
		out = append(out, p)
	}
	return out
}

// inTiers is a weighted distribution with each cluster in one of three tiers.
func inTiers(t *rapid.T, d v1alpha1.Distribution) v1alpha1.Distribution {
	out := v1alpha1.Distribution{Type: v1alpha1.DistributionPriority, Tiers: make([]v1alpha1.DistributionTier, 3)}
	for _, w := range d.Weights {
		tier := &out.Tiers[rapid.IntRange(0, 2).Draw(t, "tier")]
		tier.Clusters = append(tier.Clusters, w)
	}
	return out
}

// holding is the world in which each member has taken over its plan, and what was acted on is remembered.
func (w world) holding(plan RoutePlan, confirmed bool) world {
	next := world{takenOver(w.RouteSnapshot, plan, confirmed)}
	for i := range next.Members {
		if !next.Members[i].Synced {
			next.Members[i].Observed = w.Members[i].Observed
		}
	}
	return next
}

// checkPlan is what holds for every plan of every world.
func checkPlan(t require.TestingT, w world, plan RoutePlan) {
	for _, m := range w.Members {
		planned := plan.Members[m.Name]
		if planned.Object == nil {
			require.NotEmpty(t, planned.Refused.Message, "%s gets nothing and is not told why", m.Name)
			continue
		}
		require.True(t, m.Synced && m.HasNamespace)
		require.Empty(t, validation.IsDNS1123Subdomain(planned.Object.Name))
		require.Len(t, planned.Object.Spec.Rules, len(w.Route.Spec.Rules))
		for i, rule := range planned.Object.Spec.Rules {
			checkRule(t, w, m, w.Route.Spec.Rules[i], rule, planned.Rules[i])
		}
	}
}

func checkRule(t require.TestingT, w world, m RouteMember, wanted, rule gatewayv1.HTTPRouteRule, planned v1alpha1.PlannedRule) {
	var intent, total uint64
	for _, b := range wanted.BackendRefs {
		intent += backendWeight(b)
	}
	require.LessOrEqual(t, len(rule.BackendRefs), maxBackendRefs)
	require.Len(t, planned.Backends, len(rule.BackendRefs))
	for i, b := range rule.BackendRefs {
		require.NotNil(t, b.Weight)
		require.GreaterOrEqual(t, *b.Weight, int32(0))
		require.Equal(t, *b.Weight, planned.Backends[i].Weight)
		require.NotNil(t, cmpPort(b, planned.Backends[i]), "a reference without a port costs the whole route")
		require.Empty(t, validation.IsDNS1123Subdomain(string(b.Name)))
		if strings.HasSuffix(string(b.Name), hostSuffix) {
			require.Contains(t, m.Hosts, string(b.Name), "a host is named only where it is known")
		}
		total += backendWeight(b)
	}
	if intent == 0 {
		require.Empty(t, rule.BackendRefs, "a rule of zeros is never written")
		return
	}
	require.Equal(t, uint64(TotalWeight), total)
	checkFailover(t, w, planned)
}

// cmpPort is the port of what Isthmus wrote itself; what the user wrote passes as it is.
func cmpPort(b gatewayv1.HTTPBackendRef, planned v1alpha1.PlannedBackend) any {
	if planned.Import == "" {
		return "as written"
	}
	if b.Port == nil {
		return nil
	}
	return *b.Port
}

// checkFailover: who does not serve takes nothing while anybody who serves could; who is drained takes nothing while anybody
// who serves may, and has not its hold to wait for.
func checkFailover(t require.TestingT, w world, planned v1alpha1.PlannedRule) {
	type backend struct {
		imp  string
		port int32
	}
	idle, ready, wrong, blocked := map[backend]bool{}, map[backend]bool{}, map[backend]string{}, map[backend]string{}
	for _, b := range planned.Backends {
		if b.Cluster == "" || b.Import == "" {
			continue
		}
		key := backend{b.Import, b.Port}
		namespace, name, _ := strings.Cut(b.Import, "/")
		service, _ := w.Services[ServiceKey{namespace, name}].member(b.Cluster)
		serving := service.ReadyEndpoints > 0
		if !service.Synced {
			serving = service.Before != Unfit
		}
		if service.Probe != nil {
			serving = service.Finding().Serving(service.Before)
		}
		drain := w.Overrides.drain(b.Cluster, ServiceKey{namespace, name})
		require.False(t, drain != nil && drain.Spec.Force && b.Weight > 0 && !slices.Contains(weightByOverride[:2], b.Reason),
			"%s is drained by force and takes traffic: %s", b.Cluster, b.Reason)
		serving = serving && drain == nil
		switch {
		case slices.Contains(weightByOverride, b.Reason): // a person says so
		case b.Reason == v1alpha1.WeightResolving || b.Reason == v1alpha1.WeightWithdrawing:
			require.Zero(t, b.Weight, "%s gets weight before it is resolved or after it is withdrawn", b.Cluster)
		case !serving && b.Weight > 0 && b.Reason == v1alpha1.WeightDrainBlocked:
			blocked[key] = b.Cluster
		case !serving && b.Weight > 0:
			wrong[key] = b.Cluster
		case serving:
			idle[key], ready[key] = true, ready[key] || HealthOf(b).Percent > 0
		}
	}
	for key, cluster := range wrong {
		require.False(t, idle[key], "%s does not serve %s and takes traffic, while another does serve it", cluster, key.imp)
	}
	for key, cluster := range blocked {
		require.False(t, ready[key], "%s is drained of %s and takes traffic, while another may take it", cluster, key.imp)
	}
}

func asJSON(t require.TestingT, value any) string {
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

// objectsOf are a plan's routes alone, without the reasons.
func objectsOf(plan RoutePlan) map[string]*gatewayv1.HTTPRoute {
	out := map[string]*gatewayv1.HTTPRoute{}
	for name, m := range plan.Members {
		out[name] = m.Object
	}
	return out
}

func TestPlansAreSound(t *testing.T) {
	rapid.Check(t, soundness)
}

// soundness plans a world, lets the members take it over or not, turns the world, and plans again.
func soundness(t *rapid.T) {
	w := drawWorld(t, rapid.SampledFrom([]int{3, 5, 20}).Draw(t, "up to"))
	for range rapid.IntRange(1, 3).Draw(t, "turns") {
		plan := PlanRoute(w.RouteSnapshot)
		checkPlan(t, w, plan)
		require.Equal(t, asJSON(t, plan), asJSON(t, PlanRoute(w.RouteSnapshot)), "the same snapshot gives the same plan, byte for byte")
		ReportRoute(w.RouteSnapshot, plan, nil)
		w = w.holding(plan, rapid.Bool().Draw(t, "confirmed")).turned(t)
	}
}

func TestPlansComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, rapid.SampledFrom([]int{3, 5, 20}).Draw(t, "up to"))
		w = w.holding(PlanRoute(w.RouteSnapshot), true).turned(t)
		for range 4 {
			w = w.holding(PlanRoute(w.RouteSnapshot), true)
		}
		plan := PlanRoute(w.RouteSnapshot)
		for _, m := range w.Members {
			if planned := plan.Members[m.Name]; planned.Object != nil && m.Observed != nil {
				require.Equal(t, m.Last, planned.Rules)
				require.Equal(t, asJSON(t, m.Observed.Spec), asJSON(t, planned.Object.Spec), "four rounds are enough")
			}
		}
		if len(w.Members) > 5 {
			return // more than a rule holds may have been left out, and is new to it
		}
		// Unconfirmed or not makes no difference at rest.
		require.Equal(t, asJSON(t, plan), asJSON(t, PlanRoute(w.holding(plan, false).RouteSnapshot)))
	})
}

func TestTheOrderOfTheInputDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 4)
		w = w.holding(PlanRoute(w.RouteSnapshot), true).turned(t)
		mixed := w
		mixed.Members = rapid.Permutation(w.Members).Draw(t, "members")
		mixed.Policies = rapid.Permutation(w.Policies).Draw(t, "policies")
		mixed.Services = map[ServiceKey]ServiceSnapshot{}
		for key, service := range w.Services {
			service.Members = rapid.Permutation(service.Members).Draw(t, "service members")
			mixed.Services[key] = service
			require.Equal(t, asJSON(t, PlanService(w.Services[key])), asJSON(t, PlanService(service)))
		}
		require.Equal(t, asJSON(t, PlanRoute(w.RouteSnapshot)), asJSON(t, PlanRoute(mixed.RouteSnapshot)))
	})
}

func TestLosingAnAPIServerMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 4)
		w = w.holding(PlanRoute(w.RouteSnapshot), true)
		lost := w.with(func(m *Member) { m.Reachable = rapid.Bool().Draw(t, "still reachable") })
		require.Equal(t, asJSON(t, objectsOf(PlanRoute(w.RouteSnapshot))), asJSON(t, objectsOf(PlanRoute(lost.RouteSnapshot))))
		for key := range w.Services {
			require.Equal(t, asJSON(t, PlanService(w.Services[key]).Objects), asJSON(t, PlanService(lost.Services[key]).Objects))
		}
	})
}

// with is the world in which something about its members is otherwise, for the route and for every service.
func (w world) with(change func(*Member)) world {
	next := w
	changed := map[string]Member{}
	next.Members, next.Services = slices.Clone(w.Members), map[ServiceKey]ServiceSnapshot{}
	for i := range next.Members {
		change(&next.Members[i].Member)
		changed[next.Members[i].Name] = next.Members[i].Member
	}
	for key, service := range w.Services {
		service.Members = slices.Clone(service.Members)
		for i := range service.Members {
			service.Members[i].Member = changed[service.Members[i].Name]
		}
		next.Services[key] = service
	}
	return next
}

// A hub that restarts reads its members one by one. Whoever has not been read keeps what it has, and the others go on
// sending it what they sent.
func TestARestartMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 6).with(func(m *Member) { m.Synced = true })
		for range 4 {
			w = w.holding(PlanRoute(w.RouteSnapshot), true)
		}
		before := PlanRoute(w.RouteSnapshot)
		unread := map[string]bool{}
		for _, m := range w.Members {
			unread[m.Name] = rapid.Bool().Draw(t, "unread")
		}
		restarted := w.with(func(m *Member) { m.Synced = !unread[m.Name] })
		for key, service := range restarted.Services {
			if imp := w.Services[key].Import(); imp != nil {
				service.Remembered = &RememberedImport{Spec: imp.Spec, Clusters: imp.Clusters}
			}
			for i, m := range service.Members {
				if unread[m.Name] {
					service.Members[i] = ServiceMember{Member: m.Member, Before: m.acted()}
				}
			}
			restarted.Services[key] = service
		}
		after := PlanRoute(restarted.RouteSnapshot)
		for _, m := range restarted.Members {
			if unread[m.Name] {
				require.Nil(t, after.Members[m.Name].Object)
				continue
			}
			require.Equal(t, asJSON(t, before.Members[m.Name].Object), asJSON(t, after.Members[m.Name].Object))
		}
	})
}

// acted is the verdict that was acted on, as the plans would remember it.
func (m ServiceMember) acted() Verdict {
	if m.ReadyEndpoints == 0 {
		return Unfit
	}
	return Fit
}

func TestApportionIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fractions []Fraction
		weights := rapid.SliceOfN(rapid.SampledFrom(hostileWeights[2:]), 1, 16).Draw(t, "weights")
		var sum uint64
		for _, w := range weights {
			sum += uint64(w)
		}
		for _, w := range weights {
			parts := rapid.SliceOfN(rapid.SampledFrom(hostileWeights), 1, rapid.SampledFrom([]int{2, 16, 128}).Draw(t, "clusters")).Draw(t, "parts")
			var partsSum uint64
			for _, p := range parts {
				partsSum += uint64(p)
			}
			if partsSum == 0 {
				parts, partsSum = []int32{1}, 1
			}
			for _, p := range parts {
				fractions = append(fractions, Fraction{uint64(w), sum, uint64(p), partsSum})
			}
		}
		got := Apportion(TotalWeight, fractions)
		var total int64
		for i, f := range fractions {
			total += int64(got[i])
			exact := new(big.Rat).Mul(big.NewRat(int64(f.Weight)*TotalWeight, int64(f.WeightSum)), big.NewRat(int64(f.Parts), int64(f.PartsSum)))
			off := new(big.Rat).Sub(big.NewRat(int64(got[i]), 1), exact)
			require.Negative(t, off.Abs(off).Cmp(big.NewRat(1, 1)), "weight %d of %s", got[i], exact)
			require.False(t, f.Parts == 0 && got[i] > 0, "who has no part takes nothing")
		}
		require.Equal(t, int64(TotalWeight), total)
	})
}

func TestDistributeNeverGivesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := v1alpha1.Distribution{Type: rapid.SampledFrom([]v1alpha1.DistributionType{"Local", "Weighted"}).Draw(t, "type")}
		var candidates []Candidate
		for i := range rapid.SampledFrom([]int{1, 2, 3, 128}).Draw(t, "clusters") {
			c := cand(fmt.Sprintf("c%03d", i), rapid.SampledFrom([]string{"", "eu"}).Draw(t, "region"), "",
				rapid.SampledFrom([]Verdict{Fit, Unfit, Unknown}).Draw(t, "verdict"), rapid.SampledFrom([]int32{0, 0, 1, 10000}).Draw(t, "last"))
			c.Resolving = rapid.Bool().Draw(t, "resolving")
			c.Before = rapid.SampledFrom([]Verdict{"", Fit, Unfit}).Draw(t, "before")
			candidates = append(candidates, c)
			if d.Type == v1alpha1.DistributionWeighted {
				d.Weights = append(d.Weights, v1alpha1.ClusterWeight{Cluster: c.Cluster, Weight: rapid.SampledFrom(hostileWeights).Draw(t, "weight")})
			}
		}
		if d.Type == v1alpha1.DistributionWeighted && rapid.Bool().Draw(t, "in tiers") {
			d = inTiers(t, d)
		}
		var sum uint64
		anybody := slices.ContainsFunc(candidates, Candidate.Serving)
		for i, s := range Distribute(Effective{Distribution: d}, Member{Name: "c000", Region: "eu"}, candidates, time.Time{}) {
			sum += uint64(s.Parts)
			require.False(t, anybody && s.Parts > 0 && !candidates[i].Serving(), "%s takes what others could", s.Cluster)
			require.NotEmpty(t, s.Reason)
		}
		require.Positive(t, sum)
	})
}

func TestRenderedNamesAreValid(t *testing.T) {
	label := rapid.StringMatching(`[a-z]([-a-z0-9]{0,61}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		key := ServiceKey{Namespace: label.Draw(t, "namespace"), Name: label.Draw(t, "name")}
		s := ServiceSnapshot{Key: key}
		for i := range 2 {
			m := exporter(fmt.Sprint(i)+label.Draw(t, "cluster"), 1)
			m.Name = m.Name[:min(len(m.Name), 63)]
			m.Name = strings.TrimRight(m.Name, "-")
			m.Namespaces = []string{key.Namespace}
			s.Members = append(s.Members, m)
		}
		for _, objects := range PlanService(s).Objects {
			seen := map[string]bool{}
			for _, o := range objects.All() {
				checkMeta(t, o)
				id := kindsIn([]runtime.Object{o})[0]
				require.False(t, seen[id], "%s is wished twice", id)
				seen[id] = true
			}
		}
		for _, m := range s.Members {
			require.Empty(t, validation.IsDNS1123Subdomain(RemoteHost(key, m.Name)))
			require.Equal(t, []string{m.Name}, NamedClusters(&gatewayv1.HTTPRoute{Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{
				{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: remoteService(key, m.Name, 80)}}}}}}})[key])
		}
		require.Empty(t, validation.IsDNS1123Subdomain(string(unresolvedHost(key))))
		owner := Owner{Noun: "httproute", Namespace: key.Namespace, Name: strings.Repeat(key.Name, 4)}
		require.Empty(t, validation.IsValidLabelValue(owner.Label()))
		require.Empty(t, validation.IsDNS1123Subdomain(RoutePlanName("httproute", strings.Repeat(key.Name, 4), key.Namespace)))
	})
}

func checkMeta(t require.TestingT, o runtime.Object) {
	meta := o.(metav1.Object)
	require.Empty(t, validation.IsDNS1123Subdomain(meta.GetName()))
	require.Empty(t, validation.IsDNS1123Label(meta.GetNamespace()))
	for name, value := range meta.GetLabels() {
		require.Empty(t, validation.IsQualifiedName(name))
		require.Empty(t, validation.IsValidLabelValue(value))
	}
}

// FuzzPlanRoute reads the fuzzer's bytes as the draws of a world, so that each input is a whole story of plans.
func FuzzPlanRoute(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(soundness))
}
