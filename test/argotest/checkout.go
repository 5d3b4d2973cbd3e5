// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package argotest tells the story of examples/argo-rollouts in the lab: with the plugin's writes imitated in the suite e2e, and with
// the controller itself in the suite argo.
package argotest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/argo"
	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/labtest"
)

// Names of examples/argo-rollouts.
const (
	Route  = "checkout"
	Stable = "checkout-stable"
	Canary = "checkout-canary"
	Host   = "checkout.example.com"
)

// Deploy applies the hub's part of the example, and files of it to eks, and takes all of it away at the end.
func Deploy(t testing.TB, examples string, toMember ...string) argo.Plugin {
	t.Helper()
	t.Cleanup(func() { remove(t) })
	for _, file := range toMember {
		Apply(t, "eks", filepath.Join(examples, "argo-rollouts", filepath.FromSlash(file)))
	}
	Apply(t, "hub", filepath.Join(examples, "argo-rollouts", "hub", "rbac.yaml"), filepath.Join(examples, "argo-rollouts", "hub", "route.yaml"))
	return argo.Plugin{Hub: labtest.Cluster(t, "hub"), Route: client.ObjectKey{Namespace: labtest.Sample, Name: Route}, Stable: Stable, Canary: Canary}
}

// Apply applies files to a cluster of the lab.
func Apply(t testing.TB, cluster string, files ...string) {
	t.Helper()
	cfg, err := labtest.Lab.RESTConfig(cluster)
	require.NoError(t, err)
	a, err := controlplane.NewApplier(cfg)
	require.NoError(t, err)
	require.NoError(t, a.ApplyFiles(context.Background(), files...))
}

// remove takes away the example, and waits until no cluster has the imports any more.
func remove(t testing.TB) {
	hub, eks := labtest.Cluster(t, "hub"), labtest.Cluster(t, "eks")
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: labtest.Sample, Name: name} }
	gone := func(c client.Client, objects ...client.Object) {
		for _, o := range objects {
			require.NoError(t, client.IgnoreNotFound(c.Delete(context.Background(), o)))
		}
	}
	gone(hub, &gatewayv1.HTTPRoute{ObjectMeta: named(Route)})
	for _, name := range []string{Stable, Canary, "helloworld-v2"} {
		gone(eks, &mcsv1beta1.ServiceExport{ObjectMeta: named(name)}, &corev1.Service{ObjectMeta: named(name)})
	}
	gone(eks, &appsv1.Deployment{ObjectMeta: named("helloworld-v2")})
	for _, cluster := range append([]string{"hub"}, labtest.Members...) {
		for _, name := range []string{Stable, Canary, "helloworld-v2"} {
			labtest.Eventually(t, func() error {
				err := labtest.Cluster(t, cluster).Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: name}, &mcsv1beta1.ServiceImport{})
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("%s still has the import %s: %w", cluster, name, err)
			})
		}
	}
}

// UnderLoad sends requests to every gateway until the test ends; none may fail.
func UnderLoad(t testing.TB) {
	t.Helper()
	for _, member := range labtest.Members {
		load := labtest.VersionAt(t, member, Host).UnderLoad()
		t.Cleanup(func() {
			tally := load()
			t.Logf("%s: %s", member, tally)
			require.Zero(t, tally.Failures(), tally)
		})
	}
}

// ExpectOnly waits until every gateway is answered by one version.
func ExpectOnly(t testing.TB, version string) {
	t.Helper()
	for _, member := range labtest.Members {
		labtest.VersionAt(t, member, Host).ExpectOnly(t, version, 50)
	}
}

// ExpectInForce waits until the route says that its weights, as they are now, are in force in every cluster.
func ExpectInForce(t testing.TB) {
	t.Helper()
	labtest.Eventually(t, func() error {
		var route gatewayv1.HTTPRoute
		if err := labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: Route}, &route); err != nil {
			return err
		}
		for _, p := range route.Status.Parents {
			c := meta.FindStatusCondition(p.Conditions, v1alpha1.RouteProgrammed)
			if c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == route.Generation {
				return nil
			}
		}
		return fmt.Errorf("generation %d is not programmed everywhere: %+v", route.Generation, route.Status.Parents)
	})
}
