// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPodsOfDifferentClustersMeetOnlyAtLoadBalancers builds two clusters with one pod each and dials
// between them. It needs root; a running lab does not disturb it, nor it the lab.
func TestPodsOfDifferentClustersMeetOnlyAtLoadBalancers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and links are created")
	}
	a, err := Plan("test-a", MaxClusters-1)
	require.NoError(t, err)
	b, err := Plan("test-b", MaxClusters)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, c := range []Cluster{a, b} {
			require.NoError(t, removeNamespace(PodNamespace("uid-of-"+c.Name)))
		}
		require.NoError(t, Remove([]Cluster{a, b}))
		require.False(t, Exists(a.NetNS))
	})
	require.NoError(t, Up([]Cluster{a, b}))
	require.NoError(t, Up([]Cluster{a, b}), "a second time repairs, and finds nothing to do")

	podA, podB := testPod(t, a), testPod(t, b)
	vip := b.LoadBalancers.Addr().Next()
	require.NoError(t, AddLoadBalancerAddress(podB.NetNS, vip))
	require.NoError(t, AddLoadBalancerAddress(podB.NetNS, vip))
	require.NoError(t, Do(b.NetNS, func() error { return RouteLoadBalancer(vip, []netip.Addr{podB.Address.Addr()}) }))
	serve(t, podB.NetNS)

	connects(t, b.NetNS, podB.Address.Addr(), "a node reaches its pod")
	connects(t, "", vip, "the host reaches a load balancer")
	connects(t, podA.NetNS, vip, "a pod reaches the other cluster's load balancer")
	require.Error(t, dial(podA.NetNS, podB.Address.Addr()), "a pod does not reach the other cluster's pod")
	require.Error(t, dial(a.NetNS, podB.Address.Addr()), "nor does a node")

	require.NoError(t, SetLink(b.Link, false))
	require.Error(t, dial(podA.NetNS, vip), "a cut link is a partition")
	require.NoError(t, SetLink(b.Link, true))
	connects(t, podA.NetNS, vip, "and heals")

	require.NoError(t, Do(b.NetNS, func() error { return RouteLoadBalancer(vip, nil) }))
	require.Error(t, dial("", vip), "a load balancer without pods refuses")
	require.NoError(t, RemoveLoadBalancerAddress(podB.NetNS, vip))
	require.NoError(t, RemoveLoadBalancerAddress(podB.NetNS, vip))
	require.NoError(t, Do(b.NetNS, func() error { return UnrouteLoadBalancer(vip) }))
	require.NoError(t, Do(b.NetNS, func() error { return DeletePod(podB.NetNS) }))
	require.False(t, Exists(podB.NetNS))
}

const testPort = 7777

func testPod(t *testing.T, c Cluster) Pod {
	t.Helper()
	p := Pod{
		NetNS: PodNamespace("uid-of-" + c.Name), Bridge: PodBridge,
		Address: netip.PrefixFrom(c.PodGateway.Next(), c.Pods.Bits()), Gateway: c.PodGateway,
	}
	for range 2 {
		require.NoError(t, Do(c.NetNS, func() error { return AddPod(p) }))
	}
	return p
}

// serve accepts connections in a namespace: a socket stays in the namespace that it was made in.
func serve(t *testing.T, ns string) {
	t.Helper()
	var l net.Listener
	require.NoError(t, Do(ns, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", testPort))
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

// connects waits a little: the kernel may take a second to see that a new link is up.
func connects(t *testing.T, ns string, to netip.Addr, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return dial(ns, to) == nil }, 10*time.Second, 50*time.Millisecond, what)
}

func dial(ns string, to netip.Addr) error {
	connect := func() error {
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, testPort).String(), 500*time.Millisecond)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if ns == "" {
		return connect()
	}
	return Do(ns, connect)
}
