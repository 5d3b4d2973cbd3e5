// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestGuardAllowsAShareAndNeverTheLast(t *testing.T) {
	for _, test := range []struct{ percent, clusters, allowed int }{
		{50, 1, 0}, {50, 2, 1}, {50, 3, 1}, {50, 4, 2}, {50, 5, 2}, {50, 10, 5}, {100, 1, 0}, {100, 2, 1}, {100, 10, 9},
		{1, 1, 0}, {1, 2, 1}, {1, 50, 1}, {34, 3, 1}, {67, 3, 2},
	} {
		g := Guard{MaxSuspected: test.percent}
		require.Equal(t, test.allowed, g.allowed(test.clusters), "%d %% of %d", test.percent, test.clusters)
		require.Empty(t, g.HoldsService(Doubt{test.clusters, test.allowed}))
		require.NotEmpty(t, g.HoldsService(Doubt{test.clusters, test.allowed + 1}))
	}
}

func TestGuardSuspectsTheHubWhenMostClustersAreInDoubt(t *testing.T) {
	g := Guard{MaxSuspected: DefaultMaxSuspected}
	tests := map[string]struct {
		services map[string]Doubt
		holds    bool
	}{
		"nobody is probed":                   {nil, false},
		"one of two":                         {map[string]Doubt{"eks": {1, 1}, "gke": {1, 0}}, false},
		"both of two":                        {map[string]Doubt{"eks": {1, 1}, "gke": {1, 1}}, true},
		"one broken service each, of many":   {map[string]Doubt{"eks": {10, 1}, "gke": {10, 1}}, false},
		"half of the services in each":       {map[string]Doubt{"eks": {10, 5}, "gke": {10, 5}}, false},
		"most of the services in each":       {map[string]Doubt{"eks": {10, 6}, "gke": {10, 6}}, true},
		"two of three":                       {map[string]Doubt{"a": {1, 1}, "b": {1, 1}, "c": {1, 0}}, true},
		"two of four":                        {map[string]Doubt{"a": {1, 1}, "b": {1, 1}, "c": {1, 0}, "d": {1, 0}}, false},
		"the only one: each service says it": {map[string]Doubt{"eks": {3, 3}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.holds, g.HoldsFleet(test.services) != "")
		})
	}
}

// Invariant 5: whatever is in doubt, no more than the allowed share of a service's clusters is out on suspicion, and never
// the last.
func TestNeverMoreThanTheShareIsOutOnSuspicion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clusters := rapid.IntRange(1, 6).Draw(t, "clusters")
		g := Guard{MaxSuspected: rapid.IntRange(1, 100).Draw(t, "percent")}
		before := make([]Verdict, clusters)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			states, doubt, services := make([]ProbeState, clusters), Doubt{}, map[string]Doubt{}
			for i := range states {
				sight := rapid.SampledFrom([]Seen{SeenNothing, SeenWell, SeenIll})
				states[i] = ProbeState{Hub: Streak{Sight: sight.Draw(t, "hub")}, Peer: Streak{Sight: sight.Draw(t, "peer")}}
				one := Doubt{Probed: 1}
				if states[i].Doubted() {
					one.Doubted = 1
				}
				doubt, services[fmt.Sprint(i)] = doubt.Plus(one, 1), one
			}
			held := g.HoldsFleet(services) + g.HoldsService(doubt)
			for i := range states {
				f := Judge(Signals{Seen: true, Reachable: true, ReadyEndpoints: 1, Before: before[i], Probe: &ProbeSignal{
					ProbeState: states[i], Proven: true, HubsWordIsEnough: rapid.Bool().Draw(t, "hub alone"), Held: held}})
				if f.Verdict != Unknown {
					before[i] = f.Verdict
				}
			}
			fresh := 0
			for i := range before {
				// Who is kept out without being in doubt is on its way back, or was taken out within the share before.
				if before[i] == Suspected && states[i].Doubted() {
					fresh++
				}
			}
			if held == "" {
				require.LessOrEqual(t, fresh, g.allowed(clusters))
			}
		}
	})
}
