// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func call(t *testing.T, a *app, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestHelloNamesVersionClusterAndInstance(t *testing.T) {
	a := newApp(env(map[string]string{"VERSION": "v2", "ISTHMUS_LAB_CLUSTER": "gke", "HOSTNAME": "helloworld-1"}), nil)
	_, body := call(t, a, http.MethodGet, "/hello")
	require.Equal(t, "Hello version: v2, cluster: gke, instance: helloworld-1\n", body)
}

func TestClusterOfTheEnvironmentWins(t *testing.T) {
	a := newApp(env(map[string]string{"CLUSTER": "mine", "ISTHMUS_LAB_CLUSTER": "gke"}), nil)
	_, body := call(t, a, http.MethodGet, "/hello")
	require.Equal(t, "Hello version: v1, cluster: mine, instance: unknown\n", body)
}

func TestReadinessFollowsTheControl(t *testing.T) {
	a := newApp(env(nil), nil)
	health := func() int { code, _ := call(t, a, http.MethodGet, "/healthz"); return code }
	require.Equal(t, http.StatusOK, health())
	call(t, a, http.MethodPost, "/control/unready")
	require.Equal(t, http.StatusServiceUnavailable, health())
	call(t, a, http.MethodPost, "/control/ready")
	require.Equal(t, http.StatusOK, health())
}

func TestSickIsNotUnready(t *testing.T) {
	a := newApp(env(nil), nil)
	code := func(path string) int { code, _ := call(t, a, http.MethodGet, path); return code }
	require.Equal(t, http.StatusOK, code("/status"))
	call(t, a, http.MethodPost, "/control/sick")
	require.Equal(t, http.StatusInternalServerError, code("/status"))
	require.Equal(t, http.StatusOK, code("/healthz"))
	call(t, a, http.MethodPost, "/control/well")
	require.Equal(t, http.StatusOK, code("/status"))
}

// Whoever mirrors requests here throws the answers away: what arrived is asked for.
func TestWhatArrivedIsCounted(t *testing.T) {
	a := newApp(env(nil), nil)
	call(t, a, http.MethodGet, "/hello")
	call(t, a, http.MethodPost, "/hello")
	call(t, a, http.MethodGet, "/healthz")
	_, body := call(t, a, http.MethodGet, "/count")
	require.Equal(t, "2\n", body)
}

// One that fails says who it is all the same, so that tests know whose answer it was.
func TestAFailingOneStillNamesItself(t *testing.T) {
	a := newApp(env(map[string]string{"CLUSTER": "gke"}), nil)
	call(t, a, http.MethodPost, "/control/failing")
	code, body := call(t, a, http.MethodGet, "/hello")
	require.Equal(t, http.StatusInternalServerError, code)
	require.Contains(t, body, "cluster: gke")
	call(t, a, http.MethodPost, "/control/well")
	code, _ = call(t, a, http.MethodGet, "/hello")
	require.Equal(t, http.StatusOK, code)
}

func TestASlowOneTakesItsTime(t *testing.T) {
	a := newApp(env(nil), nil)
	a.slowness = 20 * time.Millisecond
	call(t, a, http.MethodPost, "/control/slow")
	began := time.Now()
	code, _ := call(t, a, http.MethodGet, "/hello")
	require.Equal(t, http.StatusOK, code)
	require.GreaterOrEqual(t, time.Since(began), a.slowness)

	a.slowness = time.Hour
	gone, leave := context.WithCancel(t.Context())
	leave()
	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, httptest.NewRequestWithContext(gone, http.MethodGet, "/hello", nil))
	require.Empty(t, w.Body.String(), "whoever has gone is not waited for")
}

func TestCrashExitsWithOne(t *testing.T) {
	code := 0
	call(t, newApp(env(nil), func(c int) { code = c }), http.MethodPost, "/control/crash")
	require.Equal(t, 1, code)
}

func TestDrainFailsReadinessFirst(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a := newApp(env(nil), nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, listener, a, 300*time.Millisecond) }()
	get := func(path string) (int, string, error) {
		resp, err := http.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	code, _, err := get("/healthz")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)

	cancel()
	require.Eventually(t, func() bool { return a.ending.Load() }, 5*time.Second, time.Millisecond)
	code, _, err = get("/healthz")
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, code)
	code, _, err = get("/hello")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code, "the lame duck still serves")

	require.NoError(t, <-done)
	_, _, err = get("/hello")
	require.Error(t, err)
}
