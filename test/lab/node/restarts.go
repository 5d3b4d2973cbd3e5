// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Back-off between restarts. The lab's values: kubelet's start at 10 s, which no test wants to wait.
const (
	backoffFirst = time.Second
	backoffMax   = time.Minute
	// lookAgain is how often a container that waits for something to be added, an image or an object,
	// looks for it: a look costs nothing.
	lookAgain = 3 * time.Second
	// backoffReset is how long a container has to run for its failures to be forgotten.
	backoffReset = time.Minute
)

// backoffAfter returns the time to wait before the restart that follows n failures in a row.
func backoffAfter(n int) time.Duration {
	d := backoffFirst
	for ; n > 1 && d < backoffMax; n-- {
		d *= 2
	}
	return min(d, backoffMax)
}

// restartsAfter says whether the container starts again after an exit with that code.
func (c *container) restartsAfter(code int32) bool {
	if c.restartable {
		return true
	}
	switch c.pod.spec.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return !c.init || code != 0
}

// run starts the container and starts it again as its policy says. It returns when the container
// has ended for good, which it has in any case soon after ctx ends.
func (c *container) run(ctx context.Context) {
	if c.state.Terminated != nil {
		return
	}
	for {
		began := c.pod.agent.clock.Now()
		end, err := c.live(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !c.notCreated(ctx, err) {
				return
			}
			continue
		}
		c.uncreated = 0
		if !c.restartsAfter(end.ExitCode) {
			return
		}
		if end.FinishedAt.Sub(began) >= backoffReset {
			c.failures = 0
		}
		c.failures++
		if !c.backOff(ctx) {
			return
		}
		c.pod.change(func() { c.restarts++ })
	}
}

// live is one life of the container, from its start to its end. An error says that there was none,
// since the node could not make the container; a command that cannot be run is a short life.
func (c *container) live(ctx context.Context) (*corev1.ContainerStateTerminated, error) {
	proc, err := c.launch(ctx)
	var command *commandError
	switch {
	case errors.As(err, &command):
		return c.notStarted(command), nil
	case err != nil:
		return nil, err
	}
	c.supervise(ctx, proc)
	return &proc.exit, nil
}

// exitNotStarted is the exit code of a container whose command cannot be run, as containerd has it.
const exitNotStarted = 128

func (c *container) notStarted(err error) *corev1.ContainerStateTerminated {
	now := metav1.NewTime(c.pod.agent.clock.Now())
	end := &corev1.ContainerStateTerminated{
		Reason: "StartError", Message: err.Error(), ExitCode: exitNotStarted,
		StartedAt: now, FinishedAt: now, ContainerID: c.id(),
	}
	c.pod.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %v", c.spec.Name, err))
	c.pod.change(func() { c.state = corev1.ContainerState{Terminated: end} })
	return end
}

// notCreated shows why a container could not be made and waits before the next try; false when
// there is none.
func (c *container) notCreated(ctx context.Context, err error) bool {
	c.uncreated++
	waiting := corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: explainDisk(err, c.pod.dir).Error()}
	pause := backoffAfter(c.uncreated)
	var img *imageError
	var config *configError
	switch {
	case errors.As(err, &img) && c.uncreated > 1:
		waiting.Reason, waiting.Message = "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: %v", c.spec.Image, img)
		pause = min(pause, lookAgain)
	case errors.As(err, &img):
		waiting.Reason = "ErrImagePull"
	case errors.As(err, &config):
		waiting.Reason = "CreateContainerConfigError"
		pause = min(pause, lookAgain)
	}
	c.pod.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %s", c.spec.Name, waiting.Message))
	c.await(waiting)
	return wait(ctx, c.pod.agent.clock, pause)
}

// backOff waits for the next start of a container that ended; false when ctx ended.
func (c *container) backOff(ctx context.Context) bool {
	d := backoffAfter(c.failures)
	c.pod.event(corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting container %s", c.spec.Name))
	c.await(corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting failed container %s", d, c.spec.Name)})
	return wait(ctx, c.pod.agent.clock, d)
}

func (c *container) await(waiting corev1.ContainerStateWaiting) {
	c.pod.change(func() {
		if c.state.Terminated != nil {
			c.last = c.state
		}
		c.state = corev1.ContainerState{Waiting: &waiting}
	})
}

// configError says that the pod's own objects or fields keep a container from starting.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }
