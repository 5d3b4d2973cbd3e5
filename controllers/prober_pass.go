// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"time"

	"isthmus.dev/isthmus/federation"
)

// job is what one pass needs, taken under the lock.
type job struct {
	settings *probeSettings
	target   federation.ProbeTarget
	state    federation.ProbeState
	inForce  bool
	took     time.Duration
	// doubt is done once peers are to be asked beside the hub's own look; raise ends it.
	doubt context.Context
	raise context.CancelFunc
	// peers to be asked, another one in each round, so that one bad link between two clusters does not speak for all.
	peers []peerJob
}

// peerJob is a request through a peer, and the request to the peer itself by which a silent peer is told from a silent
// cluster; that one is nil where the peer does not serve.
type peerJob struct {
	request federation.ProbeRequest
	confirm *federation.ProbeRequest
}

func (p *prober) job(key federation.ServiceKey, cluster string) (job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	service := p.services[key]
	if service == nil || service.pairs[cluster] == nil || service.pairs[cluster].target == nil {
		return job{}, false
	}
	pair := service.pairs[cluster]
	j := job{settings: service.settings, target: *pair.target, state: pair.state, inForce: pair.inForce, took: pair.took}
	for i := range pair.target.Peers {
		peer := peerJob{request: pair.target.Peers[(pair.turn+i)%len(pair.target.Peers)]}
		if other := service.pairs[peer.request.Member]; other != nil && other.target != nil {
			peer.confirm = other.target.Direct
		}
		j.peers = append(j.peers, peer)
	}
	return j, true
}

// rounds is how many looks a pass may begin before the first has ended: as many as make a cluster ill that is not so yet.
func (j job) rounds() int {
	if j.state.Hub.Sight == federation.SeenIll || j.target.Direct == nil {
		return 1
	}
	return int(max(1, j.settings.timing.Fall))
}

// apart is after how long without an answer the next round begins: a quarter of the interval, unless it always takes longer.
func (j job) apart() time.Duration { return max(j.settings.timing.Interval/4, 2*j.took) }

// round is a look of the hub's own, and one through a peer where that was asked.
type round struct {
	hub, peer federation.Look
	// asked is whether a peer was; took is the time of the hub's own look.
	asked bool
	took  time.Duration
}

// pass looks at one service in one cluster, and says when to look again; false when no more. It consists of rounds:
//
//	the hub's own look | last time | through a peer
//	succeeds           | good      | not asked
//	fails              | good      | asked then
//	is late            | good      | asked then, and another round begins beside this one, up to `fall`
//	any                | bad       | asked at the same time
//	cannot be made     |           | asked
//
// So a cluster that is well costs one request an interval, and one that answers nobody is known to do so a timeout after the
// last of `fall` looks began, rather than after as many timeouts.
func (p *prober) pass(ctx context.Context, key federation.ServiceKey, cluster string) (time.Duration, bool) {
	j, wanted := p.job(key, cluster)
	if !wanted {
		return 0, false
	}
	j.doubt, j.raise = context.WithCancel(ctx)
	defer j.raise()
	began := p.clock.Now()
	again := time.Duration(0)
	for _, done := range p.begin(ctx, key, cluster, j) {
		if again, wanted = p.record(ctx, key, cluster, j, <-done); !wanted {
			return 0, false
		}
	}
	// From beginning to beginning: one who lets us wait is not asked more seldom.
	return max(0, again-p.clock.Since(began)), true
}

// begin begins the rounds of a pass, and returns when the first has ended or all have begun.
func (p *prober) begin(ctx context.Context, key federation.ServiceKey, cluster string, j job) []<-chan round {
	if j.state.Doubted() || j.state.Hub.Sight == federation.SeenIll || j.target.Direct == nil {
		j.raise()
	}
	rounds := []<-chan round{p.takeRound(ctx, j, 0)}
	for len(rounds) < j.rounds() {
		late := p.clock.NewTimer(j.apart())
		select {
		case first := <-rounds[0]:
			late.Stop()
			rounds[0] = held(first)
			return rounds
		case <-ctx.Done():
			late.Stop()
			return rounds
		case <-late.C():
			if len(rounds) == 1 {
				p.lookAround(key, cluster, j)
				j.raise()
			}
			rounds = append(rounds, p.takeRound(ctx, j, len(rounds)))
		}
	}
	return rounds
}

// held is a channel with a round that has ended.
func held(r round) <-chan round {
	done := make(chan round, 1)
	done <- r
	return done
}

