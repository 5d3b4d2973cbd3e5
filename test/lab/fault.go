// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/clock"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// Inject breaks something and returns when it is broken. The same fault again changes its measure. It stays in
// force, over `up` as well, until Heal, or Start for a component.
func (l *Lab) Inject(ctx context.Context, f state.Fault) error {
	unlock, err := l.lockFaults(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	lab, err := l.State()
	if err != nil {
		return err
	}
	if err := checkFault(lab, &f); err != nil {
		return err
	}
	strike := l.strikes()[f.Kind]
	if strike == nil {
		return fmt.Errorf("no fault %q", f.Kind)
	}
	var processes []state.Process
	if f.Component != "" {
		t, err := targetOf(f.Component)
		if err != nil {
			return err
		}
		f.Component = t.name // node-agent is node
		if processes, err = t.in(lab, f.Cluster); err != nil {
			return err
		}
		if f.Kind == state.Killed && t.component == "" {
			return l.killPods(ctx, f, processes)
		}
	}
	// First on the list: what is broken and not listed would never be healed.
	var before []state.Fault
	err = state.UpdateExisting(l.Dir, func(s *state.Lab) error {
		before = slices.Clone(s.Faults)
		s.AddFault(f)
		lab = s
		return nil
	})
	if err != nil {
		return err
	}
	if err := strike(ctx, lab, f, processes); err != nil {
		return l.takeBack(ctx, before, f, processes, err)
	}
	return nil
}

// killPods kills what the node starts again: nothing lasts, also of a freeze that was in force before.
func (l *Lab) killPods(ctx context.Context, f state.Fault, processes []state.Process) error {
	if err := kill(ctx, processes); err != nil {
		return err
	}
	f.Kind = state.Stopped
	return state.UpdateExisting(l.Dir, func(s *state.Lab) error { s.RemoveFaults(f.Same); return nil })
}

// takeBack puts the list back as it was before a fault that could not be made, and what it is about with it; it returns why.
// A kill or a stop that failed midway stays listed: some of it is in force, and cannot be undone but by Heal.
func (l *Lab) takeBack(ctx context.Context, before []state.Fault, f state.Fault, processes []state.Process, why error) error {
	if f.Kind == state.Killed || f.Kind == state.Stopped || f.Kind == state.NodeLoss {
		return why
	}
	var lab *state.Lab
	err := state.UpdateExisting(l.Dir, func(s *state.Lab) error { s.Faults, lab = before, s; return nil })
	if err != nil {
		return errors.Join(why, err)
	}
	if f.Kind == state.Clock {
		_ = setClocks(processes, offsetOf(before, f)) // a clock that could not be moved is where it was
		return why
	}
	// Also where it was given up by Ctrl-C.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relayStart)
	defer cancel()
	if err := l.applyLinks(ctx, lab, f.Cluster, f.Peer); err != nil {
		return fmt.Errorf("%w; and the link could not be put back, `isthmus-lab fault heal` tries it again: %w", why, err)
	}
	return why
}

// offsetOf returns how far the same fault had moved a clock before; zero where there was none.
func offsetOf(faults []state.Fault, f state.Fault) time.Duration {
	if i := slices.IndexFunc(faults, f.Same); i >= 0 {
		return faults[i].Offset.Duration
	}
	return 0
}

// strikes are what is done for each kind of fault.
func (l *Lab) strikes() map[string]func(context.Context, *state.Lab, state.Fault, []state.Process) error {
	links := func(ctx context.Context, lab *state.Lab, f state.Fault, _ []state.Process) error {
		return l.applyLinks(ctx, lab, f.Cluster, f.Peer)
	}
	return map[string]func(context.Context, *state.Lab, state.Fault, []state.Process) error{
		state.Partition: links, state.Latency: links, state.Loss: links, state.Bandwidth: links,
		state.Killed: func(ctx context.Context, _ *state.Lab, _ state.Fault, p []state.Process) error { return kill(ctx, p) },
		state.Stopped: func(_ context.Context, _ *state.Lab, _ state.Fault, p []state.Process) error {
			return signal(syscall.SIGSTOP, p)
		},
		state.Clock: func(_ context.Context, _ *state.Lab, f state.Fault, p []state.Process) error {
			return setClocks(p, f.Offset.Duration)
		},
		state.NodeLoss: func(ctx context.Context, lab *state.Lab, f state.Fault, _ []state.Process) error {
			return l.loseNode(ctx, lab, f.Cluster)
		},
	}
}

// checkFault refuses what could not be applied, before it is listed.
func checkFault(lab *state.Lab, f *state.Fault) error {
	if _, err := lab.Cluster(f.Cluster); err != nil {
		return err
	}
	if f.Peer != "" {
		if _, err := lab.Cluster(f.Peer); err != nil {
			return err
		}
		if f.Peer == f.Cluster {
			return fmt.Errorf("%s has no link to itself: name two clusters", f.Cluster)
		}
	}
	if f.Kind == state.Partition && f.Peer != "" && f.Peer < f.Cluster {
		f.Cluster, f.Peer = f.Peer, f.Cluster // cut from either side it is the same cut
	}
	switch {
	case f.Kind == state.Latency && (f.Latency == nil || f.Latency.Duration <= 0 || f.Latency.Duration > time.Minute):
		return errors.New("a latency is more than 0 and up to 1m")
	case f.Jitter != nil && (f.Jitter.Duration < 0 || f.Jitter.Duration > f.Latency.Duration):
		return errors.New("a jitter is not negative and not more than the latency that it varies")
	case f.Kind == state.Loss && !(f.Loss > 0 && f.Loss <= 1): // so that NaN is refused, too
		return errors.New("a loss is more than 0% and up to 100%")
	case f.Kind == state.Bandwidth && f.Rate < 8_000:
		return errors.New("a bandwidth is at least 8kbit: less would not carry one packet a second")
	case f.Kind == state.Clock && (f.Offset == nil || f.Offset.Duration == 0 || f.Offset.Duration%time.Second != 0):
		return errors.New("a clock is moved by whole seconds, such as +90s or -1h, and not by 0")
	case f.Kind == state.NodeLoss && slices.ContainsFunc(lab.Faults, func(o state.Fault) bool {
		return o.Kind == state.NodeLoss && o.Cluster == f.Cluster
	}):
		return fmt.Errorf("the node of %s is lost already: `isthmus-lab fault heal %s` brings it back", f.Cluster, f.Cluster)
	}
	return nil
}

// loseNode takes the node's machine away at once: no packet goes to its pods or comes from them any more, so that no farewell of
// a dying process is heard, and the agent and all of the pods' processes die.
func (l *Lab) loseNode(ctx context.Context, lab *state.Lab, cluster string) error {
	if err := l.applyLinks(ctx, lab, cluster); err != nil {
		return err
	}
	// The agent first: it would report its pods' end, and start them again.
	if err := kill(ctx, lab.Find(cluster, state.NodeAgent)); err != nil {
		return err
	}
	names, err := l.podNamespaces(cluster)
	if err != nil {
		return err
	}
	found, err := process.In(names...)
	if err != nil {
		return err
	}
	return kill(ctx, found)
}

func setClocks(processes []state.Process, offset time.Duration) error {
	var errs []error
	for _, p := range processes {
		if err := clock.Set(p.PID, offset); err != nil {
			errs = append(errs, fmt.Errorf("clock of %s of %s: %w", p.Name, p.Cluster, err))
		}
	}
	return errors.Join(errs...)
}

func signal(sig syscall.Signal, processes []state.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, process.Signal(p, sig))
	}
	return errors.Join(errs...)
}

// lockFaults keeps faults that are made at the same time from undoing one another. A heal may take minutes: whoever waits for
// it can give up.
func (l *Lab) lockFaults(ctx context.Context) (unlock func(), err error) {
	if _, err := l.State(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.Dir, ".fault.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another `isthmus-lab fault` works on this lab: %w", ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}

// faultsOf says the faults in a few words each, for a list.
func faultsOf(faults []state.Fault) string {
	var words []string
	for _, f := range faults {
		words = append(words, f.String())
	}
	return strings.Join(words, ", ")
}
