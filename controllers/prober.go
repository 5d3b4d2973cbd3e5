// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"isthmus.dev/isthmus/federation"
)

// looksAtOnce bounds the services of one cluster that are looked at together. Each cluster has workers of its own, so that one that answers
// nobody delays no look at another.
const looksAtOnce = 32

// queriesAtOnce bounds the queries of metrics under way about one cluster.
const queriesAtOnce = 4

// laneKey names a queue: of the looks at a cluster, or of the queries about it, which wait for somebody else.
type laneKey struct {
	cluster string
	metric  bool
}

// lane is a queue of services.
type lane = workqueue.TypedDelayingInterface[federation.ServiceKey]

// lookFunc makes one look. It returns when the context ends.
type lookFunc func(context.Context, lookRequest) federation.Look

// lookRequest is what a look takes.
type lookRequest struct {
	federation.ProbeRequest
	probe *probeSettings
}

// prober looks at services in clusters, from outside, and remembers what it saw. What it knows is gone with the process:
// after a restart it has seen nothing, and what was decided stays until it has.
type prober struct {
	look   lookFunc
	value  valueFunc
	clock  clock.WithTicker
	guard  federation.Guard
	spread func(time.Duration) time.Duration
	// changed hears of a service of which something else is known now. It must not block.
	changed func(federation.ServiceKey)
	// answered hears of a policy, namespace/name, of whose metric's queries something else is to be said now. It must not block.
	answered func(policy string)
	metrics  *probeMetrics

	mu       sync.Mutex
	ctx      context.Context
	services map[federation.ServiceKey]*probedService
	// doubts on the services of each cluster, and why nothing may be taken out anywhere because of them.
	doubts map[string]federation.Doubt
	held   string
	lanes  map[laneKey]lane
	// awaits are services of which somebody asked before it was known whether they are probed.
	awaits map[federation.ServiceKey]bool
}

// probedService is what is known of one service. A service that is not probed is known to be so by having no settings, and
// one without a metric by having none of that.
type probedService struct {
	settings *probeSettings
	metric   *metricSettings
	gateway  federation.NamespacedName
	proven   bool
	// metricProven is whether the metric was well in some cluster.
	metricProven bool
	doubt        federation.Doubt
	pairs        map[string]*probedPair
}

// probedPair is one service in one cluster: what is seen of it, and what is asked about it.
type probedPair struct {
	// target is nil where it is not looked at.
	target *federation.ProbeTarget
	metric *metricPair
	state  federation.ProbeState
	// inForce is whether the cluster's gateway has ever answered by the probe's route.
	inForce bool
	doubted bool
	turn    int
	// took is how long the last good look of the hub's took.
	took time.Duration
	told toldSignal
}

// toldSignal is that part of a signal on which a finding depends.
type toldSignal struct {
	hub, peer         federation.Seen
	hubSaid, peerSaid string
	proven            bool
	held              string
	metric            toldMetric
}

func newProber(look lookFunc, value valueFunc, guard federation.Guard, m *probeMetrics) *prober {
	return &prober{look: look, value: value, clock: clock.RealClock{}, guard: guard, spread: spreadOut, metrics: m,
		changed: func(federation.ServiceKey) {}, answered: func(string) {},
		services: map[federation.ServiceKey]*probedService{}, doubts: map[string]federation.Doubt{},
		lanes: map[laneKey]lane{}, awaits: map[federation.ServiceKey]bool{}}
}

// spreadOut is a duration within a tenth of the given one, so that the looks at many services do not fall together.
func spreadOut(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // no secret depends on it
}

// NeedLeaderElection is true: a hub that does not lead has nothing to decide.
func (p *prober) NeedLeaderElection() bool { return true }

// Start looks until the context ends.
func (p *prober) Start(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	for key, service := range p.services {
		for cluster, pair := range service.pairs {
			for k := range pair.lanes(cluster) {
				if lane := p.lane(k); lane != nil {
					lane.Add(key)
				}
			}
		}
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lane := range p.lanes {
		lane.ShutDown()
	}
	return nil
}

// lanes are those in which a pair waits for its turn.
func (p *probedPair) lanes(cluster string) map[laneKey]bool {
	in := map[laneKey]bool{}
	if p != nil && p.target != nil {
		in[laneKey{cluster: cluster}] = true
	}
	if p != nil && p.metric != nil {
		in[laneKey{cluster: cluster, metric: true}] = true
	}
	return in
}

// lane is a queue with its workers. It needs mu, and is nil until the prober has started.
func (p *prober) lane(k laneKey) lane {
	if p.ctx == nil || p.ctx.Err() != nil {
		return nil
	}
	if lane := p.lanes[k]; lane != nil {
		return lane
	}
	queue := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[federation.ServiceKey]{Clock: p.clock})
	p.lanes[k] = queue
	workers, pass := looksAtOnce, p.pass
	if k.metric {
		workers, pass = queriesAtOnce, p.query
	}
	for range workers {
		go work(p.ctx, k.cluster, queue, pass)
	}
	return queue
}

// work passes over services until the lane ends. A pass says when the next one is due; false when none is.
func work(ctx context.Context, cluster string, lane lane, pass func(context.Context, federation.ServiceKey, string) (time.Duration, bool)) {
	for {
		key, down := lane.Get()
		if down {
			return
		}
		if again, wanted := pass(ctx, key, cluster); wanted {
			lane.AddAfter(key, again)
		}
		lane.Done(key)
	}
}

// set takes the newest plan of a service into use. What was seen stays, unless the probe itself is another, and what was
// answered, unless the metric is.
func (p *prober) set(key federation.ServiceKey, plan federation.ProbePlan, token string) {
	p.mu.Lock()
	was, known := p.services[key]
	if !known {
		was = &probedService{}
	}
	is := &probedService{settings: newProbeSettings(plan.Probe, token), metric: newMetricSettings(plan), gateway: plan.Gateway,
		pairs: map[string]*probedPair{}}
	same := is.keep(was)
	for _, target := range plan.Targets {
		is.pair(target.Cluster, was).target = &target
	}
	for _, cluster := range plan.MetricClusters {
		is.pair(cluster, was).asked(was.pairs[cluster], is.metric == was.metric)
	}
	p.services[key] = is
	p.sum(was, -1)
	p.sum(is, 1)
	woken := p.weigh()
	p.enqueue(key, was, is)
	if (p.awaits[key] || known && !same) && !slices.Contains(woken, key) {
		woken = append(woken, key)
	}
	delete(p.awaits, key)
	p.mu.Unlock()
	p.metrics.keep(key, slices.Collect(maps.Keys(is.pairs)))
	for _, key := range woken {
		p.changed(key)
	}
	p.tellPolicies(was, is)
}

// keep takes over the settings of the newest plan but one where they are the same, and tells whether they all are.
func (s *probedService) keep(was *probedService) bool {
	sameProbe, sameMetric := reflect.DeepEqual(was.settings, s.settings), reflect.DeepEqual(was.metric, s.metric)
	if sameProbe {
		s.settings, s.proven = was.settings, was.proven
	}
	if sameMetric {
		s.metric, s.metricProven = was.metric, was.metricProven
	}
	return sameProbe && sameMetric
}

// pair of a service in a cluster, made of what was seen there before while the probe is the same.
func (s *probedService) pair(cluster string, was *probedService) *probedPair {
	if s.pairs[cluster] == nil {
		pair := &probedPair{}
		if old := was.pairs[cluster]; old != nil && s.settings == was.settings {
			*pair = *old
			pair.target, pair.metric = nil, nil
		}
		s.pairs[cluster] = pair
	}
	return s.pairs[cluster]
}

// enqueue begins to look at the clusters that are new, not all at once, and ends the lanes of those that nobody looks at.
// It needs mu.
func (p *prober) enqueue(key federation.ServiceKey, was, is *probedService) {
	for cluster, pair := range is.pairs {
		before := was.pairs[cluster].lanes(cluster)
		for k := range pair.lanes(cluster) {
			if lane := p.lane(k); lane != nil && !before[k] {
				lane.AddAfter(key, p.spread(is.interval(k))/4)
			}
		}
	}
	for cluster, pair := range was.pairs {
		for k := range pair.lanes(cluster) {
			if lane := p.lanes[k]; lane != nil && p.doubts[cluster].Probed == 0 {
				lane.ShutDown()
				delete(p.lanes, k)
			}
		}
	}
}

// interval between two passes in a lane.
func (s *probedService) interval(k laneKey) time.Duration {
	if k.metric {
		return s.metric.timing.Interval
	}
	return s.settings.timing.Interval
}

// forget ends the looks at a service to which no route refers.
func (p *prober) forget(key federation.ServiceKey) {
	p.set(key, federation.ProbePlan{}, "")
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.services, key)
}

// sum adds the doubts on a service to those on its clusters, or takes them off. It needs mu.
func (p *prober) sum(service *probedService, sign int) {
	service.doubt = federation.Doubt{}
	for cluster, pair := range service.pairs {
		pair.doubted = pair.inDoubt()
		one := federation.Doubt{Probed: 1}
		if pair.doubted {
			one.Doubted = 1
		}
		service.doubt = service.doubt.Plus(one, 1)
		if p.doubts[cluster] = p.doubts[cluster].Plus(one, sign); p.doubts[cluster].Probed == 0 {
			delete(p.doubts, cluster)
		}
	}
}

// decided tells whether it is known whether a service is probed, and whether it is.
func (p *prober) decided(key federation.ServiceKey) (known, probed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	service := p.services[key]
	return service != nil, service != nil && (service.settings != nil || service.metric != nil)
}

