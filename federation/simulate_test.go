// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// simulation is a clusterset over time as the core sees it: what members hold, what RoutePlans say, and what the hub's
// process remembers. Nothing in it waits; time is a number.
type simulation struct {
	route    *gatewayv1.HTTPRoute
	policy   *v1alpha1.TrafficDistributionPolicy
	now      time.Time
	members  []simulated
	words    []*v1alpha1.TrafficOverride
	told     []string
	plan     RoutePlan
	returned map[string][]time.Time
	// spills are the clusters to which proxies may go by themselves, and rewritten counts how often that changed.
	spills    []string
	rewritten int
	// probed is whether the service is, believed whether the hub's word is enough, proven whether a look has succeeded in this
	// process, and blind whether the hub sees nobody.
	probed, believed, proven, blind bool
	// brief leaves out of each step what random schedules check as well.
	brief bool
	// undamped is whether something happened since that lets clusters return without their hold.
	undamped bool
}

// simulated is one member.
type simulated struct {
	name            string
	ready, wanted   int
	exported        bool
	reachable, read bool
	// applies and confirms are whether its API server takes writes, and its controller looks at them.
	applies, confirms bool
	observed          *gatewayv1.HTTPRoute
	last              []v1alpha1.PlannedRule
	endpoints         Endpoints
	// sick answers with errors, cut cannot be seen by the hub itself, and mute says nothing to either.
	sick, cut, mute bool
	seen            ProbeState
}

// look is one look at each cluster that exports the service, and at those that fail one through another cluster.
func (s *simulation) look() {
	for i := range s.members {
		m := &s.members[i]
		if !s.probed || !m.exported {
			m.seen = ProbeState{}
			continue
		}
		hub, peer := Look{LookOK, "200"}, Look{LookOK, "through another: 200"}
		switch {
		case s.blind:
			hub, peer = Look{LookSilent, "timeout"}, Look{Result: LookVoid}
		case m.mute:
			hub, peer = Look{Result: LookVoid}, Look{Result: LookVoid}
		case m.sick:
			hub, peer = Look{LookFailed, "503"}, Look{LookFailed, "through another: 503"}
		case m.cut:
			hub = Look{LookSilent, "timeout"}
		}
		if hub.Result != LookOK || m.seen.Hub.Sight == SeenIll {
			m.seen = m.seen.StepPeer(peer, 1, 2)
		}
		m.seen = m.seen.StepHub(hub, 1, 2)
		s.proven = s.proven || hub.Result == LookOK || peer.Result == LookOK
	}
}

// signals are what the probes say of each cluster, as the hub's prober does; decided is what was decided before.
func (s *simulation) signals(decided Decided) []*ProbeSignal {
	out := make([]*ProbeSignal, len(s.members))
	if !s.probed {
		return out
	}
	doubt, services := Doubt{}, map[string]Doubt{}
	for i := range s.members {
		m := &s.members[i]
		m.seen.Out = m.seen.Out || m.seen.Hub.Sight == SeenNothing && decided.Of(sampleKey, m.name).Verdict == Suspected
		if !m.exported {
			continue
		}
		one := Doubt{Probed: 1}
		if m.seen.Doubted() {
			one.Doubted = 1
		}
		doubt, services[m.name] = doubt.Plus(one, 1), one
	}
	held := cmp.Or(s.guard().HoldsService(doubt), s.guard().HoldsFleet(services))
	for i, m := range s.members {
		out[i] = &ProbeSignal{ProbeState: m.seen, Proven: s.proven, HubsWordIsEnough: s.believed, Held: held}
	}
	return out
}

func (s *simulation) guard() Guard { return Guard{MaxSuspected: DefaultMaxSuspected} }

func newSimulation(d v1alpha1.Distribution, failback v1alpha1.Failback, clusters int) *simulation {
	group, kind := gatewayv1.Group("multicluster.x-k8s.io"), gatewayv1.Kind("ServiceImport")
	rule := gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
		BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: "helloworld", Port: new(int32(80))}}}}}
	s := &simulation{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), returned: map[string][]time.Time{},
		route: &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "r"},
			Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{rule}}},
		policy: policyOn("p", "default", "HTTPRoute r")}
	s.policy.Spec.Defaults = &v1alpha1.TrafficDistribution{Distribution: d, Failback: &failback}
	for i := range clusters {
		s.members = append(s.members, simulated{name: fmt.Sprintf("c%d", i), ready: 10, wanted: 10, exported: true,
			reachable: true, read: true, applies: true, confirms: true})
	}
	return s
}

