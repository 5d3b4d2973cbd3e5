// SPDX-License-Identifier: Apache-2.0

package shaper

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var begin = time.Unix(0, 0)

// frame is an IPv4 packet from one address to another.
func frame(from, to string, size int) []byte {
	f := make([]byte, size)
	f[12], f[13] = 0x08, 0x00
	source, destination := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	copy(f[26:], source[:])
	copy(f[30:], destination[:])
	return f
}

func lineOf(d Direction, rules ...Rule) *line { return newLine(d, rules, rand.New(rand.NewPCG(1, 2))) }

var (
	toB   = frame("10.0.0.1", "10.0.1.1", 100)
	toC   = frame("10.0.0.1", "10.0.2.1", 100)
	onlyB = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}
)

func TestARuleIsForItsPeerOnly(t *testing.T) {
	l := lineOf(Outgoing, Rule{To: onlyB, Latency: time.Second})
	due, ok := l.admit(begin, toB)
	require.True(t, ok)
	require.Equal(t, begin.Add(time.Second), due)
	due, _ = l.admit(begin, toC)
	require.Equal(t, begin, due)
	due, _ = l.admit(begin, make([]byte, 60))
	require.Equal(t, begin, due, "what is no IPv4 has no peer")
}

func TestTheWayBackIsToldByTheSource(t *testing.T) {
	l := lineOf(Incoming, Rule{To: onlyB, Loss: 1})
	_, ok := l.admit(begin, frame("10.0.1.1", "10.0.0.1", 100))
	require.False(t, ok)
	_, ok = l.admit(begin, frame("10.0.2.1", "10.0.0.1", 100))
	require.True(t, ok)
}

func TestLatencyIsAddedOnceARoundTrip(t *testing.T) {
	rule := Rule{Latency: time.Second}
	due, _ := lineOf(Incoming, rule).admit(begin, toB)
	require.Equal(t, begin, due)
	due, _ = lineOf(Outgoing, rule, Rule{To: onlyB, Latency: time.Second}).admit(begin, toB)
	require.Equal(t, begin.Add(2*time.Second), due, "two of them add up")
}

func TestLossIsAboutItsShare(t *testing.T) {
	l := lineOf(Outgoing, Rule{Loss: 0.1})
	lost := 0
	for range 10_000 {
		if _, ok := l.admit(begin, toB); !ok {
			lost++
		}
	}
	require.InDelta(t, 1000, lost, 150)
}

func TestABandwidthIsKeptAndItsQueueIsShort(t *testing.T) {
	l := lineOf(Incoming, Rule{Rate: 8_000}) // 1000 bytes a second
	due, ok := l.admit(begin, toB)
	require.True(t, ok)
	require.Equal(t, begin.Add(100*time.Millisecond), due)
	admitted, last := 1, due
	for range 100 {
		if due, ok = l.admit(begin, toB); ok {
			admitted, last = admitted+1, due
		}
	}
	require.Equal(t, 3, admitted, "a fourth would wait longer than the queue lets it")
	require.Equal(t, begin.Add(300*time.Millisecond), last)
	_, ok = l.admit(begin.Add(time.Second), toB)
	require.True(t, ok, "and it recovers")
}

func TestANarrowWayToOneDoesNotHoldUpAnother(t *testing.T) {
	l := lineOf(Outgoing, Rule{To: onlyB, Latency: time.Second}, Rule{Rate: 8_000_000})
	_, _ = l.admit(begin, toB)
	due, _ := l.admit(begin, toC)
	require.Less(t, due.Sub(begin), time.Millisecond)
}

// Whatever the rules are, packets that the same rules hold for leave in the order in which they came, and none before it came.
func TestOrderIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := lineOf(Outgoing,
			Rule{Latency: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "latency")), Jitter: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "jitter"))},
			Rule{Rate: rapid.Int64Range(1e4, 1e9).Draw(t, "rate")})
		now, last := begin, begin
		for _, gap := range rapid.SliceOf(rapid.IntRange(0, 1e9)).Draw(t, "gaps") {
			now = now.Add(time.Duration(gap))
			if due, ok := l.admit(now, toB); ok {
				require.False(t, due.Before(last) || due.Before(now))
				last = due
			}
		}
	})
}

func TestTheQueueHandsOnWhatIsDueInOrder(t *testing.T) {
	q := newQueue()
	q.put(begin.Add(2), []byte("c"))
	q.put(begin.Add(1), []byte("a"))
	q.put(begin.Add(1), []byte("b"))
	due, wait := q.take(begin)
	require.Empty(t, due)
	require.Equal(t, time.Duration(1), wait)
	due, wait = q.take(begin.Add(1))
	require.Equal(t, "ab", string(due[0])+string(due[1]))
	require.Equal(t, time.Duration(1), wait)
	due, wait = q.take(begin.Add(2))
	require.Len(t, due, 1)
	require.Negative(t, wait)
}

func TestAQueueIsBounded(t *testing.T) {
	q := newQueue()
	for range 3 {
		q.put(begin, make([]byte, maxQueued/2))
	}
	due, _ := q.take(begin)
	require.Len(t, due, 2)
}
