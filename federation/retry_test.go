// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A member without EnvoyFilter is served all the same, and nothing is wished that it cannot hold.
func TestRetriesWhereTheMemberHasThem(t *testing.T) {
	hub := &gatewayv1.Gateway{}
	hub.Namespace, hub.Name = "sample", "public"
	hub.Spec.Listeners = []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}
	member := func(name string, without bool) GatewayMember {
		return GatewayMember{Member: Member{Name: name, Synced: true, NoEnvoyFilter: without}, HasNamespace: true}
	}
	plan := PlanGateway(GatewaySnapshot{Gateway: hub, Members: []GatewayMember{member("eks", false), member("old", true)}})
	require.Len(t, plan.Objects, 2)
	require.Nil(t, plan.Retries["old"])
	retries := plan.Retries["eks"]
	require.Equal(t, "public", retries.Spec.TargetRefs[0].Name, "no other gateway is touched")
	require.Nil(t, retries.Spec.WorkloadSelector)
	owner, _ := ParseOwner(retries)
	require.Equal(t, GatewayOwner("sample", "public"), owner)

	old := Member{Name: "old", NoEnvoyFilter: true}
	require.NotContains(t, strings.Join(kindsIn(PlanEastWest(EastWestSnapshot{Member: old})), " "), "EnvoyFilter")
}

// What a request is retried on decides whether an application does its work twice.
func TestOnlyWhatWasNeverSentIsRetriedForEveryMethod(t *testing.T) {
	filter := eastWestRetries(NamespacedName{"ns", "gw"})
	policy := patchOf(t, filter, networkingapi.EnvoyFilter_HTTP_ROUTE)["route"].(map[string]any)["retry_policy"].(map[string]any)
	for condition := range strings.SplitSeq(policy["retry_on"].(string), ",") {
		require.Contains(t, []string{"connect-failure", "refused-stream", "reset-before-request", "retriable-headers"}, condition,
			"anything else may repeat a request that an application has seen")
	}
	require.NotContains(t, policy, "per_try_timeout", "a slow answer would be asked for again and again")
	require.NotContains(t, policy, "retriable_status_codes", "an application's error is an answer")
	require.Len(t, policy["retriable_headers"], 1)
}

func patchOf(t *testing.T, filter *networkingv1alpha3.EnvoyFilter, to networkingapi.EnvoyFilter_ApplyTo) map[string]any {
	t.Helper()
	for _, p := range filter.Spec.ConfigPatches {
		if p.ApplyTo == to {
			return p.Patch.Value.AsMap()
		}
	}
	t.Fatalf("no patch of %s", to)
	return nil
}
