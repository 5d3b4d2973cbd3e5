// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// onward is a snapshot in which what was planned is in force, and every member has seen it.
func onward(s RouteSnapshot) RouteSnapshot {
	for range 4 {
		s = takenOver(s, PlanRoute(s), true)
	}
	return s
}

// emptied is a snapshot in which a service has no endpoint left in some clusters.
func emptied(s RouteSnapshot, key ServiceKey, clusters ...string) RouteSnapshot {
	members := s.Services[key].Members
	for i := range members {
		if slices.Contains(clusters, members[i].Name) {
			members[i].ReadyEndpoints = 0
		}
	}
	return s
}

// serving is a rule of a member by its name as "cluster/import weight", without those that take nothing.
func serving(plan RoutePlan, member, rule string) string {
	out := []string{}
	for _, b := range lastRule(plan.Members[member].Rules, rule).Backends {
		if b.Weight > 0 {
			out = append(out, fmt.Sprintf("%s/%s %d", b.Cluster, strings.TrimPrefix(b.Import, "sample/"), b.Weight))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// previewed is a rollout with a header route, and with a cookie once it has weight.
func previewed(weights ...v1alpha1.RolloutCluster) *v1alpha1.TrafficRollout {
	r := rolling(weights...)
	r.Spec.Canary.Sticky = &v1alpha1.RolloutSticky{Cookie: "seen"}
	r.Status.HeaderRoute = []gatewayv1.HTTPHeaderMatch{{Name: "X-Version", Value: "v2"}}
	return r
}

func TestWhereRequestsGoThatAskForTheNewSide(t *testing.T) {
	old, is := "eks/helloworld 8000, gke/helloworld 2000", "eks/canary 8000, gke/canary 2000"
	both := []v1alpha1.RolloutCluster{at("eks", 10), at("gke", 10)}
	only := func(cluster string) func(*RouteSnapshot) {
		return func(s *RouteSnapshot) { s.Policies[0].Spec.Defaults.Distribution = weighted(cluster, 1) }
	}
	tests := map[string]struct {
		eks, gke int
		weights  []v1alpha1.RolloutCluster
		change   func(*RouteSnapshot)
		want     string
	}{
		"to the new side":                      {1, 1, both, nil, is},
		"not where it is empty":                {1, 0, both, nil, "eks/canary 10000"},
		"not where it is not exported":         {-1, 1, both, nil, "gke/canary 10000"},
		"to the old side, where all are empty": {0, 0, both, nil, old},
		"no wave has eks":                      {1, 1, both[1:], nil, "gke/canary 10000"},
		"no wave has eks, and gke is empty":    {1, 0, both[1:], nil, old},
		"a policy of the rule":                 {1, 1, both, only("eks"), "eks/canary 10000"},
		"a policy whose cluster no wave has":   {1, 1, both[1:], only("eks"), "eks/helloworld 10000"},
		"a drain":                              {1, 1, both, func(s *RouteSnapshot) { s.Overrides = Overrides{drainOf("eks", false)} }, "gke/canary 10000"},
		"a drain, and the other is empty":      {1, 0, both, func(s *RouteSnapshot) { s.Overrides = Overrides{drainOf("eks", false)} }, "gke/helloworld 10000"},
		"a pin":                                {1, 1, both, func(s *RouteSnapshot) { s.Overrides = Overrides{pinTo("gke", "gke")} }, "gke/canary 10000"},
		"a pin whose cluster no wave has":      {1, 1, both[1:], func(s *RouteSnapshot) { s.Overrides = Overrides{pinTo("eks", "eks")} }, "eks/helloworld 10000"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := rolledOver(t, test.eks, test.gke, previewed(test.weights...))
			s.Policies[0] = policyOn("p", "default", "HTTPRoute r web")
			s.Policies[0].Spec.Defaults.Distribution = weighted("eks", 80, "gke", 20)
			if test.change != nil {
				test.change(&s)
			}
			plan := settled(s)
			require.Equal(t, test.want, serving(plan, "gke", "web-header"))
			require.Equal(t, test.want, serving(plan, "gke", "web-sticky"))
		})
	}
}

// Whoever had been led to the new side is led back when it is lost, and to it again when it has returned.
func TestClientsOfANewSideThatIsLostAreServedByTheOld(t *testing.T) {
	s := onward(rolledOver(t, 1, 1, previewed(at("eks", 10), at("gke", 10))))
	require.Equal(t, "eks/canary 8000, gke/canary 2000", serving(PlanRoute(s), "eks", "web-sticky"))
	s = emptied(s, canaryKey, "eks", "gke")
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", serving(PlanRoute(s), "eks", "web-sticky"), "by one write")
	s = onward(s)
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", serving(PlanRoute(s), "eks", "web-sticky"))
}

// What a header route weighs must not pass for a backend that the member has seen.
func TestAHeaderRouteWaitsUntilTheNewSideIsSeen(t *testing.T) {
	r := previewed(at("eks", 10), at("gke", 10))
	s := rolledOver(t, 1, 1, r)
	s.Rollouts = nil
	s = takenOver(s, PlanRoute(s), true)
	s.Rollouts = []*v1alpha1.TrafficRollout{r}
	old := "eks/helloworld 8000, gke/helloworld 2000"
	require.Equal(t, old, serving(PlanRoute(s), "eks", "web-header"))
	s = takenOver(s, PlanRoute(s), false)
	require.Equal(t, old, serving(PlanRoute(s), "eks", "web-header"), "not confirmed")
	require.Equal(t, old, serving(PlanRoute(s), "eks", "web"), "not confirmed")
	s = takenOver(s, PlanRoute(s), true)
	require.Equal(t, "eks/canary 8000, gke/canary 2000", serving(PlanRoute(s), "eks", "web-header"))
	for _, b := range lastRule(settled(s).Members["eks"].Rules, "web-header").Backends {
		require.Equal(t, canaryKey.String(), b.Import, "what serves no more is withdrawn: %v", b)
	}
}

func TestMirrorsStayInTheirWaves(t *testing.T) {
	r := rolling(at("eks", 0), at("gke", 0))
	r.Spec.Waves = []v1alpha1.RolloutWave{{Name: "first", Clusters: []string{"gke"}}, {Name: "second", Clusters: []string{"eks"}}}
	r.Status.Clusters[0].Wave, r.Status.Clusters[1].Wave, r.Status.Mirror = "second", "first", 20
	mirrors := func() map[string]int {
		out := map[string]int{}
		for name, m := range settled(rolledOver(t, 1, 1, r)).Members {
			out[name] = len(m.Object.Spec.Rules[0].Filters)
		}
		return out
	}
	require.Equal(t, map[string]int{"eks": 0, "gke": 1}, mirrors())
	r.Status.Wave = 1
	require.Equal(t, map[string]int{"eks": 1, "gke": 1}, mirrors())
}

// An abort is one write also where a wave had everything: the other clusters do not carry its part meanwhile.
func TestAnAbortFromPartialWavesIsOneWrite(t *testing.T) {
	for _, weights := range [][]v1alpha1.RolloutCluster{
		{at("eks", 100), at("gke", 50)}, {at("eks", 100), at("gke", 0)}, {at("eks", 100), at("gke", 100)}, {at("eks", 10), at("gke", 100)},
	} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			s := onward(rolledOver(t, 1, 1, rolling(weights...)))
			s.Rollouts = []*v1alpha1.TrafficRollout{rolling(at("eks", 0), at("gke", 0))}
			for _, member := range []string{"eks", "gke"} {
				require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", versions(PlanRoute(s), member))
			}
		})
	}
}

