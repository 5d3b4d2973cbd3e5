// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// rolloutWorld is what a rollout meets: clusters in which the new side serves or does not, and members that program what was decided.
type rolloutWorld struct {
	t        require.TestingT
	rollout  *v1alpha1.TrafficRollout
	now      time.Time
	members  []RolloutMember
	standing RolloutStanding
	held     string
	lagging  bool
	// since is when the hub began to look.
	since time.Time
	// stuck are members that program nothing.
	stuck map[string]bool
	plan  RolloutPlan
	// unheard are verbs that could do nothing.
	unheard []string
	// unsaved is the status as a hub has it that never dies.
	unsaved v1alpha1.TrafficRolloutStatus
	// check is made of each state and the one before.
	check func(before v1alpha1.TrafficRolloutStatus)
}

// newRolloutWorld is a rollout that has come as far as it comes by itself.
func newRolloutWorld(t require.TestingT, spec v1alpha1.TrafficRolloutSpec, clusters ...string) *rolloutWorld {
	w := bareRolloutWorld(t, spec, clusters...)
	w.settle()
	return w
}

func bareRolloutWorld(t require.TestingT, spec v1alpha1.TrafficRolloutSpec, clusters ...string) *rolloutWorld {
	w := &rolloutWorld{t: t, now: time.Unix(1_000_000, 0).UTC(), stuck: map[string]bool{},
		rollout: &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "r", Generation: 1,
			Annotations: map[string]string{}}, Spec: spec}}
	for _, c := range clusters {
		w.members = append(w.members, RolloutMember{Name: c, Labels: map[string]string{"name": c}, Serves: true})
	}
	return w
}

// advance takes one state, and keeps it as a hub would that dies and is started again.
func (w *rolloutWorld) advance(measured ...Measured) {
	snapshot := RolloutSnapshot{Rollout: w.rollout, Members: w.members, Standing: w.standing, Held: w.held,
		Lagging: w.lags(), Measured: measured, Since: w.since, Now: w.now}
	before := w.rollout.Status
	w.plan = AdvanceRollout(snapshot)
	snapshot.Rollout = w.rollout.DeepCopy()
	snapshot.Rollout.Status = w.unsaved
	w.unsaved = AdvanceRollout(snapshot).Status
	w.unheard = append(w.unheard, w.plan.Unheard...)
	text, err := json.Marshal(w.plan.Status)
	require.NoError(w.t, err)
	changed := overlaid(w.rollout.Status) != overlaid(w.plan.Status)
	w.rollout.Status = v1alpha1.TrafficRolloutStatus{}
	require.NoError(w.t, json.Unmarshal(text, &w.rollout.Status))
	w.lagging = changed
	unsaved, err := json.Marshal(w.unsaved)
	require.NoError(w.t, err)
	require.Equal(w.t, string(unsaved), string(text), "a restart changed something")
	if w.check != nil {
		w.check(before)
	}
}

// lags are the members that have not programmed what was decided last: all of them right after it was.
func (w *rolloutWorld) lags() []string {
	var names []string
	for _, m := range w.members {
		if w.lagging || w.stuck[m.Name] {
			names = append(names, m.Name)
		}
	}
	return names
}

// overlaid is what members have to program.
func overlaid(s v1alpha1.TrafficRolloutStatus) string {
	text := fmt.Sprint(s.HeaderRoute, s.Mirror, s.PreviewHostname)
	for _, c := range s.Clusters {
		text += fmt.Sprint(c.Cluster, c.Weight)
	}
	return text
}

// settle advances until nothing changes but time.
func (w *rolloutWorld) settle() {
	for range 200 {
		before, _ := json.Marshal(w.rollout.Status)
		w.advance()
		w.advance()
		if after, _ := json.Marshal(w.rollout.Status); string(after) == string(before) {
			return
		}
	}
	require.Fail(w.t, "the state never settles", "%+v", w.rollout.Status)
}

func (w *rolloutWorld) pass(d time.Duration) *rolloutWorld {
	w.now = w.now.Add(d)
	w.settle()
	return w
}

// say gives verbs a new value.
func (w *rolloutWorld) say(verbs ...string) *rolloutWorld {
	for _, v := range verbs {
		w.rollout.Annotations[v] += "x"
	}
	w.settle()
	return w
}

func (w *rolloutWorld) serves(cluster string, serves bool) *rolloutWorld {
	w.see(cluster, serves)
	w.settle()
	return w
}

