// SPDX-License-Identifier: Apache-2.0

package federation

import "isthmus.dev/isthmus/api/v1alpha1"

// Verdict says whether a service is fit to serve in a cluster.
type Verdict string

const (
	// Fit takes its share.
	Fit Verdict = "Fit"
	// Unfit takes none while any other cluster is fit: it is known to have nothing that could serve.
	Unfit Verdict = "Unfit"
	// Suspected takes none while any other cluster is fit: the probes say that it does not serve, or a metric that it does
	// not serve well. Of these the guard lets only a part be taken out.
	Suspected Verdict = "Suspected"
	// Unknown is neither good nor bad: whatever was decided before stays.
	Unknown Verdict = "Unknown"
)

// out tells whether a verdict takes the share away.
func (v Verdict) out() bool { return v == Unfit || v == Suspected }

// Signals is what is known of one service in one cluster.
type Signals struct {
	// Seen is whether the cluster's contents have been read in this process.
	Seen bool
	// ReadyEndpoints is the number of ready endpoints when last seen.
	ReadyEndpoints int
	// Reachable is whether the cluster's API server answers now.
	Reachable bool
	// Probe is what the probes say; nil where none is configured.
	Probe *ProbeSignal
	// Metric is what a metric says; nil where none is asked for.
	Metric *MetricSignal
	// Before is the verdict that was last acted on; empty where there was none.
	Before Verdict
}

// Finding is a verdict and why.
type Finding struct {
	Verdict Verdict
	Reason  string
	Message string
}

// Serving tells whether the service takes traffic under this finding, given what was last acted on: what is
// unknown stays as it was, and what was never judged is taken to serve, since refusing it could only lose requests.
func (f Finding) Serving(before Verdict) bool {
	if f.Verdict == Unknown {
		return !before.out()
	}
	return f.Verdict == Fit
}

// healthCheck looks at the signals and returns a finding, or nil when it has nothing to say.
type healthCheck func(Signals) *Finding

// Reasons of findings of which a route's condition Probed speaks.
const (
	reasonProbeAwaited = v1alpha1.ReasonProbeAwaited
	reasonGuardHolds   = v1alpha1.ReasonGuardHolds
	reasonHubLinkBad   = v1alpha1.ReasonHubLinkBad
	reasonNoPeerToAsk  = v1alpha1.ReasonNoPeerToAsk

	reasonMetricAwaited = v1alpha1.ReasonMetricAwaited
)

// healthChecks in their order; the first finding holds. The probes and the metric are asked only about a cluster that has
// endpoints, and have a say only once they have been well somewhere ("proven"). An ill metric is a suspicion like ill probes,
// whatever these say: who answers a probe may fail what is asked of it.
//
//	contents | API server | ready endpoints | hub's probe | through a peer | finding
//	not seen | any        | any             | any         | any            | Unknown NotSynced: kept as before
//	seen     | reachable  | 0               | any         | any            | Unfit NoReadyEndpoints
//	seen     | lost       | 0 when last seen| any         | any            | Unfit NoReadyEndpointsLastKnown: nothing says that it came back
//	seen     | any        | some            | none        | none           | Unknown ProbeAwaited where it was Suspected; else as without probes
//	seen     | any        | some            | ill         | ill            | Suspected; Unknown GuardHolds where too many are and it is not out yet
//	seen     | any        | some            | any, and its metric is ill   | Suspected MetricIll; Unknown GuardHolds as above
//	seen     | any        | some            | any, its metric is not known | Unknown MetricAwaited where it was Suspected; else as without it
//	seen     | any        | some            | ill         | well           | Fit HubLinkBad: the link from the hub is bad
//	seen     | any        | some            | ill         | none           | Suspected where the hub's word is enough, else Unknown NoPeerToAsk
//	  … not to be acted on, and it was Unfit before: Fit
//	seen     | lost       | some            | well, none  | any            | Fit LastKnown: losing the API server is not losing the traffic
//	seen     | reachable  | some            | well, none  | any            | Fit ReadyEndpoints
var healthChecks = []healthCheck{notYetSeen, knownEmpty, lastKnownEmpty,
	probeAwaited, guardHolds, suspected, metricIll, metricAwaited, hubLinkBad, hubsWordAlone, noPeerToAsk, lastKnownReady, ready}

