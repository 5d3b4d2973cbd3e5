// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Situation is what all plans of a hub depend on at one time.
type Situation struct {
	Routes   []RouteSnapshot
	Gateways []GatewaySnapshot
	// Probes of the services that are probed.
	Probes map[ServiceKey]ProbePlan
	Guard  Guard

	// lost are the clusters that are supposed to be silent as a whole.
	lost []string
}

// Loss is what is supposed to be lost.
type Loss struct {
	Cluster string
	// Service that has no ready endpoint left there. The zero value is the whole cluster: neither its API server nor its
	// gateways answer any more.
	Service ServiceKey
}

// Without is the situation after a loss, as a hub would see it:
//
//	lost      | API server | endpoints     | probes, where there are any
//	a service | as it is   | 0             | as they are
//	a cluster | lost       | as last known | fail from the hub, and through every cluster that is left to be asked
func (s Situation) Without(l Loss) Situation {
	if l.Service == (ServiceKey{}) {
		s.lost = append(slices.Clone(s.lost), l.Cluster)
		return s.changed(func(m *Member) { m.Reachable = m.Reachable && m.Name != l.Cluster }, func(ServiceKey, *ServiceMember) {})
	}
	return s.changed(func(*Member) {}, func(key ServiceKey, m *ServiceMember) {
		if key == l.Service && m.Name == l.Cluster {
			m.ReadyEndpoints, m.Endpoints = 0, m.Endpoints.Step(0, m.Endpoints.Peak)
		}
	})
}

// Overridden is the situation with another override in force.
func (s Situation) Overridden(o *v1alpha1.TrafficOverride) Situation {
	s.Routes, s.Gateways = slices.Clone(s.Routes), slices.Clone(s.Gateways)
	for i := range s.Routes {
		s.Routes[i].Overrides = append(slices.Clone(s.Routes[i].Overrides), o)
	}
	for i := range s.Gateways {
		s.Gateways[i].Overrides = append(slices.Clone(s.Gateways[i].Overrides), o)
	}
	return s
}

// changed is a copy in which members, and services in members, are as the functions leave them.
func (s Situation) changed(member func(*Member), service func(ServiceKey, *ServiceMember)) Situation {
	s.Routes, s.Gateways = slices.Clone(s.Routes), slices.Clone(s.Gateways)
	for i := range s.Routes {
		r := &s.Routes[i]
		r.Members, r.Services = slices.Clone(r.Members), maps.Clone(r.Services)
		for j := range r.Members {
			member(&r.Members[j].Member)
		}
		for _, key := range keysOf(r.Services) {
			snapshot := r.Services[key]
			snapshot.Members = slices.Clone(snapshot.Members)
			for j := range snapshot.Members {
				member(&snapshot.Members[j].Member)
				service(key, &snapshot.Members[j])
			}
			r.Services[key] = snapshot
		}
	}
	for i := range s.Gateways {
		s.Gateways[i].Members = slices.Clone(s.Gateways[i].Members)
		for j := range s.Gateways[i].Members {
			member(&s.Gateways[i].Members[j].Member)
		}
	}
	return s
}

// looked is the situation in which the lost clusters have been looked at as often as it takes, and the guard has had its say.
func (s Situation) looked() Situation {
	silent := func(cluster string) bool { return slices.Contains(s.lost, cluster) }
	services, doubts := map[ServiceKey]Doubt{}, map[string]Doubt{}
	for _, key := range keysOf(s.Probes) {
		for _, target := range s.Probes[key].Targets {
			one := Doubt{Probed: 1}
			if silent(target.Cluster) || s.suspects(key, target.Cluster) {
				one.Doubted = 1
			}
			services[key], doubts[target.Cluster] = services[key].Plus(one, 1), doubts[target.Cluster].Plus(one, 1)
		}
	}
	fleet := s.Guard.HoldsFleet(doubts)
	return s.changed(func(*Member) {}, func(key ServiceKey, m *ServiceMember) {
		plan := s.Probes[key]
		i := slices.IndexFunc(plan.Targets, func(t ProbeTarget) bool { return t.Cluster == m.Name })
		if i < 0 || !silent(m.Name) {
			return
		}
		signal := &ProbeSignal{Proven: !s.unproven(key), HubsWordIsEnough: plan.Probe.HubsWordIsEnough,
			Held: cmp.Or(fleet, s.Guard.HoldsService(services[key]))}
		signal.Hub = Streak{Sight: SeenIll, Said: "no answer", Silent: true}
		if slices.ContainsFunc(plan.Targets[i].Peers, func(r ProbeRequest) bool { return !silent(r.Member) }) {
			signal.Peer = Streak{Sight: SeenIll, Said: "through another cluster: no answer", Silent: true}
		}
		m.Probe = signal
	})
}

