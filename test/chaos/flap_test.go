// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A return before its hold is found, and each return doubles the next hold, until the cluster was left alone for long.
func TestReturnsWaitForTheirHolds(t *testing.T) {
	at := clock()
	f := &flap{back: []time.Time{at(10), at(20), at(40)}}
	gke := func(s float64, weight int32) change {
		return change{at(s), "eks", map[string]int32{"eks": 10000 - weight, "gke": weight}}
	}
	first := []change{gke(5, 0), gke(12, 1000), gke(14, 2000), gke(16, 0)}
	require.NoError(t, f.checkHolds(first))
	require.NoError(t, f.checkHolds(append(first, gke(24, 1000))))
	require.ErrorContains(t, f.checkHolds(append(first, gke(23.9, 1000))), "2. return 3.9s after its endpoints, and its hold is 4s")
	require.ErrorContains(t, f.checkHolds([]change{gke(5, 0), gke(11.9, 1000)}), "1. return")
	require.NoError(t, f.checkHolds(append(first, gke(24, 2000), gke(35, 0), gke(42, 1000))), "whole for maxHold, and forgiven")
}

// The bound of docs/reference/health.md: a hold of 2 s is doubled three times to 10 s.
func TestMostWrites(t *testing.T) {
	require.Equal(t, 2*(1+4*3), mostWrites(0))
	require.Equal(t, 2*(1+16*3), mostWrites(30*time.Second))
}
