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

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
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
	serve(t, podB.NetNS)
	serve(t, b.NetNS)
	require.Error(t, dial("", vip), "an address of no Service refuses")
	translate(t, b, vip, podB.Address)

	connects(t, b.NetNS, podB.Address, "a node reaches its pod")
	connects(t, b.NetNS, vip, "and its load balancer")
	connects(t, podB.NetNS, b.Node.Addr(), "a pod reaches its node")
	connects(t, "", vip, "the host reaches a load balancer")
	connects(t, podA.NetNS, vip, "a pod reaches the other cluster's load balancer")
	connects(t, podA.NetNS, b.Node.Addr(), "a pod reaches the other cluster's API server")
	require.NoError(t, dialPort("", b.Node.Addr(), closedPort), "the host reaches all of a node")
	require.Error(t, dialPort(podA.NetNS, b.Node.Addr(), closedPort), "others do not")
	detour(t, a, b)
	require.Error(t, dial(podA.NetNS, podB.Address), "nor its pod, by whatever route")
	require.Error(t, dial(a.NetNS, podB.Address), "nor does a node")

	require.NoError(t, SetLink(b.Link, false))
	require.Error(t, dial(podA.NetNS, vip), "a cut link is a partition")
	require.NoError(t, SetLink(b.Link, true))
	connects(t, podA.NetNS, vip, "and heals")

	require.NoError(t, Do(b.NetNS, func() error { return DeletePod(podB.NetNS) }))
	require.False(t, Exists(podB.NetNS))
}

// TestPodsOfOneClusterMeetByWayOfTheNode: only so do they get their answers from the Service that they dialled.
func TestPodsOfOneClusterMeetByWayOfTheNode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and links are created")
	}
	c, err := Plan("test-c", MaxClusters-2)
	require.NoError(t, err)
	t.Cleanup(func() {
		for n := range 2 {
			require.NoError(t, removeNamespace(PodNamespace(fmt.Sprintf("uid-%d-of-test-c", n))))
		}
		require.NoError(t, Remove([]Cluster{c}))
	})
	require.NoError(t, Up([]Cluster{c}))
	service := c.Services.Addr().Next()
	var pods []Pod
	for n := range 2 {
		p := Pod{NetNS: PodNamespace(fmt.Sprintf("uid-%d-of-test-c", n)), Bridge: PodBridge, Gateway: c.PodGateway}
		p.Address = netip.AddrFrom4([4]byte{10, 232, byte(c.Index), byte(10 + n)})
		require.NoError(t, Do(c.NetNS, func() error { return AddPod(p) }))
		pods = append(pods, p)
	}
	serve(t, pods[1].NetNS)
	translate(t, c, service, pods[1].Address)
	connects(t, pods[0].NetNS, pods[1].Address, "pods reach one another")
	connects(t, pods[0].NetNS, service, "and a Service")
	connects(t, c.NetNS, service, "as does the node")
}

// translate plays kube-proxy.
func translate(t *testing.T, c Cluster, service, pod netip.Addr) {
	t.Helper()
	ns, err := netns.GetFromPath(Path(c.NetNS))
	require.NoError(t, err)
	defer func() { _ = ns.Close() }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	require.NoError(t, err)
	r := rules{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test"})}
	to := []expr.Any{
		&expr.Immediate{Register: 1, Data: pod.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
	for name, hook := range map[string]*nftables.ChainHook{"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput} {
		r.add(r.chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest), inRange(ipv4Destination, single(service)), to)
	}
	require.NoError(t, conn.Flush())
}

// detour gives one cluster a route to the pods of another, which it does not have by itself.
func detour(t *testing.T, from, to Cluster) {
	t.Helper()
	require.NoError(t, Do(from.NetNS, func() error {
		return netlink.RouteReplace(&netlink.Route{Dst: ipNet(to.Pods), Gw: to.Node.Addr().AsSlice()})
	}))
}

// testPort is the one that a firewall lets in at a node; closedPort is any other.
const (
	testPort   = APIServerPort
	closedPort = 7777
)

func testPod(t *testing.T, c Cluster) Pod {
	t.Helper()
	p := Pod{
		NetNS: PodNamespace("uid-of-" + c.Name), Bridge: PodBridge,
		Address: c.PodGateway.Next(), Gateway: c.PodGateway,
	}
	for range 2 {
		require.NoError(t, Do(c.NetNS, func() error { return AddPod(p) }))
	}
	return p
}

// serve accepts connections in a namespace: a socket stays in the namespace that it was made in.
func serve(t *testing.T, ns string) {
	t.Helper()
	for _, port := range []int{testPort, closedPort} {
		var l net.Listener
		require.NoError(t, Do(ns, func() (err error) {
			l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
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
}

// connects waits a little: the kernel may take a second to see that a new link is up.
func connects(t *testing.T, ns string, to netip.Addr, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return dial(ns, to) == nil }, 10*time.Second, 50*time.Millisecond, what)
}

func dial(ns string, to netip.Addr) error { return dialPort(ns, to, testPort) }

func dialPort(ns string, to netip.Addr, port uint16) error {
	connect := func() error {
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, port).String(), 500*time.Millisecond)
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
