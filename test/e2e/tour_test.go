// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/lab/tour"
	"isthmus.dev/isthmus/test/labtest"
)

// TestTheTourShowsWhatHappens runs the steps that change something in the hub and in a member; the others differ only
// in what they break.
func TestTheTourShowsWhatHappens(t *testing.T) {
	settle(t, labtest.Hello(t, "eks"))
	said := runTour(context.Background(), t, "split", "policy", "failover")
	t.Log(said)
	require.Contains(t, said, "$ kubectl --context eks -n sample scale deployment helloworld --replicas 0\n")
	require.Contains(t, said, "eks 0 (Unfit) gke 100 (Policy)")
	require.Contains(t, said, "The lab is as the tour found it")
	require.NotContains(t, said, "putting back")
	require.NotContains(t, said, "awaited:", "something expected did not come")
	require.Equal(t, 5, strings.Count(said, "=> "))
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
}

// TestAnInterruptedTourLeavesTheLabAsItWas interrupts it while a member is cut off.
func TestAnInterruptedTourLeavesTheLabAsItWas(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		labtest.ExpectMember(t, "gke", v1alpha1.MemberConnected, metav1.ConditionFalse)
		cancel()
	}()
	said := runTour(ctx, t, "partition")
	<-lost
	require.Contains(t, said, "putting back: isthmus-lab fault heal gke\n")
	labtest.ExpectMember(t, "gke", v1alpha1.MemberConnected, metav1.ConditionTrue)
	settle(t, labtest.Hello(t, "eks"))
}

// runTour runs steps unattended and returns what was printed.
func runTour(ctx context.Context, t *testing.T, steps ...string) string {
	t.Helper()
	nobody, err := os.Open(os.DevNull)
	require.NoError(t, err)
	out, err := os.Create(filepath.Join(t.TempDir(), "tour"))
	require.NoError(t, err)
	require.NoError(t, tour.Run(ctx, tour.Options{Lab: labtest.Lab, In: nobody, Out: out, Steps: steps, Auto: true, Pace: time.Nanosecond}))
	require.NoError(t, nobody.Close())
	require.NoError(t, out.Close())
	said, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return string(said)
}
