// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// TotalWeight is the sum of the weights of every generated rule that has a backend: a weight is a number of
// requests in ten thousand. It is constant, so that a weight means the same before and after a shift.
const TotalWeight = 10000

// maxWeight is what the schemas of routes and policies let through. What comes by another way is cut to it, so that no
// sum below overflows.
const maxWeight = 1_000_000

// Candidate is a cluster that could serve a backend, seen from the cluster that a request entered.
type Candidate struct {
	Cluster, Region, Zone string
	// Finding on the service in that cluster.
	Finding Finding
	// Before is the verdict that was last acted on.
	Before Verdict
	// LastWeight is its weight in the last good split, 0 where there was none.
	LastWeight int32
	// Resolving is whether the member that the request enters has yet to resolve it.
	Resolving bool
	// Drained names the TrafficOverride that drains it, empty where none does; Forced is whether it does so also where
	// no other cluster is fit.
	Drained string
	Forced  bool
	// Pinned names the TrafficOverride that gives it weight, whatever its health.
	Pinned string

	// blocked is whether it serves in spite of the drain, because nobody else does.
	blocked bool
}

// Serving tells whether the candidate takes traffic.
func (c Candidate) Serving() bool { return !c.Resolving && c.fit() }

// fit tells whether the candidate would take traffic if it were resolved.
func (c Candidate) fit() bool { return c.Pinned != "" || c.Finding.Serving(c.Before) }

// drained tells whether the candidate is left out.
func (c Candidate) drained() bool { return c.Drained != "" && !c.blocked }

func (c Candidate) distance(entered Member) int {
	return distance(entered, Member{Region: c.Region, Zone: c.Zone})
}

// Share is a candidate's part of a backend's requests: Parts of the sum of all Parts.
type Share struct {
	Cluster string
	Parts   uint32
	// Reason is one of v1alpha1.Weight…; Message says it in words.
	Reason, Message string
	Finding         Finding
	// Awaited is whether it takes a share as soon as the member has resolved it: until then it has to stay listed.
	Awaited bool
	// Displaced is whether it is unfit or drained and its share is served elsewhere.
	Displaced bool
}

// tier is a set of candidates that are served before the next tier is.
type tier struct {
	reason  string
	message string
	parts   map[string]uint32
}

// Distribute spreads a backend over the candidates. The first tier that has a serving cluster takes all of it,
// in proportion to its parts; who is not serving takes none. When nobody serves, the last good split is held:
// an emptied cluster answers an error, an all-zero rule would answer one for everybody and for longer.
//
//	serving     | fit, but not resolved | a last split | what holds
//	some        | any                   | any          | the first tier with one that serves
//	none        | any                   | yes          | the last split
//	none        | some                  | none         | the first tier with a fit one: there is nothing to wait beside
//	none        | none                  | none         | the intended split
//
// Drained candidates are left out of all this while another one serves. A forced drain leaves them out even then, and
// gives nobody anything where there is no other at all.
func Distribute(d v1alpha1.Distribution, entered Member, candidates []Candidate) []Share {
	candidates = blockDrains(candidates)
	left := slices.DeleteFunc(slices.Clone(candidates), Candidate.drained)
	if len(left) == len(candidates) {
		return distribute(d, entered, candidates)
	}
	intended := firstWith(tiersOf(d, entered, candidates), candidates, anybody)
	others := distribute(d, entered, left)
	shares := make([]Share, 0, len(candidates))
	for _, c := range candidates {
		if !c.drained() {
			shares, others = append(shares, others[0]), others[1:]
			continue
		}
		s := Share{Cluster: c.Cluster, Finding: c.Finding, Reason: v1alpha1.WeightDrained,
			Message: "drained by TrafficOverride " + c.Drained, Displaced: intended.parts[c.Cluster] > 0}
		if c.Resolving {
			s.Reason, s.Message = v1alpha1.WeightResolving, "new here, and drained by TrafficOverride "+c.Drained
		}
		shares = append(shares, s)
	}
	return shares
}

// blockDrains lets drained candidates go on serving where nobody else does, unless that is forced. Where nobody serves
// yet, drained or not, and nothing is held, there is nothing to go on with: the fit ones that are not drained begin.
func blockDrains(candidates []Candidate) []Candidate {
	begins := !slices.ContainsFunc(candidates, Candidate.Serving) && lastSplit(candidates) == nil
	if slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Drained == "" && (c.Serving() || begins && c.fit()) }) {
		return candidates
	}
	candidates = slices.Clone(candidates)
	for i, c := range candidates {
		candidates[i].blocked = c.Drained != "" && !c.Forced
	}
	return candidates
}

