// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// probedReasons are those findings of which the condition Probed speaks, the worst first, and the reason that it gives.
var probedReasons = []struct{ finding, reason, advice string }{
	{reasonGuardHolds, v1alpha1.ReasonGuardHolds, "look first at what they share: the hub's own network, or the Prometheus that says it"},
	{reasonUnproven, v1alpha1.ReasonProbeMisconfigured,
		"it has never succeeded in any cluster, so it decides nothing: correct the policy's health.probe, or the service"},
	{reasonMetricUnproven, v1alpha1.ReasonMetricIllEverywhere,
		"it has been well in no cluster, so it decides nothing: correct the policy's health.metric, or the service"},
	{reasonNoPeerToAsk, v1alpha1.ReasonNoPeerToAsk, "look at that cluster; where the hub is to decide alone, set hubsWordIsEnough"},
	{reasonHubLinkBad, v1alpha1.ReasonHubLinkBad, "look at the network between the hub and that gateway"},
}

// reasonUnproven is that of a probe that fails wherever it has been made.
const reasonUnproven = "Unproven"

// reasonMetricUnproven is that of a metric that is ill wherever it has been asked for.
const reasonMetricUnproven = "MetricUnproven"

// routeProbed says what the probes of a route's imports have come to; the zero value where none of them is probed. What is
// not known yet leaves what was said: a hub that has just started knows nothing worse than the one before.
func routeProbed(s RouteSnapshot) metav1.Condition {
	said, probed := map[string][]string{}, false
	for _, key := range keysOf(s.Services) {
		service := s.Services[key]
		for _, m := range service.Members {
			if m.Probe == nil && m.Metric == nil || !m.Exported {
				continue
			}
			probed = probed || m.Metric != nil || !m.Probe.Undecided
			reason, message := m.probed(service)
			said[reason] = append(said[reason], key.String()+" in "+m.Name+": "+message)
		}
	}
	for _, r := range probedReasons {
		if texts := said[r.finding]; len(texts) > 0 {
			return condition(v1alpha1.RouteProbed, metav1.ConditionFalse, r.reason, strings.Join(texts, "; ")+": "+r.advice)
		}
	}
	was, metric := saidBefore(s, v1alpha1.RouteProbed), len(said[reasonMetricAwaited]) > 0
	awaited := metric || len(said[reasonProbeAwaited]) > 0
	switch {
	case (awaited || !probed) && was != nil && len(said) > 0:
		return *was
	case !probed:
		return metav1.Condition{}
	case metric:
		return condition(v1alpha1.RouteProbed, metav1.ConditionUnknown, v1alpha1.ReasonMetricAwaited,
			"some clusters' metric has not been answered often enough yet: see the condition MetricAnswered of its policy")
	case awaited:
		return condition(v1alpha1.RouteProbed, metav1.ConditionUnknown, v1alpha1.ReasonProbeAwaited,
			"some clusters have not been looked at often enough yet, or have no gateway with an address")
	}
	return condition(v1alpha1.RouteProbed, metav1.ConditionTrue, v1alpha1.ReasonProbed, "every cluster is looked at, and what is seen is believed")
}

// probed is the reason and message of what the probes say of a service in this member.
func (m ServiceMember) probed(service ServiceSnapshot) (reason, message string) {
	f := m.Finding()
	switch {
	case f.Reason == reasonGuardHolds, f.Reason == reasonNoPeerToAsk, f.Reason == reasonHubLinkBad:
		return f.Reason, f.Message
	case m.Probe != nil && !m.Probe.Proven && m.Probe.Hub.Sight == SeenIll && service.illEverywhere():
		return reasonUnproven, "the probe fails " + m.Probe.said()
	case m.Metric != nil && !m.Metric.Proven && m.Metric.Sight == SeenIll && service.metricIllEverywhere():
		return reasonMetricUnproven, m.Metric.said()
	case m.Probe != nil && m.Probe.Hub.Sight == SeenNothing && !f.Verdict.out():
		return reasonProbeAwaited, ""
	case m.Metric != nil && !m.Metric.known() && !f.Verdict.out():
		return reasonMetricAwaited, ""
	}
	return "", ""
}

// metricIllEverywhere tells whether no cluster of which the metric said anything was seen otherwise than ill.
func (s ServiceSnapshot) metricIllEverywhere() bool {
	return !slices.ContainsFunc(s.Members, func(m ServiceMember) bool {
		return m.Metric != nil && m.Exported && m.Metric.Sight == SeenNothing && m.Metric.Against != 0
	})
}

// illEverywhere tells whether no cluster of which anything was seen was seen otherwise than ill.
func (s ServiceSnapshot) illEverywhere() bool {
	return !slices.ContainsFunc(s.Members, func(m ServiceMember) bool {
		return m.Probe != nil && m.Exported && m.Probe.Hub.Sight == SeenNothing && m.Probe.Hub.Against != 0
	})
}

// saidBefore is a condition of the route that its status has already.
func saidBefore(s RouteSnapshot, kind string) *metav1.Condition {
	for _, p := range s.Route.Status.Parents {
		if c := findCondition(p.Conditions, kind); c != nil && cmp.Or(p.ControllerName, v1alpha1.ControllerName) == v1alpha1.ControllerName {
			return c
		}
	}
	return nil
}
