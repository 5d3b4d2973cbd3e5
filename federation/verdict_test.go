// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each row of the table above healthChecks, and which row goes before which.
func TestJudge(t *testing.T) {
	seen := func(change func(*Signals)) Signals {
		s := Signals{Seen: true, Reachable: true, ReadyEndpoints: 2}
		change(&s)
		return s
	}
	probed := func(hub, peer Seen, change func(*Signals)) Signals {
		return seen(func(s *Signals) {
			s.Probe = &ProbeSignal{Proven: true, ProbeState: ProbeState{Hub: Streak{Sight: hub, Said: "timeout"}, Peer: Streak{Sight: peer, Said: "through gke: 503"}}}
			change(s)
		})
	}
	as := func(*Signals) {}
	was := func(v Verdict) func(*Signals) { return func(s *Signals) { s.Before = v } }
	lost := func(s *Signals) { s.Reachable = false }
	empty := func(s *Signals) { s.ReadyEndpoints = 0 }
	held := func(s *Signals) { s.Probe.Held = "most clusters are suspected" }
	alone := func(s *Signals) { s.Probe.HubsWordIsEnough = true }
	unproven := func(s *Signals) { s.Probe.Proven = false }
	both := func(a, b func(*Signals)) func(*Signals) { return func(s *Signals) { a(s); b(s) } }
	tests := map[string]struct {
		signals Signals
		verdict Verdict
		reason  string
	}{
		"not seen, reachable, some":     {Signals{Reachable: true, ReadyEndpoints: 2}, Unknown, "NotSynced"},
		"not seen, reachable, none":     {Signals{Reachable: true}, Unknown, "NotSynced"},
		"not seen, lost":                {Signals{}, Unknown, "NotSynced"},
		"seen, reachable, none":         {seen(empty), Unfit, "NoReadyEndpoints"},
		"seen, lost, none when seen":    {seen(both(lost, empty)), Unfit, "NoReadyEndpointsLastKnown"},
		"seen, lost, some when seen":    {seen(lost), Fit, "LastKnown"},
		"seen, reachable, some":         {seen(as), Fit, "ReadyEndpoints"},
		"what was before is no signal":  {seen(was(Unfit)), Fit, "ReadyEndpoints"},
		"suspected, and probed no more": {seen(was(Suspected)), Fit, "ReadyEndpoints"},

		"both see well":                       {probed(SeenWell, SeenNothing, as), Fit, "ReadyEndpoints"},
		"well again":                          {probed(SeenWell, SeenNothing, was(Suspected)), Fit, "ReadyEndpoints"},
		"both see ill":                        {probed(SeenIll, SeenIll, as), Suspected, "ProbesFail"},
		"both see ill, API server lost":       {probed(SeenIll, SeenIll, lost), Suspected, "ProbesFail"},
		"the hub sees ill, a peer well":       {probed(SeenIll, SeenWell, as), Fit, "HubLinkBad"},
		"the same, and it was out":            {probed(SeenIll, SeenWell, was(Suspected)), Fit, "HubLinkBad"},
		"the hub sees ill, nobody to ask":     {probed(SeenIll, SeenNothing, as), Unknown, "NoPeerToAsk"},
		"the same, and the hub is enough":     {probed(SeenIll, SeenNothing, alone), Suspected, "HubProbeFails"},
		"a peer's word beats the hub's":       {probed(SeenIll, SeenWell, alone), Fit, "HubLinkBad"},
		"API server lost, the hub sees well":  {probed(SeenWell, SeenNothing, lost), Fit, "LastKnown"},
		"empty beats what probes see":         {probed(SeenWell, SeenWell, empty), Unfit, "NoReadyEndpoints"},
		"empty beats the guard":               {probed(SeenIll, SeenIll, both(held, empty)), Unfit, "NoReadyEndpoints"},
		"the guard holds":                     {probed(SeenIll, SeenIll, held), Unknown, "GuardHolds"},
		"the guard holds the hub's word":      {probed(SeenIll, SeenNothing, both(held, alone)), Unknown, "GuardHolds"},
		"the guard needs not hold a bad link": {probed(SeenIll, SeenWell, held), Fit, "HubLinkBad"},
		"never succeeded anywhere":            {probed(SeenIll, SeenIll, unproven), Fit, "ReadyEndpoints"},
		"the same after a restart":            {probed(SeenIll, SeenIll, both(unproven, was(Suspected))), Unknown, "ProbeAwaited"},
		"no look yet":                         {probed(SeenNothing, SeenNothing, as), Fit, "ReadyEndpoints"},
		"no look yet, and it was out":         {probed(SeenNothing, SeenNothing, was(Suspected)), Unknown, "ProbeAwaited"},
		"no look yet, and it was empty":       {probed(SeenNothing, SeenNothing, was(Unfit)), Fit, "ReadyEndpoints"},
		"only a peer can look, and sees well": {probed(SeenNothing, SeenWell, was(Suspected)), Fit, "ReadyEndpoints"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := Judge(test.signals)
			require.Equal(t, test.reason, f.Reason)
			require.Equal(t, test.verdict, f.Verdict)
			require.NotEmpty(t, f.Message)
		})
	}
	require.Equal(t, "its probes fail from the hub: timeout; through gke: 503", Judge(probed(SeenIll, SeenIll, as)).Message)
}

func TestServing(t *testing.T) {
	tests := []struct {
		verdict, before Verdict
		serving         bool
	}{
		{Fit, "", true}, {Fit, Unfit, true}, {Unfit, "", false}, {Unfit, Fit, false},
		// What is unknown stays as it was, and what was never judged is taken to serve.
		{Unknown, "", true}, {Unknown, Fit, true}, {Unknown, Unfit, false},
		{Fit, Suspected, true}, {Suspected, Fit, false}, {Suspected, "", false}, {Unknown, Suspected, false},
	}
	for _, test := range tests {
		require.Equal(t, test.serving, Finding{Verdict: test.verdict}.Serving(test.before), "%s after %q", test.verdict, test.before)
	}
}
