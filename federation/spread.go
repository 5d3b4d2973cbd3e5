// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// allRequests of a backend, in the units in which parts are counted where some clusters take less than their part.
// Products with a weight of a million and a percentage stay below 2^64.
const allRequests = 100_000_000

// tier is a set of candidates that are served before the next tier is.
type tier struct {
	reason  string
	message string
	parts   map[string]uint32
	// capacity in percent of all requests, for those of which it is said.
	capacity map[string]uint64
	// resort is whether the tier serves only what no tier before can, however much these are impaired.
	resort bool
}

// taker is a candidate that takes requests in a tier.
type taker struct {
	index    int
	parts    uint64
	percent  uint64 // of its part that it may take
	ramp     uint64 // of what it could take that it may take
	capacity uint64 // percent of all requests
	took     uint64
}

// spreading is how the requests of a backend are spread.
type spreading struct {
	// parts by candidate.
	parts []uint64
	// tier of each candidate: the first that has parts for it, or -1.
	tier []int
	// reached is the last tier that was offered requests.
	reached int
	// less is whether the candidate takes less than its part, because of its health.
	less []bool
	// over is whether the candidate takes more than its capacity.
	over []bool
}

// spread pours the requests of a backend into the tiers, one after another. In a tier they are shared in proportion to the
// parts, up to what each candidate may take; what one cannot take goes to the others of the tier, then to the next tier.
//
//	may take                                 | counted against
//	its percentage of its part               | the best of all, who may take all: of those that are equally ill none is relieved
//	its capacity, a percentage of all        | all requests
//
// Where all are full, what is left is shared in proportion to what each takes. A last resort serves while none of the
// tiers before it does, and while those are returning from it step by step.
func spread(tiers []tier, candidates []Candidate) spreading {
	s := spreading{parts: make([]uint64, len(candidates)), tier: make([]int, len(candidates)),
		less: make([]bool, len(candidates)), over: make([]bool, len(candidates))}
	levels, named := s.assign(tiers, candidates), 0
	for named < len(tiers) && !tiers[named].resort {
		named++
	}
	best, bestOfAll := mostOf(levels, named, taker.ofRamp), mostOf(levels, len(levels), taker.ofRamp)
	switch best {
	case 0:
		s.pour(levels, named, len(levels), allRequests)
	case bestOfAll:
		s.pour(levels, 0, named, allRequests)
	default:
		first := allRequests * best / bestOfAll
		s.pour(levels, 0, named, first)
		s.pour(levels, named, len(levels), allRequests-first)
	}
	return s
}

// assign gives each candidate its tier, and lists who takes requests in each.
func (s *spreading) assign(tiers []tier, candidates []Candidate) [][]taker {
	levels := make([][]taker, len(tiers))
	for i, c := range candidates {
		s.tier[i] = slices.IndexFunc(tiers, func(t tier) bool { return t.parts[c.Cluster] > 0 })
		if t := s.tier[i]; t >= 0 && c.Serving() && c.percent() > 0 {
			levels[t] = append(levels[t], taker{index: i, parts: uint64(tiers[t].parts[c.Cluster]), percent: uint64(c.percent()),
				ramp: uint64(c.ramp()), capacity: cmp.Or(tiers[t].capacity[c.Cluster], 100)})
		}
	}
	return levels
}

func (t taker) ofPart() uint64 { return t.percent }
func (t taker) ofRamp() uint64 { return t.ramp }

// mostOf is the highest value of anybody in the tiers before one.
func mostOf(levels [][]taker, before int, value func(taker) uint64) uint64 {
	best := uint64(0)
	for _, level := range levels[:before] {
		for _, t := range level {
			best = max(best, value(t))
		}
	}
	return best
}

func sumOf(level []taker) uint64 {
	sum := uint64(0)
	for _, t := range level {
		sum += t.parts
	}
	return sum
}

// pour shares an amount of the requests over the tiers from one to before another, as spread says.
func (s *spreading) pour(levels [][]taker, from, to int, all uint64) {
	best, left := mostOf(levels[from:], to-from, taker.ofPart), all
	for i := from; i < to && left > 0; i++ {
		s.reached = i
		limits, limited := s.limits(levels[i], best, all)
		if all == allRequests && left == all && len(levels[i]) > 0 && !limited {
			// The parts are those of the tier, to the last unit.
			for _, t := range levels[i] {
				s.parts[t.index] = t.parts
			}
			return
		}
		left -= fill(levels[i], limits, left)
	}
	for _, level := range levels[from:to] {
		for _, t := range level {
			if left > 0 {
				t.took = t.took * all / (all - left)
			}
			s.parts[t.index] = t.took
			s.over[t.index] = t.took > allRequests*t.capacity/100
		}
	}
}

// limits are what each of a tier may take, and whether that is less than its part for any.
func (s *spreading) limits(level []taker, best, all uint64) (limits []uint64, limited bool) {
	sum := sumOf(level)
	for _, t := range level {
		limit := allRequests * t.capacity / 100
		if limit < allRequests {
			limited = limited || allRequests*t.parts > limit*sum
		}
		if t.percent < best {
			limit, limited = min(limit, all*t.parts*t.percent/(sum*best)), true
			s.less[t.index] = true
		}
		limits = append(limits, limit)
	}
	return limits, limited
}

// fill shares an amount in proportion to the parts, nobody beyond its limit, and says how much could be shared.
func fill(level []taker, limits []uint64, amount uint64) uint64 {
	left, open := amount, make([]int, 0, len(level))
	for i := range level {
		open = append(open, i)
	}
	for len(open) > 0 {
		sum, still := uint64(0), open[:0:0]
		for _, i := range open {
			sum += level[i].parts
		}
		rest := left
		for _, i := range open {
			if left*level[i].parts > limits[i]*sum {
				level[i].took = limits[i]
				rest -= limits[i]
			} else {
				still = append(still, i)
			}
		}
		if len(still) == len(open) {
			for _, i := range open {
				level[i].took = left * level[i].parts / sum
				rest -= level[i].took
			}
			level[open[0]].took += rest // what rounding left over
			return amount
		}
		left, open = rest, still
	}
	return amount - left
}

// tiersOf are the tiers of a distribution, seen from the member that a request entered. Behind those that a policy names
// come the others, the nearest first.
func tiersOf(d v1alpha1.Distribution, entered Member, candidates []Candidate) []tier {
	named := namedTiers(d, candidates)
	resort := len(named) > 0
	near := []tier{
		proximityTier(candidates, v1alpha1.WeightSameZone, "the nearest fit cluster: same zone",
			func(c Candidate) bool { return c.distance(entered) == 0 }),
		proximityTier(candidates, v1alpha1.WeightSameRegion, "the nearest fit cluster: same region",
			func(c Candidate) bool { return c.distance(entered) <= 1 }),
		proximityTier(candidates, v1alpha1.WeightAnywhere, "no nearer cluster is fit",
			func(Candidate) bool { return true }),
	}
	if !resort {
		named = append(named, proximityTier(candidates, v1alpha1.WeightLocal, "the request entered here",
			func(c Candidate) bool { return c.Cluster == entered.Name }))
	}
	for _, t := range near {
		t.resort = resort
		named = append(named, t)
	}
	return named
}