// see has the new side serve in a cluster, or not.
func (w *rolloutWorld) see(cluster string, serves bool) {
	for i := range w.members {
		if w.members[i].Name == cluster {
			w.members[i].Serves, w.members[i].Message = serves, "no endpoint is ready"
		}
	}
}

func (w *rolloutWorld) stick(cluster string, stuck bool) *rolloutWorld {
	w.stuck[cluster] = stuck
	w.settle()
	return w
}

// is tells where the rollout stands: the phase, then each cluster's weight.
func (w *rolloutWorld) is(want string) *rolloutWorld {
	got := string(w.rollout.Status.Phase)
	for _, c := range w.rollout.Status.Clusters {
		got += fmt.Sprintf(" %s=%d", c.Cluster, c.Weight)
	}
	require.Equal(w.t, want, got, w.rollout.Status.Message)
	return w
}

func (w *rolloutWorld) says(part string) *rolloutWorld {
	require.Contains(w.t, w.rollout.Status.Message, part)
	return w
}

func steps(weights ...int32) []v1alpha1.CanaryStep {
	var out []v1alpha1.CanaryStep
	for _, weight := range weights {
		out = append(out, v1alpha1.CanaryStep{SetWeight: &weight}, v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}})
	}
	return out
}

func canarySpec(steps ...v1alpha1.CanaryStep) v1alpha1.TrafficRolloutSpec {
	return v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "shop"}, Canary: &v1alpha1.CanaryStrategy{
		Stable: v1alpha1.RolloutSide{Name: "cart"}, Canary: v1alpha1.RolloutSide{Name: "cart-v2"}, Steps: steps}}
}

func wavesByName(names ...string) []v1alpha1.RolloutWave {
	var out []v1alpha1.RolloutWave
	for _, name := range names {
		out = append(out, v1alpha1.RolloutWave{Name: name, Clusters: []string{name}})
	}
	return out
}

func TestACanaryGoesStepByStep(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks", "gke")
	w.is("Paused eks=10 gke=10").says("promote")
	w.say(v1alpha1.VerbPromote).is("Paused eks=50 gke=50")
	require.True(t, w.plan.Finalizer)
	w.say(v1alpha1.VerbPromote).is("Healthy eks=100 gke=100").says("make the route name it")
	require.True(t, w.plan.Finalizer, "without it a deletion would send all back")
	w.standing = RolloutStanding{Adopted: true, Idle: true}
	w.pass(0).is("Healthy").says("can be deleted")
	require.False(t, w.plan.Finalizer)
	w.standing = RolloutStanding{Refused: "the route names neither", Idle: true}
	w.pass(time.Hour).is("Healthy").says("can be deleted")
	w.rollout.Generation++
	w.pass(0).is("Pending").says("the route names neither")
}

// Who has everything at the new side and edits the spec, or makes a mistake in it, sends nothing back.
func TestAChangedSpecSendsNothingBack(t *testing.T) {
	complete := func() *rolloutWorld {
		spec := canarySpec(steps(10)...)
		spec.Waves = wavesByName("eks", "gke")
		return newRolloutWorld(t, spec, "eks", "gke", "aks").say(v1alpha1.VerbPromoteFull).is("Healthy eks=100 gke=100")
	}
	t.Run("of the same sides", func(t *testing.T) {
		w := complete()
		w.rollout.Generation++
		w.rollout.Spec.ProgressDeadline = &metav1.Duration{Duration: time.Hour}
		w.pass(0).is("Healthy eks=100 gke=100").says("make the route name it")
		w.say(v1alpha1.VerbAbort).is("Degraded eks=0 gke=0")
	})
	t.Run("that selects more", func(t *testing.T) {
		w := complete()
		w.rollout.Generation++
		w.rollout.Spec.Waves = nil
		w.pass(0).is("Pending eks=100 gke=100").says("now also aks is selected")
		require.True(t, w.plan.Finalizer)
		w.say(v1alpha1.VerbAbort).is("Degraded aks=0 eks=0 gke=0")
		w.say(v1alpha1.VerbRetry).is("Paused aks=10 eks=10 gke=10")
	})
	t.Run("that cannot run", func(t *testing.T) {
		for name, w := range map[string]*rolloutWorld{"Pending eks=100 gke=100": complete(), "Pending eks=10": newRolloutWorld(t, canarySpec(steps(10)...), "eks")} {
			w.rollout.Generation++
			w.rollout.Spec.Canary.Canary.Name, w.standing.Refused = "cart-v3", "no cluster exports it"
			w.pass(0).is(name).says("no cluster exports it")
			require.Equal(t, "cart-v2", w.rollout.Status.Laid.To.Name)
			w.say(v1alpha1.VerbPromote).is(name)
		}
	})
	t.Run("that could not run, and was aborted", func(t *testing.T) {
		w := newRolloutWorld(t, canarySpec(steps(10)...), "eks")
		w.rollout.Generation++
		w.standing.Refused = "no cluster exports it"
		w.pass(0).say(v1alpha1.VerbAbort).is("Degraded eks=0")
		w.standing.Refused = ""
		w.pass(0).is("Degraded eks=0").say(v1alpha1.VerbRetry).is("Paused eks=10")
	})
}

