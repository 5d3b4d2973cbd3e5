// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// table is the lab's own nftables table in a cluster's namespace. kube-proxy has one of its own beside it.
const table = "isthmus-lab"

// APIServerPort is the one port of a node that other clusters reach.
const APIServerPort = 6443

// icmpPortUnreachable is the code of the answer that a client takes for a closed port.
const icmpPortUnreachable = 3

// isolate writes the rules of a cluster's namespace, in one transaction:
//
//	prerouting:     iifname eth0 ip daddr <pods> drop
//	                iifname eth0 ip daddr <services> drop
//	                iifname eth0 ip saddr != <host> ip daddr <node> tcp dport != 6443 ct state != established,related drop
//	                iifname eth0 ip saddr != <host> ip daddr <node> meta l4proto udp ct state != established,related drop
//	forward/output: ip daddr <load balancers> reject
//	postrouting:    oifname eth0 ip saddr <pods> masquerade
//
// So from outside one reaches the API server and the addresses of load balancers, and nothing else: what a cloud's
// firewall does before the nodes. The machine itself stands inside of it, as an administrator's host does. The first
// four come before kube-proxy translates an address, so that they see whom the client dialled; the fifth comes after it,
// and meets what no Service has taken.
func isolate(c Cluster) error {
	ns, err := netns.GetFromPath(Path(c.NetNS))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}
	conn.AddTable(t) // so that the deletion does not fail the first time
	conn.DelTable(t)
	conn.AddTable(t)
	r := rules{conn: conn, table: t}
	r.fromOutside(c)
	r.untaken(c)
	post := r.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	r.add(post, onLink(expr.MetaKeyOIFNAME, Uplink), inRange(ipv4Source, c.Pods), []expr.Any{&expr.Masq{}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables rules (are the kernel's nf_tables, nf_nat and nf_conntrack available?): %w", err)
	}
	return nil
}

// rules collects the rules of one table.
type rules struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (r rules) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: priority})
}

func (r rules) add(chain *nftables.Chain, parts ...[]expr.Any) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: join(parts...)})
}

// fromOutside drops what other clusters, and for pods and Services the host too, must not reach.
func (r rules) fromOutside(c Cluster) {
	pre := r.chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	outside, drop := onLink(expr.MetaKeyIIFNAME, Uplink), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	for _, inner := range []netip.Prefix{c.Pods, c.Services} {
		r.add(pre, outside, inRange(ipv4Destination, inner), drop)
	}
	node := append(notFrom(HostAddress().Addr()), inRange(ipv4Destination, single(c.Node.Addr()))...)
	r.add(pre, outside, node, protocol(unix.IPPROTO_TCP), notToPort(APIServerPort), isNew(), drop)
	r.add(pre, outside, node, protocol(unix.IPPROTO_UDP), isNew(), drop)
}

// untaken refuses what is meant for a load balancer's address and port that no Service has: at once, as a cloud's load
// balancer does, instead of a wait.
func (r rules) untaken(c Cluster) {
	refuse := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable}}
	for name, hook := range map[string]*nftables.ChainHook{"forward": nftables.ChainHookForward, "output": nftables.ChainHookOutput} {
		r.add(r.chain(name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter), inRange(ipv4Destination, c.LoadBalancers), refuse)
	}
}

// Offsets in the headers, in bytes.
const (
	ipv4Source      = 12
	ipv4Destination = 16
	destinationPort = 2
)

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func onLink(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func inRange(offset uint32, p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: ipNet(p).Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func notFrom(address netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ipv4Source, Len: 4},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: address.AsSlice()},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func notToPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// isNew matches packets that belong to no connection that the inside began.
func isNew() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}
