// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// The figures' resolution. "Now" is the last two whole seconds: at a hundred requests a second a share is then right
// within three of a hundred or so, and a change is seen soon enough.
const (
	slot         = 500 * time.Millisecond
	slotsOfNow   = 4
	slotsOfStory = 40
)

// Figures are what the load met with.
type Figures struct {
	Clusters []Row // by the cluster that answered, in the lab's order
	Failed   Row
	// Waiting is how many requests have no answer yet.
	Waiting int
	Since   Totals
}

// Row is one kind of outcome.
type Row struct {
	Name  string
	Rate  float64   // requests a second, now
	Share float64   // of all that ended, 0 to 1, now
	Story []float64 // requests a second in each slot, the oldest first
}

// Totals count from the beginning of a scene.
type Totals struct {
	Requests, Failed int
	Failures         map[string]int // by what went wrong
	Slowest          time.Duration
	Failing          time.Duration // from the first failure to the last
	Slots            int           // whole slots of Row.Story that belong to the scene
}

// Cluster returns a cluster's row; a zero one for a name that never answered.
func (f Figures) Cluster(name string) Row {
	for _, r := range f.Clusters {
		if r.Name == name {
			return r
		}
	}
	return Row{Name: name}
}

// outcome of one request: a server's name, or what went wrong.
type outcome struct {
	server, failure string
	took            time.Duration
}

// recorder counts outcomes by the time at which they came.
type recorder struct {
	mu      sync.Mutex
	names   []string
	began   time.Time
	mark    time.Time
	slots   map[int64]map[string]int // by number since began; "" is failed
	waiting int
	since   Totals
	failed  time.Time // for the first time since mark
}

func newRecorder(names []string, began time.Time) *recorder {
	return &recorder{names: names, began: began, mark: began, slots: map[int64]map[string]int{}, since: Totals{Failures: map[string]int{}}}
}

// Mark begins the totals anew.
func (r *recorder) Mark(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark, r.since = now, Totals{Failures: map[string]int{}}
}

func (r *recorder) sent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
}

func (r *recorder) ended(now time.Time, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	r.since.Requests++
	r.since.Slowest = max(r.since.Slowest, o.took)
	if o.failure != "" {
		o.server = ""
		if r.since.Failed++; r.since.Failed == 1 {
			r.failed = now
		}
		r.since.Failing = now.Sub(r.failed)
		r.since.Failures[o.failure]++
	}
	at := r.slotAt(now)
	if r.slots[at] == nil {
		r.slots[at] = map[string]int{}
		delete(r.slots, at-2*slotsOfStory)
	}
	r.slots[at][o.server]++
}

func (r *recorder) slotAt(t time.Time) int64 { return int64(t.Sub(r.began) / slot) }

// Figures of all whole slots before now.
func (r *recorder) Figures(now time.Time) Figures {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.slotAt(now)
	f := Figures{Waiting: r.waiting, Since: r.since, Failed: r.row("", end)}
	f.Failed.Name = "failed"
	f.Since.Failures = maps.Clone(r.since.Failures)
	f.Since.Slots = int(max(0, min(end-r.slotAt(r.mark)-1, slotsOfStory)))
	for _, name := range r.names {
		f.Clusters = append(f.Clusters, r.row(name, end))
	}
	all := f.Failed.Rate
	for _, c := range f.Clusters {
		all += c.Rate
	}
	if all > 0 {
		f.Failed.Share = f.Failed.Rate / all
		for i := range f.Clusters {
			f.Clusters[i].Share = f.Clusters[i].Rate / all
		}
	}
	return f
}

func (r *recorder) row(name string, end int64) Row {
	row := Row{Name: name}
	for at := max(0, end-slotsOfStory); at < end; at++ {
		row.Story = append(row.Story, float64(r.slots[at][name])/slot.Seconds())
	}
	now := row.Story[max(0, len(row.Story)-slotsOfNow):]
	for _, rate := range now {
		row.Rate += rate / float64(len(now))
	}
	return row
}

// failureNames in the order of how often they came.
func (t Totals) failureNames() []string {
	return slices.SortedFunc(maps.Keys(t.Failures), func(a, b string) int {
		if t.Failures[a] != t.Failures[b] {
			return t.Failures[b] - t.Failures[a]
		}
		if a < b {
			return -1
		}
		return 1
	})
}
