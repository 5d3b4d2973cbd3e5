// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

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
	// State is what is remembered of it.
	State HealthState
	// Fresh is whether the finding is of now, and Endpoints what it counted; Word is when a person last let it return.
	Fresh     bool
	Endpoints Endpoints
	Word      time.Time

	// blocked is whether it serves in spite of the drain, because nobody else does.
	blocked bool
	// alone is whether it takes all that it could, because nobody else may take any.
	alone bool
	// could is how much of its part it could take by what is seen of it, in percent; carries is that by its endpoints alone.
	could, carries int
}

// Serving tells whether the candidate takes traffic.
func (c Candidate) Serving() bool { return !c.Resolving && c.fit() }

// fit tells whether the candidate would take traffic if it were resolved.
func (c Candidate) fit() bool { return c.Pinned != "" || c.Finding.Serving(c.Before) }

// percent of its part that the candidate may take. What was never judged is taken to serve.
func (c Candidate) percent() int {
	if c.Pinned != "" || c.alone || c.State == (HealthState{}) {
		return 100
	}
	return c.State.Percent
}

// ramp is how much of what it could take it may take, in percent. Of who is unknown the endpoints say what it could: else a
// cluster that lost a part of them would seem to be returning.
func (c Candidate) ramp() int {
	if c.carries == 0 || c.percent() == 100 {
		return c.percent()
	}
	return min(100, c.percent()*100/c.carries)
}

// sight is what is seen of the candidate.
func (c Candidate) sight() Sight {
	ready := 100
	if c.Endpoints.Seen {
		ready = max(10, c.Endpoints.ReadyPercent)
	}
	return Sight{Finding: c.Finding, Fresh: c.Fresh, ReadyPercent: ready, Drained: c.drained(), Word: c.Word}
}

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
	// Displaced is whether its share, or a part of it, is served elsewhere because of its health or a drain.
	Displaced bool
	// State to be remembered of it, and when it changes by itself; the zero time where it does not.
	State HealthState
	Wake  time.Time
}

// Distribute spreads a backend over the candidates at a time. The first tier that has a serving cluster takes all of it,
// in proportion to its parts and as far as it may; who is not serving takes none. When nobody serves, the last good
// split is held: an emptied cluster answers an error, an all-zero rule would answer one for everybody and for longer.
//
//	serving     | fit, but not resolved | a last split | what holds
//	some        | any                   | any          | spread over those that serve
//	none        | any                   | yes          | the last split
//	none        | some                  | none         | spread over the fit ones: there is nothing to wait beside
//	none        | none                  | none         | the intended split
//
// Drained candidates are left out of all this while another one serves. A forced drain leaves them out even then, and
// gives nobody anything where there is no other at all.
func Distribute(e Effective, entered Member, candidates []Candidate, now time.Time) []Share {
	s := splitter{Effective: e, Recovery: RecoveryOf(e.Health, e.Failback), entered: entered, now: now}
	candidates = s.observe(s.blockDrains(candidates))
	left := slices.DeleteFunc(slices.Clone(candidates), Candidate.drained)
	if len(left) == len(candidates) {
		return s.distribute(candidates)
	}
	intended := firstWith(tiersOf(e.Distribution, entered, candidates), candidates, anybody)
	others := s.distribute(left)
	shares := make([]Share, 0, len(candidates))
	for _, c := range candidates {
		if !c.drained() {
			shares, others = append(shares, others[0]), others[1:]
			continue
		}
		share := Share{Cluster: c.Cluster, Finding: c.Finding, State: c.State, Reason: v1alpha1.WeightDrained,
			Message: "drained by TrafficOverride " + c.Drained, Displaced: intended.parts[c.Cluster] > 0}
		if c.Resolving {
			share.Reason, share.Message = v1alpha1.WeightResolving, "new here, and drained by TrafficOverride "+c.Drained
		}
		shares = append(shares, share)
	}
	return shares
}

// splitter is what a backend is spread by.
type splitter struct {
	Effective
	Recovery
	entered Member
	now     time.Time
}

// observe takes in what is seen of each candidate.
func (s splitter) observe(candidates []Candidate) []Candidate {
	candidates = slices.Clone(candidates)
	for i := range candidates {
		c := &candidates[i]
		c.could, c.carries, c.State = s.Recovery.could(c.sight()), s.carries(c.sight()), s.Observe(c.State, c.sight(), s.now)
	}
	return candidates
}

