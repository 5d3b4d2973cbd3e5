// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"isthmus.dev/isthmus/federation"
)

// probeMetrics are what the probes saw: for each service and cluster that is probed, and no longer.
type probeMetrics struct {
	looks  *prometheus.CounterVec
	well   *prometheus.GaugeVec
	holds  prometheus.Gauge
	mu     sync.Mutex
	probed map[federation.ServiceKey][]string
}

func newProbeMetrics(registerer prometheus.Registerer) *probeMetrics {
	m := &probeMetrics{probed: map[federation.ServiceKey][]string{},
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_probe_looks_total",
			Help: "Looks at a service in a cluster, by vantage (hub, peer, or metric) and result (ok, failed, silent, empty, or void)."},
			[]string{"namespace", "import", "cluster", "vantage", "result"}),
		well: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_probe_well",
			Help: "What the looks at a service in a cluster have come to, by vantage: 1 well, 0 ill, no series while nothing is known."},
			[]string{"namespace", "import", "cluster", "vantage"}),
		holds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_guard_holds",
			Help: "1 while nothing is moved on suspicion because most clusters are suspected together, else 0."})}
	registerer.MustRegister(m.looks, m.well, m.holds)
	return m
}

// looked counts a look, unless the service is probed there no more: one that was under way would begin a series that
// nobody ends.
func (m *probeMetrics) looked(key federation.ServiceKey, cluster, vantage string, look federation.Look) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.probed[key], cluster) {
		return
	}
	m.looks.WithLabelValues(key.Namespace, key.Name, cluster, vantage, string(look.Result)).Inc()
}

func (m *probeMetrics) told(key federation.ServiceKey, cluster string, s toldSignal) {
	for vantage, sight := range map[string]federation.Seen{"hub": s.hub, "peer": s.peer, "metric": s.metric.sight} {
		switch sight {
		case federation.SeenWell:
			m.well.WithLabelValues(key.Namespace, key.Name, cluster, vantage).Set(1)
		case federation.SeenIll:
			m.well.WithLabelValues(key.Namespace, key.Name, cluster, vantage).Set(0)
		case federation.SeenNothing:
			m.well.DeleteLabelValues(key.Namespace, key.Name, cluster, vantage)
		}
	}
}

func (m *probeMetrics) guard(holds bool) {
	m.holds.Set(0)
	if holds {
		m.holds.Set(1)
	}
}

// keep ends the series of clusters in which a service is probed no more.
func (m *probeMetrics) keep(key federation.ServiceKey, clusters []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, cluster := range m.probed[key] {
		if !slices.Contains(clusters, cluster) {
			gone := prometheus.Labels{"namespace": key.Namespace, "import": key.Name, "cluster": cluster}
			m.looks.DeletePartialMatch(gone)
			m.well.DeletePartialMatch(gone)
		}
	}
	m.probed[key] = clusters
	if len(clusters) == 0 {
		delete(m.probed, key)
	}
}
