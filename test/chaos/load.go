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

// usualRate is how many GETs a second enter at each gateway, whatever becomes of those before them: a stall is felt by all
// that come meanwhile, and not by a few connections. There are a quarter as many POSTs.
const usualRate = 40

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

// ended is when its answer was there, or was given up.
func (r request) ended() time.Time { return r.begun.Add(r.took) }

// load is on every member's gateway from start to stop.
type load struct {
	mu       sync.Mutex
	requests []request
	workers  sync.WaitGroup
	cancel   context.CancelFunc
}

// startLoad sends so many GETs a second to each gateway.
func startLoad(t testing.TB, rate int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for _, member := range labtest.Members {
		for method, rate := range map[string]int{http.MethodGet: rate, http.MethodPost: rate / 4} {
			requester := labtest.Hello(t, member).By(method)
			l.workers.Go(func() { l.send(ctx, requester, request{entered: member, safe: method == http.MethodGet}, rate) })
		}
	}
	return l
}

// atOnce is how many requests a sender may have under way: those of the usual load at a gateway that answers nobody, for as
// long as a client waits. What would be more is not sent, so that a machine which bears less is sent less.
const atOnce = 20 * usualRate

func (l *load) send(ctx context.Context, requester *labtest.Requester, kind request, rate int) {
	underWay := make(chan struct{}, atOnce)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case underWay <- struct{}{}:
			l.workers.Go(func() {
				defer func() { <-underWay }()
				r := kind
				r.begun = time.Now()
				r.server, r.err = requester.Send(context.WithoutCancel(ctx))
				r.took = time.Since(r.begun)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.requests = append(l.requests, r)
			})
		default:
		}
	}
}

// sent is how many requests have ended.
func (l *load) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.requests)
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

func (c *Count) add(lost bool) {
	c.Sent++
	if lost {
		c.Lost++
	}
}

func (c Count) String() string { return fmt.Sprintf("%d of %d", c.Lost, c.Sent) }
