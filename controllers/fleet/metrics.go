// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of all members.
type metrics struct {
	writes    *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	reachable *prometheus.GaugeVec
	depth     *prometheus.GaugeVec
}

// newMetrics registers with r, unless it is nil.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_member_writes_total",
			Help: "Write requests to a member cluster, by kind and result (applied, deleted, conflict, refused, unsupported, failed).",
		}, []string{"member", "kind", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "isthmus_member_write_seconds",
			Help:    "Time that a write request to a member cluster took.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}, []string{"member"}),
		reachable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_member_connected",
			Help: "1 while a member cluster's API server answers, else 0.",
		}, []string{"member"}),
		depth: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_member_queue_depth",
			Help: "Owners whose newest wish is not in the member cluster yet.",
		}, []string{"member"}),
	}
	if r != nil {
		r.MustRegister(m.writes, m.seconds, m.reachable, m.depth)
	}
	return m
}

func (m *metrics) wrote(member, kind, result string, took time.Duration) {
	m.writes.WithLabelValues(member, kind, result).Inc()
	m.seconds.WithLabelValues(member).Observe(took.Seconds())
}

func (m *metrics) setConnected(member string, connected bool) {
	value := 0.0
	if connected {
		value = 1
	}
	m.reachable.WithLabelValues(member).Set(value)
}

func (m *metrics) setDepth(member string, depth int) {
	m.depth.WithLabelValues(member).Set(float64(depth))
}

// forget drops the series of a member that was removed.
func (m *metrics) forget(member string) {
	label := prometheus.Labels{"member": member}
	m.writes.DeletePartialMatch(label)
	m.seconds.DeletePartialMatch(label)
	m.reachable.DeletePartialMatch(label)
	m.depth.DeletePartialMatch(label)
}
