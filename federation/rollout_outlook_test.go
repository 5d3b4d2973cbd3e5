// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// looksLike tells what the outlook waits for, and which verbs it names.
func (w *rolloutWorld) looksLike(wait RolloutWait, verbs string) RolloutOutlook {
	o := OutlookOf(w.rollout)
	require.Equal(w.t, wait, o.Waits, w.rollout.Status.Message)
	require.Equal(w.t, verbs, strings.Join(o.Verbs, " "))
	return o
}

func TestWhatARolloutWaitsFor(t *testing.T) {
	const running = "promote promote-full pause abort"
	ten := gatewayv1.Duration("10m")
	spec := canarySpec(append(steps(10), v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{Duration: &ten}},
		v1alpha1.CanaryStep{Analysis: analysisOf(successRate())})...)
	spec.Waves = wavesByName("eks", "gke")
	spec.Waves[0].Hold = &metav1.Duration{Duration: time.Hour}
	w := newRolloutWorld(t, spec, "eks", "gke")
	w.looksLike(WaitsForPerson, running)
	w.say(v1alpha1.VerbPause).looksLike(WaitsForPerson, "resume promote promote-full abort")
	w.say(v1alpha1.VerbResume, v1alpha1.VerbPromote)
	require.WithinDuration(t, w.now.Add(10*time.Minute), w.looksLike(WaitsForTime, running).Until, 0)
	w.pass(10*time.Minute).looksLike(WaitsForMeasurement, "skip-analysis promote-full pause abort")
	w.stick("gke", true)
	w.measure(value(1), value(1), value(1)).looksLike(WaitsForClusters, "promote-full pause abort")
	w.pass(time.Hour).is("Degraded eks=100 gke=0").looksLike(WaitsForClusters, running)
	w.stick("gke", false)
	require.WithinDuration(t, w.now.Add(time.Hour), w.looksLike(WaitsForTime, running).Until, 0)
	w.serves("gke", false).pass(time.Hour).is("Progressing eks=100 gke=0").looksLike(WaitsForClusters, running)
	w.serves("gke", true).is("Paused eks=100 gke=10")
	deleted := metav1.Now()
	w.rollout.DeletionTimestamp = &deleted
	w.pass(0).looksLike(WaitsForPerson, "abort")
	w.rollout.DeletionTimestamp = nil
	w.held = "hold-shop"
	w.pass(0).says("TrafficOverride").looksLike(WaitsForPerson, running)
	w.held = ""
	w.say(v1alpha1.VerbAbort).looksLike("", "retry")
	w.say(v1alpha1.VerbRetry, v1alpha1.VerbPromoteFull).is("Healthy eks=100 gke=100").looksLike("", "abort")
	w.standing = RolloutStanding{Adopted: true}
	w.pass(0).looksLike("", "")
	refused := newRolloutWorld(t, spec, "eks")
	refused.standing = RolloutStanding{Refused: "the route is gone"}
	refused.rollout.Generation++
	refused.pass(0).is("Pending eks=10").looksLike("", "abort")
	analysed(t, successRate()).measure(Measured{}).looksLike(WaitsForPerson, "retry skip-analysis promote promote-full pause abort")
}

func TestTheWayOfARollout(t *testing.T) {
	blue := v1alpha1.TrafficRolloutSpec{BlueGreen: &v1alpha1.BlueGreenStrategy{Active: v1alpha1.RolloutSide{Name: "cart"}, Preview: v1alpha1.RolloutSide{Name: "cart-v2"},
		PreviewMatch: []gatewayv1.HTTPHeaderMatch{{Name: "X-Preview", Value: "yes"}}, PrePromotionAnalysis: analysisOf(successRate())}}
	mirror := canarySpec(v1alpha1.CanaryStep{SetMirror: &v1alpha1.RolloutMirror{Percent: 20}},
		v1alpha1.CanaryStep{SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{}}, steps(50)[0], steps(50)[1])
	mirror.Waves = wavesByName("eks", "gke")
	way := func(w *rolloutWorld) string {
		var lines []string
		for _, wave := range OutlookOf(w.rollout).Waves {
			lines = append(lines, string(wave.Progress)+" "+wave.Name)
			for _, s := range wave.Steps {
				line := "  " + string(s.Progress) + " " + s.Words
				for _, m := range s.Metrics {
					line += " (" + m.Name + ")"
				}
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	require.Equal(t, `UnderWay all
  Done header route X-Preview: yes
  UnderWay measure success-rate (success-rate)
  ToCome wait for a person
  ToCome weight 100 %
  ToCome wait for 30s`, way(newRolloutWorld(t, blue, "eks")))
	w := newRolloutWorld(t, mirror, "eks", "gke").say(v1alpha1.VerbPromote)
	require.Equal(t, `Done eks
  Done mirror 20 %
  Done no header route any more
  Done weight 50 %
  Done wait for a person
  Done weight 100 %
UnderWay gke
  Done mirror 20 %
  Done no header route any more
  Done weight 50 %
  UnderWay wait for a person
  ToCome weight 100 %`, way(w))
	require.NotContains(t, way(w.say(v1alpha1.VerbAbort)), "Done")
	require.NotContains(t, way(w.say(v1alpha1.VerbRetry, v1alpha1.VerbPromoteFull)), "ToCome")
}

// Of a rollout that goes its way, exactly those verbs are named that it would hear.
func TestTheVerbsOfAnOutlookAreHeard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minute := gatewayv1.Duration("1m")
		spec := canarySpec(append(steps(10), v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{Duration: &minute}},
			v1alpha1.CanaryStep{Analysis: analysisOf(successRate())}, steps(60)[0])...)
		if rapid.Bool().Draw(t, "waves") {
			spec.Waves = wavesByName("a", "b")
		}
		w := newRolloutWorld(t, spec, "a", "b")
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			cluster := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "cluster")
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0, 1:
				w.say(rapid.SampledFrom(rolloutVerbs).Draw(t, "verb").name)
			case 2:
				w.serves(cluster, rapid.Bool().Draw(t, "serves"))
			case 3:
				w.stick(cluster, rapid.Bool().Draw(t, "stuck"))
			case 4:
				w.pass(time.Duration(rapid.IntRange(0, 100).Draw(t, "seconds")) * time.Second)
			case 5:
				w.measure(rapid.SampledFrom([]Measured{value(1), value(0), {}, {Error: "no answer"}}).Draw(t, "measured"))
			}
			var heard []string
			for _, v := range rolloutVerbs {
				told := w.rollout.DeepCopy()
				told.Annotations = maps.Clone(told.Annotations)
				told.Annotations[v.name] += "x"
				plan := AdvanceRollout(RolloutSnapshot{Rollout: told, Members: w.members, Now: w.now})
				if len(plan.Unheard) == 0 {
					_, verb, _ := strings.Cut(v.name, "/")
					heard = append(heard, verb)
				}
			}
			require.Equal(t, heard, OutlookOf(w.rollout).Verbs, w.rollout.Status.Message)
		}
	})
}
