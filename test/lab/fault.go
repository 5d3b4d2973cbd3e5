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
	unlock, err := l.lockFaults()
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
		if processes, err = t.in(lab, f.Cluster); err != nil {
			return err
		}
		if f.Kind == state.Killed && t.component == "" {
			return kill(ctx, processes) // the node starts it again: nothing lasts
		}
	}
	// First on the list: what is broken and not listed would never be healed.
	err = state.UpdateExisting(l.Dir, func(s *state.Lab) error { s.AddFault(f); lab = s; return nil })
	if err != nil {
		return err
	}
	return strike(ctx, lab, f, processes)
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
	case f.Kind == state.Loss && (f.Loss <= 0 || f.Loss > 1):
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

// Heal undoes the faults of some clusters, of all without a name, and returns when what was dead is ready
// again. Where there is nothing to heal, it puts the links back as they belong.
func (l *Lab) Heal(ctx context.Context, clusters ...string) error {
	unlock, err := l.lockFaults()
	if err != nil {
		return err
	}
	defer unlock()
	var lab *state.Lab
	var gone []state.Fault
	err = state.UpdateExisting(l.Dir, func(s *state.Lab) error {
		for _, name := range clusters {
			if _, err := s.Cluster(name); err != nil {
				return err
			}
		}
		gone = s.RemoveFaults(func(f state.Fault) bool {
			return len(clusters) == 0 || slices.ContainsFunc(clusters, f.Touches)
		})
		lab = s
		return nil
	})
	if err != nil {
		return err
	}
	if len(clusters) == 0 {
		for _, c := range lab.Clusters {
			clusters = append(clusters, c.Name)
		}
	}
	for _, f := range gone {
		clusters = append(clusters, f.Cluster, f.Peer)
	}
	errs := []error{l.applyLinks(ctx, lab, clusters...)}
	for _, f := range gone {
		errs = append(errs, l.revive(ctx, lab, f))
	}
	return errors.Join(errs...)
}

// Start undoes Kill and Stop of a component: it starts what is dead and lets go on what is frozen, and returns when it is
// ready.
func (l *Lab) Start(ctx context.Context, cluster, component string) error {
	unlock, err := l.lockFaults()
	if err != nil {
		return err
	}
	defer unlock()
	t, err := targetOf(component)
	if err != nil {
		return err
	}
	lab, err := l.State()
	if err != nil {
		return err
	}
	if _, err := lab.Cluster(cluster); err != nil {
		return err
	}
	if t.component == state.NodeAgent && lab.Faulty(cluster, "", state.NodeLoss) {
		return fmt.Errorf("the node of %s is lost: `isthmus-lab fault heal %s` brings it back", cluster, cluster)
	}
	err = state.UpdateExisting(l.Dir, func(s *state.Lab) error {
		s.RemoveFaults(func(f state.Fault) bool {
			return f.Cluster == cluster && f.Component == t.name && (f.Kind == state.Killed || f.Kind == state.Stopped)
		})
		lab = s
		return nil
	})
	if err != nil {
		return err
	}
	return l.revive(ctx, lab, state.Fault{Kind: state.Stopped, Cluster: cluster, Component: t.name})
}

// revive undoes what a fault that is off the list has done to processes.
func (l *Lab) revive(ctx context.Context, lab *state.Lab, f state.Fault) error {
	switch f.Kind {
	case state.NodeLoss:
		return l.startComponent(ctx, lab, f.Cluster, state.NodeAgent)
	case state.Killed, state.Stopped, state.Clock:
	default:
		return nil
	}
	t, err := targetOf(f.Component)
	if err != nil {
		return err
	}
	processes, err := t.in(lab, f.Cluster)
	if f.Kind == state.Clock {
		if err != nil {
			return nil //nolint:nilerr // what has died has taken its clock along
		}
		return setClocks(processes, 0)
	}
	if err == nil {
		if err := signal(syscall.SIGCONT, processes); err != nil {
			return err
		}
	}
	if t.name == state.Istiod {
		return l.awaitIstiod(ctx, f.Cluster)
	}
	if t.component == "" {
		return nil // what is dead of it, the node has started again
	}
	return l.startComponent(ctx, lab, f.Cluster, t.component)
}

// startComponent starts a component unless it runs, and waits until it is ready.
func (l *Lab) startComponent(ctx context.Context, lab *state.Lab, cluster, component string) error {
	c, err := lab.Cluster(cluster)
	if err != nil {
		return err
	}
	if err := l.ensureTools(ctx, lab.Mesh); err != nil {
		return err
	}
	if err := l.ensureRunning(lab, *c, component); err != nil {
		return err
	}
	if component == state.APIServer || component == state.Etcd {
		return l.awaitAPIServer(ctx, *c)
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

// repairClocks moves the clocks of what was started anew under a fault.
func (l *Lab) repairClocks() error {
	lab, err := l.State()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range lab.Faults {
		if f.Kind != state.Clock {
			continue
		}
		t, err := targetOf(f.Component)
		if err != nil {
			return err
		}
		if processes, err := t.in(lab, f.Cluster); err == nil {
			errs = append(errs, setClocks(processes, f.Offset.Duration))
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

// lockFaults keeps faults that are made at the same time from undoing one another.
func (l *Lab) lockFaults() (unlock func(), err error) {
	if _, err := l.State(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.Dir, ".fault.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// faultsOf says the faults in a few words each, for a list.
func faultsOf(faults []state.Fault) string {
	var words []string
	for _, f := range faults {
		words = append(words, f.String())
	}
	return strings.Join(words, ", ")
}
