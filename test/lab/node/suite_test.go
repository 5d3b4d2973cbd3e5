// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
)

// The test program plays five parts: the tests; their inner process, which has namespaces of its own
// so that all of it ends with it; a node agent, a process that can be killed; container-init; and a
// pod's program.
const (
	insideEnv = "ISTHMUS_NODE_TEST_INSIDE"
	agentPart = "node-agent-under-test"
	// fixturePart is a pod's program that answers every kind of probe.
	fixturePart = "fixture-under-test"
	patience    = 30 * time.Second
)

const (
	testBridge = "pods0"
	testNodeIP = "10.232.250.1"
	testDNS    = "10.234.250.10"
	testNS     = "default"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case initCommand:
			ContainerMain()
		case agentPart:
			os.Exit(agentMain(os.Args[2]))
		case fixturePart:
			os.Exit(fixtureMain())
		}
	}
	if os.Getenv(insideEnv) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// furnish makes the inner process's namespaces usable: its own /proc, an empty list of network
// namespaces, and the pods' bridge.
func furnish() error {
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	for _, m := range []struct {
		kind, target string
		flags        uintptr
	}{{"", "/", unix.MS_REC | unix.MS_PRIVATE}, {"proc", "/proc", 0}, {"tmpfs", "/run/netns", 0}} {
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: testBridge}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	address, err := netlink.ParseAddr(testNodeIP + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(bridge, address); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, link := range []netlink.Link{lo, bridge} {
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	return nil
}

func agentMain(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := Run(ctx, Config{
		Cluster: "test", NodeName: "node-1", NodeIP: testNodeIP, Region: "us-east-1", Zone: "us-east-1a",
		ProviderID: "aws:///us-east-1a/i-00000000000000001", Kubeconfig: filepath.Join(dir, "kubeconfig"),
		PodCIDR: netip.MustParsePrefix("10.232.250.0/24"), LoadBalancerCIDR: netip.MustParsePrefix("10.233.250.0/29"),
		PodBridge: testBridge, ImageDirs: []string{filepath.Join(dir, "images")}, StateDir: filepath.Join(dir, "state"),
		APIServer: netip.MustParseAddrPort("10.234.250.1:443"), DNS: netip.MustParseAddr(testDNS),
		Serving: &Serving{CertFile: filepath.Join(dir, "pki", "kubelet.crt"), KeyFile: filepath.Join(dir, "pki", "kubelet.key"),
			ClientCAFile: filepath.Join(dir, "pki", "ca.crt")},
		OnProcesses: func(list []state.Process) error {
			data, err := json.Marshal(list)
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "processes.tmp"), data, 0o644),
				os.Rename(filepath.Join(dir, "processes.tmp"), filepath.Join(dir, "processes.json")))
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestNode runs TestInside in namespaces of its own: processes, mounts and networks end with it.
func TestNode(t *testing.T) {
	switch {
	case os.Getenv(insideEnv) != "":
		t.Skip("this is the inner process")
	case testing.Short():
		t.Skip("-short: pods need an API server")
	case os.Geteuid() != 0:
		t.Skip("pods need root: run the tests as root")
	case os.Getenv("KUBEBUILDER_ASSETS") == "":
		t.Skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver: `make test` sets it")
	}
	dir := t.TempDir()
	args := []string{"-test.run=^TestInside$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

// rig is an API server and a node agent for it.
type rig struct {
	dir    string
	client kubernetes.Interface
	agent  *exec.Cmd
}

func TestInside(t *testing.T) {
	dir := os.Getenv(insideEnv)
	if dir == "" {
		t.Skip("TestNode runs it")
	}
	// The node's certificates, made as the lab makes them.
	pki := controlplane.Cluster{Name: "test", Dir: dir, Network: network.Cluster{
		Node: netip.MustParsePrefix(testNodeIP + "/24"), Services: netip.MustParsePrefix("10.234.250.0/24")}}
	require.NoError(t, pki.Prepare(filepath.Join(dir, "unused.kubeconfig")))
	file := func(name string) string { return filepath.Join(dir, "pki", name) }
	env := &envtest.Environment{ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: time.Minute}
	env.ControlPlane.GetAPIServer().Configure().
		Set("advertise-address", testNodeIP). // without a default route it finds no address to tell
		Set("kubelet-client-certificate", file("apiserver-kubelet-client.crt")).
		Set("kubelet-client-key", file("apiserver-kubelet-client.key")).
		Set("kubelet-certificate-authority", file("ca.crt")).
		Set("kubelet-preferred-address-types", "InternalIP").
		Set("allow-privileged", "true")
	config, err := env.Start()
	require.NoError(t, err)
	defer func() { require.NoError(t, env.Stop()) }()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kubeconfig"), env.KubeConfig, 0o600))
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "images")+"/", "../images/helloworld", "../images/echoserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "images", "fixture")))
	r := &rig{dir: dir, client: client}
	r.start(t)
	t.Run("Pods", r.podTests)
	t.Run("AgentKilled", r.agentKilled)
	r.shutdown(t)
}

// podTests run beside one another, as pods do.
func (r *rig) podTests(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"Node": r.node, "Lifecycle": r.lifecycle, "Crash": r.crash, "InitContainers": r.initContainers, "Completion": r.completion,
		"Volumes": r.volumes, "VolumesFollow": r.volumesFollow, "HostPath": r.hostPath,
		"ProbesAndHooks": r.probesAndHooks, "ProbeKinds": r.probeKinds, "ProbesFail": r.probesFail, "LivenessGrace": r.livenessGrace, "LastGasp": r.lastGasp,
		"PostStart": r.postStart, "RestartPolicies": r.restartPolicies, "Security": r.security,
		"UnknownImage": r.unknownImage, "ImageFolder": r.imageFolder, "NotStarted": r.notStarted, "CrashLoop": r.crashLoop,
		"MissingObjects": r.missingObjects, "FullDisk": r.fullDisk, "LoadBalancer": r.loadBalancer,
		"Logs": r.logs, "Exec": r.exec, "ExecTerminal": r.execTerminal, "Attach": r.attach, "PortForward": r.portForward,
		"ServerRefuses": r.serverRefuses,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// start starts the agent; its log is shown when the test fails.
func (r *rig) start(t *testing.T) {
	t.Helper()
	r.agent = exec.Command("/proc/self/exe", agentPart, r.dir)
	r.agent.Env = append(os.Environ(), insideEnv+"=")
	log, err := os.OpenFile(filepath.Join(r.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	r.agent.Stdout, r.agent.Stderr = log, log
	require.NoError(t, r.agent.Start())
}

func (r *rig) shutdown(t *testing.T) {
	t.Helper()
	require.NoError(t, r.agent.Process.Signal(syscall.SIGTERM))
	require.NoError(t, r.agent.Wait())
	left, err := network.Namespaces(network.PodPrefix)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, r.processes(t))
	if t.Failed() {
		log, _ := os.ReadFile(filepath.Join(r.dir, "agent.log"))
		t.Logf("agent's log:\n%s", log)
	}
}

// process waits for the process of a pod.
func (r *rig) process(t *testing.T, pod string) state.Process {
	t.Helper()
	var found state.Process
	require.Eventually(t, func() bool {
		for _, p := range r.processes(t) {
			if p.Name == testNS+"/"+pod {
				found = p
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "pod %s has no process", pod)
	return found
}

func (r *rig) processes(t *testing.T) []state.Process {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "processes.json"))
	require.NoError(t, err)
	var list []state.Process
	require.NoError(t, json.Unmarshal(data, &list))
	return list
}

// podOf is a pod with one container that runs helloworld.
func podOf(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: testNS, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To(int64(5)), AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{
				Name: "main", Image: "example.com/lab/helloworld:v1",
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 5000}},
				Env:            []corev1.EnvVar{{Name: "LAME_DUCK", Value: "10ms"}},
				ReadinessProbe: httpProbe("/healthz"),
			}},
		},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func httpProbe(path string) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")},
	}}
}

// shell makes the pod's container a shell script without a probe.
func shell(script string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		// A shell that is the first process of its namespace does not hear SIGTERM.
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(1))
		c := &p.Spec.Containers[0]
		c.Command, c.ReadinessProbe = []string{"/bin/sh", "-c", script}, nil
	}
}