// release lets all that are fit serve at once where nobody who serves may take anything: they wait for nothing.
func (s splitter) release(candidates []Candidate) []Candidate {
	if slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Serving() && c.percent() > 0 }) {
		return candidates
	}
	candidates = slices.Clone(candidates)
	for i := range candidates {
		c := &candidates[i]
		if c.alone = c.Serving(); c.alone && c.could > 0 {
			c.State = c.State.released(c.could, s.now)
		}
	}
	return candidates
}

// blockDrains lets drained candidates go on serving where nobody else may take anything, unless that is forced: one that has
// only just come back has its hold to wait for, and its own mesh may not know its endpoints yet. Where nobody serves
// yet, drained or not, and nothing is held, there is nothing to go on with: the fit ones that are not drained begin.
func (s splitter) blockDrains(candidates []Candidate) []Candidate {
	begins := !slices.ContainsFunc(candidates, Candidate.Serving) && lastSplit(candidates) == nil
	if slices.ContainsFunc(candidates, func(c Candidate) bool {
		return c.Drained == "" && (c.Serving() && s.mayTake(c) || begins && c.fit())
	}) {
		return candidates
	}
	candidates = slices.Clone(candidates)
	for i, c := range candidates {
		candidates[i].blocked = c.Drained != "" && !c.Forced
	}
	return candidates
}

// mayTake tells whether a candidate that is not drained may take anything. One that only waits for a person may: a drain is
// a person's word.
func (s splitter) mayTake(c Candidate) bool {
	c.State = s.Observe(c.State, c.sight(), s.now)
	return c.percent() > 0 || s.manual
}

// distribute spreads a backend over candidates none of which is drained.
func (s splitter) distribute(candidates []Candidate) []Share {
	if len(candidates) == 0 {
		return nil
	}
	tiers := tiersOf(s.Distribution, s.entered, candidates)
	last := lastSplit(candidates)
	serves := slices.ContainsFunc(candidates, Candidate.Serving)
	if !serves && last == nil && slices.ContainsFunc(candidates, Candidate.fit) {
		candidates, serves = resolvedAll(candidates), true
	}
	o := outcome{tiers: tiers, intended: firstWith(tiers, candidates, anybody)}
	if serves {
		candidates = s.release(candidates)
		o.spreading = spread(tiers, candidates)
		o.idle = o.idleOf(candidates)
	} else {
		o.held = cmp.Or(last, o.intended)
	}
	awaited := s.awaited(tiers, candidates)
	shares := make([]Share, 0, len(candidates))
	for i, c := range candidates {
		share := Share{Cluster: c.Cluster, Finding: c.Finding, State: c.State, Wake: s.wake(c.State, c.sight()), Awaited: awaited[i]}
		if share.Parts = o.partsOf(i, c); o.held != nil && share.Parts > 0 {
			share.Reason, share.Message = v1alpha1.WeightHeld, "no cluster is fit, so the split stays as it is: "+c.Finding.Message
		} else {
			share.Reason, share.Message = s.why(i, c, o)
		}
		share.Displaced = o.intended.parts[c.Cluster] > 0 && (!c.fit() && share.Parts == 0 || slices.Contains(weightByHealth, share.Reason))
		shares = append(shares, share)
	}
	return shares
}

// weightByHealth are the reasons of who is fit, and takes less than its part.
var weightByHealth = []string{v1alpha1.WeightDegraded, v1alpha1.WeightHolding, v1alpha1.WeightAwaiting, v1alpha1.WeightReturning}

func resolvedAll(candidates []Candidate) []Candidate {
	candidates = slices.Clone(candidates)
	for i := range candidates {
		candidates[i].Resolving = false
	}
	return candidates
}

// awaited are the candidates that would take a share if the member had resolved all of them.
func (s splitter) awaited(tiers []tier, candidates []Candidate) []bool {
	out := make([]bool, len(candidates))
	if !slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Resolving && c.fit() }) {
		return out
	}
	then := spread(tiers, s.release(resolvedAll(candidates)))
	for i, c := range candidates {
		out[i] = c.Resolving && then.parts[i] > 0
	}
	return out
}

// outcome is how a backend is spread, or what is held because nobody serves.
type outcome struct {
	tiers    []tier
	intended *tier
	held     *tier
	// idle says who could take what is too much for the others.
	idle string
	spreading
}

