// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// network is what looks meet: an answer for each member asked and cluster that is to answer, all well to begin with.
type network struct {
	mu      sync.Mutex
	answers map[[2]string]federation.Look
	// refuses is whether silence is that of a host that refuses, which is known at once.
	refuses bool
	// takes is how long an answer takes.
	takes time.Duration
	asked map[[2]string]int
	open  map[string]int
	most  map[string]int
	// measured is by cluster what metrics say, and queries are those that were asked.
	measured map[string]measured
	queries  []string
}

func (n *network) look(ctx context.Context, r lookRequest) federation.Look {
	key := [2]string{r.Member, r.Cluster}
	n.mu.Lock()
	n.asked[key]++
	n.open[r.Member]++
	n.most[r.Member] = max(n.most[r.Member], n.open[r.Member])
	look, given := n.answers[key]
	refuses := n.refuses
	n.mu.Unlock()
	time.Sleep(n.takes)
	if look.Result == federation.LookSilent && !refuses {
		select {
		case <-ctx.Done():
		case <-time.After(r.probe.timing.Timeout):
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[r.Member]--
	if !given {
		return federation.Look{Result: federation.LookOK, Said: "200"}
	}
	return look
}

// set makes looks at a cluster, through a member, end so.
func (n *network) set(member, cluster string, result federation.LookResult) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[[2]string{member, cluster}] = federation.Look{Result: result, Said: string(result)}
}

func (n *network) count(member, cluster string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[[2]string{member, cluster}]
}

var probedKey = federation.ServiceKey{Namespace: "sample", Name: "helloworld"}

func probePlan(clusters ...string) federation.ProbePlan {
	plan := federation.ProbePlan{Probe: &v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/"}}, Gateway: federation.NamespacedName{Namespace: "sample", Name: "public"}}
	for _, c := range clusters {
		t := federation.ProbeTarget{Cluster: c, Direct: &federation.ProbeRequest{Member: c, Cluster: c, Address: c}}
		for _, peer := range clusters {
			if peer != c {
				t.Peers = append(t.Peers, federation.ProbeRequest{Member: peer, Cluster: c, Address: peer})
			}
		}
		plan.Targets = append(plan.Targets, t)
	}
	return plan
}

// probing runs a story in which time passes by itself.
func probing(t *testing.T, story func(t *testing.T, p *prober, n *network, wakes *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{answers: map[[2]string]federation.Look{}, asked: map[[2]string]int{}, open: map[string]int{}, most: map[string]int{}}
		p := newProber(n.look, n.value, federation.Guard{MaxSuspected: federation.DefaultMaxSuspected}, newProbeMetrics(prometheus.NewRegistry()))
		p.spread = func(d time.Duration) time.Duration { return d }
		wakes := &atomic.Int64{}
		p.changed = func(federation.ServiceKey) { wakes.Add(1) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Start(ctx) }()
		synctest.Wait()
		story(t, p, n, wakes)
		cancel()
		require.NoError(t, <-ended)
	})
}

// judge is what is found of the probed service in a cluster with endpoints.
func judge(p *prober, cluster string, before federation.Verdict) federation.Finding {
	return federation.Judge(federation.Signals{Seen: true, Reachable: true, ReadyEndpoints: 2, Before: before,
		Probe: p.signal(probedKey, cluster, before)})
}

func TestProberWakesOnceWhenBothSidesSeeIll(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, wakes *atomic.Int64) {
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(time.Minute)
		require.Equal(t, federation.Fit, judge(p, "eks", federation.Fit).Verdict)
		require.Zero(t, n.count("gke", "eks"), "another cluster is asked while the hub sees well")
		require.InDelta(t, 60, n.count("eks", "eks"), 3, "one look an interval")
		calm := wakes.Load()
		time.Sleep(time.Minute)
		require.Equal(t, calm, wakes.Load(), "looks that say nothing new wake nobody")

		n.set("eks", "eks", federation.LookFailed)
		n.set("gke", "eks", federation.LookFailed)
		time.Sleep(10 * time.Second)
		f := judge(p, "eks", federation.Fit)
		require.Equal(t, federation.Suspected, f.Verdict, f)
		require.Equal(t, "its probes fail from the hub: failed; through gke: failed", f.Message)
		require.Equal(t, federation.Fit, judge(p, "gke", federation.Fit).Verdict)
		turned := wakes.Load()
		require.LessOrEqual(t, turned-calm, int64(2))
		time.Sleep(time.Minute)
		require.Equal(t, turned, wakes.Load())

		n.set("eks", "eks", federation.LookOK)
		time.Sleep(10 * time.Second)
		require.Equal(t, federation.Fit, judge(p, "eks", federation.Suspected).Verdict)
	})
}