// Judge runs the checks.
func Judge(s Signals) Finding {
	for _, check := range healthChecks {
		if f := check(s); f != nil {
			return *f
		}
	}
	return Finding{Unknown, "NoSignal", "nothing is known"}
}

func notYetSeen(s Signals) *Finding {
	if s.Seen {
		return nil
	}
	return &Finding{Unknown, "NotSynced", "the cluster's contents have not been read yet, so it is kept as it was"}
}

func knownEmpty(s Signals) *Finding {
	if s.ReadyEndpoints > 0 || !s.Reachable {
		return nil
	}
	return &Finding{Unfit, "NoReadyEndpoints", "no endpoint is ready"}
}

func lastKnownEmpty(s Signals) *Finding {
	if s.ReadyEndpoints > 0 {
		return nil
	}
	return &Finding{Unfit, "NoReadyEndpointsLastKnown", "no endpoint was ready when its API server was last reached"}
}

// probeAwaited keeps out what was taken out by the probes of a process that is gone, until those of this one say more.
func probeAwaited(s Signals) *Finding {
	if s.Before != Suspected || s.Probe == nil || s.Probe.speaks() || s.Probe.Peer.Sight == SeenWell {
		return nil
	}
	return &Finding{Unknown, reasonProbeAwaited, "it was taken out by its probes, and stays so until they have been made again"}
}

// guardHolds keeps what would be taken out. Who is out already stays so by what is seen of it: else what is said of it would
// change whenever the guard does.
func guardHolds(s Signals) *Finding {
	switch {
	case s.Before == Suspected:
		return nil
	case s.Probe.suspects() && s.Probe.Held != "":
		return s.unmoved(reasonGuardHolds, s.Probe.said(), s.Probe.Held)
	case s.Metric.suspects() && s.Metric.Held != "":
		return s.unmoved(reasonGuardHolds, s.Metric.said(), s.Metric.Held)
	}
	return nil
}

func suspected(s Signals) *Finding {
	if !s.Probe.suspects() || s.Probe.Peer.Sight != SeenIll {
		return nil
	}
	return &Finding{Suspected, "ProbesFail", "its probes fail " + s.Probe.said()}
}

func metricIll(s Signals) *Finding {
	if !s.Metric.suspects() {
		return nil
	}
	return &Finding{Suspected, "MetricIll", "its metric is ill: " + s.Metric.said()}
}

// metricAwaited is probeAwaited of the metric.
func metricAwaited(s Signals) *Finding {
	if s.Before != Suspected || s.Metric == nil || s.Metric.known() {
		return nil
	}
	return &Finding{Unknown, reasonMetricAwaited, "it was taken out on suspicion, and stays so until its " + s.Metric.Name +
		" has been asked for often enough: see the condition MetricAnswered of its policy"}
}

func hubLinkBad(s Signals) *Finding {
	if !s.Probe.hubSaysIll() || s.Probe.Peer.Sight != SeenWell {
		return nil
	}
	return &Finding{Fit, reasonHubLinkBad, "it serves, and the hub's own way to its gateway is bad: " + s.Probe.said()}
}

func hubsWordAlone(s Signals) *Finding {
	if !s.Probe.suspects() {
		return nil
	}
	return &Finding{Suspected, "HubProbeFails", "its probe fails " + s.Probe.said() + ", and its policy says that the hub's word is enough"}
}

func noPeerToAsk(s Signals) *Finding {
	if !s.Probe.hubSaysIll() {
		return nil
	}
	return s.unmoved(reasonNoPeerToAsk, "its probe fails "+s.Probe.said(), "no other cluster can be asked")
}

// unmoved is the finding where a suspicion is not acted on. Who was out because it was empty, and is so no more, is not kept out
// by it either: nobody else might serve, and a hub that starts again would let it return.
func (s Signals) unmoved(reason, seen, why string) *Finding {
	if s.Before == Unfit {
		return &Finding{Fit, reason, seen + ", which does not count: " + why}
	}
	return &Finding{Unknown, reason, seen + ", and it is kept as it was: " + why}
}

func lastKnownReady(s Signals) *Finding {
	if s.Reachable {
		return nil
	}
	return &Finding{Fit, "LastKnown", "its API server is not reachable, which says nothing of its traffic"}
}

func ready(Signals) *Finding {
	return &Finding{Fit, "ReadyEndpoints", "endpoints are ready"}
}
