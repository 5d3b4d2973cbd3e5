// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

// thorough is how many requests of a split are counted where it is looked at closely: the standard deviation at 10 to 90 is 30 of them.
const thorough = 10000

// sample is how the example splits over the clusters, in percent.
var sample = map[string]int32{"eks": 80, "gke": 20}

// TestRollouts tells the stories of examples/canary, with requests at both gateways all the while, none of which fails.
func TestRollouts(t *testing.T) {
	readyToRollOut(t)
	for _, story := range []struct {
		name string
		tell func(*testing.T)
		// end, without load, of what ends otherwise than by the rollout's own deletion.
		end func(*testing.T)
	}{
		{"canary", canaryStory, nil}, {"hub killed in the middle of a step", restartStory, nil}, {"waves", wavesStory, nil},
		{"blue-green", blueGreenStory, nil}, {"move", moveStory, endMove},
	} {
		t.Run(story.name, func(t *testing.T) {
			stop := underLoad(t)
			story.tell(t)
			stop()
			if story.end != nil {
				story.end(t)
			}
		})
	}
}

// readyToRollOut makes the example's split what it is to be, and the new version ready beside the old one.
func readyToRollOut(t *testing.T) {
	t.Helper()
	labtest.SetPolicy(t, sample["eks"], sample["gke"])
	labtest.ShipNewVersion(t)
	for _, member := range labtest.Members {
		labtest.TellPods(t, member, labtest.NewVersion, "well", 1) // a run that was interrupted may have left it ill
	}
	labtest.ExpectSides(t, everybodyAt(0))
}

// underLoad sends requests to every gateway until the returned function is called, or the test ends; none of them may fail.
func underLoad(t *testing.T) (stop func()) {
	t.Helper()
	loads := map[string]func() *labtest.Tally{}
	for _, member := range labtest.Members {
		loads[member] = labtest.Version(t, member).UnderLoad()
	}
	stop = sync.OnceFunc(func() {
		for member, load := range loads {
			tally := load()
			t.Logf("%s: %s", member, tally)
			assert.Zero(t, tally.Failures(), tally)
		}
	})
	t.Cleanup(stop)
	return stop
}

// beginRollout begins a rollout. At the end, whatever happens, it is gone, and everything is as the policy says.
func beginRollout(t *testing.T, file string) {
	t.Helper()
	t.Cleanup(func() { labtest.ExpectSides(t, everybodyAt(0)) })
	labtest.BeginRollout(t, file)
}

// everybodyAt are the weights when the rollout is as far in every cluster.
func everybodyAt(percent int32) map[labtest.Backend]int32 {
	return labtest.SidesAt(sample, map[string]int32{"eks": percent, "gke": percent})
}

func canaryStory(t *testing.T) {
	beginRollout(t, "canary.yaml")
	browser := labtest.Version(t, "gke").KeepingCookies(t)
	for i, percent := range []int32{10, 30, 50} {
		if i > 0 {
			labtest.SayToRollout(t, v1alpha1.VerbPromote, fmt.Sprint(percent))
		}
		labtest.ExpectRollout(t, v1alpha1.RolloutPaused, percent)
		labtest.ExpectSides(t, everybodyAt(percent))
		settleAt(t, percent)
		labtest.Version(t, "eks").ExpectSplit(t, thorough, "next", float64(percent)/100)
		labtest.Version(t, "gke").ExpectSplit(t, requests, "next", float64(percent)/100)
		labtest.Version(t, "eks").With("X-Version", "next").ExpectOnly(t, "next", 50)
		if i == 0 {
			meetNext(t, browser)
		}
		require.Equal(t, 100, browser.Count(100).ByServer["next"], "who was answered by the new version stays there")
	}

	labtest.Scale(t, "eks", labtest.NewVersion, 0)
	expectProgrammed(t, "eks", labtest.NewVersion, "eks", 0)
	settleAt(t, 10)
	labtest.Version(t, "eks").ExpectSplit(t, requests, "next", 0.1)
	labtest.Scale(t, "eks", labtest.NewVersion, 1)
	labtest.ExpectSides(t, everybodyAt(50))

	loseAClusterUnderWay(t)
	labtest.ExpectSides(t, everybodyAt(100))
	for _, member := range labtest.Members {
		labtest.Version(t, member).ExpectOnly(t, "next", 100)
	}
	labtest.SayToRollout(t, v1alpha1.VerbAbort, "1")
	labtest.ExpectRollout(t, v1alpha1.RolloutDegraded, 0)
	expectNoNext(t, browser)
}

