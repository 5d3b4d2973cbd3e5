// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func weighted(weights ...any) v1alpha1.Distribution {
	d := v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted}
	for i := 0; i < len(weights); i += 2 {
		d.Weights = append(d.Weights, v1alpha1.ClusterWeight{Cluster: weights[i].(string), Weight: int32(weights[i+1].(int))})
	}
	return d
}

// tiers are separated by "": cluster, weight, …
func tiersOfWeights(weights ...any) v1alpha1.Distribution {
	d := v1alpha1.Distribution{Type: v1alpha1.DistributionPriority, Tiers: []v1alpha1.DistributionTier{{}}}
	for len(weights) > 0 {
		if weights[0] == "" {
			d.Tiers, weights = append(d.Tiers, v1alpha1.DistributionTier{}), weights[1:]
			continue
		}
		last := &d.Tiers[len(d.Tiers)-1]
		last.Clusters = append(last.Clusters, v1alpha1.ClusterWeight{Cluster: weights[0].(string), Weight: int32(weights[1].(int))})
		weights = weights[2:]
	}
	return d
}

func cand(cluster, region, zone string, verdict Verdict, last int32) Candidate {
	return Candidate{Cluster: cluster, Region: region, Zone: zone, Finding: Finding{Verdict: verdict, Message: "m"}, LastWeight: last}
}

