// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestRolloutsAreListedAndTold(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{})
	out, code, _ := run(connect, "rollout")
	require.Equal(t, 0, code)
	require.Equal(t, "There is no rollout.\n", out)

	rollout := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-v2"},
		Spec: v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "shop"}},
		Status: v1alpha1.TrafficRolloutStatus{Phase: v1alpha1.RolloutPaused, WaveName: "first", Message: "waits for a person",
			Clusters: []v1alpha1.RolloutCluster{{Cluster: "eks", Weight: 10}, {Cluster: "gke"}}}}
	require.NoError(t, hubOf(t, connect).Create(t.Context(), rollout))
	out, _, _ = run(connect, "rollout")
	require.Contains(t, out, "shop/cart-v2   shop    Paused   -       -    eks 10% gke 0%   waits for a person")
	out, _, _ = run(connect, "rollout", "-n", "other")
	require.Contains(t, out, "There is no rollout.")

	for _, verb := range rolloutVerbs {
		out, code, message := run(connect, "rollout", verb.name, "-n", "shop", "cart-v2")
		require.Empty(t, message)
		require.Equal(t, 0, code)
		require.Contains(t, out, "Said "+verb.name+" to TrafficRollout shop/cart-v2, which was Paused")
		require.NoError(t, hubOf(t, connect).Get(t.Context(), client.ObjectKeyFromObject(rollout), rollout))
		require.Equal(t, "2026-01-01T03:00:00Z", rollout.Annotations[verb.annotation])
	}
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"promote":          {exitUsage, "say which rollout: one NAMESPACE/ROLLOUT"},
		"promote cart-v2":  {exitUsage, "is not NAMESPACE/ROLLOUT"},
		"promote shop/no":  {exitFailed, "there is no TrafficRollout shop/no"},
		"demote shop/cart": {exitUsage, "a rollout hears no"},
	} {
		_, code, message := run(connect, append([]string{"rollout"}, strings.Fields(args)...)...)
		require.Equal(t, want.code, code, message)
		require.Contains(t, message, want.said)
	}
}

// TestWhatIsSeenOfRollouts: one goes on in its second wave, one went back, one waits for a time in another namespace.
func TestWhatIsSeenOfRollouts(t *testing.T) {
	for name, test := range map[string]struct {
		args string
		code int
	}{
		"rollouts":           {"rollout", 0},
		"rollouts-name":      {"rollout list -o name -n sample", 0},
		"rollout-canary":     {"rollout get sample/hello-v2", 0},
		"rollout-blue-green": {"rollout get -n sample echo-green", 0},
		"rollout-move":       {"rollout get shop/cart-move", 0},
		"rollout-yaml":       {"rollout get shop/cart-move -o yaml", 0},
		"status-rollouts":    {"status", exitConcerns},
		"why-rollout":        {"why sample/helloworld", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, code, message := run(hubInMemory(t, interceptor.Funcs{}, "testdata/quiet.yaml", "testdata/rollouts.yaml"), strings.Fields(test.args)...)
			require.Empty(t, message)
			require.Equal(t, test.code, code, got)
			requireGolden(t, name, got)
		})
	}
}

// TestARolloutIsWatchedToItsEnd: a line for each change, none for what stays, and an exit code that a pipeline can go by.
func TestARolloutIsWatchedToItsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		last func(*v1alpha1.TrafficRolloutStatus) error
		code int
		said string
	}{
		"rollout-watch-complete": {func(s *v1alpha1.TrafficRolloutStatus) error {
			s.Phase, s.Wave, s.Message = v1alpha1.RolloutHealthy, 2, "everything is at helloworld-v2"
			s.Clusters[0].Weight = 100
			return nil
		}, 0, ""},
		"rollout-watch-aborted": {func(s *v1alpha1.TrafficRolloutStatus) error {
			s.Phase, s.Aborted, s.Wave, s.Message = v1alpha1.RolloutDegraded, "by a person", 0, "aborted, and everything is at helloworld"
			s.Clusters[0].Weight, s.Clusters[1].Weight = 0, 0
			return nil
		}, exitConcerns, ""},
		"rollout-watch-deleted": {func(*v1alpha1.TrafficRolloutStatus) error {
			return apierrors.NewNotFound(schema.GroupResource{}, "hello-v2")
		}, exitFailed, "TrafficRollout sample/hello-v2 was deleted while it was watched"},
	} {
		t.Run(name, func(t *testing.T) {
			connect := hubInMemory(t, watchedRollout(test.last), "testdata/rollouts.yaml")
			synctest.Test(t, func(t *testing.T) {
				got, code, message := run(connect, "rollout", "get", "sample/hello-v2", "--watch")
				require.Equal(t, test.said, message)
				require.Equal(t, test.code, code)
				requireGolden(t, name, got)
			})
		})
	}
}

