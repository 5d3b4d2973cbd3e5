// SPDX-License-Identifier: Apache-2.0

package shaper

import (
	"cmp"
	"container/heap"
	"sync"
	"time"
)

// maxQueued bounds the bytes that wait in one direction: past that a link drops, as any would.
const maxQueued = 64 << 20

// packet waits until it is due.
type packet struct {
	due  time.Time
	turn uint64 // the order of arrival, among those that are due at once
	data []byte
}

// queue holds packets until they are due, the earliest first.
type queue struct {
	mu     sync.Mutex
	heap   packets
	turns  uint64
	bytes  int
	wakeUp chan struct{}
}

func newQueue() *queue { return &queue{wakeUp: make(chan struct{}, 1)} }

// put takes a copy of data.
func (q *queue) put(due time.Time, data []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(data) > maxQueued {
		return
	}
	q.turns++
	q.bytes += len(data)
	heap.Push(&q.heap, packet{due: due, turn: q.turns, data: append([]byte(nil), data...)})
	select {
	case q.wakeUp <- struct{}{}:
	default:
	}
}

// take returns what is due, and how long until the next is; a negative wait says that nothing waits.
func (q *queue) take(now time.Time) (due [][]byte, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.heap) > 0 && !q.heap[0].due.After(now) {
		p := heap.Pop(&q.heap).(packet)
		q.bytes -= len(p.data)
		due = append(due, p.data)
	}
	if len(q.heap) == 0 {
		return due, -1
	}
	return due, q.heap[0].due.Sub(now)
}

// packets is the heap.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return cmp.Or(p[i].due.Compare(p[j].due), cmp.Compare(p[i].turn, p[j].turn)) < 0
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	old := *p
	last := old[len(old)-1]
	*p = old[:len(old)-1]
	return last
}
