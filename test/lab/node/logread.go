// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
)

// A container's last words, where it leaves no message of its own: kubelet's bounds.
const (
	lastLines = 80
	lastBytes = 2048
)

// LogRequest asks for one life of a container.
type LogRequest struct {
	File    string
	Options corev1.PodLogOptions
	// Running says whether the container may still write: following ends when it cannot.
	Running        func() bool
	Stdout, Stderr io.Writer // nil leaves the stream out
}

// ReadLog writes a pod's log that an agent wrote. With Options.Follow it goes on until the
// container or ctx ends.
func ReadLog(ctx context.Context, r LogRequest) error {
	options := &logs.LogOptions{
		TailLines: r.Options.TailLines, LimitBytes: r.Options.LimitBytes,
		Follow: r.Options.Follow, Timestamp: r.Options.Timestamps,
	}
	switch {
	case r.Options.SinceTime != nil:
		options.Since = r.Options.SinceTime.Time
	case r.Options.SinceSeconds != nil:
		options.Since = time.Now().Add(-time.Duration(*r.Options.SinceSeconds) * time.Second)
	}
	err := logs.ReadLogs(ctx, r.File, "", options, runningContainer{running: r.Running}, r.Stdout, r.Stderr)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // whoever asked has left
	}
	return err
}

// logOptions reads what the API server asks for. (The conversion that kubelet uses is in no published
// module.)
func logOptions(query url.Values) (o corev1.PodLogOptions, err error) {
	var errs []error
	number := func(name string) *int64 {
		if !query.Has(name) {
			return nil
		}
		n, err := strconv.ParseUint(query.Get(name), 10, 63)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return new(int64(n))
	}
	flag := func(name string) bool {
		set, _ := strconv.ParseBool(query.Get(name))
		return set
	}
	o = corev1.PodLogOptions{
		Follow: flag("follow"), Previous: flag("previous"), Timestamps: flag("timestamps"),
		SinceSeconds: number("sinceSeconds"), TailLines: number("tailLines"), LimitBytes: number("limitBytes"),
	}
	if since := query.Get("sinceTime"); since != "" {
		at, err := time.Parse(time.RFC3339Nano, since)
		if err != nil {
			errs = append(errs, fmt.Errorf("sinceTime: %w", err))
		}
		o.SinceTime = &metav1.Time{Time: at}
	}
	if stream := query.Get("stream"); stream != "" {
		o.Stream = &stream
	}
	return o, errors.Join(errs...)
}

// runningContainer is all of a container runtime that following a log asks for.
type runningContainer struct {
	internalapi.RuntimeService
	running func() bool
}

func (r runningContainer) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	if r.running() {
		state = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{State: state}}, nil
}

// lastWords returns the end of a log.
func lastWords(ctx context.Context, path string) string {
	var said strings.Builder
	lines := int64(lastLines)
	if err := ReadLog(ctx, LogRequest{File: path, Options: corev1.PodLogOptions{TailLines: &lines}, Stdout: &said, Stderr: &said}); err != nil {
		return ""
	}
	words := said.String()
	return words[max(0, len(words)-lastBytes):]
}

// lifeOf returns which life of a container a log is asked of, by kubelet's rules: the running one,
// or the last one where none runs.
func lifeOf(pod string, s *corev1.ContainerStatus, previous bool) (id string, err error) {
	last := s.LastTerminationState.Terminated
	switch {
	case previous && (last == nil || last.ContainerID == ""):
		return "", fmt.Errorf("previous terminated container %q in pod %q not found", s.Name, pod)
	case previous:
		return last.ContainerID, nil
	case s.State.Running != nil:
		return s.ContainerID, nil
	case s.State.Terminated != nil && s.State.Terminated.ContainerID != "":
		return s.State.Terminated.ContainerID, nil
	case last != nil && last.ContainerID != "":
		return last.ContainerID, nil
	case s.State.Waiting != nil:
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %s", s.Name, pod, s.State.Waiting.Reason)
	}
	return "", fmt.Errorf("container %q in pod %q has not started", s.Name, pod)
}
