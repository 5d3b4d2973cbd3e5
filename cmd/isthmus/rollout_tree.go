// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// Marks of a wave or a step.
const (
	markDone, markToCome             = "✔", "·"
	markGoes, markWaits, markTrouble = "▶", "‖", "✖"
)

// colours of the marks, on a terminal.
var colours = strings.NewReplacer(markDone, "\x1b[32m"+markDone+"\x1b[0m", markGoes, "\x1b[36m"+markGoes+"\x1b[0m",
	markWaits, "\x1b[33m"+markWaits+"\x1b[0m", markTrouble, "\x1b[31m"+markTrouble+"\x1b[0m")

// padding is what is left at the end of a line.
var padding = regexp.MustCompile(`(?m) +$`)

// rolloutTree is one rollout on a screen: where it stands, and the way that it has gone and has still to go.
type rolloutTree struct {
	*v1alpha1.TrafficRollout
	outlook federation.RolloutOutlook
	now     time.Time
}

// showRollout draws the tree.
func showRollout(out io.Writer, r *v1alpha1.TrafficRollout, now time.Time, colour bool) error {
	var text bytes.Buffer
	t := rolloutTree{r, federation.OutlookOf(r), now}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	t.head(w)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&text)
	t.waves(w)
	if err := w.Flush(); err != nil {
		return err
	}
	// A table pads what is empty, and what it aligns must not have colours yet.
	drawn := padding.ReplaceAllString(text.String(), "")
	if colour {
		drawn = colours.Replace(drawn)
	}
	_, err := io.WriteString(out, drawn)
	return err
}

// head says where it stands, and how it goes on or back.
func (t rolloutTree) head(w io.Writer) {
	fmt.Fprintf(w, "TrafficRollout %s/%s\n", t.Namespace, t.Name)
	route := t.Namespace + "/" + t.Spec.Route.Name
	if t.Spec.Route.Rule != nil {
		route += ", rule " + string(*t.Spec.Route.Rule)
	}
	rows := [][2]string{{"Route", "HTTPRoute " + route}, {"Moves", moves(t.Spec)}, {"Phase", t.mark() + " " + phaseOf(t.TrafficRollout) + t.since()},
		{"", t.Status.Message}, {"Conditions", t.conditions()}}
	if !t.outlook.Until.IsZero() {
		rows = append(rows, [2]string{"Until", clock(metav1.Time{Time: t.outlook.Until}) + " (" + expiry(&metav1.Time{Time: t.outlook.Until}, t.now) + ")"})
	}
	rows = append(rows, [2]string{"Say", sayable(t.TrafficRollout)})
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(w, "  %s\t%s\n", row[0], oneLine(row[1]))
		}
	}
}

// sayable are the commands that would do something now, in one.
func sayable(r *v1alpha1.TrafficRollout) string {
	verbs := federation.OutlookOf(r).Verbs
	if len(verbs) == 0 {
		return ""
	}
	return "isthmus rollout " + strings.Join(verbs, "|") + " " + r.Namespace + "/" + r.Name
}

func (t rolloutTree) since() string {
	if at := sinceOf(t.TrafficRollout); !at.IsZero() {
		return " since " + since(at, t.now)
	}
	return ""
}

func (t rolloutTree) conditions() string {
	words := make([]string, 0, len(t.Status.Conditions))
	for _, c := range t.Status.Conditions {
		words = append(words, fmt.Sprintf("%s=%s (%s)", c.Type, c.Status, c.Reason))
	}
	return strings.Join(words, " ")
}

// moves says from where to where, and how.
func moves(spec v1alpha1.TrafficRolloutSpec) string {
	switch {
	case spec.BlueGreen != nil:
		return spec.BlueGreen.Active.Name + " -> " + spec.BlueGreen.Preview.Name + ", at once"
	case spec.Canary == nil:
		return ""
	case spec.Canary.Stable.Cluster != "":
		return spec.Canary.Stable.Name + ": " + spec.Canary.Stable.Cluster + " -> " + spec.Canary.Canary.Cluster + ", step by step"
	}
	return spec.Canary.Stable.Name + " -> " + spec.Canary.Canary.Name + ", step by step"
}