func (r *rig) create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	out, err := r.client.CoreV1().Pods(testNS).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		// Cleaning up is part of the test: the pod has to go within its grace period.
		ctx := context.Background()
		_ = r.client.CoreV1().Pods(testNS).Delete(ctx, pod.Name, metav1.DeleteOptions{})
		require.Eventually(t, func() bool {
			_, err := r.client.CoreV1().Pods(testNS).Get(ctx, pod.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, patience, 20*time.Millisecond, "pod %s was not deleted", pod.Name)
	})
	return out
}

// await waits until the pod is as wanted and returns it.
func (r *rig) await(t *testing.T, name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var last *corev1.Pod
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		pod, err := r.client.CoreV1().Pods(testNS).Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		if ok(pod) {
			return pod
		}
		last = pod
	}
	status, _ := json.MarshalIndent(last.Status.ContainerStatuses, "", " ")
	t.Log(r.events(t, name))
	require.FailNow(t, "pod "+name+" is not "+what, "%s", status)
	return nil
}

// events returns the Events of a pod, a line each.
func (r *rig) events(t *testing.T, pod string) string {
	t.Helper()
	list, err := r.client.CoreV1().Events(testNS).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	require.NoError(t, err)
	var lines strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&lines, "%s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	return lines.String()
}

// awaitEvent waits for an Event of a pod that has these words.
func (r *rig) awaitEvent(t *testing.T, pod, words string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(r.events(t, pod), words) }, patience, 50*time.Millisecond,
		"no event of %s says %q", pod, words)
}

// waitingFor says whether the pod's first container waits for a reason.
func waitingFor(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
	}
}

func phaseIs(phase corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == phase }
}

func ready(p *corev1.Pod) bool   { return conditionTrue(p.Status.Conditions, corev1.PodReady) }
func unready(p *corev1.Pod) bool { return !ready(p) }

func (r *rig) awaitReady(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	return r.await(t, name, "ready", ready)
}

// log returns what the pod's container said in all its lives so far.
func (r *rig) log(t *testing.T, pod, container string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "state", "logs", testNS+"_"+pod+"_*", container, "*.log"))
	require.NoError(t, err)
	var said strings.Builder
	for _, file := range files {
		require.NoError(t, ReadLog(t.Context(), LogRequest{File: file, Stdout: &said, Stderr: &said}))
	}
	return said.String()
}

func fetch(t *testing.T, method, ip, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+ip+":5000"+path, nil)
	require.NoError(t, err)
	resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}
