// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

// Short are the faults of `make test`, All those of `make chaos`.
func Short() []Fault {
	return []Fault{scaledToZero(), cutOff()}
}

// All faults, in the order of the table.
func All() []Fault {
	everywhere := labtest.Everywhere
	return []Fault{
		scaledToZero(),
		{Name: "all pods of gke crash", Do: kill("gke", "sample/helloworld"), Undo: heal, Lasts: 6 * time.Second},
		{Name: "one of two pods of gke crashes", Still: true, Do: killOnePod, Undo: heal, Lasts: 6 * time.Second},
		{Name: "pods of gke come and go, three times", Lasts: 6 * time.Second, Do: flap, Undo: heal},
		{Name: "east-west gateway of gke crashes", Do: kill("gke", "isthmus-system/isthmus-east-west"), Undo: heal, Lasts: 6 * time.Second},
		{Name: "public gateway of gke crashes", Dead: "gke", Do: kill("gke", "sample/public"), Undo: heal, Lasts: 6 * time.Second},
		cutOff(),
		{Name: "gke cut off from eks only", Still: true, Lasts: 10 * time.Second, Undo: heal,
			Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, "gke", "eks") }},
		{Name: "gke cut off from the hub only", Still: true, Lasts: 15 * time.Second, Undo: heal,
			Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, "gke", "hub") }},
		{Name: "hub cut off from everything", Still: true, Lasts: 15 * time.Second, Undo: heal,
			Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, "hub") }},
		{Name: "hub killed", Still: true, Do: kill("hub", "hub"), Undo: heal, Lasts: 6 * time.Second},
		{Name: "API server of gke killed", Still: true, Do: kill("gke", state.APIServer), Undo: heal, Lasts: 10 * time.Second},
		{Name: "etcd of gke stalled", Still: true, Do: stop("gke", state.Etcd), Undo: heal, Lasts: 10 * time.Second},
		{Name: "istiod of gke killed", Still: true, Do: kill("gke", state.Istiod), Undo: heal, Lasts: 6 * time.Second},
		{Name: "clock of the hub 90 s ahead", Still: true, Undo: heal, Lasts: 6 * time.Second, Do: func(ctx context.Context, _ testing.TB) error {
			return labtest.Lab.MoveClock(ctx, "hub", "hub", 90*time.Second)
		}},
		{Name: "pods of gke go while the hub is frozen", Lasts: 6 * time.Second,
			Do: func(ctx context.Context, t testing.TB) error {
				err := stop("hub", "hub")(ctx, t)
				labtest.Scale(t, "gke", "helloworld", 0)
				return err
			},
			Undo: func(ctx context.Context, t testing.TB) error {
				labtest.Scale(t, "gke", "helloworld", 2)
				return heal(ctx, t)
			}},
		{Name: "gke drained, and back", Lost: "gke", Lasts: 4 * time.Second, Weights: everywhere(100, 0), Do: drain, Undo: undrain},
	}
}

func scaledToZero() Fault {
	return Fault{Name: "gke scaled to no pods", Lost: "gke", Weights: labtest.Everywhere(100, 0), Lasts: 4 * time.Second,
		Do: func(_ context.Context, t testing.TB) error { labtest.Scale(t, "gke", "helloworld", 0); return nil },
		Undo: func(_ context.Context, t testing.TB) error {
			labtest.Scale(t, "gke", "helloworld", 2)
			return nil
		}}
}

func cutOff() Fault {
	return Fault{Name: "gke cut off from everything", Still: true, Lost: "gke", Dead: "gke", Lasts: 10 * time.Second, Undo: heal,
		Do: func(ctx context.Context, _ testing.TB) error { return labtest.Lab.Partition(ctx, "gke") }}
}

// flap takes the pods away and gives them back. It goes on when they are there, and does not wait for weights.
func flap(_ context.Context, t testing.TB) error {
	for range 3 {
		labtest.Scale(t, "gke", "helloworld", 0)
		labtest.Scale(t, "gke", "helloworld", 2)
	}
	return nil
}

// killOnePod kills the first by name.
func killOnePod(ctx context.Context, t testing.TB) error {
	running, err := labtest.Lab.State()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range running.Find("gke", state.Pod) {
		if strings.HasPrefix(p.Name, labtest.Sample+"/helloworld") {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return errors.New("no pod of helloworld runs in gke")
	}
	return kill("gke", slices.Min(names))(ctx, t)
}

// drain is a person's word, and undrain takes it back.
func drain(ctx context.Context, t testing.TB) error {
	return labtest.Cluster(t, "hub").Create(ctx, drainOfGKE())
}

func undrain(ctx context.Context, t testing.TB) error {
	return client.IgnoreNotFound(labtest.Cluster(t, "hub").Delete(ctx, drainOfGKE()))
}

func drainOfGKE() *v1alpha1.TrafficOverride {
	return &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "chaos-drain"}, Spec: v1alpha1.TrafficOverrideSpec{
		Type: v1alpha1.OverrideDrain, Cluster: "gke", Author: "chaos@example.com", Reason: "chaos suite"}}
}

type step = func(context.Context, testing.TB) error

func kill(cluster, component string) step {
	return func(context.Context, testing.TB) error { return labtest.Lab.Kill(cluster, component) }
}

func stop(cluster, component string) step {
	return func(context.Context, testing.TB) error { return labtest.Lab.Stop(cluster, component) }
}

func heal(ctx context.Context, _ testing.TB) error { return labtest.Lab.Heal(ctx) }
