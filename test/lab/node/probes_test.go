// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

func TestThreshold(t *testing.T) {
	// + and - are results; the string below says after each whether the probe says yes (y) or no (n).
	for name, c := range map[string]struct {
		rise, fall int32
		initial    bool
		results    string
		want       string
	}{
		"one of each":             {1, 1, false, "+-+", "yny"},
		"three failures in a row": {1, 3, true, "--+---+", "yyyyyny"},
		"two successes in a row":  {2, 1, false, "+-++-", "nnnyn"},
		"defaults":                {0, 0, false, "+---", "yyyn"},
	} {
		t.Run(name, func(t *testing.T) {
			state := newThreshold(&corev1.Probe{SuccessThreshold: c.rise, FailureThreshold: c.fall}, c.initial)
			got := ""
			for _, result := range c.results {
				state.observe(result == '+')
				if state.value {
					got += "y"
				} else {
					got += "n"
				}
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestFailuresBeforeTheFirstSuccessSettleToo(t *testing.T) {
	state := newThreshold(&corev1.Probe{FailureThreshold: 2}, false)
	require.False(t, state.observe(false))
	require.True(t, state.observe(false), "a startup probe has failed for good here")
}

// A probe starts after its delay, repeats with its period and reports what is settled.
func TestProberKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		var reports []bool
		failing := errors.New("not yet")
		p := &prober{
			spec:  &corev1.Probe{InitialDelaySeconds: 3, PeriodSeconds: 2, FailureThreshold: 2},
			clock: clock.RealClock{}, started: start,
			check: func(context.Context) error {
				at = append(at, time.Since(start))
				if len(at) == 3 {
					return nil
				}
				return failing
			},
			settled: func(ok bool) { reports = append(reports, ok) }, failed: func(error) {},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		p.run(ctx)
		require.Equal(t, []time.Duration{3 * time.Second, 5 * time.Second, 7 * time.Second}, at)
		require.Equal(t, []bool{false, true}, reports)
	})
}

func TestProbeIsCutOffAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := &prober{
			spec: &corev1.Probe{TimeoutSeconds: 4}, clock: clock.RealClock{},
			check: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		}
		require.ErrorIs(t, p.once(t.Context()), context.DeadlineExceeded)
		require.Equal(t, 4*time.Second, time.Since(start))
	})
}

func TestCheckHTTP(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.example.com" || r.Header.Get("X-Probe") != "yes" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		switch r.URL.Path {
		case "/moved", "/away":
			http.Redirect(w, r, map[string]string{"/moved": "/healthz", "/away": "https://other.example.com/"}[r.URL.Path], http.StatusFound)
			return
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
			return
		}
		if r.URL.Query().Get("ok") == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	host, portText, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	port, err := strconv.Atoi(portText)
	require.NoError(t, err)
	get := &corev1.HTTPGetAction{Path: "/healthz?ok=1", Scheme: corev1.URISchemeHTTPS,
		HTTPHeaders: []corev1.HTTPHeader{{Name: "host", Value: "app.example.com"}, {Name: "X-Probe", Value: "yes"}}}
	require.NoError(t, checkHTTP(t.Context(), host, port, get))
	get.Path = "/away"
	require.NoError(t, checkHTTP(t.Context(), host, port, get), "a redirect to another host is an answer")
	get.Path = "/moved"
	require.EqualError(t, checkHTTP(t.Context(), host, port, get), "HTTP probe failed with status 503", "one within the host is followed")
	get.Path = "/round"
	require.ErrorContains(t, checkHTTP(t.Context(), host, port, get), "10 redirects")
	get.Path = "/healthz"
	require.EqualError(t, checkHTTP(t.Context(), host, port, get), "HTTP probe failed with status 503")
	require.NoError(t, checkTCP(t.Context(), host, port))
	server.Close()
	require.Error(t, checkTCP(t.Context(), host, port))
}

func TestCheckGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, status := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, status)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); require.NoError(t, <-done) }()
	action := &corev1.GRPCAction{Port: int32(listener.Addr().(*net.TCPAddr).Port), Service: ptr.To("app")}
	require.Error(t, checkGRPC(t.Context(), "127.0.0.1", action), "an unknown service")
	status.SetServingStatus("app", healthpb.HealthCheckResponse_SERVING)
	require.NoError(t, checkGRPC(t.Context(), "127.0.0.1", action))
	status.SetServingStatus("app", healthpb.HealthCheckResponse_NOT_SERVING)
	require.EqualError(t, checkGRPC(t.Context(), "127.0.0.1", action), "gRPC health is NOT_SERVING")
}

func TestPortNumber(t *testing.T) {
	c := &corev1.Container{Name: "main", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 5000}}}
	for port, want := range map[intstr.IntOrString]int{intstr.FromInt32(80): 80, intstr.FromString("http"): 5000, intstr.FromString("81"): 81} {
		got, err := portNumber(port, c)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := portNumber(intstr.FromString("grpc"), c)
	require.EqualError(t, err, `container main has no port named "grpc"`)
}

func TestBackoffDoublesUpToAMinute(t *testing.T) {
	var got []time.Duration
	for n := 1; n <= 9; n++ {
		got = append(got, backoffAfter(n)/time.Second)
	}
	require.Equal(t, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}, got)
}
