// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/labtest"
)

func drainFaults() []Fault {
	everywhere := labtest.Everywhere
	return []Fault{
		{Name: "gke drained, and back", Lost: "gke", Lasts: 4 * time.Second, Weights: everywhere(100, 0), Do: drain("gke"), Undo: undrain("gke")},
		{Name: "eks drained while gke has no pods", Lost: "gke", Lasts: 4 * time.Second, Weights: everywhere(100, 0),
			Do: func(ctx context.Context, t testing.TB) error {
				err := both(scale(0, "gke"), drain("eks"))(ctx, t)
				expectDrain(t, "eks", v1alpha1.ReasonDrainBlocked)
				return err
			},
			// The drain is done when another can serve, and has for its hold.
			Undo: func(ctx context.Context, t testing.TB) error {
				err := scale(2, "gke")(ctx, t)
				labtest.ExpectWeights(t, "helloworld", everywhere(0, 100))
				return errors.Join(err, undrain("eks")(ctx, t))
			}},
		// Proxies do not go to a drained cluster by themselves: a person has said so, and what they cannot serve waits for the hub.
		{Name: "pods of eks go while gke is drained", Gap: true, Lost: "eks", Lasts: 4 * time.Second, Weights: everywhere(0, 100),
			Prepare: func(ctx context.Context, t testing.TB) error {
				err := drain("gke")(ctx, t)
				labtest.ExpectWeights(t, "helloworld", everywhere(100, 0))
				return err
			},
			Do: scale(0, "eks"), Undo: both(undrain("gke"), scale(2, "eks"))},
		{Name: "gke drained and back, gone and back, over and over", Rate: 280, Requests: 100_000, Do: drainThenLose, Undo: scale(2, "gke")},
	}
}

// drainThenLose drains gke and lets it return, then takes its pods away.
func drainThenLose(ctx context.Context, t testing.TB) error {
	t.Cleanup(func() { _ = undrain("gke")(context.WithoutCancel(ctx), t) })
	for _, to := range []struct {
		do      step
		weights map[string]map[string]int32
	}{
		{drain("gke"), labtest.Everywhere(100, 0)},
		{undrain("gke"), labtest.Everywhere(80, 20)},
		{scale(0, "gke"), labtest.Everywhere(100, 0)},
	} {
		if err := to.do(ctx, t); err != nil {
			return err
		}
		labtest.ExpectWeights(t, "helloworld", to.weights)
	}
	return nil
}

// drain is a person's word, and undrain takes it back.
func drain(cluster string) step {
	return func(ctx context.Context, t testing.TB) error {
		return labtest.Cluster(t, "hub").Create(ctx, drainOf(cluster))
	}
}

func undrain(cluster string) step {
	return func(ctx context.Context, t testing.TB) error {
		return client.IgnoreNotFound(labtest.Cluster(t, "hub").Delete(ctx, drainOf(cluster)))
	}
}

func drainOf(cluster string) *v1alpha1.TrafficOverride {
	return &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "chaos-drain-" + cluster}, Spec: v1alpha1.TrafficOverrideSpec{
		Type: v1alpha1.OverrideDrain, Cluster: cluster, Author: "chaos@example.com", Reason: "chaos suite"}}
}

// expectDrain waits until it is said of a drain that it is not done, for this reason.
func expectDrain(t testing.TB, cluster, reason string) {
	t.Helper()
	labtest.Eventually(t, func() error {
		o := drainOf(cluster)
		if err := labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.OverrideDrained); c == nil || c.Reason != reason {
			return fmt.Errorf("the drain of %s says %+v, and not %s", cluster, c, reason)
		}
		return nil
	})
}
