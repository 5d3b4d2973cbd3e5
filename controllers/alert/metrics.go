// SPDX-License-Identifier: Apache-2.0

package alert

import "github.com/prometheus/client_golang/prometheus"

// Results of an alert for one web hook.
const (
	resultDelivered = "delivered"
	resultRefused   = "refused" // answered so that another attempt makes no sense
	resultDropped   = "dropped" // too many waited, or for too long
)

type metrics struct {
	results *prometheus.CounterVec
	waiting *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_alerts_total",
			Help: "Alerts by web hook and result: delivered, refused or dropped."}, []string{"webhook", "result"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_alerts_waiting",
			Help: "Alerts that a web hook has not taken yet."}, []string{"webhook"}),
	}
	registerer.MustRegister(m.results, m.waiting)
	return m
}

func (m *metrics) count(webhook, result string) { m.results.WithLabelValues(webhook, result).Inc() }

// depth says how many wait. The results that an alert rule asks for begin with it: a series that begins at 1 has not
// increased.
func (m *metrics) depth(webhook string, n int) {
	m.waiting.WithLabelValues(webhook).Set(float64(n))
	m.results.WithLabelValues(webhook, resultRefused)
	m.results.WithLabelValues(webhook, resultDropped)
}

func (m *metrics) forget(webhook string) {
	m.waiting.DeleteLabelValues(webhook)
	m.results.DeletePartialMatch(prometheus.Labels{"webhook": webhook})
}