// A cluster that answers nobody is seen ill a timeout after the last of the looks that count began, by the hub and by others.
func TestACutOffClusterIsSuspectedWithinThreeSeconds(t *testing.T) {
	for offset := range 20 {
		probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
			p.set(probedKey, probePlan("eks", "gke"), "token")
			time.Sleep(10*time.Second + time.Duration(offset)*50*time.Millisecond)
			n.set("eks", "eks", federation.LookSilent)
			n.set("gke", "eks", federation.LookSilent)
			time.Sleep(2800 * time.Millisecond)
			require.Equal(t, federation.Suspected, judge(p, "eks", federation.Fit).Verdict, offset)
			require.Equal(t, federation.Fit, judge(p, "gke", federation.Fit).Verdict)
		})
	}
}

// One that always answers late is not asked the more for it.
func TestALateAnswerAsUsualBeginsNoOtherLook(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		n.takes = 450 * time.Millisecond
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		before := n.count("eks", "eks")
		time.Sleep(time.Minute)
		require.InDelta(t, 60, n.count("eks", "eks")-before, 3)
		require.LessOrEqual(t, n.count("gke", "eks"), 3)
	})
}

func TestProberBelievesAnotherClusterOfABadLink(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		n.set("eks", "eks", federation.LookSilent)
		time.Sleep(20 * time.Second)
		require.Equal(t, "HubLinkBad", judge(p, "eks", federation.Fit).Reason)
	})
}

// A hub that is cut off from all gateways hears nobody: neither a cluster nor one through another. Nothing moves, whatever
// the order in which it notices, and also where its word alone would be enough.
func TestProberMovesNothingWhenTheHubIsCutOff(t *testing.T) {
	for _, alone := range []bool{false, true} {
		probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
			plan := probePlan("aks", "eks", "gke")
			plan.Probe.HubsWordIsEnough = alone
			p.set(probedKey, plan, "token")
			time.Sleep(10 * time.Second)
			for _, member := range []string{"aks", "eks", "gke"} {
				time.Sleep(300 * time.Millisecond)
				for _, cluster := range []string{"aks", "eks", "gke"} {
					n.set(member, cluster, federation.LookSilent)
				}
			}
			for range 200 {
				time.Sleep(100 * time.Millisecond)
				for _, cluster := range []string{"aks", "eks", "gke"} {
					require.NotEqual(t, federation.Suspected, judge(p, cluster, federation.Fit).Verdict, cluster)
				}
			}
			require.Equal(t, federation.Unknown, judge(p, "eks", federation.Fit).Verdict)
		})
	}
}

