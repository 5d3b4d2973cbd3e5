// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

func (f Fault) account(rounds []round, changes []change, all []request) Result {
	r := Result{Fault: f, Writes: len(changes), changes: changes}
	for _, c := range changes {
		if total(c.weights) == 0 {
			r.Empty++
		}
		in, ok := roundOf(rounds, c.at)
		if ok && f.Weights != nil && c.at.Before(in.mended) && fmt.Sprint(c.weights) == fmt.Sprint(f.Weights[c.member]) {
			r.Written = max(r.Written, c.at.Sub(in.begun))
		}
	}
	for _, q := range all {
		in, within := roundOf(rounds, q.begun)
		r.add(q, in, within)
	}
	r.Losses = losses(rounds[0].begun, all, f.Answers)
	return r
}

// losses says of each way in which requests were lost how often that was, and from when to when after the fault began: who is
// to blame can be told by what else happened then.
func losses(begun time.Time, all []request, answers *Answers) (out []string) {
	ways := map[string][]time.Duration{}
	for _, q := range all {
		if q.err != nil && !answers.gave(q) {
			way := fmt.Sprintf("at %s: %s", q.entered, q.err)
			ways[way] = append(ways[way], q.begun.Sub(begun))
		}
	}
	for _, way := range slices.Sorted(maps.Keys(ways)) {
		at := ways[way]
		out = append(out, fmt.Sprintf("%d %s, after %.1f to %.1f s", len(at), way, slices.Min(at).Seconds(), slices.Max(at).Seconds()))
	}
	return out
}

// roundOf is the round in which something happened, if it was in any.
func roundOf(rounds []round, at time.Time) (round, bool) {
	for _, r := range rounds {
		if !at.Before(r.begun) && at.Before(r.well) {
			return r, true
		}
	}
	return round{}, false
}

// add counts a request where it belongs.
func (r *Result) add(q request, in round, within bool) {
	made := r.Answers.gave(q)
	if within && !q.begun.Before(in.broken) && q.begun.Before(in.mended) {
		r.Given.add(made)
	}
	lost := q.err != nil && !made
	if q.entered == r.Dead || within && (r.Nobody || r.Gap && q.begun.Before(in.mended)) {
		r.Apart.add(lost)
		if r.Nobody && lost {
			r.Switched = max(r.Switched, q.begun.Sub(in.mended))
		}
		if r.Gap && lost {
			r.Switched = max(r.Switched, q.begun.Sub(in.begun))
		}
		return
	}
	count := &r.Unsafe
	if q.safe {
		count = &r.Safe
	}
	count.add(lost)
	if made {
		return
	}
	r.Stall = max(r.Stall, q.took)
	// What began just before it was mended may be answered by the cluster after that.
	byLost := q.server == r.Lost && r.Lost != "" && q.ended().Before(in.mended)
	if within && q.begun.Before(in.mended) && (lost || q.took > time.Second || byLost) {
		r.Switched = max(r.Switched, q.begun.Sub(in.begun))
	}
}

func total(weights map[string]int32) (sum int32) {
	for _, w := range weights {
		sum += w
	}
	return sum
}

// Check says what is not as it must be on any machine: what was lost, and what moved. How long it took is measured, and
// not asserted.
func (r Result) Check() error {
	var errs []error
	if r.Safe.Lost > 0 && !r.Loses {
		errs = append(errs, fmt.Errorf("%s of the requests that are safe to repeat were lost", r.Safe))
	}
	if n := r.Safe.Sent + r.Unsafe.Sent; n < r.Requests {
		errs = append(errs, fmt.Errorf("%d requests were sent in %s, and %d were to be: this machine does not bear so many", n, r.Took, r.Requests))
	}
	errs = append(errs, r.checkWrites(), r.Answers.check(r.Given))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; losses: %v", err, r.Losses)
	}
	return nil
}

func (r Result) checkWrites() error {
	switch {
	case r.Empty > 0:
		return fmt.Errorf("%d routes were written in which nobody had any weight", r.Empty)
	case r.Still && r.Writes > 0:
		return fmt.Errorf("weights were written %d times, and none was to change", r.Writes)
	case r.Bound != nil && r.Writes > r.Bound(r.Took):
		return fmt.Errorf("weights were written %d times in %s, and at most %d were to be", r.Writes, r.Took, r.Bound(r.Took))
	}
	if r.Also == nil {
		return nil
	}
	return r.Also(r.changes)
}
