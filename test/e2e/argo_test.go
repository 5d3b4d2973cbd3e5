// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/argotest"
	"isthmus.dev/isthmus/test/labtest"
)

// TestArgoRolloutsInAMember tells the story of examples/argo-rollouts as far as the hub sees it, with requests at both gateways all
// the while, none of which fails. The Deployments of another example stand for the ReplicaSets; what the plugin writes is written by
// argo.Plugin. The suite argo has the controller itself.
func TestArgoRolloutsInAMember(t *testing.T) {
	ctx := labtest.Interruptible(t)
	plugin := argotest.Deploy(t, filepath.Join("..", "..", "examples"), "member/services.yaml")
	argotest.Apply(t, "eks", filepath.Join("..", "..", "examples", "canary", "members", "helloworld-v2.yaml"))
	labtest.Scale(t, "eks", "helloworld-v2", 1)
	selects(t, argotest.Stable, "helloworld")
	selects(t, argotest.Canary, "helloworld-v2")
	argotest.ExpectOnly(t, "v1")
	argotest.UnderLoad(t)

	t.Run("20 percent", func(t *testing.T) {
		require.NoError(t, plugin.SetHeaderRoute(ctx, "X-Version", "next"))
		require.NoError(t, plugin.SetWeight(ctx, 20))
		argotest.ExpectInForce(t)
		for _, member := range labtest.Members {
			labtest.VersionAt(t, member, argotest.Host).With("X-Version", "next").ExpectOnly(t, "next", 50)
			labtest.VersionAt(t, member, argotest.Host).ExpectSplit(t, requests, "next", 0.2)
		}
	})
	t.Run("abort", func(t *testing.T) {
		require.NoError(t, plugin.SetWeight(ctx, 0))
		require.NoError(t, plugin.RemoveManagedRoutes(ctx))
		argotest.ExpectOnly(t, "v1")
	})
	t.Run("50 percent beside what an experiment left behind", func(t *testing.T) {
		require.NoError(t, plugin.AddExperiment(ctx, "checkout-experiment", 10))
		require.NoError(t, plugin.SetWeight(ctx, 50))
		argotest.ExpectInForce(t)
		for _, member := range labtest.Members {
			labtest.VersionAt(t, member, argotest.Host).ExpectSplit(t, requests, "next", 0.5)
		}
	})
	t.Run("the last step", func(t *testing.T) {
		require.NoError(t, plugin.SetWeight(ctx, 100))
		argotest.ExpectOnly(t, "next")
		selects(t, argotest.Stable, "helloworld-v2")
		require.NoError(t, plugin.SetWeight(ctx, 0))
		argotest.ExpectInForce(t)
		argotest.ExpectOnly(t, "next")
	})
}

// selects points a Service of eks at the pods of a Deployment, as the controller does.
func selects(t *testing.T, service, app string) {
	t.Helper()
	require.NoError(t, labtest.Cluster(t, "eks").Patch(context.Background(),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: service}},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"selector":{"app":"`+app+`"}}}`))))
}
