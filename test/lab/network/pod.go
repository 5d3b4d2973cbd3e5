// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Pod is the network of one pod.
type Pod struct {
	NetNS   string // PodNamespace(uid)
	Bridge  string // of the calling process's namespace, the cluster's
	Address netip.Addr
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

// setUp makes the inside of a pod's namespace. The pod has no neighbour but the node, as on EKS: a pod that saw
// another one on its own link would answer it directly, past the node, which alone knows the Service's address that
// the other had dialled.
func (p Pod) setUp() error {
	link, err := netlink.LinkByName(Uplink)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(single(p.Address))}); err != nil {
		return fmt.Errorf("address %s: %w", p.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	node := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(single(p.Gateway)), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteReplace(node); err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: p.Gateway.AsSlice()})
}

func single(address netip.Addr) netip.Prefix { return netip.PrefixFrom(address, address.BitLen()) }

// DeletePod removes a pod's namespace and, with it, its link. Processes in it have to be gone before.
func DeletePod(ns string) error {
	err := removeNamespace(ns)
	// The kernel takes a namespace apart later; the name of the link is needed now.
	return errors.Join(err, removeLink(podLink(ns)))
}