// loseAClusterUnderWay takes a cluster away, with both versions, while half is to be at the new one. It drops out, the other serves alone by
// its own step, and no further step is taken until it is back.
func loseAClusterUnderWay(t *testing.T) {
	t.Helper()
	for _, app := range []string{"helloworld", labtest.NewVersion} {
		labtest.SetReplicas(t, "eks", app, 0)
	}
	t.Cleanup(func() { labtest.Scale(t, "eks", "helloworld", 2) })
	labtest.ExpectSides(t, labtest.SidesAt(map[string]int32{"gke": 100}, map[string]int32{"gke": 50}))
	settleAt(t, 50)
	labtest.Version(t, "eks").ExpectSplit(t, requests, "next", 0.5)
	labtest.SayToRollout(t, v1alpha1.VerbPromote, "beyond")
	labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool {
		return s.Weight == 50 && strings.Contains(s.Message, "waits, at 50 %, for helloworld-v2 in eks: ")
	})
	t.Logf("%s", labtest.RolloutStatus(t).Message)
	labtest.Scale(t, "eks", "helloworld", 2)
	labtest.Scale(t, "eks", labtest.NewVersion, 1)
	labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool { return s.Phase == v1alpha1.RolloutHealthy })
}

// meetNext lets a browser ask until the new version answers it.
func meetNext(t *testing.T, browser *labtest.Requester) {
	t.Helper()
	labtest.Eventually(t, func() error {
		if version, err := browser.Send(context.Background()); err != nil || version != "next" {
			return errors.Join(err, fmt.Errorf("answered by %q", version))
		}
		return nil
	})
}

// settleAt waits until both gateways give the new version roughly its share: written is not yet in the proxy.
func settleAt(t *testing.T, percent int32) {
	t.Helper()
	for _, member := range labtest.Members {
		labtest.Eventually(t, func() error {
			if c := labtest.Version(t, member).Count(300); c.Failures() > 0 || c.ByServer["next"] < 300*(int(percent)-8)/100 || c.ByServer["next"] > 300*(int(percent)+8)/100 {
				return fmt.Errorf("%s is not at %d %%: %s", member, percent, c)
			}
			return nil
		})
	}
}

// restartStory kills the hub when one member has the next step's weights, and the other cannot be reached and has not.
func restartStory(t *testing.T) {
	ctx := context.Background()
	t.Cleanup(func() { require.NoError(t, labtest.Lab.Heal(ctx)) })
	beginRollout(t, "canary.yaml")
	labtest.ExpectRollout(t, v1alpha1.RolloutPaused, 10)
	stop := labtest.FollowRollout(t)
	require.NoError(t, labtest.Lab.Partition(ctx, "hub", "eks"))
	labtest.SayToRollout(t, v1alpha1.VerbPromote, "1")
	labtest.ExpectSidesIn(t, "gke", everybodyAt(30))
	labtest.ExpectSidesIn(t, "eks", everybodyAt(10))
	require.NoError(t, labtest.Lab.Kill(state.Hub, state.Hub))
	require.NoError(t, labtest.Lab.Heal(ctx))
	labtest.ExpectRollout(t, v1alpha1.RolloutPaused, 30)
	labtest.ExpectSides(t, everybodyAt(30))
	stop()
}

