// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script is a world that remembers what was done and, once a command was, shows what is expected of it.
type script struct {
	mu    sync.Mutex
	done  []string
	after func(command) error // nil: all goes well
}

func (s *script) Do(_ context.Context, c command) (string, error) {
	s.mu.Lock()
	s.done = append(s.done, c.String())
	s.mu.Unlock()
	if s.after != nil {
		return "", s.after(c)
	}
	return "said", nil
}

func (s *script) Mark()                        {}
func (s *script) Look() (Figures, Observation) { return Figures{}, Observation{} }

func (s *script) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.done)
}

func come(Figures, Observation) bool { return true }

// there and back, twice.
func journey() []Step {
	return []Step{
		{Name: "a", Title: "A", scenes: []scene{
			{title: "go", do: command{"go"}, undo: command{"return"}, awaits: "arrival", seen: come},
			{title: "return", do: command{"return"}, restores: true, awaits: "home", seen: come},
		}},
		{Name: "b", Title: "B", scenes: []scene{
			{title: "cut", do: command{"cut"}, undo: command{"heal"}, awaits: "silence", seen: come},
			{title: "heal", do: command{"heal"}, restores: true, awaits: "answers", seen: come},
		}},
	}
}

func on(w world, out *bytes.Buffer) *tour {
	return &tour{world: w, stage: &paper{out: out, every: linesOfPaper}, out: out, rate: 100, auto: true}
}

func TestAWholeTourPutsBackNothingTwice(t *testing.T) {
	w, out := &script{}, &bytes.Buffer{}
	require.NoError(t, on(w, out).walk(context.Background(), journey()))
	require.Equal(t, []string{"go", "return", "cut", "heal"}, w.commands())
	require.Contains(t, out.String(), "as the tour found it")
	require.NotContains(t, out.String(), "putting back")
}

func TestAnInterruptedTourPutsBackWhatItChanged(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w, out := &script{}, &bytes.Buffer{}
	w.after = func(c command) error {
		if c.String() == "cut" {
			cancel()
			return ctx.Err() // the command may be cut off halfway, too
		}
		return nil
	}
	require.NoError(t, on(w, out).walk(ctx, journey()))
	require.Equal(t, []string{"go", "return", "cut", "heal"}, w.commands())
	require.Contains(t, out.String(), "putting back: heal\n")
}

func TestQuitPutsBackAndEnterGoesOn(t *testing.T) {
	w, out := &script{}, &bytes.Buffer{}
	keys := make(chan key)
	tr := on(w, out)
	tr.keys, tr.auto = keys, false
	go readKeys(strings.NewReader("x\n\rq"), keys)
	require.NoError(t, tr.walk(context.Background(), journey()))
	done := w.commands()
	require.Equal(t, done[0], "go")
	require.Contains(t, []string{"return", "heal"}, done[len(done)-1])
	require.Empty(t, open(done), "something stays changed: %v", done)
}

// open are the commands that nothing undid.
func open(done []string) []string {
	undo := map[string]string{"return": "go", "heal": "cut"}
	var left []string
	for _, c := range done {
		if what, ok := undo[c]; ok {
			left = slices.DeleteFunc(left, func(o string) bool { return o == what })
		} else {
			left = append(left, c)
		}
	}
	return left
}

func TestACommandThatFailsEndsTheUnattendedTour(t *testing.T) {
	w, out := &script{}, &bytes.Buffer{}
	w.after = func(c command) error {
		if c.String() == "cut" {
			return errors.New("no such link")
		}
		return nil
	}
	require.ErrorContains(t, on(w, out).walk(context.Background(), journey()), "no such link")
	require.Equal(t, []string{"go", "return", "cut", "heal"}, w.commands())
}

func TestWhatCannotBePutBackIsNamed(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w, out := &script{}, &bytes.Buffer{}
	w.after = func(c command) error {
		cancel()
		if c.String() == "return" {
			return errors.New("the cluster is gone")
		}
		return nil
	}
	err := on(w, out).walk(ctx, journey())
	require.ErrorContains(t, err, "run it yourself: return: the cluster is gone")
	require.NotContains(t, out.String(), "as the tour found it")
}

func TestTheUnattendedTourWaitsForWhatIsExpected(t *testing.T) {
	f := frame{scene: scene{awaits: "it"}, elapsed: DefaultPace, decided: -1}
	require.False(t, f.over(DefaultPace))
	require.Equal(t, "awaited: it", f.outcome())
	f.came = true
	require.True(t, f.over(DefaultPace))
	require.False(t, f.over(DefaultPace+time.Second))
	f.came, f.elapsed = false, patience
	require.True(t, f.over(DefaultPace), "for ever is too long")
}
