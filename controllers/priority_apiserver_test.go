// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// tiers is a distribution of one cluster a tier, with the given weight.
func tiers(weight int32, clusters ...string) v1alpha1.Distribution {
	d := v1alpha1.Distribution{Type: v1alpha1.DistributionPriority}
	for _, cluster := range clusters {
		d.Tiers = append(d.Tiers, v1alpha1.DistributionTier{Clusters: []v1alpha1.ClusterWeight{{Cluster: cluster, Weight: weight}}})
	}
	return d
}

// distributed is a policy of the test's route with any distribution.
func (a *app) distributed(name string, d v1alpha1.Distribution) *v1alpha1.TrafficDistributionPolicy {
	p := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: name}}
	p.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: "helloworld"}}}
	p.Spec.Defaults = &v1alpha1.TrafficDistribution{Distribution: d}
	return p
}

func TestTheFirstTierThatIsFitServes(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	require.NoError(t, a.set.hub.Create(t.Context(), a.distributed("tiers", tiers(1, "gke", "eks"))))
	a.expectWeights("eks", split(0, 100))
	a.expectWeights("gke", split(0, 100))
	a.endpoints("gke", 0)
	a.expectWeights("eks", split(100, 0))
	a.expectWeights("gke", split(100, 0))
	a.endpoints("gke", 1)
	a.expectWeights("eks", split(0, 100))
	a.expectWeights("gke", split(0, 100))
}

func TestAPolicySaysWhoIsInNoTier(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	p := a.distributed("tiers", tiers(1, "gke"))
	require.NoError(t, a.set.hub.Create(t.Context(), p))
	eventually(t, func() error {
		if err := a.set.hub.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if len(p.Status.Ancestors) == 0 {
			return fmt.Errorf("not said: %+v", p.Status)
		}
		c := meta.FindStatusCondition(p.Status.Ancestors[0].Conditions, v1alpha1.PolicyClustersResolved)
		if c == nil || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("not said: %+v", p.Status)
		}
		require.Contains(t, c.Message, "a last resort: eks")
		return nil
	})
}

func TestTiersThatAdmissionRefuses(t *testing.T) {
	a := newApp(t, theClusterset(t))
	without := v1alpha1.Distribution{Type: v1alpha1.DistributionPriority}
	besides := tiers(1, "eks")
	besides.Weights = []v1alpha1.ClusterWeight{weight("eks", 1)}
	local := tiers(1, "eks")
	local.Type = v1alpha1.DistributionLocal
	empty := v1alpha1.Distribution{Type: v1alpha1.DistributionPriority, Tiers: []v1alpha1.DistributionTier{{Clusters: []v1alpha1.ClusterWeight{}}}}
	twice := tiers(1, "eks")
	twice.Tiers[0].Clusters = append(twice.Tiers[0].Clusters, twice.Tiers[0].Clusters...)
	for name, test := range map[string]struct {
		distribution v1alpha1.Distribution
		says         string
	}{
		"no tiers":                 {without, "type Priority needs them"},
		"weights beside the tiers": {besides, "weights belong to type Weighted"},
		"tiers of Local":           {local, "tiers belong to type Priority"},
		"an empty tier":            {empty, "at least 1 item"},
		"a tier of nobody":         {tiers(0, "eks"), "all weights of the tier are 0"},
		"a cluster in two tiers":   {tiers(1, "eks", "eks"), "a cluster is in two tiers"},
		"a cluster twice in one":   {twice, "Duplicate value"},
	} {
		require.ErrorContains(t, a.set.hub.Create(t.Context(), a.distributed("bad", test.distribution)), test.says, name)
	}
}
