// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func successRate() v1alpha1.RolloutMetric {
	return v1alpha1.RolloutMetric{Name: "success-rate", Count: 3, Interval: &metav1.Duration{Duration: 10 * time.Second},
		SuccessCondition: "result[0] >= 0.95", Provider: v1alpha1.MetricProvider{Prometheus: &v1alpha1.PrometheusMetric{Query: "q"}}}
}

func analysisOf(metrics ...v1alpha1.RolloutMetric) *v1alpha1.RolloutAnalysis {
	return &v1alpha1.RolloutAnalysis{Metrics: metrics}
}

// analysed is a rollout that measures at 10 percent.
func analysed(t *testing.T, metrics ...v1alpha1.RolloutMetric) *rolloutWorld {
	t.Helper()
	return newRolloutWorld(t, canarySpec(append(steps(10)[:1], v1alpha1.CanaryStep{Analysis: analysisOf(metrics...)},
		v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}})...), "eks", "gke")
}

// measure answers all that is due, and lets the interval pass.
func (w *rolloutWorld) measure(answers ...Measured) *rolloutWorld {
	for _, answer := range answers {
		var measured []Measured
		for _, due := range w.plan.Due {
			answer.Name, answer.Cluster, answer.Step, answer.Time = due.Metric.Name, due.Cluster, due.Step, w.now
			measured = append(measured, answer)
		}
		w.advance(measured...)
		w.pass(10 * time.Second)
	}
	return w
}

func value(v float64) Measured { return Measured{Value: &v} }

func TestAnAnalysisThatSucceedsGoesOn(t *testing.T) {
	w := analysed(t, successRate()).is("Progressing eks=10 gke=10").says("measures success-rate")
	w.measure(value(0.99), value(1)).is("Progressing eks=10 gke=10")
	w.measure(value(0.95)).is("Paused eks=10 gke=10")
	require.Equal(t, "0.95", w.rollout.Status.Analysis[0].Last[2].Value)
	require.Equal(t, v1alpha1.MeasurementSuccessful, w.rollout.Status.Analysis[0].Phase)
}

func TestAnAnalysisThatFailsAborts(t *testing.T) {
	analysed(t, successRate()).measure(value(0.99), value(0.4)).is("Degraded eks=0 gke=0").
		says("aborted, and everything is at cart: success-rate: 0.4 (not result[0] >= 0.95)")

	tolerant := successRate()
	tolerant.FailureLimit = 1
	w := analysed(t, tolerant).measure(value(0.99), value(0.4), value(1)).is("Paused eks=10 gke=10")
	require.EqualValues(t, 1, w.rollout.Status.Analysis[0].Failed)
}

func TestMeasurementsWithoutAVerdictWaitForAPerson(t *testing.T) {
	for name, answer := range map[string]Measured{"no data": {}, "not a number": value(math.NaN())} {
		t.Run(name, func(t *testing.T) {
			w := analysed(t, successRate()).measure(answer).is("Paused eks=10 gke=10").says("cannot be decided")
			w.say(v1alpha1.VerbPromote).is("Paused eks=10 gke=10").says("waits for a person")
		})
	}
}

func TestWhatOnlyFailedDoesNotSucceed(t *testing.T) {
	metric := successRate()
	metric.FailureLimit = 3
	analysed(t, metric).measure(value(0), value(0)).is("Progressing eks=10 gke=10").measure(value(0)).is("Degraded eks=0 gke=0")
	analysed(t, metric).measure(value(0), value(0), value(1)).is("Paused eks=10 gke=10")
}

func TestADeletedRolloutIsGuardedStill(t *testing.T) {
	spec := canarySpec(steps(10, 50)...)
	spec.Canary.Analysis = analysisOf(successRate())
	w := newRolloutWorld(t, spec, "eks").measure(value(1)).is("Paused eks=10")
	w.rollout.DeletionTimestamp = &metav1.Time{Time: w.now}
	w.rollout.Generation++
	w.measure(value(1)).is("Paused eks=10").says("deleted while it is under way").measure(value(0)).is("Degraded eks=0")
	require.False(t, w.plan.Finalizer)
}