// probed are the services that are looked at, in any order.
func (p *prober) probed() []federation.ServiceKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []federation.ServiceKey
	for key, service := range p.services {
		if service.settings != nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// await tells whether it is known whether a service is probed, and wakes it once it is.
func (p *prober) await(key federation.ServiceKey) (known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known = p.services[key] != nil; !known {
		p.awaits[key] = true
	}
	return known
}

// signal is what the probes say of a service in a cluster, given the verdict that was last acted on; nil where it is not
// probed.
func (p *prober) signal(key federation.ServiceKey, cluster string, before federation.Verdict) *federation.ProbeSignal {
	p.mu.Lock()
	s, woken := p.signalGiven(key, cluster, before)
	p.mu.Unlock()
	for _, key := range woken {
		p.changed(key)
	}
	return s
}

// signalGiven also says of which services something else is known by what was acted on. It needs mu.
func (p *prober) signalGiven(key federation.ServiceKey, cluster string, before federation.Verdict) (*federation.ProbeSignal, []federation.ServiceKey) {
	service := p.services[key]
	switch {
	case service == nil:
		if before == federation.Suspected {
			p.awaits[key] = true
		}
		return &federation.ProbeSignal{Undecided: true}, nil
	case service.settings == nil:
		return nil, p.remember(key, service, cluster, before)
	case service.pairs[cluster] == nil || service.pairs[cluster].target == nil:
		return &federation.ProbeSignal{Proven: service.proven}, p.remember(key, service, cluster, before)
	}
	woken := p.remember(key, service, cluster, before)
	return p.signalOf(service, service.pairs[cluster]), woken
}

// remember takes in that an earlier process took a cluster out, where this one has seen nothing of it yet. It needs mu.
func (p *prober) remember(key federation.ServiceKey, service *probedService, cluster string, before federation.Verdict) []federation.ServiceKey {
	pair := service.pairs[cluster]
	if pair == nil || before != federation.Suspected {
		return nil
	}
	remembered := false
	if pair.target != nil && pair.state.Hub.Sight == federation.SeenNothing && !pair.state.Out {
		pair.state.Out, remembered = true, true
	}
	if pair.metric != nil && pair.metric.state.Sight == federation.SeenNothing && !pair.metric.state.Void && !pair.metric.state.Out {
		pair.metric.state.Out, remembered = true, true
	}
	if !remembered {
		return nil
	}
	return p.count(key, service, cluster, pair)
}

// signalOf needs mu.
func (p *prober) signalOf(service *probedService, pair *probedPair) *federation.ProbeSignal {
	return &federation.ProbeSignal{ProbeState: pair.state, Proven: service.proven,
		HubsWordIsEnough: service.settings.spec.HubsWordIsEnough, Held: p.holds(service)}
}

// holds says why the guard lets nothing of a service be moved on suspicion; empty where it does. It needs mu.
func (p *prober) holds(service *probedService) string {
	return cmp.Or(p.guard.HoldsService(service.doubt), p.held)
}

// inDoubt tells whether the guard counts a pair among those in doubt.
func (p *probedPair) inDoubt() bool {
	return p.target != nil && p.state.Doubted() || p.metric != nil && p.metric.state.Doubted()
}

// probedOver are the services whose looks go over a hub Gateway, by cluster.
func (p *prober) probedOver(gateway federation.NamespacedName) map[string][]federation.ServiceKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := map[string][]federation.ServiceKey{}
	for key, service := range p.services {
		for cluster, pair := range service.pairs {
			if service.gateway == gateway && pair.target != nil {
				over[cluster] = append(over[cluster], key)
			}
		}
	}
	return over
}

// count takes a pair's doubt into the sums, and says of which services something else is known now. It needs mu.
func (p *prober) count(key federation.ServiceKey, service *probedService, cluster string, pair *probedPair) []federation.ServiceKey {
	var woken []federation.ServiceKey
	if doubted := pair.inDoubt(); doubted != pair.doubted {
		change := federation.Doubt{Doubted: 1}
		sign := -1
		if doubted {
			sign = 1
		}
		service.doubt, p.doubts[cluster], pair.doubted = service.doubt.Plus(change, sign), p.doubts[cluster].Plus(change, sign), doubted
		woken = p.weigh()
	}
	if p.tell(key, service) {
		woken = append(woken, key)
	}
	return woken
}

// weigh asks the guard again, and says of which services something else is known because of what it says. It needs mu.
func (p *prober) weigh() []federation.ServiceKey {
	held := p.held
	if p.held = p.guard.HoldsFleet(p.doubts); p.held == held {
		return nil
	}
	p.metrics.guard(p.held != "")
	var woken []federation.ServiceKey
	for key, service := range p.services {
		if p.tell(key, service) {
			woken = append(woken, key)
		}
	}
	return woken
}

// tell notes what is known of a service, and whether that is something else than was told. It needs mu.
func (p *prober) tell(key federation.ServiceKey, service *probedService) bool {
	told := false
	for cluster, pair := range service.pairs {
		now := toldSignal{metric: p.toldMetric(service, pair)}
		if pair.target != nil {
			s := p.signalOf(service, pair)
			now.hub, now.peer, now.hubSaid, now.peerSaid, now.proven = s.Hub.Sight, s.Peer.Sight, s.Hub.Said, s.Peer.Said, s.Proven
			if s.Hub.Sight == federation.SeenIll {
				now.held = s.Held
			}
		}
		if now != pair.told {
			pair.told, told = now, true
			p.metrics.told(key, cluster, now)
		}
	}
	return told
}
