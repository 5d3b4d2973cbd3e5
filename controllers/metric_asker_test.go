// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/federation"
)

// measured is what a Prometheus answers about a cluster.
type measured struct {
	value float64
	err   error
}

// value is that of the metric in a cluster, 0 to begin with.
func (n *network) value(_ context.Context, cluster, query string, _ time.Duration) (float64, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queries = append(n.queries, query)
	m := n.measured[cluster]
	return m.value, "prometheus." + cluster, m.err
}

// asks are the queries that were asked.
func (n *network) asks() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.queries)
}

func (n *network) measure(cluster string, value float64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.measured == nil {
		n.measured = map[string]measured{}
	}
	n.measured[cluster] = measured{value, err}
}

// metricPlan asks for a metric, and looks at nothing.
func metricPlan(clusters ...string) federation.ProbePlan {
	above := v1alpha1.Decimal("0.05")
	return federation.ProbePlan{MetricPolicy: "sample/health", MetricClusters: clusters,
		Metric: &v1alpha1.Metric{Name: "error rate", Query: `errors{service="{{ service }}", cluster="{{ cluster }}"}`, IllAbove: &above}}
}

// judgeMetric is what is found of a service of which only the metric says something.
func judgeMetric(p *prober, cluster string, before federation.Verdict) federation.Finding {
	return federation.Judge(federation.Signals{Seen: true, Reachable: true, ReadyEndpoints: 2, Before: before,
		Probe: p.signal(probedKey, cluster, before), Metric: p.metricSignal(probedKey, cluster)})
}

func TestAMetricThatTurnsIllIsASuspicion(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, wakes *atomic.Int64) {
		p.set(probedKey, metricPlan("eks", "gke"), "token")
		time.Sleep(time.Minute)
		require.Equal(t, federation.Fit, judgeMetric(p, "eks", federation.Fit).Verdict)
		require.Contains(t, n.asks(), `errors{service="helloworld", cluster="eks"}`)
		require.InDelta(t, 8, len(n.asks()), 2, "one query an interval and cluster")
		calm := wakes.Load()

		n.measure("eks", 0.31, nil)
		time.Sleep(time.Minute)
		f := judgeMetric(p, "eks", federation.Fit)
		require.Equal(t, federation.Suspected, f.Verdict)
		require.Equal(t, "its metric is ill: error rate 0.31, above 0.05, 3 times in a row, of Prometheus prometheus.eks", f.Message)
		require.Equal(t, federation.Fit, judgeMetric(p, "gke", federation.Fit).Verdict)
		turned := wakes.Load()
		require.LessOrEqual(t, turned-calm, int64(2))
		n.measure("eks", 0.42, nil)
		time.Sleep(time.Minute)
		require.Equal(t, turned, wakes.Load(), "another ill value says nothing new")

		// Who does not answer says nothing, however long.
		n.measure("eks", 0, errors.New("cannot be reached"))
		time.Sleep(time.Hour)
		require.Equal(t, federation.Suspected, judgeMetric(p, "eks", federation.Suspected).Verdict)
		// Without requests there is no rate: the cluster is let try.
		n.measure("eks", 0, prometheus.ErrNoValue)
		time.Sleep(time.Minute)
		require.Equal(t, federation.Fit, judgeMetric(p, "eks", federation.Suspected).Verdict)
	})
}

func TestAMetricThatIsIllEverywhereMovesNothing(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		n.measure("eks", 1, nil)
		n.measure("gke", 1, nil)
		p.set(probedKey, metricPlan("eks", "gke"), "token")
		time.Sleep(5 * time.Minute)
		require.Equal(t, federation.Fit, judgeMetric(p, "eks", federation.Fit).Verdict, "it was never well")

		n.measure("gke", 0, nil)
		time.Sleep(time.Minute)
		require.Equal(t, federation.Suspected, judgeMetric(p, "eks", federation.Fit).Verdict)
		n.measure("gke", 1, nil)
		time.Sleep(time.Minute)
		for _, cluster := range []string{"eks", "gke"} {
			require.Equal(t, "GuardHolds", judgeMetric(p, cluster, federation.Fit).Reason)
		}
	})
}

