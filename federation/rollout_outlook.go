// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// RolloutWait is whom or what a rollout waits for.
type RolloutWait string

const (
	// WaitsForPerson is a pause without an end, a person's own, a verdict that no measurement could give, a TrafficOverride that holds
	// the route, or a rollout that was deleted under way.
	WaitsForPerson RolloutWait = "Person"
	// WaitsForTime is a pause with an end.
	WaitsForTime RolloutWait = "Time"
	// WaitsForMeasurement is an analysis.
	WaitsForMeasurement RolloutWait = "Measurement"
	// WaitsForClusters is a weight that is not programmed yet, or a new side that does not serve.
	WaitsForClusters RolloutWait = "Clusters"
)

// RolloutProgress is how far a wave or a step is.
type RolloutProgress string

const (
	// RolloutDone lies behind.
	RolloutDone RolloutProgress = "Done"
	// RolloutUnderWay is where the rollout stands.
	RolloutUnderWay RolloutProgress = "UnderWay"
	// RolloutToCome lies ahead.
	RolloutToCome RolloutProgress = "ToCome"
)

// RolloutOutlook is what can be read out of a rollout's status: what it waits for, which words would do something, and the way that it
// has gone and has still to go.
type RolloutOutlook struct {
	// Waits is empty where nothing is waited for: it is complete, aborted, or cannot begin.
	Waits RolloutWait
	// Until is when a time is over; zero where it waits for no time.
	Until time.Time
	// Verbs that would do something now, without their prefix: those that lead on before those that lead back.
	Verbs []string
	// Beside are the metrics that are measured beside the steps.
	Beside []v1alpha1.MetricStatus
	Waves  []WaveOutlook
}

// WaveOutlook is a wave on the way.
type WaveOutlook struct {
	Name     string
	Progress RolloutProgress
	// Hold is how long it has to be well at 100 before the next one.
	Hold     time.Duration
	Clusters []v1alpha1.RolloutCluster
	Steps    []StepOutlook
}

// StepOutlook is a step of a wave on the way.
type StepOutlook struct {
	// Words say what the step does.
	Words    string
	Progress RolloutProgress
	// Metrics that were measured for it, where that is known still.
	Metrics []v1alpha1.MetricStatus
}

// OutlookOf reads a rollout's status.
func OutlookOf(of *v1alpha1.TrafficRollout) RolloutOutlook {
	if of.Spec.Canary == nil && of.Spec.BlueGreen == nil {
		return RolloutOutlook{} // the schema lets none through
	}
	r := &rollout{RolloutSnapshot: RolloutSnapshot{Rollout: of}, TrafficRolloutStatus: of.Status, steps: stepsOf(of.Spec), waves: wavesOf(of.Spec, nil, of.Status)}
	if r.Phase == v1alpha1.RolloutPending {
		r.Standing.Refused = r.Message
	}
	for i := range r.waves {
		for _, c := range r.clustersOf(i) {
			r.waves[i].members = append(r.waves[i].members, RolloutMember{Name: c.Cluster, Message: c.Message, Serves: c.Message == "" && !r.growthWaits(i)})
		}
	}
	out := RolloutOutlook{Verbs: r.usefulVerbs(), Beside: r.metricsOf(int(r.Wave), besideSteps)}
	out.Waits, out.Until = r.waits()
	for i := range r.waves {
		out.Waves = append(out.Waves, r.waveOutlook(i))
	}
	return out
}

// clustersOf are the clusters of a wave, as the status has them.
func (r *rollout) clustersOf(wave int) []v1alpha1.RolloutCluster {
	var out []v1alpha1.RolloutCluster
	for _, c := range r.Clusters {
		if c.Wave == r.waves[wave].name {
			out = append(out, c)
		}
	}
	return out
}

// growthWaits tells whether the weight of the wave's step has not been given yet, which is so only while the new side does not serve
// everywhere.
func (r *rollout) growthWaits(wave int) bool {
	weight := r.current().weight
	return wave == int(r.Wave) && weight != nil && *weight != r.Weight
}

// usefulVerbs are those that find something to do.
func (r *rollout) usefulVerbs() []string {
	if r.Retired || r.Phase == "" {
		return nil
	}
	var out []string
	for _, v := range rolloutVerbs {
		tried := *r
		_, verb, _ := strings.Cut(v.name, "/")
		vain := v.name == v1alpha1.VerbAbort && r.Standing.Refused != "" && !anyMoved(r.TrafficRolloutStatus)
		if !vain && v.do(&tried) == "" {
			out = append(out, verb)
		}
	}
	return out
}

