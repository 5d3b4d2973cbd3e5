// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package chaos breaks things in the lab under load, and accounts for every request.
package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/test/labtest"
)

// Requests a second that enter at each gateway, whatever becomes of those before them: a stall is felt by all that come
// meanwhile, and not by a few connections.
const (
	safeRate   = 40
	unsafeRate = 10
)

// request is what became of one.
type request struct {
	entered string
	// safe to repeat.
	safe   bool
	begun  time.Time
	took   time.Duration
	server string
	err    error
}

// load is on every member's gateway from start to stop.
type load struct {
	mu       sync.Mutex
	requests []request
	workers  sync.WaitGroup
	cancel   context.CancelFunc
}

func startLoad(t testing.TB) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for _, member := range labtest.Members {
		for method, rate := range map[string]int{http.MethodGet: safeRate, http.MethodPost: unsafeRate} {
			requester := labtest.Hello(t, member).By(method)
			l.workers.Go(func() { l.send(ctx, requester, request{entered: member, safe: method == http.MethodGet}, rate) })
		}
	}
	return l
}

func (l *load) send(ctx context.Context, requester *labtest.Requester, kind request, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.workers.Go(func() {
				r := kind
				r.begun = time.Now()
				r.server, r.err = requester.Send(context.WithoutCancel(ctx))
				r.took = time.Since(r.begun)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.requests = append(l.requests, r)
			})
		}
	}
}

// stop returns every request, each of which has ended.
func (l *load) stop() []request {
	l.cancel()
	l.workers.Wait()
	return l.requests
}

// Count is how many requests of a kind there were, and how many of them were lost.
type Count struct {
	Sent, Lost int
}

func (c *Count) add(r request) {
	c.Sent++
	if r.err != nil {
		c.Lost++
	}
}

func (c Count) String() string { return fmt.Sprintf("%d of %d", c.Lost, c.Sent) }