// distribute spreads a backend over candidates none of which is drained.
func distribute(d v1alpha1.Distribution, entered Member, candidates []Candidate) []Share {
	if len(candidates) == 0 {
		return nil
	}
	tiers := tiersOf(d, entered, candidates)
	intended := firstWith(tiers, candidates, anybody)
	resolved := firstWith(tiers, candidates, Candidate.fit)
	chosen := firstWith(tiers, candidates, Candidate.Serving)
	last := lastSplit(candidates)
	if chosen == nil && last == nil && resolved != nil {
		chosen, candidates = resolved, slices.Clone(candidates)
		for i := range candidates {
			candidates[i].Resolving = false
		}
	}
	held := chosen == nil
	if held {
		chosen = cmp.Or(last, intended)
	}
	shares := make([]Share, 0, len(candidates))
	for _, c := range candidates {
		s := shareOf(c, chosen, held, d)
		s.Awaited = c.Resolving && c.fit() && resolved.parts[c.Cluster] > 0
		s.Displaced = !c.fit() && s.Parts == 0 && intended.parts[c.Cluster] > 0
		shares = append(shares, s)
	}
	return shares
}

func anybody(Candidate) bool { return true }

func tiersOf(d v1alpha1.Distribution, entered Member, candidates []Candidate) []tier {
	var tiers []tier
	switch d.Type {
	case v1alpha1.DistributionWeighted:
		tiers = append(tiers, policyTier(d.Weights, candidates, "the policy's weight, re-normalised over the fit clusters"))
	case v1alpha1.DistributionPriority:
		for i, t := range d.Tiers {
			tiers = append(tiers, policyTier(t.Clusters, candidates,
				fmt.Sprintf("tier %d of the policy: its weight, re-normalised over the tier's fit clusters", i+1)))
		}
	default:
		tiers = append(tiers, proximityTier(candidates, v1alpha1.WeightLocal, "the request entered here",
			func(c Candidate) bool { return c.Cluster == entered.Name }))
	}
	return append(tiers,
		proximityTier(candidates, v1alpha1.WeightSameZone, "the nearest fit cluster: same zone",
			func(c Candidate) bool { return c.distance(entered) == 0 }),
		proximityTier(candidates, v1alpha1.WeightSameRegion, "the nearest fit cluster: same region",
			func(c Candidate) bool { return c.distance(entered) <= 1 }),
		proximityTier(candidates, v1alpha1.WeightAnywhere, "no nearer cluster is fit",
			func(Candidate) bool { return true }),
	)
}

func policyTier(weights []v1alpha1.ClusterWeight, candidates []Candidate, message string) tier {
	t := tier{reason: v1alpha1.WeightByPolicy, message: message, parts: map[string]uint32{}}
	if pin := pinOf(candidates); pin != "" {
		t.reason, t.message = v1alpha1.WeightPinned, "pinned by TrafficOverride "+pin
	}
	for _, w := range weights {
		known := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Cluster == w.Cluster })
		if known && w.Weight > 0 {
			t.parts[w.Cluster] = uint32(min(w.Weight, maxWeight))
		}
	}
	return t
}

func proximityTier(candidates []Candidate, reason, message string, in func(Candidate) bool) tier {
	t := tier{reason: reason, message: message, parts: map[string]uint32{}}
	for _, c := range candidates {
		if in(c) {
			t.parts[c.Cluster] = 1
		}
	}
	return t
}

// firstWith is the first tier that gives parts to a candidate that will do, or nil.
func firstWith(tiers []tier, candidates []Candidate, does func(Candidate) bool) *tier {
	for i := range tiers {
		if slices.ContainsFunc(candidates, func(c Candidate) bool { return tiers[i].parts[c.Cluster] > 0 && does(c) }) {
			return &tiers[i]
		}
	}
	return nil
}

// lastSplit is the last good split among the candidates, or nil where there was none.
func lastSplit(candidates []Candidate) *tier {
	last := &tier{parts: map[string]uint32{}}
	for _, c := range candidates {
		if c.LastWeight > 0 {
			last.parts[c.Cluster] = uint32(c.LastWeight)
		}
	}
	if len(last.parts) == 0 {
		return nil
	}
	return last
}

