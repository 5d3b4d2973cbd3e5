// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// defaultProgressDeadline is how long a rollout may go without progress (Argo Rollouts, progressDeadlineSeconds).
const defaultProgressDeadline = 10 * time.Minute

// RolloutSnapshot is all that the next state of a rollout depends on. Where it stands is in its status.
type RolloutSnapshot struct {
	Rollout *v1alpha1.TrafficRollout
	// Members that can serve, sorted by name.
	Members []RolloutMember
	// Standing is how the rollout and its route stand to each other.
	Standing RolloutStanding
	// Lagging are the members that have not programmed yet what was decided, sorted.
	Lagging []string
	// Held names the TrafficOverride that holds the route's weights; empty where none does.
	Held string
	// Kept is whether the new side goes on with what it had, since the old one serves nowhere.
	Kept bool
	// Measured are the measurements that were made since the last time, in their order.
	Measured []Measured
	// Since is when whoever computes it began to look: a rollout makes no progress while nobody does.
	Since time.Time
	// Now is when the state is computed.
	Now time.Time
}

// RolloutMember is a cluster, and what is seen of the new side there.
type RolloutMember struct {
	Name   string
	Labels map[string]string
	// Serves is whether the new side is fit to serve there; Message why not.
	Serves  bool
	Message string
}

// RolloutPlan is the next state of a rollout.
type RolloutPlan struct {
	Status v1alpha1.TrafficRolloutStatus
	// Due are the measurements to be made now.
	Due []DueMeasurement
	// Finalizer is whether a deleted rollout has to stay: without it requests would go back to the old side.
	Finalizer bool
	// Unheard are verbs that could do nothing, and why.
	Unheard []string
	// WakeAfter is how long the state stays as it is, if nothing else happens; 0 for ever.
	WakeAfter time.Duration
}

// rollout is a snapshot with the state that is being computed.
type rollout struct {
	RolloutSnapshot
	v1alpha1.TrafficRolloutStatus
	was   v1alpha1.TrafficRolloutStatus
	steps []rolloutStep
	waves []rolloutWave
	wake  time.Time
	due   []DueMeasurement
	// unheard are verbs that could do nothing.
	unheard []string
}

// rolloutWave is a wave with its clusters.
type rolloutWave struct {
	name    string
	hold    time.Duration
	members []RolloutMember
}

// rolloutRules in their order. Each may change the state; the first that returns true is the last one.
//
//	begin        | a spec that was not begun yet begins anew, and what was asked of the one before is not asked of it
//	hear         | verbs that have a value which was not acted on
//	retire       | the route itself names the new side: nothing is laid over it any more
//	abort        | everything is at the old side until somebody says retry, or the spec changes
//	refuse       | what cannot run says why, and leaves the traffic where it is
//	stay         | a deleted rollout, and one whose route a person holds, stay as they are
//	walk         | steps, wave by wave
var rolloutRules = []func(*rollout) bool{(*rollout).begin, (*rollout).hear, (*rollout).retire, (*rollout).abort, (*rollout).refuse,
	(*rollout).stay, (*rollout).walk}

// AdvanceRollout is the next state of a rollout. It depends on nothing but the snapshot, so that a hub which restarts goes
// on where it was; where nothing has happened, the state is the one before.
func AdvanceRollout(s RolloutSnapshot) RolloutPlan {
	r := &rollout{RolloutSnapshot: s, TrafficRolloutStatus: *s.Rollout.Status.DeepCopy(), was: s.Rollout.Status}
	r.steps, r.waves = stepsOf(s.Rollout.Spec), wavesOf(s.Rollout.Spec, s.Members, s.Rollout.Status)
	for _, rule := range rolloutRules {
		if rule(r) {
			break
		}
	}
	r.deadline()
	r.weigh()
	plan := RolloutPlan{Status: r.TrafficRolloutStatus, Due: r.due, Unheard: r.unheard, Finalizer: anyMoved(r.TrafficRolloutStatus) && !s.Standing.Idle}
	if !r.wake.IsZero() {
		plan.WakeAfter = max(time.Millisecond, r.wake.Sub(s.Now))
	}
	return plan
}