func (r *rollout) metricsOf(wave, step int) []v1alpha1.MetricStatus {
	var out []v1alpha1.MetricStatus
	for _, m := range r.Analysis {
		if int(m.Wave) == wave && int(m.Step) == step {
			out = append(out, m)
		}
	}
	return out
}

// waits says what is waited for:
//
//	phase                 | step that is under way | waits for
//	Pending, Healthy      |                        | nothing
//	Degraded, aborted     |                        | nothing
//	Paused                | a pause with an end    | a time, unless a person has to speak first
//	Paused                | none: the wave is done | the wave's hold
//	Paused                | any other              | a person
//	Progressing, or late  | an analysis            | its measurements
//	Progressing, or late  | any other              | clusters
func (r *rollout) waits() (RolloutWait, time.Time) {
	switch {
	case r.Phase == v1alpha1.RolloutPaused:
		return r.pausedFor()
	case r.Phase == v1alpha1.RolloutProgressing, r.Phase == v1alpha1.RolloutDegraded && r.Aborted == "":
		if r.current().analysis != nil {
			return WaitsForMeasurement, time.Time{}
		}
		return WaitsForClusters, time.Time{}
	}
	return "", time.Time{}
}

// Undecided tells whether a rollout has to be decided by a person, because what was measured could not.
func Undecided(s v1alpha1.TrafficRolloutStatus) bool {
	r := &rollout{TrafficRolloutStatus: s}
	return s.Phase == v1alpha1.RolloutPaused && r.undecided()
}

func (r *rollout) pausedFor() (RolloutWait, time.Time) {
	if r.Paused || r.Rollout.DeletionTimestamp != nil || r.undecided() || r.StepStarted == nil || r.complete() {
		return WaitsForPerson, time.Time{}
	}
	switch step := r.current(); {
	case int(r.Step) >= len(r.steps):
		return WaitsForTime, r.StepStarted.Add(r.waves[r.Wave].hold)
	case step.pause != nil && !step.pause.forever:
		return WaitsForTime, r.StepStarted.Add(step.pause.lasts)
	}
	return WaitsForPerson, time.Time{}
}

func (r *rollout) waveOutlook(wave int) WaveOutlook {
	stands := r.Phase != "" && r.Aborted == "" && r.Standing.Refused == ""
	out := WaveOutlook{Name: r.waves[wave].name, Hold: r.waves[wave].hold, Clusters: r.clustersOf(wave), Progress: progressOf(wave, int(r.Wave), stands)}
	for i, s := range r.steps {
		step := StepOutlook{Words: s.words(), Progress: out.Progress, Metrics: r.metricsOf(wave, i)}
		if out.Progress == RolloutUnderWay {
			step.Progress = progressOf(i, int(r.Step), stands)
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}

func progressOf(i, current int, stands bool) RolloutProgress {
	switch {
	case i < current:
		return RolloutDone
	case i == current && stands:
		return RolloutUnderWay
	}
	return RolloutToCome
}

// words say what a step does.
func (s rolloutStep) words() string {
	switch {
	case s.weight != nil:
		return fmt.Sprintf("weight %d %%", *s.weight)
	case s.pause != nil && s.pause.forever:
		return "wait for a person"
	case s.pause != nil:
		return "wait for " + brief(s.pause.lasts)
	case s.analysis != nil:
		names := make([]string, 0, len(s.analysis.Metrics))
		for _, m := range s.analysis.Metrics {
			names = append(names, m.Name)
		}
		return "measure " + strings.Join(names, ", ")
	case s.header != nil && len(*s.header) == 0:
		return "no header route any more"
	case s.header != nil:
		return "header route " + headerWords(*s.header)
	case s.mirror != nil:
		return fmt.Sprintf("mirror %d %%", *s.mirror)
	case s.host != nil:
		return "preview at " + string(*s.host)
	}
	return ""
}

// brief is a duration without the zeros at its end.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func headerWords(match []gatewayv1.HTTPHeaderMatch) string {
	words := make([]string, 0, len(match))
	for _, m := range match {
		is := ": "
		if m.Type != nil && *m.Type == gatewayv1.HeaderMatchRegularExpression {
			is = " like "
		}
		words = append(words, string(m.Name)+is+m.Value)
	}
	return strings.Join(words, ", ")
}

// RolloutSince is when a rollout came into its phase: each phase has conditions of its own, and the newest of them began with it. It is
// zero where none is known.
func RolloutSince(s v1alpha1.TrafficRolloutStatus) time.Time {
	var since time.Time
	for _, c := range s.Conditions {
		if c.LastTransitionTime.After(since) {
			since = c.LastTransitionTime.Time
		}
	}
	return since
}
