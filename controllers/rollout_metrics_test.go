// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestWhereARolloutStandsIsMeasured(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newRolloutMetrics(registry)
	at := func(seconds int64) metav1.MicroTime { return metav1.NewMicroTime(time.Unix(seconds, 0)) }
	ten := int32(10)
	m.told(&v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"},
		Spec: v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "web"}, Canary: &v1alpha1.CanaryStrategy{
			Stable: v1alpha1.RolloutSide{Name: "cart"}, Canary: v1alpha1.RolloutSide{Name: "cart-v2"},
			Steps: []v1alpha1.CanaryStep{{SetWeight: &ten}, {Pause: &v1alpha1.RolloutPause{}}}}},
		Status: v1alpha1.TrafficRolloutStatus{Phase: v1alpha1.RolloutPaused, Step: 1, Weight: 10,
			Clusters: []v1alpha1.RolloutCluster{{Cluster: "eks", Wave: "all", Weight: 10}, {Cluster: "gke", Wave: "all", Weight: 10}},
			Conditions: []metav1.Condition{{Type: v1alpha1.RolloutAccepted, LastTransitionTime: metav1.Unix(1000, 0)},
				{Type: v1alpha1.RolloutInProgress, LastTransitionTime: metav1.Unix(2000, 0)}},
			Analysis: []v1alpha1.MetricStatus{
				{Name: "errors", Step: -1, Last: []v1alpha1.Measurement{{Phase: v1alpha1.MeasurementError, Time: at(1)}, {Phase: v1alpha1.MeasurementFailed, Time: at(3)}}},
				{Name: "errors", Step: 0, Last: []v1alpha1.Measurement{{Phase: v1alpha1.MeasurementSuccessful, Time: at(2)}}},
				{Name: "latency"}}}})
	require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(`
# HELP isthmus_rollout_aborted 1 while a TrafficRollout is aborted, with everything at the old side, else 0.
# TYPE isthmus_rollout_aborted gauge
isthmus_rollout_aborted{namespace="shop",rollout="cart"} 0
# HELP isthmus_rollout_measurement_result 1 for what the last measurement of a metric came to (Successful, Failed, Inconclusive or Error), 0 for the others.
# TYPE isthmus_rollout_measurement_result gauge
isthmus_rollout_measurement_result{cluster="",metric="errors",namespace="shop",result="Error",rollout="cart"} 0
isthmus_rollout_measurement_result{cluster="",metric="errors",namespace="shop",result="Failed",rollout="cart"} 1
isthmus_rollout_measurement_result{cluster="",metric="errors",namespace="shop",result="Inconclusive",rollout="cart"} 0
isthmus_rollout_measurement_result{cluster="",metric="errors",namespace="shop",result="Successful",rollout="cart"} 0
# HELP isthmus_rollout_phase 1 for the phase of a TrafficRollout (Pending, Progressing, Paused, Degraded or Healthy), 0 for the others.
# TYPE isthmus_rollout_phase gauge
isthmus_rollout_phase{namespace="shop",phase="Degraded",rollout="cart",route="web"} 0
isthmus_rollout_phase{namespace="shop",phase="Healthy",rollout="cart",route="web"} 0
isthmus_rollout_phase{namespace="shop",phase="Paused",rollout="cart",route="web"} 1
isthmus_rollout_phase{namespace="shop",phase="Pending",rollout="cart",route="web"} 0
isthmus_rollout_phase{namespace="shop",phase="Progressing",rollout="cart",route="web"} 0
# HELP isthmus_rollout_phase_since_timestamp_seconds When a TrafficRollout came into its phase, in seconds since 1970.
# TYPE isthmus_rollout_phase_since_timestamp_seconds gauge
isthmus_rollout_phase_since_timestamp_seconds{namespace="shop",rollout="cart"} 2000
# HELP isthmus_rollout_step How many steps of the wave that is under way are done.
# TYPE isthmus_rollout_step gauge
isthmus_rollout_step{namespace="shop",rollout="cart"} 1
# HELP isthmus_rollout_waits 1 for what a TrafficRollout waits for (Person, Time, Measurement or Clusters), 0 for the others.
# TYPE isthmus_rollout_waits gauge
isthmus_rollout_waits{namespace="shop",rollout="cart",waits_for="Clusters"} 0
isthmus_rollout_waits{namespace="shop",rollout="cart",waits_for="Measurement"} 0
isthmus_rollout_waits{namespace="shop",rollout="cart",waits_for="Person"} 1
isthmus_rollout_waits{namespace="shop",rollout="cart",waits_for="Time"} 0
# HELP isthmus_rollout_wave How many waves of a TrafficRollout are done.
# TYPE isthmus_rollout_wave gauge
isthmus_rollout_wave{namespace="shop",rollout="cart"} 0
# HELP isthmus_rollout_weight_percent How much of what a cluster serves goes to the new side, 0 to 100.
# TYPE isthmus_rollout_weight_percent gauge
isthmus_rollout_weight_percent{cluster="eks",namespace="shop",rollout="cart",wave="all"} 10
isthmus_rollout_weight_percent{cluster="gke",namespace="shop",rollout="cart",wave="all"} 10
`)))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	m.forget(types.NamespacedName{Namespace: "shop", Name: "cart"})
	require.Zero(t, testutil.CollectAndCount(m))
}
