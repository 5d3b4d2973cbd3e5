// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const (
	// defaultMetricInterval lies between two measurements.
	defaultMetricInterval = 10 * time.Second
	// defaultErrorLimit is how many errors in a row a metric may have (Argo Rollouts, consecutiveErrorLimit).
	defaultErrorLimit = 4
	// measurementsKept is how many of the newest measurements a status shows.
	measurementsKept = 5
	// besideSteps is the step of an analysis that is made all the while.
	besideSteps = -1
)

// DueMeasurement is a measurement that is to be made now.
type DueMeasurement struct {
	Metric v1alpha1.RolloutMetric
	// Wave by name, and the cluster of which it is made; empty for all.
	Wave, Cluster string
	// Step is the index of the step, or -1.
	Step int32
	// Query to be asked, with its variables filled in; empty of a web hook.
	Query string
}

// Measured is what a provider said.
type Measured struct {
	Name, Cluster string
	Step          int32
	// Value that a query gave; nil is no data.
	Value *float64
	// Answered is whether a web hook gave its own verdict, and Passed which.
	Answered, Passed bool
	// Error is why there is no answer.
	Error string
	// Time at which it was asked for.
	Time time.Time
}

// takeAnalysis measures, and tells whether all metrics have succeeded. One that failed aborts; one that cannot be decided or measured
// waits for a person.
func (r *rollout) takeAnalysis(a *v1alpha1.RolloutAnalysis, wave rolloutWave) bool {
	if r.promoted() {
		return true
	}
	r.measure(a, wave, r.Step)
	open, goesOn := r.decide(r.Step)
	if goesOn && open != "" {
		r.say(v1alpha1.RolloutProgressing, "measures "+open)
	}
	return goesOn && open == ""
}

// beside makes the analysis that goes on all the while, and tells whether the rollout may go on.
func (r *rollout) beside(wave rolloutWave) bool {
	if r.Rollout.Spec.Canary == nil || r.Rollout.Spec.Canary.Analysis == nil || r.Promoted == v1alpha1.PromotedFull {
		return true
	}
	r.measure(r.Rollout.Spec.Canary.Analysis, wave, besideSteps)
	_, goesOn := r.decide(besideSteps)
	return goesOn
}

// decide says what an analysis has come to: which of its metrics are under way, and whether the rollout may go on.
func (r *rollout) decide(step int32) (underWay string, goesOn bool) {
	var waits, open []string
	for _, m := range r.Analysis {
		switch {
		case m.Step != step:
		case undecided(m):
			waits = append(waits, fmt.Sprintf("%s (%s)", metricName(m), lastWords(m)))
		case m.Phase == "":
			open = append(open, metricName(m))
		}
	}
	switch {
	case r.Aborted != "":
		r.abort()
		return "", false
	case len(waits) > 0 && !r.promoted():
		r.say(v1alpha1.RolloutPaused, fmt.Sprintf("%s cannot be decided by what was measured: annotate it with %s to measure again, with %s to go on, or with %s to go back",
			strings.Join(waits, ", "), v1alpha1.VerbRetry, v1alpha1.VerbPromote, v1alpha1.VerbAbort))
		return "", false
	}
	return strings.Join(open, ", "), true
}

func metricName(m v1alpha1.MetricStatus) string {
	if m.Cluster != "" {
		return m.Name + " of " + m.Cluster
	}
	return m.Name
}

// undecided tells whether a metric waits for a person: what cannot be measured is no reason to go on, nor to go back.
func undecided(m v1alpha1.MetricStatus) bool {
	return m.Phase == v1alpha1.MeasurementInconclusive || m.Phase == v1alpha1.MeasurementError
}

// measure takes in what was measured of an analysis, and says what is due. A metric that fails aborts the rollout.
func (r *rollout) measure(a *v1alpha1.RolloutAnalysis, wave rolloutWave, step int32) {
	var kept []v1alpha1.MetricStatus
	for _, m := range r.Analysis {
		if r.underWay(m) && m.Step != step {
			kept = append(kept, m)
		}
	}
	for _, metric := range a.Metrics {
		for _, cluster := range clustersMeasured(metric, wave) {
			m := r.statusOf(metric.Name, cluster, step)
			for _, measured := range r.Measured {
				if measured.Name == m.Name && measured.Cluster == cluster && measured.Step == step && !r.outdated(measured) {
					m = stepMetric(m, metric, judge(metric, measured, r.hasTraffic(metric)))
					r.progressed(measured.Time)
				}
			}
			if m.Phase == v1alpha1.MeasurementFailed {
				r.Aborted = fmt.Sprintf("%s: %s", metricName(m), lastWords(m))
			}
			r.schedule(m, metric, wave, step)
			kept = append(kept, m)
		}
	}
	r.Analysis = kept
}