// suspects tells whether a service is out of a cluster on suspicion.
func (s Situation) suspects(key ServiceKey, cluster string) bool {
	return slices.ContainsFunc(s.Routes, func(r RouteSnapshot) bool { return r.Services[key].Suspects(cluster) })
}

// unproven tells whether a service's probe is known to have succeeded nowhere.
func (s Situation) unproven(key ServiceKey) bool {
	return slices.ContainsFunc(s.Routes, func(r RouteSnapshot) bool {
		_, refers := r.Services[key]
		probed := saidBefore(r, v1alpha1.RouteProbed)
		return refers && probed != nil && probed.Reason == v1alpha1.ReasonProbeMisconfigured
	})
}

// maxRounds bounds how often a route is planned until it rests: a cluster that returns takes a round a step.
const maxRounds = 1000

// settled plans a route until time alone changes nothing more: every hold has ended, every ramp is at its top, and each member
// holds what was planned for it.
func (s RouteSnapshot) settled() RoutePlan {
	s.Members = slices.Clone(s.Members)
	for i := range s.Members {
		s.Members[i].Observed = nil // no backend is new to anybody any more
	}
	plan := PlanRoute(s)
	for range maxRounds {
		rested := plan.WakeAfter == 0
		for i := range s.Members {
			if planned := plan.Members[s.Members[i].Name]; planned.Object != nil {
				rested = rested && SameWeights(s.Members[i].Last, planned.Rules)
				s.Members[i].Last = planned.Rules
			}
		}
		if rested {
			break
		}
		s.Now = s.Now.Add(max(plan.WakeAfter, time.Millisecond))
		plan = PlanRoute(s)
	}
	for _, m := range s.Members {
		if planned := plan.Members[m.Name]; planned.Refused.Type != "" {
			planned.Rules = m.Last // what the member holds stays
			plan.Members[m.Name] = planned
		}
	}
	return plan
}

// SameWeights tells whether two plans of a route give the same backends the same weights, whatever their reasons.
func SameWeights(a, b []v1alpha1.PlannedRule) bool {
	return slices.EqualFunc(a, b, func(a, b v1alpha1.PlannedRule) bool {
		return a.Name == b.Name && slices.EqualFunc(a.Backends, b.Backends, func(a, b v1alpha1.PlannedBackend) bool {
			return sameShare(a, b) && a.Weight == b.Weight
		})
	})
}

// sameShare tells whether two planned backends are the same one.
func sameShare(a, b v1alpha1.PlannedBackend) bool {
	return a.Import == b.Import && a.Port == b.Port && a.Cluster == b.Cluster
}

// Consequences are what would be different. As JSON they are what `isthmus plan -o json` prints; fields are added and never
// renamed.
type Consequences struct {
	// Splits that would change.
	Splits []SplitChange `json:"splits"`
	// Addresses of the hub's Gateways that clients would be sent to no more, or anew.
	Addresses []AddressChange `json:"addresses"`
	// Concerns are what would go wrong, or not be noticed.
	Concerns []Concern `json:"concerns"`
}

// SplitChange is a rule's split for the requests that enter some members.
type SplitChange struct {
	// Route is namespace/name, Rule its name or index.
	Route string `json:"route"`
	Rule  string `json:"rule"`
	// Entered are the members, sorted, in which it changes alike.
	Entered []string `json:"entered"`
	// Backends in the order in which they are written, those that take nothing before and after left out.
	Backends []BackendChange `json:"backends"`
}