// A word to stop may be said before a hub has seen the spec that it is of.
func TestAWordToStopIsHeardOfASpecThatNobodyHasSeen(t *testing.T) {
	for verb, want := range map[string]string{v1alpha1.VerbAbort: "Degraded eks=0", v1alpha1.VerbPause: "Paused eks=0", v1alpha1.VerbPromoteFull: "Paused eks=10"} {
		w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks").say(v1alpha1.VerbPause, v1alpha1.VerbResume)
		w.rollout.Generation++
		w.say(verb).is(want)
		created := bareRolloutWorld(t, canarySpec(steps(10, 50)...), "eks")
		created.say(verb).is(want)
	}
}

// Another label of a MemberCluster moves nothing by itself.
func TestALabelIsNoStep(t *testing.T) {
	spec := canarySpec(steps(10)...)
	spec.Waves = []v1alpha1.RolloutWave{{Name: "first", ClusterSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "1"}}},
		{Name: "rest", ClusterSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "2"}}}, {Name: "last", Clusters: []string{"zks"}}}
	w := bareRolloutWorld(t, spec, "aks", "eks", "zks")
	tier := func(i int, tier string) { w.members[i].Labels = map[string]string{"tier": tier} }
	tier(0, "1")
	tier(1, "2")
	w.pass(0).say(v1alpha1.VerbPromote).is("Paused aks=100 eks=10 zks=0")
	tier(1, "1")
	w.pass(0).is("Paused aks=100 eks=10 zks=0")
	tier(0, "3")
	tier(1, "3")
	w.pass(0).is("Paused aks=100 eks=10 zks=0")
	tier(2, "1")
	w.pass(0).is("Paused aks=100 eks=10 zks=10")
}

func TestTimedPausesEndByThemselves(t *testing.T) {
	ten, seconds := gatewayv1.Duration("10m"), gatewayv1.Duration("5s")
	w := newRolloutWorld(t, canarySpec(append(steps(10)[:1], v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{Duration: &ten}},
		v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{Duration: &seconds}})...), "eks")
	w.is("Paused eks=10")
	require.Equal(t, 10*time.Minute, w.plan.WakeAfter)
	w.pass(10*time.Minute - time.Second).is("Paused eks=10")
	w.pass(time.Second).is("Paused eks=10")
	require.Equal(t, 5*time.Second, w.plan.WakeAfter)
	w.pass(5 * time.Second).is("Healthy eks=100")
}

func TestWavesGoOneAfterTheOther(t *testing.T) {
	spec := canarySpec(steps(50)...)
	spec.Waves = append(wavesByName("eks"), v1alpha1.RolloutWave{Name: "rest", ClusterSelector: &metav1.LabelSelector{}})
	spec.Waves[0].Hold = &metav1.Duration{Duration: time.Hour}
	w := newRolloutWorld(t, spec, "aks", "eks", "gke")
	w.is("Paused aks=0 eks=50 gke=0")
	w.say(v1alpha1.VerbPromote).is("Paused aks=0 eks=100 gke=0").says("1h0m0s")
	w.serves("eks", false).is("Progressing aks=0 eks=100 gke=0").says("wave eks is not well")
	w.serves("eks", true).pass(59 * time.Minute).is("Paused aks=0 eks=100 gke=0")
	w.pass(time.Minute).is("Paused aks=50 eks=100 gke=50")
	w.say(v1alpha1.VerbPromote).is("Healthy aks=100 eks=100 gke=100")
}

