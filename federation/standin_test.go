// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// backend of a route that Argo Rollouts drives: how much the route gives it, and how many ready endpoints it has in eks, which
// alone exports it; -1 where nobody does.
type drivenBackend struct {
	name          string
	weight, ready int
}

// driven is a route with these backends, which eks and gke serve.
func driven(t require.TestingT, backends ...drivenBackend) RouteSnapshot {
	var refs []string
	services := map[ServiceKey]ServiceSnapshot{}
	for _, b := range backends {
		refs = append(refs, fmt.Sprintf("{name: %s, port: 80, weight: %d}", b.name, b.weight))
		if b.ready < 0 {
			continue
		}
		key, gke := ServiceKey{"sample", b.name}, exporter("gke", 0)
		gke.Exported = false
		services[key] = ServiceSnapshot{Key: key, Members: []ServiceMember{exporter("eks", b.ready), gke}}
	}
	route := &gatewayv1.HTTPRoute{}
	require.NoError(t, yaml.Unmarshal([]byte(`{metadata: {namespace: sample, name: r, generation: 4, annotations: {isthmus.dev/resolve-services: imports}},
		spec: {rules: [{backendRefs: [`+strings.Join(refs, ", ")+`]}]}}`), route))
	s := routeSnapshot(route, exporter("eks", 1), exporter("gke", 0))
	s.Services = services
	for i := range s.Members {
		s.Members[i].Hosts = nil
		for key := range services {
			s.Members[i].Hosts = append(s.Members[i].Hosts, RemoteHost(key, "eks"))
		}
		slices.Sort(s.Members[i].Hosts)
	}
	return s
}

// after is what a member holds and remembers of what was planned before.
func after(s RouteSnapshot, before RouteSnapshot, plan RoutePlan, confirmed bool) RouteSnapshot {
	held := takenOver(before, plan, confirmed)
	for i := range s.Members {
		s.Members[i].Observed, s.Members[i].Last = held.Members[i].Observed, held.Members[i].Last
	}
	return s
}

// weightsBy are the weights of a member's first rule by the backend's name, those that are not listed left out.
func weightsBy(plan RoutePlan, member string) map[string]int32 {
	out := map[string]int32{}
	for _, b := range plan.Members[member].Rules[0].Backends {
		out[ParseServiceKey(b.Import).Name] += b.Weight
	}
	return out
}

func programmedIn(s RouteSnapshot, plan RoutePlan) metav1.Condition {
	held := takenOver(s, plan, true)
	return *findCondition(ReportRoute(held, plan, nil).Conditions, v1alpha1.RouteProgrammed)
}

// The client moves everything to the stable by one write, as its last step.
func TestJumpWaitsForTheStable(t *testing.T) {
	before := driven(t, drivenBackend{"stable", 0, 1}, drivenBackend{"canary", 100, 1})
	plan := PlanRoute(before)
	for _, member := range []string{"eks", "gke"} {
		require.Equal(t, map[string]int32{"stable": 0, "canary": TotalWeight}, weightsBy(plan, member))
	}
	jump := after(driven(t, drivenBackend{"stable", 100, 0}, drivenBackend{"canary", 0, 1}), before, plan, true)
	kept := PlanRoute(jump)
	require.Equal(t, map[string]int32{"stable": 0, "canary": TotalWeight}, weightsBy(kept, "gke"), "nobody serves the stable yet")
	again := after(driven(t, drivenBackend{"stable", 100, 0}, drivenBackend{"canary", 0, 1}), jump, kept, true)
	require.Equal(t, map[string]int32{"stable": 0, "canary": TotalWeight}, weightsBy(PlanRoute(again), "gke"), "nor later")
	ready := after(driven(t, drivenBackend{"stable", 100, 1}, drivenBackend{"canary", 0, 1}), jump, kept, true)
	require.Equal(t, map[string]int32{"stable": TotalWeight, "canary": 0}, weightsBy(PlanRoute(ready), "gke"))

	gone := after(driven(t, drivenBackend{"stable", 100, 0}, drivenBackend{"canary", 0, 0}), before, plan, true)
	require.Equal(t, map[string]int32{"stable": TotalWeight, "canary": 0}, weightsBy(PlanRoute(gone), "gke"), "as written: nobody stands in")
	lost := after(driven(t, drivenBackend{"stable", 100, 0}, drivenBackend{"canary", 0, 1}), ready, PlanRoute(ready), true)
	require.Equal(t, map[string]int32{"stable": TotalWeight, "canary": 0}, weightsBy(PlanRoute(lost), "gke"),
		"a canary that had nothing takes nothing over: the route does not mean it")
}