func TestErrorsInARowWaitForAPerson(t *testing.T) {
	away := Measured{Error: "connection refused"}
	w := analysed(t, successRate()).measure(away, away, away, away).is("Progressing eks=10 gke=10")
	w.measure(value(1)).is("Progressing eks=10 gke=10")
	w.measure(away, away, away, away, away).is("Paused eks=10 gke=10").says("success-rate (connection refused) cannot be decided")
	w.say(v1alpha1.VerbAbort).is("Degraded eks=0 gke=0")
}

func TestAQueryIsFilledIn(t *testing.T) {
	metric := successRate()
	metric.Provider.Prometheus.Query = `rate{service="{{canary}}", was="{{ stable }}", ns="{{namespace}}", in="{{cluster}}", of="{{wave}}", x="{{other}}"}`
	require.Equal(t, `rate{service="cart-v2", was="cart", ns="sample", in="", of="all", x="{{other}}"}`, analysed(t, metric).plan.Due[0].Query)
}

func TestSkipAnalysis(t *testing.T) {
	w := analysed(t, successRate()).say(v1alpha1.VerbPromote).is("Progressing eks=10 gke=10")
	require.Contains(t, w.unheard[0], "promote has nothing to do: it measures")
	w.say(v1alpha1.VerbSkipAnalysis).is("Paused eks=10 gke=10")
}

func TestEachClusterIsMeasured(t *testing.T) {
	metric := successRate()
	metric.Count, metric.Provider.Prometheus.PerCluster = 1, true
	w := analysed(t, metric).says("measures success-rate of eks, success-rate of gke")
	due := w.plan.Due
	require.Len(t, due, 2)
	w.advance(Measured{Name: "success-rate", Cluster: "gke", Step: due[1].Step, Value: new(float64), Time: w.now})
	w.pass(0).is("Degraded eks=0 gke=0").says("success-rate of gke: 0")
}

func TestAnAnalysisBesideTheStepsGoesOnUntilTheEnd(t *testing.T) {
	spec := canarySpec(steps(10, 50)...)
	metric := successRate()
	metric.Count = 1
	spec.Canary.Analysis = analysisOf(metric)
	w := newRolloutWorld(t, spec, "eks").measure(value(1), value(1), value(1)).is("Paused eks=10")
	require.EqualValues(t, 3, w.rollout.Status.Analysis[0].Successful)
	w.say(v1alpha1.VerbPromote).is("Paused eks=50")
	w.measure(value(0)).is("Degraded eks=0")
}

// A delay longer than each step is over all the same, and anew in each wave.
func TestTheDelayOfAnAnalysisBesideTheStepsCountsFromTheFirstRequest(t *testing.T) {
	minute := gatewayv1.Duration("1m")
	var short []v1alpha1.CanaryStep
	for _, weight := range []int32{10, 30, 50} {
		short = append(short, v1alpha1.CanaryStep{SetWeight: &weight}, v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{Duration: &minute}})
	}
	metric := successRate()
	metric.InitialDelay = &metav1.Duration{Duration: 90 * time.Second}
	spec := canarySpec(short...)
	spec.Canary.Analysis, spec.Waves = analysisOf(metric), wavesByName("eks", "gke")
	w := bareRolloutWorld(t, spec, "eks", "gke")
	w.see("eks", false)
	w.pass(5 * time.Minute).is("Progressing eks=0 gke=0")
	w.serves("eks", true).pass(89 * time.Second).is("Paused eks=30 gke=0")
	require.Empty(t, w.plan.Due)
	w.pass(time.Second)
	require.Len(t, w.plan.Due, 1)
	w.measure(value(1)).pass(time.Minute).pass(time.Minute).is("Paused eks=100 gke=10")
	require.Empty(t, w.plan.Due)
	w.pass(90 * time.Second)
	require.Len(t, w.plan.Due, 1)
	w.measure(value(0)).is("Degraded eks=0 gke=0")
}

