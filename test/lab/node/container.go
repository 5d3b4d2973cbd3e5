// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// container is one container of a pod through all its restarts. Its run goroutine changes it, under
// the pod's lock; the status writer reads it under the same lock.
type container struct {
	pod  *pod
	spec *corev1.Container
	// init says that the container runs before the main ones; restartable, that it is a sidecar,
	// which stays beside them.
	init, restartable bool

	state, last corev1.ContainerState
	restarts    int32
	started     bool // the startup probe passed
	ready       bool
	failures    int // ends in a row, for the back-off
	uncreated   int // tries in a row that made no container
	proc        *process

	startedOnce sync.Once
	onStarted   chan struct{} // closed when started the first time
}

// process is one life of a container.
type process struct {
	start   *initStart
	image   image
	spec    initSpec
	began   time.Time
	exited  chan struct{} // closed when it ended; then exit is set
	exit    corev1.ContainerStateTerminated
	message string // file of the termination message
	log     *containerLog
	stdin   *os.File // the agent's end of its input; nil where its spec asks for none
}

// pid returns the process's number on the host.
func (p *process) pid() int { return p.start.cmd.Process.Pid }

func newContainer(p *pod, spec *corev1.Container, init bool, before *corev1.ContainerStatus) *container {
	c := &container{pod: p, spec: spec, init: init, onStarted: make(chan struct{})}
	c.restartable = init && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if len(p.spec.Spec.InitContainers) > 0 {
		c.state.Waiting.Reason = "PodInitializing"
	}
	if before == nil {
		return c
	}
	c.restarts, c.last = before.RestartCount, before.LastTerminationState
	switch {
	case before.State.Terminated != nil:
		c.adopt(before.State.Terminated)
	case before.State.Running != nil:
		// An earlier life of the agent started it; it was killed when this one began.
		c.adopt(&corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "NodeAgentRestarted", Message: "the node agent was restarted, and its pods with it",
			StartedAt: before.State.Running.StartedAt, FinishedAt: metav1.Now(), ContainerID: before.ContainerID,
		})
	}
	return c
}

// adopt continues from an end that an earlier life of the agent saw.
func (c *container) adopt(end *corev1.ContainerStateTerminated) {
	if !c.init && !c.restartsAfter(end.ExitCode) {
		c.state = corev1.ContainerState{Terminated: end}
		return
	}
	c.last = corev1.ContainerState{Terminated: end}
	c.restarts++
}

// running returns the container's process; nil when none runs.
func (c *container) running() *process {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.proc
}

// logRequest finds the log that the options ask for.
func (c *container) logRequest(options corev1.PodLogOptions) (LogRequest, error) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	id, err := lifeOf(c.pod.spec.Name, c.status(), options.Previous)
	if err != nil {
		return LogRequest{}, err
	}
	running := c.proc
	return LogRequest{
		File: c.pod.agent.logPath(c.pod, c.spec.Name, lifeNumber(id)), Options: options,
		Running: func() bool {
			if running == nil || options.Previous {
				return false
			}
			select {
			case <-running.log.done:
				return false
			default:
				return true
			}
		},
	}, nil
}

// launch starts the container's process.
func (c *container) launch(ctx context.Context) (*process, error) {
	proc, err := c.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.startProcess(proc); err != nil {
		return nil, err
	}
	go proc.await()
	c.pod.change(func() {
		c.proc = proc
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(proc.began)}}
		c.started, c.ready = false, false
	})
	c.pod.agent.processes.add(c, proc)
	c.pod.event(corev1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
	return proc, nil
}

// startProcess starts the process with its streams connected.
func (c *container) startProcess(proc *process) (err error) {
	if proc.log, err = c.newLog(); err != nil {
		return err
	}
	defer proc.log.seal()
	files, err := c.connectStreams(proc)
	defer files.close()
	if err != nil {
		return err
	}
	if proc.start, err = initProcess(proc.spec, files); err != nil {
		return err
	}
	if err := proc.start.start(c.pod.netns); err != nil {
		if proc.stdin != nil {
			_ = proc.stdin.Close()
		}
		return err
	}
	if console := proc.start.console; console != nil {
		proc.stdin = console
		proc.log.follow(runtimeapi.Stdout, console)
	}
	return nil
}

