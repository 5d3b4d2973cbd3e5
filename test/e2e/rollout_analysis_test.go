// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/labtest"
)

// TestRolloutsAreAnalysed runs a real Prometheus in each member, which reads the gateways, and lets the rollout of
// examples/canary/analysis.yaml ask it, with requests at both gateways: a new version that is well goes all the way without
// anybody's word, and one that fails in one cluster is taken back.
func TestRolloutsAreAnalysed(t *testing.T) {
	readyToRollOut(t)
	for _, member := range labtest.Members {
		runPrometheus(t, member)
	}
	t.Run("passes", func(t *testing.T) {
		endLoad := underLoad(t)
		beginRollout(t, "analysis.yaml")
		stop := labtest.FollowRollout(t)
		labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool { return s.Phase == v1alpha1.RolloutHealthy })
		expectSuccesses(t, stop())
		labtest.ExpectSides(t, everybodyAt(100))
		for _, member := range labtest.Members {
			labtest.Version(t, member).ExpectOnly(t, "next", 100)
		}
		endLoad()
	})
	t.Run("fails", func(t *testing.T) {
		labtest.TellPods(t, "gke", labtest.NewVersion, "failing", 1)
		stops := map[string]func() *labtest.Tally{}
		for _, member := range labtest.Members {
			stop := labtest.Version(t, member).UnderLoad()
			t.Cleanup(func() { stop() })
			stops[member] = stop
		}
		beginRollout(t, "analysis.yaml")
		labtest.ExpectRollout(t, v1alpha1.RolloutDegraded, 0)
		labtest.ExpectSides(t, everybodyAt(0))
		s := labtest.RolloutStatus(t)
		t.Logf("%s", s.Message)
		require.Contains(t, s.Aborted, "errors of gke: ")
		require.Contains(t, s.Aborted, "not result[0] < 0.05")
		for _, m := range s.Analysis {
			t.Logf("%+v", m)
			worst := worstOf(t, m)
			if m.Cluster == "gke" {
				require.Equal(t, v1alpha1.MeasurementFailed, m.Phase)
				require.GreaterOrEqual(t, worst, 0.05)
			} else {
				require.NotEqual(t, v1alpha1.MeasurementFailed, m.Phase)
				require.Zero(t, worst)
			}
		}
		for _, member := range labtest.Members {
			expectNoNext(t, labtest.Version(t, member))
		}
		for member, stop := range stops {
			tally := stop()
			t.Logf("%s: %s", member, tally)
			require.Equal(t, tally.AnsweredBadly("next"), tally.Failures(), "nothing but what the new version answered itself fails: %s", tally)
			require.NotZero(t, tally.Failures())
		}
	})
}

// expectSuccesses looks through what a rollout's status said: after each of the three weights, of each cluster, a success without an error.
func expectSuccesses(t *testing.T, states []v1alpha1.TrafficRolloutStatus) {
	t.Helper()
	done := map[string]bool{}
	for _, s := range states {
		for _, m := range s.Analysis {
			if at := fmt.Sprintf("%s in step %d", m.Cluster, m.Step); m.Phase == v1alpha1.MeasurementSuccessful && !done[at] {
				done[at] = true
				t.Logf("%s: %d succeeded, the last: %+v", at, m.Successful, m.Last[len(m.Last)-1])
				require.Zero(t, m.Failed)
				require.Positive(t, m.Successful)
				require.Zero(t, worstOf(t, m))
			}
		}
	}
	for _, member := range labtest.Members {
		for _, step := range []int{1, 3, 5} {
			require.Contains(t, done, fmt.Sprintf("%s in step %d", member, step))
		}
	}
}

// worstOf is the greatest of the values that a metric's status shows.
func worstOf(t *testing.T, m v1alpha1.MetricStatus) (worst float64) {
	t.Helper()
	for _, one := range m.Last {
		if one.Value != "" {
			value, err := strconv.ParseFloat(one.Value, 64)
			require.NoError(t, err)
			worst = max(worst, value)
		}
	}
	return worst
}

// runPrometheus runs examples/canary/prometheus in a member, and lets Isthmus ask it.
func runPrometheus(t *testing.T, member string) {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	require.NoError(t, err, "the program prometheus is missing: `apt-get install prometheus`, or https://prometheus.io/download")
	require.NoError(t, labtest.Lab.AddImage("prometheus", program, ""))
	c, ctx := labtest.Cluster(t, member), context.Background()
	t.Cleanup(func() {
		namePrometheus(t, member, "null")
		for _, o := range []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "monitoring"}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "public-metrics"}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "east-west-metrics"}},
		} {
			require.NoError(t, client.IgnoreNotFound(c.Delete(ctx, o)))
			labtest.ExpectGone(t, member, o)
		}
	})
	labtest.Apply(t, member, "canary", "prometheus", "prometheus.yaml")
	readyPod(t, c, "monitoring", "prometheus")
	address := ""
	labtest.Eventually(t, func() error {
		var s corev1.Service
		if err := c.Get(ctx, client.ObjectKey{Namespace: "monitoring", Name: "prometheus"}, &s); err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			return fmt.Errorf("it has no address: %+v", s.Status)
		}
		address = "http://" + s.Status.LoadBalancer.Ingress[0].IP + ":9090"
		return nil
	})
	expectGatewaysRead(t, address)
	namePrometheus(t, member, fmt.Sprintf(`{"url":%q}`, address))
}

// namePrometheus says in a MemberCluster, as JSON, which Prometheus is its own.
func namePrometheus(t *testing.T, member, prometheus string) {
	t.Helper()
	require.NoError(t, labtest.Cluster(t, "hub").Patch(context.Background(), &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member}},
		client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"prometheus":%s}}`, prometheus))))
}

// expectGatewaysRead waits until a Prometheus reads the public and the east-west gateway.
func expectGatewaysRead(t *testing.T, address string) {
	t.Helper()
	c, err := api.NewClient(api.Config{Address: address})
	require.NoError(t, err)
	labtest.Eventually(t, func() error {
		up, _, err := prometheusv1.NewAPI(c).Query(context.Background(), `sum(up{job="gateways"}) == 2`, time.Time{})
		if err == nil && up.String() == "" {
			err = fmt.Errorf("%s does not read both gateways", address)
		}
		return err
	})
}
