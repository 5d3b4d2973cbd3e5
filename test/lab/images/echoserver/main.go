// SPDX-License-Identifier: Apache-2.0

// The lab's echoserver: it answers with the request as it arrived.
//
//	GET /any/path?delay=200ms&status=503
//	{"method": …, "path": …, "host": …, "headers": …, "client": …, "cluster": …, "pod": …}
//
// delay (at most 30s) and status (200 to 599) are for tests. Environment: CLUSTER (else
// ISTHMUS_LAB_CLUSTER), HOSTNAME, PORT (8080).
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"isthmus.dev/isthmus/test/lab/images/serving"
)

const (
	// maxDelay bounds what a client can hold.
	maxDelay = 30 * time.Second
	// drainTimeout lets a request with the longest delay end, nearly.
	drainTimeout = 25 * time.Second
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return err
	}
	log.Printf("echoserver listens on %s", listener.Addr())
	return serve(ctx, listener, handler(os.Getenv))
}

// echo is the answer.
type echo struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
	Client  string      `json:"client"` // address without port
	Cluster string      `json:"cluster"`
	Pod     string      `json:"pod"`
}

func handler(env func(string) string) http.Handler {
	cluster, pod := cmp.Or(env("CLUSTER"), env("ISTHMUS_LAB_CLUSTER")), env("HOSTNAME")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		delay, status, err := asked(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(echo{
			Method: r.Method, Path: r.URL.Path, Host: r.Host, Headers: r.Header, Client: client, Cluster: cluster, Pod: pod,
		})
	})
}

// asked returns the delay and the status that a request asks for.
func asked(r *http.Request) (delay time.Duration, status int, err error) {
	status = http.StatusOK
	query := r.URL.Query()
	if text := query.Get("delay"); text != "" {
		if delay, err = time.ParseDuration(text); err != nil || delay < 0 || delay > maxDelay {
			return 0, 0, fmt.Errorf("delay %q is no duration from 0s to %s", text, maxDelay)
		}
	}
	if text := query.Get("status"); text != "" {
		if status, err = strconv.Atoi(text); err != nil || status < 200 || status > 599 {
			return 0, 0, fmt.Errorf("status %q is no number from 200 to 599", text)
		}
	}
	return delay, status, nil
}

// serve answers until ctx ends and then finishes the requests in flight.
func serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	return serving.Server{Handler: h, DrainTimeout: drainTimeout}.Serve(ctx, listener)
}