// snapshot is what the hub gathers.
func (s *simulation) snapshot() RouteSnapshot {
	service := s.service()
	out := RouteSnapshot{Route: s.route, Now: s.now, Policies: []*v1alpha1.TrafficDistributionPolicy{s.policy},
		Overrides: service.Overrides, Services: map[ServiceKey]ServiceSnapshot{sampleKey: service},
		Parents: []Parent{{Ref: gatewayv1.ParentReference{Name: "g"}, Listeners: []gatewayv1.SectionName{"web"},
			Gateway: &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"}}}}}
	var hosts []string
	for _, m := range s.members {
		hosts = append(hosts, RemoteHost(sampleKey, m.name))
	}
	for i, m := range s.members {
		rm := RouteMember{Member: service.Members[i].Member, Last: m.last, HasNamespace: m.read}
		if m.read {
			rm.Observed, rm.Hosts = m.observed, hosts
		}
		out.Members = append(out.Members, rm)
	}
	return out
}

// service is what the hub gathers of the service.
func (s *simulation) service() ServiceSnapshot {
	out := ServiceSnapshot{Key: sampleKey, Overrides: OverridesInForce(s.words, s.now), Gateways: []NamespacedName{{"sample", "g"}},
		Remembered: &RememberedImport{Spec: (&ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{exporter("any", 1)}}).Import().Spec}}
	decided := Decided{}
	for _, m := range s.members {
		decided.Add(m.last)
		if m.exported {
			out.Remembered.Clusters = append(out.Remembered.Clusters, m.name)
		}
	}
	signals := s.signals(decided)
	for i, m := range s.members {
		sm := exporter(m.name, m.ready)
		sm.Reachable, sm.Synced, sm.Exported = m.reachable, m.read, m.exported
		if !m.read {
			sm = ServiceMember{Member: sm.Member}
		}
		was := decided.Of(sampleKey, m.name)
		sm.Probe = signals[i]
		sm.Before, sm.LeftOut, sm.Endpoints = was.Verdict, was.Out, m.endpoints
		out.Members = append(out.Members, sm)
	}
	return out
}

// step counts the endpoints, plans, checks, and lets the members take it over as far as they do.
func (s *simulation) step(t require.TestingT) {
	for i := range s.members {
		if m := &s.members[i]; m.read {
			m.endpoints = m.endpoints.Step(m.ready, m.wanted)
		}
	}
	snapshot := s.snapshot()
	plan := PlanRoute(snapshot)
	if !s.brief {
		require.Equal(t, asJSON(t, plan), asJSON(t, PlanRoute(snapshot)), "the same snapshot gives the same plan")
	}
	checkPlan(t, world{snapshot}, plan)
	s.checkAnswered(t, snapshot, plan)
	s.checkRemovals(t, plan)
	s.checkOverrides(t, snapshot, plan)
	s.checkSuspicion(t, snapshot.Services[sampleKey])
	s.checkIntent(t, snapshot, plan)
	s.noteReturns(plan)
	for i := range s.members {
		s.members[i].takeOver(plan.Members[s.members[i].name])
	}
	s.plan = plan
	s.checkFallbacks(t)
}

// checkSuspicion: of those that are newly suspected, no more than the share is out, and never the last.
func (s *simulation) checkSuspicion(t require.TestingT, service ServiceSnapshot) {
	exports, out, taken := 0, 0, false
	for _, m := range service.Members {
		f := m.Finding()
		if service.Remembered == nil || !slices.Contains(service.Remembered.Clusters, m.Name) {
			continue
		}
		exports++
		if f.Verdict == Suspected || f.Verdict == Unknown && m.Before == Suspected {
			out++
			taken = taken || f.Verdict == Suspected && m.Before != Suspected
		}
	}
	if taken {
		require.LessOrEqual(t, out, s.guard().allowed(exports), "more are taken out on suspicion than may be: %v", s.told)
	}
}

// checkIntent: where nothing is wrong and nobody has spoken, weights are as the policy says, to one part in ten thousand.
func (s *simulation) checkIntent(t require.TestingT, snapshot RouteSnapshot, plan RoutePlan) {
	d, sum := s.policy.Spec.Defaults.Distribution, int64(0)
	for _, w := range d.Weights {
		sum += int64(w.Weight)
	}
	if d.Type != v1alpha1.DistributionWeighted || sum == 0 || len(snapshot.Overrides) > 0 || slices.ContainsFunc(d.Weights,
		func(w v1alpha1.ClusterWeight) bool { return w.Capacity != nil }) {
		return
	}
	for _, m := range s.members {
		rules := plan.Members[m.name].Rules
		if len(rules) == 0 || !s.steady() || slices.ContainsFunc(rules[0].Backends, func(b v1alpha1.PlannedBackend) bool {
			return HealthOf(b) != wholePart || Verdict(b.Verdict) != Fit || b.Reason == v1alpha1.WeightResolving || b.Reason == v1alpha1.ReasonImportNotFound
		}) {
			continue
		}
		have := weightsOf(rules)
		for _, w := range d.Weights {
			require.InDelta(t, float64(TotalWeight)*float64(w.Weight)/float64(sum), have[w.Cluster], 1, "%s in %s: %v", w.Cluster, m.name, s.told)
		}
	}
}

// checkFallbacks: proxies go by themselves only where the hub sends something too, or would if a tier before did not serve, and
// to nobody that is drained. All lists are of one set of clusters.
func (s *simulation) checkFallbacks(t require.TestingT) {
	service, spills := s.service(), []string{}
	imp := service.Import()
	if imp == nil {
		return
	}
	for _, m := range service.fallbacks(ServiceMember{}, imp) {
		spills = append(spills, m.Name)
	}
	for _, cluster := range spills {
		require.Nil(t, service.Overrides.drain(cluster, sampleKey), "%s is drained, and proxies may go there: %v", cluster, s.told)
		for _, m := range s.members {
			b := lastBackend(lastRule(m.last, "0"), sampleKey, 80, cluster)
			require.False(t, ActedOn(b).out() || HealthOf(b).Phase != "" && HealthOf(b).Percent == 0,
				"%s waits in %s (%s), and proxies may go there: %v", cluster, m.name, b.Message, s.told)
		}
	}
	if !slices.Equal(spills, s.spills) {
		s.spills, s.rewritten = spills, s.rewritten+1
	}
}

func (m *simulated) takeOver(planned MemberRoute) {
	if planned.Object == nil {
		return
	}
	m.last = planned.Rules
	if !m.applies || !m.reachable {
		return
	}
	if m.observed == nil || !sameSplit(m.observed, planned.Object) {
		generation := int64(1)
		if m.observed != nil {
			generation = m.observed.Generation + 1
		}
		status := gatewayv1.HTTPRouteStatus{}
		if m.observed != nil {
			status = m.observed.Status
		}
		m.observed = planned.Object.DeepCopy()
		m.observed.Generation, m.observed.Status = generation, status
	}
	if m.confirms {
		m.observed = m.observed.DeepCopy()
		m.observed.Status.Parents = []gatewayv1.RouteParentStatus{{Conditions: []metav1.Condition{
			{Type: string(gatewayv1.RouteConditionAccepted), Status: metav1.ConditionTrue, ObservedGeneration: m.observed.Generation}}}}
	}
}

// checkAnswered: nobody is answered an error while any cluster exports the service.
func (s *simulation) checkAnswered(t require.TestingT, snapshot RouteSnapshot, plan RoutePlan) {
	imp := snapshot.Services[sampleKey].Import()
	for _, m := range s.members {
		for _, rule := range plan.Members[m.name].Rules {
			for _, b := range rule.Backends {
				require.False(t, imp != nil && b.Reason == v1alpha1.ReasonImportNotFound && b.Weight > 0 && len(imp.Clusters) == len(s.members),
					"%s answers an error: %s: %v", m.name, b.Message, s.told)
			}
		}
	}
}

// checkRemovals: whatever is removed was first at weight 0 and seen so.
func (s *simulation) checkRemovals(t require.TestingT, plan RoutePlan) {
	for _, m := range s.members {
		planned := plan.Members[m.name].Object
		if planned == nil || m.observed == nil || !m.read {
			continue
		}
		for _, b := range m.observed.Spec.Rules[0].BackendRefs {
			if _, stays := observedWeight(planned, b.BackendObjectReference); !stays && b.Name != unresolvedHost(sampleKey) {
				require.Zero(t, backendWeight(b), "%s is removed from %s with weight: %v", b.Name, m.name, s.told)
				require.True(t, processed(m.observed), "%s is removed from %s before it was seen at 0: %v", b.Name, m.name, s.told)
			}
		}
	}
}

// checkOverrides: a person's word beats every automatic decision.
func (s *simulation) checkOverrides(t require.TestingT, snapshot RouteSnapshot, plan RoutePlan) {
	if snapshot.Overrides.hold(ServiceKey{"sample", "r"}) == nil {
		return
	}
	for _, m := range s.members {
		if planned := plan.Members[m.name]; planned.Object != nil && len(m.last) > 0 && s.steady() {
			require.Equal(t, weightsOf(m.last), weightsOf(planned.Rules), "held in %s: %v", m.name, s.told)
		}
	}
}

// steady tells whether every cluster exports the service, so that nothing comes or goes.
func (s *simulation) steady() bool {
	return !slices.ContainsFunc(s.members, func(m simulated) bool { return !m.exported })
}

func weightsOf(rules []v1alpha1.PlannedRule) map[string]int32 {
	out := map[string]int32{}
	for _, rule := range rules {
		for _, b := range rule.Backends {
			if b.Weight > 0 {
				out[b.Cluster] += b.Weight
			}
		}
	}
	return out
}

// noteReturns notes when clusters return by themselves.
func (s *simulation) noteReturns(plan RoutePlan) {
	for _, m := range s.members {
		for _, rule := range plan.Members[m.name].Rules {
			for _, b := range rule.Backends {
				was := HealthOf(lastBackend(lastRule(m.last, rule.Name), sampleKey, 80, b.Cluster))
				if HealthOf(b).Returns > was.Returns {
					key := m.name + " " + b.Cluster
					s.returned[key] = append(s.returned[key], s.now)
				}
			}
		}
	}
}

// checkFlapping: in any time T a cluster returns at most (1 + T/maxHold)(1 + ceil(log2(maxHold/hold))) times.
func (s *simulation) checkFlapping(t require.TestingT) {
	r := RecoveryOf(v1alpha1.Health{}, *s.policy.Spec.Defaults.Failback)
	if r.hold == 0 {
		return
	}
	each := 1 + math.Ceil(math.Log2(float64(r.maxHold)/float64(r.hold)))
	for _, key := range slices.Sorted(maps.Keys(s.returned)) {
		times := s.returned[key]
		for i := range times {
			for j := i; j < len(times); j++ {
				bound := (1 + math.Floor(float64(times[j].Sub(times[i]))/float64(r.maxHold))) * each
				require.LessOrEqual(t, float64(j-i+1), bound, "%s returned too often: %v", key, times)
			}
		}
	}
}

// clone is the simulation with nothing shared that a step changes.
func (s *simulation) clone() *simulation {
	next := *s
	next.members, next.words, next.told = slices.Clone(s.members), slices.Clone(s.words), slices.Clone(s.told)
	next.returned = map[string][]time.Time{}
	for key, times := range s.returned {
		next.returned[key] = slices.Clone(times)
	}
	return &next
}

// restart is the simulation in a new process of the hub, which has only what RoutePlans say.
func (s *simulation) restart(t require.TestingT) {
	seeds := map[string]Endpoints{}
	for i := range s.members {
		m := &s.members[i]
		text, err := json.Marshal(m.last)
		require.NoError(t, err)
		m.last = nil
		require.NoError(t, json.Unmarshal(text, &m.last))
		for _, rule := range m.last {
			for _, b := range rule.Backends {
				if e := EndpointsOf(b); e.Seen {
					seeds[b.Cluster] = e
				}
			}
		}
	}
	for i := range s.members {
		s.members[i].endpoints, s.members[i].seen = seeds[s.members[i].name], ProbeState{}
	}
	s.proven = false
}

// checkStandstill: a restart, and the loss of API servers for however long, move nothing.
func (s *simulation) checkStandstill(t require.TestingT) {
	still := s.clone()
	for i := range still.members {
		still.members[i].confirms, still.members[i].applies = true, true
	}
	for range 3 {
		still.step(t)
	}
	restarted := still.clone()
	restarted.restart(t)
	before := still.plan
	restarted.step(t)
	if !still.returnsUnseen() {
		require.Equal(t, asJSON(t, objectsOf(before)), asJSON(t, objectsOf(restarted.plan)), "a restart moved something: %v", s.told)
	}
	if !s.probed {
		// What is said of a cluster that was suspected changes: it has to be looked at again.
		require.Equal(t, asJSON(t, before), asJSON(t, restarted.plan), "a restart changed something: %v", s.told)
	}
	still.checkBlindness(t)

	for i := range still.members {
		still.members[i].reachable = false
	}
	still.step(t)
	require.Equal(t, asJSON(t, objectsOf(before)), asJSON(t, objectsOf(still.plan)), "losing the API servers moved something: %v", s.told)
	if len(still.words) == 0 {
		still.now = still.now.Add(time.Hour)
		still.step(t)
		require.Equal(t, asJSON(t, objectsOf(before)), asJSON(t, objectsOf(still.plan)), "losing them for an hour did: %v", s.told)
	}
}

// returnsUnseen tells whether a return stands still only because probes contradict what the endpoints say. A new process has no
// probes that ever succeeded, so it goes by the endpoints, and on with the return.
func (s *simulation) returnsUnseen() bool {
	return slices.ContainsFunc(s.members, func(m simulated) bool {
		return slices.ContainsFunc(lastRule(m.last, "0").Backends, func(b v1alpha1.PlannedBackend) bool {
			phase := HealthOf(b).Phase
			return Verdict(b.Verdict) == Unknown && slices.Contains(
				[]v1alpha1.HealthPhase{v1alpha1.HealthReturning, v1alpha1.HealthHolding, v1alpha1.HealthDrained}, phase)
		})
	})
}

// checkBlindness: a hub that sees nobody any more moves nothing, and says so once.
func (s *simulation) checkBlindness(t require.TestingT) {
	blind := s.clone()
	blind.blind = true
	for range 3 {
		blind.look()
		blind.step(t)
		require.Equal(t, asJSON(t, objectsOf(s.plan)), asJSON(t, objectsOf(blind.plan)), "the hub was blind, and moved something: %v", s.told)
	}
	before := blind.plan
	for range 3 {
		blind.look()
		blind.step(t)
		require.Equal(t, asJSON(t, before), asJSON(t, blind.plan), "what is said changes with each look: %v", s.told)
	}
}

// checkWake: a plan stays as it is until it says that it changes, and then it does.
func (s *simulation) checkWake(t require.TestingT) {
	if slices.ContainsFunc(s.words, func(o *v1alpha1.TrafficOverride) bool { return o.Spec.Expires != nil }) {
		return
	}
	then := s.clone()
	then.step(t)
	then.step(t)
	before, after := then.plan, then.plan.WakeAfter
	if after == 0 {
		after = 48 * time.Hour
		then.now = then.now.Add(after)
	} else {
		then.now = then.now.Add(after - time.Millisecond)
	}
	then.step(t)
	require.Equal(t, asJSON(t, before.Members), asJSON(t, then.plan.Members), "it changed before it was to be looked at again: %v", s.told)
	if before.WakeAfter > 0 {
		then.now = then.now.Add(time.Millisecond)
		then.step(t)
		require.NotEqual(t, asJSON(t, before.Members), asJSON(t, then.plan.Members), "it was woken for nothing: %v", s.told)
	}
}

// happens is something that may happen, by its name.
type happens struct {
	name string
	do   func(t require.TestingT, s *simulation)
}

func passes(d time.Duration) happens {
	return happens{"after " + d.String(), func(_ require.TestingT, s *simulation) { s.now = s.now.Add(d) }}
}

func endpointsBecome(i, ready, wanted int) happens {
	return happens{fmt.Sprintf("c%d has %d of %d ready", i, ready, wanted), func(_ require.TestingT, s *simulation) {
		s.members[i].ready, s.members[i].wanted = ready, wanted
	}}
}

func toggles(name string, i int, what func(*simulated) *bool) happens {
	return happens{fmt.Sprintf("c%d: %s", i, name), func(_ require.TestingT, s *simulation) {
		flag := what(&s.members[i])
		*flag = !*flag
	}}
}

// restarts is a restart of the hub, which has yet to read some members.
func restarts(unread ...int) happens {
	return happens{fmt.Sprintf("a restart that has not read %v", unread), func(t require.TestingT, s *simulation) {
		s.restart(t)
		for _, i := range unread {
			s.members[i].read = false
		}
	}}
}

// looked is what happens, and how the prober comes to see it.
func looked(h happens) happens {
	return happens{h.name + ", and is looked at", func(t require.TestingT, s *simulation) {
		h.do(t, s)
		for range 3 {
			s.look()
			s.step(t)
		}
	}}
}

func sickens(i int) happens {
	return toggles("answers with errors or not", i, func(m *simulated) *bool { return &m.sick })
}

var nothing = happens{"nothing", func(require.TestingT, *simulation) {}}

var blinds = happens{"the hub sees nobody, or everybody again", func(_ require.TestingT, s *simulation) { s.blind = !s.blind }}

var reads = happens{"every member is read", func(_ require.TestingT, s *simulation) {
	for i := range s.members {
		s.members[i].read = true
	}
}}

// says begins an override of a type on a cluster, or ends it where it is in force.
func says(kind v1alpha1.OverrideType, i int) happens {
	name := fmt.Sprintf("%s-c%d", kind, i)
	return happens{name, func(_ require.TestingT, s *simulation) {
		s.undamped = s.undamped || kind == v1alpha1.OverrideFailback
		if at := slices.IndexFunc(s.words, func(o *v1alpha1.TrafficOverride) bool { return o.Name == name }); at >= 0 {
			s.words = slices.Delete(s.words, at, at+1)
			return
		}
		o := override(name, kind)
		o.CreationTimestamp = metav1.NewTime(s.now)
		switch kind {
		case v1alpha1.OverrideDrain, v1alpha1.OverrideFailback:
			o.Spec.Cluster = fmt.Sprintf("c%d", i)
		case v1alpha1.OverrideHold:
			o.Spec.Routes = thisRoute
		case v1alpha1.OverridePin:
			o.Spec.Routes, o.Spec.Weights = thisRoute, []v1alpha1.ClusterWeight{{Cluster: fmt.Sprintf("c%d", i), Weight: 1}}
		case v1alpha1.OverrideFreeze:
		}
		s.words = append(s.words, o)
	}}
}

// drawHappening draws what happens next; what is the more usual is drawn the more often.
func drawHappening(t *rapid.T, s *simulation) happens {
	i := rapid.IntRange(0, len(s.members)-1).Draw(t, "cluster")
	switch rapid.SampledFrom([]string{"time", "time", "time", "wake", "endpoints", "endpoints", "flap", "api", "read", "restart", "apply", "confirm",
		"export", "word", "clock", "look", "look", "sight", "sight"}).Draw(t, "kind") {
	case "time":
		return passes(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 11 * time.Minute}).Draw(t, "time"))
	case "wake":
		return passes(s.plan.WakeAfter)
	case "flap":
		return endpointsBecome(i, 10-min(10, s.members[i].ready), 10)
	case "api":
		return toggles("its API server is lost or back", i, func(m *simulated) *bool { return &m.reachable })
	case "read":
		return reads
	case "restart":
		return restarts(rapid.SliceOfNDistinct(rapid.IntRange(0, len(s.members)-1), 0, 2, rapid.ID).Draw(t, "unread")...)
	case "apply":
		return toggles("writes are refused or not", i, func(m *simulated) *bool { return &m.applies })
	case "confirm":
		return toggles("its controller stops or goes on", i, func(m *simulated) *bool { return &m.confirms })
	case "export":
		s.undamped = true // a cluster that exports anew begins anew
		return toggles("it exports the service no more, or again", i, func(m *simulated) *bool { return &m.exported })
	case "word":
		return says(rapid.SampledFrom([]v1alpha1.OverrideType{v1alpha1.OverrideDrain, v1alpha1.OverrideDrain, v1alpha1.OverrideFailback,
			v1alpha1.OverrideHold, v1alpha1.OverrideFreeze, v1alpha1.OverridePin}).Draw(t, "word"), i)
	case "look":
		return happens{"a look at all", func(_ require.TestingT, s *simulation) { s.look() }}
	case "sight":
		return rapid.SampledFrom([]func() happens{
			func() happens { return looked(sickens(i)) },
			func() happens { return sickens(i) },
			func() happens {
				return looked(toggles("the hub's link to it breaks or not", i, func(m *simulated) *bool { return &m.cut }))
			},
			func() happens {
				return looked(toggles("its gateway says nothing or something", i, func(m *simulated) *bool { return &m.mute }))
			},
			func() happens { return blinds },
			func() happens { return looked(blinds) },
		}).Draw(t, "sight")()
	case "clock":
		s.undamped = true
		return passes(-rapid.SampledFrom([]time.Duration{time.Second, time.Hour}).Draw(t, "back"))
	}
	wanted := rapid.IntRange(0, 20).Draw(t, "wanted")
	return endpointsBecome(i, rapid.IntRange(0, wanted).Draw(t, "ready"), wanted)
}

