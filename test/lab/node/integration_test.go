// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/json"
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
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
)

// The test program plays four parts: the tests; their inner process, which has namespaces of its own
// so that all of it ends with it; a node agent, a process that can be killed; and container-init.
const (
	insideEnv = "ISTHMUS_NODE_TEST_INSIDE"
	agentPart = "node-agent-under-test"
	patience  = 30 * time.Second
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
		OnProcesses: func(list []state.Process) {
			data, _ := json.Marshal(list)
			_ = os.WriteFile(filepath.Join(dir, "processes.tmp"), data, 0o644)
			_ = os.Rename(filepath.Join(dir, "processes.tmp"), filepath.Join(dir, "processes.json"))
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
	env := &envtest.Environment{}
	// Without a default route the API server finds no address to tell.
	env.ControlPlane.GetAPIServer().Configure().Set("advertise-address", testNodeIP)
	config, err := env.Start()
	require.NoError(t, err)
	defer func() { require.NoError(t, env.Stop()) }()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kubeconfig"), env.KubeConfig, 0o600))
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	for _, name := range []string{"helloworld", "echoserver"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "images", name), "../images/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	r := &rig{dir: dir, client: client}
	r.start(t)
	t.Run("Node", r.node)
	t.Run("Lifecycle", r.lifecycle)
	t.Run("Crash", r.crash)
	t.Run("Volumes", r.volumes)
	t.Run("InitContainers", r.initContainers)
	t.Run("ProbesAndHooks", r.probesAndHooks)
	t.Run("Security", r.security)
	t.Run("Completion", r.completion)
	t.Run("UnknownImage", r.unknownImage)
	t.Run("ImageFolder", r.imageFolder)
	t.Run("LoadBalancer", r.loadBalancer)
	t.Run("AgentKilled", r.agentKilled)
	r.shutdown(t)
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
	events, _ := r.client.CoreV1().Events(testNS).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	for _, e := range events.Items {
		t.Logf("%s: %s", e.Reason, e.Message)
	}
	require.FailNow(t, "pod "+name+" is not "+what, "%s", status)
	return nil
}

func ready(p *corev1.Pod) bool   { return conditionTrue(p.Status.Conditions, corev1.PodReady) }
func unready(p *corev1.Pod) bool { return !ready(p) }

func (r *rig) awaitReady(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	return r.await(t, name, "ready", ready)
}

// log returns what the pod's container said so far.
func (r *rig) log(t *testing.T, pod, container string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "state", "logs", testNS+"_"+pod+"_"+container+".log"))
	require.NoError(t, err)
	return string(data)
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
	require.Eventually(t, func() bool {
		list := r.processes(t)
		return len(list) == 1 && list[0].Name == "default/life" && list[0].Component == state.Pod && list[0].Alive()
	}, patience, 10*time.Millisecond)
	fetch(t, http.MethodPost, pod.Status.PodIP, "/control/unready")
	r.await(t, "life", "unready", unready)
	fetch(t, http.MethodPost, pod.Status.PodIP, "/control/ready")
	r.awaitReady(t, "life")
}

