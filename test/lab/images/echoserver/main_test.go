// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func get(path string) *httptest.ResponseRecorder {
	env := map[string]string{"ISTHMUS_LAB_CLUSTER": "eks", "HOSTNAME": "echo-1"}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://echo.example.com"+path, nil)
	r.Header.Set("X-Sent", "yes")
	handler(func(name string) string { return env[name] }).ServeHTTP(w, r)
	return w
}

func TestEchoTellsTheRequest(t *testing.T) {
	w := get("/a/b?x=1")
	require.Equal(t, http.StatusOK, w.Code)
	var got echo
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Equal(t, echo{
		Method: "GET", Path: "/a/b", Host: "echo.example.com", Headers: http.Header{"X-Sent": {"yes"}}, Client: "192.0.2.1", Cluster: "eks", Pod: "echo-1",
	}, got)
}

func TestStatusAndDelay(t *testing.T) {
	for path, want := range map[string]int{
		"/?status=503":    503,
		"/?delay=1ms":     200,
		"/?status=99":     400,
		"/?status=many":   400,
		"/?delay=31s":     400,
		"/?delay=-1s":     400,
		"/?delay=tonight": 400,
	} {
		require.Equal(t, want, get(path).Code, path)
	}
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	begun, finish := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		w.WriteHeader(http.StatusNoContent)
	})
	done := make(chan error, 1)
	go func() { done <- serve(ctx, listener, h) }()
	answer := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + listener.Addr().String())
		if err != nil {
			answer <- 0
			return
		}
		_ = resp.Body.Close()
		answer <- resp.StatusCode
	}()
	<-begun
	cancel()
	close(finish)
	require.Equal(t, http.StatusNoContent, <-answer)
	require.NoError(t, <-done)
}
