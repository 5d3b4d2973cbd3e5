// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// rolloutMetrics are where the rollouts stand, made from their newest statuses whenever they are asked for: there is no moment in
// which a series is missing, and none is left of a rollout that has gone.
type rolloutMetrics struct {
	mu       sync.Mutex
	rollouts map[types.NamespacedName]*v1alpha1.TrafficRollout
}

func newRolloutMetrics(registerer prometheus.Registerer) *rolloutMetrics {
	m := &rolloutMetrics{rollouts: map[types.NamespacedName]*v1alpha1.TrafficRollout{}}
	registerer.MustRegister(m)
	return m
}

func (m *rolloutMetrics) told(rollout *v1alpha1.TrafficRollout) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rollouts[client.ObjectKeyFromObject(rollout)] = rollout
}

func (m *rolloutMetrics) forget(rollout types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rollouts, rollout)
}

func rolloutGauge(opts prometheus.GaugeOpts, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(opts.Name, opts.Help, append([]string{"namespace", "rollout"}, labels...), nil)
}

var (
	rolloutPhase = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_phase",
		Help: "1 for the phase of a TrafficRollout (Pending, Progressing, Paused, Degraded or Healthy), 0 for the others."}, "route", "phase")
	rolloutSince = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_phase_since_timestamp_seconds",
		Help: "When a TrafficRollout came into its phase, in seconds since 1970."})
	rolloutAborted = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_aborted",
		Help: "1 while a TrafficRollout is aborted, with everything at the old side, else 0."})
	rolloutWaits = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_waits",
		Help: "1 for what a TrafficRollout waits for (Person, Time, Measurement or Clusters), 0 for the others."}, "waits_for")
	rolloutWave = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_wave",
		Help: "How many waves of a TrafficRollout are done."})
	rolloutStep = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_step",
		Help: "How many steps of the wave that is under way are done."})
	rolloutWeight = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_weight_percent",
		Help: "How much of what a cluster serves goes to the new side, 0 to 100."}, "wave", "cluster")
	rolloutResult = rolloutGauge(prometheus.GaugeOpts{Name: "isthmus_rollout_measurement_result",
		Help: "1 for what the last measurement of a metric came to (Successful, Failed, Inconclusive or Error), 0 for the others."},
		"metric", "cluster", "result")
)

var (
	rolloutPhases = []v1alpha1.RolloutPhase{v1alpha1.RolloutPending, v1alpha1.RolloutProgressing, v1alpha1.RolloutPaused, v1alpha1.RolloutDegraded,
		v1alpha1.RolloutHealthy}
	waitsFor = []federation.RolloutWait{federation.WaitsForPerson, federation.WaitsForTime, federation.WaitsForMeasurement, federation.WaitsForClusters}
	results  = []v1alpha1.MeasurementPhase{v1alpha1.MeasurementSuccessful, v1alpha1.MeasurementFailed, v1alpha1.MeasurementInconclusive,
		v1alpha1.MeasurementError}
)

// Describe implements prometheus.Collector.
func (m *rolloutMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rolloutPhase, rolloutSince, rolloutAborted, rolloutWaits, rolloutWave, rolloutStep, rolloutWeight, rolloutResult} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *rolloutMetrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rollouts {
		collectRollout(r, func(d *prometheus.Desc, value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{r.Namespace, r.Name}, labels...)...)
		})
	}
}

func collectRollout(r *v1alpha1.TrafficRollout, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	status, waits := r.Status, federation.OutlookOf(r).Waits
	for _, phase := range rolloutPhases {
		gauge(rolloutPhase, oneIf(status.Phase == phase), r.Spec.Route.Name, string(phase))
	}
	if at := federation.RolloutSince(status); !at.IsZero() {
		gauge(rolloutSince, float64(at.Unix()))
	}
	gauge(rolloutAborted, oneIf(status.Aborted != ""))
	for _, w := range waitsFor {
		gauge(rolloutWaits, oneIf(waits == w), string(w))
	}
	gauge(rolloutWave, float64(status.Wave))
	gauge(rolloutStep, float64(status.Step))
	for _, c := range status.Clusters {
		gauge(rolloutWeight, float64(c.Weight), c.Wave, c.Cluster)
	}
	last := map[[2]string]v1alpha1.Measurement{}
	for _, metric := range status.Analysis {
		key := [2]string{metric.Name, metric.Cluster}
		// A metric of that name may be measured beside the steps too.
		if n := len(metric.Last); n > 0 && !metric.Last[n-1].Time.Before(new(last[key].Time)) {
			last[key] = metric.Last[n-1]
		}
	}
	for key, measurement := range last {
		for _, result := range results {
			gauge(rolloutResult, oneIf(measurement.Phase == result), key[0], key[1], string(result))
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
