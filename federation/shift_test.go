// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// shares makes the status of a member's plan of cluster, reason, message, …
func shares(summary string, text ...string) v1alpha1.RoutePlanStatus {
	var rule v1alpha1.PlannedRule
	for i := 0; i < len(text); i += 3 {
		rule.Backends = append(rule.Backends, v1alpha1.PlannedBackend{Import: "sample/shop", Cluster: text[i], Reason: text[i+1], Message: text[i+2]})
	}
	return v1alpha1.RoutePlanStatus{Member: "eks", Summary: summary, Rules: []v1alpha1.PlannedRule{rule}}
}

func TestWhyASplitChanged(t *testing.T) {
	for _, test := range [][3]string{
		{"Policy", "Drained", "Drained"}, {"Unfit", "Drained", "Drained"},
		{"Drained", "Policy", "Undrained"}, {"Drained", "Unfit", "Undrained"},
		{"Policy", "Unfit", "FailedOver"}, {"Unfit", "Policy", "FailedBack"},
		{"Policy", "Suspected", "FailedOver"}, {"Suspected", "Policy", "FailedBack"}, {"Suspected", "Unfit", "WeightsChanged"},
		{"Unfit", "Unfit", "WeightsChanged"}, {"Policy", "Policy", "WeightsChanged"},
	} {
		shift, shifted := ShiftOf(shares("before", "eks", test[0], ""), shares("after", "eks", test[1], ""))
		require.True(t, shifted)
		require.Equal(t, test[2], shift.Reason, "%s to %s", test[0], test[1])
	}
}

func TestWhatMovedNothingIsNoShift(t *testing.T) {
	_, shifted := ShiftOf(shares("same", "eks", "Policy", ""), shares("same", "eks", "Standby", ""))
	require.False(t, shifted)
}

func TestAnotherWordForTheSameVerdictIsNoFailover(t *testing.T) {
	shift, _ := ShiftOf(shares("a", "gke", "Unfit", "no endpoint is ready"), shares("b", "gke", "Unfit", "no endpoint was ready when last seen"))
	require.Equal(t, v1alpha1.ShiftWeightsChanged, shift.Reason)
}

func TestExplainShift(t *testing.T) {
	is := shares("gke 100.00%", "eks", "Unfit", "no endpoint is ready", "gke", "Policy", "p")
	shift, _ := ShiftOf(shares(""), is)
	require.Equal(t, "requests that enter eks: gke 100.00% (eks: no endpoint is ready)", shift.Explain())
	shift, _ = ShiftOf(shares("eks 100.00%", "eks", "Policy", "p"), is)
	require.Equal(t, "requests that enter eks: gke 100.00%, before: eks 100.00% (eks: no endpoint is ready)", shift.Explain())
	shift, _ = ShiftOf(is, shares("eks 100.00%", "eks", "Policy", "endpoints are ready"))
	require.Equal(t, "requests that enter eks: eks 100.00%, before: gke 100.00%", shift.Explain())
	require.Equal(t, []Observation{{Import: "sample/shop", Cluster: "eks", Reason: "Policy", Message: "endpoints are ready"}}, shift.Seen)
}
