// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// kubectl prepares the real kubectl, without its usual environment and with an end.
func (r *rig) kubectl(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...)
	cmd.Env = []string{"KUBECONFIG=" + filepath.Join(r.dir, "kubeconfig"), "HOME=" + r.dir, "TERM=xterm"}
	return cmd
}

// say returns what kubectl says.
func (r *rig) say(t *testing.T, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := r.kubectl(t, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "kubectl %v: %s", args, stderr.String())
	return string(out)
}

func (r *rig) logs(t *testing.T) {
	r.create(t, podOf("logs", shell(`
for i in 1 2 3; do echo "out $i"; done; echo "err" >&2; printf unfinished
[ -e /scratch/second ] && { echo "second life"; while [ ! -e /scratch/end ]; do sleep 0.05; done; echo last; exit 0; }
touch /scratch/second; exit 3`), func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	}))
	pod := r.await(t, "logs", "running again", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
	require.Contains(t, last.Message, "out 3\n", "the last words of a program that failed")

	previous := r.say(t, "logs", "--previous", "logs")
	require.ElementsMatch(t, []string{"out 1", "out 2", "out 3", "err", "unfinished"}, strings.Split(strings.TrimSpace(previous), "\n"))
	require.Eventually(t, func() bool { return strings.Contains(r.say(t, "logs", "logs", "-c", "main"), "second life\n") }, patience, 50*time.Millisecond)
	require.Equal(t, 1, strings.Count(r.say(t, "logs", "logs", "--tail=1"), "\n"))
	require.Len(t, r.say(t, "logs", "logs", "--limit-bytes=3"), 3)
	stamped := strings.Fields(r.say(t, "logs", "logs", "--timestamps", "--tail=1"))
	at, err := time.Parse(time.RFC3339Nano, stamped[0])
	require.NoError(t, err)
	require.Empty(t, r.say(t, "logs", "logs", "--since-time="+at.Add(time.Minute).Format(time.RFC3339Nano)))
	require.NotEmpty(t, r.say(t, "logs", "logs", "--since-time="+at.Format(time.RFC3339Nano)))

	follow := r.kubectl(t, "logs", "-f", "--tail=1", "logs")
	out, err := follow.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, follow.Start())
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n') // from here on it follows
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "state", "pods", string(pod.UID), "volumes", "scratch", "end"), nil, 0o644))
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.NoError(t, follow.Wait(), "following ends with the container")
	require.Equal(t, "last\n", string(rest))
}

func (r *rig) exec(t *testing.T) {
	r.create(t, podOf("exec", func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.WorkingDir = "/srv"
		c.Env = append(c.Env, corev1.EnvVar{Name: "COLOR", Value: "blue"})
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(1337)), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	}))
	pod := r.awaitReady(t, "exec")
	inside := func(script string) []string { return []string{"exec", "exec", "--", "sh", "-c", script} }
	require.Equal(t, "blue 1337 /srv "+pod.Status.PodIP+" helloworld CapBnd:0000000000000000\n",
		r.say(t, inside(`echo $COLOR $(id -u) $PWD $(grep -w "$HOSTNAME" /etc/hosts | cut -f1) $(cat /proc/1/comm) $(grep CapBnd /proc/self/status | tr -d '\t')`)...))

	cmd := r.kubectl(t, inside("echo out; echo err >&2; exit 7")...)
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Run(), &exit)
	require.Equal(t, 7, exit.ExitCode())
	require.Equal(t, "out\n", out.String())
	require.Contains(t, stderr.String(), "err\n")

	cmd = r.kubectl(t, "exec", "-i", "exec", "--", "wc", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	counted, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "1048576", strings.TrimSpace(string(counted)))

	said, err := r.kubectl(t, "exec", "exec", "--", "no-such-program").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), `"no-such-program": executable file not found`)
	said, err = r.kubectl(t, "exec", "exec", "-c", "nobody", "--", "true").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "nobody")
	// What a program leaves behind does not keep its client.
	require.Equal(t, "done\n", r.say(t, inside("sleep 1000 & echo done")...))
}

