// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"isthmus.dev/isthmus/test/lab/state"
)

// revival is what brings components of a cluster back, in the order in which a cluster starts.
type revival struct {
	// store and others are started, the others when the API server is ready: a controller manager that finds none ends.
	store, others []string
	// stale are ended before anything is started.
	stale []string
	// awaitServer and awaitIstiod are false where another fault keeps them from being ready.
	awaitServer, awaitIstiod bool
}

// revivalOf says how targets of a cluster come back under the faults that are left.
func revivalOf(lab *state.Lab, cluster string, targets []target) revival {
	var r revival
	blocked := func(components ...string) bool {
		return slices.ContainsFunc(components, func(c string) bool { return struck(lab, cluster, c) })
	}
	wanted := func(components ...string) bool {
		return slices.ContainsFunc(targets, func(t target) bool { return t.component != "" && slices.Contains(components, t.component) })
	}
	if wanted(state.Etcd, state.APIServer) {
		for _, component := range []string{state.Etcd, state.APIServer} { // which may have died for want of the other
			if !blocked(component) {
				r.store = append(r.store, component)
			}
		}
		r.awaitServer = !blocked(state.Etcd, state.APIServer)
	}
	for _, component := range []string{state.ControllerManager, state.NodeAgent, state.KubeProxy} {
		// A controller manager that lost its API server has lost its lease, ends, and begins anew, as those of real clusters
		// do. One that went on, since there is no other here to leave the lease to, would look for the server less and less
		// often, and be up to a minute behind when it is back: pods gone, and their endpoints still there.
		starved := component == state.ControllerManager && r.awaitServer
		if (wanted(component) || starved) && !blocked(component) {
			r.others = append(r.others, component)
			if starved {
				r.stale = append(r.stale, component)
			}
		}
	}
	istiod := slices.ContainsFunc(targets, func(t target) bool { return t.name == state.Istiod })
	r.awaitIstiod = istiod && !blocked(state.Etcd, state.APIServer, state.NodeAgent, state.Istiod)
	return r
}

// revive undoes what faults that are off the list have done to processes, and waits until what was dead is ready again, unless
// another fault keeps it from that.
func (l *Lab) revive(ctx context.Context, lab *state.Lab, gone ...state.Fault) error {
	var errs []error
	dead := map[string][]target{} // by cluster
	for _, f := range gone {
		t, err := revivable(f)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		if f.Kind != state.Clock {
			dead[f.Cluster] = append(dead[f.Cluster], *t)
		}
		processes, err := t.in(lab, f.Cluster)
		switch {
		case err != nil: // it has died, and has taken its clock along
		case f.Kind == state.Clock:
			errs = append(errs, setClocks(processes, 0))
		default: // before anything is waited for: nothing else would let a pod go on
			errs = append(errs, signal(syscall.SIGCONT, processes))
		}
	}
	for _, c := range lab.Clusters {
		if targets := dead[c.Name]; len(targets) > 0 {
			errs = append(errs, l.reviveCluster(ctx, lab, c, revivalOf(lab, c.Name, targets)))
		}
	}
	return errors.Join(errs...)
}

// revivable is what a fault struck; nil where that was no process.
func revivable(f state.Fault) (*target, error) {
	name := f.Component
	if f.Kind == state.NodeLoss {
		name = Node
	}
	if name == "" {
		return nil, nil //nolint:nilnil // a link is no process
	}
	t, err := targetOf(name)
	return &t, err
}

func (l *Lab) reviveCluster(ctx context.Context, lab *state.Lab, c state.Cluster, r revival) error {
	if len(r.store)+len(r.others) > 0 {
		if err := l.ensureTools(ctx, lab.Mesh); err != nil {
			return err
		}
	}
	var errs []error
	for _, component := range r.stale {
		errs = append(errs, kill(ctx, lab.Find(c.Name, component)))
	}
	if err := l.ensureRunning(lab, c, r.store...); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if r.awaitServer {
		errs = append(errs, l.awaitAPIServer(ctx, c))
	}
	errs = append(errs, l.ensureRunning(lab, c, r.others...))
	if r.awaitIstiod {
		errs = append(errs, l.awaitIstiod(ctx, c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return nil
}
