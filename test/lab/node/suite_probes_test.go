// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
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

// fixtureMain answers probes of every kind, as strictly as it can.
func fixtureMain() int {
	strict := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "probe.example.com" || r.Header.Get("X-Probe") != "yes" || r.URL.RequestURI() != "/ready?full=1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	listen := func(port string) net.Listener {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return l
	}
	secure := &httptest.Server{Listener: listen("8443"), Config: &http.Server{Handler: strict}}
	secure.StartTLS()
	states := health.NewServer()
	states.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
	states.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, states)
	go func() { _ = server.Serve(listen("9090")) }()
	_ = http.Serve(listen("8080"), strict)
	return 1
}

// probedPod has a container for each probe, beside one that answers.
func probedPod(name string, probes map[string]corev1.ProbeHandler, change func(*corev1.Container, *corev1.Probe)) *corev1.Pod {
	return podOf(name, func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(0))
		p.Spec.Containers[0] = corev1.Container{Name: "main", Image: "fixture", Args: []string{fixturePart}}
		for kind, handler := range probes {
			c := corev1.Container{Name: kind, Image: "fixture", Command: []string{"sleep", "1000"}}
			if kind == "http" {
				c.Ports = []corev1.ContainerPort{{Name: "named", ContainerPort: 8080}}
			}
			change(&c, &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, ProbeHandler: handler})
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	})
}

func httpGet(port intstr.IntOrString, scheme corev1.URIScheme, probe string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port, Scheme: scheme, Path: "/ready?full=1",
		HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "probe.example.com"}, {Name: "X-Probe", Value: probe}}}}
}

func (r *rig) probeKinds(t *testing.T) {
	r.create(t, probedPod("probes", map[string]corev1.ProbeHandler{
		"http":  httpGet(intstr.FromString("named"), corev1.URISchemeHTTP, "yes"),
		"https": httpGet(intstr.FromInt32(8443), corev1.URISchemeHTTPS, "yes"),
		"tcp":   {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9090)}},
		"grpc":  {GRPC: &corev1.GRPCAction{Port: 9090, Service: ptr.To("up")}},
		"exec":  {Exec: &corev1.ExecAction{Command: []string{"true"}}},
	}, func(c *corev1.Container, probe *corev1.Probe) {
		c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = probe.DeepCopy(), probe.DeepCopy(), probe.DeepCopy()
		c.StartupProbe.FailureThreshold = 60
		c.ReadinessProbe.SuccessThreshold = 2
	}))
	pod := r.awaitReady(t, "probes")
	for _, c := range pod.Status.ContainerStatuses {
		require.True(t, *c.Started, c.Name)
		require.Zero(t, c.RestartCount, c.Name)
	}
}

func (r *rig) probesFail(t *testing.T) {
	words := map[string]string{
		"http": "HTTP probe failed with status 400", "https": "HTTP probe failed with status 400", "tcp": "connection refused",
		"grpc": "gRPC health is NOT_SERVING", "exec": "exit code 3: not yet",
	}
	r.create(t, probedPod("fail", map[string]corev1.ProbeHandler{
		"http":  httpGet(intstr.FromInt32(8080), corev1.URISchemeHTTP, "no"),
		"https": httpGet(intstr.FromInt32(8443), corev1.URISchemeHTTPS, "no"),
		"tcp":   {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}},
		"grpc":  {GRPC: &corev1.GRPCAction{Port: 9090, Service: ptr.To("down")}},
		"exec":  {Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo not yet; exit 3"}}},
	}, func(c *corev1.Container, probe *corev1.Probe) { c.ReadinessProbe = probe }))
	r.create(t, podOf("slow", shell("exec sleep 1000"), func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sleep", "1000"}}}}
	}))
	for kind, say := range words {
		r.awaitEvent(t, "fail", "Readiness probe of "+kind+" failed: ")
		r.awaitEvent(t, "fail", say)
	}
	r.awaitEvent(t, "slow", "Readiness probe of main failed: context deadline exceeded")
	pod := r.await(t, "fail", "running", phaseIs(corev1.PodRunning))
	for _, c := range pod.Status.ContainerStatuses {
		require.Equal(t, c.Name == "main", c.Ready, c.Name)
	}
	require.False(t, ready(pod))
}

// livenessGrace: a probe's own grace period goes before the pod's, which nobody could wait for.
func (r *rig) livenessGrace(t *testing.T) {
	r.create(t, podOf("stubborn", shell("exec sleep 1000"), func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(1000))
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, TerminationGracePeriodSeconds: ptr.To(int64(1)),
			ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}}
	}))
	pod := r.await(t, "stubborn", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	require.EqualValues(t, 137, pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
	r.awaitEvent(t, "stubborn", "Stopping container main: its liveness probe failed")
	require.NoError(t, r.client.CoreV1().Pods(testNS).Delete(t.Context(), "stubborn", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
}

// lastGasp: after a hook that used the whole grace period up, the program still has a moment for its own end.
func (r *rig) lastGasp(t *testing.T) {
	r.create(t, podOf("gasp", shell("trap 'exit 7' TERM; sleep 1000 & wait"), func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(1000))
		c := &p.Spec.Containers[0]
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1000}}}
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, TerminationGracePeriodSeconds: ptr.To(int64(1)),
			ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}}
	}))
	pod := r.await(t, "gasp", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	require.EqualValues(t, 7, pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
	require.NoError(t, r.client.CoreV1().Pods(testNS).Delete(t.Context(), "gasp", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
}

func (r *rig) postStart(t *testing.T) {
	hooked := func(command ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
				PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}},
				PreStop:   &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}},
			}
		}
	}
	r.create(t, podOf("hooked", hooked("touch", "/hooked")))
	r.awaitReady(t, "hooked")
	require.FileExists(t, fmt.Sprintf("/proc/%d/root/hooked", r.process(t, "hooked").PID))
	r.create(t, podOf("unhooked", hooked("sh", "-c", "echo no hook; exit 9")))
	r.awaitEvent(t, "unhooked", "FailedPostStartHook: container main: exit code 9: no hook")
	r.await(t, "unhooked", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
}
