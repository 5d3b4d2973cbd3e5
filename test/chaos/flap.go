// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/labtest"
)

// What the example's policy says of failback.
const (
	hold      = 2 * time.Second
	maxHold   = 10 * time.Second
	rampSteps = 2
)

// flap is endpoints of gke that come and go.
type flap struct {
	period time.Duration
	// back is each time at which they came.
	back []time.Time
}

// flapping takes all endpoints of gke away and gives them back, each for half of a period and until the hub has seen it,
// for half a minute.
func flapping(period time.Duration) Fault {
	f := &flap{period: period}
	return Fault{Name: fmt.Sprintf("endpoints of gke come and go every %s, %d times", period, f.times()), Bound: mostWrites, Also: f.checkHolds,
		Do: f.comeAndGo, Undo: endpoints("gke", true)}
}

func (f *flap) times() int { return int(30 * time.Second / f.period) }

func (f *flap) comeAndGo(ctx context.Context, t testing.TB) error {
	for range f.times() {
		if err := endpoints("gke", false)(ctx, t); err != nil {
			return err
		}
		expectOut(t, "gke")
		pause(ctx, t, f.period/2)
		f.back = append(f.back, time.Now())
		if err := endpoints("gke", true)(ctx, t); err != nil {
			return err
		}
		pause(ctx, t, f.period/2)
	}
	return nil
}

// mostWrites is how often the routes of all members are written at most, in so much time: by the bound on returns of
// docs/reference/health.md, each of which is followed by a leave.
func mostWrites(took time.Duration) int {
	doublings := math.Ceil(math.Log2(float64(maxHold) / float64(hold)))
	returns := int((1 + took.Seconds()/maxHold.Seconds()) * (1 + doublings))
	return len(labtest.Members) * (1 + returns*(rampSteps+1))
}

// checkHolds complains of a return that did not wait for its hold, which each return before it has doubled. A cluster that
// is left alone for maxHold may have been forgiven.
func (f *flap) checkHolds(changes []change) error {
	had, returns, last := map[string]int32{}, map[string]int{}, map[string]time.Time{}
	for _, member := range labtest.Members {
		had[member] = 1
	}
	for _, c := range changes {
		if c.at.Sub(last[c.member]) >= maxHold {
			returns[c.member] = 0
		}
		if had[c.member] == 0 && c.weights["gke"] > 0 {
			want := min(hold<<min(returns[c.member], 16), maxHold)
			if waited := c.at.Sub(f.lastBack(c.at)); waited < want {
				return fmt.Errorf("%s gave gke its %d. return %s after its endpoints, and its hold is %s", c.member, returns[c.member]+1, waited, want)
			}
			returns[c.member]++
		}
		had[c.member], last[c.member] = c.weights["gke"], c.at
	}
	return nil
}

// lastBack is when they came for the last time before.
func (f *flap) lastBack(before time.Time) (last time.Time) {
	for _, at := range f.back {
		if at.Before(before) {
			last = at
		}
	}
	return last
}

// endpoints of helloworld are there or not, from one moment to the next: the Service selects its pods, or none.
func endpoints(member string, there bool) step {
	also := `"none"`
	if there {
		also = "null"
	}
	return func(ctx context.Context, t testing.TB) error {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld"}}
		return labtest.Cluster(t, member).Patch(ctx, service, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"selector":{"chaos":`+also+`}}}`)))
	}
}

// expectOut waits until the hub has left a cluster, in every member: what it has not seen is no flapping to it.
func expectOut(t testing.TB, cluster string) {
	t.Helper()
	for _, member := range labtest.Members {
		key := client.ObjectKey{Namespace: labtest.Sample, Name: federation.RoutePlanName("httproute", "helloworld", member)}
		labtest.Eventually(t, func() error {
			var plan v1alpha1.RoutePlan
			if err := labtest.Cluster(t, "hub").Get(context.Background(), key, &plan); err != nil {
				return err
			}
			for _, b := range plan.Status.Rules[0].Backends {
				if b.Cluster == cluster && b.Health != nil && b.Health.Phase == v1alpha1.HealthOut {
					return nil
				}
			}
			return fmt.Errorf("%s is not out: %+v", cluster, plan.Status.Rules[0].Backends)
		})
	}
}