// What a look writes wakes the next one: one that writes another time each time never ends.
func TestAWaveThatIsNotWellIsSaidOnceAndBecomesLate(t *testing.T) {
	spec := canarySpec(steps(50)...)
	spec.Waves = wavesByName("eks", "gke")
	spec.Waves[0].Hold = &metav1.Duration{Duration: time.Hour}
	w := newRolloutWorld(t, spec, "eks", "gke").say(v1alpha1.VerbPromote).pass(59 * time.Minute)
	w.serves("eks", false).is("Progressing eks=100 gke=0").says("wave eks is not well")
	require.Equal(t, 10*time.Minute, w.plan.WakeAfter)
	said := w.rollout.Status.DeepCopy()
	w.pass(time.Minute)
	require.Equal(t, *said, w.rollout.Status)
	w.pass(9 * time.Minute).is("Degraded eks=100 gke=0").says("no progress for 10m0s: wave eks is not well")
	w.serves("eks", true).is("Paused eks=100 gke=0").pass(59 * time.Minute).is("Paused eks=100 gke=0")
	w.pass(time.Minute).is("Paused eks=100 gke=50")
}

func TestAWaveWaitsForALostCanary(t *testing.T) {
	spec := canarySpec(steps(10, 50)...)
	w := newRolloutWorld(t, spec, "eks", "gke")
	w.serves("gke", false).say(v1alpha1.VerbPromote).is("Progressing eks=10 gke=10").says("waits, at 10 %, for cart-v2 in gke: no endpoint is ready")
	require.Equal(t, "no endpoint is ready", w.rollout.Status.Clusters[1].Message)
	w.pass(10 * time.Minute).is("Degraded eks=10 gke=10").says("no progress for 10m0s")
	w.serves("gke", true).is("Paused eks=50 gke=50")
	w.serves("gke", false).say(v1alpha1.VerbPromote).is("Progressing eks=50 gke=50")
	w.say(v1alpha1.VerbPromote).is("Progressing eks=100 gke=100").says("wave all is not well")
	w.say(v1alpha1.VerbPromote).is("Healthy eks=100 gke=100")
}

func TestANewSideThatNeverServedGetsNoWeight(t *testing.T) {
	w := &rolloutWorld{t: t}
	*w = *newRolloutWorld(t, canarySpec(steps(10)...))
	w.is("Progressing").says("wave all has no cluster")
	w.members = []RolloutMember{{Name: "eks", Message: "not exported"}}
	w.pass(time.Second).is("Progressing eks=0").says("waits, at 0 %, for cart-v2 in eks: not exported")
}

func TestAWeightIsWaitedForUntilItIsProgrammed(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(append(steps(10)[:1], steps(20)...)...), "eks", "gke")
	w.is("Paused eks=20 gke=20")
	w.stick("gke", true).say(v1alpha1.VerbPromote).is("Progressing eks=100 gke=100").says("being programmed in gke")
	w.stick("gke", false).is("Healthy eks=100 gke=100")
}

