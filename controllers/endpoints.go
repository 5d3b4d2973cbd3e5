// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"maps"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// endpoints remembers how many endpoints each service that a route refers to had in each member, so that a scale-up is told
// from a loss. RoutePlans remember it over a restart, of those that are short of endpoints.
type endpoints struct {
	mu   sync.Mutex
	seen map[serviceIn]federation.Endpoints
	// told is the share of ready endpoints that everybody concerned was last woken for. It is not what was last seen:
	// whoever plans between a change and its event sees it first, and the others still have to hear of it.
	told map[serviceIn]int
}

// serviceIn is a service in a member.
type serviceIn struct {
	member string
	key    federation.ServiceKey
}

func newEndpoints() *endpoints {
	return &endpoints{seen: map[serviceIn]federation.Endpoints{}, told: map[serviceIn]int{}}
}

// recall takes in what RoutePlans remember of what has not been looked at in this process. Where they disagree, it is the
// smallest share of the most endpoints: the result must not depend on their order.
func (e *endpoints) recall(rules []v1alpha1.PlannedRule) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, rule := range rules {
		for _, b := range rule.Backends {
			was, at := federation.EndpointsOf(b), serviceIn{b.Cluster, federation.ParseServiceKey(b.Import)}
			known, looked := e.seen[at]
			if !was.Seen || looked && known.Seen {
				continue
			}
			if looked {
				was.ReadyPercent, was.Peak = min(was.ReadyPercent, known.ReadyPercent), max(was.Peak, known.Peak)
			}
			was.Seen = false
			e.seen[at] = was
		}
	}
}

// look counts the endpoints of a service in a member that has been read.
func (e *endpoints) look(ctx context.Context, m member, key federation.ServiceKey) (federation.Endpoints, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// Counted under the lock, or an older count could be taken in after a newer one. It is a read from memory.
	count, err := m.endpoints(ctx, key)
	if err != nil {
		return federation.Endpoints{}, err
	}
	at := serviceIn{m.Name, key}
	was := e.seen[at]
	was.Seen = was.Seen || was.Peak > 0
	now := was.Step(count.ready, count.wanted)
	if _, told := e.told[at]; !told {
		e.told[at] = now.ReadyPercent
	}
	if e.seen[at] = now; now.Peak == 0 {
		delete(e.seen, at)
		delete(e.told, at)
	}
	return now, nil
}

// changed counts again, and tells whether the share of ready endpoints is another than when everybody was last woken for it.
// Of what nobody looks at nothing is told.
func (e *endpoints) changed(ctx context.Context, m member, key federation.ServiceKey) bool {
	at := serviceIn{m.Name, key}
	e.mu.Lock()
	told, looked := e.told[at]
	e.mu.Unlock()
	if !looked {
		return false
	}
	is, err := e.look(ctx, m, key)
	if err != nil || is.ReadyPercent == told {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if is.Peak > 0 {
		e.told[at] = is.ReadyPercent
	}
	return true
}

// forget ends what is remembered of a member that is no more: another of that name is another.
func (e *endpoints) forget(member string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	of := func(at serviceIn) bool { return at.member == member }
	maps.DeleteFunc(e.seen, func(at serviceIn, _ federation.Endpoints) bool { return of(at) })
	maps.DeleteFunc(e.told, func(at serviceIn, _ int) bool { return of(at) })
}

// endpointCount is how many endpoints are ready, and how many there are that are not terminating.
type endpointCount struct{ ready, wanted int }

// endpoints of a Service, as far as they have been read.
func (m member) endpoints(ctx context.Context, key federation.ServiceKey) (endpointCount, error) {
	var slices discoveryv1.EndpointSliceList
	if err := m.list(ctx, &slices, client.InNamespace(key.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: key.Name}); err != nil {
		return endpointCount{}, err
	}
	sum := endpointCount{}
	for i := range slices.Items {
		n := countEndpoints(&slices.Items[i])
		sum.ready, sum.wanted = sum.ready+n.ready, sum.wanted+n.wanted
	}
	return sum, nil
}

func countEndpoints(slice *discoveryv1.EndpointSlice) endpointCount {
	n := endpointCount{}
	for _, e := range slice.Endpoints {
		// "nil should be interpreted as true" (EndpointConditions.ready), and as false of terminating.
		if e.Conditions.Ready == nil || *e.Conditions.Ready {
			n.ready++
		}
		if e.Conditions.Terminating == nil || !*e.Conditions.Terminating {
			n.wanted++
		}
	}
	return n
}

// endpointsIn counts a slice of an event, which there may be none of.
func endpointsIn(o client.Object) endpointCount {
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || slice == nil {
		return endpointCount{}
	}
	return countEndpoints(slice)
}
