// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// rolloutVerb is a word of a person, and what it does. Where there is nothing that it could do, it says why.
type rolloutVerb struct {
	name string
	do   func(*rollout) (unheard string)
	// stops is whether it holds also for a spec that was not begun when it was said.
	stops bool
}

// rolloutVerbs in the order in which they are heard where several are new at once: whoever says both, to go on and to stop, is
// stopped.
//
//	verb          | does                                              | where there is nothing to do
//	retry         | begins anew after an abort; measures again where  | neither of the two
//	              | an analysis could not be decided                  |
//	resume        | ends a pause that a person made                   | it is not paused by a person
//	skip-analysis | ends the analysis of the step                     | the step is none
//	promote       | ends the pause of the step, or of a person, and   | it measures, or a weight is being programmed
//	              | the wait for clusters that do not serve, for a    |
//	              | verdict, or for members that are late             |
//	promote-full  | ends all pauses and analyses, up to the end       |
//	pause         | stops before the next step                        | it is paused by a person
//	abort         | everything goes back to the old side              | it was aborted
//
// None has anything to do where the route itself names the new side; and none but abort where the rollout is complete, was
// aborted, cannot run or was deleted.
var rolloutVerbs = []rolloutVerb{
	{v1alpha1.VerbRetry, (*rollout).retry, false},
	{v1alpha1.VerbResume, (*rollout).resume, false},
	{v1alpha1.VerbSkipAnalysis, (*rollout).skipAnalysis, false},
	{v1alpha1.VerbPromote, (*rollout).promote, false},
	{v1alpha1.VerbPromoteFull, (*rollout).promoteFully, false},
	{v1alpha1.VerbPause, (*rollout).pause, true},
	{v1alpha1.VerbAbort, (*rollout).abortNow, true},
}

// hear acts on the verbs that have a new value.
func (r *rollout) hear() bool {
	for _, v := range rolloutVerbs {
		value, said := r.Rollout.Annotations[v.name]
		if before, known := r.Handled[v.name]; !said || known && before == value {
			continue
		}
		r.handle(v.name, value)
		if unheard := v.do(r); unheard != "" {
			_, verb, _ := strings.Cut(v.name, "/")
			r.unheard = append(r.unheard, fmt.Sprintf("%s has nothing to do: %s", verb, unheard))
		}
	}
	return false
}

// handle notes that the value of a verb was acted on.
func (r *rollout) handle(verb, value string) {
	handled := maps.Clone(r.Handled)
	if handled == nil {
		handled = map[string]string{}
	}
	handled[verb] = value
	r.Handled = handled
}

// retirement is why nothing is laid over the route any more; empty where something is.
func (r *rollout) retirement() string {
	if !r.Standing.Adopted && (!r.Retired || !inUse(r.Rollout)) {
		return ""
	}
	return fmt.Sprintf("the route is at %s without it: this rollout can be deleted", newSide(r.Rollout.Spec))
}

// over is why there is nothing to be stopped or sent on; empty where there is.
func (r *rollout) over() string {
	switch retired := r.retirement(); {
	case retired != "":
		return retired
	case r.Aborted != "":
		return "it was aborted; to begin again, annotate it with " + v1alpha1.VerbRetry
	case r.Standing.Refused != "":
		return "it cannot run: " + r.Standing.Refused
	case r.complete():
		return "it is complete"
	case r.Rollout.DeletionTimestamp != nil:
		return "it was deleted, and stays as it is; to go back, annotate it with " + v1alpha1.VerbAbort
	}
	return ""
}

// undecided tells whether an analysis waits for a person: the one of the step, or the one beside the steps.
func (r *rollout) undecided() bool {
	return slices.ContainsFunc(r.Analysis, func(m v1alpha1.MetricStatus) bool { return r.underWay(m) && undecided(m) })
}

