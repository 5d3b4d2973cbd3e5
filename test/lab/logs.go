// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/test/lab/node"
	"isthmus.dev/isthmus/test/lab/state"
)

// LogRequest asks for a log.
type LogRequest struct {
	Cluster   string
	Component string // a component, or the name of a pod's process (namespace/pod)
	Follow    bool   // go on as the log grows, until the context ends
	Out       io.Writer
}

// Log writes a component's log.
func (l *Lab) Log(ctx context.Context, r LogRequest) error {
	lab, err := l.State()
	if err != nil {
		return err
	}
	if _, err := lab.Cluster(r.Cluster); err != nil {
		return err
	}
	found := withLogs(lab, r.Cluster, r.Component)
	if len(found) == 0 {
		return fmt.Errorf("%s has no %q: see `isthmus-lab status`, or look into %s", r.Cluster, r.Component, filepath.Join(l.Dir, "logs", r.Cluster))
	}
	if r.Follow && len(found) > 1 {
		return several(found, r)
	}
	for _, p := range found {
		if err := r.show(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// show writes the log of one process: a pod's is in the format of the CRI, a component's is plain.
func (r LogRequest) show(ctx context.Context, p state.Process) error {
	if !strings.Contains(p.Name, "/") {
		return show(ctx, p.Log, r)
	}
	return node.ReadLog(ctx, node.LogRequest{
		File: p.Log, Options: corev1.PodLogOptions{Follow: r.Follow}, Running: p.Alive, Stdout: r.Out, Stderr: r.Out,
	})
}

// several says how to name one of the processes that match: by its pod, or by its container where they are of one pod.
func several(found []state.Process, r LogRequest) error {
	var names []string
	for _, p := range found {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	if namespace, pod, ok := strings.Cut(names[0], "/"); ok && len(names) == 1 {
		return fmt.Errorf("%s has several containers: `kubectl --context %s -n %s logs -f %s -c CONTAINER` follows one of them",
			names[0], r.Cluster, namespace, pod)
	}
	return fmt.Errorf("several processes match %q: name one of %s", r.Component, strings.Join(names, ", "))
}

// withLogs returns the processes that a name matches, one for each log.
func withLogs(lab *state.Lab, cluster, component string) []state.Process {
	var found []state.Process
	for _, p := range lab.Processes {
		known := slices.ContainsFunc(found, func(q state.Process) bool { return q.Log == p.Log })
		if p.Cluster == cluster && (p.Component == component || p.Name == component) && !known {
			found = append(found, p)
		}
	}
	return found
}

func show(ctx context.Context, file string, r LogRequest) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		if _, err := io.Copy(r.Out, f); err != nil || !r.Follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}
