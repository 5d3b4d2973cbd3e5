// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
// ready, or at once where another fault keeps it from being that.
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
