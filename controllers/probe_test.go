// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/federation"
)

func TestWhatNoRouteRefersToIsForgotten(t *testing.T) {
	route := routeTo("web", "front", cart)
	h := newHousehold(route)
	h.fleet.Add("eks")
	h.gather.probes = newProber(nil, nil, federation.Guard{MaxSuspected: federation.DefaultMaxSuspected}, newProbeMetrics(prometheus.NewRegistry()))
	probe := probeReconciler{Client: h.hub, gatherer: h.gather, triggers: h.triggers, metrics: newMetrics(prometheus.NewRegistry())}
	h.wakeOwner(federation.ProbeOwner(cart))
	known := func() bool {
		_, err := probe.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: cart.Namespace, Name: cart.Name}})
		require.NoError(t, err)
		is, _ := h.gather.probes.decided(cart)
		return is
	}
	require.True(t, known(), "not probed, and known to be so: its Gateway waits for that")
	require.NoError(t, h.hub.Delete(t.Context(), route))
	require.False(t, known())
	_, held := h.heldProbes.Load(cart)
	require.False(t, held)
}