func drawFailback(t *rapid.T) v1alpha1.Failback {
	seconds := func(name string, values ...string) *gatewayv1.Duration {
		return new(gatewayv1.Duration(rapid.SampledFrom(values).Draw(t, name)))
	}
	f := v1alpha1.Failback{Mode: rapid.SampledFrom([]v1alpha1.FailbackMode{"", "", "Manual"}).Draw(t, "mode"),
		Hold: seconds("hold", "0s", "1s", "15s", "15s"), MaxHold: seconds("maxHold", "15s", "10m")}
	f.Ramp = &v1alpha1.FailbackRamp{Interval: seconds("interval", "0s", "5s", "5s"),
		Steps: rapid.SampledFrom([][]int32{{100}, {25, 50, 100}, {1, 99, 100}}).Draw(t, "steps")}
	return f
}

func drawDistribution(t *rapid.T, clusters int) v1alpha1.Distribution {
	d := v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted}
	for i := range clusters {
		w := v1alpha1.ClusterWeight{Cluster: fmt.Sprintf("c%d", i), Weight: rapid.SampledFrom(hostileWeights).Draw(t, "weight")}
		if rapid.IntRange(0, 2).Draw(t, "bounded") == 0 {
			w.Capacity = new(int32(rapid.IntRange(1, 100).Draw(t, "capacity")))
		}
		d.Weights = append(d.Weights, w)
	}
	switch rapid.IntRange(0, 3).Draw(t, "type") {
	case 0:
		return v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}
	case 1:
		return inTiers(t, d)
	}
	return d
}