// idleOf ends the sentence that no other cluster can: those that only serve as a last resort could, were they named.
func (o outcome) idleOf(candidates []Candidate) string {
	var names []string
	for i, c := range candidates {
		if t := o.tier[i]; c.Serving() && o.parts[i] == 0 && t >= 0 && o.tiers[t].resort {
			names = append(names, c.Cluster)
		}
	}
	if len(names) == 0 {
		return "can"
	}
	return "that its policy names can; " + strings.Join(names, ", ") + " could, and no weight names it: give it weight there, or a tier of its own"
}

func (o outcome) partsOf(i int, c Candidate) uint32 {
	if o.held != nil {
		return o.held.parts[c.Cluster]
	}
	return uint32(o.parts[i])
}

// why is the reason of a candidate's share where it is not held, and its words.
func (s splitter) why(i int, c Candidate, o outcome) (reason, message string) {
	if a := absenceOf(c); a.reason != "" {
		return a.reason, a.message
	}
	switch {
	case o.parts[i] > 0 && c.blocked:
		return v1alpha1.WeightDrainBlocked, fmt.Sprintf("serves in spite of TrafficOverride %s, because no other cluster can", c.Drained)
	case o.over[i]:
		return v1alpha1.WeightOver, fmt.Sprintf("carries more than its capacity of %d %% of the requests, because no other cluster %s",
			o.tiers[o.tier[i]].capacity[c.Cluster], o.idle)
	case o.less[i] || c.percent() == 0 && o.tier[i] >= 0 && o.tier[i] <= o.reached:
		return s.explain(c.State, c.Cluster, c.sight().ReadyPercent)
	case o.parts[i] > 0:
		t := o.tiers[o.tier[i]]
		message = t.message + o.headroom(i, t.capacity[c.Cluster])
		if !c.Finding.Serving(c.Before) {
			message += ", although " + c.Finding.Message
		}
		return t.reason, message
	case s.Distribution.Type != v1alpha1.DistributionLocal && !slices.Contains(clustersOf(s.Distribution), c.Cluster):
		return v1alpha1.WeightNotListed, "no weight names it; it serves as a last resort"
	}
	return v1alpha1.WeightStandby, "fit; takes over when those before it are not"
}

// headroom says how much more a candidate can carry, where its capacity is said.
func (o outcome) headroom(i int, capacity uint64) string {
	if capacity == 0 {
		return ""
	}
	sum := uint64(0)
	for _, parts := range o.parts {
		sum += parts
	}
	if left := (capacity*sum - min(capacity*sum, o.parts[i]*100)) / sum; left > 0 {
		return fmt.Sprintf("; it can carry %d %% of the requests more", left)
	}
	return "; it is filled to its capacity"
}

func anybody(Candidate) bool { return true }

// namedTiers are the tiers that a policy names; none for type Local.
func namedTiers(d v1alpha1.Distribution, candidates []Candidate) []tier {
	var tiers []tier
	switch d.Type {
	case v1alpha1.DistributionWeighted:
		tiers = append(tiers, policyTier(d.Weights, candidates, "the policy's weight, re-normalised over the fit clusters"))
	case v1alpha1.DistributionPriority:
		for i, t := range d.Tiers {
			tiers = append(tiers, policyTier(t.Clusters, candidates,
				fmt.Sprintf("tier %d of the policy: its weight, re-normalised over the tier's fit clusters", i+1)))
		}
	case v1alpha1.DistributionLocal:
	}
	return tiers
}

func policyTier(weights []v1alpha1.ClusterWeight, candidates []Candidate, message string) tier {
	t := tier{reason: v1alpha1.WeightByPolicy, message: message, parts: map[string]uint32{}}
	if pin := pinOf(candidates); pin != "" {
		t.reason, t.message = v1alpha1.WeightPinned, "pinned by TrafficOverride "+pin
	}
	for _, w := range weights {
		known := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Cluster == w.Cluster })
		if !known || w.Weight <= 0 {
			continue
		}
		t.parts[w.Cluster] = uint32(min(w.Weight, maxWeight))
		if w.Capacity != nil {
			if t.capacity == nil {
				t.capacity = map[string]uint64{}
			}
			t.capacity[w.Cluster] = uint64(min(max(1, *w.Capacity), 100))
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
