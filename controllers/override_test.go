// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestOverridesAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	drain := func(inForce metav1.ConditionStatus) *v1alpha1.TrafficOverride {
		return &v1alpha1.TrafficOverride{Spec: v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain}, Status: v1alpha1.TrafficOverrideStatus{
			Conditions: []metav1.Condition{{Type: v1alpha1.OverrideInForce, Status: inForce}}}}
	}
	m.overrides([]*v1alpha1.TrafficOverride{drain(metav1.ConditionTrue), drain(metav1.ConditionTrue), drain(metav1.ConditionFalse)})
	require.Equal(t, map[string]float64{"Drain true": 2, "Drain false": 1}, overridesIn(t, registry))
	m.overrides(nil)
	require.Empty(t, overridesIn(t, registry), "what is gone counts no more")
}

// overridesIn are the series that are not 0.
func overridesIn(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "isthmus_overrides" && m.GetGauge().GetValue() > 0 {
				// Labels are sorted by name: in_force, type.
				out[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

func TestAnOverrideIsLookedAtAgainWhenItEnds(t *testing.T) {
	now := time.Unix(1000, 0)
	ends := func(at int64) *v1alpha1.TrafficOverride {
		return &v1alpha1.TrafficOverride{Spec: v1alpha1.TrafficOverrideSpec{Expires: &metav1.Time{Time: time.Unix(at, 0)}}}
	}
	none := v1alpha1.TrafficOverrideStatus{}
	empty := func(since int64) v1alpha1.TrafficOverrideStatus {
		return v1alpha1.TrafficOverrideStatus{EmptySince: &metav1.Time{Time: time.Unix(since, 0)}}
	}
	require.Equal(t, ctrl.Result{RequeueAfter: 5 * time.Second}, untilNext(ends(1005), none, now))
	require.Equal(t, ctrl.Result{}, untilNext(ends(1000), none, now))
	require.Equal(t, ctrl.Result{}, untilNext(&v1alpha1.TrafficOverride{}, none, now))
	require.Equal(t, ctrl.Result{RequeueAfter: 20 * time.Second}, untilNext(&v1alpha1.TrafficOverride{}, empty(990), now), "what was in flight is over")
	require.Equal(t, ctrl.Result{RequeueAfter: 5 * time.Second}, untilNext(ends(1005), empty(990), now))
	require.Equal(t, ctrl.Result{RequeueAfter: 20 * time.Second}, untilNext(ends(1500), empty(990), now))
	require.Equal(t, ctrl.Result{}, untilNext(&v1alpha1.TrafficOverride{}, empty(900), now), "it was over before")
}