// outdated tells whether a measurement was asked for before what it is of began: in another wave, in an earlier try, before somebody
// said to measure again, or before a request could reach the new side.
func (r *rollout) outdated(m Measured) bool { return m.Time.Before(r.measuredSince(m.Step)) }

// measuredSince is when the analysis of a step began, or the one beside the steps.
func (r *rollout) measuredSince(step int32) time.Time {
	if step == besideSteps {
		return deref(r.AnalysisStarted).Time
	}
	return deref(r.StepStarted).Time
}

func clustersMeasured(metric v1alpha1.RolloutMetric, wave rolloutWave) []string {
	if metric.Provider.Prometheus == nil || !metric.Provider.Prometheus.PerCluster {
		return []string{""}
	}
	names := make([]string, 0, len(wave.members))
	for _, m := range wave.members {
		names = append(names, m.Name)
	}
	return names
}

func (r *rollout) statusOf(name, cluster string, step int32) v1alpha1.MetricStatus {
	for _, m := range r.Analysis {
		if m.Name == name && m.Cluster == cluster && m.Wave == r.Wave && m.Step == step {
			return m
		}
	}
	return v1alpha1.MetricStatus{Name: name, Cluster: cluster, Wave: r.Wave, Step: step}
}

// schedule says when a metric that is under way is to be measured next. Beside the steps none is while nothing of it can reach the new
// side: it would come to no verdict, and a rollout that has not begun would wait for a person.
func (r *rollout) schedule(m v1alpha1.MetricStatus, metric v1alpha1.RolloutMetric, wave rolloutWave, step int32) {
	if m.Phase != "" || step == besideSteps && !r.hasTraffic(metric) {
		return
	}
	at := r.measuredSince(step)
	if metric.InitialDelay != nil {
		at = at.Add(metric.InitialDelay.Duration)
	}
	if n := len(m.Last); n > 0 {
		at = m.Last[n-1].Time.Add(intervalOf(metric))
	}
	if r.Now.Before(at) {
		r.wake = earlier(r.wake, at)
		return
	}
	due := DueMeasurement{Metric: metric, Wave: wave.name, Cluster: m.Cluster, Step: step}
	if p := metric.Provider.Prometheus; p != nil {
		due.Query = r.fill(p.Query, due)
	}
	r.due = append(r.due, due)
}

// fill fills in the variables of a query.
func (r *rollout) fill(query string, due DueMeasurement) string {
	from, to := sidesOf(r.Rollout.Spec)
	return fillIn(query, map[string]string{"namespace": r.Rollout.Namespace, "wave": due.Wave, "cluster": due.Cluster,
		"stable": from.Name, "canary": to.Name})
}

func intervalOf(metric v1alpha1.RolloutMetric) time.Duration {
	if metric.Interval == nil {
		return defaultMetricInterval
	}
	return metric.Interval.Duration
}

// reached tells whether any request reaches the new side by the wave that is under way.
func (r *rollout) reached() bool {
	return r.Weight > 0 || r.Mirror > 0 || len(r.HeaderRoute) > 0 || r.PreviewHostname != ""
}

// hasTraffic tells whether any of what a metric is of reaches the new side. A preview is looked at also in ways of which a rollout knows
// nothing; and waves that are done count for a metric that does not ask for the one that is under way.
func (r *rollout) hasTraffic(metric v1alpha1.RolloutMetric) bool {
	return r.reached() || r.Rollout.Spec.BlueGreen != nil || r.Wave > 0 && !ofWave(metric)
}

// ofWave tells whether a metric is measured of the clusters of a wave alone.
func ofWave(metric v1alpha1.RolloutMetric) bool {
	p := metric.Provider.Prometheus
	return p != nil && (p.PerCluster || fillIn(p.Query, map[string]string{"wave": ""}) != p.Query)
}

