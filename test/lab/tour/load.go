// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// patienceOfClient is how long a request may take. Without it those that were on their way to a cluster which vanished
// would be counted much later, or never.
const patienceOfClient = 2 * time.Second

var serverName = regexp.MustCompile(`cluster: ([a-z0-9-]+)`)

// load sends requests at a steady rate, however long the answers take: slow answers must not make it look as if fewer
// had been asked for.
type load struct {
	url, host string
	rate      int // requests a second
	client    http.Client
	recorder  *recorder
}

func newLoad(url, host string, rate int, recorder *recorder) *load {
	return &load{url: url, host: host, rate: rate, recorder: recorder, client: http.Client{
		Timeout: patienceOfClient,
		// An address of the lab is never behind a proxy of the user's.
		Transport: &http.Transport{MaxIdleConnsPerHost: 2 * rate, IdleConnTimeout: time.Minute},
	}}
}

// run sends until ctx ends, and returns when every request has. So that a machine which cannot keep up gets no worse by
// it, nothing is sent while half a second's worth of requests is under way.
func (l *load) run(ctx context.Context) {
	free := make(chan struct{}, max(1, l.rate/2))
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began, sent := time.Now(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due := int(now.Sub(began).Seconds()*float64(l.rate)) - sent
			if due > l.rate/5 { // the machine was away: what was missed is not made up for by a burst
				began, sent, due = now, 0, 0
			}
			for ; due > 0; due-- {
				sent++
				select {
				case free <- struct{}{}:
					wg.Go(func() { l.record(ctx); <-free })
				default:
				}
			}
		}
	}
}

func (l *load) record(ctx context.Context) {
	l.recorder.sent()
	began := time.Now()
	server, err := l.send(ctx)
	if ctx.Err() != nil {
		return // the tour is over: this was not a failure
	}
	o := outcome{server: server, took: time.Since(began)}
	if err != nil {
		o.failure = failureOf(err)
	}
	l.recorder.ended(time.Now(), o)
}

// statusError is an answer other than 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("HTTP %d", int(e)) }

func (l *load) send(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return "", err
	}
	req.Host = l.host
	resp, err := l.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	switch match := serverName.FindSubmatch(body); {
	case err != nil:
		return "", err
	case resp.StatusCode != http.StatusOK:
		return "", statusError(resp.StatusCode)
	case match == nil:
		return "", errors.New("an answer of somebody else")
	default:
		return string(match[1]), nil
	}
}

// failureOf names what went wrong, in few enough words to be counted by.
func failureOf(err error) string {
	var status statusError
	var network net.Error
	switch {
	case errors.As(err, &status):
		return status.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &network) && network.Timeout():
		return fmt.Sprintf("no answer in %s", patienceOfClient)
	default:
		return "connection cut"
	}
}