// TestSimulation drives random schedules of faults and checks the invariants after each step.
func TestSimulation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clusters := rapid.IntRange(2, 4).Draw(t, "clusters")
		s := newSimulation(drawDistribution(t, clusters), drawFailback(t), clusters)
		s.probed, s.believed = rapid.Bool().Draw(t, "probed"), rapid.Bool().Draw(t, "believed")
		looked(nothing).do(t, s)
		s.step(t)
		for range rapid.IntRange(1, 16).Draw(t, "steps") {
			next := drawHappening(t, s)
			s.told = append(s.told, next.name)
			next.do(t, s)
			s.step(t)
			switch rapid.IntRange(0, 5).Draw(t, "check") {
			case 0:
				s.checkStandstill(t)
			case 1:
				s.checkWake(t)
			}
		}
		if !s.undamped {
			s.checkFlapping(t)
		}
	})
}

// searchDeeper tells whether more is asked for than the short form.
func searchDeeper() bool {
	checks, err := strconv.Atoi(os.Getenv("RAPID_CHECKS"))
	return err == nil && checks > 1000
}

// TestFlappingIsBounded lets one cluster flap at several periods, altogether and in part.
func TestFlappingIsBounded(t *testing.T) {
	periods, hours := []time.Duration{7 * time.Second, 31 * time.Second, 4 * time.Minute, 11 * time.Minute}, 1
	if searchDeeper() {
		periods, hours = append(periods, time.Second, 16*time.Second, time.Minute, 25*time.Minute), 12
	}
	for _, period := range periods {
		for _, low := range []int{0, 5} {
			s := newSimulation(weighted("c0", 1, "c1", 1), v1alpha1.Failback{}, 2)
			s.step(t)
			shifts, before := 0, weightsOf(s.members[1].last)
			for end, next := s.now.Add(time.Duration(hours)*time.Hour), s.now; s.now.Before(end); {
				if !s.now.Before(next) {
					s.members[0].ready = 10 + low - s.members[0].ready
					next = next.Add(period)
				}
				s.step(t)
				if after := weightsOf(s.members[1].last); !maps.Equal(before, after) {
					shifts, before = shifts+1, after
				}
				wait := next.Sub(s.now)
				if s.plan.WakeAfter > 0 {
					wait = min(wait, s.plan.WakeAfter)
				}
				s.now = s.now.Add(wait)
			}
			s.checkFlapping(t)
			// Each hour holds six times ten minutes, the default maxHold; each return is three steps and a fall.
			require.LessOrEqual(t, shifts, (1+6*hours)*7*4, "period %s", period)
			// A fallback list changes at the first step and at the fall.
			require.LessOrEqual(t, s.rewritten, 1+(1+6*hours)*7*2, "period %s", period)
		}
	}
}