// underWay tells whether a metric is of the step that is under way, or of the analysis beside the steps.
func (r *rollout) underWay(m v1alpha1.MetricStatus) bool {
	return m.Wave == r.Wave && (m.Step == r.Step || m.Step == besideSteps)
}

// current is the step that is under way; the zero value where the steps of the wave are done.
func (r *rollout) current() rolloutStep {
	if int(r.Step) < len(r.steps) {
		return r.steps[r.Step]
	}
	return rolloutStep{}
}

// retry begins anew after an abort, and measures anew where what was measured came to no verdict.
func (r *rollout) retry() string {
	switch over := r.over(); {
	case r.Aborted == "" && over != "":
		return over
	case r.Aborted == "" && !r.undecided():
		return "it was not aborted, and no analysis waits for a verdict"
	case r.Rollout.DeletionTimestamp != nil:
		return "it was deleted"
	}
	r.forget()
	r.Aborted = ""
	r.startWave()
	return ""
}

// forget drops what was measured and leads nowhere: after an abort all of it, else that of the analyses without a verdict.
func (r *rollout) forget() {
	stuck := map[int32]bool{}
	for _, m := range r.Analysis {
		stuck[m.Step] = stuck[m.Step] || r.underWay(m) && undecided(m)
	}
	r.Analysis = slices.DeleteFunc(slices.Clone(r.Analysis), func(m v1alpha1.MetricStatus) bool { return r.Aborted != "" || stuck[m.Step] })
}

func (r *rollout) resume() string {
	if over := r.over(); over != "" {
		return over
	}
	if !r.Paused {
		return "it is not paused by a person"
	}
	r.Paused = false
	r.start()
	return ""
}

func (r *rollout) skipAnalysis() string {
	if over := r.over(); over != "" {
		return over
	}
	if r.current().analysis == nil {
		return "the step is not an analysis"
	}
	r.promoteStep()
	return ""
}

// promote ends one wait. A step that measures has an own word to be skipped by, unless it waits for a person's verdict.
func (r *rollout) promote() string {
	if over := r.over(); over != "" {
		return over
	}
	if r.Paused {
		return r.resume()
	}
	switch step := r.current(); {
	case r.undecided():
	case step.analysis != nil:
		return "it measures; to go on all the same, annotate it with " + v1alpha1.VerbSkipAnalysis
	case step.weight != nil && r.Phase != v1alpha1.RolloutDegraded && len(r.waves[r.Wave].members) > 0 && r.absent(int(r.Wave)) == "":
		return fmt.Sprintf("nothing waits for a person: %d %% is being programmed", r.Weight)
	case step.laysRules():
		return fmt.Sprintf("nothing waits for a person: %s is being programmed", step.words())
	}
	r.promoteStep()
	return ""
}

func (r *rollout) promoteStep() {
	if !r.promoted() {
		r.Promoted = v1alpha1.PromotedStep
	}
}

func (r *rollout) promoteFully() string {
	if over := r.over(); over != "" {
		return over
	}
	r.Paused, r.Promoted = false, v1alpha1.PromotedFull
	return ""
}

func (r *rollout) pause() string {
	if over := r.over(); over != "" {
		return over
	}
	if r.Paused {
		return "it is paused by a person"
	}
	r.Paused = true
	return ""
}

func (r *rollout) abortNow() string {
	if retired := r.retirement(); retired != "" {
		return retired
	}
	if r.Aborted != "" {
		return "it was aborted"
	}
	r.Aborted = "by a person"
	r.Laid = laidOf(r.Rollout) // a spec that could not run does not begin by itself, after that word
	return ""
}

// promoted tells whether a person's word ends the wait that is under way.
func (r *rollout) promoted() bool { return r.Promoted != "" }

// promotionAfter is what is left of a promotion when one wait has ended.
func promotionAfter(p v1alpha1.RolloutPromotion) v1alpha1.RolloutPromotion {
	if p == v1alpha1.PromotedFull {
		return p
	}
	return ""
}
