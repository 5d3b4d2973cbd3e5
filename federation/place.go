// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Place is where a cluster is and who runs it.
type Place struct {
	// Provider is eks, gke, aks, kind or unknown.
	Provider string
	// Region that most Nodes name; Zone only where all Nodes that name one agree.
	Region, Zone string
}

// providers by the scheme of a Node's providerID, as the clouds' node controllers write it.
var providers = map[string]string{"aws": "eks", "gce": "gke", "azure": "aks", "kind": "kind"}

// DiscoverPlace reads a cluster's place from its Nodes' provider IDs and well-known topology labels.
func DiscoverPlace(nodes []corev1.Node) Place {
	provider, region, zone := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range nodes {
		scheme, _, _ := strings.Cut(nodes[i].Spec.ProviderID, "://")
		if name := providers[scheme]; name != "" {
			provider[name]++
		}
		count(region, nodes[i].Labels[corev1.LabelTopologyRegion])
		count(zone, nodes[i].Labels[corev1.LabelTopologyZone])
	}
	p := Place{Provider: cmp.Or(mostFrequent(provider), "unknown"), Region: mostFrequent(region)}
	if len(zone) == 1 {
		p.Zone = mostFrequent(zone)
	}
	return p
}

func count(counts map[string]int, value string) {
	if value != "" {
		counts[value]++
	}
}

// mostFrequent value; of equals the one that sorts first.
func mostFrequent(counts map[string]int) string {
	best := ""
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		if best == "" || counts[value] > counts[best] {
			best = value
		}
	}
	return best
}
