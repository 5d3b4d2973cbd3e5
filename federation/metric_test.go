// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestAQueryNamesWhatItIsAskedAbout(t *testing.T) {
	m := &v1alpha1.Metric{Query: `sum(rate(errors{namespace="{{ namespace }}",service="{{service}}",cluster="{{   cluster }}"}[1m]))`}
	require.Equal(t, `sum(rate(errors{namespace="shop",service="cart",cluster="eks"}[1m]))`,
		MetricQuery(m, ServiceKey{Namespace: "shop", Name: "cart"}, "eks"))
}

func TestAValueIsReadByItsBounds(t *testing.T) {
	above, below := v1alpha1.Decimal("0.05"), v1alpha1.Decimal("-2")
	m := &v1alpha1.Metric{IllAbove: &above, IllBelow: &below}
	for value, want := range map[float64]Look{
		0.05: {LookOK, "0.05"}, -2: {LookOK, "-2"}, 0: {LookOK, "0"},
		0.051: {LookFailed, "0.051, above 0.05"}, 0.314159: {LookFailed, "0.3142, above 0.05"}, -2.5: {LookFailed, "-2.5, below -2"},
		math.Inf(1): {LookEmpty, "+Inf"}, math.Inf(-1): {LookEmpty, "-Inf"},
	} {
		require.Equal(t, want, ReadMetric(m, value))
	}
	require.Equal(t, LookEmpty, ReadMetric(m, math.NaN()).Result)
	require.Equal(t, LookOK, ReadMetric(&v1alpha1.Metric{IllBelow: &below}, 1e9).Result)
}

// metrics reads "+" as a well value, "-" as an ill one, "o" as none and " " as no answer.
func metrics(s MetricState, text string) MetricState {
	for _, c := range text {
		s = s.Step(map[rune]Look{'+': {LookOK, "0"}, '-': {LookFailed, "1"}, 'o': {Result: LookEmpty}, ' ': {Result: LookVoid}}[c], 2, 3)
	}
	return s
}

func TestMetricIsForgottenOnceThereAreNoValues(t *testing.T) {
	for text, want := range map[string]struct {
		sight   Seen
		void    bool
		doubted bool
	}{
		"":           {SeenNothing, false, false},
		"++":         {SeenWell, false, false},
		"++--":       {SeenWell, false, true},
		"++---":      {SeenIll, false, true},
		"++--oo-":    {SeenIll, false, true},
		"++--ooo-":   {SeenNothing, false, true},
		"++---oo":    {SeenIll, false, true},
		"++---oo oo": {SeenNothing, true, false},
		"---ooo":     {SeenNothing, true, false},
		"ooo-":       {SeenNothing, false, true},
		"---       ": {SeenIll, false, true},
		"---o     o": {SeenIll, false, true},
		"---++":      {SeenWell, false, false},
	} {
		s := metrics(MetricState{}, text)
		require.Equal(t, want.sight, s.Sight, text)
		require.Equal(t, want.void, s.Void, text)
		require.Equal(t, want.doubted, s.Doubted(), text)
	}
}

func TestAnIllMetricIsASuspicion(t *testing.T) {
	ill := MetricState{Streak: Streak{Sight: SeenIll, Said: "0.31, above 0.05"}}
	well := MetricState{Streak: Streak{Sight: SeenWell, Said: "0"}}
	seen := func(sight Seen) Streak { return Streak{Sight: sight, Said: "said"} }
	signals := func(m MetricState, change func(*Signals)) Signals {
		s := Signals{Seen: true, Reachable: true, ReadyEndpoints: 1, Before: Fit,
			Metric: &MetricSignal{MetricState: m, Name: "error rate", Source: "prometheus.eks", Fall: 3, Proven: true}}
		if change != nil {
			change(&s)
		}
		return s
	}
	tests := map[string]struct {
		signals Signals
		verdict Verdict
		reason  string
	}{
		"ill":                      {signals(ill, nil), Suspected, "MetricIll"},
		"well":                     {signals(well, nil), Fit, "ReadyEndpoints"},
		"ill, and probes are well": {signals(ill, func(s *Signals) { s.Probe = &ProbeSignal{ProbeState: ProbeState{Hub: seen(SeenWell)}, Proven: true} }), Suspected, "MetricIll"},
		"ill, and the hub's link bad": {signals(ill, func(s *Signals) {
			s.Probe = &ProbeSignal{ProbeState: ProbeState{Hub: seen(SeenIll), Peer: seen(SeenWell)}, Proven: true}
		}), Suspected, "MetricIll"},
		"well, and probes are ill": {signals(well, func(s *Signals) {
			s.Probe = &ProbeSignal{ProbeState: ProbeState{Hub: seen(SeenIll), Peer: seen(SeenIll)}, Proven: true}
		}), Suspected, "ProbesFail"},
		"ill everywhere":               {signals(ill, func(s *Signals) { s.Metric.Proven = false }), Fit, "ReadyEndpoints"},
		"ill, and the guard holds":     {signals(ill, func(s *Signals) { s.Metric.Held = "too many" }), Unknown, "GuardHolds"},
		"ill, and no endpoint":         {signals(ill, func(s *Signals) { s.ReadyEndpoints = 0 }), Unfit, "NoReadyEndpoints"},
		"ill, and the API server lost": {signals(ill, func(s *Signals) { s.Reachable = false }), Suspected, "MetricIll"},
		"after a restart":              {signals(MetricState{}, func(s *Signals) { s.Before = Suspected }), Unknown, "MetricAwaited"},
		"after a restart, no value":    {signals(MetricState{Void: true}, func(s *Signals) { s.Before = Suspected }), Fit, "ReadyEndpoints"},
		"not asked yet":                {signals(MetricState{}, nil), Fit, "ReadyEndpoints"},
		"after a restart, probes are well and the metric is not known": {signals(MetricState{}, func(s *Signals) {
			s.Before, s.Probe = Suspected, &ProbeSignal{ProbeState: ProbeState{Hub: seen(SeenWell)}, Proven: true}
		}), Unknown, "MetricAwaited"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := Judge(test.signals)
			require.Equal(t, test.verdict, f.Verdict, f.Message)
			require.Equal(t, test.reason, f.Reason)
		})
	}
	require.Equal(t, "its metric is ill: error rate 0.31, above 0.05, 3 times in a row, of Prometheus prometheus.eks", Judge(tests["ill"].signals).Message)
}

