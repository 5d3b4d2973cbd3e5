// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// divertedLink names the device that stands on the backbone in the place of a cluster's link. No cluster's name holds its last
// letter.
func (c Cluster) divertedLink() string { return linkName(c.NetNS + "~") }

// Diversion is a cluster's link taken off the backbone, for a relay to carry its frames.
type Diversion struct {
	Uplink   *os.File // the cluster's side: frames as they leave it
	Backbone *os.File // the others' side; its device goes when the last holder closes it
}

// Close closes both sides here.
func (d Diversion) Close() error { return errors.Join(d.Uplink.Close(), d.Backbone.Close()) }

// OpenDiversion makes both sides. Frames take the new way only when Divert says so, once somebody carries them.
func OpenDiversion(c Cluster) (d Diversion, err error) {
	link, err := netlink.LinkByName(c.Link)
	if err != nil {
		return d, fmt.Errorf("link %s: %w", c.Link, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = c.divertedLink(), link.Attrs().MTU
	// Without offloads on its side: what comes from the backbone is cut into packets of the link's size first.
	tap := &netlink.Tuntap{
		LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, NonPersist: true, Queues: 1,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_TUN_EXCL,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return d, fmt.Errorf("create device %s: %w (latency, loss and bandwidth need TUN: `modprobe tun`, and /dev/net/tun)", attrs.Name, err)
	}
	d.Backbone = tap.Fds[0]
	d.Uplink, err = packetSocket(link.Attrs().Index, c.Link)
	if err != nil {
		return d, errors.Join(err, d.Backbone.Close())
	}
	return d, nil
}

// packetSocket carries whole frames of one link, none that it sent itself.
func packetSocket(index int, name string) (*os.File, error) {
	// Protocol 0: nothing is received before the socket is bound to its link.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	const receiveBuffer = 8 << 20
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}), // #nosec G115 -- an interface's number
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Divert puts the diversion in the place of the cluster's link: there is no moment in which both stand on the backbone,
// which would send frames in circles. It can be repeated.
func Divert(c Cluster) error {
	// Off its bridge, the link would have the host itself answer who has which address.
	if err := sysctl(c.answersARP(), "8"); err != nil {
		return err
	}
	return c.swap(c.Link, c.divertedLink(), 1)
}

// Undivert puts the cluster's own link back. It can be repeated, also when there is no diversion.
func Undivert(c Cluster) error {
	const kernelsOwn = 65535
	if err := c.swap(c.divertedLink(), c.Link, kernelsOwn); err != nil {
		return err
	}
	return sysctl(c.answersARP(), "0")
}

func (c Cluster) answersARP() string { return "net.ipv4.conf." + c.Link + ".arp_ignore" }

// swap takes one device off the backbone and puts another on it. The cluster's uplink sends packets of at most
// so many segments: one, or a loss would be one of forty packets at a time.
func (c Cluster) swap(off, on string, segments int) error {
	backbone, err := netlink.LinkByName(Backbone)
	if err != nil {
		return err
	}
	if link, err := netlink.LinkByName(off); err == nil {
		if err := netlink.LinkSetNoMaster(link); err != nil {
			return fmt.Errorf("take %s off the backbone: %w", off, err)
		}
	}
	link, err := netlink.LinkByName(on)
	if err != nil {
		return fmt.Errorf("link %s: %w", on, err)
	}
	if err := netlink.LinkSetMaster(link, backbone); err != nil {
		return fmt.Errorf("put %s on the backbone: %w", on, err)
	}
	if on != c.Link { // whether the link itself is up is a fault's to say
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	return Do(c.NetNS, func() error {
		uplink, err := netlink.LinkByName(Uplink)
		if err != nil {
			return err
		}
		return netlink.LinkSetGSOMaxSegs(uplink, segments)
	})
}
