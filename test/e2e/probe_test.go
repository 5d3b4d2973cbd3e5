// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/labtest"
)

// TestProbes tells the story of examples/health: a backend that is ready and answers 500 is left and joined again, while a
// hub that alone cannot see a cluster moves nothing.
func TestProbes(t *testing.T) {
	ctx := context.Background()
	labtest.SetPolicy(t, 80, 20)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	probeHelloworld(t)
	expectRouteCondition(t, v1alpha1.RouteProbed, metav1.ConditionTrue, v1alpha1.ReasonProbed)
	entries := addresses(t)
	require.Len(t, entries, 2)

	labtest.TellPods(t, "eks", "helloworld", "sick", 2)
	t.Cleanup(func() { labtest.TellPods(t, "eks", "helloworld", "well", 2) })
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(0, 100))
	labtest.Eventually(t, func() error {
		if now := addresses(t); len(now) != 1 {
			return fmt.Errorf("clients are sent to %v", now)
		}
		return nil
	})
	labtest.Eventually(t, func() error {
		// What was decided is said a moment after it is done.
		if b := plannedFor(t, "gke", "eks"); !strings.Contains(b.Message, "from the hub: 500; through gke: 500") {
			return fmt.Errorf("said: %+v", b)
		}
		return nil
	})
	labtest.TellPods(t, "eks", "helloworld", "well", 2)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	labtest.Eventually(t, func() error {
		if now := addresses(t); !slices.Equal(now, entries) {
			return fmt.Errorf("clients are sent to %v, and not to %v", now, entries)
		}
		return nil
	})

	before := contents(t, "gke")
	t.Cleanup(func() { require.NoError(t, labtest.Lab.Heal(ctx)) })
	require.NoError(t, labtest.Lab.Partition(ctx, "hub", "eks"))
	expectRouteCondition(t, v1alpha1.RouteProbed, metav1.ConditionFalse, v1alpha1.ReasonHubLinkBad)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	require.Equal(t, before, contents(t, "gke"), "something was written in gke")

	// Cut off from gke as well, requests for eks are answered all the same, since gke's proxy spills: that is no recovery.
	require.NoError(t, labtest.Lab.Partition(ctx, "gke", "eks"))
	labtest.Eventually(t, func() error {
		if b := plannedFor(t, "gke", "eks"); b.Weight != 0 || !strings.Contains(b.Message, "through gke: answered by gke instead, to which its proxy spills") {
			return fmt.Errorf("said: %+v", b)
		}
		return nil
	})
	require.NoError(t, labtest.Lab.Heal(ctx))
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	expectRouteCondition(t, v1alpha1.RouteProbed, metav1.ConditionTrue, v1alpha1.ReasonProbed)
}

// probeHelloworld applies the example, and at the end takes it away and waits until no member holds anything of it.
func probeHelloworld(t *testing.T) {
	t.Helper()
	cfg, err := labtest.Lab.RESTConfig("hub")
	require.NoError(t, err)
	a, err := controlplane.NewApplier(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		policy := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld-health"}}
		require.NoError(t, client.IgnoreNotFound(labtest.Cluster(t, "hub").Delete(context.Background(), policy)))
		for _, member := range labtest.Members {
			labtest.Eventually(t, func() error {
				key := client.ObjectKey{Namespace: labtest.Sample,
					Name: federation.ProbeRouteName(federation.ServiceKey{Namespace: labtest.Sample, Name: "helloworld"})}
				if err := labtest.Cluster(t, member).Get(context.Background(), key, &gatewayv1.HTTPRoute{}); !apierrors.IsNotFound(err) {
					return fmt.Errorf("%s still holds %s: %w", member, key, err)
				}
				return nil
			})
		}
	})
	require.NoError(t, a.ApplyFiles(context.Background(), filepath.Join("..", "..", "examples", "health", "policy.yaml")))
}

// addresses of the hub's Gateway, where clients are sent to.
func addresses(t *testing.T) []string {
	t.Helper()
	var gateway gatewayv1.Gateway
	require.NoError(t, labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: "public"}, &gateway))
	var out []string
	for _, a := range gateway.Status.Addresses {
		out = append(out, a.Value)
	}
	return out
}

// plannedFor is what was decided for a cluster, for requests that enter a member.
func plannedFor(t *testing.T, member, cluster string) v1alpha1.PlannedBackend {
	t.Helper()
	var plan v1alpha1.RoutePlan
	require.NoError(t, labtest.Cluster(t, "hub").Get(context.Background(),
		client.ObjectKey{Namespace: labtest.Sample, Name: federation.RoutePlanName("httproute", "helloworld", member)}, &plan))
	for _, b := range plan.Status.Rules[0].Backends {
		if b.Cluster == cluster {
			return b
		}
	}
	t.Fatalf("the plan of %s says nothing of %s: %+v", member, cluster, plan.Status)
	return v1alpha1.PlannedBackend{}
}