// Invariant 5 holds of metrics as of probes, and of both together: no more than the allowed share of a service's clusters is taken
// out on suspicion, and never the last.
func TestMetricsTakeOutNoMoreThanTheShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clusters := rapid.IntRange(1, 6).Draw(t, "clusters")
		g := Guard{MaxSuspected: rapid.IntRange(1, 100).Draw(t, "percent")}
		states, probes, before := make([]MetricState, clusters), make([]ProbeState, clusters), make([]Verdict, clusters)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			doubt, proven := Doubt{}, rapid.Bool().Draw(t, "proven")
			for i := range states {
				states[i] = metrics(states[i], rapid.SampledFrom([]string{"+", "-", "o", " "}).Draw(t, "value"))
				look := Look{Result: rapid.SampledFrom([]LookResult{LookOK, LookFailed, LookSilent, LookVoid}).Draw(t, "look")}
				probes[i] = probes[i].StepPeer(look, 2, 3).StepHub(look, 2, 3)
				one := Doubt{Probed: 1}
				if states[i].Doubted() || probes[i].Doubted() {
					one.Doubted = 1
				}
				doubt = doubt.Plus(one, 1)
			}
			out, held := 0, g.HoldsService(doubt)
			for i := range states {
				f := Judge(Signals{Seen: true, Reachable: true, ReadyEndpoints: 1, Before: before[i],
					Probe:  &ProbeSignal{ProbeState: probes[i], Proven: proven, Held: held},
					Metric: &MetricSignal{MetricState: states[i], Proven: proven, Held: held}})
				if f.Verdict == Suspected && before[i] != Suspected && states[i].Doubted() {
					out++
				}
				if f.Verdict != Unknown {
					before[i] = f.Verdict
				}
			}
			require.LessOrEqual(t, out, g.allowed(clusters))
			require.Less(t, out, clusters)
		}
	})
}

func TestThePolicySaysWhetherItsQueriesAreAnswered(t *testing.T) {
	use := func(cluster, problem string) MetricUse {
		return MetricUse{Key: ServiceKey{Namespace: "shop", Name: "cart"}, Cluster: cluster, Problem: problem}
	}
	none, empty := use("gke", "no Prometheus is known"), use("eks", "")
	none.NoPrometheus, empty.Empty = true, true
	tests := map[string]struct {
		uses    []MetricUse
		status  metav1.ConditionStatus
		reason  string
		message string
	}{
		"not asked":   {nil, metav1.ConditionUnknown, v1alpha1.ReasonMetricAwaited, "nothing has been asked yet"},
		"answered":    {[]MetricUse{use("eks", ""), use("gke", "")}, metav1.ConditionTrue, v1alpha1.ReasonMetricAnswered, "the queries are answered"},
		"no value":    {[]MetricUse{empty, use("gke", "")}, metav1.ConditionTrue, v1alpha1.ReasonMetricAnswered, "with no value for shop/cart in eks"},
		"nobody":      {[]MetricUse{use("eks", ""), none}, metav1.ConditionFalse, v1alpha1.ReasonNoPrometheus, "shop/cart in gke: no Prometheus is known"},
		"refused":     {[]MetricUse{use("eks", "parse error"), none}, metav1.ConditionFalse, v1alpha1.ReasonQueryFailed, "shop/cart in eks: parse error; shop/cart in gke: no Prometheus"},
		"many refuse": {[]MetricUse{use("a", "x"), use("b", "x"), use("c", "x"), use("d", "x"), use("e", "x"), use("f", "x"), use("g", "x"), use("h", "x"), use("i", "x")}, metav1.ConditionFalse, v1alpha1.ReasonQueryFailed, "; and others; until"},
	}
	policy := &v1alpha1.TrafficDistributionPolicy{Spec: v1alpha1.TrafficDistributionPolicySpec{
		Defaults: &v1alpha1.TrafficDistribution{Health: &v1alpha1.Health{Metric: &v1alpha1.Metric{}}}}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := metricAnswered(PolicySnapshot{Policy: policy, Metrics: test.uses})
			require.Equal(t, test.status, c.Status)
			require.Equal(t, test.reason, c.Reason)
			require.Contains(t, c.Message, test.message)
		})
	}
	require.Empty(t, metricAnswered(PolicySnapshot{Policy: &v1alpha1.TrafficDistributionPolicy{}}).Type)
}