func (r *rig) crash(t *testing.T) {
	r.create(t, podOf("crash"))
	pod := r.awaitReady(t, "crash")
	var victim state.Process
	require.Eventually(t, func() bool {
		for _, victim = range r.processes(t) {
			if victim.Name == "default/crash" {
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond)
	killed := time.Now()
	require.NoError(t, syscall.Kill(victim.PID, syscall.SIGKILL))
	after := r.await(t, "crash", "unready", unready)
	t.Logf("unready %s after kill -9", time.Since(killed).Round(time.Millisecond))
	require.Less(t, time.Since(killed), time.Second)
	require.Equal(t, pod.Status.PodIP, after.Status.PodIP)
	again := r.await(t, "crash", "ready again", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	require.EqualValues(t, 137, again.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
}

func (r *rig) volumes(t *testing.T) {
	ctx := t.Context()
	core := r.client.CoreV1()
	_, err := core.ConfigMaps(testNS).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"color": "blue", "file": "content"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = core.Secrets(testNS).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "hidden"}, StringData: map[string]string{"key": "opensesame"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = core.ServiceAccounts(testNS).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "who"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	r.create(t, podOf("volumes", shell(`
echo "env=$COLOR,$KEY,$IP,$CPU,$ARG"
echo "config=$(cat /etc/config/file) secret=$(cat /var/run/secrets/hidden/key) sub=$(cat /opt/one)"
echo "labels=$(grep app= /etc/podinfo/labels)"
echo "scratch=$(touch /scratch/a && ls /scratch) tmp=$(ls /tmp | wc -l) ro=$(touch /etc/config/x 2>&1 | grep -c 'ead-only')"
echo "token=$(cat /var/run/secrets/tokens/token)"
echo end; exec sleep 1000`), func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "who"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
			{Name: "hidden", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "hidden", DefaultMode: ptr.To(int32(0o400))}}},
			{Name: "absent", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent", Optional: ptr.To(true)}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To(int64(600))}}}}}},
		}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{
			{Name: "scratch", MountPath: "/scratch"}, {Name: "config", MountPath: "/etc/config", ReadOnly: true},
			{Name: "hidden", MountPath: "/var/run/secrets/hidden"}, {Name: "absent", MountPath: "/absent"},
			{Name: "info", MountPath: "/etc/podinfo"}, {Name: "tokens", MountPath: "/var/run/secrets/tokens"},
			{Name: "config", MountPath: "/opt/one", SubPath: "file"},
		}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
		c.Env = []corev1.EnvVar{
			{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "hidden"}, Key: "key"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "ARG", Value: "$(COLOR)-$(NONE)-$$(COLOR)"},
		}
	}))
	pod := r.awaitReady(t, "volumes")
	require.Eventually(t, func() bool { return strings.Contains(r.log(t, "volumes", "main"), "\nend\n") }, patience, 10*time.Millisecond)
	lines := strings.Split(r.log(t, "volumes", "main"), "\n")
	require.Equal(t, "env=blue,opensesame,"+pod.Status.PodIP+",2,blue-$(NONE)-$(COLOR)", lines[0])
	require.Equal(t, "config=content secret=opensesame sub=content", lines[1])
	require.Equal(t, `labels=app="volumes"`, lines[2])
	require.Equal(t, "scratch=a tmp=0 ro=1", lines[3])
	review, err := r.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: strings.TrimPrefix(lines[4], "token=")}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.True(t, review.Status.Authenticated, review.Status.Error)
	require.Equal(t, "system:serviceaccount:default:who", review.Status.User.Username)
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
	var pid int
	require.Eventually(t, func() bool {
		for _, p := range r.processes(t) {
			if p.Name == "default/hooks" {
				pid = p.PID
			}
		}
		return pid != 0
	}, patience, 10*time.Millisecond)
	require.NoError(t, os.Remove(fmt.Sprintf("/proc/%d/root/alive", pid)))
	r.await(t, "hooks", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && ready(p) })
	require.Equal(t, "prestop\n", r.log(t, "hooks", "main"))
}

func (r *rig) security(t *testing.T) {
	r.create(t, podOf("security", shell(`
echo "id=$(id -u):$(id -g):$(id -G)"
echo "root=$(touch /file 2>&1 | grep -c 'ead-only') port=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) pid=$$$$"
echo "caps=$(grep CapBnd /proc/self/status | tr -d '\t') nnp=$(grep NoNewPrivs /proc/self/status | tr -d '\t')"
echo "hosts=$(grep -c security /etc/hosts) host=$(hostname)"
echo out >> /dev/stdout
echo end; exec sleep 1000`), func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{
			FSGroup: ptr.To(int64(2000)),
			Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
		}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			RunAsUser: ptr.To(int64(1337)), RunAsGroup: ptr.To(int64(1338)), RunAsNonRoot: ptr.To(true),
			ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	}))
	r.awaitReady(t, "security")
	require.Eventually(t, func() bool { return strings.Contains(r.log(t, "security", "main"), "end\n") }, patience, 10*time.Millisecond)
	require.Equal(t, `id=1337:1338:1338 2000
root=1 port=0 pid=1
caps=CapBnd:0000000000000000 nnp=NoNewPrivs:1
hosts=1 host=security
out
end
`, r.log(t, "security", "main"))
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