// mark is that of the phase.
func (t rolloutTree) mark() string {
	switch t.Status.Phase {
	case v1alpha1.RolloutHealthy:
		return markDone
	case v1alpha1.RolloutProgressing:
		return markGoes
	case v1alpha1.RolloutPaused:
		return markWaits
	case v1alpha1.RolloutDegraded, v1alpha1.RolloutPending:
		return markTrouble
	}
	return markToCome
}

func (t rolloutTree) markOf(p federation.RolloutProgress) string {
	switch p {
	case federation.RolloutDone:
		return markDone
	case federation.RolloutUnderWay:
		return t.mark()
	case federation.RolloutToCome:
	}
	return markToCome
}

// waves draws them in their order. All take the same steps, so these are shown where it stands, or would begin.
func (t rolloutTree) waves(w io.Writer) {
	open := 0
	for i, wave := range t.outlook.Waves {
		if wave.Progress == federation.RolloutUnderWay {
			open = i
		}
	}
	for i, wave := range t.outlook.Waves {
		fmt.Fprintf(w, "%s wave %s\t%s\n", t.markOf(wave.Progress), wave.Name, clustersOf(wave))
		if i != open {
			continue
		}
		t.metrics(w, "│   ", t.outlook.Beside)
		for j, step := range wave.Steps {
			branch, below := "├─", "│   "
			if j == len(wave.Steps)-1 && wave.Hold == 0 {
				branch, below = "└─", "    "
			}
			fmt.Fprintf(w, "%s%s %s\t%s\n", branch, t.markOf(step.Progress), step.Words, t.sinceStep(step.Progress))
			t.metrics(w, below, step.Metrics)
		}
		if wave.Hold > 0 {
			fmt.Fprintf(w, "└─%s be well for %s\t\n", t.markOf(t.holdOf(wave)), duration.ShortHumanDuration(wave.Hold))
		}
	}
}

// holdOf is how far the hold of a wave is: it begins when its steps are done.
func (t rolloutTree) holdOf(wave federation.WaveOutlook) federation.RolloutProgress {
	if last := wave.Steps[len(wave.Steps)-1].Progress; wave.Progress == federation.RolloutUnderWay && last != federation.RolloutDone {
		return federation.RolloutToCome
	}
	return wave.Progress
}

func (t rolloutTree) sinceStep(p federation.RolloutProgress) string {
	if p != federation.RolloutUnderWay || t.Status.StepStarted == nil {
		return ""
	}
	return ago(metav1.Time{Time: t.Status.StepStarted.Time}, t.now)
}

// clustersOf are a wave's clusters, with what is waited for.
func clustersOf(wave federation.WaveOutlook) string {
	words := make([]string, 0, len(wave.Clusters))
	for _, c := range wave.Clusters {
		text := fmt.Sprintf("%s %d%%", c.Cluster, c.Weight)
		if c.Message != "" {
			text += " (" + oneLine(c.Message) + ")"
		}
		words = append(words, text)
	}
	return cmp.Or(strings.Join(words, ", "), "no cluster")
}

// metrics draws what was measured: the counts, and the newest value.
func (t rolloutTree) metrics(w io.Writer, indent string, metrics []v1alpha1.MetricStatus) {
	for _, m := range metrics {
		name := m.Name
		if m.Cluster != "" {
			name += " of " + m.Cluster
		}
		words := fmt.Sprintf("%s: %d good, %d failed, %d inconclusive", cmp.Or(string(m.Phase), "under way"), m.Successful, m.Failed, m.Inconclusive)
		if m.ConsecutiveErrors > 0 {
			words += fmt.Sprintf(", %d errors in a row", m.ConsecutiveErrors)
		}
		if n := len(m.Last); n > 0 {
			last := m.Last[n-1]
			words += fmt.Sprintf("; last %s, %s", strings.Join(strings.Fields(string(last.Phase)+" "+last.Value), " "), ago(metav1.Time{Time: last.Time.Time}, t.now))
			if last.Message != "" {
				words += ": " + oneLine(last.Message)
			}
		}
		fmt.Fprintf(w, "%s%s\t%s\n", indent, name, words)
	}
}
