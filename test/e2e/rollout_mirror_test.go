// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/labtest"
)

// TestMirroring tells the story of examples/canary/mirror.yaml: what is sent is counted at the clients, and what arrives at the new
// version, whose answers, which are all errors, reach nobody.
func TestMirroring(t *testing.T) {
	readyToRollOut(t)
	for _, member := range labtest.Members {
		labtest.TellPods(t, member, labtest.NewVersion, "failing", 1)
	}
	beginRollout(t, "mirror.yaml")
	for _, step := range []struct {
		percent int
		// counted are the requests at each gateway.
		counted map[string]int
	}{{20, map[string]int{"eks": thorough, "gke": requests}}, {100, map[string]int{"eks": requests, "gke": requests}}} {
		labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool {
			return s.Phase == v1alpha1.RolloutPaused && s.Weight == 0 && int(s.Mirror) == step.percent
		})
		for _, member := range labtest.Members {
			settleMirror(t, member, step.percent)
			expectMirrored(t, member, step.counted[member], float64(step.percent)/100)
		}
		if step.percent < 100 {
			labtest.SayToRollout(t, v1alpha1.VerbPromote, "mirror all")
		}
	}
	labtest.ExpectSides(t, everybodyAt(0))
}

// settleMirror waits until a gateway mirrors roughly so many of a hundred requests: written is not yet in the proxy.
func settleMirror(t *testing.T, member string, percent int) {
	t.Helper()
	labtest.Eventually(t, func() error {
		before := labtest.Arrived(t, member, labtest.NewVersion)
		sent := labtest.Version(t, member).Count(200)
		if arrived := labtest.Arrived(t, member, labtest.NewVersion) - before; sent.Failures() > 0 || arrived < percent || arrived > 3*percent {
			return fmt.Errorf("%s: %d arrived of %s", member, arrived, sent)
		}
		return nil
	})
}

// expectMirrored counts n requests at a gateway and how many of them arrive at the new version of its cluster, of which the share is to be
// within five standard deviations. A copy may arrive after the answer.
func expectMirrored(t *testing.T, member string, n int, share float64) {
	t.Helper()
	before := labtest.Arrived(t, member, labtest.NewVersion)
	sent := labtest.Version(t, member).Count(n)
	require.Zero(t, sent.Failures(), sent)
	require.Zero(t, sent.ByServer["next"], "an answer of the mirror reached a client: %s", sent)
	arrived := 0
	labtest.Eventually(t, func() error {
		arrived = labtest.Arrived(t, member, labtest.NewVersion) - before
		if off := math.Abs(float64(arrived) - float64(n)*share); off > 5*math.Sqrt(float64(n)*share*(1-share)) {
			return fmt.Errorf("%s: %d arrived of %d, and %.0f %% were to", member, arrived, n, 100*share)
		}
		return nil
	})
	t.Logf("%s: %d arrived of %s", member, arrived, sent)
}
