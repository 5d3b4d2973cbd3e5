// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const verbPrefix = "rollout.isthmus.dev/"

// rolloutStory is a testdata/rollouts/*.in.yaml: a rollout over time. Its out.yaml tells the state after each event; or, where
// every verb is tried, the state of each scene and what each verb, by itself, makes of it.
type rolloutStory struct {
	// About says what the story is about.
	About    string                      `json:"about"`
	Clusters []string                    `json:"clusters"`
	Spec     v1alpha1.TrafficRolloutSpec `json:"spec"`
	// Verbs is whether every verb is tried in every scene.
	Verbs  bool           `json:"verbs,omitempty"`
	Scenes []rolloutScene `json:"scenes"`
}

// rolloutScene begins with a new rollout each time.
type rolloutScene struct {
	Name string `json:"name"`
	// Begin is what holds when the rollout is created.
	Begin  rolloutEvent   `json:"begin,omitzero"`
	Events []rolloutEvent `json:"events,omitempty"`
}

// rolloutEvent is what happens at one time.
type rolloutEvent struct {
	// Say are verbs that are said together.
	Say []string `json:"say,omitempty"`
	// Pass is how much time passes.
	Pass string `json:"pass,omitempty"`
	// Lost are clusters in which the new side serves no more, and Back those in which it does again.
	Lost []string `json:"lost,omitempty"`
	Back []string `json:"back,omitempty"`
	// Stuck are members that program nothing, and Free those that do again.
	Stuck []string `json:"stuck,omitempty"`
	Free  []string `json:"free,omitempty"`
	// Measured are answers to what is due, one after the other: a number, "no data", "yes", "no", or "error: why".
	Measured []string `json:"measured,omitempty"`
	// Held names the TrafficOverride that holds the route; "nobody" ends that. Refused is why it cannot run; "nothing" ends that.
	Held    string `json:"held,omitempty"`
	Refused string `json:"refused,omitempty"`
	// Adopted is whether the route names the new side, Deleted whether the rollout was deleted.
	Adopted bool `json:"adopted,omitempty"`
	Deleted bool `json:"deleted,omitempty"`
	// Changed is whether the spec was written anew.
	Changed bool `json:"changed,omitempty"`
}

// TestRolloutStories tells each testdata/rollouts/*.in.yaml. `go test ./federation -update` rewrites what is told.
func TestRolloutStories(t *testing.T) {
	inputs, err := filepath.Glob("testdata/rollouts/*.in.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			in, err := os.ReadFile(input)
			require.NoError(t, err)
			story := rolloutStory{}
			require.NoError(t, yaml.UnmarshalStrict(in, &story))
			got, golden := story.tell(t), strings.TrimSuffix(input, ".in.yaml")+".out.txt"
			if flag.Lookup("update").Value.String() == "true" {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "run `go test ./federation -update` and look at what it wrote")
			if diff := gocmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the story differs (-want +got); if it is right, run `go test ./federation -update`:\n%s", diff)
			}
		})
	}
}

func (s rolloutStory) tell(t *testing.T) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", s.About)
	for _, scene := range s.Scenes {
		fmt.Fprintf(&out, "\n%s\n", scene.Name)
		if s.Verbs {
			s.tryVerbs(t, scene, &out)
			continue
		}
		w := s.world(t, scene.Begin)
		fmt.Fprintf(&out, "  %-32s %s\n", "begins", w.state())
		for _, e := range scene.Events {
			w.happens(e)
			fmt.Fprintf(&out, "  %-32s %s\n", e, w.state())
			for _, text := range w.unheard {
				fmt.Fprintf(&out, "  %-32s %s\n", "", short(text))
			}
			w.unheard = nil
		}
	}
	return out.Bytes()
}

// tryVerbs plays a scene once for each verb, and says that at its end. One that has nothing to do moves nothing.
func (s rolloutStory) tryVerbs(t *testing.T, scene rolloutScene, out *bytes.Buffer) {
	play := func() *rolloutWorld {
		w := s.world(t, scene.Begin)
		for _, e := range scene.Events {
			w.happens(e)
		}
		w.unheard = nil
		return w
	}
	fmt.Fprintf(out, "  is             %s\n", play().state())
	for _, v := range []string{v1alpha1.VerbPromote, v1alpha1.VerbPromoteFull, v1alpha1.VerbPause, v1alpha1.VerbResume, v1alpha1.VerbAbort,
		v1alpha1.VerbRetry, v1alpha1.VerbSkipAnalysis} {
		w := play()
		before, text := overlaid(w.rollout.Status), ""
		w.say(v)
		if text = w.state(); len(w.unheard) > 0 {
			require.Equal(t, before, overlaid(w.rollout.Status), "%s in %s had nothing to do, and moved something", v, scene.Name)
			text = short(strings.Join(w.unheard, "; "))
		}
		fmt.Fprintf(out, "  %-14s %s\n", strings.TrimPrefix(v, verbPrefix), text)
	}
}