// await waits for the process's end and records it.
func (p *process) await() {
	_ = p.start.cmd.Wait()
	p.exit = corev1.ContainerStateTerminated{
		StartedAt: metav1.NewTime(p.began), FinishedAt: metav1.Now(), Reason: "Completed",
	}
	if status, ok := p.start.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		p.exit.ExitCode, p.exit.Signal = 128+int32(status.Signal()), int32(status.Signal())
	} else {
		p.exit.ExitCode = int32(p.start.cmd.ProcessState.ExitCode())
	}
	if p.exit.ExitCode != 0 {
		p.exit.Reason = "Error"
	}
	select {
	case <-p.log.done:
	case <-time.After(drainWait):
	}
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	p.exit.Message = tail(p.message, 4096)
	if p.exit.Message == "" && p.exit.ExitCode != 0 {
		// Kubelet does so where terminationMessagePolicy says FallbackToLogsOnError; whoever tries
		// a program in the lab wants to know in any case.
		p.exit.Message = lastWords(context.Background(), p.log.path)
	}
	close(p.exited)
}

// tail returns the last n bytes of a file, nothing when it cannot be read.
func tail(name string, n int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, min(n, info.Size()))
	read, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	return string(buf[:read])
}

// supervise probes a running process until it ends, and ends it when ctx ends or its liveness fails.
func (c *container) supervise(ctx context.Context, proc *process) {
	probing, stopProbes := context.WithCancelCause(ctx)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probing, proc, stopProbes) })
	select {
	case <-proc.exited:
	case <-probing.Done():
		c.stop(proc, context.Cause(probing))
	}
	// Not ready first, all else later: this is what takes the pod out of its Services.
	c.pod.change(func() {
		c.ready, c.started, c.proc = false, false, nil
		exit := proc.exit
		exit.ContainerID = c.id()
		c.state = corev1.ContainerState{Terminated: &exit}
	})
	c.pod.agent.processes.remove(proc)
	stopProbes(nil)
	probes.Wait()
}

// id is unique to each start of the container.
func (c *container) id() string {
	return fmt.Sprintf("isthmus-lab://%s/%s/%d", c.pod.spec.UID, c.spec.Name, c.restarts)
}

// lifeNumber reads which life of the container an id is of.
func lifeNumber(id string) int32 {
	n, _ := strconv.ParseInt(id[strings.LastIndexByte(id, '/')+1:], 10, 32)
	return int32(n)
}

// minimumGrace is what a process has for its end at the least, also after a hook that used the grace period up: kubelet's.
const minimumGrace = 2 * time.Second

// stop ends a process: preStop, SIGTERM, and SIGKILL when the grace period is over. Killing the
// first process of its pid namespace kills all of them.
func (c *container) stop(proc *process, why error) {
	grace, hurry := c.pod.grace()
	var sick *unhealthyError
	if errors.As(why, &sick) && sick.grace != nil {
		grace = time.Duration(*sick.grace) * time.Second
	}
	end := time.Now().Add(grace)
	c.pod.event(corev1.EventTypeNormal, "Killing", fmt.Sprintf("Stopping container %s: %v", c.spec.Name, why))
	hook := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	go func() {
		defer close(hook)
		c.preStop(ctx, proc)
	}()
	select {
	case <-hook:
		_ = proc.start.cmd.Process.Signal(syscall.SIGTERM)
	case <-proc.exited:
	case <-hurry:
	}
	deadline := time.NewTimer(max(time.Until(end), minimumGrace))
	defer deadline.Stop()
	select {
	case <-proc.exited:
		return
	case <-deadline.C:
	case <-hurry:
	}
	_ = proc.start.cmd.Process.Kill()
	<-proc.exited
}
