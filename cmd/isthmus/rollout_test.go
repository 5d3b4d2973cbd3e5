// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestRolloutsAreListedAndTold(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{})
	out, code, _ := run(connect, "rollout")
	require.Equal(t, 0, code)
	require.Equal(t, "There is no rollout.\n", out)

	rollout := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-v2"},
		Spec: v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "shop"}},
		Status: v1alpha1.TrafficRolloutStatus{Phase: v1alpha1.RolloutPaused, WaveName: "first", Message: "waits for a person",
			Clusters: []v1alpha1.RolloutCluster{{Cluster: "eks", Weight: 10}, {Cluster: "gke"}}}}
	require.NoError(t, hubOf(t, connect).Create(t.Context(), rollout))
	out, _, _ = run(connect, "rollout")
	require.Contains(t, out, "shop/cart-v2   shop    Paused   first   eks 10% gke 0%   waits for a person")
	out, _, _ = run(connect, "rollout", "-n", "other")
	require.Contains(t, out, "There is no rollout.")

	for _, verb := range rolloutVerbs {
		out, code, message := run(connect, "rollout", verb.name, "-n", "shop", "cart-v2")
		require.Empty(t, message)
		require.Equal(t, 0, code)
		require.Contains(t, out, "Said "+verb.name+" to TrafficRollout shop/cart-v2, which was Paused")
		require.NoError(t, hubOf(t, connect).Get(t.Context(), client.ObjectKeyFromObject(rollout), rollout))
		require.Equal(t, "2026-01-01T03:00:00Z", rollout.Annotations[verb.annotation])
	}
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"promote":          {exitUsage, "say which rollout: one NAMESPACE/ROLLOUT"},
		"promote cart-v2":  {exitUsage, "is not NAMESPACE/ROLLOUT"},
		"promote shop/no":  {exitFailed, "there is no TrafficRollout shop/no"},
		"demote shop/cart": {exitUsage, "a rollout hears no"},
	} {
		_, code, message := run(connect, append([]string{"rollout"}, strings.Fields(args)...)...)
		require.Equal(t, want.code, code, message)
		require.Contains(t, message, want.said)
	}
}
