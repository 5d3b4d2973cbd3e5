// SPDX-License-Identifier: Apache-2.0

//go:build linux

package labtest

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/tools"
)

// NewVersion is the Deployment, Service and export of the example's second version, whose answers say "next".
const NewVersion = "helloworld-v2"

// Apply applies a file of examples/ to a cluster.
func Apply(t testing.TB, cluster string, example ...string) {
	t.Helper()
	cfg, err := Lab.RESTConfig(cluster)
	require.NoError(t, err)
	a, err := controlplane.NewApplier(cfg)
	require.NoError(t, err)
	root, err := tools.Root()
	require.NoError(t, err)
	require.NoError(t, a.ApplyFiles(context.Background(), filepath.Join(append([]string{root, "examples"}, example...)...)))
}

// ShipNewVersion runs and exports the new version in every member, and takes it away at the end.
func ShipNewVersion(t testing.TB) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: Sample, Name: NewVersion}
	t.Cleanup(func() {
		for _, member := range Members {
			c := Cluster(t, member)
			for _, o := range []client.Object{&mcsv1beta1.ServiceExport{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta}, &appsv1.Deployment{ObjectMeta: meta}} {
				require.NoError(t, client.IgnoreNotFound(c.Delete(context.Background(), o)))
			}
		}
		for _, cluster := range append([]string{"hub"}, Members...) {
			ExpectGone(t, cluster, &mcsv1beta1.ServiceImport{ObjectMeta: meta})
		}
	})
	for _, member := range Members {
		Apply(t, member, "canary", "members", NewVersion+".yaml")
		Scale(t, member, NewVersion, 1)
	}
}

// ExpectGone waits until an object is gone from a cluster.
func ExpectGone(t testing.TB, cluster string, o client.Object) {
	t.Helper()
	Eventually(t, func() error {
		err := Cluster(t, cluster).Get(context.Background(), client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%s still has %T %s: %w", cluster, o, o.GetName(), err)
	})
}

// BeginRollout applies a rollout of examples/canary, which is aborted and taken away at the end whatever happens.
func BeginRollout(t testing.TB, file string) {
	t.Helper()
	t.Cleanup(func() { EndRollout(t) })
	Apply(t, "hub", "canary", file)
}

// EndRollout brings everything back to the old side, and waits until the rollout is gone.
func EndRollout(t testing.TB) {
	t.Helper()
	hub, ctx := Cluster(t, "hub"), context.Background()
	rollout := theRollout()
	if apierrors.IsNotFound(hub.Get(ctx, client.ObjectKeyFromObject(rollout), rollout)) {
		return
	}
	SayToRollout(t, v1alpha1.VerbAbort, "end")
	require.NoError(t, client.IgnoreNotFound(hub.Delete(ctx, rollout)))
	ExpectGone(t, "hub", theRollout())
}

func theRollout() *v1alpha1.TrafficRollout {
	return &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: Sample, Name: "helloworld"}}
}

// SayToRollout annotates the rollout with a verb.
func SayToRollout(t testing.TB, verb, value string) {
	t.Helper()
	require.NoError(t, Cluster(t, "hub").Patch(context.Background(), theRollout(), client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, verb, value))))
}

// RolloutStatus is where the rollout stands.
func RolloutStatus(t testing.TB) v1alpha1.TrafficRolloutStatus {
	t.Helper()
	rollout := theRollout()
	require.NoError(t, Cluster(t, "hub").Get(context.Background(), client.ObjectKeyFromObject(rollout), rollout))
	return rollout.Status
}

// ExpectRollout waits until the rollout is in a phase and at a weight; one that is paused is to wait for somebody, or for a time.
func ExpectRollout(t testing.TB, phase v1alpha1.RolloutPhase, weight int32) {
	t.Helper()
	ExpectRolloutTo(t, func(s v1alpha1.TrafficRolloutStatus) bool {
		return s.Phase == phase && s.Weight == weight && (phase != v1alpha1.RolloutPaused || strings.Contains(s.Message, "waits for"))
	})
}

// ExpectRolloutTo waits until the rollout's status is as it is to be.
func ExpectRolloutTo(t testing.TB, be func(v1alpha1.TrafficRolloutStatus) bool) {
	t.Helper()
	Eventually(t, func() error {
		if s := RolloutStatus(t); !be(s) {
			return fmt.Errorf("%s in wave %q, step %d, at %d: %s", s.Phase, s.WaveName, s.Step, s.Weight, s.Message)
		}
		return nil
	})
}

// FollowRollout looks at every state of the rollout until the returned function is called, which fails where one went back: without
// a word of anybody a rollout never takes a wave or a step again.
func FollowRollout(t testing.TB) (stop func() []v1alpha1.TrafficRolloutStatus) {
	t.Helper()
	cfg, err := Lab.RESTConfig("hub")
	require.NoError(t, err)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: controllers.NewScheme()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	events, err := c.Watch(ctx, &v1alpha1.TrafficRolloutList{}, client.InNamespace(Sample))
	require.NoError(t, err)
	done, states := make(chan struct{}), []v1alpha1.TrafficRolloutStatus{}
	go func() {
		defer close(done)
		for e := range events.ResultChan() {
			if r, ok := e.Object.(*v1alpha1.TrafficRollout); ok {
				states = append(states, r.Status)
			}
		}
	}()
	return func() []v1alpha1.TrafficRolloutStatus {
		t.Helper()
		cancel()
		events.Stop()
		<-done
		for i := range len(states) - 1 {
			was, is := states[i], states[i+1]
			require.False(t, is.Wave < was.Wave || is.Wave == was.Wave && is.Step < was.Step,
				"the rollout went back from wave %d, step %d to wave %d, step %d: %s", was.Wave, was.Step, is.Wave, is.Step, is.Message)
		}
		return states
	}
}

// Backend is a service in a cluster, as a route names it.
type Backend struct{ Service, Cluster string }

// ExpectSides waits for exact weights of the first rule of the generated route in every member, in ten thousandths; backends that are
// not named are to have none.
func ExpectSides(t testing.TB, want map[Backend]int32) {
	t.Helper()
	for _, member := range Members {
		ExpectSidesIn(t, member, want)
	}
}

// ExpectSidesIn waits for them in one member.
func ExpectSidesIn(t testing.TB, member string, want map[Backend]int32) {
	t.Helper()
	Eventually(t, func() error {
		var r gatewayv1.HTTPRoute
		if err := Cluster(t, member).Get(context.Background(), client.ObjectKey{Namespace: Sample, Name: "helloworld"}, &r); err != nil {
			return err
		}
		have := map[Backend]int32{}
		for _, b := range r.Spec.Rules[0].BackendRefs {
			if *b.Weight > 0 {
				service, _, _ := strings.Cut(string(b.Name), ".")
				have[Backend{service, ServerOf(b, member)}] += *b.Weight
			}
		}
		if !maps.Equal(have, want) {
			return fmt.Errorf("%s: weights are %v, want %v", member, have, want)
		}
		return nil
	})
}

// SidesAt are the weights of a rollout that is at a percentage in each cluster, by what the cluster would serve, in percent.
func SidesAt(split, rollout map[string]int32) map[Backend]int32 {
	out := map[Backend]int32{}
	for cluster, part := range split {
		if next := part * rollout[cluster]; next > 0 {
			out[Backend{NewVersion, cluster}] = next
		}
		if old := part * (100 - rollout[cluster]); old > 0 {
			out[Backend{"helloworld", cluster}] = old
		}
	}
	return out
}
