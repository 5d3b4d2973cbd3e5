// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func override(name string, kind v1alpha1.OverrideType) *v1alpha1.TrafficOverride {
	return &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.TrafficOverrideSpec{Type: kind, Author: "alice", Reason: "a test"}}
}

var thisRoute = []v1alpha1.ObjectReference{{Namespace: "sample", Name: "r"}}

func freeze() *v1alpha1.TrafficOverride { return override("freeze", v1alpha1.OverrideFreeze) }

func hold() *v1alpha1.TrafficOverride {
	o := override("hold", v1alpha1.OverrideHold)
	o.Spec.Routes = thisRoute
	return o
}

func drainOf(cluster string, force bool, imports ...v1alpha1.ObjectReference) *v1alpha1.TrafficOverride {
	o := override("drain-"+cluster, v1alpha1.OverrideDrain)
	o.Spec.Cluster, o.Spec.Force, o.Spec.Imports = cluster, force, imports
	return o
}

func pinTo(name, cluster string) *v1alpha1.TrafficOverride {
	o := override(name, v1alpha1.OverridePin)
	o.Spec.Routes, o.Spec.Weights = thisRoute, []v1alpha1.ClusterWeight{{Cluster: cluster, Weight: 3}}
	return o
}

func TestOverridesInForce(t *testing.T) {
	now := time.Unix(1000, 0)
	expires := func(name string, at int64) *v1alpha1.TrafficOverride {
		o := override(name, v1alpha1.OverrideFreeze)
		o.Spec.Expires = &metav1.Time{Time: time.Unix(at, 0)}
		return o
	}
	deleted, older := override("deleted", v1alpha1.OverrideFreeze), override("older", v1alpha1.OverrideFreeze)
	deleted.DeletionTimestamp = &metav1.Time{}
	older.CreationTimestamp = metav1.NewTime(time.Unix(-5, 0))
	var names []string
	for _, o := range OverridesInForce([]*v1alpha1.TrafficOverride{expires("b", 1001), expires("past", 999), expires("this very moment", 1000), deleted, override("a", v1alpha1.OverrideFreeze), older}, now) {
		names = append(names, o.Name)
	}
	// The zero time, of what was never stored, is before any other.
	require.Equal(t, []string{"a", "b", "older"}, names)
}

// Each row of the table above v1alpha1.TrafficOverride, after a decision of eks 8000 and gke 2000.
func TestWhichOverrideDecides(t *testing.T) {
	tests := map[string]struct {
		overrides []*v1alpha1.TrafficOverride
		want      string
	}{
		"a freeze beats all":           {[]*v1alpha1.TrafficOverride{freeze(), hold(), drainOf("eks", true), pinTo("p", "gke")}, "eks 8000 Frozen, gke 2000 Frozen"},
		"a hold beats drain and pin":   {[]*v1alpha1.TrafficOverride{hold(), drainOf("eks", true), pinTo("p", "gke")}, "eks 8000 OnHold, gke 2000 OnHold"},
		"a drain beats a pin":          {[]*v1alpha1.TrafficOverride{drainOf("eks", false), pinTo("p", "eks")}, "eks 0 Drained, gke 10000 Anywhere"},
		"a drain":                      {[]*v1alpha1.TrafficOverride{drainOf("eks", false)}, "eks 0 Drained, gke 10000 Policy"},
		"a drain of this service":      {[]*v1alpha1.TrafficOverride{drainOf("eks", false, v1alpha1.ObjectReference{Namespace: "sample", Name: "helloworld"})}, "eks 0 Drained, gke 10000 Policy"},
		"a drain of another service":   {[]*v1alpha1.TrafficOverride{drainOf("eks", false, v1alpha1.ObjectReference{Namespace: "sample", Name: "x"})}, "eks 5000 Policy, gke 5000 Policy"},
		"a pin":                        {[]*v1alpha1.TrafficOverride{pinTo("p", "gke")}, "eks 0 NotListed, gke 10000 Pinned"},
		"the older pin":                {[]*v1alpha1.TrafficOverride{pinTo("q", "eks"), pinTo("p", "gke")}, "eks 0 NotListed, gke 10000 Pinned"},
		"a pin to who does not export": {[]*v1alpha1.TrafficOverride{pinTo("p", "mars")}, "eks 5000 Policy, gke 5000 Policy"},
		"nothing":                      {nil, "eks 5000 Policy, gke 5000 Policy"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
			policy := policyOn("p", "default", "HTTPRoute r")
			policy.Spec.Defaults.Distribution = weighted("eks", 80, "gke", 20)
			s.Policies = append(s.Policies, policy)
			s = takenOver(s, PlanRoute(s), true)
			policy.Spec.Defaults.Distribution = weighted("eks", 1, "gke", 1)
			s.Overrides = OverridesInForce(test.overrides, time.Time{})
			require.Equal(t, test.want, splitOf(PlanRoute(s), "eks"))
		})
	}
}

