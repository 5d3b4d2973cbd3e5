// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/labtest"
)

// Fault is something that is broken under load, and mended: a row of the table.
type Fault struct {
	Name string
	// Do breaks it, Undo mends it.
	Do, Undo func(ctx context.Context, t testing.TB) error
	// Lost is the cluster that can serve no longer; empty where none is.
	Lost string
	// Dead is the cluster whose gateway cannot be reached: its clients are lost with it, and counted apart. Empty where there
	// is none.
	Dead string
	// Weights that every route is to have while it lasts; nil where that is not waited for.
	Weights map[string]map[string]int32
	// Still is whether no weight may change at all.
	Still bool
	// Lasts is for how long it is left broken, at least.
	Lasts time.Duration
}

// Result is what was measured of one.
type Result struct {
	Fault
	// Safe and Unsafe entered at surviving gateways, and are safe to repeat or not; AtDead entered at the dead one.
	Safe, Unsafe, AtDead Count
	// Stall is the longest time that a request at a surviving gateway took.
	Stall time.Duration
	// Written is when the last route had its weights, after the fault began; zero where none was to change.
	Written time.Duration
	// Switched is when the last request began, at a surviving gateway, that was lost, took over a second, or was answered by
	// the lost cluster; after the fault began, until it was mended.
	Switched time.Duration
	// Writes is how often a route was written with other weights.
	Writes int
	// Losses say why, each once.
	Losses []string
}

// settled is how a run begins and ends: the split of the example, and no failure at any gateway.
func settled(t testing.TB) {
	t.Helper()
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	for _, member := range labtest.Members {
		requester := labtest.Hello(t, member)
		labtest.Eventually(t, func() error {
			if c := requester.Count(100); c.Failures() > 0 || len(c.ByServer) != 2 {
				return fmt.Errorf("%s is not settled: %s", member, c)
			}
			return nil
		})
	}
}

// Run breaks and mends it under load, and counts.
func (f Fault) Run(t testing.TB) Result {
	t.Helper()
	ctx := context.Background()
	settled(t)
	weights, requests := watchWeights(t), startLoad(t)
	stop := func() ([]change, []request) { return weights.stop(), requests.stop() }
	undone := false
	t.Cleanup(func() {
		if !undone {
			stop()
			_ = f.Undo(ctx, t)
		}
	})
	pause(2 * time.Second)
	begun := time.Now()
	require.NoError(t, f.Do(ctx, t))
	if f.Weights != nil {
		for member, want := range f.Weights {
			labtest.Eventually(t, func() error { return weights.expect(member, want) })
		}
	}
	pause(f.Lasts - time.Since(begun))
	mended := time.Now()
	require.NoError(t, f.Undo(ctx, t))
	settled(t)
	pause(time.Second)
	changes, all := stop()
	undone = true
	return f.account(begun, mended, changes, all)
}

// pause is how long a load is on: what is measured, and not a way to wait for anything.
func pause(d time.Duration) { <-time.After(max(0, d)) }

func (w *weightWatch) expect(member string, want map[string]int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.last[member]) != fmt.Sprint(want) {
		return fmt.Errorf("%s: weights are %v, want %v", member, w.last[member], want)
	}
	return nil
}

func (f Fault) account(begun, mended time.Time, changes []change, all []request) Result {
	r := Result{Fault: f, Writes: len(changes)}
	for _, c := range changes {
		if f.Weights != nil && c.at.Before(mended) && fmt.Sprint(c.weights) == fmt.Sprint(f.Weights[c.member]) {
			r.Written = max(r.Written, c.at.Sub(begun))
		}
	}
	for _, q := range all {
		switch {
		case q.entered == f.Dead:
			r.AtDead.add(q)
			continue
		case q.safe:
			r.Safe.add(q)
		default:
			r.Unsafe.add(q)
		}
		r.Stall = max(r.Stall, q.took)
		if q.err != nil {
			r.Losses = append(r.Losses, fmt.Sprintf("at %s: %s", q.entered, q.err))
		}
		// What began just before it was mended may be answered by the cluster after that.
		byLost := q.server == f.Lost && f.Lost != "" && q.begun.Add(q.took).Before(mended)
		if (q.err != nil || q.took > time.Second || byLost) && q.begun.After(begun) && q.begun.Before(mended) {
			r.Switched = max(r.Switched, q.begun.Sub(begun))
		}
	}
	slices.Sort(r.Losses)
	r.Losses = slices.Compact(r.Losses)
	return r
}

// Check says what is not as it must be on any machine: what was lost, and what moved. How long it took is measured, and
// not asserted.
func (r Result) Check() error {
	var errs []error
	if r.Safe.Lost > 0 {
		errs = append(errs, fmt.Errorf("%s of the requests that are safe to repeat were lost", r.Safe))
	}
	if r.Still && r.Writes > 0 {
		errs = append(errs, fmt.Errorf("weights were written %d times, and none was to change", r.Writes))
	}
	if len(errs) > 0 {
		errs = append(errs, fmt.Errorf("losses: %v", r.Losses))
	}
	return errors.Join(errs...)
}
