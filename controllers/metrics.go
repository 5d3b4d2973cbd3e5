// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// metrics are what the plans did. What the connections did is the fleet's.
type metrics struct {
	planSeconds *prometheus.HistogramVec
	shifts      *prometheus.CounterVec
	weight      *prometheus.GaugeVec
	override    *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		planSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "isthmus_plan_seconds",
			Help:    "Time to plan one key, by noun.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10)}, []string{"noun"}),
		shifts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_route_shifts_total",
			Help: "Changes of a route's split in a member, by reason: FailedOver, Degraded, FailedBack, Returning, Drained, Undrained or WeightsChanged."},
			[]string{"namespace", "route", "member", "reason"}),
		weight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_route_weight",
			Help: "Weight planned for a backend, in parts of ten thousand of its rule."},
			[]string{"namespace", "route", "member", "rule", "import", "cluster"}),
		override: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_overrides",
			Help: "TrafficOverrides by type, and whether they are in force: true, or false."},
			[]string{"type", "in_force"}),
	}
	registerer.MustRegister(m.planSeconds, m.shifts, m.weight, m.override)
	return m
}

func (m *metrics) planned(noun string, started time.Time) {
	m.planSeconds.WithLabelValues(noun).Observe(time.Since(started).Seconds())
}

func (m *metrics) changed(route *gatewayv1.HTTPRoute, member, reason string) {
	m.shifts.WithLabelValues(route.Namespace, route.Name, member, reason).Inc()
}

func (m *metrics) weights(route *gatewayv1.HTTPRoute, status v1alpha1.RoutePlanStatus) {
	m.weight.DeletePartialMatch(prometheus.Labels{"namespace": route.Namespace, "route": route.Name, "member": status.Member})
	if len(status.Rules) > 0 {
		// A series that begins at 1 has not increased: the first failover would raise no alert.
		m.shifts.WithLabelValues(route.Namespace, route.Name, status.Member, v1alpha1.ReasonFailedOver)
	}
	for _, rule := range status.Rules {
		for _, b := range rule.Backends {
			// Two references to one import are one series: what counts is the cluster's share.
			m.weight.WithLabelValues(route.Namespace, route.Name, status.Member, rule.Name, b.Import, b.Cluster).Add(float64(b.Weight))
		}
	}
}

// overrides counts all of them, by what their conditions say. A type of which there is none counts 0.
func (m *metrics) overrides(all []*v1alpha1.TrafficOverride) {
	for _, kind := range []v1alpha1.OverrideType{v1alpha1.OverrideDrain, v1alpha1.OverrideHold, v1alpha1.OverridePin, v1alpha1.OverrideFreeze,
		v1alpha1.OverrideFailback} {
		for _, inForce := range []bool{true, false} {
			n := 0
			for _, o := range all {
				if o.Spec.Type == kind && meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.OverrideInForce) == inForce {
					n++
				}
			}
			m.override.WithLabelValues(string(kind), strconv.FormatBool(inForce)).Set(float64(n))
		}
	}
}

func (m *metrics) forgetRoute(namespace, name string) {
	m.weight.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "route": name})
	m.shifts.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "route": name})
}