// judge says what a measurement has come to.
//
//	answer                | measurement
//	none                  | Error
//	no data, or NaN       | Inconclusive: what is not measured is neither good nor bad
//	no traffic            | Inconclusive
//	failure condition     | Failed
//	success condition     | Successful
//	neither               | Inconclusive where both are given; else Successful, or Failed, as the one that is given does not hold
func judge(metric v1alpha1.RolloutMetric, m Measured, traffic bool) v1alpha1.Measurement {
	out := v1alpha1.Measurement{Time: microTime(m.Time)}
	switch {
	case m.Error != "":
		out.Phase, out.Message = v1alpha1.MeasurementError, m.Error
		return out
	case m.Answered && m.Passed:
		out.Phase = v1alpha1.MeasurementSuccessful
		return out
	case m.Answered:
		out.Phase, out.Message = v1alpha1.MeasurementFailed, "the web hook says no"
		return out
	case !traffic:
		out.Phase, out.Message = v1alpha1.MeasurementInconclusive, "the new side has no traffic"
		return out
	case m.Value == nil || math.IsNaN(*m.Value):
		out.Phase, out.Message = v1alpha1.MeasurementInconclusive, "no data"
		return out
	}
	out.Value = strconv.FormatFloat(*m.Value, 'g', 6, 64)
	out.Phase, out.Message = verdictOf(metric, *m.Value)
	return out
}

// verdictOf evaluates the conditions.
func verdictOf(metric v1alpha1.RolloutMetric, value float64) (v1alpha1.MeasurementPhase, string) {
	failed, err := holds(metric.FailureCondition, value)
	if err != nil {
		return v1alpha1.MeasurementError, "failureCondition: " + err.Error()
	}
	succeeded, err := holds(metric.SuccessCondition, value)
	switch {
	case err != nil:
		return v1alpha1.MeasurementError, "successCondition: " + err.Error()
	case failed:
		return v1alpha1.MeasurementFailed, metric.FailureCondition
	case succeeded, metric.SuccessCondition == "":
		return v1alpha1.MeasurementSuccessful, ""
	case metric.FailureCondition == "":
		return v1alpha1.MeasurementFailed, "not " + metric.SuccessCondition
	}
	return v1alpha1.MeasurementInconclusive, "neither condition holds"
}

// holds evaluates a condition over `result`, a list of one; an empty condition does not hold.
func holds(condition string, value float64) (bool, error) {
	if condition == "" {
		return false, nil
	}
	environment := map[string]any{"result": []float64{value}}
	program, err := expr.Compile(condition, expr.Env(environment), expr.AsBool(), expr.DisableBuiltin("now"))
	if err != nil {
		return false, firstLine(err)
	}
	out, err := expr.Run(program, environment)
	if err != nil {
		return false, firstLine(err)
	}
	truth, _ := out.(bool)
	return truth, nil
}

// firstLine is the sentence of an error whose other lines draw where it is.
func firstLine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s", line)
}

// stepMetric takes a measurement into a metric.
func stepMetric(m v1alpha1.MetricStatus, metric v1alpha1.RolloutMetric, one v1alpha1.Measurement) v1alpha1.MetricStatus {
	if m.Phase != "" {
		return m
	}
	m.Last = append(slices.Clone(m.Last), one)
	m.Last = m.Last[max(0, len(m.Last)-measurementsKept):]
	errors := m.ConsecutiveErrors
	m.ConsecutiveErrors = 0
	switch one.Phase {
	case v1alpha1.MeasurementSuccessful:
		m.Successful++
	case v1alpha1.MeasurementFailed:
		m.Failed++
	case v1alpha1.MeasurementInconclusive:
		m.Inconclusive++
	case v1alpha1.MeasurementError:
		m.ConsecutiveErrors = errors + 1
	}
	limit := int32(defaultErrorLimit)
	if metric.ConsecutiveErrorLimit != nil {
		limit = *metric.ConsecutiveErrorLimit
	}
	switch {
	case m.Failed > metric.FailureLimit, m.Step != besideSteps && m.Failed >= max(1, metric.Count):
		m.Phase = v1alpha1.MeasurementFailed
	case m.ConsecutiveErrors > limit:
		m.Phase = v1alpha1.MeasurementError
	case m.Inconclusive > metric.InconclusiveLimit:
		m.Phase = v1alpha1.MeasurementInconclusive
	case m.Step != besideSteps && m.Successful+m.Failed+m.Inconclusive >= max(1, metric.Count):
		m.Phase = v1alpha1.MeasurementSuccessful
	}
	return m
}

func lastWords(m v1alpha1.MetricStatus) string {
	last := m.Last[len(m.Last)-1]
	if last.Value != "" {
		return fmt.Sprintf("%s (%s)", last.Value, last.Message)
	}
	return last.Message
}