func TestVerbs(t *testing.T) {
	at10 := func(t *testing.T) *rolloutWorld {
		return newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks").is("Paused eks=10")
	}
	t.Run("abort, and retry", func(t *testing.T) {
		w := at10(t).say(v1alpha1.VerbAbort).is("Degraded eks=0").says("aborted, and everything is at cart: by a person")
		require.False(t, w.plan.Finalizer)
		w.pass(time.Hour).is("Degraded eks=0")
		w.say(v1alpha1.VerbRetry).is("Paused eks=10")
	})
	t.Run("a new spec after an abort begins anew", func(t *testing.T) {
		w := at10(t).say(v1alpha1.VerbAbort)
		w.rollout.Generation, w.rollout.Spec.Canary.Steps = 2, steps(30)
		w.pass(0).is("Paused eks=30")
	})
	t.Run("a new spec in the middle begins anew", func(t *testing.T) {
		w := at10(t).say(v1alpha1.VerbPromote).is("Paused eks=50")
		w.rollout.Generation = 2
		w.pass(0).is("Paused eks=10")
	})
	t.Run("pause and resume", func(t *testing.T) {
		w := at10(t).say(v1alpha1.VerbPause).is("Paused eks=10").says(v1alpha1.VerbResume)
		w.say(v1alpha1.VerbResume).is("Paused eks=10").says(v1alpha1.VerbPromote)
		w.say(v1alpha1.VerbPause).say(v1alpha1.VerbPromote).is("Paused eks=10")
		w.say(v1alpha1.VerbPromote).is("Paused eks=50")
	})
	t.Run("promote fully", func(t *testing.T) {
		at10(t).say(v1alpha1.VerbPromoteFull).is("Healthy eks=100")
	})
	t.Run("abort goes before promote", func(t *testing.T) {
		at10(t).say(v1alpha1.VerbPromoteFull, v1alpha1.VerbAbort).is("Degraded eks=0")
	})
	t.Run("what there is nothing to do for is said", func(t *testing.T) {
		w := at10(t).say(v1alpha1.VerbRetry, v1alpha1.VerbResume, v1alpha1.VerbSkipAnalysis)
		require.Equal(t, []string{"retry has nothing to do: it was not aborted, and no analysis waits for a verdict", "resume has nothing to do: it is not paused by a person",
			"skip-analysis has nothing to do: the step is not an analysis"}, w.unheard)
		w.say(v1alpha1.VerbPromoteFull).is("Healthy eks=100").say(v1alpha1.VerbPromote, v1alpha1.VerbPause).is("Healthy eks=100")
		require.Equal(t, []string{"promote has nothing to do: it is complete", "pause has nothing to do: it is complete"}, w.unheard[3:])
		w.say(v1alpha1.VerbAbort).is("Degraded eks=0")
	})
	t.Run("a promotion of what is only being programmed is not kept for the next pause", func(t *testing.T) {
		w := at10(t).stick("eks", true).say(v1alpha1.VerbPromote).is("Progressing eks=50")
		w.say(v1alpha1.VerbPromote).stick("eks", false).is("Paused eks=50")
		require.Contains(t, w.unheard[0], "nothing waits for a person: 50 % is being programmed")
	})
	t.Run("verbs that were said of an earlier spec are not heard", func(t *testing.T) {
		w := at10(t)
		w.rollout.Generation = 2
		w.say(v1alpha1.VerbPromoteFull).is("Paused eks=10")
	})
}

// delete does what an API server does with an object that has a finalizer.
func (w *rolloutWorld) delete() *rolloutWorld {
	w.rollout.DeletionTimestamp = &metav1.Time{Time: w.now}
	w.rollout.Generation++
	return w.pass(0)
}

func TestACompleteRolloutThatIsDeletedStaysInForce(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks")
	w.say(v1alpha1.VerbPromoteFull).is("Healthy eks=100")
	w.delete().is("Healthy eks=100")
	require.True(t, w.plan.Finalizer)
	w.standing = RolloutStanding{Adopted: true, Idle: true}
	w.pass(0).is("Healthy")
	require.False(t, w.plan.Finalizer)
	require.True(t, retired(w.rollout), "nothing is laid over the route while the finalizer goes")
}

func TestADeletedRolloutStaysAsItIs(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks")
	w.delete().is("Paused eks=10").says("deleted while it is under way")
	w.say(v1alpha1.VerbPromote).is("Paused eks=10").says("deleted while it is under way")
	require.True(t, w.plan.Finalizer)
	w.say(v1alpha1.VerbAbort).is("Degraded eks=0")
	require.False(t, w.plan.Finalizer)
}

func TestARolloutWaitsWhileAPersonHoldsTheRoute(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks")
	w.held = "night"
	w.say(v1alpha1.VerbPromote).is("Paused eks=10").says("TrafficOverride night holds the weights")
	w.held = ""
	w.pass(0).is("Paused eks=50")
	w.held = "night"
	w.say(v1alpha1.VerbAbort).is("Degraded eks=0")
}

func TestARefusedRolloutLeavesTheTrafficWhereItIs(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks")
	w.standing.Refused = "nobody exports it"
	w.say(v1alpha1.VerbPromote).is("Pending eks=10").says("nobody exports it")
	require.Equal(t, []string{"promote has nothing to do: it cannot run: nobody exports it"}, w.unheard)
	require.True(t, w.plan.Finalizer)
	w.standing.Idle = true
	w.pass(0).is("Pending eks=10")
	require.False(t, w.plan.Finalizer, "it lies over nothing: whoever deletes it must not wait for ever")
	w.standing = RolloutStanding{}
	w.pass(time.Hour).is("Paused eks=10")
	w.standing.Refused = "the route names both"
	w.say(v1alpha1.VerbAbort).is("Degraded eks=0")
}

