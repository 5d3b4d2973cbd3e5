// SPDX-License-Identifier: Apache-2.0

//go:build linux

package labtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/lab/state"
)

// FromPod is a client whose connections begin in a pod, like those of the pod's own program: what the pod's network
// does to those, it does to these. The pod is the first whose namespace/name starts so; addresses are IP addresses.
func FromPod(t testing.TB, cluster, prefix string) *http.Client {
	t.Helper()
	pid := Process(t, cluster, state.Pod, prefix)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, proto, address string) (conn net.Conn, err error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err = dialAt(ctx, pid, proto, address)
			}()
			<-done
			return conn, err
		},
	}}
}

// TellPods posts a word, such as sick, to /control of the first pods of an app of the example by name, so many of them, or to all
// where there are fewer.
func TellPods(t testing.TB, member, app, word string, howMany int) {
	t.Helper()
	askPods(t, member, app, http.MethodPost, "/control/"+word, howMany)
}

// Arrived is how many requests the pods of an app of the example have had, mirrored ones too.
func Arrived(t testing.TB, member, app string) (sum int) {
	t.Helper()
	for _, said := range askPods(t, member, app, http.MethodGet, "/count", math.MaxInt) {
		count, err := strconv.Atoi(strings.TrimSpace(said))
		require.NoError(t, err)
		sum += count
	}
	return sum
}

// askPods asks each of the first pods of an app for a page, so many of them, from within the first.
func askPods(t testing.TB, member, app, method, path string, howMany int) (answers []string) {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, Cluster(t, member).List(context.Background(), &pods, client.InNamespace(Sample), client.MatchingLabels{"app": app}))
	require.NotEmpty(t, pods.Items)
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	from := FromPod(t, member, Sample+"/"+pods.Items[0].Name)
	for _, pod := range pods.Items[:min(howMany, len(pods.Items))] {
		req, err := http.NewRequestWithContext(context.Background(), method, fmt.Sprintf("http://%s:5000%s", pod.Status.PodIP, path), http.NoBody)
		require.NoError(t, err)
		resp, err := from.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, errors.Join(err, resp.Body.Close()))
		require.Equal(t, http.StatusOK, resp.StatusCode)
		answers = append(answers, string(body))
	}
	return answers
}

// dialAt makes a connection in the network namespace of a process. The caller's goroutine is to end after it: a
// thread that could not be led back ends with it.
func dialAt(ctx context.Context, pid int, proto, address string) (net.Conn, error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }()
	there, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = there.Close() }()
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, proto, address)
	if netns.Set(home) == nil {
		runtime.UnlockOSThread()
	}
	return conn, err
}

// Process waits for a process of a component whose name (the component, or namespace/pod) starts so, and returns its pid.
func Process(t testing.TB, cluster, component, prefix string) (pid int) {
	t.Helper()
	Eventually(t, func() error {
		l, err := Lab.State()
		if err != nil {
			return err
		}
		for _, p := range l.Find(cluster, component) {
			if strings.HasPrefix(p.Name, prefix) && p.Alive() {
				pid = p.PID
				return nil
			}
		}
		return fmt.Errorf("no %s %s… runs in %s", component, prefix, cluster)
	})
	return pid
}