// An abort leads nobody to an old side that was scaled down everywhere, and is done as soon as that is back.
func TestAnAbortWaitsForAnOldSideThatServesNowhere(t *testing.T) {
	for _, percent := range []int32{100, 50} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			s := emptied(onward(rolledOver(t, 1, 1, rolling(at("eks", percent), at("gke", percent)))), sampleKey, "eks", "gke")
			s = onward(s)
			had := versions(PlanRoute(s), "eks")
			require.Contains(t, had, fmt.Sprintf("eks/canary %d", 80*percent))
			r := rolling(at("eks", 0), at("gke", 0))
			s.Rollouts = []*v1alpha1.TrafficRollout{r}
			view := RolloutView{Rollout: r, Route: s, Plan: settled(s)}
			require.Equal(t, had, versions(view.Plan, "eks"))
			require.True(t, view.Kept())
			said := rollout{RolloutSnapshot: RolloutSnapshot{Rollout: r, Kept: view.Kept()}}
			require.Contains(t, said.wayBack(), "goes to helloworld as soon as that serves in some cluster; until then canary keeps what it had")

			s = onward(s)
			s.Services[sampleKey].Members[1].ReadyEndpoints = 1
			view.Plan = settled(s)
			require.Equal(t, "gke/helloworld 10000", versions(view.Plan, "eks"))
			require.False(t, view.Kept())
		})
	}
}

// A new side takes no more than it can carry, and nothing where it is drained.
func TestTheShareOfANewSide(t *testing.T) {
	s := sides{weights: map[string]int32{"eks": 50}}
	is := Candidate{Cluster: "eks", Finding: Finding{Verdict: Fit}}
	require.EqualValues(t, 5000, s.share(is))
	is.State = HealthState{Percent: 40}
	require.EqualValues(t, 2000, s.share(is), "it is returning")
	is.Drained = "drain"
	require.Zero(t, s.share(is))
	is.Drained, is.Resolving = "", true
	require.Zero(t, s.share(is))
}

func TestAMoveToADrainedClusterWaits(t *testing.T) {
	s := rolledOver(t, 1, 1, moving(50))
	s.Overrides = Overrides{drainOf("gke", false)}
	require.Equal(t, "eks/helloworld 10000", versions(settled(s), "eks"))
}

// A backend has one filter for the headers of answers at most: the cookie joins the user's own.
func TestACookieJoinsTheHeadersOfABackend(t *testing.T) {
	s := rolledOver(t, 1, 1, previewed(at("eks", 10), at("gke", 10)))
	s.Route = hubRoute(t, `{name: web, backendRefs: [`+strings.TrimSuffix(importRef, "}")+`, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-own, value: a}]}}]}]}`)
	for _, rule := range rulesOf(t, settled(s)) {
		for _, b := range rule.BackendRefs {
			var added []string
			for _, f := range b.Filters {
				if f.ResponseHeaderModifier != nil {
					for _, h := range f.ResponseHeaderModifier.Add {
						added = append(added, string(h.Name))
					}
				}
			}
			want := []string{"x-own"}
			if strings.Contains(string(b.Name), "canary") {
				want = append(want, "Set-Cookie")
			}
			require.Equal(t, want, added, "%s of %s", b.Name, *rule.Name)
		}
	}
	require.Empty(t, s.Route.Spec.Rules[0].BackendRefs[0].Filters[0].ResponseHeaderModifier.Add[1:], "the hub's route stays as it is")
}
