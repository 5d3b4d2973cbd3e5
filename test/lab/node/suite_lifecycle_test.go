// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/test/lab/state"
)

func (r *rig) node(t *testing.T) {
	require.Eventually(t, func() bool {
		n, err := r.client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
		return err == nil && len(n.Status.Conditions) > 0 && n.Labels[corev1.LabelTopologyRegion] == "us-east-1" &&
			n.Status.Addresses[0].Address == testNodeIP && strings.HasPrefix(n.Status.NodeInfo.KubeletVersion, "v1.")
	}, patience, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := r.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "node-1", metav1.GetOptions{})
		return err == nil
	}, patience, 20*time.Millisecond)
}

func (r *rig) lifecycle(t *testing.T) {
	r.create(t, podOf("life"))
	pod := r.awaitReady(t, "life")
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	require.Equal(t, "Hello version: v1, cluster: test, instance: life\n", fetch(t, http.MethodGet, pod.Status.PodIP, "/hello"))
	process := r.process(t, "life")
	require.Equal(t, state.Pod, process.Component)
	require.True(t, process.Alive())
	fetch(t, http.MethodPost, pod.Status.PodIP, "/control/unready")
	r.await(t, "life", "unready", unready)
	fetch(t, http.MethodPost, pod.Status.PodIP, "/control/ready")
	r.awaitReady(t, "life")
}

func (r *rig) crash(t *testing.T) {
	r.create(t, podOf("crash"))
	pod := r.awaitReady(t, "crash")
	killed := time.Now()
	require.NoError(t, syscall.Kill(r.process(t, "crash").PID, syscall.SIGKILL))
	after := r.await(t, "crash", "unready", unready)
	t.Logf("unready %s after kill -9", time.Since(killed).Round(time.Millisecond))
	require.Equal(t, pod.Status.PodIP, after.Status.PodIP)
	again := r.await(t, "crash", "ready again", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	require.EqualValues(t, 137, again.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
}

func (r *rig) initContainers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	order := func(name, script string) corev1.Container {
		return corev1.Container{Name: name, Image: "helloworld", Command: []string{"/bin/sh", "-c", script},
			VolumeMounts: []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}}
	}
	r.create(t, podOf("inits", shell("cat /shared/order; exec sleep 1000"), func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
		sidecar := order("sidecar", "echo sidecar >> /shared/order; trap 'exit 0' TERM; while true; do sleep 0.1; done")
		sidecar.RestartPolicy = &always
		sidecar.StartupProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 10, ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"grep", "-q", "sidecar", "/shared/order"}}}}
		p.Spec.InitContainers = []corev1.Container{order("one", "echo one >> /shared/order"), sidecar, order("two", "echo two >> /shared/order")}
	}))
	pod := r.awaitReady(t, "inits")
	require.Eventually(t, func() bool { return r.log(t, "inits", "main") == "one\nsidecar\ntwo\n" }, patience, 10*time.Millisecond)
	require.True(t, conditionTrue(pod.Status.Conditions, corev1.PodInitialized))
	require.NotNil(t, pod.Status.InitContainerStatuses[1].State.Running)
}

func (r *rig) completion(t *testing.T) {
	never := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }
	r.create(t, podOf("succeeds", shell("echo why > /dev/termination-log"), never))
	r.create(t, podOf("fails", shell("exit 3"), never))
	done := r.await(t, "succeeds", "Succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	require.Equal(t, "why\n", done.Status.ContainerStatuses[0].State.Terminated.Message)
	failed := r.await(t, "fails", "Failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	require.EqualValues(t, 3, failed.Status.ContainerStatuses[0].State.Terminated.ExitCode)
}

func (r *rig) restartPolicies(t *testing.T) {
	// Fails in its first life, succeeds in its second, and stays in its third.
	script := `n=$(cat /v/n 2>/dev/null || echo 0); echo $((n+1)) > /v/n
case $n in 0) exit 3;; 1) exit 0;; *) exec sleep 1000;; esac`
	for policy, want := range map[corev1.RestartPolicy]struct {
		phase    corev1.PodPhase
		restarts int32
	}{
		corev1.RestartPolicyNever: {corev1.PodFailed, 0}, corev1.RestartPolicyOnFailure: {corev1.PodSucceeded, 1},
		corev1.RestartPolicyAlways: {corev1.PodRunning, 2},
	} {
		name := "policy-" + strings.ToLower(string(policy))
		r.create(t, podOf(name, shell(script), func(p *corev1.Pod) {
			p.Spec.RestartPolicy = policy
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}))
		pod := r.await(t, name, string(want.phase), func(p *corev1.Pod) bool {
			return p.Status.Phase == want.phase && p.Status.ContainerStatuses[0].RestartCount == want.restarts
		})
		if want.phase == corev1.PodRunning {
			r.await(t, name, "ready", ready)
			continue
		}
		require.NotNil(t, pod.Status.ContainerStatuses[0].State.Terminated, name)
	}
}

// agentKilled kills the agent: its next life starts the pods again and leaves nothing of the old one.
func (r *rig) agentKilled(t *testing.T) {
	r.create(t, podOf("survivor"))
	r.awaitReady(t, "survivor")
	before := r.process(t, "survivor")
	require.NoError(t, r.agent.Process.Kill())
	require.Error(t, r.agent.Wait())
	require.True(t, before.Alive(), "a pod outlives its agent")
	r.start(t)
	pod := r.await(t, "survivor", "started again", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	require.False(t, before.Alive())
	require.Equal(t, "NodeAgentRestarted", pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Reason)
	require.Contains(t, fetch(t, http.MethodGet, pod.Status.PodIP, "/hello"), "survivor")
}