// TestEverySchedule goes through every schedule of a few happenings, over two and over three clusters.
func TestEverySchedule(t *testing.T) {
	length := 2
	if searchDeeper() {
		length = 3
	}
	back := happens{"c0 goes and is back", func(t require.TestingT, s *simulation) {
		s.members[0].ready = 0
		s.step(t)
		s.members[0].ready = 10
	}}
	two := []happens{back, endpointsBecome(0, 0, 10), endpointsBecome(0, 4, 10), endpointsBecome(0, 10, 10), endpointsBecome(1, 0, 10), endpointsBecome(1, 10, 10),
		passes(5 * time.Second), passes(15 * time.Second), restarts(0), reads, says(v1alpha1.OverrideDrain, 0),
		toggles("its API server is lost or back", 0, func(m *simulated) *bool { return &m.reachable })}
	three := slices.Concat(two, []happens{endpointsBecome(2, 0, 10), says(v1alpha1.OverrideDrain, 2)})
	sights := []happens{looked(sickens(0)), looked(sickens(1)), sickens(0), looked(blinds), looked(nothing), endpointsBecome(0, 0, 10), endpointsBecome(0, 10, 10),
		looked(toggles("the hub's link to it breaks or not", 0, func(m *simulated) *bool { return &m.cut })),
		looked(toggles("its gateway says nothing or something", 0, func(m *simulated) *bool { return &m.mute })),
		passes(15 * time.Second), restarts(), restarts(0), reads, says(v1alpha1.OverrideDrain, 0), says(v1alpha1.OverrideHold, 0)}
	cut1 := looked(toggles("the hub's link to it breaks or not", 1, func(m *simulated) *bool { return &m.cut }))
	sightsOfThree := []happens{looked(sickens(0)), looked(sickens(1)), looked(sickens(2)), looked(blinds), cut1, restarts(0), endpointsBecome(0, 0, 10),
		endpointsBecome(0, 10, 10), looked(toggles("the hub's link to it breaks or not", 0, func(m *simulated) *bool { return &m.cut }))}
	tests := map[string]struct {
		distribution v1alpha1.Distribution
		clusters     int
		happenings   []happens
		probed       bool
	}{
		"two, weighted":   {weighted("c0", 80, "c1", 20), 2, two, false},
		"two, local":      {v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}, 2, two, false},
		"three, tiers":    {tiersOfWeights("c0", 1, "c1", 1, "", "c2", 1), 3, three, false},
		"three, one not":  {weighted("c0", 80, "c1", 20), 3, three, false},
		"two, probed":     {weighted("c0", 80, "c1", 20), 2, sights, true},
		"three, probed":   {weighted("c0", 1, "c1", 1, "c2", 1), 3, sightsOfThree, true},
		"three, believed": {weighted("c0", 1, "c1", 1, "c2", 1), 3, sightsOfThree, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(test.distribution, v1alpha1.Failback{}, test.clusters)
			s.brief, s.probed, s.believed = true, test.probed, name == "three, believed"
			looked(nothing).do(t, s)
			s.step(t)
			search(t, s, test.happenings, length)
		})
	}
}

func search(t *testing.T, s *simulation, happenings []happens, length int) {
	if length == 0 {
		s.checkStandstill(t)
		return
	}
	for _, h := range happenings {
		next := s.clone()
		next.told = append(next.told, h.name)
		h.do(t, next)
		next.step(t)
		search(t, next, happenings, length-1)
	}
}