// begin takes a spec into use that was not begun yet, once it can run; until then what the one before has laid stays. One that says
// nothing new of where everything is goes on from there.
//
//	everything is at the new side | same sides | does
//	yes                           | yes        | stays so
//	any other                                  | begins anew; of what a person has said, only words to stop are heard
func (r *rollout) begin() bool {
	r.ObservedGeneration = r.Rollout.Generation
	if inUse(r.Rollout) || r.Standing.Refused != "" {
		return false
	}
	laid := laidOf(r.Rollout)
	if r.Laid != nil && r.Laid.From == laid.From && r.Laid.To == laid.To && allMoved(r.TrafficRolloutStatus) && r.Weight == 0 {
		if further := r.further(); len(further) > 0 {
			r.Standing.Refused = fmt.Sprintf("everything is at %s, and now also %s is selected: make the route name %s, or annotate with %s to begin anew",
				newSide(r.Rollout.Spec), strings.Join(further, ", "), newSide(r.Rollout.Spec), v1alpha1.VerbAbort)
			return false
		}
		r.enter(len(r.waves))
		r.Laid = laid
		return false
	}
	r.anew()
	r.waves = wavesOf(r.Rollout.Spec, r.Members, r.TrafficRolloutStatus)
	r.Laid = laid
	r.startWave()
	return false
}

// anew forgets all but the words to stop that nobody has heard yet: they are of what is to come as well.
func (r *rollout) anew() {
	heard := r.Handled
	r.TrafficRolloutStatus = v1alpha1.TrafficRolloutStatus{ObservedGeneration: r.Rollout.Generation, Conditions: r.Conditions}
	for _, v := range rolloutVerbs {
		value, said := r.Rollout.Annotations[v.name]
		before, known := heard[v.name]
		switch unheard := said && (!known || before != value); {
		case unheard && v.stops:
			if known {
				r.handle(v.name, before)
			}
		case said:
			r.handle(v.name, value)
		}
	}
}