func TestAHoldKeepsWhatIsThereAndGivesNothingToWhatIsNew(t *testing.T) {
	canary := `{group: multicluster.x-k8s.io, kind: ServiceImport, name: canary, port: 80, weight: 9}`
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	first := takenOver(s, PlanRoute(s), true)
	first.Overrides = Overrides{hold()}
	first.Route = hubRoute(t, `{backendRefs: [`+importRef+`, `+canary+`]}`)
	require.Equal(t, "eks 10000 OnHold, gke 0 OnHold, 0 BackendNotFound", splitOf(PlanRoute(first), "eks"), "the route's own change waits too")

	lost := first
	lost.Services = map[ServiceKey]ServiceSnapshot{sampleKey: {Key: sampleKey, Members: []ServiceMember{{Member: exporter("eks", 1).Member}, exporter("gke", 1)}}}
	lost.Route = s.Route
	require.Equal(t, "gke 10000 Anywhere, eks 0 Withdrawn", splitOf(PlanRoute(lost), "eks"), "nothing is left to hold")

	fresh := s
	fresh.Overrides = Overrides{freeze()}
	require.Equal(t, "eks 10000 Local, gke 0 Standby", splitOf(PlanRoute(fresh), "eks"), "nothing was decided yet")
}

func TestADrainByForceOfTheOnlyClusterAnswersErrors(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1))
	s.Overrides = Overrides{drainOf("eks", true)}
	require.Equal(t, "eks 0 Drained, 10000 BackendNotFound", splitOf(PlanRoute(s), "eks"))
}

func TestProxiesDoNotFallBackToADrainedCluster(t *testing.T) {
	s := ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{exporter("aks", 1), exporter("eks", 1), exporter("gke", 1)}}
	of := func() (names []string) {
		for _, m := range s.fallbacks(s.Members[0], s.Import()) {
			names = append(names, m.Name)
		}
		return names
	}
	require.Equal(t, []string{"eks", "gke"}, of())
	s.Overrides = Overrides{drainOf("eks", false)}
	require.Equal(t, []string{"gke"}, of())
}

