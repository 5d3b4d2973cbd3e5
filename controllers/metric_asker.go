// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/federation"
)

// valueFunc asks the Prometheus of a cluster for one value, and says in a word which that is. It returns when the time is up or
// the context ends. A value that there is not is prometheus.ErrNoValue, and a Prometheus prometheus.ErrNone.
type valueFunc func(ctx context.Context, cluster, query string, timeout time.Duration) (value float64, source string, err error)

// valueOf asks whom a directory knows.
func valueOf(d *prometheus.Directory) valueFunc {
	return func(ctx context.Context, cluster, query string, timeout time.Duration) (float64, string, error) {
		client, err := d.Of(ctx, cluster)
		if err != nil {
			return 0, "", err
		}
		value, err := client.Value(ctx, query, timeout)
		return value, client.String(), err
	}
}

// metricSettings are a metric with what is derived from it.
type metricSettings struct {
	spec   *v1alpha1.Metric
	policy string
	timing federation.ProbeTiming
}

func newMetricSettings(plan federation.ProbePlan) *metricSettings {
	if plan.Metric == nil {
		return nil
	}
	return &metricSettings{spec: plan.Metric, policy: plan.MetricPolicy, timing: federation.MetricTimingOf(plan.Metric)}
}

// metricPair is what a metric says of one service in one cluster.
type metricPair struct {
	state  federation.MetricState
	source string
	// problem is why the newest query was not answered.
	problem error
	// queried is whether any was made.
	queried bool
}

// toldMetric is that part of it on which a finding depends.
type toldMetric struct {
	sight        federation.Seen
	said, source string
	void, proven bool
	held         string
}

// asked makes a pair ask for the metric. What was answered stays while the metric is the same.
func (p *probedPair) asked(was *probedPair, same bool) {
	p.metric = &metricPair{}
	if was != nil && was.metric != nil && same {
		p.metric = was.metric
	}
}

// metricSignal is what the metric says of a service in a cluster; nil where none is asked for.
func (p *prober) metricSignal(key federation.ServiceKey, cluster string) *federation.MetricSignal {
	p.mu.Lock()
	defer p.mu.Unlock()
	service := p.services[key]
	if service == nil || service.pairs[cluster] == nil || service.pairs[cluster].metric == nil {
		return nil
	}
	m := service.pairs[cluster].metric
	return &federation.MetricSignal{MetricState: m.state, Name: cmp.Or(service.metric.spec.Name, "metric"), Source: m.source,
		Fall: service.metric.timing.Fall, Proven: service.metricProven, Held: p.holds(service)}
}

// toldMetric needs mu.
func (p *prober) toldMetric(service *probedService, pair *probedPair) toldMetric {
	if pair.metric == nil {
		return toldMetric{}
	}
	state := pair.metric.state
	told := toldMetric{sight: state.Sight, said: state.Said, void: state.Void, proven: service.metricProven}
	if state.Sight == federation.SeenIll {
		told.source, told.held = pair.metric.source, p.holds(service)
	}
	return told
}

// query asks about one service in one cluster, and says when to ask again; false when no more.
func (p *prober) query(ctx context.Context, key federation.ServiceKey, cluster string) (time.Duration, bool) {
	p.mu.Lock()
	service := p.services[key]
	if service == nil || service.pairs[cluster] == nil || service.pairs[cluster].metric == nil {
		p.mu.Unlock()
		return 0, false
	}
	settings := service.metric
	p.mu.Unlock()
	began := p.clock.Now()
	value, source, err := p.value(ctx, cluster, federation.MetricQuery(settings.spec, key, cluster), settings.timing.Timeout)
	look := federation.Look{Result: federation.LookVoid}
	switch {
	case err == nil:
		look = federation.ReadMetric(settings.spec, value)
	case errors.Is(err, prometheus.ErrNoValue):
		look, err = federation.Look{Result: federation.LookEmpty}, nil
	}
	if !p.answer(ctx, key, cluster, settings, metricPair{source: source, problem: err}, look) {
		return 0, false
	}
	return max(0, p.spread(settings.timing.Interval)-p.clock.Since(began)), true
}

// answer takes in what a query came to, and wakes whom it concerns; false where nobody wants it any more.
func (p *prober) answer(ctx context.Context, key federation.ServiceKey, cluster string, settings *metricSettings, came metricPair, look federation.Look) bool {
	p.mu.Lock()
	service := p.services[key]
	if ctx.Err() != nil || service == nil || service.pairs[cluster] == nil || service.pairs[cluster].metric == nil {
		p.mu.Unlock()
		return false
	}
	pair, policy := service.pairs[cluster], ""
	if service.metric == settings {
		was := *pair.metric
		is := metricPair{state: was.state.Step(look, settings.timing.Rise, settings.timing.Fall), queried: true,
			source: cmp.Or(came.source, was.source), problem: came.problem}
		if errors.Is(came.problem, prometheus.ErrNone) {
			is.state = federation.MetricState{Void: true}
		}
		*pair.metric = is
		service.metricProven = service.metricProven || look.Result == federation.LookOK
		if was.use(key, cluster) != is.use(key, cluster) || !was.queried {
			policy = settings.policy
		}
	}
	woken := p.count(key, service, cluster, pair)
	p.mu.Unlock()
	p.metrics.looked(key, cluster, "metric", look)
	for _, key := range woken {
		p.changed(key)
	}
	if policy != "" {
		p.answered(policy)
	}
	return true
}

// use is what is to be said of the queries.
func (m metricPair) use(key federation.ServiceKey, cluster string) federation.MetricUse {
	use := federation.MetricUse{Key: key, Cluster: cluster, Empty: m.state.Void && m.problem == nil,
		NoPrometheus: errors.Is(m.problem, prometheus.ErrNone)}
	if m.problem != nil {
		use.Problem = m.problem.Error()
	}
	return use
}

// metricUses are the queries that a policy has had asked, namespace/name, sorted by import and cluster.
func (p *prober) metricUses(policy string) []federation.MetricUse {
	p.mu.Lock()
	defer p.mu.Unlock()
	var uses []federation.MetricUse
	for key, service := range p.services {
		if service.metric == nil || service.metric.policy != policy {
			continue
		}
		for _, cluster := range slices.Sorted(maps.Keys(service.pairs)) {
			if m := service.pairs[cluster].metric; m != nil && m.queried {
				uses = append(uses, m.use(key, cluster))
			}
		}
	}
	slices.SortStableFunc(uses, func(a, b federation.MetricUse) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return uses
}

// tellPolicies tells those that a metric is of, or was, when a plan changed something of it.
func (p *prober) tellPolicies(was, is *probedService) {
	if was.metric == is.metric && slices.Equal(was.askedIn(), is.askedIn()) {
		return
	}
	for _, s := range []*probedService{was, is} {
		if s.metric != nil {
			p.answered(s.metric.policy)
		}
	}
}

// askedIn are the clusters about which a metric is asked for.
func (s *probedService) askedIn() []string {
	var clusters []string
	for _, cluster := range slices.Sorted(maps.Keys(s.pairs)) {
		if s.pairs[cluster].metric != nil {
			clusters = append(clusters, cluster)
		}
	}
	return clusters
}
