// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// Gateway is the fault target that stands for all Envoys of a cluster. Their pods restart by
// themselves when they are killed.
const Gateway = "gateway"

// Node is the fault target that stands for the node agent.
const Node = "node"

// How long a stopped process may take to end in peace. A node ends its pods first; an API server
// would wait a minute for its watchers.
const (
	stopGrace     = 5 * time.Second
	nodeStopGrace = 40 * time.Second
)

// Targets returns what Kill, Stop and Start can be asked for.
func Targets() []string {
	return []string{state.Etcd, state.APIServer, state.ControllerManager, state.Istiod, Node, Gateway, state.Hub}
}

// Kill ends a component of a cluster by SIGKILL, as a crash would. Gateways and Isthmus are pods,
// which the node starts again; the others stay dead until Start.
func (l *Lab) Kill(cluster, target string) error {
	_, processes, err := l.target(cluster, target)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range processes {
		errs = append(errs, process.Signal(p, syscall.SIGKILL))
	}
	return errors.Join(append(errs, process.AwaitEnd(context.Background(), stopGrace, processes))...)
}

// Stop ends a component by SIGTERM; it stays away until Start. Gateways and Isthmus, which the node
// would start again, are frozen instead (SIGSTOP): their connections stay open and nobody answers.
func (l *Lab) Stop(cluster, target string) error {
	component, processes, err := l.target(cluster, target)
	if err != nil {
		return err
	}
	if component == state.NodeAgent {
		return process.Stop(context.Background(), nodeStopGrace, processes...)
	}
	if !state.IsPod(component) {
		return process.Stop(context.Background(), stopGrace, processes...)
	}
	var errs []error
	for _, p := range processes {
		errs = append(errs, process.Signal(p, syscall.SIGSTOP))
	}
	return errors.Join(errs...)
}

// Start undoes Kill and Stop: it starts what is dead, lets go on what is frozen, and returns when an
// API server or an istiod is ready.
func (l *Lab) Start(ctx context.Context, cluster, target string) error {
	lab, err := l.State()
	if err != nil {
		return err
	}
	c, err := lab.Cluster(cluster)
	if err != nil {
		return err
	}
	component, err := componentOf(target)
	if err != nil {
		return err
	}
	if state.IsPod(component) {
		return l.thaw(lab.Find(cluster, component))
	}
	if err := l.ensureTools(ctx, lab.Mesh); err != nil {
		return err
	}
	if err := l.ensureRunning(lab, *c, component); err != nil {
		return err
	}
	switch component {
	case state.APIServer, state.Etcd:
		return l.awaitAPIServer(ctx, *c)
	case state.Istiod:
		return l.awaitIstiod(ctx, *c)
	}
	return nil
}

func (l *Lab) thaw(processes []state.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, process.Signal(p, syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

// target returns the processes that a fault strikes; it is an error when none of them runs.
func (l *Lab) target(cluster, target string) (component string, processes []state.Process, err error) {
	component, err = componentOf(target)
	if err != nil {
		return "", nil, err
	}
	lab, err := l.State()
	if err != nil {
		return "", nil, err
	}
	if _, err := lab.Cluster(cluster); err != nil {
		return "", nil, err
	}
	processes = slices.DeleteFunc(lab.Find(cluster, component), func(p state.Process) bool { return !p.Alive() })
	if len(processes) == 0 {
		return "", nil, fmt.Errorf("no %s runs in %s: see `isthmus-lab status`", target, cluster)
	}
	return component, processes, nil
}

func componentOf(target string) (string, error) {
	switch target {
	case Gateway:
		return state.Proxy, nil
	case Node:
		return state.NodeAgent, nil
	}
	if slices.Contains(Targets(), target) {
		return target, nil
	}
	return "", fmt.Errorf("no component %q to strike: there are %s", target, strings.Join(Targets(), ", "))
}

// Partition cuts a cluster off from everything else; inside it goes on.
func (l *Lab) Partition(cluster string) error { return l.setLink(cluster, false) }

// Heal joins a cluster that Partition cut off.
func (l *Lab) Heal(cluster string) error { return l.setLink(cluster, true) }

func (l *Lab) setLink(cluster string, up bool) error {
	c, err := l.cluster(cluster)
	if err != nil {
		return err
	}
	return network.SetLink(c.Link, up)
}