func TestAddressesOfDrainedMembersAreLeftOut(t *testing.T) {
	s := GatewaySnapshot{Gateway: &gatewayv1.Gateway{}, Members: []GatewayMember{observing("1", true), observing("2", true)}}
	tests := map[string]struct {
		overrides Overrides
		unread    bool
		want      []string
	}{
		"nobody is drained":        {nil, false, []string{"192.0.2.1", "192.0.2.2"}},
		"one is":                   {Overrides{drainOf("1", false)}, false, []string{"192.0.2.2"}},
		"one service of it is":     {Overrides{drainOf("1", false, v1alpha1.ObjectReference{Namespace: "a", Name: "b"})}, false, []string{"192.0.2.1", "192.0.2.2"}},
		"all are":                  {Overrides{drainOf("1", true), drainOf("2", true)}, false, []string{"192.0.2.1", "192.0.2.2"}},
		"one is, one is not read":  {Overrides{drainOf("1", false)}, true, []string{"192.0.2.3", "192.0.2.2"}},
		"frozen before the drain":  {Overrides{freeze(), drainOf("1", false)}, false, []string{"192.0.2.1", "192.0.2.3"}},
		"a freeze of nothing yet ": {nil, false, []string{"192.0.2.1", "192.0.2.2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := s
			s.Overrides, s.Gateway = test.overrides, &gatewayv1.Gateway{}
			if test.unread || test.overrides.freeze() != nil {
				s.Gateway.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Value: "192.0.2.1"}, {Value: "192.0.2.3"}}
			}
			if test.unread {
				s.Members = append(s.Members, GatewayMember{Member: Member{Name: "3"}})
			}
			var got []string
			for _, a := range s.addresses() {
				got = append(got, a.Value)
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestADrainIsOverWhenEveryMemberHasConfirmedIt(t *testing.T) {
	plan := func(reason string, weight int32, programmed metav1.ConditionStatus) v1alpha1.RoutePlan {
		return v1alpha1.RoutePlan{ObjectMeta: metav1.ObjectMeta{Namespace: "sample"}, Status: v1alpha1.RoutePlanStatus{
			Route: "HTTPRoute/r", Member: "eks", Conditions: []metav1.Condition{condition(v1alpha1.PlanProgrammed, programmed, "Why", "")},
			Rules: []v1alpha1.PlannedRule{{Backends: []v1alpha1.PlannedBackend{{Import: "sample/helloworld", Cluster: "eks", Weight: weight, Reason: reason}}}}}}
	}
	asWritten := plan("", 5, metav1.ConditionTrue)
	asWritten.Status.Rules[0].Backends[0] = v1alpha1.PlannedBackend{Weight: 5}
	now := time.Unix(1000, 0)
	emptyFor := func(seconds int64) *v1alpha1.TrafficOverride {
		d := drainOf("eks", false)
		d.Status.EmptySince = &metav1.Time{Time: time.Unix(1000-seconds, 0)}
		return d
	}
	drain, one := drainOf("eks", false), drainOf("eks", false, v1alpha1.ObjectReference{Namespace: "sample", Name: "other"})
	tests := map[string]struct {
		drain  *v1alpha1.TrafficOverride
		plan   v1alpha1.RoutePlan
		reason string
		says   string
	}{
		"empty a moment ago":         {drain, plan("Drained", 0, metav1.ConditionTrue), v1alpha1.ReasonSettling, "given 30s to end"},
		"empty":                      {emptyFor(30), plan("Drained", 0, metav1.ConditionTrue), v1alpha1.ReasonDrained, "no route in any member"},
		"not yet":                    {emptyFor(29), plan("Drained", 0, metav1.ConditionTrue), v1alpha1.ReasonSettling, "nothing new is sent to eks"},
		"sent to again":              {emptyFor(60), plan("Policy", 1, metav1.ConditionTrue), v1alpha1.ReasonDraining, "still sent"},
		"not confirmed":              {drain, plan("Drained", 0, metav1.ConditionFalse), v1alpha1.ReasonDraining, "not confirmed yet: HTTPRoute sample/r in eks (Why)"},
		"not known whether":          {drain, plan("Drained", 0, metav1.ConditionUnknown), v1alpha1.ReasonDraining, "not confirmed yet"},
		"still weighed":              {drain, plan("Policy", 1, metav1.ConditionTrue), v1alpha1.ReasonDraining, "still sent requests by HTTPRoute sample/r in eks"},
		"refused":                    {drain, plan("DrainBlocked", 1, metav1.ConditionTrue), v1alpha1.ReasonDrainBlocked, "set spec.force"},
		"nobody is fit":              {drain, plan("Held", 1, metav1.ConditionTrue), v1alpha1.ReasonDrainBlocked, "set spec.force"},
		"as written":                 {drain, asWritten, v1alpha1.ReasonDraining, "still sent requests by HTTPRoute sample/r in eks"},
		"another service":            {one, plan("Policy", 1, metav1.ConditionTrue), v1alpha1.ReasonSettling, "nothing new"},
		"as written, of one service": {one, asWritten, v1alpha1.ReasonSettling, "nothing new"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status := OverrideStatus(OverrideSnapshot{Override: test.drain, All: []*v1alpha1.TrafficOverride{test.drain}, Members: []string{"eks"},
				Imports: test.drain.Spec.Imports, Plans: []v1alpha1.RoutePlan{test.plan}, Now: now})
			c := findCondition(status.Conditions, v1alpha1.OverrideDrained)
			require.Equal(t, test.reason, c.Reason)
			require.Equal(t, test.reason == v1alpha1.ReasonDrained, c.Status == metav1.ConditionTrue)
			require.Contains(t, c.Message, test.says)
			require.Equal(t, slices.Contains([]string{v1alpha1.ReasonDrained, v1alpha1.ReasonSettling}, test.reason), status.EmptySince != nil)
		})
	}
}

func TestWhoIsOverruledAndByWhom(t *testing.T) {
	both := pinTo("both", "eks")
	one, other := v1alpha1.ObjectReference{Namespace: "sample", Name: "one"}, v1alpha1.ObjectReference{Namespace: "sample", Name: "other"}
	failbackOf := func(cluster string, imports ...v1alpha1.ObjectReference) *v1alpha1.TrafficOverride {
		o := override("failback", v1alpha1.OverrideFailback)
		o.Spec.Cluster, o.Spec.Imports = cluster, imports
		return o
	}
	both.Spec.Routes = append([]v1alpha1.ObjectReference{{Namespace: "sample", Name: "s"}}, both.Spec.Routes...)
	tests := map[string]struct {
		it     *v1alpha1.TrafficOverride
		others []*v1alpha1.TrafficOverride
		reason string
		says   string
	}{
		"alone":                        {hold(), nil, v1alpha1.ReasonInForce, "until it is deleted"},
		"two freezes":                  {freeze(), []*v1alpha1.TrafficOverride{override("a", v1alpha1.OverrideFreeze)}, v1alpha1.ReasonInForce, ""},
		"a hold, all is frozen":        {hold(), []*v1alpha1.TrafficOverride{freeze()}, v1alpha1.ReasonConflicted, "freeze freezes everything"},
		"a drain beside a hold":        {drainOf("eks", false), []*v1alpha1.TrafficOverride{hold()}, v1alpha1.ReasonInForce, "but TrafficOverride hold holds HTTPRoute sample/r"},
		"a pin of a held route":        {pinTo("p", "eks"), []*v1alpha1.TrafficOverride{hold()}, v1alpha1.ReasonConflicted, "hold holds HTTPRoute sample/r"},
		"one of two is held":           {both, []*v1alpha1.TrafficOverride{hold()}, v1alpha1.ReasonInForce, "but TrafficOverride hold holds HTTPRoute sample/r"},
		"the younger of two pins":      {pinTo("q", "eks"), []*v1alpha1.TrafficOverride{pinTo("p", "eks")}, v1alpha1.ReasonConflicted, "the older TrafficOverride p"},
		"the older of two pins":        {pinTo("p", "eks"), []*v1alpha1.TrafficOverride{pinTo("q", "eks")}, v1alpha1.ReasonInForce, ""},
		"a failback of who is drained": {failbackOf("eks"), []*v1alpha1.TrafficOverride{drainOf("eks", false)}, v1alpha1.ReasonConflicted, "drain-eks drains eks"},
		"a failback beside a drain":    {failbackOf("eks"), []*v1alpha1.TrafficOverride{drainOf("gke", false)}, v1alpha1.ReasonInForce, "until it is deleted"},
		"one service is drained":       {failbackOf("eks"), []*v1alpha1.TrafficOverride{drainOf("eks", false, one)}, v1alpha1.ReasonInForce, "but TrafficOverride drain-eks drains eks"},
		"a failback of that service":   {failbackOf("eks", one), []*v1alpha1.TrafficOverride{drainOf("eks", false, one)}, v1alpha1.ReasonConflicted, "drain-eks drains eks"},
		"a failback of another":        {failbackOf("eks", other), []*v1alpha1.TrafficOverride{drainOf("eks", false, one)}, v1alpha1.ReasonInForce, "until it is deleted"},
		"a pin to who is drained":      {pinTo("p", "eks"), []*v1alpha1.TrafficOverride{drainOf("eks", false)}, v1alpha1.ReasonConflicted, "drain-eks drains eks"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status := OverrideStatus(OverrideSnapshot{Override: test.it, All: append(test.others, test.it), Members: []string{"eks"},
				Routes: test.it.Spec.Routes, Imports: test.it.Spec.Imports})
			c := findCondition(status.Conditions, v1alpha1.OverrideInForce)
			require.Equal(t, test.reason, c.Reason, c.Message)
			require.Contains(t, c.Message, test.says)
		})
	}
}

// Whatever happens under a freeze, what has weight keeps it to the last unit, as long as it is there.
func TestAFreezeMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 4)
		w.Overrides = nil
		for range 2 {
			w = w.holding(PlanRoute(w.RouteSnapshot), true)
		}
		before := PlanRoute(w.RouteSnapshot)
		later := w.holding(before, true)
		for i := range later.Members {
			for key, service := range later.Services {
				service.Members[i].ReadyEndpoints = rapid.IntRange(0, 2).Draw(t, "ready now")
				later.Services[key] = service
			}
		}
		later.Policies = drawPolicies(t, []Member{later.Members[0].Member})
		later.Overrides = Overrides{drainOf(later.Members[0].Name, true), freeze()}
		after := PlanRoute(later.RouteSnapshot)
		for name, m := range before.Members {
			if m.Object != nil {
				require.Equal(t, asJSON(t, m.Object.Spec), asJSON(t, after.Members[name].Object.Spec))
			}
		}
	})
}
