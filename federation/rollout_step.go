// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// defaultKeepWarm is how long the old side of a blue-green rollout stays (Argo Rollouts, scaleDownDelaySeconds).
const defaultKeepWarm = 30 * time.Second

// rolloutStep is a step of a canary as written, or one of those that a blue-green rollout consists of: exactly one thing.
type rolloutStep struct {
	weight   *int32
	pause    *rolloutPause
	analysis *v1alpha1.RolloutAnalysis
	header   *[]gatewayv1.HTTPHeaderMatch
	mirror   *int32
	// host is the host name under which the new side is reached, until the rollout is over.
	host *gatewayv1.PreciseHostname
}

// rolloutPause lasts for a time, or until somebody promotes.
type rolloutPause struct {
	lasts time.Duration
	// forever is whether it waits for a person.
	forever bool
	// why in words.
	why string
}

// stepsOf are the steps of each wave. The last weight is 100 always.
func stepsOf(spec v1alpha1.TrafficRolloutSpec) []rolloutStep {
	if spec.BlueGreen != nil {
		return blueGreenSteps(spec.BlueGreen)
	}
	var steps []rolloutStep
	last := int32(0)
	for _, s := range spec.Canary.Steps {
		step := rolloutStep{weight: s.SetWeight, analysis: s.Analysis}
		switch {
		case s.SetWeight != nil:
			last = *s.SetWeight
		case s.Pause != nil:
			step.pause = pauseOf(s.Pause)
		case s.SetHeaderRoute != nil:
			step.header = &s.SetHeaderRoute.Match
		case s.SetMirror != nil:
			step.mirror = &s.SetMirror.Percent
		}
		steps = append(steps, step)
	}
	if last != 100 {
		steps = append(steps, weightStep(100))
	}
	return steps
}

func weightStep(weight int32) rolloutStep { return rolloutStep{weight: &weight} }

func pauseOf(p *v1alpha1.RolloutPause) *rolloutPause {
	if p.Duration == nil {
		return &rolloutPause{forever: true, why: "the step"}
	}
	// The schema lets nothing else through; what comes by another way waits for a person.
	lasts, err := time.ParseDuration(string(*p.Duration))
	return &rolloutPause{lasts: lasts, forever: err != nil, why: "the step"}
}

// blueGreenSteps are a preview, a word to go on, the switch, and a time in which the old side stays.
func blueGreenSteps(b *v1alpha1.BlueGreenStrategy) []rolloutStep {
	var steps []rolloutStep
	if len(b.PreviewMatch) > 0 {
		steps = append(steps, rolloutStep{header: &b.PreviewMatch})
	}
	looked := "the preview is there to be looked at"
	if b.PreviewHostname != "" {
		steps = append(steps, rolloutStep{host: &b.PreviewHostname})
		looked += ", at " + string(b.PreviewHostname)
	}
	if b.PrePromotionAnalysis != nil {
		steps = append(steps, rolloutStep{analysis: b.PrePromotionAnalysis})
	}
	if !b.AutoPromotion {
		steps = append(steps, rolloutStep{pause: &rolloutPause{forever: true, why: looked}})
	}
	steps = append(steps, weightStep(100))
	if b.PostPromotionAnalysis != nil {
		steps = append(steps, rolloutStep{analysis: b.PostPromotionAnalysis})
	}
	warm := defaultKeepWarm
	if b.KeepWarm != nil {
		warm = b.KeepWarm.Duration
	}
	return append(steps, rolloutStep{pause: &rolloutPause{lasts: warm, why: "keep " + b.Active.Name + " as it is"}})
}

// take takes a step, and tells whether it is done. What is measured beside the steps counts from when requests reach the new side.
func (r *rollout) take(s rolloutStep, wave rolloutWave) bool {
	reached := r.reached()
	done := r.act(s, wave)
	if r.reached() && !reached {
		r.AnalysisStarted = new(microTime(r.Now))
	}
	return done
}

