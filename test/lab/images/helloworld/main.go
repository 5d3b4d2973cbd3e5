// SPDX-License-Identifier: Apache-2.0

// The lab's helloworld: an answer says which version, which cluster and which pod it came from.
//
//	GET, POST /hello       Hello version: v1, cluster: eks, instance: helloworld-v1-…
//	GET  /healthz          200 while ready, 503 otherwise
//	GET  /status           200 while well, 500 otherwise; readiness says nothing of it
//	GET  /count            how many requests /hello has had
//	POST /control/unready  /control/ready  /control/crash   for tests
//	POST /control/sick  /control/failing  /control/slow     /status, or /hello, answers 500; /hello after 2 s
//	POST /control/well                                      none of these three any more
//
// Environment: VERSION (v1), CLUSTER (else ISTHMUS_LAB_CLUSTER), HOSTNAME, PORT (5000),
// LAME_DUCK (1s): how long, after SIGTERM, readiness fails before new connections are refused.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"isthmus.dev/isthmus/test/lab/images/serving"
)

// drainTimeout bounds the wait for requests in flight, within the usual grace period of 30 s.
const drainTimeout = 20 * time.Second

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	lameDuck, err := time.ParseDuration(cmp.Or(os.Getenv("LAME_DUCK"), "1s"))
	if err != nil {
		return fmt.Errorf("LAME_DUCK: %w; give a duration such as 500ms", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+cmp.Or(os.Getenv("PORT"), "5000"))
	if err != nil {
		return err
	}
	log.Printf("helloworld listens on %s", listener.Addr())
	return serve(ctx, listener, newApp(os.Getenv, os.Exit), lameDuck)
}

// app is what the program answers with.
type app struct {
	greeting string
	ready    atomic.Bool
	ending   atomic.Bool
	sick     atomic.Bool
	failing  atomic.Bool
	slow     atomic.Bool
	asked    atomic.Int64
	exit     func(int)
	// slowness is how long an answer takes while the program is told to be slow.
	slowness time.Duration
}

func newApp(env func(string) string, exit func(int)) *app {
	a := &app{exit: exit, slowness: 2 * time.Second, greeting: fmt.Sprintf("Hello version: %s, cluster: %s, instance: %s\n",
		cmp.Or(env("VERSION"), "v1"), cmp.Or(env("CLUSTER"), env("ISTHMUS_LAB_CLUSTER"), "unknown"),
		cmp.Or(env("HOSTNAME"), "unknown"))}
	a.ready.Store(true)
	return a
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /hello", a.hello)
	}
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /status", a.status)
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, a.asked.Load()) })
	ills := map[string]*atomic.Bool{"sick": &a.sick, "failing": &a.failing, "slow": &a.slow}
	for name, ill := range ills {
		mux.HandleFunc("POST /control/"+name, func(http.ResponseWriter, *http.Request) { ill.Store(true) })
	}
	mux.HandleFunc("POST /control/well", func(http.ResponseWriter, *http.Request) {
		for _, ill := range ills {
			ill.Store(false)
		}
	})
	mux.HandleFunc("POST /control/ready", func(http.ResponseWriter, *http.Request) { a.ready.Store(true) })
	mux.HandleFunc("POST /control/unready", func(http.ResponseWriter, *http.Request) { a.ready.Store(false) })
	mux.HandleFunc("POST /control/crash", func(http.ResponseWriter, *http.Request) { a.exit(1) })
	return mux
}

func (a *app) hello(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	if a.slow.Load() {
		select {
		case <-time.After(a.slowness):
		case <-r.Context().Done():
			return
		}
	}
	if a.failing.Load() {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = fmt.Fprint(w, a.greeting)
}

func (a *app) status(w http.ResponseWriter, _ *http.Request) {
	if a.sick.Load() {
		http.Error(w, "sick", http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprintln(w, "well")
}

func (a *app) health(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.ending.Load():
		http.Error(w, "ending", http.StatusServiceUnavailable)
	case !a.ready.Load():
		http.Error(w, "unready", http.StatusServiceUnavailable)
	default:
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// serve answers until ctx ends. Then readiness fails first, so that nobody sends more; after
// lameDuck no connection is taken, and requests in flight are finished.
func serve(ctx context.Context, listener net.Listener, a *app, lameDuck time.Duration) error {
	return serving.Server{Handler: a.handler(), Ending: func() { a.ending.Store(true) }, LameDuck: lameDuck,
		DrainTimeout: drainTimeout}.Serve(ctx, listener)
}
