// SPDX-License-Identifier: Apache-2.0

package network

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlanKeepsClustersApart(t *testing.T) {
	hub, err := Plan("hub", 1)
	require.NoError(t, err)
	eks, err := Plan("eks", 2)
	require.NoError(t, err)
	require.Equal(t, "10.231.0.11/24", hub.Node.String())
	require.Equal(t, "10.232.2.0/24", eks.Pods.String())
	require.Equal(t, "10.232.2.1", eks.PodGateway.String())
	require.Equal(t, "10.233.2.0/24", eks.LoadBalancers.String())
	require.Equal(t, "isl-eks", eks.NetNS)
	require.False(t, hub.Pods.Overlaps(eks.Pods))
}

func TestPlanRefusesWhatTheAddressesCannotHold(t *testing.T) {
	for _, index := range []int{0, -1, MaxClusters + 1} {
		_, err := Plan("x", index)
		require.ErrorContains(t, err, "1 to 200")
	}
	last, err := Plan("x", MaxClusters)
	require.NoError(t, err)
	require.Equal(t, "10.231.0.210/24", last.Node.String())
}

func TestLinkNamesFitTheKernelAndStayApart(t *testing.T) {
	require.Equal(t, "isl-eks", linkName("isl-eks"))
	a, b := linkName("isl-eks-us-east-1-blue"), linkName("isl-eks-us-east-1-green")
	require.LessOrEqual(t, len(a), linkNameMax)
	require.NotEqual(t, a, b)
	require.LessOrEqual(t, len(podLink(PodNamespace("uid"))), linkNameMax)
}