// What cannot have had a request is not measured: no data would have every rollout wait for a person before it begins.
func TestNothingIsMeasuredBesideTheStepsBeforeTheFirstRequest(t *testing.T) {
	metric := successRate()
	spec := canarySpec(steps(10)...)
	spec.Canary.Analysis, spec.Waves = analysisOf(metric), wavesByName("eks", "gke")
	begin := func(query string) *rolloutWorld {
		spec.Canary.Analysis.Metrics[0].Provider.Prometheus.Query = query
		w := bareRolloutWorld(t, spec, "eks", "gke")
		w.see("gke", false)
		w.see("eks", false)
		return w.pass(time.Minute).is("Progressing eks=0 gke=0")
	}
	w := begin(`rate{wave="{{ wave }}"}`)
	require.Empty(t, w.plan.Due)
	require.Len(t, w.serves("eks", true).is("Paused eks=10 gke=0").plan.Due, 1)
	w.measure(value(1)).say(v1alpha1.VerbPromote).is("Progressing eks=100 gke=0").says("waits, at 0 %")
	require.Empty(t, w.plan.Due, "it asks for a wave of which nothing is at the new side")

	w = begin("rate")
	require.Len(t, w.serves("eks", true).say(v1alpha1.VerbPromote).is("Progressing eks=100 gke=0").plan.Due, 1, "the wave before is at the new side")

	for name, step := range map[string]v1alpha1.CanaryStep{"a mirror": {SetMirror: &v1alpha1.RolloutMirror{Percent: 1}},
		"a header": {SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{Match: []gatewayv1.HTTPHeaderMatch{{Name: "X-Version", Value: "v2"}}}}} {
		of := canarySpec(step, v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}})
		of.Canary.Analysis = analysisOf(metric)
		require.Len(t, newRolloutWorld(t, of, "eks").is("Paused eks=0").plan.Due, 1, name)
	}
}

// An answer that comes late counts for nothing but what it was asked for.
func TestAnswersOfAnEarlierTryDoNotCount(t *testing.T) {
	late := func(w *rolloutWorld, do func()) *rolloutWorld {
		due, asked := w.plan.Due[0], w.now
		w.pass(time.Second)
		do()
		w.advance(Measured{Name: due.Metric.Name, Step: due.Step, Value: new(float64), Time: asked})
		return w.pass(0)
	}
	spec := canarySpec(steps(10, 50)...)
	spec.Canary.Analysis = analysisOf(successRate())
	again := func(w *rolloutWorld) func() {
		return func() { w.say(v1alpha1.VerbAbort).is("Degraded eks=0").say(v1alpha1.VerbRetry) }
	}
	w := newRolloutWorld(t, spec, "eks")
	late(w, again(w)).is("Paused eks=10")
	require.Zero(t, w.rollout.Status.Analysis[0].Failed)

	w = newRolloutWorld(t, spec, "eks")
	late(w, func() { w.rollout.Generation++; w.pass(0) }).is("Paused eks=10")

	w = newRolloutWorld(t, canarySpec(steps(10)[0], v1alpha1.CanaryStep{Analysis: analysisOf(successRate())}), "eks")
	late(w, again(w)).is("Progressing eks=10").says("measures")
	require.Zero(t, w.rollout.Status.Analysis[0].Failed)
}

// Whoever looks at a preview comes by a header, by a host or from inside: a rollout does not know of all of them.
func TestAPreviewIsMeasuredBeforeItTakesAnything(t *testing.T) {
	metric := successRate()
	metric.Count = 1
	spec := v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "shop"}, BlueGreen: &v1alpha1.BlueGreenStrategy{AutoPromotion: true,
		Active: v1alpha1.RolloutSide{Name: "cart"}, Preview: v1alpha1.RolloutSide{Name: "cart-v2"}, PrePromotionAnalysis: analysisOf(metric)}}
	newRolloutWorld(t, spec, "eks").is("Progressing eks=0").measure(value(1)).is("Paused eks=100")
	newRolloutWorld(t, spec, "eks").measure(value(0)).is("Degraded eks=0")
}

