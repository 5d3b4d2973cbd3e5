// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// example is how the tour finds the lab that `isthmus-lab up` starts.
var example = before{eks: 80, gke: 20, replicas: 2, controllers: 1, rate: 100, namespace: "sample", route: "helloworld"}

func story(rates ...float64) []float64 { return rates }

// failingOver is a picture in the middle of a failover.
func failingOver() frame {
	s := steps(example)[2]
	f := frame{step: 3, steps: 6, subject: s.Title, scene: s.scenes[0], rate: 100, decided: 400 * time.Millisecond,
		elapsed: 75 * time.Second, output: "deployment.apps/helloworld scaled\n", hint: "Enter: next   q: end, put all back"}
	f.figures = Figures{
		Clusters: []Row{
			{Name: "eks", Rate: 0, Story: story(82, 78, 80, 12, 0, 0, 0)},
			{Name: "gke", Rate: 94, Share: 0.94, Story: story(18, 22, 20, 54, 97, 100, 100)},
		},
		Failed:  Row{Name: "failed", Rate: 6, Share: 0.06, Story: story(0, 0, 0, 34, 3, 0, 0)},
		Waiting: 3,
		Since: Totals{Requests: 400, Failed: 17, Failures: map[string]int{"HTTP 503": 16, "no answer in 2s": 1},
			Slowest: 2 * time.Second, Failing: 480 * time.Millisecond},
	}
	weights := []Weight{
		{Cluster: "eks", Percent: 0, Reason: "Unfit", Message: "no ready endpoint"},
		{Cluster: "gke", Percent: 100, Reason: "Policy", Message: "the policy's weight, re-normalised over the fit clusters"},
	}
	f.seen = Observation{
		Plans:   []Plan{{Member: "eks", Programmed: true, Weights: weights}, {Member: "gke", Weights: weights}},
		Shifted: "FailedOver: eks serves nothing of sample/helloworld",
		Members: []Member{{Name: "eks", Connected: true}, {Name: "gke", Reason: "Unreachable"}}, HubRuns: true,
	}
	return f
}

func TestPictures(t *testing.T) {
	broken := failingOver()
	broken.failed = errors.New("kubectl: exit status 1: the server is away")
	broken.seen = Observation{Stale: "connection refused"}
	broken.figures = newRecorder([]string{"eks", "gke"}, start).Figures(start)
	came := failingOver()
	came.came = true
	pictures := map[string]struct {
		frame frame
		size  size
	}{
		"wide":    {came, size{120, 40}},
		"common":  {failingOver(), size{80, 40}},
		"low":     {failingOver(), size{80, 18}},
		"narrow":  {failingOver(), size{44, 60}},
		"tiny":    {failingOver(), size{24, 5}},
		"command": {broken, size{100, 30}},
	}
	for name, p := range pictures {
		t.Run(name, func(t *testing.T) { expectGolden(t, name, drawn(p.frame, p.size, false)) })
	}
	t.Run("line", func(t *testing.T) { expectGolden(t, "line", failingOver().short()+"\n"+came.summary()+"\n") })
}

// drawn is the picture as a terminal shows it.
func drawn(f frame, s size, colours bool) string {
	var b strings.Builder
	for _, r := range f.rows(s) {
		b.WriteString(r.String(colours) + "\n")
	}
	return b.String()
}

func expectGolden(t *testing.T, name, have string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(have), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), have, "see `make golden`")
}

func TestEveryPictureFitsItsTerminal(t *testing.T) {
	for width := 1; width < 130; width += 3 {
		for height := 1; height < 45; height += 2 {
			rows := failingOver().rows(size{width, height})
			require.LessOrEqual(t, len(rows), height)
			for _, r := range rows {
				if n := len([]rune(r.String(false))); n > width {
					t.Fatalf("%d columns in a terminal of %d: %s", n, width, r.String(false))
				}
			}
		}
	}
}

func TestColoursAreOnlyColours(t *testing.T) {
	plain, coloured := drawn(failingOver(), size{80, 40}, false), drawn(failingOver(), size{80, 40}, true)
	require.NotContains(t, plain, "\x1b")
	require.Contains(t, coloured, "\x1b[31m")
	for _, code := range []style{bold, dim, first, second, third, good, bad, heading, "0"} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+string(code)+"m", "")
	}
	blanks := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	require.Equal(t, blanks(plain), blanks(coloured))
}

func TestAJoinedCommandIsTheCommand(t *testing.T) {
	f := failingOver()
	f.scene = steps(example)[1].scenes[0]
	for _, width := range []int{40, 80, 200} {
		var command strings.Builder
		for i, r := range f.head(width) {
			if i > 1 {
				require.Equal(t, i > 2, r.joins)
				command.WriteString(r.line[0].text)
			}
		}
		require.Equal(t, "   $ "+f.scene.do.String(), command.String())
	}
}

func TestCommandsAreWrittenForAShell(t *testing.T) {
	require.Equal(t, `kubectl patch -p '{"a":"it'\''s"}' ''`, command{"kubectl", "patch", "-p", `{"a":"it's"}`, ""}.String())
	elsewhere := example
	elsewhere.lab = "/tmp/lab"
	require.Equal(t, "isthmus-lab fault heal gke --dir /tmp/lab", elsewhere.fault("heal", "gke").String())
}

// What a scene changes, a later scene of the same step puts back: each step begins with the lab as it was found.
func TestEachStepPutsBackWhatItChanges(t *testing.T) {
	for _, s := range steps(example) {
		var open []string
		for _, sc := range s.scenes {
			if sc.restores {
				require.NotEmpty(t, open, s.Name)
				require.Equal(t, open[len(open)-1], sc.do.String(), s.Name)
				open = open[:len(open)-1]
			}
			if sc.undo != nil {
				open = append(open, sc.undo.String())
			}
			require.NotEmpty(t, sc.awaits)
			require.NotNil(t, sc.seen)
		}
		require.Empty(t, open, s.Name)
	}
}

func TestStepsAreChosenByName(t *testing.T) {
	chosen, err := choose(steps(example), []string{"hub", "policy"})
	require.NoError(t, err)
	require.Equal(t, []string{"policy", "hub"}, []string{chosen[0].Name, chosen[1].Name})
	_, err = choose(steps(example), []string{"nowhere"})
	require.ErrorContains(t, err, `no step "nowhere", only split, policy`)
	all, err := choose(steps(example), nil)
	require.NoError(t, err)
	require.Len(t, all, 6)
}

func TestADipIsOneOfTheScene(t *testing.T) {
	gke := Row{Name: "gke", Story: story(20, 0, 20, 20)}
	require.False(t, dipped(gke, 2), "that was before")
	require.True(t, dipped(gke, 3))
	require.False(t, dipped(Row{}, 3))
}
