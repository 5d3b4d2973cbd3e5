// SPDX-License-Identifier: Apache-2.0

// Package shaper makes a cluster's link worse: slower, narrower, lossy. It stands between the cluster's uplink and
// the backbone and carries every Ethernet frame across in user space.
//
// The kernel's own way, tc with sch_netem, is a module that many small kernels (cloud images, micro-VMs) are built
// without, and what it does cannot be tested there. TUN devices are nearly everywhere, and one way that works on
// every machine is the way that every test has gone.
package shaper

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Rule is what happens to some of a link's packets. The zero values do nothing.
type Rule struct {
	// To are the ranges on the other side that the rule is for; none is everything, and what is no IPv4 as well.
	To []netip.Prefix `json:"to,omitempty"`
	// Latency and Jitter delay what leaves the cluster, by Latency ± Jitter, so that a round trip takes so much
	// longer. The order of packets is kept.
	Latency time.Duration `json:"latency,omitempty"`
	Jitter  time.Duration `json:"jitter,omitempty"`
	// Loss is the share of packets, 0 to 1, that is lost in each direction.
	Loss float64 `json:"loss,omitempty"`
	// Rate is the bandwidth in bits a second in each direction; 0 is unlimited. What waits longer than maxBacklog for
	// its turn is dropped, as by a router with a short queue.
	Rate int64 `json:"rate,omitempty"`
}

// maxBacklog is how long a packet waits for its turn on a narrow link.
const maxBacklog = 250 * time.Millisecond

// Direction of a packet, as the cluster sees it.
type Direction int

// Directions.
const (
	Outgoing Direction = iota
	Incoming
)

// line is one direction of a shaped link. It is a plain value: time and chance come from outside.
type line struct {
	direction Direction
	rules     []Rule
	free      []time.Time          // by rule: when its bandwidth is free again
	last      map[uint64]time.Time // by the set of rules that a packet matched: when the last one is due
	random    *rand.Rand
}

func newLine(d Direction, rules []Rule, random *rand.Rand) *line {
	return &line{direction: d, rules: rules, free: make([]time.Time, len(rules)), last: map[uint64]time.Time{}, random: random}
}

// maxRules is how many rules a line can tell apart.
const maxRules = 64

// admit says when a frame that arrives now is to be handed on, and whether it is at all.
func (l *line) admit(now time.Time, frame []byte) (due time.Time, ok bool) {
	peer := l.peer(frame)
	due, delay, matched := now, time.Duration(0), uint64(0)
	for i, r := range l.rules {
		if !r.matches(peer) {
			continue
		}
		matched |= 1 << i
		if r.Loss > 0 && l.random.Float64() < r.Loss {
			return due, false
		}
		turn, ok := l.turn(i, now, len(frame))
		if !ok {
			return due, false
		}
		if turn.After(due) {
			due = turn
		}
		if l.direction == Outgoing {
			delay += r.Latency + time.Duration((2*l.random.Float64()-1)*float64(r.Jitter))
		}
	}
	due = due.Add(max(0, delay))
	if last := l.last[matched]; last.After(due) {
		due = last // jitter must not turn the order of a connection's packets around
	}
	l.last[matched] = due
	return due, true
}

// turn takes rule i's bandwidth for a frame and returns when the last of it is through.
func (l *line) turn(i int, now time.Time, size int) (time.Time, bool) {
	rate := l.rules[i].Rate
	if rate == 0 {
		return now, true
	}
	start := now
	if l.free[i].After(start) {
		start = l.free[i]
	}
	if start.Sub(now) > maxBacklog {
		return now, false
	}
	l.free[i] = start.Add(time.Duration(float64(size) * 8 / float64(rate) * float64(time.Second)))
	return l.free[i], true
}

func (r Rule) matches(peer netip.Addr) bool {
	return len(r.To) == 0 || peer.IsValid() && slices.ContainsFunc(r.To, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// peer is the address on the other side of an IPv4 packet in an Ethernet frame.
func (l *line) peer(frame []byte) netip.Addr {
	const header, ipv4Source, ipv4Destination, ipv4 = 14, 12, 16, 0x0800
	if len(frame) < header+20 || binary.BigEndian.Uint16(frame[12:]) != ipv4 {
		return netip.Addr{}
	}
	at := header + ipv4Destination
	if l.direction == Incoming {
		at = header + ipv4Source
	}
	return netip.AddrFrom4([4]byte(frame[at : at+4]))
}
