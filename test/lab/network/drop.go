// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
)

// faultTable is the nftables table of a cluster's faults; without a fault there is none.
const faultTable = "isthmus-lab-faults"

// Drops says which packets vanish in a cluster, without an answer.
type Drops struct {
	From []Cluster // whatever comes from them
	Pods bool      // whatever goes to the cluster's own pods or comes from them: their machine is gone
}

// Ranges are the addresses under which a cluster is seen by the others.
func (c Cluster) Ranges() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(c.Node.Addr(), c.Node.Addr().BitLen()), c.LoadBalancers, c.Pods}
}

// SetDrops writes the rules of a cluster's namespace anew, in one transaction:
//
//	prerouting:  iifname eth0 ip saddr <another cluster's ranges> drop
//	prerouting:  iifname pods0 drop
//	postrouting: oifname pods0 drop
func SetDrops(c Cluster, d Drops) error {
	ns, err := netns.GetFromPath(Path(c.NetNS))
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", c.NetNS, err)
	}
	defer func() { _ = ns.Close() }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: faultTable}
	conn.AddTable(t) // so that the deletion does not fail when there is none
	conn.DelTable(t)
	if len(d.From) > 0 || d.Pods {
		conn.AddTable(t)
		d.addRules(conn, t)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables rules of %s: %w", c.Name, err)
	}
	return nil
}

func (d Drops) addRules(conn *nftables.Conn, t *nftables.Table) {
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	// Before connections are tracked: one that is cut must not look half open inside.
	in := conn.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	for _, other := range d.From {
		for _, r := range other.Ranges() {
			conn.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: join(onLink(expr.MetaKeyIIFNAME, Uplink), inRange(ipv4Source, r), drop)})
		}
	}
	if !d.Pods {
		return
	}
	conn.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: join(onLink(expr.MetaKeyIIFNAME, PodBridge), drop)})
	// After all translations: by whatever address a pod was meant.
	out := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: join(onLink(expr.MetaKeyOIFNAME, PodBridge), drop)})
}