func shareOf(c Candidate, chosen *tier, held bool, d v1alpha1.Distribution) Share {
	s := Share{Cluster: c.Cluster, Finding: c.Finding}
	parts := chosen.parts[c.Cluster]
	switch {
	case held && parts > 0:
		s.Parts, s.Reason = parts, v1alpha1.WeightHeld
		s.Message = "no cluster is fit, so the split stays as it is: " + c.Finding.Message
	case c.Resolving:
		s.Reason, s.Message = v1alpha1.WeightResolving, "new here: weight follows once the member has resolved it"
	case !c.Serving():
		s.Reason, s.Message = weightOut(c.Finding.Verdict, c.Before), c.Finding.Message
	case parts > 0 && c.blocked:
		s.Parts, s.Reason = parts, v1alpha1.WeightDrainBlocked
		s.Message = fmt.Sprintf("serves in spite of TrafficOverride %s, because no other cluster can", c.Drained)
	case parts > 0:
		s.Parts, s.Reason, s.Message = parts, chosen.reason, chosen.message
		if !c.Finding.Serving(c.Before) {
			s.Message += ", although " + c.Finding.Message
		}
	case d.Type != v1alpha1.DistributionLocal && !slices.Contains(clustersOf(d), c.Cluster):
		s.Reason, s.Message = v1alpha1.WeightNotListed, "no weight names it; it serves as a last resort"
	default:
		s.Reason, s.Message = v1alpha1.WeightStandby, "fit; takes over when those before it are not"
	}
	return s
}

// weightOut is the reason of who takes nothing because of its health. What is unknown keeps the reason that it had: by it
// the verdict that was acted on is remembered.
func weightOut(verdict, before Verdict) string {
	if verdict == Suspected || verdict == Unknown && before == Suspected {
		return v1alpha1.WeightSuspected
	}
	return v1alpha1.WeightUnfit
}

// clustersOf are the clusters that a distribution names, with weight or without.
func clustersOf(d v1alpha1.Distribution) []string {
	var out []string
	for _, w := range d.Weights {
		out = append(out, w.Cluster)
	}
	for _, t := range d.Tiers {
		for _, w := range t.Clusters {
			out = append(out, w.Cluster)
		}
	}
	return out
}

// Fraction is a part of a whole that is itself a part: (Weight of WeightSum) times (Parts of PartsSum).
type Fraction struct {
	Weight, WeightSum uint64
	Parts, PartsSum   uint64
}

// Apportion turns fractions into whole weights by the method of the largest remainder: each weight is within
// one of its exact share, the weights of fractions that add up to one add up to total, and equal remainders go
// to the earlier fraction, so that the result is stable. Weights are bounded by a million and their sums by
// 128 million (16 backends, 128 clusters), so that nothing overflows 64 bits for a total of TotalWeight.
func Apportion(total uint64, fractions []Fraction) []int32 {
	type remainder struct {
		index    int
		rem, den uint64
	}
	weights := make([]int32, len(fractions))
	remainders := make([]remainder, 0, len(fractions))
	var given uint64
	for i, f := range fractions {
		den := f.WeightSum * f.PartsSum
		if den == 0 {
			continue
		}
		exact := total * f.Weight * f.Parts
		weights[i] = int32(exact / den)
		given += exact / den
		remainders = append(remainders, remainder{i, exact % den, den})
	}
	// rem/den are compared as cross products: the denominators differ from backend to backend.
	slices.SortStableFunc(remainders, func(a, b remainder) int {
		ahi, alo := bits.Mul64(a.rem, b.den)
		bhi, blo := bits.Mul64(b.rem, a.den)
		return cmp.Or(cmp.Compare(bhi, ahi), cmp.Compare(blo, alo), cmp.Compare(a.index, b.index))
	})
	for _, r := range remainders {
		if given >= total || r.rem == 0 {
			break
		}
		weights[r.index]++
		given++
	}
	return weights
}

// summary is a split in one line: "eks 80.00% gke 20.00%", in the given order, without those that take nothing.
func summary(clusters []string, weights []int32) string {
	var sum int64
	for _, w := range weights {
		sum += int64(w)
	}
	if sum == 0 {
		return "nobody"
	}
	byCluster, order := map[string]int64{}, []string{}
	for i, c := range clusters {
		if _, seen := byCluster[c]; !seen {
			order = append(order, c)
		}
		byCluster[c] += int64(weights[i])
	}
	var parts []string
	for _, c := range order {
		if byCluster[c] > 0 {
			hundredths := byCluster[c] * 10000 / sum
			parts = append(parts, fmt.Sprintf("%s %d.%02d%%", c, hundredths/100, hundredths%100))
		}
	}
	return strings.Join(parts, " ")
}
