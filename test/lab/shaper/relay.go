// SPDX-License-Identifier: Apache-2.0

//go:build linux

package shaper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// VnetHeader is the length of the header that the kernel puts before each frame: what it has left undone of its
// checksum. Both ends speak it, so that it is handed on as it came.
const VnetHeader = 10

// control is where the relay of a cluster listens, in the network namespace of that cluster, whose abstract sockets
// nobody else sees.
const control = "@isthmus-lab-link"

// Relay carries frames between a cluster's uplink and its device on the backbone until ctx ends. It carries them as they are until
// Set tells it the rules. It is to run in the cluster's network namespace.
func Relay(ctx context.Context, uplink, backbone *os.File) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", control)
	if err != nil {
		return fmt.Errorf("a relay runs for this link already: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	lines := []*half{
		{in: uplink, out: backbone, direction: Outgoing, queue: newQueue()},
		{in: backbone, out: uplink, direction: Incoming, queue: newQueue()},
	}
	for _, h := range lines {
		h.set(nil)
		go func() { cancel(h.read()) }()
		go func() { cancel(h.write(ctx)) }()
	}
	go func() { cancel(serve(listener, lines)) }()
	<-ctx.Done()
	err = errors.Join(listener.Close(), uplink.Close(), backbone.Close())
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// order is what a relay is told.
type order struct {
	Rules []Rule `json:"rules"`
	End   bool   `json:"end"`
}

// Set gives the relay of the calling thread's network namespace its rules, and returns when they are in force.
func Set(ctx context.Context, rules []Rule) error {
	if len(rules) > maxRules {
		return fmt.Errorf("%d faults on one link: it can hold %d", len(rules), maxRules)
	}
	return tell(ctx, order{Rules: rules})
}

// endWait is how long a relay may take to answer that it ends: one that is frozen never does.
const endWait = 2 * time.Second

// End ends the relay of the calling thread's network namespace.
func End(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	return tell(ctx, order{End: true})
}

func tell(ctx context.Context, o order) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", control)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(conn).Encode(o); err != nil {
		return err
	}
	var done bool
	return json.NewDecoder(conn).Decode(&done)
}

func serve(listener net.Listener, lines []*half) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		var o order
		err = json.NewDecoder(conn).Decode(&o)
		if err == nil {
			for _, h := range lines {
				h.set(o.Rules)
			}
			err = json.NewEncoder(conn).Encode(true)
		}
		_ = conn.Close()
		if err == nil && o.End {
			return context.Canceled
		}
	}
}

// half is one direction of the relay.
type half struct {
	in, out   *os.File
	direction Direction
	queue     *queue

	mu   sync.Mutex
	line *line
}

func (h *half) set(rules []Rule) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line = newLine(h.direction, rules, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
}

// read admits frames to the queue until in is closed.
func (h *half) read() error {
	buffer := make([]byte, 1<<17)
	for {
		n, err := h.in.Read(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the link is cut; the socket goes on when it is back
		}
		if err != nil {
			return fmt.Errorf("read from %s: %w", h.in.Name(), err)
		}
		if n <= VnetHeader {
			continue
		}
		h.mu.Lock()
		due, ok := h.line.admit(time.Now(), buffer[VnetHeader:n])
		h.mu.Unlock()
		if ok {
			h.queue.put(due, buffer[:n])
		}
	}
}

// write hands on what is due until ctx ends or out is closed.
func (h *half) write(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait := h.queue.take(time.Now())
		for _, frame := range due {
			if _, err := h.out.Write(frame); errors.Is(err, os.ErrClosed) {
				return err
			} // what a link does not take is lost, as on any link
		}
		if wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-h.queue.wakeUp:
		}
	}
}