func TestHeaderRoutesAndMirrorsLastUntilTheyAreEnded(t *testing.T) {
	match := []gatewayv1.HTTPHeaderMatch{{Name: "X-Version", Value: "v2"}}
	w := newRolloutWorld(t, canarySpec(
		v1alpha1.CanaryStep{SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{Match: match}},
		v1alpha1.CanaryStep{SetMirror: &v1alpha1.RolloutMirror{Percent: 20}},
		v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}},
		v1alpha1.CanaryStep{SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{}},
		v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}}), "eks")
	require.Equal(t, match, w.is("Paused eks=0").rollout.Status.HeaderRoute)
	require.EqualValues(t, 20, w.rollout.Status.Mirror)
	require.Empty(t, w.say(v1alpha1.VerbPromote).rollout.Status.HeaderRoute)
	require.EqualValues(t, 20, w.rollout.Status.Mirror)
	require.Zero(t, w.say(v1alpha1.VerbPromote).is("Healthy eks=100").rollout.Status.Mirror)
}

func TestBlueGreen(t *testing.T) {
	match := []gatewayv1.HTTPHeaderMatch{{Name: "X-Preview", Value: "yes"}}
	spec := v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "shop"}, BlueGreen: &v1alpha1.BlueGreenStrategy{
		Active: v1alpha1.RolloutSide{Name: "cart"}, Preview: v1alpha1.RolloutSide{Name: "cart-v2"}, PreviewMatch: match,
		KeepWarm: &metav1.Duration{Duration: time.Minute}}}
	w := newRolloutWorld(t, spec, "eks", "gke").is("Paused eks=0 gke=0").says("the preview is there to be looked at")
	require.Equal(t, match, w.rollout.Status.HeaderRoute)
	w.say(v1alpha1.VerbPromote).is("Paused eks=100 gke=100").says("keep cart as it is")
	w.pass(time.Minute).is("Healthy eks=100 gke=100")

	back := newRolloutWorld(t, spec, "eks").say(v1alpha1.VerbPromote).is("Paused eks=100")
	back.say(v1alpha1.VerbAbort).is("Degraded eks=0")

	spec.BlueGreen.AutoPromotion = true
	newRolloutWorld(t, spec, "eks").is("Paused eks=100")
	spec.Waves = wavesByName("eks", "gke")
	newRolloutWorld(t, spec, "eks", "gke").is("Paused eks=100 gke=0").pass(time.Minute).is("Paused eks=100 gke=100")
}

// Nobody is late while no hub looks.
func TestAHubThatWasAwayAbortsNothing(t *testing.T) {
	spec := canarySpec(steps(10, 50)...)
	spec.ProgressDeadlineAbort = true
	w := newRolloutWorld(t, spec, "eks").stick("eks", true).say(v1alpha1.VerbPromote).is("Progressing eks=50")
	w.now = w.now.Add(time.Hour)
	w.since = w.now
	w.pass(0).is("Progressing eks=50").pass(9 * time.Minute).is("Progressing eks=50")
	w.pass(time.Minute).is("Degraded eks=0").says("aborted")
}

// A member whose API server is away for long is no reason for all others to wait, if a person says so.
func TestAPersonGoesOnWithoutAMemberThatIsLate(t *testing.T) {
	late := func() *rolloutWorld {
		w := newRolloutWorld(t, canarySpec(steps(10, 50)...), "eks", "gke").stick("gke", true).say(v1alpha1.VerbPromote).is("Progressing eks=50 gke=50")
		return w.pass(10 * time.Minute).is("Degraded eks=50 gke=50").says(v1alpha1.VerbPromote)
	}
	w := late().say(v1alpha1.VerbPromote).is("Paused eks=50 gke=50").says("waits for a person")
	w.say(v1alpha1.VerbPromote).is("Progressing eks=100 gke=100").says("being programmed in gke")
	w = late().say(v1alpha1.VerbPromoteFull).is("Progressing eks=100 gke=100")
	w.pass(10 * time.Minute).is("Healthy eks=100 gke=100")
}

func TestASmallerWeightWaitsForNoLostCanary(t *testing.T) {
	w := newRolloutWorld(t, canarySpec(steps(50, 10, 20)...), "eks", "gke").is("Paused eks=50 gke=50")
	w.serves("gke", false).say(v1alpha1.VerbPromote).is("Paused eks=10 gke=10")
	w.say(v1alpha1.VerbPromote).is("Progressing eks=10 gke=10").says("waits, at 10 %")
}

