// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"maps"
	"slices"
)

// DefaultMaxSuspected is how much of the clusters automation may take out on suspicion, in percent.
const DefaultMaxSuspected = 50

// Guard bounds what is taken out on suspicion: probes look over a network that may itself be at fault, and when everything
// looks ill, the one who looks is to be suspected first. What is known to be empty is not its matter.
type Guard struct {
	// MaxSuspected is the share of clusters that may be out on suspicion, in percent, 1 to 100.
	MaxSuspected int
}

// Doubt counts, of clusters or of services, those whose newest look failed without another cluster's word against it.
type Doubt struct {
	Probed, Doubted int
}

// Plus is the sum, or with sign -1 the difference.
func (d Doubt) Plus(other Doubt, sign int) Doubt {
	return Doubt{d.Probed + sign*other.Probed, d.Doubted + sign*other.Doubted}
}

// most tells whether more than half is doubted: a cluster most of whose services fail is itself in doubt, while one
// with a broken service among many is not.
func (d Doubt) most() bool { return 2*d.Doubted > d.Probed }

// allowed is how many of n may be out: the share of them, rounded down, but one where there are two, and never the last.
//
//	clusters   | 1 | 2 | 3 | 4 | 5 | 10
//	at 50 %    | 0 | 1 | 1 | 2 | 2 | 5
//	at 100 %   | 0 | 1 | 2 | 3 | 4 | 9
func (g Guard) allowed(n int) int { return min(max(1, n*g.MaxSuspected/100), n-1) }

// HoldsService says why no cluster may be taken out of a service on suspicion, given how many of the clusters that serve it
// are in doubt; empty where it may.
func (g Guard) HoldsService(clusters Doubt) string {
	switch {
	case clusters.Doubted <= g.allowed(clusters.Probed):
		return ""
	case clusters.Probed == 1:
		return "it is the only cluster that is probed, and the last one is never taken out on suspicion"
	}
	return tooMany
}

// tooMany is said of a service as of the fleet: it changes RoutePlans, and they often hold by turns.
const tooMany = "too many clusters are suspected together, so the hub itself, its network, or what they share is at fault rather than they"

// HoldsFleet says why no cluster may be taken out of anything on suspicion, given the doubts on the services of each
// cluster; empty where it may.
func (g Guard) HoldsFleet(services map[string]Doubt) string {
	clusters := Doubt{}
	for _, cluster := range slices.Sorted(maps.Keys(services)) {
		doubt := services[cluster]
		clusters.Probed++
		if doubt.most() {
			clusters.Doubted++
		}
	}
	if clusters.Probed < 2 || clusters.Doubted <= g.allowed(clusters.Probed) {
		// Of a single cluster each service says the same by itself.
		return ""
	}
	return tooMany
}
