// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"isthmus.dev/isthmus/test/lab/shaper"
)

// twoClusters have an uplink each, and a server on the node that says back what it hears.
func twoClusters(t *testing.T) (a, b Cluster) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and links are created")
	}
	a, err := Plan("test-c", MaxClusters-3)
	require.NoError(t, err)
	b, err = Plan("test-d", MaxClusters-2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, Remove([]Cluster{a, b})) })
	require.NoError(t, Up([]Cluster{a, b}))
	for _, c := range []Cluster{a, b} {
		echo(t, c.NetNS)
	}
	connects(t, a.NetNS, b.Node.Addr(), "before any fault")
	return a, b
}

func echo(t *testing.T, ns string) {
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
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
}

// relay carries a cluster's frames in this process until the test ends or the relay is ended.
func relay(t *testing.T, c Cluster) (ended <-chan error) {
	t.Helper()
	d, err := OpenDiversion(c)
	require.NoError(t, err)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { done <- Do(c.NetNS, func() error { return shaper.Relay(ctx, d.Uplink, d.Backbone) }) }()
	return done
}

func setRules(c Cluster, rules ...shaper.Rule) error {
	return Do(c.NetNS, func() error { return shaper.Set(context.Background(), rules) })
}

func TestARelayCarriesALinksFramesByItsRules(t *testing.T) {
	a, b := twoClusters(t)
	before := picture(t, a, b)
	ended := relay(t, a)
	require.Eventually(t, func() bool { return setRules(a) == nil }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, Divert(a))
	require.NoError(t, Divert(a), "again")
	connects(t, b.NetNS, a.Node.Addr(), "without a rule everything passes")
	require.Equal(t, 1<<20, transfer(t, a.NetNS, b.Node.Addr(), 1<<20), "in both directions, whole")
	connects(t, "", a.Node.Addr(), "also from the host")

	require.NoError(t, setRules(a, shaper.Rule{To: b.Ranges(), Latency: 100 * time.Millisecond}))
	began := time.Now()
	connects(t, b.NetNS, a.Node.Addr(), "slowly")
	require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond, "a round trip takes at least so much")
	require.NoError(t, setRules(a, shaper.Rule{Loss: 1}))
	require.Error(t, dial(b.NetNS, a.Node.Addr()), "everything is lost")
	require.NoError(t, setRules(a, shaper.Rule{Rate: 4_000_000}))
	began = time.Now()
	require.Equal(t, 1<<20, transfer(t, a.NetNS, b.Node.Addr(), 1<<20))
	require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "a megabyte at 4 Mbit/s")

	require.NoError(t, SetLink(a.Link, false))
	require.Error(t, dial(b.NetNS, a.Node.Addr()), "a cut link is cut for the relay, too")
	require.NoError(t, SetLink(a.Link, true))
	connects(t, b.NetNS, a.Node.Addr(), "and heals")

	require.NoError(t, Undivert(a))
	require.NoError(t, Do(a.NetNS, func() error { return shaper.End(context.Background()) }))
	require.NoError(t, <-ended)
	require.NoError(t, Undivert(a), "again")
	connects(t, b.NetNS, a.Node.Addr(), "without the relay")
	require.Equal(t, before, picture(t, a, b), "nothing is left of it")
}

func TestARelayThatIsFrozenIsNotWaitedForForEver(t *testing.T) {
	a, _ := twoClusters(t)
	var silent net.Listener
	require.NoError(t, Do(a.NetNS, func() (err error) {
		silent, err = net.Listen("unix", "@isthmus-lab-link") // takes connections, and says nothing
		return err
	}))
	t.Cleanup(func() { _ = silent.Close() })
	err := Do(a.NetNS, func() error { return shaper.End(context.Background()) })
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestTwoClustersAreCutFromOneAnotherOnly(t *testing.T) {
	a, b := twoClusters(t)
	before := picture(t, a, b)
	for range 2 {
		require.NoError(t, SetDrops(a, Drops{From: []Cluster{b}}))
		require.NoError(t, SetDrops(b, Drops{From: []Cluster{a}}))
	}
	require.Error(t, dial(a.NetNS, b.Node.Addr()))
	require.Error(t, dial(b.NetNS, a.Node.Addr()))
	connects(t, "", a.Node.Addr(), "the host sees both")
	connects(t, "", b.Node.Addr(), "the host sees both")
	require.NoError(t, SetDrops(a, Drops{}))
	require.NoError(t, SetDrops(b, Drops{}))
	connects(t, a.NetNS, b.Node.Addr(), "healed")
	require.Equal(t, before, picture(t, a, b))
}

func TestAPodWhoseMachineIsGoneDoesNotAnswer(t *testing.T) {
	a, _ := twoClusters(t)
	pod := testPod(t, a)
	t.Cleanup(func() { require.NoError(t, Do(a.NetNS, func() error { return DeletePod(pod.NetNS) })) })
	connects(t, pod.NetNS, a.PodGateway, "the pod is there")
	require.NoError(t, SetDrops(a, Drops{Pods: true}))
	require.ErrorContains(t, dial(a.NetNS, pod.Address), "timeout", "a refusal would be an answer")
	require.ErrorContains(t, dial(pod.NetNS, a.Node.Addr()), "timeout")
	require.NoError(t, SetDrops(a, Drops{}))
	connects(t, pod.NetNS, a.PodGateway, "and is there again")
}

// transfer sends so many bytes to an echo and returns how many came back.
func transfer(t *testing.T, ns string, to interface{ String() string }, size int) (back int) {
	t.Helper()
	require.NoError(t, Do(ns, func() error {
		conn, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", to, testPort), 10*time.Second)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		go func() {
			_, _ = conn.Write(make([]byte, size))
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		n, err := io.Copy(io.Discard, conn)
		back = int(n)
		return err
	}))
	return back
}

// picture is all of the network that a fault may touch: links with their masters, queues and offloads, and rules.
func picture(t *testing.T, clusters ...Cluster) []string {
	t.Helper()
	all := pictureHere(t)
	for _, c := range clusters {
		require.NoError(t, Do(c.NetNS, func() error {
			for _, line := range pictureHere(t) {
				all = append(all, c.NetNS+" "+line)
			}
			return nil
		}))
	}
	slices.Sort(all)
	return all
}

func pictureHere(t *testing.T) []string {
	t.Helper()
	var all []string
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		a := l.Attrs()
		if !strings.HasPrefix(a.Name, Prefix) && a.Name != Backbone && a.Name != Uplink && a.Name != PodBridge {
			continue
		}
		arp, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + a.Name + "/arp_ignore")
		require.NoError(t, err)
		all = append(all, fmt.Sprintf("link %s %s master %d up %v gso %d promiscuous %d arp_ignore %s",
			a.Name, l.Type(), a.MasterIndex, a.Flags&net.FlagUp != 0, a.GSOMaxSegs, a.Promisc, strings.TrimSpace(string(arp))))
		queues, err := netlink.QdiscList(l)
		require.NoError(t, err)
		for _, q := range queues {
			all = append(all, fmt.Sprintf("queue of %s: %s %s", a.Name, q.Type(), q.Attrs()))
		}
	}
	here, err := netns.Get()
	require.NoError(t, err)
	defer func() { _ = here.Close() }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(here)))
	require.NoError(t, err)
	tables, err := conn.ListTables()
	require.NoError(t, err)
	for _, table := range tables {
		all = append(all, "table "+table.Name)
	}
	return all
}
