// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// viewed is a rollout over eks and gke, seen when every member has programmed what was decided.
func viewed(s RouteSnapshot) RolloutView {
	return RolloutView{Rollout: s.Rollouts[0], Route: s, Plan: settled(s), Programmed: map[string]bool{"eks": true, "gke": true}}
}

// unread is a snapshot as a hub has it that was just started.
func unread(s RouteSnapshot) RouteSnapshot {
	for key, service := range s.Services {
		service.Remembered = &RememberedImport{Spec: service.Import().Spec, Clusters: service.Import().Clusters}
		service.Members = slices.Clone(service.Members)
		for i := range service.Members {
			service.Members[i] = ServiceMember{Member: Member{Name: service.Members[i].Name}, Before: Fit}
		}
		s.Services[key] = service
	}
	return s
}

func TestMembersThatHaveNotBeenReadAreWhatIsRememberedOfThem(t *testing.T) {
	s := rolledOver(t, 1, -1, rolling(at("eks", 10), at("gke", 10)))
	v := viewed(s)
	before := v.Members()
	v.Route = unread(s)
	require.Equal(t, before, v.Members())
	v.Route.Members = append(slices.Clone(v.Route.Members), RouteMember{Member: Member{Name: "old"}})
	require.Equal(t, before, v.Members(), "one that exports neither side, and cannot be reached, is waited for")
}

func TestANewSideThatHasNoEndpointOrWasNeverJudgedDoesNotServe(t *testing.T) {
	v := viewed(rolledOver(t, 0, 1, rolling(at("eks", 0), at("gke", 0))))
	require.False(t, v.Members()[0].Serves)
	require.True(t, v.Members()[1].Serves)
	v.Route = unread(v.Route)
	v.Route.Services[canaryKey].Members[1].Before = ""
	require.False(t, v.Members()[1].Serves)
}

func TestANewSideServesByThePortOfTheRoute(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 0), at("gke", 0)))
	s.Services[canaryKey].Members[0].Service = serviceWith("http 8080")
	members := viewed(s).Members()
	require.Equal(t, RolloutMember{Name: "eks", Message: "its Service has no TCP port 80, by which the route names it: add that port"}, members[0])
	require.True(t, members[1].Serves)
}

func TestAHostThatAMemberDoesNotKnowIsWaitedFor(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 10), at("gke", 10)))
	require.Empty(t, viewed(s).Lagging())
	s.Members[0].Hosts = slices.DeleteFunc(slices.Clone(s.Members[0].Hosts), func(h string) bool { return h == RemoteHost(canaryKey, "gke") })
	require.Equal(t, []string{"eks"}, viewed(s).Lagging())
}

// A move ends when everything has moved, and by nothing less.
func TestAMoveIsOverOnlyWhenEverythingHasMoved(t *testing.T) {
	of := func(weight int32, cluster string, exporters ...string) RolloutStanding {
		r := moving(weight)
		r.Spec.Canary.Stable.Cluster = cluster
		return RolloutChecks{Rollout: r, Rollouts: []*v1alpha1.TrafficRollout{r}, Route: hubRoute(t, `{backendRefs: [`+importRef+`]}`),
			Exporters: map[ServiceKey][]string{sampleKey: exporters}}.Standing()
	}
	require.Equal(t, RolloutStanding{}, of(50, "eks", "eks", "gke"))
	require.Equal(t, RolloutStanding{Adopted: true, Idle: true}, of(100, "eks", "gke"))
	for name, s := range map[string]RolloutStanding{"mistyped": of(0, "ekz", "eks", "gke"), "half moved": of(50, "eks", "gke")} {
		require.Contains(t, s.Refused, "does not export helloworld", name)
		require.True(t, s.Idle, name)
	}
	away := of(100, "eks")
	require.Contains(t, away.Refused, "does not export helloworld")
	require.False(t, away.Idle, "the import is away for a moment: it may come back")
}

// That the old cluster exports no more is seen in the route's snapshot before it is in the import: until both say so, what has
// moved stays moved.
func TestAMoveStaysWhileItsEndIsHalfSeen(t *testing.T) {
	for _, weight := range []int32{50, 100} {
		r := moving(weight)
		v := viewed(rolledOver(t, 1, 1, r))
		before := v.Members()
		require.Len(t, before, 1)
		service := v.Route.Services[sampleKey]
		service.Members = slices.Clone(service.Members)
		service.Members[0].Exported = false
		v.Route.Services[sampleKey] = service
		require.Equal(t, before, v.Members(), weight)
	}
	v := viewed(rolledOver(t, 1, 1, moving(0)))
	v.Route.Services[sampleKey].Members[0].Exported = false
	require.Empty(t, v.Members(), "nothing has moved")
}