// One that is seen ill by its metric and another by its probes are two: neither is taken out of two.
func TestTheGuardCountsMetricsAndProbesTogether(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		plan, metric := probePlan("eks", "gke"), metricPlan("eks", "gke")
		plan.Metric, plan.MetricPolicy, plan.MetricClusters = metric.Metric, metric.MetricPolicy, metric.MetricClusters
		p.set(probedKey, plan, "token")
		time.Sleep(time.Minute)
		n.measure("eks", 1, nil)
		n.set("gke", "gke", federation.LookFailed)
		n.set("eks", "gke", federation.LookFailed)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "GuardHolds", judgeMetric(p, "eks", federation.Fit).Reason)
		require.Equal(t, "GuardHolds", judgeMetric(p, "gke", federation.Fit).Reason)
		n.measure("eks", 0, nil)
		time.Sleep(2 * time.Minute)
		require.Equal(t, federation.Suspected, judgeMetric(p, "gke", federation.Fit).Verdict)
	})
}

func TestAPolicyHearsOfItsQueries(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		var told atomic.Int64
		p.answered = func(policy string) {
			if policy == "sample/health" {
				told.Add(1)
			}
		}
		n.measure("eks", 0, errors.New("parse error"))
		n.measure("gke", 0, prometheus.ErrNone)
		p.set(probedKey, metricPlan("eks", "gke"), "token")
		time.Sleep(5 * time.Minute)
		require.Equal(t, []federation.MetricUse{{Key: probedKey, Cluster: "eks", Problem: "parse error"},
			{Key: probedKey, Cluster: "gke", Problem: prometheus.ErrNone.Error(), NoPrometheus: true}}, p.metricUses("sample/health"))
		require.EqualValues(t, 3, told.Load(), "once for the plan and once for each answer that is new")
		// What nobody can be asked about decides nothing, also not whether a cluster stays out.
		require.Equal(t, federation.Fit, judgeMetric(p, "gke", federation.Suspected).Verdict)
		require.Equal(t, federation.Unknown, judgeMetric(p, "eks", federation.Suspected).Verdict)

		n.measure("eks", 0, nil)
		time.Sleep(time.Minute)
		require.Equal(t, federation.MetricUse{Key: probedKey, Cluster: "eks"}, p.metricUses("sample/health")[0])
		p.forget(probedKey)
		require.Empty(t, p.metricUses("sample/health"))
		require.Nil(t, p.metricSignal(probedKey, "eks"))
	})
}

// A metric comes and goes beside the probe: what the other has seen stays.
func TestAMetricComesAndGoesBesideTheProbe(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		plan, both := probePlan("eks", "gke"), probePlan("eks", "gke")
		metric := metricPlan("eks", "gke")
		both.Metric, both.MetricPolicy, both.MetricClusters = metric.Metric, metric.MetricPolicy, metric.MetricClusters
		p.set(probedKey, plan, "token")
		time.Sleep(time.Minute)
		n.measure("eks", 1, nil)
		p.set(probedKey, both, "token")
		require.Equal(t, federation.SeenWell, p.signal(probedKey, "eks", federation.Fit).Hub.Sight)
		time.Sleep(2 * time.Minute)
		require.Equal(t, federation.Suspected, judgeMetric(p, "eks", federation.Fit).Verdict)
		p.set(probedKey, metric, "token")
		require.Nil(t, p.signal(probedKey, "eks", federation.Fit))
		require.Equal(t, federation.Suspected, judgeMetric(p, "eks", federation.Fit).Verdict)
		looked := n.count("eks", "eks")
		time.Sleep(time.Minute)
		require.Equal(t, looked, n.count("eks", "eks"), "it is looked at without a probe")
		p.set(probedKey, both, "token")
		time.Sleep(time.Minute)
		require.Greater(t, n.count("eks", "eks"), looked)
		require.Equal(t, federation.Suspected, judgeMetric(p, "eks", federation.Fit).Verdict)
		p.set(probedKey, plan, "token")
		require.Equal(t, federation.Fit, judgeMetric(p, "eks", federation.Fit).Verdict)
		asked := len(n.asks())
		time.Sleep(time.Minute)
		require.Len(t, n.asks(), asked, "it is asked for without a metric")
	})
}
