// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package process starts and ends the lab's processes: detached, in a cluster's network namespace,
// with a log file each, and told apart from strangers by the time at which they started.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
)

// Spec says how to start one process.
type Spec struct {
	Cluster, Component string
	NetNS              string
	Path               string
	Args, Env          []string   // Env is added to a minimal environment
	Dir, Log           string     // working directory and log file, both made
	Files              []*os.File // given to the process as its descriptors from 3 on
}

// Start starts the process in a session of its own, so that it outlives its parent's terminal.
func Start(s Spec) (state.Process, error) {
	for _, dir := range []string{s.Dir, filepath.Dir(s.Log)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return state.Process{}, err
		}
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return state.Process{}, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.Path, s.Args...) //nolint:noctx // it is to outlive this program
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}, s.Env...)
	cmd.ExtraFiles = s.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := network.Do(s.NetNS, cmd.Start); err != nil {
		return state.Process{}, fmt.Errorf("start %s of %s: %w", s.Component, s.Cluster, err)
	}
	// Read before Wait can reap it: a dead child keeps its entry until then.
	start, err := state.StartTime(cmd.Process.Pid)
	if err != nil {
		return state.Process{}, err
	}
	go func() { _ = cmd.Wait() }() // as long as this program lives, it has to reap
	return state.Process{
		Cluster: s.Cluster, Component: s.Component, Name: s.Component,
		PID: cmd.Process.Pid, StartTime: start, Log: s.Log,
	}, nil
}

// Signal sends a signal to p, unless the pid belongs to another process by now.
func Signal(p state.Process, sig syscall.Signal) error {
	// The descriptor pins the process: nobody can take its pid between the look and the signal.
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return nil // it is gone
	}
	defer func() { _ = handle.Release() }()
	if !p.Alive() {
		return nil
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s of %s (pid %d): %w", p.Component, p.Cluster, p.PID, err)
	}
	return nil
}

// Stop ends processes: SIGTERM to all, and SIGKILL to those that still live after grace.
func Stop(ctx context.Context, grace time.Duration, processes ...state.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, Signal(p, syscall.SIGTERM))
	}
	left := await(ctx, grace, processes)
	for _, p := range left {
		errs = append(errs, Signal(p, syscall.SIGKILL))
	}
	return errors.Join(append(errs, AwaitEnd(ctx, 10*time.Second, left))...)
}

// AwaitEnd waits until the processes are gone; those that are not after timeout are the error.
func AwaitEnd(ctx context.Context, timeout time.Duration, processes []state.Process) error {
	var errs []error
	for _, p := range await(ctx, timeout, processes) {
		errs = append(errs, fmt.Errorf("%s of %s (pid %d) does not die", p.Component, p.Cluster, p.PID))
	}
	return errors.Join(errs...)
}

// await waits until the processes are gone and returns those that are not.
func await(ctx context.Context, timeout time.Duration, processes []state.Process) []state.Process {
	left := slices.Clone(processes)
	deadline := time.Now().Add(timeout)
	for {
		left = slices.DeleteFunc(left, func(p state.Process) bool { return !p.Alive() })
		if len(left) == 0 || time.Now().After(deadline) || ctx.Err() != nil {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// In returns the processes that live in the named network namespaces, whoever started them.
func In(namespaces ...string) ([]state.Process, error) {
	pids, err := network.Processes(namespaces...)
	if err != nil {
		return nil, err
	}
	var found []state.Process
	for _, ns := range namespaces {
		for _, pid := range pids[ns] {
			start, err := state.StartTime(pid)
			if err != nil {
				continue // it ended meanwhile
			}
			found = append(found, state.Process{Component: "process", Name: ns, Cluster: ns, PID: pid, StartTime: start})
		}
	}
	return found, nil
}
