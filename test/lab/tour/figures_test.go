// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// record counts n outcomes in each slot of an interval.
func record(r *recorder, from, to time.Duration, n int, o outcome) {
	for at := from; at < to; at += slot {
		for range n {
			r.sent()
			r.ended(start.Add(at), o)
		}
	}
}

func TestFiguresAreOfTheLastWholeSeconds(t *testing.T) {
	r := newRecorder([]string{"eks", "gke"}, start)
	record(r, 0, 10*time.Second, 50, outcome{server: "gke"}) // long ago
	record(r, 10*time.Second, 12*time.Second, 40, outcome{server: "eks", took: 7 * time.Millisecond})
	record(r, 10*time.Second, 12*time.Second, 9, outcome{server: "gke"})
	record(r, 10*time.Second, 12*time.Second, 1, outcome{failure: "HTTP 503"})
	record(r, 12*time.Second, 12*time.Second+slot, 1, outcome{server: "gke"}) // of a slot that is not over
	r.sent()
	f := r.Figures(start.Add(12*time.Second + slot/2))
	require.Equal(t, []float64{80, 18, 2}, []float64{f.Clusters[0].Rate, f.Clusters[1].Rate, f.Failed.Rate})
	require.Equal(t, []float64{0.8, 0.18, 0.02}, []float64{f.Clusters[0].Share, f.Clusters[1].Share, f.Failed.Share})
	require.Equal(t, 1, f.Waiting)
	require.Len(t, f.Clusters[0].Story, 24)
	require.Equal(t, []float64{0, 80}, f.Clusters[0].Story[19:21])
}

func TestTotalsBeginWithTheScene(t *testing.T) {
	r := newRecorder([]string{"eks"}, start)
	record(r, 0, time.Second, 1, outcome{failure: "HTTP 503"})
	r.Mark(start.Add(time.Second))
	record(r, time.Second, 3*time.Second, 1, outcome{failure: "connection cut", took: time.Second})
	record(r, time.Second, 2*time.Second, 1, outcome{server: "eks"})
	total := r.Figures(start.Add(3 * time.Second)).Since
	require.Equal(t, Totals{Requests: 6, Failed: 4, Failures: map[string]int{"connection cut": 4},
		Slowest: time.Second, Failing: 3 * slot, Slots: 3}, total)
}

func TestAStoryIsAsLongAsItIsDrawn(t *testing.T) {
	r := newRecorder([]string{"eks"}, start)
	record(r, 0, 10*time.Minute, 1, outcome{server: "eks"})
	require.Len(t, r.Figures(start.Add(10*time.Minute)).Cluster("eks").Story, slotsOfStory)
	require.LessOrEqual(t, len(r.slots), 2*slotsOfStory, "what nobody draws is forgotten")
}

func TestFailuresAreCountedByWhatTheyAre(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"HTTP 503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"connection cut": func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		},
	}
	for want, answer := range answers {
		server := httptest.NewServer(answer)
		t.Cleanup(server.Close)
		_, err := newLoad(server.URL, "a.example", 1, nil).send(context.Background())
		require.Equal(t, want, failureOf(err))
	}
	require.Equal(t, "connection refused", failureOf(fmt.Errorf("dial: %w", syscall.ECONNREFUSED)))
	require.Equal(t, "no answer in 2s", failureOf(&net.DNSError{IsTimeout: true}))
	require.Equal(t, "connection cut", failureOf(errors.New("anything else")))
}

func TestTheLoadCountsWhoAnswered(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		require.Equal(t, "a.example", req.Host)
		fmt.Fprintln(w, "Hello version: v1, cluster: eks, instance: x")
	}))
	t.Cleanup(server.Close)
	r := newRecorder([]string{"eks"}, time.Now())
	l := newLoad(server.URL, "a.example", 200, r)
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx) }()
	require.Eventually(t, func() bool {
		total := r.Figures(time.Now()).Since
		requests = total.Requests
		return requests >= 10 && total.Failed == 0
	}, 10*time.Second, 5*time.Millisecond)
	cancel()
	<-done
	require.GreaterOrEqual(t, requests, 10)
}