// When all are refused at once, none is suspected before it is known that it is all of them, even on the hub's word alone and
// whoever's turn it is.
func TestProberMovesNothingWhenAllRefuseTogether(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		for seed := range uint64(50) {
			probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
				r := rand.New(rand.NewPCG(seed, 0))
				var mu sync.Mutex
				p.spread = func(d time.Duration) time.Duration {
					mu.Lock()
					defer mu.Unlock()
					return d - d/10 + time.Duration(r.Int64N(int64(d/5+1)))
				}
				plan := probePlan("aks", "eks", "gke")
				plan.Probe.HubsWordIsEnough, n.refuses = true, refuses
				p.set(probedKey, plan, "token")
				time.Sleep(20 * time.Second)
				for _, member := range []string{"aks", "eks", "gke"} {
					for _, cluster := range []string{"aks", "eks", "gke"} {
						n.set(member, cluster, federation.LookSilent)
					}
				}
				for range 500 {
					time.Sleep(10 * time.Millisecond)
					for _, cluster := range []string{"aks", "eks", "gke"} {
						require.NotEqual(t, federation.Suspected, judge(p, cluster, federation.Fit).Verdict, cluster)
					}
				}
			})
		}
	}
}

// What the guard says changes also when clusters come and go, and everybody hears of it.
func TestTheGuardLetsGoWithTheClustersThatWereInDoubt(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		other := federation.ServiceKey{Namespace: "sample", Name: "other"}
		p.set(probedKey, probePlan("aks", "eks", "gke", "oke"), "token")
		p.set(other, probePlan("aks"), "token")
		for _, cluster := range []string{"eks", "gke", "oke"} {
			for _, member := range []string{"aks", "eks", "gke", "oke"} {
				n.set(member, cluster, federation.LookFailed)
			}
		}
		holds := func() float64 { return testutil.ToFloat64(p.metrics.holds) }
		time.Sleep(time.Minute)
		require.InDelta(t, 1, holds(), 0)
		p.set(probedKey, probePlan("aks"), "token")
		require.Zero(t, holds())
		p.forget(probedKey)
		p.forget(other)
		require.Empty(t, p.services)
		require.Empty(t, p.doubts)
		require.Empty(t, p.lanes)
		p.metrics.looked(other, "aks", "hub", federation.Look{Result: federation.LookOK})
		require.Zero(t, testutil.CollectAndCount(p.metrics.looks), "a look that was under way begins no series")
	})
}

// One that is not heard itself is no witness: whether eks is dead, or the way to both is cut, cannot be told.
func TestASilentClusterIsNoWitness(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		plan := probePlan("aks", "eks", "gke", "oke")
		plan.Targets[1].Peers = []federation.ProbeRequest{{Member: "gke", Cluster: "eks", Address: "gke"}}
		p.set(probedKey, plan, "token")
		time.Sleep(10 * time.Second)
		n.set("eks", "eks", federation.LookSilent)
		n.set("gke", "eks", federation.LookSilent)
		n.set("gke", "gke", federation.LookSilent)
		time.Sleep(20 * time.Second)
		require.Equal(t, "NoPeerToAsk", judge(p, "eks", federation.Fit).Reason)
		n.set("gke", "gke", federation.LookOK)
		time.Sleep(20 * time.Second)
		require.Equal(t, federation.Suspected, judge(p, "eks", federation.Fit).Verdict)
	})
}

func TestProberHoldsWhatIsOutWhenMostAreInDoubt(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		for _, member := range []string{"eks", "gke"} {
			n.set(member, "eks", federation.LookFailed)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, federation.Suspected, judge(p, "eks", federation.Fit).Verdict)
		for _, member := range []string{"eks", "gke"} {
			n.set(member, "gke", federation.LookFailed)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, federation.Suspected, judge(p, "eks", federation.Suspected).Verdict)
		require.Equal(t, "GuardHolds", judge(p, "gke", federation.Fit).Reason)
	})
}

// What an earlier process took out counts against the share, also while nothing can be seen of it.
func TestProberCountsWhatWasOutBeforeARestart(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		for _, member := range []string{"eks", "gke"} {
			n.set(member, "eks", federation.LookVoid)
		}
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		require.Equal(t, "ProbeAwaited", judge(p, "eks", federation.Suspected).Reason)
		for _, member := range []string{"eks", "gke"} {
			n.set(member, "gke", federation.LookFailed)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, "GuardHolds", judge(p, "gke", federation.Fit).Reason)
	})
}

