// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// atRest lets a simulation run until time alone changes nothing more.
func (s *simulation) atRest(t require.TestingT) {
	for range 200 {
		before := asJSON(t, s.snapshot().Members)
		s.step(t)
		if s.plan.WakeAfter == 0 && before == asJSON(t, s.snapshot().Members) {
			return
		}
		s.now = s.now.Add(s.plan.WakeAfter)
	}
	require.Fail(t, "it does not come to rest")
}

// drawnSimulation is one to which this and that has happened.
func drawnSimulation(t *rapid.T) *simulation {
	n := rapid.IntRange(2, 4).Draw(t, "clusters")
	d := v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted}
	for i := range n {
		w := v1alpha1.ClusterWeight{Cluster: "c" + string(rune('0'+i)), Weight: rapid.SampledFrom(hostileWeights).Draw(t, "weight")}
		if rapid.IntRange(0, 2).Draw(t, "limited") == 0 {
			w.Capacity = new(rapid.Int32Range(1, 100).Draw(t, "capacity"))
		}
		d.Weights = append(d.Weights, w)
	}
	if rapid.IntRange(0, 2).Draw(t, "local") == 0 {
		d = v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}
	}
	failback := v1alpha1.Failback{}
	if rapid.IntRange(0, 3).Draw(t, "manual") == 0 {
		failback.Mode = v1alpha1.FailbackManual
	}
	s := newSimulation(d, failback, n)
	s.step(t)
	for range rapid.IntRange(0, 6).Draw(t, "events") {
		m := &s.members[rapid.IntRange(0, n-1).Draw(t, "member")]
		switch rapid.IntRange(0, 3).Draw(t, "event") {
		case 0:
			m.ready = rapid.IntRange(0, 10).Draw(t, "ready")
		case 1:
			m.reachable = !m.reachable
		default:
			s.now = s.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second)
		}
		s.step(t)
	}
	return s
}

// TestWhatIfIsWhatComes: what would be after a loss or a drain is what is, once it has happened.
func TestWhatIfIsWhatComes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawnSimulation(t)
		is := Situation{Routes: []RouteSnapshot{s.snapshot()}}
		lost := rapid.SampledFrom(s.members).Draw(t, "lost").name
		would := is.Without(Loss{Cluster: lost, Service: sampleKey})
		drained := rapid.Bool().Draw(t, "drained")
		if drained {
			would = is.Overridden(drainOf(lost, false))
		}
		supposed := would.Routes[0].settled()
		before := is.Routes[0].settled()
		said := WhatIf(is, would)

		if i := slices.IndexFunc(s.members, func(m simulated) bool { return m.name == lost }); drained {
			s.words = append(s.words, drainOf(lost, false))
		} else {
			s.members[i].ready = 0
		}
		s.atRest(t)
		changed := map[string]bool{}
		for _, m := range s.members {
			got, want := supposed.Members[m.name].Rules, s.plan.Members[m.name].Rules
			require.Equal(t, weightsOf(want), weightsOf(got), "in %s", m.name)
			if !maps.Equal(weightsOf(before.Members[m.name].Rules), weightsOf(want)) {
				changed[m.name] = true
			}
		}
		told := map[string]bool{}
		for _, split := range said.Splits {
			for _, m := range split.Entered {
				told[m] = true
			}
		}
		require.Equal(t, changed, told, "the members of which a change is told")
	})
}

// TestRecordsPlanTheSame: what is planned from what the hub recorded is what it planned itself.
func TestRecordsPlanTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawnSimulation(t)
		for i := range s.members {
			s.members[i].reachable = true
		}
		s.atRest(t)
		records := s.records()
		situation := records.Situation(Guard{DefaultMaxSuspected})
		require.Len(t, situation.Routes, 1)
		planned := situation.Routes[0].settled()
		for _, m := range s.members {
			require.Equal(t, weightsOf(m.last), weightsOf(planned.Members[m.name].Rules), "in %s", m.name)
		}
		require.Empty(t, records.Doubts())
		require.Empty(t, situation.Underway())
		require.False(t, WhatIf(situation, situation).Any(), "nothing supposed is nothing changed")
	})
}

// records are what the hub would have recorded of a simulation.
func (s *simulation) records() Records {
	s.route.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "g"}}
	out := Records{Now: s.now, Routes: []gatewayv1.HTTPRoute{*s.route}, Policies: []v1alpha1.TrafficDistributionPolicy{*s.policy},
		Classes: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "isthmus"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName}}},
		Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "isthmus", Listeners: []gatewayv1.Listener{{Name: "web", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}}}}}
	snapshot := s.snapshot()
	imp := mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: sampleKey.Namespace, Name: sampleKey.Name},
		Spec: snapshot.Services[sampleKey].Import().Spec}
	ServiceOwner(sampleKey).Mark(&imp)
	yes := func(kinds ...string) []metav1.Condition {
		var out []metav1.Condition
		for _, kind := range kinds {
			out = append(out, metav1.Condition{Type: kind, Status: metav1.ConditionTrue})
		}
		return out
	}
	report := ReportRoute(snapshot, s.plan, nil)
	for i, m := range s.members {
		imp.Status.Clusters = append(imp.Status.Clusters, mcsv1beta1.ClusterStatus{Cluster: m.name})
		out.Members = append(out.Members, v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: m.name}, Status: v1alpha1.MemberClusterStatus{
			EastWestAddress: Address{"10.0.0.1", 15443}.String(), Conditions: yes(v1alpha1.MemberConnected, v1alpha1.MemberSynced),
			Gateways: []v1alpha1.MemberGateway{{Namespace: "sample", Name: "g", Addresses: []string{"192.0.2." + string(rune('1'+i))}}}}})
	}
	for _, name := range slices.Sorted(maps.Keys(report.Plans)) {
		out.Plans = append(out.Plans, v1alpha1.RoutePlan{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: name}, Status: report.Plans[name]})
	}
	out.Imports = []mcsv1beta1.ServiceImport{imp}
	return out
}