func TestTheDeadlineAborts(t *testing.T) {
	spec := canarySpec(steps(10, 50)...)
	spec.ProgressDeadline, spec.ProgressDeadlineAbort = &metav1.Duration{Duration: time.Minute}, true
	w := newRolloutWorld(t, spec, "eks").pass(time.Hour).is("Paused eks=10")
	w.serves("eks", false).say(v1alpha1.VerbPromote).is("Progressing eks=10")
	require.Equal(t, time.Minute, w.plan.WakeAfter)
	w.pass(time.Minute).is("Degraded eks=0").says("aborted")
}

// Whatever people say, whatever is lost and measured, and however often the hub dies: a weight rises by one step at a time, when
// its wave has come and the new side serves, unless a person sends it on; who was aborted has nothing at the new side, and what
// waits says what for, and not for longer than its deadline.
func TestRolloutsAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := bareRolloutWorld(t, drawRollout(t), "a", "b", "c")
		w.check = func(before v1alpha1.TrafficRolloutStatus) { checkRollout(t, w, before) }
		w.settle()
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			rolloutHappening(t, w)
			w.settle()
			checkVerdictOfAbort(t, w)
			checkQuiet(t, w)
		}
	})
}

func drawRollout(t *rapid.T) v1alpha1.TrafficRolloutSpec {
	metric := successRate()
	metric.Count, metric.FailureLimit = rapid.Int32Range(1, 2).Draw(t, "count"), rapid.Int32Range(0, 1).Draw(t, "failures")
	limit := rapid.Int32Range(0, 1).Draw(t, "errors")
	metric.ConsecutiveErrorLimit = &limit
	spec := canarySpec()
	for range rapid.IntRange(1, 6).Draw(t, "steps") {
		spec.Canary.Steps = append(spec.Canary.Steps, drawStep(t, metric))
	}
	if rapid.Bool().Draw(t, "beside") {
		spec.Canary.Analysis = analysisOf(metric)
	}
	if rapid.IntRange(0, 3).Draw(t, "blue-green") == 0 {
		spec.BlueGreen = &v1alpha1.BlueGreenStrategy{Active: spec.Canary.Stable, Preview: spec.Canary.Canary, AutoPromotion: rapid.Bool().Draw(t, "auto"), PreviewHostname: "preview.example.com",
			PreviewMatch: []gatewayv1.HTTPHeaderMatch{{Name: "X-Preview", Value: "yes"}}, PrePromotionAnalysis: analysisOf(metric)}
		spec.Canary = nil
	}
	if rapid.Bool().Draw(t, "waves") {
		spec.Waves = wavesByName("a", "b", "c")
		spec.Waves[0].Hold = &metav1.Duration{Duration: time.Minute}
	}
	spec.ProgressDeadlineAbort = rapid.Bool().Draw(t, "deadline aborts")
	return spec
}

func drawStep(t *rapid.T, metric v1alpha1.RolloutMetric) v1alpha1.CanaryStep {
	weight, lasts := rapid.Int32Range(0, 99).Draw(t, "weight"), gatewayv1.Duration("1m")
	return rapid.SampledFrom([]v1alpha1.CanaryStep{{SetWeight: &weight}, {SetWeight: &weight}, {Pause: &v1alpha1.RolloutPause{}},
		{Pause: &v1alpha1.RolloutPause{Duration: &lasts}}, {Analysis: analysisOf(metric)}, {SetMirror: &v1alpha1.RolloutMirror{Percent: weight}}}).Draw(t, "step")
}