// An experiment adds a backend that no cluster has seen yet, and leaves it behind when it ends.
func TestExperimentComesAndGoes(t *testing.T) {
	before := driven(t, drivenBackend{"stable", 100, 1})
	was := PlanRoute(before)
	began := driven(t, drivenBackend{"stable", 100, 1}, drivenBackend{"experiment", 10, 1})
	listed := PlanRoute(after(began, before, was, true))
	require.Equal(t, map[string]int32{"stable": TotalWeight, "experiment": 0}, weightsBy(listed, "gke"), "listed first")
	c := programmedIn(began, listed)
	require.Equal(t, v1alpha1.ReasonPending, c.Reason, "the weights of this generation are not in force yet")
	require.Equal(t, "gke: sample/experiment in eks is new there, and its share follows once the member has seen it", c.Message)

	unseen := PlanRoute(after(began, began, listed, false))
	require.Equal(t, map[string]int32{"stable": TotalWeight, "experiment": 0}, weightsBy(unseen, "gke"), "not before the member has seen it")
	running := PlanRoute(after(began, began, listed, true))
	require.Equal(t, map[string]int32{"stable": 9091, "experiment": 909}, weightsBy(running, "gke"), "10 of a sum of 110")
	require.Equal(t, metav1.ConditionTrue, programmedIn(began, running).Status)

	ended := driven(t, drivenBackend{"stable", 100, 1}, drivenBackend{"experiment", 10, -1})
	left := PlanRoute(after(ended, began, running, true))
	require.Equal(t, map[string]int32{"stable": TotalWeight, "experiment": 0}, weightsBy(left, "gke"))
	require.Equal(t, "BackendNotFound", left.ResolvedRefs.Reason)
	for range 2 {
		ended = after(ended, ended, left, true)
		left = PlanRoute(ended)
	}
	require.Len(t, left.Members["gke"].Object.Spec.Rules[0].BackendRefs, 1, "what does not exist is not named")
	require.Equal(t, metav1.ConditionTrue, programmedIn(ended, left).Status)
	require.Equal(t, map[string]int32{"stable": 5000, "experiment": 5000},
		weightsBy(PlanRoute(driven(t, drivenBackend{"stable", 1, 0}, drivenBackend{"experiment", 1, 0})), "gke"), "nobody stands in")
}

// A route without the annotation means what it says, as the Gateway API has it.
func TestPlainRoutesKeepTheirShares(t *testing.T) {
	s := driven(t, drivenBackend{"stable", 80, 1}, drivenBackend{"canary", 20, 0})
	s.Route.Annotations = nil
	require.Empty(t, ImportsOf(s.Route))
	refs := PlanRoute(s).Members["eks"].Object.Spec.Rules[0].BackendRefs
	require.Equal(t, []string{"stable 8000", "canary 2000"}, []string{
		fmt.Sprint(refs[0].Name, " ", *refs[0].Weight), fmt.Sprint(refs[1].Name, " ", *refs[1].Weight)})
}

// While a backend with weight is served, one that is not gets nothing; and those that are share as the route says.
func TestNobodyUnservedTakesAShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var backends []drivenBackend
		served, sum := 0, int64(0)
		for i := range rapid.IntRange(1, 4).Draw(t, "backends") {
			b := drivenBackend{fmt.Sprint("b", i), rapid.SampledFrom([]int{0, 1, 10, 80, 100}).Draw(t, "weight"), rapid.IntRange(-1, 1).Draw(t, "ready")}
			if backends = append(backends, b); b.ready > 0 && b.weight > 0 {
				served, sum = served+1, sum+int64(b.weight)
			}
		}
		s := driven(t, backends...)
		plan := PlanRoute(s)
		for range 3 {
			s = after(s, s, plan, true)
			plan = PlanRoute(s)
		}
		for _, member := range []string{"eks", "gke"} {
			for _, b := range backends {
				got := int64(weightsBy(plan, member)[b.name])
				switch {
				case served == 0:
				case b.ready <= 0 || b.weight == 0:
					require.Zero(t, got, b.name)
				default:
					require.InDelta(t, int64(b.weight)*TotalWeight/sum, got, 1, b.name)
				}
			}
		}
	})
}