func TestDistribute(t *testing.T) {
	local := v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}
	entered := Member{Name: "eks", Region: "eu", Zone: "a"}
	unresolved := func(c Candidate) Candidate {
		c.Resolving = true
		return c
	}
	resolving := unresolved(cand("gke", "us", "", Fit, 0))
	drained := func(c Candidate, forced bool) Candidate {
		c.Drained, c.Forced = "upgrade", forced
		return c
	}
	pinnedTo := func(c Candidate) Candidate {
		c.Pinned = "pin"
		return c
	}
	tests := map[string]struct {
		distribution v1alpha1.Distribution
		entered      Member
		candidates   []Candidate
		// want is each candidate as "cluster parts reason", with "!" where displaced and "?" where awaited.
		want string
	}{
		"weighted":                           {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "eks 80 Policy, gke 20 Policy"},
		"weight 0 is last":                   {weighted("eks", 1, "gke", 0), entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "eks 1 Policy, gke 0 Standby"},
		"not named":                          {weighted("eks", 1), entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "eks 1 Policy, gke 0 NotListed"},
		"one unfit":                          {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Unfit, 0), cand("gke", "", "", Fit, 0)}, "eks 0 Unfit!, gke 20 Policy"},
		"one unknown":                        {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Unknown, 0), cand("gke", "", "", Fit, 0)}, "eks 80 Policy, gke 20 Policy"},
		"last resort":                        {weighted("eks", 1), entered, []Candidate{cand("eks", "", "", Unfit, 0), cand("aks", "eu", "b", Fit, 0), cand("gke", "us", "", Fit, 0)}, "eks 0 Unfit!, aks 1 SameRegion, gke 0 NotListed"},
		"nobody is a member":                 {weighted("mars", 1), entered, []Candidate{cand("eks", "eu", "a", Fit, 0), cand("gke", "us", "", Fit, 0)}, "eks 1 SameZone, gke 0 NotListed"},
		"held":                               {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Unfit, 3000), cand("gke", "", "", Unfit, 7000)}, "eks 3000 Held, gke 7000 Held"},
		"held on one":                        {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Unfit, 0), cand("gke", "", "", Unfit, 10000)}, "eks 0 Unfit!, gke 10000 Held"},
		"never decided":                      {weighted("eks", 80, "gke", 20), entered, []Candidate{cand("eks", "", "", Unfit, 0), cand("gke", "", "", Unfit, 0)}, "eks 80 Held, gke 20 Held"},
		"local":                              {local, entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "eks 1 Local, gke 0 Standby"},
		"same zone":                          {local, entered, []Candidate{cand("aks", "eu", "a", Fit, 0), cand("gke", "eu", "b", Fit, 0)}, "aks 1 SameZone, gke 0 Standby"},
		"same region":                        {local, entered, []Candidate{cand("eks", "eu", "a", Unfit, 0), cand("aks", "eu", "b", Fit, 0), cand("gke", "us", "a", Fit, 0)}, "eks 0 Unfit!, aks 1 SameRegion, gke 0 Standby"},
		"a zone of another region is far":    {local, entered, []Candidate{cand("gke", "us", "a", Fit, 0), cand("aks", "eu", "b", Fit, 0)}, "gke 0 Standby, aks 1 SameRegion"},
		"anywhere, evenly":                   {local, entered, []Candidate{cand("aks", "us", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "aks 1 Anywhere, gke 1 Anywhere"},
		"unknown places are not near":        {local, Member{Name: "eks"}, []Candidate{cand("aks", "", "", Fit, 0), cand("gke", "us", "", Fit, 0)}, "aks 1 Anywhere, gke 1 Anywhere"},
		"an unfit standby displaces nothing": {local, entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "", "", Unfit, 0)}, "eks 1 Local, gke 0 Unfit"},
		"resolving waits":                    {weighted("eks", 1, "gke", 1), entered, []Candidate{cand("eks", "", "", Fit, 10000), resolving}, "eks 1 Policy, gke 0 Resolving?"},
		"resolving is not rushed":            {weighted("eks", 1, "gke", 1), entered, []Candidate{cand("eks", "", "", Unfit, 10000), resolving}, "eks 10000 Held, gke 0 Resolving?"},
		"a resolving standby":                {local, entered, []Candidate{cand("eks", "", "", Fit, 10000), resolving}, "eks 1 Local, gke 0 Resolving"},
		"the first tier, by weight":          {tiersOfWeights("eks", 3, "aks", 1, "", "gke", 1), entered, []Candidate{cand("aks", "", "", Fit, 0), cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, "aks 1 Policy, eks 3 Policy, gke 0 Standby"},
		"one of the first tier is unfit":     {tiersOfWeights("eks", 3, "aks", 1, "", "gke", 1), entered, []Candidate{cand("aks", "", "", Fit, 0), cand("eks", "", "", Unfit, 0), cand("gke", "", "", Fit, 0)}, "aks 1 Policy, eks 0 Unfit!, gke 0 Standby"},
		"the second tier":                    {tiersOfWeights("eks", 3, "aks", 1, "", "gke", 1), entered, []Candidate{cand("aks", "", "", Unfit, 0), cand("eks", "", "", Unfit, 0), cand("gke", "", "", Fit, 0)}, "aks 0 Unfit!, eks 0 Unfit!, gke 1 Policy"},
		"a weight of 0 in a tier":            {tiersOfWeights("eks", 3, "aks", 0, "", "gke", 1), entered, []Candidate{cand("aks", "", "", Fit, 0), cand("eks", "", "", Unfit, 0), cand("gke", "", "", Fit, 0)}, "aks 0 Standby, eks 0 Unfit!, gke 1 Policy"},
		"in no tier":                         {tiersOfWeights("eks", 1), entered, []Candidate{cand("aks", "eu", "", Unfit, 0), cand("eks", "", "", Unfit, 0), cand("gke", "us", "", Fit, 0)}, "aks 0 Unfit, eks 0 Unfit!, gke 1 Anywhere"},
		"in no tier, and not needed":         {tiersOfWeights("eks", 1), entered, []Candidate{cand("eks", "", "", Fit, 0), cand("gke", "us", "", Fit, 0)}, "eks 1 Policy, gke 0 NotListed"},
		"drained out of the first tier":      {tiersOfWeights("eks", 1, "", "gke", 1), entered, []Candidate{drained(cand("eks", "", "", Fit, 0), false), cand("gke", "", "", Fit, 0)}, "eks 0 Drained!, gke 1 Policy"},
		"drained":                            {weighted("eks", 80, "gke", 20), entered, []Candidate{drained(cand("eks", "", "", Fit, 8000), false), cand("gke", "", "", Fit, 2000)}, "eks 0 Drained!, gke 20 Policy"},
		"drained, entered there":             {local, entered, []Candidate{drained(cand("eks", "", "", Fit, 10000), false), cand("gke", "", "", Fit, 0)}, "eks 0 Drained!, gke 1 Anywhere"},
		"a drained standby moves nothing":    {local, entered, []Candidate{cand("eks", "", "", Fit, 0), drained(cand("gke", "", "", Fit, 0), false)}, "eks 1 Local, gke 0 Drained"},
		"the last fit one is not drained":    {weighted("eks", 80, "gke", 20), entered, []Candidate{drained(cand("eks", "", "", Fit, 0), false), cand("gke", "", "", Unfit, 0)}, "eks 80 DrainBlocked, gke 0 Unfit!"},
		"the only one is not drained":        {local, entered, []Candidate{drained(cand("eks", "", "", Fit, 0), false)}, "eks 1 DrainBlocked"},
		"both drained":                       {weighted("eks", 80, "gke", 20), entered, []Candidate{drained(cand("eks", "", "", Fit, 0), false), drained(cand("gke", "", "", Fit, 0), false)}, "eks 80 DrainBlocked, gke 20 DrainBlocked"},
		"both drained, one by force":         {weighted("eks", 80, "gke", 20), entered, []Candidate{drained(cand("eks", "", "", Fit, 0), true), drained(cand("gke", "", "", Fit, 0), false)}, "eks 0 Drained!, gke 20 DrainBlocked"},
		"drained by force, nobody is fit":    {weighted("eks", 80, "gke", 20), entered, []Candidate{drained(cand("eks", "", "", Fit, 9000), true), cand("gke", "", "", Unfit, 1000)}, "eks 0 Drained!, gke 1000 Held"},
		"the only one, drained by force":     {local, entered, []Candidate{drained(cand("eks", "", "", Fit, 10000), true)}, "eks 0 Drained!"},
		"a drain waits for who is resolved":  {local, entered, []Candidate{drained(cand("eks", "", "", Fit, 10000), false), resolving}, "eks 1 DrainBlocked, gke 0 Resolving"},
		"a drain of who is new as well":      {local, entered, []Candidate{drained(unresolved(cand("eks", "", "", Fit, 0)), false), resolving}, "eks 0 Resolving!, gke 1 Anywhere"},
		"a drain, and what is held":          {local, entered, []Candidate{drained(cand("eks", "", "", Unfit, 10000), false), resolving}, "eks 10000 Held, gke 0 Resolving?"},
		"drained before it was resolved":     {local, entered, []Candidate{cand("eks", "", "", Fit, 10000), drained(resolving, false)}, "eks 1 Local, gke 0 Resolving"},
		"pinned, fit or not":                 {weighted("eks", 1, "gke", 3), entered, []Candidate{pinnedTo(cand("eks", "", "", Fit, 0)), pinnedTo(cand("gke", "", "", Unfit, 0))}, "eks 1 Pinned, gke 3 Pinned"},
		"pinned and drained":                 {weighted("eks", 1, "gke", 3), entered, []Candidate{pinnedTo(cand("eks", "", "", Fit, 0)), drained(pinnedTo(cand("gke", "", "", Fit, 0)), false)}, "eks 1 Pinned, gke 0 Drained!"},
		"nobody at all":                      {local, entered, nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range Distribute(Effective{Distribution: test.distribution}, test.entered, test.candidates, time.Time{}) {
				mark := map[bool]string{true: "!"}[s.Displaced] + map[bool]string{true: "?"}[s.Awaited]
				got = append(got, fmt.Sprintf("%s %d %s%s", s.Cluster, s.Parts, s.Reason, mark))
				require.NotEmpty(t, s.Message)
			}
			require.Equal(t, test.want, strings.Join(got, ", "))
		})
	}
}