func (r *rollout) act(s rolloutStep, wave rolloutWave) bool {
	switch {
	case s.weight != nil:
		return r.takeWeight(*s.weight, wave)
	case s.pause != nil:
		return r.takePause(*s.pause)
	case s.analysis != nil:
		return r.takeAnalysis(s.analysis, wave)
	}
	return r.takeRules(s)
}

// takeRules lays rules over the route beside its weights. The step is done when every member where requests enter has programmed
// them: what follows may measure by them.
func (r *rollout) takeRules(s rolloutStep) bool {
	was := r.TrafficRolloutStatus
	switch {
	case s.header != nil:
		r.HeaderRoute = *s.header
	case s.mirror != nil:
		r.Mirror = *s.mirror
	case s.host != nil:
		r.PreviewHostname = *s.host
	}
	changed := !sameOverlay(was, r.TrafficRolloutStatus)
	if changed {
		r.start()
	}
	if r.Promoted == v1alpha1.PromotedFull || !changed && len(r.Lagging) == 0 {
		return true
	}
	r.say(v1alpha1.RolloutProgressing, s.words()+" is being programmed")
	if !changed {
		r.Message += " in " + strings.Join(r.Lagging, ", ")
	}
	return false
}

// laysRules tells whether a step lays rules beside the weights.
func (s rolloutStep) laysRules() bool { return s.header != nil || s.mirror != nil || s.host != nil }

// takeWeight gives the canary its share. A share grows only when the new side serves in every cluster of the wave. The step is
// done when every member where requests enter has programmed it.
func (r *rollout) takeWeight(weight int32, wave rolloutWave) bool {
	if r.Promoted == v1alpha1.PromotedFull && weight != 100 {
		return true
	}
	if len(wave.members) == 0 {
		if r.promoted() {
			return true
		}
		r.say(v1alpha1.RolloutProgressing, fmt.Sprintf("wave %s has no cluster: give a MemberCluster the labels, or the name, that it selects, or annotate the rollout with %s to go on without it",
			wave.name, v1alpha1.VerbPromote))
		return false
	}
	if absent := r.absent(int(r.Wave)); weight > r.weightBefore() && absent != "" && !r.promoted() {
		r.say(v1alpha1.RolloutProgressing, fmt.Sprintf("waits, at %d %%, for %s", r.Weight, absent))
		return false
	}
	programming := fmt.Sprintf("%d %% of wave %s to %s is being programmed", weight, wave.name, newSide(r.Rollout.Spec))
	if r.Weight != weight {
		r.Weight = weight
		r.start()
		r.say(v1alpha1.RolloutProgressing, programming)
		return false
	}
	if late := r.was.Phase == v1alpha1.RolloutDegraded; len(r.Lagging) > 0 && (!late || !r.promoted()) {
		if late {
			programming = "annotate it with " + v1alpha1.VerbPromote + " to go on all the same; " + programming
		}
		r.say(v1alpha1.RolloutProgressing, programming+" in "+strings.Join(r.Lagging, ", "))
		return false
	}
	return true
}

// weightBefore is the share that the steps before the one under way have given.
func (r *rollout) weightBefore() int32 {
	before := int32(0)
	for _, s := range r.steps[:r.Step] {
		if s.weight != nil {
			before = *s.weight
		}
	}
	return before
}

// takePause waits.
func (r *rollout) takePause(p rolloutPause) bool {
	if r.promoted() {
		return true
	}
	if p.forever {
		r.say(v1alpha1.RolloutPaused, fmt.Sprintf("waits for a person (%s): annotate it with %s to go on", p.why, v1alpha1.VerbPromote))
		return false
	}
	until := r.StepStarted.Add(p.lasts)
	if !r.Now.Before(until) {
		return true
	}
	r.wake = earlier(r.wake, until)
	r.say(v1alpha1.RolloutPaused, fmt.Sprintf("waits for %s (%s)", p.lasts, p.why))
	return false
}
