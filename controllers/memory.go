// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// memory is what was last decided for each route and member. RoutePlans remember it over a restart; in one
// process they lag behind by a write and a watch, and a decision made in between would rest on the one before.
type memory struct {
	mu     sync.Mutex
	routes map[types.NamespacedName]map[string][]v1alpha1.PlannedRule
}

// recall is what was last decided for a route, by member: in this process, or else as its RoutePlans say.
func (m *memory) recall(route types.NamespacedName, plans map[string]*v1alpha1.RoutePlan) map[string][]v1alpha1.PlannedRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := map[string][]v1alpha1.PlannedRule{}
	for member, plan := range plans {
		last[member] = plan.Status.Rules
	}
	for member, rules := range m.routes[route] {
		last[member] = rules
	}
	return last
}

// keep notes what was decided. A plan that was refused decided nothing.
func (m *memory) keep(route types.NamespacedName, plan federation.RoutePlan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routes == nil {
		m.routes = map[types.NamespacedName]map[string][]v1alpha1.PlannedRule{}
	}
	known := m.routes[route]
	if known == nil {
		known = map[string][]v1alpha1.PlannedRule{}
		m.routes[route] = known
	}
	for member, planned := range plan.Members {
		switch {
		case planned.Object != nil:
			known[member] = planned.Rules
		case planned.Refused.Type == "":
			delete(known, member)
		}
	}
}

func (m *memory) forget(route types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.routes, route)
}
