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
	files := logFiles(lab, r.Cluster, r.Component)
	if len(files) == 0 {
		return fmt.Errorf("%s has no %q: see `isthmus-lab status`, or look into %s", r.Cluster, r.Component, filepath.Join(l.Dir, "logs", r.Cluster))
	}
	if r.Follow && len(files) > 1 {
		return fmt.Errorf("several processes match %q: name one of %s", r.Component, strings.Join(names(lab, r.Cluster, r.Component), ", "))
	}
	for _, file := range files {
		if err := show(ctx, file, r); err != nil {
			return err
		}
	}
	return nil
}

func names(lab *state.Lab, cluster, component string) []string {
	var all []string
	for _, p := range lab.Find(cluster, component) {
		all = append(all, p.Name)
	}
	return all
}

func logFiles(lab *state.Lab, cluster, component string) []string {
	var files []string
	for _, p := range lab.Processes {
		if p.Cluster == cluster && (p.Component == component || p.Name == component) && !slices.Contains(files, p.Log) {
			files = append(files, p.Log)
		}
	}
	return files
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