func TestApportion(t *testing.T) {
	whole := func(parts ...uint64) []Fraction {
		var sum uint64
		for _, p := range parts {
			sum += p
		}
		var out []Fraction
		for _, p := range parts {
			out = append(out, Fraction{Weight: 1, WeightSum: 1, Parts: p, PartsSum: sum})
		}
		return out
	}
	tests := map[string]struct {
		fractions []Fraction
		want      []int32
	}{
		"nothing":                      {nil, []int32{}},
		"one":                          {whole(7), []int32{10000}},
		"80 to 20":                     {whole(80, 20), []int32{8000, 2000}},
		"equal remainders: the first":  {whole(1, 1, 1), []int32{3334, 3333, 3333}},
		"the largest remainder":        {whole(1, 2), []int32{3333, 6667}},
		"zero stays zero":              {whole(1, 0, 2), []int32{3333, 0, 6667}},
		"no denominator":               {[]Fraction{{Weight: 1, WeightSum: 1}, {Weight: 1, WeightSum: 1, Parts: 1, PartsSum: 1}}, []int32{0, 10000}},
		"a million to one":             {whole(1_000_000, 1), []int32{10000, 0}},
		"two backends over two":        {[]Fraction{{90, 100, 2, 3}, {90, 100, 1, 3}, {10, 100, 1, 1}}, []int32{6000, 3000, 1000}},
		"different denominators":       {[]Fraction{{1, 2, 1, 3}, {1, 2, 2, 3}, {1, 2, 1, 7}, {1, 2, 6, 7}}, []int32{1667, 3333, 714, 4286}},
		"more than there is to be had": {whole(make128()...), append(repeat(79, 16), repeat(78, 112)...)},
		"as large as it gets":          {[]Fraction{{1_000_000, 2_000_000, 1_000_000, 128_000_000}, {1_000_000, 2_000_000, 127_000_000, 128_000_000}, {1_000_000, 2_000_000, 1, 1}}, []int32{39, 4961, 5000}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, Apportion(TotalWeight, test.fractions))
		})
	}
}

