// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// policyOn is a policy of namespace sample. what is "default", "override" or "both"; target "Kind name section".
func policyOn(name, what, target string) *v1alpha1.TrafficDistributionPolicy {
	p := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: name,
		CreationTimestamp: metav1.NewTime(time.Unix(int64(len(name)), 0))}}
	fields := append(strings.Fields(target), "")
	ref := gatewayv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(fields[0]), Name: gatewayv1.ObjectName(fields[1])}}
	if fields[2] != "" {
		section := gatewayv1.SectionName(fields[2])
		ref.SectionName = &section
	}
	p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	if what != "override" {
		p.Spec.Defaults = &v1alpha1.TrafficDistribution{Distribution: weighted(name, 1)}
	}
	if what != "default" {
		p.Spec.Overrides = &v1alpha1.TrafficDistribution{Distribution: weighted(name+"!", 1)}
	}
	return p
}

func TestEffectivePolicy(t *testing.T) {
	path := []Target{{Kind: "Gateway", Namespace: "sample", Name: "g"}, {Kind: "Gateway", Namespace: "sample", Name: "g", Section: "http"},
		{Kind: "HTTPRoute", Namespace: "sample", Name: "r"}, {Kind: "HTTPRoute", Namespace: "sample", Name: "r", Section: "rule"},
		{Kind: "ServiceImport", Namespace: "sample", Name: "s"}}
	deleted := policyOn("deleted", "override", "Gateway g")
	deleted.DeletionTimestamp = &metav1.Time{}
	elsewhere := policyOn("elsewhere", "override", "Gateway g")
	elsewhere.Namespace = "other"
	tests := map[string]struct {
		policies []*v1alpha1.TrafficDistributionPolicy
		want     string // the first cluster of the distribution in force
	}{
		"none":                               {nil, ""},
		"a default on the gateway":           {[]*v1alpha1.TrafficDistributionPolicy{policyOn("gw", "default", "Gateway g")}, "gw"},
		"the lower default":                  {[]*v1alpha1.TrafficDistributionPolicy{policyOn("gw", "default", "Gateway g"), policyOn("l", "default", "Gateway g http"), policyOn("route", "default", "HTTPRoute r")}, "route"},
		"the rule under the route":           {[]*v1alpha1.TrafficDistributionPolicy{policyOn("rule", "default", "HTTPRoute r rule"), policyOn("route", "default", "HTTPRoute r")}, "rule"},
		"the import under all":               {[]*v1alpha1.TrafficDistributionPolicy{policyOn("import", "default", "ServiceImport s"), policyOn("rule", "default", "HTTPRoute r rule")}, "import"},
		"the higher override":                {[]*v1alpha1.TrafficDistributionPolicy{policyOn("import", "override", "ServiceImport s"), policyOn("listener", "override", "Gateway g http")}, "listener!"},
		"an override beats lower defaults":   {[]*v1alpha1.TrafficDistributionPolicy{policyOn("import", "default", "ServiceImport s"), policyOn("gw", "override", "Gateway g")}, "gw!"},
		"an override beats higher defaults":  {[]*v1alpha1.TrafficDistributionPolicy{policyOn("import", "override", "ServiceImport s"), policyOn("gw", "default", "Gateway g")}, "import!"},
		"its own override beats its default": {[]*v1alpha1.TrafficDistributionPolicy{policyOn("gw", "both", "Gateway g")}, "gw!"},
		"a default of a policy with both":    {[]*v1alpha1.TrafficDistributionPolicy{policyOn("route", "both", "HTTPRoute r"), policyOn("import", "default", "ServiceImport s")}, "route!"},
		"the older of two":                   {[]*v1alpha1.TrafficDistributionPolicy{policyOn("younger", "override", "Gateway g"), policyOn("older", "default", "Gateway g")}, "older"},
		"the name where both are as old":     {[]*v1alpha1.TrafficDistributionPolicy{policyOn("bb", "default", "Gateway g"), policyOn("aa", "default", "Gateway g")}, "aa"},
		"not one that is being deleted":      {[]*v1alpha1.TrafficDistributionPolicy{deleted}, ""},
		"not one of another namespace":       {[]*v1alpha1.TrafficDistributionPolicy{elsewhere}, ""},
		"not one of another section":         {[]*v1alpha1.TrafficDistributionPolicy{policyOn("x", "override", "Gateway g https")}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := EffectivePolicy(path, test.policies)
			if test.want == "" {
				require.Equal(t, Effective{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}}, e)
				return
			}
			require.Equal(t, test.want, e.Distribution.Weights[0].Cluster)
			require.Equal(t, "sample/"+strings.TrimSuffix(test.want, "!"), e.Policy)
		})
	}
}

