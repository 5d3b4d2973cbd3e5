// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Observation is what the hub says.
type Observation struct {
	Plans   []Plan // by member
	Shifted string // why traffic is not where it was meant to be; empty when it is
	Members []Member
	// HubRuns says that a controller is ready.
	HubRuns bool
	// Stale says why the rest may be out of date; empty when it is not.
	Stale string
}

// Plan is the split that one member has been given.
type Plan struct {
	Member     string
	Programmed bool
	Weights    []Weight
}

// Weight of a cluster in a plan.
type Weight struct {
	Cluster         string
	Percent         float64
	Reason, Message string
}

// Member is whether the hub reaches a member's API server.
type Member struct {
	Name      string
	Connected bool
	Reason    string
}

// Member returns what is known of a member.
func (o Observation) Member(name string) Member {
	for _, m := range o.Members {
		if m.Name == name {
			return m
		}
	}
	return Member{Name: name}
}

// Everywhere says whether a cluster has that share, within half of a hundredth, in every member's plan.
func (o Observation) Everywhere(cluster string, percent float64) bool {
	for _, p := range o.Plans {
		if have := p.percent(cluster); have < percent-0.5 || have > percent+0.5 {
			return false
		}
	}
	return len(o.Plans) > 0
}

func (p Plan) percent(cluster string) float64 {
	for _, w := range p.Weights {
		if w.Cluster == cluster {
			return w.Percent
		}
	}
	return 0
}

// planOf reads the first rule of a RoutePlan: the example has one.
func planOf(rp v1alpha1.RoutePlan) Plan {
	p := Plan{Member: rp.Status.Member, Programmed: holds(rp.Status.Conditions, v1alpha1.PlanProgrammed)}
	if len(rp.Status.Rules) == 0 {
		return p
	}
	sum := int32(0)
	for _, b := range rp.Status.Rules[0].Backends {
		sum += b.Weight
	}
	for _, b := range rp.Status.Rules[0].Backends {
		w := Weight{Cluster: b.Cluster, Reason: b.Reason, Message: b.Message}
		if sum > 0 {
			w.Percent = 100 * float64(b.Weight) / float64(sum)
		}
		p.Weights = append(p.Weights, w)
	}
	return p
}

// shiftOf returns why a route's traffic is elsewhere.
func shiftOf(route gatewayv1.HTTPRoute) string {
	for _, parent := range route.Status.Parents {
		for _, c := range parent.Conditions {
			if c.Type == v1alpha1.RouteTrafficShifted && c.Status == metav1.ConditionTrue {
				return c.Reason + ": " + strings.TrimSpace(c.Message)
			}
		}
	}
	return ""
}

func memberOf(mc v1alpha1.MemberCluster) Member {
	m := Member{Name: mc.Name, Connected: holds(mc.Status.Conditions, v1alpha1.MemberConnected)}
	for _, c := range mc.Status.Conditions {
		if c.Type == v1alpha1.MemberConnected {
			m.Reason = c.Reason
		}
	}
	return m
}

func holds(conditions []metav1.Condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == metav1.ConditionTrue
		}
	}
	return false
}
