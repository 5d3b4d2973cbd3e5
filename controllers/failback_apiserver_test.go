// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// returning makes a policy of eighty to twenty with this failback.
func (a *app) returning(failback v1alpha1.Failback) *v1alpha1.TrafficDistributionPolicy {
	p := a.distributed("returning", v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted,
		Weights: []v1alpha1.ClusterWeight{weight("eks", 80), weight("gke", 20)}})
	p.Spec.Defaults.Failback = &failback
	return p
}

func seconds(d gatewayv1.Duration) *gatewayv1.Duration { return &d }

// expectFallbacks waits until a member's proxies may go by themselves from its own share to these clusters and no other.
func (a *app) expectFallbacks(member string, clusters ...string) {
	a.t.Helper()
	key := client.ObjectKey{Namespace: a.namespace, Name: federation.RemoteName(federation.ServiceKey(a.itself()), member)}
	eventually(a.t, func() error {
		var entry istionetworkingv1.ServiceEntry
		if err := a.set.members[member].Get(a.t.Context(), key, &entry); err != nil {
			return err
		}
		have := []string{}
		for _, e := range entry.Spec.Endpoints[1:] {
			have = append(have, e.Labels[v1alpha1.LabelCluster])
		}
		if !slices.Equal(have, clusters) {
			return fmt.Errorf("proxies of %s may go to %v, want %v", member, have, clusters)
		}
		return nil
	})
}

func TestAPersonLetsAClusterReturn(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	require.NoError(t, a.set.hub.Create(t.Context(), a.returning(v1alpha1.Failback{Mode: v1alpha1.FailbackManual,
		Ramp: &v1alpha1.FailbackRamp{Interval: seconds("0s")}})))
	a.expectWeights("gke", split(80, 20))
	a.expectFallbacks("gke", "eks")
	a.endpoints("eks", 0)
	a.expectWeights("gke", split(0, 100))
	a.expectFallbacks("gke")
	a.endpoints("eks", 2)
	c := a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonAwaitingFailback)
	require.Contains(t, c.Message, "create a TrafficOverride of type Failback with cluster eks")
	a.expectWeights("gke", split(0, 100))
	a.expectFallbacks("gke")
	word := a.says(v1alpha1.OverrideFailback, func(s *v1alpha1.TrafficOverrideSpec) {
		s.Cluster, s.Imports = "eks", []v1alpha1.ObjectReference{a.itself()}
	})
	a.expectWeights("gke", split(80, 20))
	a.expectWeights("eks", split(80, 20))
	a.expectFallbacks("gke", "eks")
	a.overrideCondition(word, v1alpha1.OverrideInForce, metav1.ConditionTrue, v1alpha1.ReasonInForce)
}

func TestAClusterThatLostEndpointsShedsAndReturnsByItself(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	require.NoError(t, a.set.hub.Create(t.Context(), a.returning(v1alpha1.Failback{Hold: seconds("1s"),
		Ramp: &v1alpha1.FailbackRamp{Steps: []int32{100}}})))
	a.endpoints("eks", 10)
	a.expectWeights("gke", split(80, 20))
	a.partly("eks", 10, 14) // a scale-up moves nothing, and what follows is measured by ten
	a.partly("eks", 6, 10)
	a.expectWeights("gke", split(68, 32))
	a.expectWeights("eks", split(68, 32))
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonDegraded)
	a.partly("eks", 10, 10)
	a.expectWeights("gke", split(80, 20))
	a.expectWeights("eks", split(80, 20))
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionFalse, v1alpha1.ReasonAsIntended)
}

func TestHealthAndFailbackThatAdmissionRefuses(t *testing.T) {
	a := newApp(t, theClusterset(t))
	for name, test := range map[string]struct {
		change func(*v1alpha1.TrafficDistribution)
		says   string
	}{
		"a threshold of 0":       {func(d *v1alpha1.TrafficDistribution) { d.Health = &v1alpha1.Health{MinReadyPercent: new(int32(0))} }, "greater than or equal to 1"},
		"a threshold over 100":   {func(d *v1alpha1.TrafficDistribution) { d.Failback.MinReadyPercent = new(int32(101)) }, "less than or equal to 100"},
		"a capacity of 0":        {func(d *v1alpha1.TrafficDistribution) { d.Distribution.Weights[0].Capacity = new(int32(0)) }, "give it weight 0 to keep it as a last resort"},
		"a capacity over 100":    {func(d *v1alpha1.TrafficDistribution) { d.Distribution.Weights[0].Capacity = new(int32(101)) }, "less than or equal to 100"},
		"no such mode":           {func(d *v1alpha1.TrafficDistribution) { d.Failback.Mode = "Never" }, "Unsupported value"},
		"a hold that is no time": {func(d *v1alpha1.TrafficDistribution) { d.Failback.Hold = seconds("soon") }, "hold"},
		"a hold of two days":     {func(d *v1alpha1.TrafficDistribution) { d.Failback.Hold = seconds("48h") }, "at most 24h"},
		"a shorter maxHold": {func(d *v1alpha1.TrafficDistribution) {
			d.Failback.Hold, d.Failback.MaxHold = seconds("1m"), seconds("1s")
		}, "maxHold is shorter than hold"},
		"steps that fall": {func(d *v1alpha1.TrafficDistribution) {
			d.Failback.Ramp = &v1alpha1.FailbackRamp{Steps: []int32{50, 25, 100}}
		}, "the steps rise"},
		"steps short of all": {func(d *v1alpha1.TrafficDistribution) { d.Failback.Ramp = &v1alpha1.FailbackRamp{Steps: []int32{50}} }, "the last is 100"},
	} {
		p := a.returning(v1alpha1.Failback{})
		test.change(p.Spec.Defaults)
		require.ErrorContains(t, a.set.hub.Create(t.Context(), p, client.DryRunAll), test.says, name)
	}
}
