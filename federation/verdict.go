// SPDX-License-Identifier: Apache-2.0

package federation

// Verdict says whether a service is fit to serve in a cluster.
type Verdict string

const (
	// Fit takes its share.
	Fit Verdict = "Fit"
	// Unfit takes none while any other cluster is fit.
	Unfit Verdict = "Unfit"
	// Unknown is neither good nor bad: whatever was decided before stays.
	Unknown Verdict = "Unknown"
)

// Signals is what is known of one service in one cluster.
type Signals struct {
	// Seen is whether the cluster's contents have been read in this process.
	Seen bool
	// ReadyEndpoints is the number of ready endpoints when last seen.
	ReadyEndpoints int
	// Reachable is whether the cluster's API server answers now.
	Reachable bool
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
		return before != Unfit
	}
	return f.Verdict == Fit
}

// healthCheck looks at the signals and returns a finding, or nil when it has nothing to say.
type healthCheck func(Signals) *Finding

// healthChecks in their order; the first finding holds.
//
//	contents seen | API server | ready endpoints | finding
//	no            | any        | any             | Unknown NotSynced: kept as before
//	yes           | reachable  | 0               | Unfit NoReadyEndpoints
//	yes           | lost       | 0 when last seen| Unfit NoReadyEndpointsLastKnown: nothing says that it came back
//	yes           | lost       | some            | Fit LastKnown: losing the API server is not losing the traffic
//	yes           | reachable  | some            | Fit ReadyEndpoints
var healthChecks = []healthCheck{notYetSeen, knownEmpty, lastKnownEmpty, lastKnownReady, ready}

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

func lastKnownReady(s Signals) *Finding {
	if s.Reachable {
		return nil
	}
	return &Finding{Fit, "LastKnown", "its API server is not reachable, which says nothing of its traffic"}
}

func ready(Signals) *Finding {
	return &Finding{Fit, "ReadyEndpoints", "endpoints are ready"}
}
