// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

var canaryKey = ServiceKey{"sample", "canary"}

// rolling is a rollout from helloworld to canary that has come to these weights.
func rolling(weights ...v1alpha1.RolloutCluster) *v1alpha1.TrafficRollout {
	r := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "v2", Generation: 3},
		Spec: canarySpec(steps(10)...)}
	r.Spec.Route.Name, r.Spec.Canary.Stable.Name, r.Spec.Canary.Canary.Name = "r", "helloworld", "canary"
	r.Status = v1alpha1.TrafficRolloutStatus{ObservedGeneration: 3, Phase: v1alpha1.RolloutPaused, Clusters: weights}
	return r
}

func at(cluster string, weight int32) v1alpha1.RolloutCluster {
	return v1alpha1.RolloutCluster{Cluster: cluster, Weight: weight}
}

// rolledOver is an 80 to 20 route over eks and gke with a rollout, given the ready endpoints of the canary in each cluster; -1 is not
// exported.
func rolledOver(t *testing.T, eks, gke int, r *v1alpha1.TrafficRollout) RouteSnapshot {
	s := routeSnapshot(hubRoute(t, `{name: web, backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	canary := ServiceSnapshot{Key: canaryKey}
	for name, ready := range map[string]int{"eks": eks, "gke": gke} {
		m := exporter(name, max(0, ready))
		m.Exported = ready >= 0
		canary.Members = append(canary.Members, m)
	}
	slices.SortFunc(canary.Members, func(a, b ServiceMember) int { return strings.Compare(a.Name, b.Name) })
	s.Services[canaryKey] = canary
	for i := range s.Members {
		s.Members[i].Hosts = append(s.Members[i].Hosts, RemoteHost(canaryKey, "eks"), RemoteHost(canaryKey, "gke"))
	}
	policy := policyOn("p", "default", "HTTPRoute r")
	policy.Spec.Defaults.Distribution = weighted("eks", 80, "gke", 20)
	s.Policies, s.Now = append(s.Policies, policy), time.Unix(1000, 0)
	s.Rollouts = []*v1alpha1.TrafficRollout{r}
	return s
}

// settled plans until every member has seen what is listed.
func settled(s RouteSnapshot) RoutePlan {
	plan := PlanRoute(s)
	for range 3 {
		s = takenOver(s, plan, true)
		plan = PlanRoute(s)
	}
	return plan
}

// versions is a member's rule as "cluster/import weight", without those that take nothing.
func versions(plan RoutePlan, member string) string {
	var out []string
	for _, b := range plan.Members[member].Rules[0].Backends {
		if b.Weight > 0 {
			out = append(out, fmt.Sprintf("%s/%s %d", b.Cluster, strings.TrimPrefix(b.Import, "sample/"), b.Weight))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestWhatARolloutLaysOverASplit(t *testing.T) {
	tests := map[string]struct {
		eks, gke int
		weights  []v1alpha1.RolloutCluster
		want     string
	}{
		"nothing yet":         {1, 1, []v1alpha1.RolloutCluster{at("eks", 0), at("gke", 0)}, "eks/helloworld 8000, gke/helloworld 2000"},
		"ten percent of both": {1, 1, []v1alpha1.RolloutCluster{at("eks", 10), at("gke", 10)}, "eks/canary 800, eks/helloworld 7200, gke/canary 200, gke/helloworld 1800"},
		"a first wave":        {1, 1, []v1alpha1.RolloutCluster{at("eks", 0), at("gke", 50)}, "eks/helloworld 8000, gke/canary 1000, gke/helloworld 1000"},
		"a wave that is done": {1, 1, []v1alpha1.RolloutCluster{at("eks", 25), at("gke", 100)}, "eks/canary 2000, eks/helloworld 6000, gke/canary 2000"},
		"everything":          {1, 1, []v1alpha1.RolloutCluster{at("eks", 100), at("gke", 100)}, "eks/canary 8000, gke/canary 2000"},
		"one that is lost":    {1, 0, []v1alpha1.RolloutCluster{at("eks", 50), at("gke", 50)}, "eks/canary 4000, eks/helloworld 4000, gke/helloworld 2000"},
		"one that is lost and had everything, whose old side is there": {1, 0, []v1alpha1.RolloutCluster{at("eks", 100), at("gke", 100)}, "eks/canary 8000, gke/helloworld 2000"},
		"all are lost":               {0, 0, []v1alpha1.RolloutCluster{at("eks", 50), at("gke", 50)}, "eks/helloworld 8000, gke/helloworld 2000"},
		"a cluster without a canary": {1, -1, []v1alpha1.RolloutCluster{at("eks", 50), at("gke", 50)}, "eks/canary 4000, eks/helloworld 4000, gke/helloworld 2000"},
		"a cluster that no wave has": {1, 1, []v1alpha1.RolloutCluster{at("gke", 100)}, "eks/helloworld 8000, gke/canary 2000"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, versions(settled(rolledOver(t, test.eks, test.gke, rolling(test.weights...))), "eks"))
		})
	}
}

func TestANewSideIsListedBeforeItTakesWeight(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 10), at("gke", 10)))
	before := s
	before.Rollouts = nil
	s.Members = takenOver(before, PlanRoute(before), true).Members
	plan := PlanRoute(s)
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", versions(plan, "eks"))
	require.Contains(t, splitOf(plan, "eks"), "eks 0 Resolving")
	s = takenOver(s, plan, false)
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", versions(PlanRoute(s), "eks"), "not confirmed")
	s = takenOver(s, plan, true)
	require.Equal(t, "eks/canary 800, eks/helloworld 7200, gke/canary 200, gke/helloworld 1800", versions(PlanRoute(s), "eks"))
}

// When the old side is scaled down at the end, the new one serves for the whole cluster.
func TestAFinishedRolloutServesWithoutTheOldSide(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 100), at("gke", 100)))
	for i := range s.Services[sampleKey].Members {
		s.Services[sampleKey].Members[i].ReadyEndpoints = 0
	}
	require.Equal(t, "eks/canary 8000, gke/canary 2000", versions(settled(s), "eks"))
	for i := range s.Services[sampleKey].Members {
		s.Services[sampleKey].Members[i].Exported = false
	}
	require.Equal(t, "eks/canary 8000, gke/canary 2000", versions(settled(s), "eks"), "the old side is not even exported any more")
}

func TestRolloutAndFailoverTogether(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 50), at("gke", 50)))
	s.Services[sampleKey].Members[1].ReadyEndpoints = 0
	s.Services[canaryKey].Members[1].ReadyEndpoints = 0
	require.Equal(t, "eks/canary 5000, eks/helloworld 5000", versions(settled(s), "eks"))
	s = rolledOver(t, 1, 1, rolling(at("eks", 50), at("gke", 50)))
	s.Overrides = Overrides{drainOf("eks", false)}
	require.Equal(t, "gke/canary 5000, gke/helloworld 5000", versions(settled(s), "eks"), "a drain takes both sides")
}

func TestTheLastSplitOfBothSidesIsHeld(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 50), at("gke", 50)))
	for range 3 {
		s = takenOver(s, PlanRoute(s), true)
	}
	require.Equal(t, "eks/canary 4000, eks/helloworld 4000, gke/canary 1000, gke/helloworld 1000", versions(PlanRoute(s), "eks"))
	for _, key := range []ServiceKey{sampleKey, canaryKey} {
		for i := range s.Services[key].Members {
			s.Services[key].Members[i].ReadyEndpoints = 0
		}
	}
	s.Policies[0].Spec.Defaults.Distribution = weighted("eks", 1, "gke", 1)
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", versions(PlanRoute(s), "eks"))
}

func rulesOf(t *testing.T, plan RoutePlan) []gatewayv1.HTTPRouteRule {
	t.Helper()
	require.NotNil(t, plan.Members["eks"].Object, plan.Members["eks"].Refused)
	return plan.Members["eks"].Object.Spec.Rules
}

func TestHeaderRouteMirrorAndCookie(t *testing.T) {
	r := rolling(at("eks", 10), at("gke", 10))
	r.Status.HeaderRoute = []gatewayv1.HTTPHeaderMatch{{Name: "X-Version", Value: "v2"}}
	r.Status.Mirror = 20
	r.Spec.Canary.Sticky = &v1alpha1.RolloutSticky{Cookie: "seen"}
	plan := settled(rolledOver(t, 1, 1, r))
	rules := rulesOf(t, plan)
	require.Len(t, rules, 3)
	require.EqualValues(t, "web", *rules[0].Name)
	require.EqualValues(t, 20, *rules[0].Filters[0].RequestMirror.Percent)
	require.EqualValues(t, "canary", rules[0].Filters[0].RequestMirror.BackendRef.Name)
	require.EqualValues(t, "web-header", *rules[1].Name)
	require.Equal(t, r.Status.HeaderRoute, rules[1].Matches[0].Headers)
	require.EqualValues(t, "web-sticky", *rules[2].Name)
	require.Equal(t, `(.*; *)?seen=canary-3-(;.*)?`, rules[2].Matches[0].Headers[0].Value)
	for _, rule := range rules[1:] {
		for _, b := range rule.BackendRefs {
			require.NotContains(t, b.Name, "helloworld")
		}
	}
	cookies := 0
	for _, b := range rules[0].BackendRefs {
		for _, f := range b.Filters {
			if f.ResponseHeaderModifier != nil && len(f.ResponseHeaderModifier.Add) > 0 {
				cookies++
				require.Equal(t, "seen=canary-3-; Path=/; HttpOnly; SameSite=Lax", f.ResponseHeaderModifier.Add[0].Value)
			}
		}
	}
	require.Equal(t, 2, cookies)

	r.Status.Clusters = []v1alpha1.RolloutCluster{at("eks", 100), at("gke", 100)}
	r.Status.HeaderRoute, r.Status.Mirror = nil, 0
	require.Len(t, rulesOf(t, settled(rolledOver(t, 1, 1, r))), 1)
}

// exported is who exports the canary.
var exported = map[ServiceKey][]string{canaryKey: {"eks"}}

func moving(weight int32) *v1alpha1.TrafficRollout {
	r := rolling(at("eks", weight))
	r.Spec.Canary.Stable = v1alpha1.RolloutSide{Name: "helloworld", Cluster: "eks"}
	r.Spec.Canary.Canary = v1alpha1.RolloutSide{Name: "helloworld", Cluster: "gke"}
	return r
}

func TestAMoveFromOneClusterToAnother(t *testing.T) {
	ready := func(s RouteSnapshot, eks, gke int) RouteSnapshot {
		s.Services[sampleKey].Members[0].ReadyEndpoints, s.Services[sampleKey].Members[1].ReadyEndpoints = eks, gke
		return s
	}
	tests := map[string]struct {
		weight   int32
		eks, gke int
		want     string
	}{
		"nothing yet":              {0, 1, 1, "eks/helloworld 8000, gke/helloworld 2000"},
		"a quarter":                {25, 1, 1, "eks/helloworld 6000, gke/helloworld 4000"},
		"everything":               {100, 1, 1, "gke/helloworld 10000"},
		"everything, and emptied":  {100, 0, 1, "gke/helloworld 10000"},
		"the new cluster is lost":  {25, 1, 0, "eks/helloworld 10000"},
		"lost when all had moved":  {100, 1, 0, "eks/helloworld 10000"},
		"the old cluster is lost":  {25, 0, 1, "gke/helloworld 10000"},
		"a third, to the last one": {33, 1, 1, "eks/helloworld 5360, gke/helloworld 4640"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, versions(settled(ready(rolledOver(t, 1, 1, moving(test.weight)), test.eks, test.gke)), "eks"))
		})
	}
	checks := RolloutChecks{Rollout: moving(0), Route: hubRoute(t, `{backendRefs: [`+importRef+`]}`), Exporters: map[ServiceKey][]string{sampleKey: {"eks", "gke"}}}
	require.Equal(t, RolloutStanding{}, checks.Standing())
}

func TestWhichRolloutsCanRun(t *testing.T) {
	canaryRef := strings.ReplaceAll(importRef, "helloworld", "canary")
	older := rolling()
	older.Name, older.CreationTimestamp = "older", metav1.Time{Time: time.Unix(1, 0)}
	tests := map[string]struct {
		route   string
		rule    gatewayv1.SectionName
		others  []*v1alpha1.TrafficRollout
		imports map[ServiceKey][]string
		want    string
		adopted bool
	}{
		"it can":                    {`{backendRefs: [` + importRef + `]}`, "", nil, exported, "", false},
		"no route":                  {"", "", nil, exported, "there is no HTTPRoute r", false},
		"a rule that is not there":  {`{backendRefs: [` + importRef + `]}`, "x", nil, exported, "has no rule x", false},
		"a route that uses neither": {`{backendRefs: [{name: other, port: 80}]}`, "", nil, exported, "has neither ServiceImport helloworld nor canary", false},
		"a route that uses both":    {`{backendRefs: [` + importRef + `, ` + canaryRef + `]}`, "", nil, exported, "names both", false},
		"a route that has moved on": {`{backendRefs: [` + canaryRef + `]}`, "", nil, exported, "", true},
		"nobody exports it":         {`{backendRefs: [` + importRef + `]}`, "", nil, nil, "no cluster exports sample/canary", false},
		"another is older":          {`{backendRefs: [` + importRef + `]}`, "", []*v1alpha1.TrafficRollout{older}, exported, "TrafficRollout older is older", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := rolling()
			r.CreationTimestamp = metav1.Time{Time: time.Unix(2, 0)}
			if test.rule != "" {
				r.Spec.Route.Rule = &test.rule
			}
			checks := RolloutChecks{Rollout: r, Rollouts: append(test.others, r), Exporters: test.imports}
			if test.route != "" {
				checks.Route = hubRoute(t, test.route)
			}
			s := checks.Standing()
			require.Contains(t, s.Refused, test.want)
			require.Equal(t, test.want == "", s.Refused == "")
			require.Equal(t, test.adopted, s.Adopted)
		})
	}
}

func TestWhichClustersARolloutWaitsFor(t *testing.T) {
	view := func(eks, gke int, r *v1alpha1.TrafficRollout) RolloutView {
		s := rolledOver(t, eks, gke, r)
		s = takenOver(s, PlanRoute(s), true)
		return RolloutView{Rollout: r, Route: s, Plan: PlanRoute(s), Programmed: map[string]bool{"eks": true, "gke": true}}
	}
	v := view(1, -1, rolling(at("eks", 10), at("gke", 10)))
	require.Equal(t, []RolloutMember{{Name: "eks", Serves: true},
		{Name: "gke", Message: "it is not exported there: create a ServiceExport next to its Service"}}, v.Members())
	v.Route.Services[sampleKey].Members[1].Exported = false
	require.Len(t, v.Members(), 1, "neither side is there")
	v.Route.Services[sampleKey].Members[0].Exported = false
	require.Len(t, v.Members(), 1, "the new side alone is there")

	v = view(1, 1, rolling(at("eks", 10), at("gke", 10)))
	require.Empty(t, v.Held())
	v.Programmed["gke"] = false
	require.Equal(t, []string{"gke"}, v.Lagging())
	v.Programmed["gke"] = true
	require.Empty(t, v.Lagging())
	other := rolling(at("eks", 20), at("gke", 10))
	v.Rollout = other
	require.Equal(t, []string{"eks", "gke"}, v.Lagging(), "what was planned is of another step")

	v = view(1, 1, moving(10))
	require.Equal(t, []RolloutMember{{Name: "eks", Serves: true}}, v.Members())
	v.Route.Overrides = Overrides{hold()}
	require.Equal(t, "hold", v.Held())
}

func TestARouteHoldsSoManyRules(t *testing.T) {
	rule := `{backendRefs: [` + importRef + `]}, `
	r := rolling()
	r.Spec.Canary.Sticky = &v1alpha1.RolloutSticky{}
	checks := RolloutChecks{Rollout: r, Rollouts: []*v1alpha1.TrafficRollout{r}, Exporters: exported}
	checks.Route = hubRoute(t, strings.Repeat(rule, 8))
	require.Empty(t, checks.Standing().Refused)
	checks.Route = hubRoute(t, strings.Repeat(rule, 9))
	require.Contains(t, checks.Standing().Refused, "would have 18 rules, and an HTTPRoute holds 16")
}

func TestARetiredRolloutMakesRoomForTheNext(t *testing.T) {
	was, is := rolling(), rolling()
	was.Name, was.Status.Retired, was.Status.ObservedGeneration = "v1", true, was.Generation
	route := hubRoute(t, `{backendRefs: [`+importRef+`]}`)
	require.Equal(t, is, RolloutInForce(route, []*v1alpha1.TrafficRollout{was, is}))
	was.Generation++
	require.Equal(t, is, RolloutInForce(route, []*v1alpha1.TrafficRollout{was, is}), "an edit takes the place of one that is under way")
	checks := RolloutChecks{Rollout: was, Rollouts: []*v1alpha1.TrafficRollout{was, is}, Exporters: exported, Route: route}
	require.Contains(t, checks.Standing().Refused, "TrafficRollout v2")
	checks.Rollouts = []*v1alpha1.TrafficRollout{was}
	require.Empty(t, checks.Standing().Refused, "it begins anew where no other is")
}

// Between a change of the spec and the next look, and while the new spec cannot run.
func TestWeightsAreOfTheSidesThatTheyWereGivenTo(t *testing.T) {
	r := rolling(at("eks", 50), at("gke", 50))
	r.Status.Laid = laidOf(r)
	changed := r.DeepCopy()
	changed.Generation, changed.Spec.Canary.Canary.Name = 4, "third"
	s := rolledOver(t, 1, 1, changed)
	third := s.Services[canaryKey]
	third.Key = ServiceKey{"sample", "third"}
	s.Services[third.Key] = third
	for i := range s.Members {
		s.Members[i].Hosts = append(s.Members[i].Hosts, RemoteHost(third.Key, "eks"), RemoteHost(third.Key, "gke"))
	}
	require.Equal(t, "eks/canary 4000, eks/helloworld 4000, gke/canary 1000, gke/helloworld 1000", versions(settled(s), "eks"))
	require.Contains(t, s.Imports(), canaryKey)

	now := changed.DeepCopy()
	now.Status.Laid = laidOf(now)
	v := RolloutView{Rollout: now, Route: s, Plan: settled(s), Programmed: map[string]bool{"eks": true, "gke": true}}
	require.Equal(t, []string{"eks", "gke"}, v.Lagging(), "what was programmed was of the sides before")
}

func TestAnotherSideWaitsUntilTheRouteNamesTheOneBefore(t *testing.T) {
	r := rolling(at("eks", 100), at("gke", 100))
	r.Status.Laid = laidOf(r)
	r.Generation, r.Spec.Canary.Canary.Name = 4, "third"
	checks := RolloutChecks{Rollout: r, Rollouts: []*v1alpha1.TrafficRollout{r}, Route: hubRoute(t, `{backendRefs: [`+importRef+`]}`),
		Exporters: map[ServiceKey][]string{sampleKey: {"eks"}, {"sample", "third"}: {"eks"}}}
	s := checks.Standing()
	require.Contains(t, s.Refused, "everything is at canary by this rollout: make HTTPRoute r name it")
	require.False(t, s.Idle)
	r.Spec.Canary.Stable.Name = "canary"
	require.False(t, checks.Standing().Idle, "its deletion would send everything back")
	checks.Route = hubRoute(t, `{backendRefs: [`+strings.ReplaceAll(importRef, "helloworld", "canary")+`]}`)
	require.Empty(t, checks.Standing().Refused)
}

// However far a rollout has come and whatever serves: the weights of a rule add up, each cluster carries what it would carry
// without the rollout while the old side serves there, and the new side takes its share of that to one part in ten thousand.
func TestOverlaysAreSound(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		weights := []v1alpha1.RolloutCluster{at("eks", rapid.Int32Range(0, 100).Draw(t, "eks")), at("gke", rapid.Int32Range(0, 100).Draw(t, "gke"))}
		s := rolledOver(outer, rapid.IntRange(-1, 1).Draw(t, "canary in eks"), rapid.IntRange(-1, 1).Draw(t, "canary in gke"), rolling(weights...))
		a, b := rapid.IntRange(1, 1_000_000).Draw(t, "a"), rapid.IntRange(1, 1_000_000).Draw(t, "b")
		s.Policies[0].Spec.Defaults.Distribution = weighted("eks", a, "gke", b)
		without := s
		without.Rollouts = nil
		plain, laid := settled(without), settled(s)
		total, before, after, moved := int32(0), map[string]int32{}, map[string]int32{}, map[string]int32{}
		for _, b := range plain.Members["gke"].Rules[0].Backends {
			before[b.Cluster] += b.Weight
		}
		for _, b := range laid.Members["gke"].Rules[0].Backends {
			total += b.Weight
			after[b.Cluster] += b.Weight
			if b.Import == canaryKey.String() {
				moved[b.Cluster] += b.Weight
			}
		}
		require.EqualValues(t, TotalWeight, total)
		for i, c := range weights {
			require.InDelta(t, before[c.Cluster], after[c.Cluster], 1)
			// Of the exact share: what is carried without the rollout has been rounded once already.
			want := TotalWeight * float64([]int{a, b}[i]) / float64(a+b) * float64(c.Weight) / 100
			if s.Services[canaryKey].Members[i].ReadyEndpoints == 0 {
				want = 0
			}
			require.InDelta(t, want, moved[c.Cluster], 1)
		}
	})
}