// watchedRollout is looked at five times: as it is, twice while the hub is away, as it is again, and at its end.
func watchedRollout(last func(*v1alpha1.TrafficRolloutStatus) error) interceptor.Funcs {
	looks := 0
	return interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		looks++
		if looks == 2 || looks == 3 {
			return &url.Error{Op: "Get", URL: "https://hub", Err: errors.New("connection refused")}
		}
		err := c.Get(ctx, key, o, opts...)
		if r, ok := o.(*v1alpha1.TrafficRollout); ok && err == nil && looks == 5 {
			err = last(&r.Status)
		}
		return err
	}}
}

// TestOnATerminal a picture is drawn, in colours, over the one before.
func TestOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	terminal, tty, err := pty.Open()
	require.NoError(t, err)
	t.Cleanup(func() { _ = terminal.Close() })
	r := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Status: v1alpha1.TrafficRolloutStatus{
		Phase: v1alpha1.RolloutHealthy, Message: "everything is at cart-v2"}}
	connect := hubInMemory(t, interceptor.Funcs{})
	require.NoError(t, hubOf(t, connect).Create(t.Context(), r))
	cmd := command("isthmus", connect)
	cmd.SetOut(tty)
	cmd.SetArgs([]string{"rollout", "get", "shop/cart", "--watch"})
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	require.NoError(t, tty.Close())
	drawn, _ := io.ReadAll(terminal) // which ends with an error when the other side is closed
	require.Contains(t, string(drawn), clearScreen+home+"TrafficRollout shop/cart")
	require.Contains(t, string(drawn), "\x1b[32m✔\x1b[0m Healthy")
}

func TestWhatTheShellOffers(t *testing.T) {
	for args, want := range map[string]string{
		"rollout get ":           "sample/echo-green\nsample/hello-v2\nshop/cart-move\n",
		"rollout promote sh":     "shop/cart-move\n",
		"rollout abort -n shop ": "cart-move\n",
		"why ":                   "sample/helloworld\n",
		"drain ":                 "eks\ngke\n",
		"hold sample/h":          "sample/helloworld\n",
		"status -o ":             "table\njson\nyaml\n",
		"freeze ":                "",
	} {
		connect := hubInMemory(t, interceptor.Funcs{}, "testdata/quiet.yaml", "testdata/rollouts.yaml")
		out, code, _ := run(connect, append([]string{"__completeNoDesc"}, strings.Split(args, " ")...)...)
		require.Zero(t, code)
		require.Equal(t, want+":4\n", out, args)
	}
}

func TestWhatCannotBeShown(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{}, "testdata/rollouts.yaml")
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"rollout get":                                {exitUsage, "say which rollout: one NAMESPACE/ROLLOUT"},
		"rollout get shop/no":                        {exitFailed, "there is no TrafficRollout shop/no"},
		"rollout get shop/no -w":                     {exitFailed, "there is no TrafficRollout shop/no"},
		"rollout get shop/cart-move -o wide":         {exitUsage, "use table, json, yaml or name"},
		"rollout get shop/cart-move --watch -o yaml": {exitUsage, "leave --output away"},
		"rollout list -o xml":                        {exitUsage, "use table, json, yaml or name"},
		"rollout list shop":                          {exitUsage, "list takes nothing"},
		"status -o name":                             {exitUsage, "use table, json or yaml"},
		"overrides -o wide":                          {exitUsage, "use table, json, yaml or name"},
	} {
		_, code, message := run(connect, strings.Fields(args)...)
		require.Equal(t, want.code, code, args)
		require.Contains(t, message, want.said)
	}
}