// BackendChange is a weight before and after.
type BackendChange struct {
	Import  string `json:"import,omitempty"`
	Port    int32  `json:"port,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// From and To are weights: requests of the rule in ten thousand.
	From int32 `json:"from"`
	To   int32 `json:"to"`
	// LoadPercent is what it would carry of the requests to its import, rounded up; CapacityPercent what its policy says that it can.
	LoadPercent     int32  `json:"loadPercent"`
	CapacityPercent *int32 `json:"capacityPercent,omitempty"`
	// Reason for the weight after, one of v1alpha1.Weight…, and its words.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// AddressChange is an address of a hub Gateway that comes or goes.
type AddressChange struct {
	// Gateway is namespace/name.
	Gateway string `json:"gateway"`
	Address string `json:"address"`
	// Member whose gateway it is; empty where that is not known.
	Member string `json:"member,omitempty"`
	// Change is "leaves" or "joins".
	Change string `json:"change"`
}

// Concern is something that would go wrong, or that nobody would notice.
type Concern struct {
	// Reason is one of v1alpha1's: NoFitCluster, DrainBlocked, CapacityExceeded, BackendNotFound, ProbeMissing, GuardHolds,
	// NoPeerToAsk, ProbeMisconfigured, ClientsEnter, NotAccepted, OnHold, Frozen, or a RoutePlan's reason for not being written.
	Reason string `json:"reason"`
	// Kind is HTTPRoute or Gateway, Name namespace/name.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Where in it: "<import> in <cluster>", "<import>", or "<member>"; empty where it is about the whole.
	Where   string `json:"where,omitempty"`
	Message string `json:"message"`
}

const kindRoute = "HTTPRoute"

// Of are those of the consequences that concern a namespace, or one route of it; empty strings leave nothing out.
func (c Consequences) Of(namespace, route string) Consequences {
	out := func(name string) bool {
		key := ParseServiceKey(name)
		return namespace != "" && key.Namespace != namespace || route != "" && key.Name != route
	}
	c.Splits = slices.DeleteFunc(slices.Clone(c.Splits), func(s SplitChange) bool { return out(s.Route) })
	c.Concerns = slices.DeleteFunc(slices.Clone(c.Concerns), func(c Concern) bool { return out(c.Name) || route != "" && c.Kind != kindRoute })
	c.Addresses = slices.DeleteFunc(slices.Clone(c.Addresses), func(a AddressChange) bool { return out(a.Gateway) || route != "" })
	return c
}

// Any tells whether anything would be different.
func (c Consequences) Any() bool { return len(c.Splits)+len(c.Addresses)+len(c.Concerns) > 0 }

// WhatIf compares two situations once both have settled. It is the very planning of routes and Gateways, twice.
func WhatIf(is, would Situation) Consequences {
	c := Consequences{Splits: []SplitChange{}, Addresses: []AddressChange{}, Concerns: []Concern{}}
	is, would = is.looked(), would.looked()
	before, known := map[string]RoutePlan{}, []Concern{}
	for _, r := range is.Routes {
		plan := r.settled()
		before[routeName(r)], known = plan, append(known, is.concernsOf(r, plan)...)
	}
	for _, r := range would.Routes {
		after := r.settled()
		c.Splits = append(c.Splits, would.splitChanges(r, before[routeName(r)], after)...)
		c.Concerns = append(c.Concerns, would.concernsOf(r, after)...)
	}
	c.Addresses = append(c.Addresses, addressChanges(is.withSuspects(), would.withSuspects())...)
	c.Concerns = append(c.Concerns, would.entryConcerns()...)
	c.Concerns = slices.DeleteFunc(c.Concerns, func(concern Concern) bool { return slices.Contains(known, concern) })
	slices.SortFunc(c.Concerns, func(a, b Concern) int {
		return slices.Compare([]string{a.Kind, a.Name, a.Where, a.Reason, a.Message}, []string{b.Kind, b.Name, b.Where, b.Reason, b.Message})
	})
	c.Concerns = slices.Compact(c.Concerns)
	return c
}

// Underway are the routes, namespace/name, that are still on their way to where they will come to rest by themselves.
func (s Situation) Underway() []string {
	var out []string
	for _, r := range s.Routes {
		plan := r.settled()
		if slices.ContainsFunc(r.Members, func(m RouteMember) bool {
			takes := func(rules []v1alpha1.PlannedRule) (out []v1alpha1.PlannedRule) {
				for _, rule := range rules {
					out = append(out, takers(rule))
				}
				return out
			}
			return len(m.Last) > 0 && !SameWeights(takes(m.Last), takes(plan.Members[m.Name].Rules))
		}) {
			out = append(out, routeName(r))
		}
	}
	slices.Sort(out)
	return out
}

func routeName(r RouteSnapshot) string { return r.Route.Namespace + "/" + r.Route.Name }

// splitChanges are the rules of a route that change, for members through which requests still enter.
func (s Situation) splitChanges(r RouteSnapshot, was, after RoutePlan) []SplitChange {
	var out []SplitChange
	for _, m := range sortedBy(r.Members, func(m RouteMember) string { return m.Name }) {
		if slices.Contains(s.lost, m.Name) {
			continue
		}
		for _, rule := range rulesOfBoth(was.Members[m.Name].Rules, after.Members[m.Name].Rules) {
			from, to := lastRule(was.Members[m.Name].Rules, rule), lastRule(after.Members[m.Name].Rules, rule)
			if SameWeights([]v1alpha1.PlannedRule{takers(from)}, []v1alpha1.PlannedRule{takers(to)}) {
				continue
			}
			change := SplitChange{Route: routeName(r), Rule: rule, Entered: []string{m.Name}, Backends: r.backendChanges(from, to)}
			alike := slices.IndexFunc(out, func(o SplitChange) bool {
				return o.Rule == rule && slices.EqualFunc(o.Backends, change.Backends, BackendChange.equal)
			})
			if alike >= 0 {
				out[alike].Entered = append(out[alike].Entered, m.Name)
			} else {
				out = append(out, change)
			}
		}
	}
	return out
}

// rulesOfBoth are the names of the rules of two plans, each once.
func rulesOfBoth(a, b []v1alpha1.PlannedRule) []string {
	var names []string
	for _, rule := range slices.Concat(a, b) {
		if !slices.Contains(names, rule.Name) {
			names = append(names, rule.Name)
		}
	}
	return names
}

// takers is a rule with those of its backends that take anything, sorted.
func takers(rule v1alpha1.PlannedRule) v1alpha1.PlannedRule {
	rule.Backends = slices.DeleteFunc(slices.Clone(rule.Backends), func(b v1alpha1.PlannedBackend) bool { return b.Weight == 0 })
	slices.SortStableFunc(rule.Backends, func(a, b v1alpha1.PlannedBackend) int {
		return cmp.Or(strings.Compare(a.Import, b.Import), cmp.Compare(a.Port, b.Port), strings.Compare(a.Cluster, b.Cluster))
	})
	return rule
}

func (s RouteSnapshot) backendChanges(from, to v1alpha1.PlannedRule) []BackendChange {
	var out []BackendChange
	left := slices.Clone(from.Backends)
	for _, b := range to.Backends {
		change := BackendChange{Import: b.Import, Port: b.Port, Cluster: b.Cluster, To: b.Weight, Reason: b.Reason, Message: b.Message,
			LoadPercent: loadOf(b, to), CapacityPercent: s.capacityOf(to.Name, b)}
		if i := slices.IndexFunc(left, func(was v1alpha1.PlannedBackend) bool { return sameShare(was, b) }); i >= 0 {
			change.From = left[i].Weight
			left = slices.Delete(left, i, i+1)
		}
		out = append(out, change)
	}
	for _, was := range left {
		out = append(out, BackendChange{Import: was.Import, Port: was.Port, Cluster: was.Cluster, From: was.Weight,
			Reason: v1alpha1.WeightWithdrawing, Message: "no longer named"})
	}
	return slices.DeleteFunc(out, func(b BackendChange) bool { return b.From == 0 && b.To == 0 })
}

func (b BackendChange) equal(o BackendChange) bool {
	sameCapacity := deref(b.CapacityPercent) == deref(o.CapacityPercent)
	b.CapacityPercent, o.CapacityPercent = nil, nil
	return sameCapacity && b == o
}

// loadOf is the percentage of the requests to an import that one of its clusters carries.
func loadOf(b v1alpha1.PlannedBackend, rule v1alpha1.PlannedRule) int32 {
	sum := int32(0)
	for _, other := range rule.Backends {
		if other.Import == b.Import && other.Port == b.Port {
			sum += other.Weight
		}
	}
	if sum == 0 {
		return 0
	}
	return (b.Weight*100 + sum - 1) / sum
}

// capacityOf is what the policy in force says that a cluster can carry of the requests to an import; nil where it does not.
func (s RouteSnapshot) capacityOf(ruleName string, b v1alpha1.PlannedBackend) *int32 {
	planner := routePlanner{RouteSnapshot: s}
	for i, rule := range s.Route.Spec.Rules {
		if RuleName(rule, i) != ruleName || b.Import == "" {
			continue
		}
		d := EffectivePolicy(planner.policyPath(rule, ParseServiceKey(b.Import)), s.Policies).Distribution
		weights := slices.Clone(d.Weights)
		for _, t := range d.Tiers {
			weights = append(weights, t.Clusters...)
		}
		for _, w := range weights {
			if w.Cluster == b.Cluster {
				return w.Capacity
			}
		}
	}
	return nil
}

// concernsOf a plan: who is not saved, and why.
func (s Situation) concernsOf(r RouteSnapshot, plan RoutePlan) []Concern {
	var out []Concern
	if why := r.unattached(); why != "" {
		out = append(out, Concern{v1alpha1.ReasonNotAccepted, kindRoute, routeName(r), "", why})
	}
	for _, m := range r.Members {
		planned := plan.Members[m.Name]
		if planned.Refused.Type != "" && planned.Refused.Reason != v1alpha1.ReasonSyncing {
			out = append(out, Concern{planned.Refused.Reason, kindRoute, routeName(r), m.Name, planned.Refused.Message})
		}
		if slices.Contains(s.lost, m.Name) {
			continue
		}
		for _, rule := range planned.Rules {
			for _, b := range rule.Backends {
				if reason, message := s.concern(r, b); reason != "" {
					out = append(out, Concern{reason, kindRoute, routeName(r), strings.TrimSuffix(b.Import+" in "+b.Cluster, " in "), message})
				}
			}
		}
	}
	return out
}

// unattached is why no Gateway takes a route; empty where one does.
func (s RouteSnapshot) unattached() string {
	why := "none of its parentRefs leads to a Gateway of Isthmus's: correct them, or create it"
	for _, p := range s.Parents {
		if p.IsAccepted() {
			return ""
		}
		why = p.Accepted.Message
	}
	return why
}

// concern about one share; empty where there is none.
func (s Situation) concern(r RouteSnapshot, b v1alpha1.PlannedBackend) (reason, message string) {
	switch {
	case b.Weight == 0:
		return "", ""
	case b.Reason == v1alpha1.WeightHeld:
		return v1alpha1.ReasonNoFitCluster, "no cluster is left that could serve it, so the last good split stays, and what is sent here fails"
	case b.Reason == v1alpha1.WeightDrainBlocked:
		return v1alpha1.ReasonDrainBlocked, b.Message
	case b.Reason == v1alpha1.WeightOver:
		return v1alpha1.ReasonCapacityExceeded, b.Message
	case b.Reason == v1alpha1.ReasonImportNotFound:
		return v1alpha1.ReasonImportNotFound, b.Message
	case (b.Reason == v1alpha1.WeightOnHold || b.Reason == v1alpha1.WeightFrozen) && Verdict(b.Verdict).out():
		return b.Reason, b.Message
	case slices.Contains(s.lost, b.Cluster):
		return s.unnoticed(r, b)
	}
	return "", ""
}

// unnoticed is why a lost cluster keeps its share.
func (s Situation) unnoticed(r RouteSnapshot, b v1alpha1.PlannedBackend) (reason, message string) {
	const meanwhile = "; its share stays, and each proxy leaves it by itself, request by request"
	key := ParseServiceKey(b.Import)
	m, _ := r.Services[key].member(b.Cluster)
	switch finding := m.Finding(); {
	case m.Probe == nil:
		return v1alpha1.ReasonProbeMissing, "nothing probes it, and losing an API server alone moves no traffic" + meanwhile +
			"; give its policy a health.probe, or drain the cluster"
	case !m.Probe.Proven:
		return v1alpha1.ReasonProbeMisconfigured, "its probe has never succeeded anywhere, and so decides nothing" + meanwhile
	case finding.Reason == reasonGuardHolds:
		return v1alpha1.ReasonGuardHolds, m.Probe.Held + meanwhile
	case finding.Reason == reasonNoPeerToAsk:
		return v1alpha1.ReasonNoPeerToAsk, "no other cluster can be asked about it" + meanwhile + "; where the hub is to decide alone, set hubsWordIsEnough"
	default:
		return b.Reason, finding.Message + meanwhile
	}
}

// withSuspects is the situation in which the Gateways know who is suspected as an entry: who all that is probed there over
// the Gateway is suspected in.
func (s Situation) withSuspects() Situation {
	s = s.changed(func(*Member) {}, func(ServiceKey, *ServiceMember) {})
	for i := range s.Gateways {
		g := &s.Gateways[i]
		for j := range g.Members {
			probed, fit := 0, 0
			for _, key := range keysOf(s.Probes) {
				plan := s.Probes[key]
				here := slices.ContainsFunc(plan.Targets, func(t ProbeTarget) bool { return t.Cluster == g.Members[j].Name })
				if plan.Gateway != (NamespacedName{g.Gateway.Namespace, g.Gateway.Name}) || !here {
					continue
				}
				if probed++; !s.suspects(key, g.Members[j].Name) {
					fit++
				}
			}
			g.Members[j].Suspected = probed > 0 && fit == 0
		}
	}
	return s
}

func addressChanges(is, would Situation) []AddressChange {
	var out []AddressChange
	before := map[string][]string{}
	for _, g := range is.Gateways {
		before[gatewayName(g)] = addressValues(g)
	}
	for _, g := range would.Gateways {
		name, after := gatewayName(g), addressValues(g)
		for _, a := range slices.Concat(before[name], after) {
			change := AddressChange{Gateway: name, Address: a, Member: g.memberOf(a), Change: "leaves"}
			if slices.Contains(after, a) {
				change.Change = "joins"
			}
			if slices.Contains(before[name], a) != slices.Contains(after, a) {
				out = append(out, change)
			}
		}
	}
	return out
}

func gatewayName(g GatewaySnapshot) string { return g.Gateway.Namespace + "/" + g.Gateway.Name }

func addressValues(g GatewaySnapshot) []string {
	var out []string
	for _, a := range PlanGateway(g).Status.Addresses {
		out = append(out, a.Value)
	}
	return out
}

// memberOf is the member whose gateway has an address; empty where none is known to.
func (s GatewaySnapshot) memberOf(address string) string {
	for _, m := range s.Members {
		if m.Observed == nil {
			continue
		}
		for _, a := range m.Observed.Status.Addresses {
			if a.Value == address {
				return m.Name
			}
		}
	}
	return ""
}

// entryConcerns are the addresses of lost clusters that clients are still sent to.
func (s Situation) entryConcerns() []Concern {
	var out []Concern
	for _, g := range s.withSuspects().Gateways {
		for _, a := range addressValues(g) {
			if member := g.memberOf(a); slices.Contains(s.lost, member) {
				out = append(out, Concern{v1alpha1.ReasonClientsEnter, "Gateway", gatewayName(g), member, fmt.Sprintf(
					"its status goes on to name %s, the address of %s: clients that go there are not served until it leaves", a, member)})
			}
		}
	}
	return out
}