// further are the clusters that the waves select and that are not at the new side, sorted.
func (r *rollout) further() []string {
	var names []string
	for _, w := range r.waves {
		for _, m := range w.members {
			if !slices.ContainsFunc(r.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Cluster == m.Name }) {
				names = append(names, m.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// allMoved tells whether all clusters of a rollout are at the new side.
func allMoved(s v1alpha1.TrafficRolloutStatus) bool {
	return len(s.Clusters) > 0 && !slices.ContainsFunc(s.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Weight < 100 })
}

// anyMoved tells whether any requests go to the new side because of a rollout.
func anyMoved(s v1alpha1.TrafficRolloutStatus) bool {
	return slices.ContainsFunc(s.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Weight > 0 })
}

// inUse tells whether the spec of a rollout has been taken into use. A deletion counts up the generation, and begins nothing.
func inUse(r *v1alpha1.TrafficRollout) bool {
	return r.Status.Laid != nil && (r.Status.Laid.Generation == r.Generation || r.DeletionTimestamp != nil)
}

func laidOf(r *v1alpha1.TrafficRollout) *v1alpha1.RolloutLaid {
	from, to := sidesOf(r.Spec)
	return &v1alpha1.RolloutLaid{Generation: r.Generation, From: from, To: to}
}

func (r *rollout) refuse() bool {
	if r.Standing.Refused == "" {
		return false
	}
	r.say(v1alpha1.RolloutPending, r.Standing.Refused)
	return true
}

func (r *rollout) abort() bool {
	if r.Aborted == "" {
		return false
	}
	r.enter(0)
	r.Paused = false
	r.rest()
	r.say(v1alpha1.RolloutDegraded, fmt.Sprintf("aborted, and everything %s: %s; to begin again, change the spec or annotate it with %s",
		r.wayBack(), r.Aborted, v1alpha1.VerbRetry))
	return true
}

// wayBack says how far everything has come back to the old side.
func (r *rollout) wayBack() string {
	side := oldSide(r.Rollout.Spec)
	switch {
	case r.Held != "":
		return fmt.Sprintf("goes to %s when TrafficOverride %s, which holds the weights of the route, ends", side, r.Held)
	case len(r.Lagging) > 0:
		return fmt.Sprintf("goes to %s, which is being programmed in %s", side, strings.Join(r.Lagging, ", "))
	case r.Kept:
		return fmt.Sprintf("goes to %s as soon as that serves in some cluster; until then %s keeps what it had", side, newSide(r.Rollout.Spec))
	case anyMoved(r.TrafficRolloutStatus):
		return "goes to " + side
	}
	return "is at " + side
}

func (r *rollout) retire() bool {
	if r.retirement() == "" {
		return false
	}
	r.enter(len(r.waves))
	r.Retired, r.Aborted, r.Paused = true, "", false
	r.rest()
	if from, _ := sidesOf(r.Rollout.Spec); from.Cluster != "" {
		r.say(v1alpha1.RolloutHealthy, fmt.Sprintf("%s exports %s no more: this rollout can be deleted", from.Cluster, from.Name))
		return true
	}
	r.say(v1alpha1.RolloutHealthy, fmt.Sprintf("the route itself names %s: this rollout can be deleted", newSide(r.Rollout.Spec)))
	return true
}

func (r *rollout) stay() bool {
	switch {
	case r.complete():
		return false
	case r.Rollout.DeletionTimestamp != nil:
		if !r.beside(r.waves[r.Wave]) {
			return true // nobody goes on, but what is there is guarded, and goes back where it fails
		}
		r.say(v1alpha1.RolloutPaused, fmt.Sprintf("deleted while it is under way: it stays as it is until it is aborted, by the annotation %s, or the route itself names %s",
			v1alpha1.VerbAbort, newSide(r.Rollout.Spec)))
	case r.Held != "":
		r.say(v1alpha1.RolloutPaused, fmt.Sprintf("TrafficOverride %s holds the weights of the route: it goes on when that ends", r.Held))
	default:
		return false
	}
	return true
}

// walk takes the steps of the wave that is under way until one has to wait.
func (r *rollout) walk() bool {
	for !r.complete() {
		wave := r.waves[r.Wave]
		if !r.beside(wave) {
			return true
		}
		if r.Paused {
			r.say(v1alpha1.RolloutPaused, "paused by a person: annotate it with "+v1alpha1.VerbResume+" to go on")
			return true
		}
		for int(r.Step) < len(r.steps) {
			if !r.take(r.steps[r.Step], wave) {
				return true
			}
			r.Step++
			r.Promoted = promotionAfter(r.Promoted)
			r.start()
		}
		if !r.held(wave) {
			return true
		}
		r.enter(int(r.Wave) + 1)
		r.startWave()
	}
	r.rest()
	r.say(v1alpha1.RolloutHealthy, r.finished())
	return true
}

// enter takes the rollout to a wave before its first step, at which nothing of it is at the new side.
func (r *rollout) enter(wave int) {
	r.Wave, r.Step, r.Weight, r.HeaderRoute, r.Mirror = int32(wave), 0, 0, nil, 0
}

// rest ends what belongs to steps: nothing is under way any more.
func (r *rollout) rest() {
	r.Promoted, r.StepStarted, r.AnalysisStarted, r.PreviewHostname = "", nil, nil, ""
}

// complete tells whether all waves are done.
func (r *rollout) complete() bool { return int(r.Wave) >= len(r.waves) }

func (r *rollout) finished() string {
	if from, _ := sidesOf(r.Rollout.Spec); from.Cluster != "" {
		return fmt.Sprintf("everything is at %s: delete the ServiceExport in %s, then this rollout", newSide(r.Rollout.Spec), from.Cluster)
	}
	message := fmt.Sprintf("everything is at %s: make the route name it, then delete this rollout", newSide(r.Rollout.Spec))
	var without []string
	for _, m := range r.Members {
		if !slices.ContainsFunc(r.waves, func(w rolloutWave) bool { return w.has(m.Name) }) {
			without = append(without, m.Name)
		}
	}
	if len(without) > 0 {
		message += fmt.Sprintf("; no wave selects %s, which stays with %s", strings.Join(without, ", "), oldSide(r.Rollout.Spec))
	}
	if absent := r.absent(len(r.waves) - 1); absent != "" {
		message += "; it does not serve everywhere: " + absent
	}
	return message
}

// held tells whether a wave whose steps are done has been well for as long as it has to be before the next one starts.
func (r *rollout) held(wave rolloutWave) bool {
	if r.promoted() {
		r.Promoted = promotionAfter(r.Promoted)
		return true
	}
	if lost := r.lost(); lost != "" {
		// Its time begins when it is back. Each look at it while it is away has to say the same: what it writes wakes it.
		r.say(v1alpha1.RolloutProgressing, "wave "+wave.name+" is not well: "+lost)
		r.StepStarted = nil
		return false
	}
	if r.StepStarted == nil {
		r.start()
	}
	until := r.StepStarted.Add(wave.hold)
	if r.Now.Before(until) {
		r.wake = earlier(r.wake, until)
		r.say(v1alpha1.RolloutPaused, fmt.Sprintf("wave %s has to be well for %s before the next one starts", wave.name, wave.hold))
		return false
	}
	return true
}

// lost says which clusters that have been given weight do not serve the new side, and why; empty where all do.
func (r *rollout) lost() string {
	if r.Weight == 0 {
		return r.absent(int(r.Wave) - 1)
	}
	return r.absent(int(r.Wave))
}

// absent says which clusters of the waves up to one do not serve the new side, and why; empty where all do.
func (r *rollout) absent(upTo int) string {
	var texts []string
	for _, w := range r.waves[:upTo+1] {
		for _, m := range w.members {
			if !m.Serves {
				texts = append(texts, m.newSide(r.Rollout.Spec)+": "+m.Message)
			}
		}
	}
	return strings.Join(texts, "; ")
}

// newSide names the new side of what a cluster serves.
func (m RolloutMember) newSide(spec v1alpha1.TrafficRolloutSpec) string {
	if _, to := sidesOf(spec); to.Cluster == "" {
		return to.Name + " in " + m.Name
	}
	return newSide(spec)
}

// start begins a step or a wait.
func (r *rollout) start() {
	r.StepStarted = new(microTime(r.Now))
	r.progressed(r.Now)
}

// startWave begins the first step of a wave, and what is measured beside its steps.
func (r *rollout) startWave() {
	r.start()
	r.AnalysisStarted = r.StepStarted
}

// progressed notes when there was progress.
func (r *rollout) progressed(at time.Time) { r.Progressed = new(microTime(at)) }

// microTime is a time as a status keeps it: read back from there, it is the same.
func microTime(t time.Time) metav1.MicroTime {
	return metav1.NewMicroTime(t.Truncate(time.Microsecond))
}

func (r *rollout) say(phase v1alpha1.RolloutPhase, message string) {
	r.Phase, r.Message = phase, message
	r.WaveName = ""
	if !r.complete() && r.Aborted == "" && r.Standing.Refused == "" {
		r.WaveName = r.waves[r.Wave].name
	}
}

// deadline says that a rollout which makes no progress does not. Who waits for a time or a person is not late.
func (r *rollout) deadline() {
	if r.Phase != v1alpha1.RolloutProgressing || r.Progressed == nil {
		return
	}
	if r.was.Phase == v1alpha1.RolloutPaused || r.was.Phase == v1alpha1.RolloutPending {
		r.progressed(r.Now)
	}
	limit := defaultProgressDeadline
	if d := r.Rollout.Spec.ProgressDeadline; d != nil {
		limit = d.Duration
	}
	until := r.Progressed.Add(limit)
	if r.Since.After(r.Progressed.Time) {
		until = r.Since.Add(limit)
	}
	switch {
	case r.Now.Before(until):
		r.wake = earlier(r.wake, until)
	case r.Rollout.Spec.ProgressDeadlineAbort:
		r.Aborted = fmt.Sprintf("no progress for %s: %s", limit, r.Message)
		r.abort()
	default:
		r.say(v1alpha1.RolloutDegraded, fmt.Sprintf("no progress for %s: %s", limit, r.Message))
	}
}

// weigh says how much of what each cluster serves goes to the new side: all where its wave is done, the step's share where it
// is under way, nothing where it is to come.
func (r *rollout) weigh() {
	r.Clusters = nil
	switch {
	case r.Retired:
		return
	case r.Standing.Refused != "" && r.Aborted == "":
		r.Clusters = r.was.Clusters
		return
	}
	for i, w := range r.waves {
		for _, m := range w.members {
			c := v1alpha1.RolloutCluster{Cluster: m.Name, Wave: w.name, Weight: r.weightOf(i)}
			if c.Weight > 0 && !m.Serves {
				c.Message = m.Message
			}
			r.Clusters = append(r.Clusters, c)
		}
	}
	slices.SortFunc(r.Clusters, func(a, b v1alpha1.RolloutCluster) int { return strings.Compare(a.Cluster, b.Cluster) })
}

func (r *rollout) weightOf(wave int) int32 {
	switch {
	case wave > int(r.Wave):
		return 0
	case wave < int(r.Wave):
		return 100
	}
	return r.Weight
}

// wavesOf are the waves with the members that belong to each: the first that selects them. One that has a share already stays in the
// wave in which it got that, and none joins a wave that is done: another label is no step.
func wavesOf(spec v1alpha1.TrafficRolloutSpec, members []RolloutMember, is v1alpha1.TrafficRolloutStatus) []rolloutWave {
	declared := spec.Waves
	if len(declared) == 0 {
		declared = []v1alpha1.RolloutWave{{Name: "all", ClusterSelector: &metav1.LabelSelector{}}}
	}
	waves := make([]rolloutWave, 0, len(declared))
	for _, w := range declared {
		wave := rolloutWave{name: w.Name}
		if w.Hold != nil {
			wave.hold = w.Hold.Duration
		}
		waves = append(waves, wave)
	}
	for _, m := range members {
		i := slices.IndexFunc(declared, func(w v1alpha1.RolloutWave) bool { return selects(w, m) })
		if at := waveWithShare(waves, is, m.Name); at >= 0 {
			i = at
		} else if i >= 0 && i < int(is.Wave) && int(is.Wave) < len(waves) {
			i = int(is.Wave)
		}
		if i >= 0 {
			waves[i].members = append(waves[i].members, m)
		}
	}
	return waves
}

// waveWithShare is the wave in which a cluster got its share; -1 where it has none.
func waveWithShare(waves []rolloutWave, is v1alpha1.TrafficRolloutStatus, cluster string) int {
	for _, c := range is.Clusters {
		if c.Cluster == cluster && c.Weight > 0 {
			return slices.IndexFunc(waves, func(w rolloutWave) bool { return w.name == c.Wave })
		}
	}
	return -1
}

func (w rolloutWave) has(name string) bool {
	return slices.ContainsFunc(w.members, func(m RolloutMember) bool { return m.Name == name })
}

func selects(w v1alpha1.RolloutWave, m RolloutMember) bool {
	if w.ClusterSelector == nil {
		return slices.Contains(w.Clusters, m.Name)
	}
	selector, err := metav1.LabelSelectorAsSelector(w.ClusterSelector)
	return err == nil && selector.Matches(labels.Set(m.Labels))
}

// newSide and oldSide name the sides of a rollout.
func newSide(spec v1alpha1.TrafficRolloutSpec) string {
	_, side := sidesOf(spec)
	return sideName(side)
}

func oldSide(spec v1alpha1.TrafficRolloutSpec) string {
	side, _ := sidesOf(spec)
	return sideName(side)
}

func sideName(s v1alpha1.RolloutSide) string {
	if s.Cluster != "" {
		return s.Name + " in " + s.Cluster
	}
	return s.Name
}

func sidesOf(spec v1alpha1.TrafficRolloutSpec) (was, is v1alpha1.RolloutSide) {
	if spec.BlueGreen != nil {
		return spec.BlueGreen.Active, spec.BlueGreen.Preview
	}
	if spec.Canary != nil {
		return spec.Canary.Stable, spec.Canary.Canary
	}
	return was, is
}

// RolloutConditions are what a rollout's state says, for those who wait for conditions.
//
//	phase       | Accepted | Progressing | Completed
//	Pending     | False    | False       | False
//	Progressing | True     | True        | False
//	Paused      | True     | Unknown     | False
//	Degraded    | True     | False       | False
//	Healthy     | True     | False       | True
func RolloutConditions(s v1alpha1.TrafficRolloutStatus) []metav1.Condition {
	is := func(yes bool) metav1.ConditionStatus {
		if yes {
			return metav1.ConditionTrue
		}
		return metav1.ConditionFalse
	}
	accepted := condition(v1alpha1.RolloutAccepted, is(s.Phase != v1alpha1.RolloutPending), v1alpha1.ReasonAccepted, "it can run")
	if s.Phase == v1alpha1.RolloutPending {
		accepted.Reason, accepted.Message = v1alpha1.ReasonInvalid, s.Message
	}
	progressing := condition(v1alpha1.RolloutInProgress, is(s.Phase == v1alpha1.RolloutProgressing), string(s.Phase), s.Message)
	if s.Phase == v1alpha1.RolloutPaused {
		progressing.Status = metav1.ConditionUnknown
	}
	completed := condition(v1alpha1.RolloutCompleted, is(s.Phase == v1alpha1.RolloutHealthy), string(s.Phase), s.Message)
	if s.Aborted != "" {
		progressing.Reason, completed.Reason = v1alpha1.ReasonAborted, v1alpha1.ReasonAborted
	}
	conditions := []metav1.Condition{accepted, progressing, completed}
	for i := range conditions {
		conditions[i].ObservedGeneration = s.ObservedGeneration
	}
	return conditions
}
