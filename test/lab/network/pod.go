// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Pod is the network of one pod.
type Pod struct {
	NetNS   string // PodNamespace(uid)
	Bridge  string // of the calling process's namespace, the cluster's
	Address netip.Prefix
	Gateway netip.Addr
}

// AddPod creates a pod's namespace and joins it to the cluster's bridge. The caller is a process in
// the cluster's namespace. It can be repeated.
func AddPod(p Pod) error {
	bridge, err := netlink.LinkByName(p.Bridge)
	if err != nil {
		return fmt.Errorf("pods' bridge %s: %w", p.Bridge, err)
	}
	if err := create(p.NetNS); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(Path(p.NetNS))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	name := podLink(p.NetNS)
	if _, err := netlink.LinkByName(name); err != nil {
		if err := addPair(name, ns, bridge.Attrs().Index, p.Address); err != nil {
			return err
		}
	}
	return Do(p.NetNS, p.setUp)
}

// podLink is the cluster's side of a pod's link: in the cluster's namespace, so that it needs no
// prefix, and dies with the pod's.
func podLink(ns string) string { return "p-" + ns[len(PodPrefix):] }

func (p Pod) setUp() error {
	link, err := netlink.LinkByName(Uplink)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p.Address)}); err != nil {
		return fmt.Errorf("address %s: %w", p.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: p.Gateway.AsSlice()})
}

// DeletePod removes a pod's namespace and, with it, its link. Processes in it have to be gone before.
func DeletePod(ns string) error {
	err := removeNamespace(ns)
	// The kernel takes a namespace apart later; the name of the link is needed now.
	return errors.Join(err, removeLink(podLink(ns)))
}

// AddLoadBalancerAddress gives a pod the address of a load balancer, so that it takes the load
// balancer's traffic and answers from that address by itself. It can be repeated.
func AddLoadBalancerAddress(ns string, address netip.Addr) error {
	return onLoopback(ns, func(lo netlink.Link, a *netlink.Addr) error { return netlink.AddrReplace(lo, a) }, address)
}

// RemoveLoadBalancerAddress takes it away again. It can be repeated.
func RemoveLoadBalancerAddress(ns string, address netip.Addr) error {
	return onLoopback(ns, func(lo netlink.Link, a *netlink.Addr) error {
		if err := netlink.AddrDel(lo, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		return nil
	}, address)
}

func onLoopback(ns string, change func(netlink.Link, *netlink.Addr) error, address netip.Addr) error {
	return Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		single := netip.PrefixFrom(address, address.BitLen())
		if err := change(lo, &netlink.Addr{IPNet: ipNet(single)}); err != nil {
			return fmt.Errorf("address %s in %s: %w", address, ns, err)
		}
		return nil
	})
}

// RouteLoadBalancer leads the traffic of a load balancer's address to the pods at the given
// addresses, in the calling process's namespace; without pods the address is unreachable at once
// instead of a wait.
func RouteLoadBalancer(address netip.Addr, pods []netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(netip.PrefixFrom(address, address.BitLen()))}
	switch len(pods) {
	case 0:
		route.Type = unix.RTN_UNREACHABLE
	case 1:
		route.Gw = pods[0].AsSlice()
	default:
		for _, pod := range pods {
			route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{Gw: pod.AsSlice()})
		}
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route of load balancer address %s: %w", address, err)
	}
	return nil
}

// UnrouteLoadBalancer removes the route of an address that no Service holds any more.
func UnrouteLoadBalancer(address netip.Addr) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Dst: ipNet(netip.PrefixFrom(address, address.BitLen()))}, netlink.RT_FILTER_DST)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range routes {
		errs = append(errs, netlink.RouteDel(&r))
	}
	return errors.Join(errs...)
}