// A cluster that answers nobody holds up its own looks and no others, and not more than so many of them.
func TestASlowClusterDelaysNoLookAtAnother(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		const services = 100
		n.set("eks", "eks", federation.LookSilent)
		for i := range services {
			p.set(federation.ServiceKey{Namespace: "sample", Name: fmt.Sprint("s", i)}, probePlan("eks", "gke"), "token")
		}
		time.Sleep(time.Minute)
		require.InDelta(t, 60*services, n.count("gke", "gke"), 5*services)
		require.LessOrEqual(t, n.most["eks"], 3*looksAtOnce)
	})
}

func TestAProbeThatNeverSucceededMovesNothing(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		for _, member := range []string{"eks", "gke"} {
			n.set(member, "eks", federation.LookFailed)
			n.set(member, "gke", federation.LookFailed)
		}
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(time.Minute)
		require.Equal(t, "ReadyEndpoints", judge(p, "eks", federation.Fit).Reason)
		require.Equal(t, "ProbeAwaited", judge(p, "eks", federation.Suspected).Reason, "what was out before stays out")
	})
}

// Until a gateway has the probe's route, what it answers says nothing; afterwards, whoever answers without it is not it.
func TestAnAnswerOfNobodyCountsOnceTheRouteWasThere(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, _ *atomic.Int64) {
		n.set("eks", "eks", federation.LookVoid)
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(time.Minute)
		require.Equal(t, "ReadyEndpoints", judge(p, "eks", federation.Fit).Reason)
		n.set("eks", "eks", federation.LookOK)
		time.Sleep(10 * time.Second)
		n.set("eks", "eks", federation.LookVoid)
		n.set("gke", "eks", federation.LookFailed)
		time.Sleep(10 * time.Second)
		require.Equal(t, federation.Suspected, judge(p, "eks", federation.Fit).Verdict)
	})
}

func TestWithoutAPlanNobodyLooks(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, n *network, wakes *atomic.Int64) {
		require.Equal(t, "ProbeAwaited", judge(p, "eks", federation.Suspected).Reason, "it is not known yet whether it is probed")
		p.set(probedKey, federation.ProbePlan{}, "")
		require.EqualValues(t, 1, wakes.Load(), "who asked is told")
		require.Equal(t, federation.Fit, judge(p, "eks", federation.Suspected).Verdict, "who is not probed is not suspected")
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		p.set(probedKey, probePlan("gke"), "token")
		before := n.count("eks", "eks")
		time.Sleep(10 * time.Second)
		require.Equal(t, before, n.count("eks", "eks"))
		p.forget(probedKey)
		before = n.count("gke", "gke")
		time.Sleep(10 * time.Second)
		require.Equal(t, before, n.count("gke", "gke"))
		require.Empty(t, p.doubts)
		require.Empty(t, p.lanes)
	})
}

// What has been seen outlives a new address, and not a new probe.
func TestWhatWasSeenStaysWhileTheProbeIsTheSame(t *testing.T) {
	probing(t, func(t *testing.T, p *prober, _ *network, _ *atomic.Int64) {
		p.set(probedKey, probePlan("eks", "gke"), "token")
		time.Sleep(10 * time.Second)
		moved := probePlan("eks", "gke")
		moved.Targets[0].Direct.Address = "elsewhere"
		p.set(probedKey, moved, "token")
		require.Equal(t, federation.SeenWell, p.signal(probedKey, "eks", "").Hub.Sight)
		moved.Probe = &v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/other"}}
		p.set(probedKey, moved, "token")
		require.Equal(t, federation.SeenNothing, p.signal(probedKey, "eks", "").Hub.Sight)
	})
}

func TestSpreadOutStaysWithinATenth(t *testing.T) {
	for range 1000 {
		require.InDelta(t, float64(time.Second), float64(spreadOut(time.Second)), math.Ceil(float64(time.Second)/10))
	}
}