// rolloutHappening lets something happen to a rollout.
func rolloutHappening(t *rapid.T, w *rolloutWorld) {
	i := rapid.IntRange(0, len(w.members)-1).Draw(t, "cluster")
	cluster := w.members[i].Name
	switch rapid.SampledFrom([]string{"verb", "verb", "verb", "serves", "stuck", "time", "time", "measured", "measured", "held", "refused", "rare"}).Draw(t, "event") {
	case "verb":
		for _, v := range rapid.SliceOfN(rapid.SampledFrom(rolloutVerbs), 1, 2).Draw(t, "verbs") {
			w.rollout.Annotations[v.name] += "x"
		}
	case "serves":
		w.see(cluster, !w.members[i].Serves)
	case "stuck":
		w.stuck[cluster] = !w.stuck[cluster]
	case "time":
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "seconds")) * time.Second)
	case "measured":
		w.measure(rapid.SampledFrom([]Measured{value(1), value(1), value(0), {}, {Error: "away"}}).Draw(t, "answer"))
	case "held":
		w.held = rapid.SampledFrom([]string{"", "night"}).Draw(t, "held")
	case "refused":
		w.standing.Refused = rapid.SampledFrom([]string{"", "no route"}).Draw(t, "refused")
	case "rare":
		rapid.SampledFrom([]func(){func() { w.rollout.Generation++ }, func() { w.rollout.DeletionTimestamp = &metav1.Time{Time: w.now} },
			func() { w.standing = RolloutStanding{Adopted: true, Idle: true} }}).Draw(t, "rare")()
	}
}

func checkRollout(t *rapid.T, w *rolloutWorld, before v1alpha1.TrafficRolloutStatus) {
	is, steps := w.rollout.Status, stepsOf(w.rollout.Spec)
	require.NotEmpty(t, is.Message)
	was := map[string]int32{}
	for _, c := range before.Clusters {
		was[c.Cluster] = c.Weight
	}
	for i, c := range is.Clusters {
		if is.Aborted != "" {
			require.Zero(t, c.Weight, "aborted, and it has weight")
		}
		if c.Weight <= was[c.Cluster] {
			continue
		}
		sentOn := w.plan.Status.Promoted != ""
		require.Equal(t, is.WaveName, c.Wave, "a weight rises in a wave that is not under way")
		require.Equal(t, *steps[is.Step].weight, c.Weight, "a weight that its step does not have")
		require.True(t, w.members[i].Serves || sentOn, "a weight rises, and the new side does not serve")
		require.Empty(t, w.held, "a weight rises while the route is held")
		begun := deref(is.Laid) != deref(before.Laid)
		require.True(t, is.Promoted == v1alpha1.PromotedFull || was[c.Cluster] == weightBefore(steps, int(is.Step)) ||
			begun && was[c.Cluster] > weightBefore(steps, int(is.Step)), "a step was left out")
	}
	for i := 1; i < len(is.Clusters) && len(w.rollout.Spec.Waves) > 0; i++ {
		require.True(t, is.Clusters[i].Weight == 0 || is.Clusters[i-1].Weight == 100, "the wave before is not done")
	}
	if is.Phase == v1alpha1.RolloutProgressing {
		require.True(t, w.now.Before(is.Progressed.Add(defaultProgressDeadline)), "it goes on without progress")
	}
}

// weightBefore is the weight that a wave has when it comes to a step.
func weightBefore(steps []rolloutStep, at int) int32 {
	weight := int32(0)
	for _, s := range steps[:at] {
		if s.weight != nil {
			weight = *s.weight
		}
	}
	return weight
}

// checkQuiet: time alone changes nothing before the state says so. What a look changes wakes the next one.
func checkQuiet(t *rapid.T, w *rolloutWorld) {
	later := *w
	later.rollout, later.check = w.rollout.DeepCopy(), nil
	passes := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "passes"))
	if w.plan.WakeAfter > 0 {
		passes = min(passes, w.plan.WakeAfter-1)
	}
	later.now = w.now.Add(passes)
	later.advance()
	require.Equal(t, w.rollout.Status, later.rollout.Status, "after %s, of %s", passes, w.plan.WakeAfter)
}

// checkVerdictOfAbort: whatever the state, one word takes everything back; unless the route itself has gone on.
func checkVerdictOfAbort(t *rapid.T, w *rolloutWorld) {
	back := *w
	back.rollout, back.check = w.rollout.DeepCopy(), nil
	back.rollout.Annotations[v1alpha1.VerbAbort] += "x"
	back.settle()
	require.True(t, back.rollout.Status.Aborted != "" || back.rollout.Status.Retired, "an abort was not heard: %s", back.rollout.Status.Message)
	for _, c := range back.rollout.Status.Clusters {
		require.Zero(t, c.Weight)
	}
	require.False(t, back.plan.Finalizer)
	require.Empty(t, back.rollout.Status.HeaderRoute)
	require.Zero(t, back.rollout.Status.Mirror)
	require.Empty(t, back.rollout.Status.PreviewHostname)
}