func TestEachPartOfAPolicyIsDecidedForItself(t *testing.T) {
	platform, app := policyOn("platform", "override", "Gateway g"), policyOn("app", "both", "HTTPRoute r")
	platform.Spec.Overrides = &v1alpha1.TrafficDistribution{Failback: &v1alpha1.Failback{Mode: v1alpha1.FailbackManual}}
	app.Spec.Defaults.Health = &v1alpha1.Health{MinReadyPercent: new(int32(80))}
	app.Spec.Overrides = &v1alpha1.TrafficDistribution{Failback: &v1alpha1.Failback{Mode: v1alpha1.FailbackAutomatic}}
	e := EffectivePolicy([]Target{{Kind: "Gateway", Namespace: "sample", Name: "g"}, {Kind: "HTTPRoute", Namespace: "sample", Name: "r"}},
		[]*v1alpha1.TrafficDistributionPolicy{platform, app})
	require.Equal(t, Effective{Distribution: weighted("app", 1), Policy: "sample/app", Health: *app.Spec.Defaults.Health,
		HealthPolicy: "sample/app", Failback: *platform.Spec.Overrides.Failback}, e)
}

func TestPolicyStatus(t *testing.T) {
	p := policyOn("policy", "both", "Gateway g")
	p.Generation = 7
	p.Spec.TargetRefs = append(p.Spec.TargetRefs, policyOn("x", "default", "HTTPRoute gone").Spec.TargetRefs...)
	status := PolicyStatus(PolicySnapshot{Policy: p, Others: []*v1alpha1.TrafficDistributionPolicy{policyOn("older", "default", "Gateway g")},
		Exists: map[Target]bool{{Kind: "Gateway", Namespace: "sample", Name: "g"}: true}, Members: []string{"policy"}})
	require.Len(t, status, 2, "one entry a target")
	require.Equal(t, gatewayv1.ObjectName("g"), status[0].AncestorRef.Name)
	require.Equal(t, gatewayv1.GatewayController(v1alpha1.ControllerName), status[0].ControllerName)

	accepted, resolved := status[0].Conditions[0], status[0].Conditions[1]
	require.Equal(t, "Accepted False Conflicted", accepted.Type+" "+string(accepted.Status)+" "+accepted.Reason)
	require.Contains(t, accepted.Message, "sample/older")
	require.Equal(t, int64(7), accepted.ObservedGeneration)
	require.Equal(t, "ClustersResolved False UnknownCluster", resolved.Type+" "+string(resolved.Status)+" "+resolved.Reason)
	require.Contains(t, resolved.Message, "named policy!:", "only those that are no member")
	require.Equal(t, "TargetNotFound", status[1].Conditions[0].Reason)

	p.Spec.Overrides = nil
	status = PolicyStatus(PolicySnapshot{Policy: p, Exists: map[Target]bool{{Kind: "Gateway", Namespace: "sample", Name: "g"}: true},
		Members: []string{"policy"}})
	require.Equal(t, metav1.ConditionTrue, status[0].Conditions[0].Status)
	require.Equal(t, metav1.ConditionTrue, status[0].Conditions[1].Status)

	status = PolicyStatus(PolicySnapshot{Policy: p, OtherClass: map[Target]string{{Kind: "Gateway", Namespace: "sample", Name: "g"}: "istio"}})
	require.Equal(t, "Invalid", status[0].Conditions[0].Reason)
	require.Contains(t, status[0].Conditions[0].Message, "Gateway sample/g is of GatewayClass istio")
}

func TestSectionsOfTargets(t *testing.T) {
	name := gatewayv1.SectionName("hello")
	require.True(t, HasListener(&gatewayv1.Gateway{Spec: gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{{Name: "http"}}}}, "http"))
	require.False(t, HasListener(&gatewayv1.Gateway{}, "http"))
	route := &gatewayv1.HTTPRoute{Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{{}, {Name: &name}}}}
	require.True(t, HasRule(route, "hello"))
	require.False(t, HasRule(route, "1"), "an index is no name")
}
