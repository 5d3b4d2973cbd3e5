// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each row of the table above healthChecks.
func TestJudge(t *testing.T) {
	tests := map[string]struct {
		signals Signals
		verdict Verdict
		reason  string
	}{
		"not seen, reachable, some":    {Signals{Reachable: true, ReadyEndpoints: 2}, Unknown, "NotSynced"},
		"not seen, reachable, none":    {Signals{Reachable: true}, Unknown, "NotSynced"},
		"not seen, lost":               {Signals{}, Unknown, "NotSynced"},
		"seen, reachable, none":        {Signals{Seen: true, Reachable: true}, Unfit, "NoReadyEndpoints"},
		"seen, lost, none when seen":   {Signals{Seen: true}, Unfit, "NoReadyEndpointsLastKnown"},
		"seen, lost, some when seen":   {Signals{Seen: true, ReadyEndpoints: 1}, Fit, "LastKnown"},
		"seen, reachable, some":        {Signals{Seen: true, Reachable: true, ReadyEndpoints: 1}, Fit, "ReadyEndpoints"},
		"what was before is no signal": {Signals{Seen: true, Reachable: true, ReadyEndpoints: 1, Before: Unfit}, Fit, "ReadyEndpoints"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := Judge(test.signals)
			require.Equal(t, test.verdict, f.Verdict)
			require.Equal(t, test.reason, f.Reason)
			require.NotEmpty(t, f.Message)
		})
	}
}

func TestServing(t *testing.T) {
	tests := []struct {
		verdict, before Verdict
		serving         bool
	}{
		{Fit, "", true}, {Fit, Unfit, true}, {Unfit, "", false}, {Unfit, Fit, false},
		// What is unknown stays as it was, and what was never judged is taken to serve.
		{Unknown, "", true}, {Unknown, Fit, true}, {Unknown, Unfit, false},
	}
	for _, test := range tests {
		require.Equal(t, test.serving, Finding{Verdict: test.verdict}.Serving(test.before), "%s after %q", test.verdict, test.before)
	}
}
