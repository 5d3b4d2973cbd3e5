// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// queryVariable is one that stands in a query, as users of Flagger write them. What it stands for is a DNS label or name, so that it
// can end no string of PromQL.
var queryVariable = regexp.MustCompile(`\{\{ *([a-z]+) *\}\}`)

// fillIn fills in the variables of a query. One that there is not stays as it is, and Prometheus says where it is.
func fillIn(query string, values map[string]string) string {
	return queryVariable.ReplaceAllStringFunc(query, func(variable string) string {
		if value, known := values[strings.Trim(variable, "{} ")]; known {
			return value
		}
		return variable
	})
}

// MetricQuery is the query about a service in one cluster.
func MetricQuery(m *v1alpha1.Metric, key ServiceKey, cluster string) string {
	return fillIn(m.Query, map[string]string{"namespace": key.Namespace, "service": key.Name, "cluster": cluster})
}

// MetricTimingOf a metric. What the API server would have filled in, or refused, is filled in here.
func MetricTimingOf(m *v1alpha1.Metric) ProbeTiming {
	t := ProbeTiming{Interval: 15 * time.Second, Timeout: 5 * time.Second, Rise: cmp.Or(m.Rise, 2), Fall: cmp.Or(m.Fall, 3)}
	if d, err := time.ParseDuration(string(m.Interval)); err == nil && d >= time.Second {
		t.Interval = d
	}
	if d, err := time.ParseDuration(string(m.Timeout)); err == nil && d > 0 {
		t.Timeout = d
	}
	t.Timeout = min(t.Timeout, t.Interval)
	return t
}

// ReadMetric judges a value. What is not a number, as a rate of nothing is, and what is infinite are no value.
func ReadMetric(m *v1alpha1.Metric, value float64) Look {
	said := strconv.FormatFloat(value, 'g', 4, 64)
	switch {
	case math.IsNaN(value) || math.IsInf(value, 0):
		return Look{Result: LookEmpty, Said: said}
	case m.IllAbove != nil && value > m.IllAbove.Float():
		return Look{Result: LookFailed, Said: said + ", above " + string(*m.IllAbove)}
	case m.IllBelow != nil && value < m.IllBelow.Float():
		return Look{Result: LookFailed, Said: said + ", below " + string(*m.IllBelow)}
	}
	return Look{Result: LookOK, Said: said}
}

// MetricState is what is known, by a metric, of one service in one cluster.
type MetricState struct {
	Streak
	// Empty counts the newest queries, in a row, that gave no value.
	Empty int
	// Void is whether there is nothing to be known: no value so often that what was seen is forgotten, or nobody to ask.
	Void bool
	// Out is whether an earlier process took the cluster out on suspicion, and left it so.
	Out bool
}

// Step takes in an answer.
//
//	answer               | becomes
//	a value              | as Streak.Step
//	no value             | as it was; after `fall` in a row forgotten
//	none                 | as it was, for as long as it lasts
//
// A cluster that takes no requests has no rate of errors. To wait for one would keep it out for ever: so it is forgotten, and
// the cluster returns like any other, step by step, and is seen ill again if it is. A Prometheus that does not answer says
// nothing, and what was decided stays.
func (m MetricState) Step(look Look, rise, fall int32) MetricState {
	switch look.Result {
	case LookVoid, LookSilent:
		return m
	case LookEmpty:
		if m.Empty++; m.Empty >= int(max(1, fall)) {
			return MetricState{Empty: int(max(1, fall)), Void: true}
		}
		return m
	}
	return MetricState{Streak: m.Streak.Step(look, rise, fall), Out: m.Out}
}

// Doubted tells whether the guard counts the cluster among those in doubt, as ProbeState.Doubted does.
func (m MetricState) Doubted() bool {
	return m.Sight == SeenIll || m.Streak.Doubted() || m.Out && m.Sight == SeenNothing && !m.Void
}

// MetricSignal is what a metric says of one service in one cluster.
type MetricSignal struct {
	MetricState
	// Name of what is measured, and Source, the Prometheus that says it.
	Name, Source string
	// Fall is how many ill values in a row it takes.
	Fall int32
	// Proven is whether it was well in any cluster. Until it was, the fault may be the query's own.
	Proven bool
	// Held is why the guard lets nothing be moved on suspicion; empty where it does.
	Held string
}

func (m *MetricSignal) known() bool { return m.Sight != SeenNothing || m.Void }

// suspects tells whether the service is to be taken out as far as the metric can say, before the guard is asked.
func (m *MetricSignal) suspects() bool { return m != nil && m.Proven && m.Sight == SeenIll }

// said is what was measured, and where.
func (m *MetricSignal) said() string {
	return fmt.Sprintf("%s %s, %d times in a row, of Prometheus %s", m.Name, m.Said, m.Fall, m.Source)
}

// MetricUse is a query that a policy has asked about a service in a cluster.
type MetricUse struct {
	Key     ServiceKey
	Cluster string
	// Problem is why it is not answered, and NoPrometheus whether that is because there is none to ask; empty where it is.
	Problem      string
	NoPrometheus bool
	// Empty is whether the answer holds no value, so often that it counts.
	Empty bool
}

// maxUsesSaid bounds a condition's message: the first ones say what is wrong with all.
const maxUsesSaid = 8

// metricAnswered says whether the queries of a policy's metric are answered; the zero value where it has none.
func metricAnswered(s PolicySnapshot) metav1.Condition {
	if metricOf(s.Policy.Spec.Defaults) == nil && metricOf(s.Policy.Spec.Overrides) == nil {
		return metav1.Condition{}
	}
	var problems, empty []string
	reason := v1alpha1.ReasonMetricAnswered
	for _, use := range s.Metrics {
		where := use.Key.String() + " in " + use.Cluster
		switch {
		case use.NoPrometheus && reason == v1alpha1.ReasonMetricAnswered:
			reason = v1alpha1.ReasonNoPrometheus
		case use.Problem != "" && !use.NoPrometheus:
			reason = v1alpha1.ReasonQueryFailed
		}
		if use.Problem != "" {
			problems = append(problems, where+": "+use.Problem)
		} else if use.Empty {
			empty = append(empty, where)
		}
	}
	var c metav1.Condition
	switch {
	case len(problems) > 0:
		c = condition(v1alpha1.PolicyMetricAnswered, metav1.ConditionFalse, reason, someOf(problems)+"; until it is answered it decides nothing new there")
	case len(s.Metrics) == 0:
		c = condition(v1alpha1.PolicyMetricAnswered, metav1.ConditionUnknown, v1alpha1.ReasonMetricAwaited,
			"nothing has been asked yet, or another policy's metric holds for what this one is attached to")
	default:
		c = condition(v1alpha1.PolicyMetricAnswered, metav1.ConditionTrue, reason, "the queries are answered")
		if len(empty) > 0 {
			c.Message += ", with no value for " + someOf(empty) + ": without requests there is none; else see whether the query's labels are right"
		}
	}
	c.ObservedGeneration = s.Policy.Generation
	return c
}

func someOf(texts []string) string {
	slices.Sort(texts)
	if len(texts) > maxUsesSaid {
		texts = append(texts[:maxUsesSaid:maxUsesSaid], "and others")
	}
	return strings.Join(texts, "; ")
}

func metricOf(d *v1alpha1.TrafficDistribution) *v1alpha1.Metric {
	if d == nil || d.Health == nil {
		return nil
	}
	return d.Health.Metric
}
