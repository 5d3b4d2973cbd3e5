// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/labtest"
)

// Fault is something that is broken under load, and mended: a row of the table.
type Fault struct {
	Name string
	// Prepare is what happened before, which is not measured; nil where that was nothing.
	Prepare step
	// Do breaks it, Undo mends it, and what Prepare did.
	Do, Undo step
	// Lost is the cluster that can serve no longer; empty where none is.
	Lost string
	// Dead is the cluster whose gateway cannot be reached: its clients are lost with it, and counted apart. Empty where there
	// is none.
	Dead string
	// Nobody is whether no cluster can serve while it lasts: what enters until all is well again is counted apart.
	Nobody bool
	// Gap is whether nobody is allowed to serve until the hub has moved the weights: what enters until it is mended is
	// counted apart.
	Gap bool
	// Loses is whether it may lose some that are safe to repeat: docs/reference/failover.md says what bounds them.
	Loses bool
	// Answers are what it makes of some clusters' answers; nil where there are none but the usual.
	Answers *Answers
	// Weights that every route is to have while it lasts; nil where that is not waited for.
	Weights map[string]map[string]int32
	// Still is whether no weight may change at all.
	Still bool
	// Bound is how often weights may be written, at most, in so much time; nil where there is no bound.
	Bound func(time.Duration) int
	// Also complains of the weights that were written, in their order; nil where they may be any.
	Also func([]change) error
	// Lasts is for how long it is left broken, at least.
	Lasts time.Duration
	// Rate of the load, in GETs a second at each gateway; zero is the usual.
	Rate int
	// Requests is how many there are to be at least: it is broken and mended until then. Zero is once.
	Requests int
}

type step = func(context.Context, testing.TB) error

// round is when a fault was begun, was complete, and was mended, and when all was well again.
type round struct{ begun, broken, mended, well time.Time }

// Result is what was measured of one.
type Result struct {
	Fault
	// Safe and Unsafe entered at surviving gateways while somebody could serve, and are safe to repeat or not; Apart are the
	// others.
	Safe, Unsafe, Apart Count
	// Given are the requests that were sent while the fault was complete; those of Answers count as lost.
	Given Count
	// Stall is the longest time that a request at a surviving gateway took, but for those of Answers.
	Stall time.Duration
	// Written is when the last route had its weights, after the fault began; zero where none was to change.
	Written time.Duration
	// Switched is when the last request began, at a surviving gateway, that was lost, took over a second, or was answered by
	// the lost cluster; after the fault began, until it was mended. Where nobody could serve it is when the last was lost
	// after the fault was mended.
	Switched time.Duration
	// Writes is how often a route was written with other weights, Took how long that was looked at.
	Writes int
	Took   time.Duration
	// changes are those writes.
	changes []change
	// Empty is how often a route was written in which nobody had any weight.
	Empty int
	// Losses say how requests were lost, how many, and when.
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

// patience is how long a fault is repeated that wants so many requests.
const patience = 8 * time.Minute

// Run breaks and mends it under load, and counts. It mends it also when it is interrupted.
func (f Fault) Run(t testing.TB) Result {
	t.Helper()
	ctx := labtest.Interruptible(t)
	settled(t)
	undone := false
	t.Cleanup(func() {
		if !undone {
			_ = f.Undo(context.WithoutCancel(ctx), t)
		}
	})
	if f.Prepare != nil {
		require.NoError(t, f.Prepare(ctx, t))
	}
	weights, requests := watchWeights(t), startLoad(t, cmp.Or(f.Rate, usualRate))
	t.Cleanup(func() { weights.stop(); requests.stop() })
	started := time.Now()
	pause(ctx, t, 2*time.Second)
	rounds := []round{f.once(ctx, t, weights)}
	for requests.sent() < f.Requests && time.Since(started) < patience {
		rounds = append(rounds, f.once(ctx, t, weights))
	}
	undone = true
	pause(ctx, t, time.Second)
	r := f.account(rounds, weights.stop(), requests.stop())
	r.Took = time.Since(started)
	return r
}

// once breaks and mends it.
func (f Fault) once(ctx context.Context, t testing.TB, weights *weightWatch) (r round) {
	t.Helper()
	r.begun = time.Now()
	require.NoError(t, f.Do(ctx, t))
	for member, want := range f.Weights {
		labtest.Eventually(t, func() error { return weights.expect(member, want) })
	}
	r.broken = time.Now()
	pause(ctx, t, f.Lasts-time.Since(r.begun))
	r.mended = time.Now()
	require.NoError(t, f.Undo(ctx, t))
	settled(t)
	r.well = time.Now()
	return r
}

// pause is how long a load is on, unless the run is interrupted: what is measured, and not a way to wait for anything.
func pause(ctx context.Context, t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(max(0, d)):
	case <-ctx.Done():
		t.Fatal("interrupted")
	}
}
