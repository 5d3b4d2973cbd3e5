// SPDX-License-Identifier: Apache-2.0

// Package network gives the lab's clusters their networks: a backbone bridge on the host, a network
// namespace a cluster (its "VPC") and one a pod.
//
//	host ── isl0 (10.231.0.1/24)
//	          ├─ isl-hub ══ eth0 10.231.0.11 [isl-hub] pods0 10.232.1.1/24 ── pods
//	          ├─ isl-eks ══ eth0 10.231.0.12 [isl-eks] pods0 10.232.2.1/24 ── pods
//	          └─ isl-gke ══ eth0 10.231.0.13 [isl-gke] pods0 10.232.3.1/24 ── pods
//
// Nodes and load-balancer addresses reach one another over the backbone; pods of different clusters
// do not, as between two clouds. Everything is named isl-…, so that it can be found and removed
// whatever happened to the processes.
package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
)

const (
	// Prefix starts the name of every namespace and link of the lab.
	Prefix = "isl-"
	// PodPrefix starts the name of every pod's namespace.
	PodPrefix = Prefix + "p-"
	// TestPrefix starts the names that tests use beside a running lab: `down` leaves them alone.
	TestPrefix = Prefix + "test-"
	// Backbone is the bridge in the host's namespace.
	Backbone = "isl0"
	// PodBridge is the bridge of a cluster's pods, in the cluster's namespace.
	PodBridge = "pods0"
	// Uplink is a cluster's link to the backbone, in the cluster's namespace.
	Uplink = "eth0"
	// MaxClusters is how many clusters the address plan holds.
	MaxClusters = 200

	linkNameMax = 15 // IFNAMSIZ without the final zero
)

// Cluster is the network of one cluster.
type Cluster struct {
	Name  string
	Index int // 1 to MaxClusters, unique in the lab
	NetNS string
	Link  string // host side of the uplink

	Node          netip.Prefix // the node's address in the backbone's network
	Pods          netip.Prefix
	PodGateway    netip.Addr // .1 of Pods, on PodBridge
	LoadBalancers netip.Prefix
	Services      netip.Prefix
}

// HostAddress is the host's address in the backbone.
func HostAddress() netip.Prefix { return netip.MustParsePrefix("10.231.0.1/24") }

// Plan returns the addresses and names of a cluster.
func Plan(name string, index int) (Cluster, error) {
	if index < 1 || index > MaxClusters {
		return Cluster{}, fmt.Errorf("cluster %s has number %d: the lab's address plan goes from 1 to %d", name, index, MaxClusters)
	}
	i := byte(index) // within 1..200, checked above
	return Cluster{
		Name:          name,
		Index:         index,
		NetNS:         Prefix + name,
		Link:          linkName(Prefix + name),
		Node:          netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 231, 0, 10 + i}), 24),
		Pods:          netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 232, i, 0}), 24),
		PodGateway:    netip.AddrFrom4([4]byte{10, 232, i, 1}),
		LoadBalancers: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 233, i, 0}), 24),
		Services:      netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 234, i, 0}), 24),
	}, nil
}

// APIServer is the address of the Service kubernetes, which the API server gives itself: the first of the range.
func (c Cluster) APIServer() netip.Addr { return c.Services.Masked().Addr().Next() }

// DNS is the address of the Service kube-dns: the tenth of the range, where most clusters have it.
func (c Cluster) DNS() netip.Addr {
	at := c.Services.Masked().Addr().As4()
	at[3] += 10
	return netip.AddrFrom4(at)
}

// PodNamespace returns the name of the namespace of the pod with that uid.
func PodNamespace(uid string) string { return PodPrefix + shortHash(uid) }

// linkName shortens a name to what the kernel takes, by a hash, so that two long names stay apart.
func linkName(name string) string {
	if len(name) <= linkNameMax {
		return name
	}
	hash := shortHash(name)[:6]
	return name[:linkNameMax-1-len(hash)] + "-" + hash
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:5])
}
