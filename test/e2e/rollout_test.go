// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/labtest"
)

// TestRollouts tells the stories of examples/canary, with requests at both gateways all the while, none of which fails.
func TestRollouts(t *testing.T) {
	labtest.SetPolicy(t, 80, 20)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	shipVersionTwo(t)
	for _, member := range labtest.Members {
		load := labtest.Version(t, member).UnderLoad()
		t.Cleanup(func() {
			tally := load()
			t.Logf("%s: %s", member, tally)
			require.Zero(t, tally.Failures(), tally)
		})
	}
	t.Run("canary", canaryStory)
	t.Run("waves", wavesStory)
	t.Run("blue-green", blueGreenStory)
}

func canaryStory(t *testing.T) {
	applyRollout(t, "canary.yaml")
	expectRollout(t, v1alpha1.RolloutPaused, 10)
	browser := labtest.Version(t, "gke").KeepingCookies(t)
	labtest.Version(t, "eks").ExpectSplit(t, 2000, "next", 0.1)
	labtest.Version(t, "gke").ExpectSplit(t, 2000, "next", 0.1)
	labtest.Version(t, "eks").With("X-Version", "next").ExpectOnly(t, "next", 50)
	labtest.Eventually(t, func() error {
		if version, err := browser.Send(context.Background()); err != nil || version != "next" {
			return errors.Join(err, fmt.Errorf("answered by %q", version))
		}
		return nil
	})
	require.Equal(t, 100, browser.Count(100).ByServer["next"], "who was answered by the new version stays there")
	sayTo(t, v1alpha1.VerbPromote, "1")
	expectRollout(t, v1alpha1.RolloutPaused, 50)
	labtest.Version(t, "eks").ExpectSplit(t, 2000, "next", 0.5)
	require.Equal(t, 100, browser.Count(100).ByServer["next"])

	labtest.Scale(t, "eks", "helloworld-v2", 0)
	expectProgrammed(t, "eks", "helloworld-v2", "eks", 0)
	labtest.Version(t, "eks").ExpectSplit(t, 2000, "next", 0.1)
	labtest.Scale(t, "eks", "helloworld-v2", 1)
	sayTo(t, v1alpha1.VerbAbort, "1")
	expectRollout(t, v1alpha1.RolloutDegraded, 0)
	expectNoNext(t, browser)
	endRollout(t)
}

func wavesStory(t *testing.T) {
	applyRollout(t, "waves.yaml")
	labtest.Eventually(t, func() error {
		if s := rolloutStatus(t); s.Phase != v1alpha1.RolloutHealthy {
			return fmt.Errorf("%s: %s", s.Phase, s.Message)
		}
		return nil
	})
	labtest.Version(t, "eks").ExpectOnly(t, "next", 100)
	sayTo(t, v1alpha1.VerbAbort, "2")
	expectRollout(t, v1alpha1.RolloutDegraded, 0)
	endRollout(t)
}

func blueGreenStory(t *testing.T) {
	applyRollout(t, "blue-green.yaml")
	expectRollout(t, v1alpha1.RolloutPaused, 0)
	labtest.Version(t, "gke").With("X-Preview", "yes").ExpectOnly(t, "next", 50)
	expectNoNext(t, labtest.Version(t, "gke"))
	sayTo(t, v1alpha1.VerbPromote, "3")
	expectRollout(t, v1alpha1.RolloutPaused, 100)
	labtest.Version(t, "gke").ExpectOnly(t, "next", 100)
	sayTo(t, v1alpha1.VerbAbort, "3")
	expectRollout(t, v1alpha1.RolloutDegraded, 0)
	endRollout(t)
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

func example(file string) string { return filepath.Join("..", "..", "examples", "canary", file) }

func applyTo(t *testing.T, cluster, file string) {
	t.Helper()
	cfg, err := labtest.Lab.RESTConfig(cluster)
	require.NoError(t, err)
	a, err := controlplane.NewApplier(cfg)
	require.NoError(t, err)
	require.NoError(t, a.ApplyFiles(context.Background(), example(file)))
}

// shipVersionTwo runs and exports version 2 in every member, and takes it away at the end.
func shipVersionTwo(t *testing.T) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld-v2"}
	t.Cleanup(func() {
		for _, member := range labtest.Members {
			c := labtest.Cluster(t, member)
			for _, o := range []client.Object{&mcsv1beta1.ServiceExport{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta}, &appsv1.Deployment{ObjectMeta: meta}} {
				require.NoError(t, client.IgnoreNotFound(c.Delete(context.Background(), o)))
			}
		}
		for _, cluster := range append([]string{"hub"}, labtest.Members...) {
			labtest.Eventually(t, func() error {
				err := labtest.Cluster(t, cluster).Get(context.Background(), client.ObjectKey{Namespace: meta.Namespace, Name: meta.Name}, &mcsv1beta1.ServiceImport{})
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("%s still has the import: %w", cluster, err)
			})
		}
	})
	for _, member := range labtest.Members {
		applyTo(t, member, filepath.Join("members", "helloworld-v2.yaml"))
		labtest.Scale(t, member, meta.Name, 1)
	}
}

// applyRollout begins a rollout, which is aborted and taken away at the end whatever happens.
func applyRollout(t *testing.T, file string) {
	t.Helper()
	t.Cleanup(func() { endRollout(t) })
	applyTo(t, "hub", file)
}

func theRollout() *v1alpha1.TrafficRollout {
	return &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld"}}
}

// endRollout brings everything back, and waits until the rollout is gone and nobody is answered by the new version.
func endRollout(t *testing.T) {
	t.Helper()
	hub, ctx := labtest.Cluster(t, "hub"), context.Background()
	rollout := theRollout()
	if apierrors.IsNotFound(hub.Get(ctx, client.ObjectKeyFromObject(rollout), rollout)) {
		return
	}
	sayTo(t, v1alpha1.VerbAbort, "end")
	require.NoError(t, client.IgnoreNotFound(hub.Delete(ctx, rollout)))
	labtest.Eventually(t, func() error {
		err := hub.Get(ctx, client.ObjectKeyFromObject(rollout), theRollout())
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the rollout is still there: %w", err)
	})
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
}

func rolloutStatus(t *testing.T) v1alpha1.TrafficRolloutStatus {
	t.Helper()
	rollout := theRollout()
	require.NoError(t, labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKeyFromObject(rollout), rollout))
	return rollout.Status
}

func expectRollout(t *testing.T, phase v1alpha1.RolloutPhase, weight int32) {
	t.Helper()
	labtest.Eventually(t, func() error {
		s := rolloutStatus(t)
		if s.Phase == phase && s.Weight == weight && (phase != v1alpha1.RolloutPaused || strings.Contains(s.Message, "waits for")) {
			return nil
		}
		return fmt.Errorf("%s at %d: %s", s.Phase, s.Weight, s.Message)
	})
}

func sayTo(t *testing.T, verb, value string) {
	t.Helper()
	require.NoError(t, labtest.Cluster(t, "hub").Patch(context.Background(), theRollout(), client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, verb, value))))
}