func wavesStory(t *testing.T) {
	beginRollout(t, "waves.yaml")
	stop := labtest.FollowRollout(t)
	labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool { return s.Phase == v1alpha1.RolloutHealthy })
	stop()
	labtest.Version(t, "eks").ExpectOnly(t, "next", 100)
	labtest.SayToRollout(t, v1alpha1.VerbAbort, "2")
	labtest.ExpectRollout(t, v1alpha1.RolloutDegraded, 0)
}

func blueGreenStory(t *testing.T) {
	beginRollout(t, "blue-green.yaml")
	labtest.ExpectRollout(t, v1alpha1.RolloutPaused, 0)
	for _, member := range labtest.Members {
		labtest.Version(t, member).With("X-Preview", "yes").ExpectOnly(t, "next", 50)
		expectNoNext(t, labtest.Version(t, member))
	}
	labtest.ExpectSides(t, everybodyAt(0))
	labtest.SayToRollout(t, v1alpha1.VerbPromote, "3")
	labtest.ExpectRollout(t, v1alpha1.RolloutPaused, 100)
	for _, member := range labtest.Members {
		labtest.Version(t, member).ExpectOnly(t, "next", 100)
	}
	labtest.SayToRollout(t, v1alpha1.VerbAbort, "3")
	labtest.ExpectRollout(t, v1alpha1.RolloutDegraded, 0)
	for _, member := range labtest.Members {
		expectNoNext(t, labtest.Version(t, member))
	}
}

// moveStory moves the old version from eks to gke, until nothing runs in eks.
func moveStory(t *testing.T) {
	beginRollout(t, "move.yaml")
	t.Cleanup(func() {
		labtest.Scale(t, "eks", "helloworld", 2)
		labtest.Apply(t, "eks", "split", "members", "base", "exports.yaml")
	})
	for _, share := range []int32{20, 40} { // a quarter and a half of the 80 of eks
		labtest.ExpectRollout(t, v1alpha1.RolloutPaused, share*100/80)
		labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80-share, 20+share))
		labtest.SayToRollout(t, v1alpha1.VerbPromote, fmt.Sprint(share))
	}
	labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool {
		return s.Phase == v1alpha1.RolloutHealthy && strings.Contains(s.Message, "delete the ServiceExport in eks")
	})
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(0, 100))
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "gke", 300)
	}
	labtest.Scale(t, "eks", "helloworld", 0)
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "gke", 300)
	}
}

// endMove deletes the export of the old cluster, and then the rollout.
func endMove(t *testing.T) {
	export := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld"}}
	require.NoError(t, labtest.Cluster(t, "eks").Delete(context.Background(), export))
	labtest.ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool { return s.Retired })
	labtest.EndRollout(t)
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "gke", 300)
	}
}

// expectNoNext waits until a hundred requests in a row are answered by the old version.
func expectNoNext(t *testing.T, r *labtest.Requester) {
	t.Helper()
	labtest.Eventually(t, func() error {
		if c := r.Count(100); c.ByServer["next"] > 0 || c.Failures() > 0 {
			return fmt.Errorf("not all by the old version: %s", c)
		}
		return nil
	})
}

// expectProgrammed waits until a member has programmed this weight for a service in a cluster.
func expectProgrammed(t *testing.T, member, service, cluster string, weight int32) {
	t.Helper()
	key := client.ObjectKey{Namespace: labtest.Sample, Name: federation.RoutePlanName("httproute", "helloworld", member)}
	labtest.Eventually(t, func() error {
		var plan v1alpha1.RoutePlan
		if err := labtest.Cluster(t, "hub").Get(context.Background(), key, &plan); err != nil {
			return err
		}
		for _, b := range plan.Status.Rules[0].Backends {
			if b.Import == labtest.Sample+"/"+service && b.Cluster == cluster && b.Weight == weight &&
				meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.PlanProgrammed) {
				return nil
			}
		}
		return fmt.Errorf("%s in %s has not %d in %s: %+v", service, cluster, weight, member, plan.Status)
	})
}
