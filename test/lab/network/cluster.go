// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Up creates the backbone and the networks of the clusters. What exists already is kept, so that it
// can be run again to repair.
func Up(clusters []Cluster) error {
	backbone, err := ensureBackbone()
	if err != nil {
		return err
	}
	for _, c := range clusters {
		if err := create(c.NetNS); err != nil {
			return err
		}
		if err := ensureUplink(c, backbone); err != nil {
			return fmt.Errorf("uplink of %s: %w", c.Name, err)
		}
		if err := hostRoute(c, backbone); err != nil {
			return fmt.Errorf("host's route to %s: %w", c.Name, err)
		}
	}
	for _, c := range clusters {
		if err := Do(c.NetNS, func() error { return c.setUp(clusters) }); err != nil {
			return fmt.Errorf("network of %s: %w", c.Name, err)
		}
		if err := isolate(c); err != nil {
			return fmt.Errorf("isolation of %s: %w", c.Name, err)
		}
	}
	return nil
}

// Down removes every namespace and link of the lab from the machine. Processes have to be gone
// before: a namespace lives on, without a name, while a process is in it.
func Down() error {
	var errs []error
	names, err := Namespaces(Prefix)
	errs = append(errs, err)
	for _, name := range names {
		if !strings.HasPrefix(name, TestPrefix) {
			errs = append(errs, removeNamespace(name))
		}
	}
	links, err := Links()
	errs = append(errs, err)
	for _, name := range links {
		errs = append(errs, removeLink(name))
	}
	return errors.Join(errs...)
}

// Remove takes the networks of some clusters away, and the backbone with the last of them.
func Remove(clusters []Cluster) error {
	var errs []error
	for _, c := range clusters {
		errs = append(errs, removeNamespace(c.NetNS), removeLink(c.Link))
		if backbone, err := netlink.LinkByName(Backbone); err == nil {
			route := &netlink.Route{LinkIndex: backbone.Attrs().Index, Dst: ipNet(c.LoadBalancers), Gw: c.Node.Addr().AsSlice()}
			if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, err)
			}
		}
	}
	names, err := Namespaces(Prefix)
	errs = append(errs, err)
	if len(names) == 0 {
		errs = append(errs, removeLink(Backbone))
	}
	return errors.Join(errs...)
}

// Links returns the lab's links in the host's namespace.
func Links() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		name := l.Attrs().Name
		if name == Backbone || strings.HasPrefix(name, Prefix) && !strings.HasPrefix(name, TestPrefix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// SetLink cuts (false) or restores (true) a cluster's uplink: a real partition.
func SetLink(name string, up bool) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if up {
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil // its namespace took it along
		}
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		if _, again := netlink.LinkByName(name); again == nil {
			return fmt.Errorf("remove link %s: %w", name, err)
		}
	}
	return nil
}

func ensureBackbone() (netlink.Link, error) {
	return ensureBridge(Backbone, HostAddress())
}

// ensureBridge makes a bridge with an address in the calling thread's namespace.
func ensureBridge(name string, address netip.Prefix) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, hardwareAddress(address.Addr())
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, fmt.Errorf("create bridge %s: %w", name, err)
		}
		if link, err = netlink.LinkByName(name); err != nil {
			return nil, err
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return nil, fmt.Errorf("address of bridge %s: %w", name, err)
	}
	return link, netlink.LinkSetUp(link)
}

// ensureUplink joins the cluster's namespace to the backbone by a pair of links.
func ensureUplink(c Cluster, backbone netlink.Link) error {
	if _, err := netlink.LinkByName(c.Link); err == nil {
		return nil // whether it is up, and on the backbone, is for faults to say
	}
	ns, err := netns.GetFromPath(Path(c.NetNS))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return addPair(c.Link, ns, backbone.Attrs().Index, c.Node.Addr())
}

// addPair makes a veth pair: name here, attached to the bridge, and the uplink in namespace ns, which is to have
// the address.
func addPair(name string, ns netns.NsHandle, bridge int, address netip.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MasterIndex = bridge
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: Uplink, PeerNamespace: netlink.NsFd(int(ns)),
		PeerHardwareAddr: hardwareAddress(address)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create link %s: %w", name, err)
	}
	return netlink.LinkSetUp(veth)
}

// hardwareAddress derives a link's from its IPv4 address. With random ones, neighbours would send to the former
// holder of an address for up to a minute, and a bridge, which takes the lowest of its ports', would change its own
// whenever that port goes.
func hardwareAddress(address netip.Addr) net.HardwareAddr {
	const locallyAdministered = 0x02
	four := address.As4()
	return append(net.HardwareAddr{locallyAdministered, 0}, four[:]...)
}

func hostRoute(c Cluster, backbone netlink.Link) error {
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: backbone.Attrs().Index, Dst: ipNet(c.LoadBalancers), Gw: c.Node.Addr().AsSlice(),
	})
}

// setUp makes the inside of a cluster's namespace; it runs there.
func (c Cluster) setUp(all []Cluster) error {
	// Redirects would teach the machines outside a way past the node.
	for _, s := range [][2]string{
		{"net.ipv4.ip_forward", "1"},
		{"net.ipv4.conf.all.send_redirects", "0"},
		{"net.ipv4.conf.default.send_redirects", "0"},
		{"net.ipv4.conf." + Uplink + ".send_redirects", "0"},
	} {
		if err := sysctl(s[0], s[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	uplink, err := netlink.LinkByName(Uplink)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(uplink, &netlink.Addr{IPNet: ipNet(c.Node)}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(uplink); err != nil {
		return err
	}
	pods, err := ensureBridge(PodBridge, netip.PrefixFrom(c.PodGateway, c.Pods.Bits()))
	if err != nil {
		return err
	}
	// What the node itself sends to a Service has to have a route before kube-proxy gets to translate it.
	for _, translated := range []netip.Prefix{c.Services, c.LoadBalancers} {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: pods.Attrs().Index, Dst: ipNet(translated), Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("route to %s: %w", translated, err)
		}
	}
	for _, other := range all {
		if other.Name == c.Name {
			continue
		}
		route := &netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: ipNet(other.LoadBalancers), Gw: other.Node.Addr().AsSlice()}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s: %w", other.Name, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