func make128() []uint64 {
	out := make([]uint64, 128)
	for i := range out {
		out[i] = 1_000_000
	}
	return out
}

func repeat(value int32, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = value
	}
	return out
}

func TestWeightsBeyondTheSchemaAreCut(t *testing.T) {
	shares := Distribute(Effective{Distribution: weighted("eks", math.MaxInt32, "gke", 1_000_000, "aks", -5)}, Member{},
		[]Candidate{cand("aks", "", "", Fit, 0), cand("eks", "", "", Fit, 0), cand("gke", "", "", Fit, 0)}, time.Time{})
	require.Equal(t, []uint32{0, maxWeight, maxWeight}, []uint32{shares[0].Parts, shares[1].Parts, shares[2].Parts})
}

func TestSummary(t *testing.T) {
	require.Equal(t, "nobody", summary([]string{"eks"}, []int32{0}))
	require.Equal(t, "nobody", summary(nil, nil))
	require.Equal(t, "eks 80.00% gke 20.00%", summary([]string{"eks", "gke"}, []int32{8000, 2000}))
	require.Equal(t, "gke 33.33% eks 66.67%", summary([]string{"gke", "eks", "aks"}, []int32{3333, 6667, 0}))
	require.Equal(t, "eks 90.01% gke 9.99%", summary([]string{"eks", "gke", "eks"}, []int32{9000, 999, 1}), "the shares of one cluster are added up")
}

// A cluster that has just come back is not given everything before its hold, which its own mesh needs as well, while one
// that is drained can go on. A person who says when clusters return has said it by the drain.
func TestADrainWaitsForTheHoldOfWhoTakesOver(t *testing.T) {
	begun := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	eks, gke := cand("eks", "", "", Fit, 10000), cand("gke", "", "", Fit, 0)
	eks.Drained = "upgrade"
	gke.Fresh, gke.State = true, HealthState{Phase: v1alpha1.HealthOut, Since: begun}
	e := Effective{Distribution: weighted("eks", 80, "gke", 20)}
	shares := Distribute(e, Member{Name: "eks"}, []Candidate{eks, gke}, begun)
	require.Equal(t, v1alpha1.WeightDrainBlocked, shares[0].Reason)
	require.Zero(t, shares[1].Parts)
	gke.State = shares[1].State
	require.Equal(t, v1alpha1.HealthHolding, gke.State.Phase)

	shares = Distribute(e, Member{Name: "eks"}, []Candidate{eks, gke}, shares[1].Wake)
	require.Equal(t, v1alpha1.WeightDrained, shares[0].Reason)
	require.NotZero(t, shares[1].Parts)

	e.Failback.Mode = v1alpha1.FailbackManual
	shares = Distribute(e, Member{Name: "eks"}, []Candidate{eks, gke}, begun)
	require.Equal(t, v1alpha1.WeightDrained, shares[0].Reason)
}

// Who has no weight is a last resort, and is not sent what is too much for the others; but that it could be is said.
func TestTooMuchForThoseThatAreNamedSaysWhoIsIdle(t *testing.T) {
	said := func(clusters ...string) string {
		var candidates []Candidate
		for _, name := range clusters {
			candidates = append(candidates, Candidate{Cluster: name, Finding: Finding{Verdict: Fit}, State: wholePart})
		}
		d := weighted("eks", 1)
		d.Weights[0].Capacity = new(int32(60))
		shares := Distribute(Effective{Distribution: d}, Member{Name: "eks"}, candidates, time.Time{})
		require.Equal(t, v1alpha1.WeightOver, shares[0].Reason)
		return shares[0].Message
	}
	require.Equal(t, "carries more than its capacity of 60 % of the requests, because no other cluster can", said("eks"))
	require.Contains(t, said("eks", "gke"), "gke could, and no weight names it")
}

// Who is out and held keeps its place among more clusters than a rule holds: else its hold would be forgotten.
func TestARuleForgetsNobodyWhoWaits(t *testing.T) {
	var slots []slot
	for i := range 20 {
		e := slot{spare: 2, planned: v1alpha1.PlannedBackend{Cluster: fmt.Sprint(i)}}
		if i == 19 {
			e.spare, e.planned.Health = 4, &v1alpha1.BackendHealth{Phase: v1alpha1.HealthHolding}
		}
		slots = append(slots, e)
	}
	kept := fitSlots(slots)
	require.Len(t, kept, maxBackendRefs)
	require.Equal(t, "19", kept[maxBackendRefs-1].planned.Cluster)
	require.Equal(t, "14", kept[maxBackendRefs-2].planned.Cluster)
}
