// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// redraw is the time between two pictures.
	redraw = 200 * time.Millisecond
	// patience bounds how long the unattended tour waits for what is expected of a scene.
	patience = time.Minute
	// restoring bounds how long the end of the tour may take.
	restoring = time.Minute
)

// world is what the tour walks through.
type world interface {
	// Do runs a command and returns what it said.
	Do(context.Context, command) (string, error)
	// Mark begins the figures' totals anew.
	Mark()
	Look() (Figures, Observation)
}

// stage is where the tour is shown.
type stage interface {
	Begin(frame) // of a scene
	Show(frame)
	End(frame)
	// Leave gives the terminal back. What is said from then on goes to Out.
	Leave()
}

// key is what the person at the terminal wants.
type key int

const (
	next key = iota
	quit
)

// errLeft says that the tour was left before its end.
var errLeft = errors.New("the tour was left before its end")

// tour walks through scenes.
type tour struct {
	world world
	stage stage
	keys  <-chan key    // nil when nobody is there
	auto  bool          // go on after pace
	pace  time.Duration // of a scene
	out   io.Writer
	rate  int

	undo []command // the newest last
	told []string  // a line for each scene
}

// walk shows the steps and puts back what they changed, in any case.
func (t *tour) walk(ctx context.Context, steps []Step) (err error) {
	defer func() {
		if errors.Is(err, errLeft) {
			err = nil
		}
		err = errors.Join(err, t.end(ctx))
	}()
	for i, s := range steps {
		for _, sc := range s.scenes {
			f := frame{step: i + 1, steps: len(steps), subject: s.Title, scene: sc, rate: t.rate, decided: -1, hint: t.hint()}
			if err := t.play(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tour) hint() string {
	if t.auto {
		return "by itself   q: end, put all back"
	}
	return "Enter: next   q: end, put all back"
}

// result of a scene's command.
type result struct {
	output string
	err    error
}

// play shows one scene until it is over; errLeft when the tour is.
func (t *tour) play(ctx context.Context, f frame) error {
	if f.scene.undo != nil {
		// Before it is done: an interrupt may leave it half done.
		t.undo = append(t.undo, f.scene.undo)
	}
	t.world.Mark()
	began := time.Now()
	t.refresh(&f, 0, false)
	t.stage.Begin(f)
	done := make(chan result, 1)
	var running sync.WaitGroup
	doing, cancel := context.WithCancel(ctx)
	running.Go(func() {
		output, err := t.world.Do(doing, f.scene.do)
		done <- result{output, err}
	})
	err := t.watch(ctx, &f, began, done)
	cancel()
	running.Wait() // what is put back must not be overtaken by what did it
	t.stage.End(f)
	t.told = append(t.told, f.summary())
	if err == nil && f.scene.restores {
		t.undo = t.undo[:len(t.undo)-1]
	}
	return err
}

// watch keeps the frame current until the scene is over.
func (t *tour) watch(ctx context.Context, f *frame, began time.Time, done <-chan result) error {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	finished := false
	for {
		select {
		case <-ctx.Done():
			return errLeft
		case r := <-done:
			finished, f.output, f.failed = true, r.output, r.err
		case k := <-t.keys:
			if k == quit {
				return errLeft
			}
			// A step's changes come one after the other: the command first has to have run.
			if finished {
				return f.failed
			}
		case <-tick.C:
		}
		t.refresh(f, time.Since(began), finished)
		t.stage.Show(*f)
		if t.auto && finished && f.failed != nil {
			return f.failed
		}
		if t.auto && finished && f.over(t.pace) {
			return nil
		}
	}
}

func (t *tour) refresh(f *frame, elapsed time.Duration, finished bool) {
	f.elapsed = elapsed
	f.figures, f.seen = t.world.Look()
	if elapsed > 0 && f.decided < 0 && f.scene.decided != nil && f.scene.decided(f.seen) {
		f.decided = elapsed
	}
	f.came = f.came || finished && f.scene.seen(f.figures, f.seen)
}

// over says whether nobody has to see more of it.
func (f frame) over(pace time.Duration) bool {
	return f.elapsed >= pace && f.came || f.elapsed >= max(pace, patience)
}

// summary is what the tour says of the scene when it is over.
func (f frame) summary() string {
	t := f.figures.Since
	failures := "none failed"
	if t.Failed > 0 {
		failures = fmt.Sprintf("%d failed (%s)", t.Failed, t.causes())
	}
	if f.failed != nil {
		return fmt.Sprintf("%-26s the command failed", f.scene.title)
	}
	return fmt.Sprintf("%-26s %5d requests, %s; %s", f.scene.title, t.Requests, failures, f.outcome())
}

// outcome is how far the scene has come.
func (f frame) outcome() string {
	switch {
	case !f.came:
		return "awaited: " + f.scene.awaits
	case f.decided >= 0:
		return fmt.Sprintf("as expected, decided within %.1f s", f.decided.Seconds())
	}
	return "as expected"
}

// end gives the terminal back, puts back what is still changed and says what was seen. It goes on when ctx has ended.
func (t *tour) end(ctx context.Context) error {
	t.stage.Leave()
	if len(t.told) > 0 {
		fmt.Fprintf(t.out, "\n%s\n\n", strings.Join(t.told, "\n"))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoring)
	defer cancel()
	var errs []error
	for _, c := range slices.Backward(t.undo) {
		fmt.Fprintf(t.out, "putting back: %s\n", c)
		if _, err := t.world.Do(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("not put back, run it yourself: %s: %w", c, err))
		}
	}
	if len(errs) == 0 {
		fmt.Fprintln(t.out, "The lab is as the tour found it, and goes on: examples/split/README.md has more to try, `isthmus-lab down` ends it.")
	}
	return errors.Join(errs...)
}
