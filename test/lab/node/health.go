// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// unhealthyError is why a container is stopped whose startup or liveness probe failed.
type unhealthyError struct {
	kind  string
	grace *int64 // seconds, where the probe has its own
}

func (e *unhealthyError) Error() string { return "its " + strings.ToLower(e.kind) + " probe failed" }

// errPostStart is why a container is stopped that did not get past its hook.
var errPostStart = errors.New("its postStart hook failed")

// probe runs the container's hook and probes until ctx ends: postStart, then startup alone, then
// readiness and liveness side by side.
func (c *container) probe(ctx context.Context, proc *process, stop context.CancelCauseFunc) {
	if hook := c.spec.Lifecycle; hook != nil && hook.PostStart != nil {
		if err := c.hook(ctx, proc, hook.PostStart); err != nil {
			c.pod.event(corev1.EventTypeWarning, "FailedPostStartHook", fmt.Sprintf("container %s: %v", c.spec.Name, err))
			stop(errPostStart)
			return
		}
	}
	if !c.awaitStartup(ctx, proc, stop) {
		return
	}
	c.markStarted(proc)
	var probes sync.WaitGroup
	if spec := c.spec.ReadinessProbe; spec != nil {
		p := c.prober("Readiness", spec, proc, func(ok bool) { c.setReady(proc, ok) })
		probes.Go(func() { p.run(ctx) })
	} else {
		c.setReady(proc, true)
	}
	if spec := c.spec.LivenessProbe; spec != nil {
		p := c.prober("Liveness", spec, proc, func(ok bool) {
			if !ok {
				c.sick("Liveness", spec, stop)
			}
		})
		probes.Go(func() { p.run(ctx) })
	}
	probes.Wait()
}

// awaitStartup waits until the startup probe passes; false when it does not.
func (c *container) awaitStartup(ctx context.Context, proc *process, stop context.CancelCauseFunc) bool {
	spec := c.spec.StartupProbe
	if spec == nil {
		return ctx.Err() == nil
	}
	started := false
	starting, done := context.WithCancel(ctx)
	defer done()
	c.prober("Startup", spec, proc, func(ok bool) {
		if ok {
			started = true
			done()
			return
		}
		c.sick("Startup", spec, stop)
	}).run(starting)
	return started && ctx.Err() == nil
}

// sick stops a container whose probe has failed often enough.
func (c *container) sick(kind string, spec *corev1.Probe, stop context.CancelCauseFunc) {
	stop(&unhealthyError{kind, spec.TerminationGracePeriodSeconds})
}

func (c *container) markStarted(proc *process) {
	c.pod.change(func() {
		if c.proc == proc {
			c.started = true
		}
	})
	c.startedOnce.Do(func() { close(c.onStarted) })
}

// setReady takes a readiness result, unless the process has ended meanwhile.
func (c *container) setReady(proc *process, ready bool) {
	c.pod.change(func() {
		if c.proc == proc {
			c.ready = ready
		}
	})
}

// prober makes a prober that tells every failure in an Event, as kubelet does: equal ones are counted
// in one, and a pod's are limited.
func (c *container) prober(kind string, spec *corev1.Probe, proc *process, settled func(bool)) *prober {
	return &prober{
		spec: spec, clock: c.pod.agent.clock, started: proc.began, initial: kind == "Liveness", settled: settled,
		check: func(ctx context.Context) error { return c.check(ctx, proc, spec.ProbeHandler) },
		failed: func(err error) {
			c.pod.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe of %s failed: %v", kind, c.spec.Name, err))
		},
	}
}

func (c *container) check(ctx context.Context, proc *process, h corev1.ProbeHandler) error {
	host := c.pod.ip.String()
	switch {
	case h.HTTPGet != nil:
		port, err := portNumber(h.HTTPGet.Port, c.spec)
		if err != nil {
			return err
		}
		return checkHTTP(ctx, host, port, h.HTTPGet)
	case h.TCPSocket != nil:
		port, err := portNumber(h.TCPSocket.Port, c.spec)
		if err != nil {
			return err
		}
		if h.TCPSocket.Host != "" {
			host = h.TCPSocket.Host
		}
		return checkTCP(ctx, host, port)
	case h.GRPC != nil:
		return checkGRPC(ctx, host, h.GRPC)
	case h.Exec != nil:
		return c.runCommand(ctx, proc, h.Exec.Command)
	}
	return errNoHandler
}

// hook runs a lifecycle handler.
func (c *container) hook(ctx context.Context, proc *process, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return c.runCommand(ctx, proc, h.Exec.Command)
	case h.HTTPGet != nil:
		return c.check(ctx, proc, corev1.ProbeHandler{HTTPGet: h.HTTPGet})
	case h.Sleep != nil:
		wait(ctx, c.pod.agent.clock, time.Duration(h.Sleep.Seconds)*time.Second)
	}
	return nil
}

// preStop runs the hook before SIGTERM. Its failure is told and changes nothing.
func (c *container) preStop(ctx context.Context, proc *process) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return
	}
	if err := c.hook(ctx, proc, c.spec.Lifecycle.PreStop); err != nil {
		c.pod.event(corev1.EventTypeWarning, "FailedPreStopHook", fmt.Sprintf("container %s: %v", c.spec.Name, err))
	}
}