// takeRound takes the n-th round of a pass. A peer is asked when the hub's look has failed, or once doubt is done.
func (p *prober) takeRound(ctx context.Context, j job, n int) <-chan round {
	done, hub := make(chan round, 1), make(chan round, 1)
	void := federation.Look{Result: federation.LookVoid}
	if j.target.Direct != nil {
		go func() {
			began := p.clock.Now()
			look := p.ask(ctx, j, j.target.Direct)
			hub <- round{hub: look, took: p.clock.Since(began)}
		}()
	} else {
		hub <- round{hub: void}
	}
	go func() {
		var r round
		peer, ended := void, false
		select {
		case r = <-hub:
			ended = true
		case <-j.doubt.Done():
		}
		if r.asked = len(j.peers) > 0 && (!ended || j.doubt.Err() != nil || r.bad()); r.asked {
			peer = p.askPeer(ctx, j, j.peers[n%len(j.peers)])
		}
		if !ended {
			asked := r.asked
			r = <-hub
			r.asked = asked
		}
		r.peer = peer
		done <- r
	}()
	return done
}

// bad tells whether the hub's own look failed.
func (r round) bad() bool {
	return r.hub.Result == federation.LookFailed || r.hub.Result == federation.LookSilent
}

func (p *prober) ask(ctx context.Context, j job, r *federation.ProbeRequest) federation.Look {
	look := p.look(ctx, lookRequest{ProbeRequest: *r, probe: j.settings})
	if look.Result == federation.LookVoid && j.inForce {
		// The probe's route was there: whoever answers without it stands before a gateway that does not.
		look.Result = federation.LookFailed
	}
	return look
}

// askPeer looks through another cluster. What is silent there says nothing unless that cluster's own gateway answers: else it
// may be the hub that cannot be heard.
func (p *prober) askPeer(ctx context.Context, j job, peer peerJob) federation.Look {
	look := p.look(ctx, lookRequest{ProbeRequest: peer.request, probe: j.settings})
	look.Said = "through " + peer.request.Member + ": " + look.Said
	if look.Result != federation.LookSilent {
		return look
	}
	if peer.confirm == nil {
		return federation.Look{Result: federation.LookVoid}
	}
	switch own := p.look(ctx, lookRequest{ProbeRequest: *peer.confirm, probe: j.settings}); own.Result {
	case federation.LookOK, federation.LookFailed:
		return look
	default:
		return federation.Look{Result: federation.LookVoid}
	}
}

// lookAround has the service looked at in its other clusters at once, when a cluster that was well begins to be in doubt. So
// by the time that this one is seen ill, it is known whether all of them are in doubt, which is the guard's matter.
func (p *prober) lookAround(key federation.ServiceKey, cluster string, j job) {
	if j.state.Hub.Doubted() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	service := p.services[key]
	if service == nil {
		return
	}
	for other, pair := range service.pairs {
		if pair.target == nil || other == cluster {
			continue
		}
		if lane := p.lane(laneKey{cluster: other}); lane != nil {
			lane.Add(key)
		}
	}
}

// record takes in what a round saw, and wakes whom it concerns. It says when to look again; false when no more.
func (p *prober) record(ctx context.Context, key federation.ServiceKey, cluster string, j job, r round) (time.Duration, bool) {
	if j.target.Direct != nil {
		p.metrics.looked(key, cluster, "hub", r.hub)
	}
	if r.asked {
		p.metrics.looked(key, cluster, "peer", r.peer)
	}
	if r.bad() {
		p.lookAround(key, cluster, j)
	}
	p.mu.Lock()
	service := p.services[key]
	if ctx.Err() != nil || service == nil || service.pairs[cluster] == nil || service.pairs[cluster].target == nil {
		p.mu.Unlock()
		return 0, false
	}
	pair, timing := service.pairs[cluster], service.settings.timing
	if service.settings == j.settings {
		pair.take(r, timing.Rise, timing.Fall)
		service.proven = service.proven || r.hub.Result == federation.LookOK || r.peer.Result == federation.LookOK
	}
	woken := p.count(key, service, cluster, pair)
	again := p.spread(timing.Interval)
	if pair.state.Hub.Unsettled() {
		again /= 4
	}
	p.mu.Unlock()
	for _, key := range woken {
		p.changed(key)
	}
	return again, true
}

// take takes in a round.
func (p *probedPair) take(r round, rise, fall int32) {
	p.state = p.state.StepPeer(r.peer, rise, fall).StepHub(r.hub, rise, fall)
	p.inForce = p.inForce || r.hub.Result == federation.LookOK || r.hub.Result == federation.LookFailed
	if r.hub.Result == federation.LookOK {
		p.took = r.took
	}
	if r.asked {
		p.turn++
	}
}
