// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// decision is the newest plan of a route and what it was made from.
type decision struct {
	snapshot federation.RouteSnapshot
	plan     federation.RoutePlan
}

// beforeRead tells whether a member has been read since it was decided without: another decision follows.
func (d decision) beforeRead(m member) bool {
	return m.Synced && slices.ContainsFunc(d.snapshot.Members, func(then federation.RouteMember) bool { return then.Name == m.Name && !then.Synced })
}

// repeats tells whether its weights are what was last said. What a new process wishes for again is on its way only to
// find that it is there; and while it has not read every member it knows less of the same weights than was known.
func (d decision) repeats(said *v1alpha1.RoutePlan) bool {
	return federation.SameWeights(said.Status.Rules, d.plan.Members[said.Status.Member].Rules)
}

// memory is what was last decided for each route. RoutePlans remember it over a restart; in one process they lag
// behind by a write and a watch, and a decision made in between would rest on the one before.
type memory struct {
	mu     sync.Mutex
	routes map[types.NamespacedName]*remembered
}

type remembered struct {
	decision
	// rules by member, from the last plan that was not refused there.
	rules map[string][]v1alpha1.PlannedRule
}

func newMemory() *memory { return &memory{routes: map[types.NamespacedName]*remembered{}} }

// recall is what was last decided for a route, by member: in this process, or else as its RoutePlans say.
func (m *memory) recall(route types.NamespacedName, plans map[string]*v1alpha1.RoutePlan) map[string][]v1alpha1.PlannedRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := map[string][]v1alpha1.PlannedRule{}
	for member, plan := range plans {
		last[member] = plan.Status.Rules
	}
	if known := m.routes[route]; known != nil {
		for member, rules := range known.rules {
			last[member] = rules
		}
	}
	return last
}

// keep notes what was decided. A plan that was refused decided nothing.
func (m *memory) keep(route types.NamespacedName, d decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.routes[route]
	if known == nil {
		known = &remembered{rules: map[string][]v1alpha1.PlannedRule{}}
		m.routes[route] = known
	}
	known.decision = d
	maps.DeleteFunc(known.rules, func(member string, _ []v1alpha1.PlannedRule) bool {
		_, planned := d.plan.Members[member]
		return !planned // it has left; another of that name is another
	})
	for member, planned := range d.plan.Members {
		switch {
		case planned.Object != nil:
			known.rules[member] = planned.Rules
		case planned.Refused.Type == "":
			delete(known.rules, member)
		}
	}
}

// addTo adds what was decided in this process for a route; false where nothing was, or for no member. A member for which the
// newest plan was refused does not count: what was decided there before grows old.
func (m *memory) addTo(decided federation.Decided, route types.NamespacedName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, added := m.routes[route], false
	if known == nil {
		return false
	}
	for _, planned := range known.plan.Members {
		if planned.Object != nil {
			decided.Add(planned.Rules)
			added = true
		}
	}
	return added
}

// latest decision about a route; false where there is none.
func (m *memory) latest(route types.NamespacedName) (decision, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.routes[route]
	if known == nil {
		return decision{}, false
	}
	return known.decision, true
}

func (m *memory) forget(route types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.routes, route)
}
