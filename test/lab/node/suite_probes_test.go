// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func (r *rig) probesAndHooks(t *testing.T) {
	r.create(t, podOf("hooks", shell("touch /alive; trap 'cat /stopped; exit 0' TERM; while true; do sleep 0.1; done"), func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(10)) // preStop and the trap need some of it
		alive := &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 10, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/alive"}}}}
		c.StartupProbe = alive.DeepCopy()
		c.StartupProbe.FailureThreshold = 10
		c.LivenessProbe, c.ReadinessProbe = alive, alive
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
			Command: []string{"/bin/sh", "-c", "echo prestop > /stopped"}}}}
	}))
	r.awaitReady(t, "hooks")
	require.NoError(t, os.Remove(fmt.Sprintf("/proc/%d/root/alive", r.process(t, "hooks").PID)))
	r.await(t, "hooks", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && ready(p) })
	require.Equal(t, "prestop\n", r.log(t, "hooks", "main"))
}