func (r *rig) unknownImage(t *testing.T) {
	r.create(t, podOf("unknown", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "example.com/nothing:v1" }))
	pod := r.await(t, "unknown", "waiting for its image", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "ErrImagePull"
	})
	message := pod.Status.ContainerStatuses[0].State.Waiting.Message
	require.Contains(t, message, filepath.Join(r.dir, "images"))
	require.Contains(t, message, "isthmus-lab image add nothing FILE")
	require.Equal(t, corev1.PodPending, pod.Status.Phase)
}

// imageFolder runs an image with files of its own, from its own path.
func (r *rig) imageFolder(t *testing.T) {
	at := filepath.Join(r.dir, "images", "tree")
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(at, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(at, name), []byte(text), 0o755))
	}
	write("root/opt/tree/bin/run", "#!/bin/sh\necho \"$0 $(cat /var/lib/tree/data) $1\"\n")
	write("root/var/lib/tree/data", "leaves")
	require.NoError(t, os.Symlink("root/opt/tree/bin/run", filepath.Join(at, "entrypoint")))
	r.create(t, podOf("tree", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		c := &p.Spec.Containers[0]
		c.Image, c.Args, c.ReadinessProbe = "example.com/tree:v1", []string{"green"}, nil
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(1337)), ReadOnlyRootFilesystem: ptr.To(true)}
	}))
	r.await(t, "tree", "Succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	require.Equal(t, "/opt/tree/bin/run leaves green\n", r.log(t, "tree", "main"))
}

// loadBalancer looks at the addresses; that they are served is kube-proxy's part, and test/e2e's.
func (r *rig) loadBalancer(t *testing.T) {
	services := r.client.CoreV1().Services(testNS)
	add := func(name string, class *string) *corev1.Service {
		service, err := services.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: class,
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = services.Delete(context.Background(), name, metav1.DeleteOptions{}) })
		return service
	}
	has := func(name, want string) {
		require.Eventually(t, func() bool {
			service, err := services.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && statusAddress(service) == netip.MustParseAddr(want)
		}, patience, 10*time.Millisecond, "%s has not %s", name, want)
	}
	other := add("lb-other", ptr.To("example.com/other"))
	one := add("lb-one", nil)
	has("lb-one", "10.233.250.1")
	add("lb-two", nil)
	has("lb-two", "10.233.250.2")
	patch := []byte(`{"spec":{"type":"ClusterIP"}}`)
	_, err := services.Patch(t.Context(), one.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		service, err := services.Get(t.Context(), one.Name, metav1.GetOptions{})
		return err == nil && len(service.Status.LoadBalancer.Ingress) == 0
	}, patience, 10*time.Millisecond, "the address is not taken back")
	add("lb-three", nil)
	has("lb-three", "10.233.250.1")
	other, err = services.Get(t.Context(), other.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, other.Status.LoadBalancer.Ingress, "a class is another controller's")
}

// agentKilled kills the agent: its next life starts the pods again and leaves nothing of the old one.
func (r *rig) agentKilled(t *testing.T) {
	r.create(t, podOf("survivor"))
	r.awaitReady(t, "survivor")
	var before []state.Process
	require.Eventually(t, func() bool { before = r.processes(t); return len(before) == 1 }, patience, 10*time.Millisecond)
	require.NoError(t, r.agent.Process.Kill())
	require.Error(t, r.agent.Wait())
	require.True(t, before[0].Alive(), "a pod outlives its agent")
	r.start(t)
	pod := r.await(t, "survivor", "started again", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	require.False(t, before[0].Alive())
	require.Equal(t, "NodeAgentRestarted", pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Reason)
	require.Contains(t, fetch(t, http.MethodGet, pod.Status.PodIP, "/hello"), "survivor")
}