// execTerminal looks at kubectl exec -it as a person does: through a terminal.
func (r *rig) execTerminal(t *testing.T) {
	r.create(t, podOf("terminal"))
	r.awaitReady(t, "terminal")
	cmd := r.kubectl(t, "exec", "-it", "terminal", "--", "sh")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 101})
	require.NoError(t, err)
	defer func() { _ = terminal.Close() }()
	seen := &transcript{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(seen, terminal)
	}()
	_, err = io.WriteString(terminal, "tty; stty size\n")
	require.NoError(t, err)
	seen.await(t, "/dev/pts/0", "33 101")
	require.NoError(t, pty.Setsize(terminal, &pty.Winsize{Rows: 44, Cols: 102}))
	require.NoError(t, cmd.Process.Signal(syscall.SIGWINCH))
	require.Eventually(t, func() bool {
		_, _ = io.WriteString(terminal, "stty size\n")
		return strings.Contains(seen.String(), "44 102")
	}, patience, 50*time.Millisecond)
	// ^C reaches what runs in the foreground, and only that.
	_, err = io.WriteString(terminal, "echo asl''eep; sleep 1000\n")
	require.NoError(t, err)
	seen.await(t, "asleep")
	_, err = io.WriteString(terminal, "\x03")
	require.NoError(t, err)
	require.Eventually(t, func() bool { // a shell that is interrupted forgets what it has read already
		_, _ = io.WriteString(terminal, "echo go''es on\n")
		return strings.Contains(seen.String(), "goes on")
	}, patience, 50*time.Millisecond)
	_, err = io.WriteString(terminal, "exit 5\n")
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 5, exit.ExitCode())
	<-copied
}

// transcript is what a terminal showed.
type transcript struct {
	mu   sync.Mutex
	said strings.Builder
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

func (s *transcript) await(t *testing.T, words ...string) {
	t.Helper()
	for _, word := range words {
		require.Eventually(t, func() bool { return strings.Contains(s.String(), word) }, patience, 10*time.Millisecond, "%q is not in %q", word, s)
	}
}

func (r *rig) attach(t *testing.T) {
	r.create(t, podOf("attach", shell("while read word; do echo heard $word; done; echo end; sleep 1000"), func(p *corev1.Pod) {
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].StdinOnce = true, true
	}))
	r.awaitReady(t, "attach")
	cmd := r.kubectl(t, "attach", "-i", "attach")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	seen := &transcript{}
	cmd.Stdout = seen
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(in, "one\n")
	require.NoError(t, err)
	seen.await(t, "heard one\n")
	require.NoError(t, in.Close())
	seen.await(t, "end\n")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	r.create(t, podOf("attach-tty", shell("exec sh"), func(p *corev1.Pod) {
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].TTY = true, true
	}))
	r.awaitReady(t, "attach-tty")
	cmd = r.kubectl(t, "attach", "-it", "attach-tty")
	terminal, err := pty.Start(cmd)
	require.NoError(t, err)
	defer func() { _ = terminal.Close() }()
	seen = &transcript{}
	go func() { _, _ = io.Copy(seen, terminal) }()
	require.Eventually(t, func() bool {
		_, _ = io.WriteString(terminal, "tty\n")
		return strings.Contains(seen.String(), "/dev/pts/0")
	}, patience, 50*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

func (r *rig) portForward(t *testing.T) {
	r.create(t, podOf("forward"))
	r.awaitReady(t, "forward")
	cmd := r.kubectl(t, "port-forward", "pod/forward", ":5000", ":1")
	seen := &transcript{}
	cmd.Stdout, cmd.Stderr = seen, seen
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	local := regexp.MustCompile(`127\.0\.0\.1:(\d+) -> (\d+)`)
	ports := map[string]string{}
	require.Eventually(t, func() bool {
		for _, m := range local.FindAllStringSubmatch(seen.String(), -1) {
			ports[m[2]] = m[1]
		}
		return len(ports) == 2
	}, patience, 20*time.Millisecond, "%s", seen)
	client := http.Client{Timeout: patience}
	for range 3 {
		resp, err := client.Get("http://127.0.0.1:" + ports["5000"] + "/hello")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Contains(t, string(body), "instance: forward")
	}
	refused, err := net.Dial("tcp", "127.0.0.1:"+ports["1"])
	require.NoError(t, err)
	defer func() { _ = refused.Close() }()
	_, err = io.ReadAll(refused)
	require.NoError(t, err, "nobody listens there: the connection ends")
	seen.await(t, "connection refused")
}

// serverRefuses asks the node itself, as strangers would.
func (r *rig) serverRefuses(t *testing.T) {
	r.create(t, podOf("private"))
	r.awaitReady(t, "private")
	file := func(name string) string { return filepath.Join(r.dir, "pki", name) }
	ca, err := os.ReadFile(file("ca.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	ask := func(user string) int {
		config := &tls.Config{RootCAs: roots}
		if user != "" {
			pair, err := tls.LoadX509KeyPair(file(user+".crt"), file(user+".key"))
			require.NoError(t, err)
			config.Certificates = []tls.Certificate{pair}
		}
		client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		resp, err := client.Get(fmt.Sprintf("https://%s:%d/containerLogs/default/private/main", testNodeIP, ServerPort))
		require.NoError(t, err)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, ask(""))
	require.Equal(t, http.StatusForbidden, ask("kubelet"), "a certificate of the cluster alone gives no right")
	require.Equal(t, http.StatusOK, ask("apiserver-kubelet-client"))
}
