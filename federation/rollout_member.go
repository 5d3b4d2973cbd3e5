// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
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
// which it moves, up to the end: that it exports no more is how a move ends. One that has not been read yet is what is remembered of it.
func (v RolloutView) Members() []RolloutMember {
	from, to := sidesOf(v.Rollout.Spec)
	service := v.Route.Services[ServiceKey{v.Rollout.Namespace, to.Name}]
	exporters := map[string]bool{}
	for _, key := range ImportsOfRollout(v.Rollout) {
		for _, name := range exportersOf(v.Route.Services[key]) {
			exporters[name] = true
		}
	}
	members := make([]RolloutMember, 0, len(v.Route.Members))
	for _, m := range v.Route.Members {
		if from.Cluster != "" && from.Cluster != m.Name || !exporters[m.Name] && !v.movesFrom(m.Name) {
			continue
		}
		out := RolloutMember{Name: m.Name, Labels: v.Labels[m.Name]}
		out.Serves, out.Message = serves(service, cmp.Or(to.Cluster, m.Name), v.ports())
		members = append(members, out)
	}
	return members
}

// movesFrom tells whether a move has given away a part of what a cluster would serve.
func (v RolloutView) movesFrom(cluster string) bool {
	from, _ := sidesOf(v.Rollout.Spec)
	return from.Cluster == cluster && slices.ContainsFunc(v.Rollout.Status.Clusters, func(c v1alpha1.RolloutCluster) bool {
		return c.Cluster == cluster && c.Weight > 0
	})
}

// exportersOf are the clusters that export a service, as far as known.
func exportersOf(s ServiceSnapshot) []string {
	if imp := s.Import(); imp != nil {
		return imp.Clusters
	}
	return nil
}

// ports by which the route names the old side, and so the new one.
func (v RolloutView) ports() []int32 {
	o := writtenOverlay(v.Rollout)
	var ports []int32
	for _, rule := range intent(v.Route.Route).Spec.Rules {
		for _, b := range rule.BackendRefs {
			if b.Port != nil && o.concerns(rule, b, v.Route.Route.Namespace) {
				ports = append(ports, *b.Port)
			}
		}
	}
	return ports
}

// serves tells whether a service is fit to serve in a cluster by these ports, and if not, why.
func serves(service ServiceSnapshot, cluster string, ports []int32) (yes bool, why string) {
	m, known := service.member(cluster)
	if !known || !slices.Contains(exportersOf(service), cluster) {
		return false, "it is not exported there: create a ServiceExport next to its Service"
	}
	for _, port := range ports {
		if !m.serves(port) {
			return false, fmt.Sprintf("its Service has no TCP port %d, by which the route names it: add that port", port)
		}
	}
	finding := m.Finding()
	if !finding.Serving(m.Before) || finding.Verdict == Unknown && m.ReadyEndpoints == 0 && m.Before == "" {
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
			slices.ContainsFunc(planned.Rules, func(r v1alpha1.PlannedRule) bool { return resolves(r, key) || v.lacks(r, key) }):
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
	for _, name := range slices.Sorted(maps.Keys(v.Plan.Members)) {
		if slices.ContainsFunc(v.Plan.Members[name].Rules, func(r v1alpha1.PlannedRule) bool { return slices.ContainsFunc(r.Backends, kept) }) {
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

// lacks tells whether a rule lists the old side of a cluster that has a share and serves, and not the new one: the member does not know
// its host yet.
func (v RolloutView) lacks(rule v1alpha1.PlannedRule, key ServiceKey) bool {
	from, _ := sidesOf(v.Rollout.Spec)
	old := ServiceKey{v.Rollout.Namespace, from.Name}
	lists := func(side ServiceKey, cluster string) bool {
		return slices.ContainsFunc(rule.Backends, func(b v1alpha1.PlannedBackend) bool { return b.Import == side.String() && b.Cluster == cluster })
	}
	return old != key && slices.ContainsFunc(v.Rollout.Status.Clusters, func(c v1alpha1.RolloutCluster) bool {
		serving, _ := serves(v.Route.Services[key], c.Cluster, v.ports())
		return c.Weight > 0 && serving && lists(old, c.Cluster) && !lists(key, c.Cluster)
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
