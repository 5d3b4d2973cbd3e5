// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"maps"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// RolloutView is what a rollout's next state is seen by: the newest decision about its route, and how far that has come.
type RolloutView struct {
	Rollout *v1alpha1.TrafficRollout
	Route   RouteSnapshot
	Plan    RoutePlan
	// Programmed is whether a member has programmed what was decided for it.
	Programmed map[string]bool
	// Labels of the MemberClusters.
	Labels map[string]map[string]string
}

// Members are the clusters that export any of the two sides, and what is seen of the new side in each. Of a move there is one, from
// which it moves. One that has not been read yet stays what it was.
func (v RolloutView) Members() []RolloutMember {
	from, to := sidesOf(v.Rollout.Spec)
	key := ServiceKey{v.Rollout.Namespace, to.Name}
	members := make([]RolloutMember, 0, len(v.Route.Members))
	for _, m := range v.Route.Members {
		if from.Cluster != "" && from.Cluster != m.Name || m.Synced && !v.exports(m.Name) {
			continue
		}
		out := RolloutMember{Name: m.Name, Labels: v.Labels[m.Name]}
		out.Serves, out.Message = serves(v.Route.Services[key], cmp.Or(to.Cluster, m.Name))
		members = append(members, out)
	}
	return members
}

// exports tells whether a cluster exports any of the two sides.
func (v RolloutView) exports(cluster string) bool {
	return slices.ContainsFunc(ImportsOfRollout(v.Rollout), func(key ServiceKey) bool {
		m, known := v.Route.Services[key].member(cluster)
		return known && m.Exported
	})
}

// serves tells whether a service is fit to serve in a cluster, and if not, why.
func serves(service ServiceSnapshot, cluster string) (yes bool, why string) {
	m, known := service.member(cluster)
	if !known || !m.Exported {
		return false, "it is not exported there: create a ServiceExport next to its Service"
	}
	finding := m.Finding()
	if !finding.Serving(m.Before) || finding.Verdict == Unknown && m.ReadyEndpoints == 0 {
		return false, finding.Message
	}
	return true, ""
}

// Lagging are the members where requests enter that have not programmed what the rollout says, sorted.
func (v RolloutView) Lagging() []string {
	_, to := sidesOf(v.Rollout.Spec)
	key := ServiceKey{v.Rollout.Namespace, to.Name}
	decided := RolloutInForce(v.Route.Route, v.Route.Rollouts)
	current := decided != nil && decided.Name == v.Rollout.Name && sameOverlay(decided.Status, v.Rollout.Status)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(v.Plan.Members)) {
		planned := v.Plan.Members[name]
		switch {
		case planned.Object == nil && (planned.Refused.Type == "" || planned.Refused.Reason == v1alpha1.ReasonNamespaceMissing):
			// Nothing enters there.
		case planned.Object == nil, !current, !v.Programmed[name],
			slices.ContainsFunc(planned.Rules, func(r v1alpha1.PlannedRule) bool { return resolves(r, key) }):
			names = append(names, name)
		}
	}
	return names
}

// Held names the TrafficOverride that holds the route's weights; empty where none does.
func (v RolloutView) Held() string {
	if hold := v.Route.Overrides.hold(ServiceKey{v.Rollout.Namespace, v.Rollout.Spec.Route.Name}); hold != nil {
		return hold.Name
	}
	return ""
}

// Kept tells whether some member lets the new side go on with what it had, since the old one serves nowhere.
func (v RolloutView) Kept() bool {
	_, to := sidesOf(v.Rollout.Spec)
	kept := func(b v1alpha1.PlannedBackend) bool {
		return b.Reason == v1alpha1.WeightKept && b.Import == ServiceKey{v.Rollout.Namespace, to.Name}.String()
	}
	for _, m := range v.Plan.Members {
		if slices.ContainsFunc(m.Rules, func(r v1alpha1.PlannedRule) bool { return slices.ContainsFunc(r.Backends, kept) }) {
			return true
		}
	}
	return false
}

// resolves tells whether a rule waits for a member to resolve a service.
func resolves(rule v1alpha1.PlannedRule, key ServiceKey) bool {
	return slices.ContainsFunc(rule.Backends, func(b v1alpha1.PlannedBackend) bool {
		return b.Import == key.String() && b.Reason == v1alpha1.WeightResolving
	})
}

// sameOverlay tells whether two states lay the same over a route.
func sameOverlay(a, b v1alpha1.TrafficRolloutStatus) bool {
	weights := func(s v1alpha1.TrafficRolloutStatus) map[string]int32 {
		out := map[string]int32{}
		for _, c := range s.Clusters {
			out[c.Cluster] = c.Weight
		}
		return out
	}
	return deref(a.Laid) == deref(b.Laid) && maps.Equal(weights(a), weights(b)) && a.Mirror == b.Mirror && a.PreviewHostname == b.PreviewHostname &&
		slices.EqualFunc(a.HeaderRoute, b.HeaderRoute, sameHeader)
}

func sameHeader(a, b gatewayv1.HTTPHeaderMatch) bool {
	return a.Name == b.Name && a.Value == b.Value && deref(a.Type) == deref(b.Type)
}
