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

// table is the lab's own nftables table in a cluster's namespace.
const table = "isthmus-lab"

// isolate writes the rules of a cluster's namespace, in one transaction:
//
//	postrouting: oifname eth0 ip saddr <pods> masquerade
//	forward:     iifname eth0 ip daddr <pods> ct state != established,related drop
//
// A load balancer's address is not in the pods' range, so that it stays reachable from outside.
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
	post := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: join(
		onLink(expr.MetaKeyOIFNAME, Uplink), inRange(ipv4Source, c.Pods), []expr.Any{&expr.Masq{}},
	)})
	forward := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: join(
		onLink(expr.MetaKeyIIFNAME, Uplink), inRange(ipv4Destination, c.Pods), isNew(),
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
	)})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables rules (are the kernel's nf_tables, nf_nat and nf_conntrack available?): %w", err)
	}
	return nil
}

// Offsets of the addresses in an IPv4 header, in bytes.
const (
	ipv4Source      = 12
	ipv4Destination = 16
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
