// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"isthmus.dev/isthmus/test/lab/state"
)

// Heal undoes the faults of some clusters, of all without a name, and returns when what was dead is ready
// again. Where there is nothing to heal, it puts the links back as they belong.
func (l *Lab) Heal(ctx context.Context, clusters ...string) error {
	unlock, err := l.lockFaults(ctx)
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
	return errors.Join(l.applyLinks(ctx, lab, clusters...), l.revive(ctx, lab, gone...))
}

// Start undoes Kill and Stop of a component: it starts what is dead and lets go on what is frozen, and returns when it is
// ready.
func (l *Lab) Start(ctx context.Context, cluster, component string) error {
	unlock, err := l.lockFaults(ctx)
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

// revive undoes what faults that are off the list have done to processes: all of it is started first, in the order of
// a cluster's own start, and waited for after that. What one needs to be ready may have been another's fault.
func (l *Lab) revive(ctx context.Context, lab *state.Lab, gone ...state.Fault) error {
	slices.SortStableFunc(gone, byTurn)
	var errs []error
	for _, f := range gone {
		errs = append(errs, l.restart(ctx, lab, f))
	}
	for _, f := range gone {
		errs = append(errs, l.awaitRevived(ctx, lab, f))
	}
	return errors.Join(errs...)
}

func byTurn(a, b state.Fault) int { return cmp.Compare(turn(a), turn(b)) }

// turn says when a fault's process starts among the components of a cluster; pods come after them.
func turn(f state.Fault) int {
	component := f.Component
	if f.Kind == state.NodeLoss {
		component = Node
	}
	t, err := targetOf(component)
	if err != nil || t.component == "" {
		return len(components)
	}
	return slices.Index(components, t.component)
}

// restart starts what a fault killed, and lets go on what it froze.
func (l *Lab) restart(ctx context.Context, lab *state.Lab, f state.Fault) error {
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
	switch {
	case f.Kind == state.Clock && err != nil:
		return nil //nolint:nilerr // what has died has taken its clock along
	case f.Kind == state.Clock:
		return setClocks(processes, 0)
	case t.component != "":
		return l.startComponent(ctx, lab, f.Cluster, t.component)
	}
	return signal(syscall.SIGCONT, processes) // what is dead of pods, the node has started again
}

// startComponent starts a component unless it runs; what was frozen goes on.
func (l *Lab) startComponent(ctx context.Context, lab *state.Lab, cluster, component string) error {
	c, err := lab.Cluster(cluster)
	if err != nil {
		return err
	}
	if err := l.ensureTools(ctx, lab.Mesh); err != nil {
		return err
	}
	return l.ensureRunning(lab, *c, component)
}

// awaitRevived waits until what was started is ready, unless a fault that is still in force keeps it from that.
func (l *Lab) awaitRevived(ctx context.Context, lab *state.Lab, f state.Fault) error {
	if f.Kind != state.Killed && f.Kind != state.Stopped || !canServe(lab, f.Cluster) {
		return nil
	}
	switch f.Component {
	case state.Etcd, state.APIServer:
		c, err := lab.Cluster(f.Cluster)
		if err != nil {
			return err
		}
		return l.awaitAPIServer(ctx, *c)
	case state.Istiod:
		if !struck(lab, f.Cluster, state.NodeAgent) {
			return l.awaitIstiod(ctx, f.Cluster)
		}
	}
	return nil
}

// canServe says that no fault keeps a cluster's API server from being ready.
func canServe(lab *state.Lab, cluster string) bool {
	return !struck(lab, cluster, state.Etcd) && !struck(lab, cluster, state.APIServer)
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
