// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestTheFirstFailoverIsAnIncrease(t *testing.T) {
	m, route := newMetrics(prometheus.NewRegistry()), routeTo("web", "front", cart)
	m.weights(route, v1alpha1.RoutePlanStatus{Member: "eks", Rules: []v1alpha1.PlannedRule{{Name: "0"}}})
	require.Equal(t, 1, testutil.CollectAndCount(m.shifts))
	require.Zero(t, testutil.ToFloat64(m.shifts))
	m.forgetRoute("web", "front")
	m.weights(route, v1alpha1.RoutePlanStatus{Member: "eks"})
	require.Zero(t, testutil.CollectAndCount(m.shifts))
}