// world begins the rollout.
func (s rolloutStory) world(t *testing.T, begin rolloutEvent) *rolloutWorld {
	w := bareRolloutWorld(t, s.Spec, s.Clusters...)
	w.happens(begin)
	return w
}

// happens lets an event happen.
func (w *rolloutWorld) happens(e rolloutEvent) {
	for _, c := range e.Stuck {
		w.stuck[c] = true
	}
	for _, c := range e.Free {
		delete(w.stuck, c)
	}
	for _, c := range e.Lost {
		w.see(c, false)
	}
	for _, c := range e.Back {
		w.see(c, true)
	}
	if e.Held != "" {
		w.held = strings.TrimPrefix(e.Held, "nobody")
	}
	if e.Refused != "" {
		w.standing.Refused = strings.TrimPrefix(e.Refused, "nothing")
	}
	if e.Adopted {
		w.standing = RolloutStanding{Adopted: true, Idle: true}
	}
	if e.Deleted {
		w.rollout.DeletionTimestamp = &metav1.Time{Time: w.now}
		w.rollout.Generation++
	}
	if e.Changed {
		w.rollout.Generation++
	}
	for _, verb := range e.Say {
		w.rollout.Annotations[verbPrefix+verb] += "x"
	}
	lasts, err := time.ParseDuration(cmp.Or(e.Pass, "0s"))
	require.NoError(w.t, err)
	w.pass(lasts)
	for _, text := range e.Measured {
		w.measure(answer(w.t, text))
	}
}

func answer(t require.TestingT, text string) Measured {
	if why, failed := strings.CutPrefix(text, "error: "); failed {
		return Measured{Error: why}
	}
	switch text {
	case "no data":
		return Measured{}
	case "yes", "no":
		return Measured{Answered: true, Passed: text == "yes"}
	}
	v, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return value(v)
}

// String is what happens, in words.
func (e rolloutEvent) String() string {
	var words []string
	add := func(given bool, format string, args ...any) {
		if given {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(len(e.Stuck) > 0, "%s stuck", strings.Join(e.Stuck, ", "))
	add(len(e.Free) > 0, "%s not stuck", strings.Join(e.Free, ", "))
	add(len(e.Lost) > 0, "lost in %s", strings.Join(e.Lost, ", "))
	add(len(e.Back) > 0, "back in %s", strings.Join(e.Back, ", "))
	add(e.Held != "", "held by %s", e.Held)
	add(e.Refused != "", "refused for %s", e.Refused)
	add(e.Adopted, "the route names it")
	add(e.Deleted, "deleted")
	add(e.Changed, "the spec changes")
	add(len(e.Say) > 0, "%s", strings.Join(e.Say, " and "))
	add(e.Pass != "", "%s pass", e.Pass)
	add(len(e.Measured) > 0, "measured %s", strings.Join(e.Measured, ", "))
	return strings.Join(words, ", ")
}

// state is a rollout in a line: its phase, its reason where that is another word, what is laid over the route, and the message.
func (w *rolloutWorld) state() string {
	s := w.rollout.Status
	text := string(s.Phase)
	for _, c := range []string{v1alpha1.RolloutAccepted, v1alpha1.RolloutInProgress} {
		reason := meta.FindStatusCondition(RolloutConditions(s), c).Reason
		if reason != v1alpha1.ReasonAccepted && reason != string(s.Phase) {
			text += " " + reason
			break
		}
	}
	for _, c := range s.Clusters {
		text += fmt.Sprintf(" %s=%d", c.Cluster, c.Weight)
	}
	if len(s.HeaderRoute) > 0 {
		text += " header"
	}
	if s.Mirror > 0 {
		text += fmt.Sprintf(" mirror=%d", s.Mirror)
	}
	if s.PreviewHostname != "" {
		text += " preview"
	}
	if w.rollout.DeletionTimestamp != nil && !w.plan.Finalizer {
		text += " gone"
	}
	return text + ": " + short(s.Message)
}

// short leaves out of a message what stands before each verb.
func short(message string) string { return strings.ReplaceAll(message, verbPrefix, "…/") }