func TestWithoutTrafficNothingIsJudged(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(v1alpha1.CanaryStep{Analysis: analysisOf(successRate())}), "eks")
	w.measure(value(0)).is("Paused eks=0").says("cannot be decided")
	require.Equal(t, "the new side has no traffic", w.rollout.Status.Analysis[0].Last[0].Message)
}

func TestWhatAMeasurementComesTo(t *testing.T) {
	tests := map[string]struct {
		success, failure string
		measured         Measured
		want             v1alpha1.MeasurementPhase
	}{
		"both, good":                 {"result[0] > 0.9", "result[0] < 0.5", value(1), v1alpha1.MeasurementSuccessful},
		"both, bad":                  {"result[0] > 0.9", "result[0] < 0.5", value(0), v1alpha1.MeasurementFailed},
		"both, neither":              {"result[0] > 0.9", "result[0] < 0.5", value(0.7), v1alpha1.MeasurementInconclusive},
		"failure alone, good":        {"", "result[0] < 0.5", value(0.7), v1alpha1.MeasurementSuccessful},
		"failure alone, bad":         {"", "result[0] < 0.5", value(0.1), v1alpha1.MeasurementFailed},
		"a condition that is none":   {"result[0] >", "", value(1), v1alpha1.MeasurementError},
		"a condition that asks much": {"result[3] > 1", "", value(1), v1alpha1.MeasurementError},
		"a condition on something":   {"other > 1", "", value(1), v1alpha1.MeasurementError},
		"a condition on the clock":   {"now() > now()", "", value(1), v1alpha1.MeasurementError},
		"a web hook says yes":        {"", "", Measured{Answered: true, Passed: true}, v1alpha1.MeasurementSuccessful},
		"a web hook says no":         {"", "", Measured{Answered: true}, v1alpha1.MeasurementFailed},
		"a web hook says nothing":    {"", "", Measured{Error: "timeout"}, v1alpha1.MeasurementError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := judge(v1alpha1.RolloutMetric{SuccessCondition: test.success, FailureCondition: test.failure}, test.measured, true)
			require.Equal(t, test.want, got.Phase, got)
			require.NotContains(t, got.Message, "\n")
		})
	}
}

func TestRolloutAlerts(t *testing.T) {
	w := analysed(t, successRate())
	reasons := func(do func()) (out []string) {
		was := w.rollout.DeepCopy()
		do()
		if a, raised := RolloutAlert(was, w.rollout.Status); raised {
			require.Contains(t, a.Summary, "TrafficRollout sample/r: "+a.Reason+": ")
			require.NotEmpty(t, a.Severity)
			out = append(out, a.Reason)
		}
		return out
	}
	require.Equal(t, []string{v1alpha1.ReasonRolloutWaits}, reasons(func() { w.measure(Measured{}) }))
	require.Empty(t, reasons(func() { w.say(v1alpha1.VerbPromote).is("Paused eks=10 gke=10") }))
	require.Equal(t, []string{v1alpha1.ReasonRolloutCompleted}, reasons(func() { w.say(v1alpha1.VerbPromote).is("Healthy eks=100 gke=100") }))
	require.Equal(t, []string{v1alpha1.ReasonRolloutAborted}, reasons(func() { w.say(v1alpha1.VerbAbort) }))
	require.Empty(t, reasons(func() { w.pass(time.Hour) }))
	w.serves("gke", false)
	w.say(v1alpha1.VerbRetry).is("Progressing eks=0 gke=0")
	require.Equal(t, []string{v1alpha1.ReasonRolloutLate}, reasons(func() { w.pass(time.Hour).is("Degraded eks=0 gke=0") }))
}
