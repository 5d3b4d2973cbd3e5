// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/argo"
)

// driven makes of the app's route one that Argo Rollouts drives: helloworld is the stable, and eks alone has the canary.
func driven(t *testing.T) (*app, argo.Plugin) {
	t.Helper()
	a := newApp(t, theClusterset(t), "eks")
	a.exportOf("canary", "eks")
	a.partlyOf("canary", "eks", 1, 1)
	a.change(func(route *gatewayv1.HTTPRoute) {
		port := int32(5000)
		ref := func(name gatewayv1.ObjectName, weight int32) gatewayv1.HTTPBackendRef {
			return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{Weight: &weight,
				BackendObjectReference: gatewayv1.BackendObjectReference{Name: name, Port: &port}}}
		}
		route.Annotations = map[string]string{v1alpha1.AnnotationResolveServices: v1alpha1.ResolveImports}
		route.Spec.Rules[0].BackendRefs = []gatewayv1.HTTPBackendRef{ref("helloworld", 100), ref("canary", 0)}
	})
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 10000})
	return a, argo.Plugin{Hub: a.set.hub, Route: client.ObjectKeyFromObject(a.route()), Stable: "helloworld", Canary: "canary"}
}

// change changes the hub's route as a person does.
func (a *app) change(what func(*gatewayv1.HTTPRoute)) {
	a.t.Helper()
	eventually(a.t, func() error {
		route := a.hubRoute()
		what(route)
		return a.set.hub.Update(a.t.Context(), route)
	})
}

func (a *app) hubRoute() *gatewayv1.HTTPRoute {
	a.t.Helper()
	route := a.route()
	require.NoError(a.t, a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(route), route))
	return route
}

// inForce waits until the weights of the route as it is now are in force everywhere, as the route itself says.
func (a *app) inForce() {
	a.t.Helper()
	generation := a.hubRoute().Generation
	eventually(a.t, func() error {
		if c := a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed); c.ObservedGeneration != generation {
			return fmt.Errorf("generation %d is programmed, not yet %d", c.ObservedGeneration, generation)
		}
		return nil
	})
}

func TestArgoRolloutsDrivesARoute(t *testing.T) {
	a, plugin := driven(t)
	ctx := t.Context()
	twenty := map[string]int32{"eks/helloworld": 8000, "eks/canary": 2000}
	require.NoError(t, plugin.SetWeight(ctx, 20))
	a.inForce()
	a.expectVersions("eks", twenty)
	a.expectVersions("gke", twenty)

	// At every reconcile it writes the same again: no event comes of it, so nobody can be woken.
	eventually(t, func() error {
		before := a.hubRoute()
		for range 20 {
			require.NoError(t, plugin.SetWeight(ctx, 20))
		}
		after := a.hubRoute()
		require.Equal(t, before.Generation, after.Generation)
		if before.ResourceVersion != after.ResourceVersion {
			return fmt.Errorf("somebody writes too: version %s became %s", before.ResourceVersion, after.ResourceVersion)
		}
		return nil
	})

	// What it adds holds in every cluster, and what it leaves behind takes nothing away.
	require.NoError(t, plugin.SetHeaderRoute(ctx, "X-Version", "next"))
	require.NoError(t, plugin.AddExperiment(ctx, "experiment", 10))
	c := a.routeCondition("ResolvedRefs", metav1.ConditionFalse, v1alpha1.ReasonImportNotFound)
	require.Contains(t, c.Message, "take it out of the route")
	a.inForce()
	a.expectVersions("gke", twenty)
	require.Len(t, a.observed("gke").Spec.Rules, 2)
	require.Equal(t, "canary."+a.namespace+".eks.isthmus.internal", string(a.observed("gke").Spec.Rules[1].BackendRefs[0].Name))
	require.NoError(t, plugin.RemoveManagedRoutes(ctx))

	// The last step, by one write, to a stable that is not there at that moment.
	require.NoError(t, plugin.SetWeight(ctx, 100))
	a.expectVersions("gke", map[string]int32{"eks/canary": 10000})
	a.endpoints("eks", 0)
	a.expectVersions("gke", map[string]int32{"eks/canary": 10000})
	require.NoError(t, plugin.SetWeight(ctx, 0))
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonFailedOver)
	a.expectVersions("gke", map[string]int32{"eks/canary": 10000})
	a.endpoints("eks", 1)
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 10000})
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionFalse, v1alpha1.ReasonAsIntended)
}

func TestAnUnknownReadingOfServicesMovesNothing(t *testing.T) {
	a, plugin := driven(t)
	a.change(func(route *gatewayv1.HTTPRoute) { route.Annotations[v1alpha1.AnnotationResolveServices] = "import" })
	c := a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionFalse, v1alpha1.ReasonUnsupported)
	require.Contains(t, c.Message, `is "import", and can only be "imports"`)
	require.NoError(t, plugin.SetWeight(t.Context(), 20))
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 10000})
	a.change(func(route *gatewayv1.HTTPRoute) {
		route.Annotations[v1alpha1.AnnotationResolveServices] = v1alpha1.ResolveImports
	})
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 8000, "eks/canary": 2000})
}

func TestARolloutGivesWayToAnotherDriver(t *testing.T) {
	a, plugin := driven(t)
	a.exportOf("next", "eks")
	a.partlyOf("next", "eks", 1, 1)
	rollout := a.rollout(toWeight(10), untilPromoted())
	rollout.Spec.Canary.Canary.Name = "next"
	require.NoError(t, a.set.hub.Create(t.Context(), rollout))
	a.expectRollout(v1alpha1.RolloutPaused, v1alpha1.VerbPromote)
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 9000, "eks/next": 1000})

	require.NoError(t, plugin.SetWeight(t.Context(), 20))
	a.expectRollout(v1alpha1.RolloutPending, "has two drivers, since Argo Rollouts drives it too (its label")
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 7200, "eks/next": 800, "eks/canary": 2000})
	a.sayTo(v1alpha1.VerbPromote, "1")
	require.NoError(t, plugin.SetWeight(t.Context(), 0))
	a.expectRollout(v1alpha1.RolloutPending, "its field manager gatewayAPI has changed the rules")
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 9000, "eks/next": 1000})
	a.sayTo(v1alpha1.VerbAbort, "1")
	a.expectRollout(v1alpha1.RolloutDegraded, "aborted")
	a.expectVersions("gke", map[string]int32{"eks/helloworld": 10000})
}
