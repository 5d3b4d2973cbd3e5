// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet/faults"
	"isthmus.dev/isthmus/federation"
)

// Things happen in any order: whatever comes last has to wake whoever waited for it.

func TestWhatWentWhileTheHubWasAwayLeavesTheMembers(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.expectWeights("eks", split(100, 0))
	a.expectWeights("gke", split(0, 100))
	set.stop()
	require.NoError(t, set.hub.Delete(t.Context(), a.route()))
	require.NoError(t, set.hub.Delete(t.Context(), a.gateway()))
	require.NoError(t, set.start())
	for _, m := range set.members {
		for _, o := range []client.Object{a.route(), a.gateway()} {
			eventually(t, func() error {
				if err := m.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
					return fmt.Errorf("%s still has %T %s: %w", m.name, o, o.GetName(), err)
				}
				return nil
			})
		}
	}
}

// changeGateway tries again on a conflict: the controllers write the status of the same object.
func (a *app) changeGateway(change func(*gatewayv1.Gateway)) *gatewayv1.Gateway {
	a.t.Helper()
	gateway := a.gateway()
	eventually(a.t, func() error {
		if err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(gateway), gateway); err != nil {
			return err
		}
		change(gateway)
		return a.set.hub.Update(a.t.Context(), gateway)
	})
	return gateway
}

func TestAClassThatComesLateServesItsRoutes(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks")
	a.expectWeights("eks", map[string]int32{"eks": 10000})
	class := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/another"}}
	require.NoError(t, set.hub.Create(t.Context(), class))
	a.changeGateway(func(g *gatewayv1.Gateway) { g.Spec.GatewayClassName = "late" })
	eventually(t, func() error {
		if _, err := a.weights("eks"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the route of a Gateway of another controller's class is still there: %w", err)
		}
		return nil
	})
	require.NoError(t, set.hub.Delete(t.Context(), class))
	class = &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName}}
	require.NoError(t, set.hub.Create(t.Context(), class))
	a.expectWeights("eks", map[string]int32{"eks": 10000})
	require.NoError(t, set.hub.Delete(t.Context(), class))
}

func TestLosingTheGatewayClassTakesNoTrafficAway(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	class := &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "lost"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName}}
	require.NoError(t, set.hub.Create(t.Context(), class.DeepCopy()))
	a.changeGateway(func(g *gatewayv1.Gateway) { g.Spec.GatewayClassName = "lost" })
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	accepted := func(status metav1.ConditionStatus, reason string) {
		t.Helper()
		eventually(t, func() error {
			gateway := a.gateway()
			err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway)
			if c := meta.FindStatusCondition(gateway.Status.Conditions, "Accepted"); c == nil || c.Status != status || c.Reason != reason {
				return errors.Join(err, fmt.Errorf("not Accepted=%s (%s): %+v", status, reason, gateway.Status.Conditions))
			}
			return err
		})
	}
	accepted(metav1.ConditionTrue, "Accepted")
	uid := a.observed("eks").UID
	require.NoError(t, set.hub.Delete(t.Context(), class))
	accepted(metav1.ConditionUnknown, v1alpha1.ReasonClassNotFound)
	// What fails over goes on failing over.
	a.policy(weight("eks", 30), weight("gke", 70))
	a.expectWeights("eks", split(30, 70))
	a.expectWeights("gke", split(30, 70))
	require.Equal(t, uid, a.observed("eks").UID, "it was never withdrawn")
	class.ResourceVersion, class.UID = "", ""
	require.NoError(t, set.hub.Create(t.Context(), class))
	accepted(metav1.ConditionTrue, "Accepted")
	require.NoError(t, set.hub.Delete(t.Context(), a.gateway()))
	require.NoError(t, set.hub.Delete(t.Context(), class))
}

func TestTheLabelsOfANamespaceAdmitItsRoutes(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks")
	from := gatewayv1.NamespacesFromSelector
	gateway := a.changeGateway(func(g *gatewayv1.Gateway) {
		g.Spec.Listeners[0].AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"public": "yes"}}}}
	})
	a.routeCondition(string(gatewayv1.RouteConditionAccepted), metav1.ConditionFalse, string(gatewayv1.RouteReasonNotAllowedByListeners))
	require.NoError(t, set.hub.Patch(t.Context(), namespace(a.namespace),
		client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"public":"yes"}}}`))))
	a.routeCondition(string(gatewayv1.RouteConditionAccepted), metav1.ConditionTrue, string(gatewayv1.RouteReasonAccepted))
	eventually(t, func() error {
		if err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway); err != nil {
			return err
		}
		if l := gateway.Status.Listeners; len(l) != 1 || l[0].AttachedRoutes != 1 {
			return fmt.Errorf("attached routes: %+v", l)
		}
		return nil
	})
}

// Whatever a member's route still names stays there, also what its namespace may not or does not refer to any more.
func TestAnImportThatARouteLetsGoStaysUntilTheMemberHasLetGo(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	web := "lets-go"
	for _, c := range []client.Client{set.hub, set.members["eks"], set.members["gke"]} {
		require.NoError(t, createAll(t.Context(), c, namespace(web)))
	}
	require.NoError(t, createAll(t.Context(), set.hub, &gatewayv1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "web"}, Spec: gatewayv1.ReferenceGrantSpec{
			From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: gatewayv1.Namespace(web)}},
			To:   []gatewayv1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport"}}}}))
	b := &app{t: t, set: set, namespace: web}
	route, shop := b.route(), gatewayv1.Namespace(a.namespace)
	route.Spec.Rules[0].BackendRefs[0].Namespace = &shop
	require.NoError(t, createAll(t.Context(), set.hub, b.gateway(), route))
	b.policy(weight("eks", 80), weight("gke", 20))
	b.expectWeights("eks", split(80, 20))
	b.expectWeights("gke", split(80, 20))
	b.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	entry := func(member, cluster string) error {
		key := client.ObjectKey{Namespace: web, Name: federation.RemoteName(federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"}, cluster)}
		return set.members[member].Get(t.Context(), key, &istionetworkingv1.ServiceEntry{})
	}
	grant := func() error {
		key := client.ObjectKey{Namespace: a.namespace, Name: "helloworld." + web}
		return set.members["eks"].Get(t.Context(), key, &gatewayv1.ReferenceGrant{})
	}
	require.NoError(t, errors.Join(entry("eks", "gke"), entry("gke", "eks"), grant()))
	fault := set.members["eks"].faults.Load()
	fault.Inject(faults.Rule{Verb: faults.Apply, Kind: "HTTPRoute", Namespace: web, Err: faults.ErrUnavailable})
	t.Cleanup(fault.Heal)
	eventually(t, func() error {
		if err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(route), route); err != nil {
			return err
		}
		port := int32(80)
		route.Spec.Rules[0].BackendRefs = []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Name: "plain", Port: &port}}}}
		return set.hub.Update(t.Context(), route)
	})
	eventually(t, func() error {
		if err := entry("gke", "eks"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("gke still has its entry: %w", err)
		}
		return nil
	})
	require.NoError(t, errors.Join(entry("eks", "gke"), grant()), "the route in eks names it still")
	fault.Heal()
	eventually(t, func() error {
		if !apierrors.IsNotFound(entry("eks", "gke")) || !apierrors.IsNotFound(grant()) {
			return errors.New("eks still has what its route does not name any more")
		}
		return nil
	})
}

func TestANamespaceThatComesLateReachesTheImportsOfOthers(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "gke")
	web := "late-web"
	require.NoError(t, createAll(t.Context(), set.hub, namespace(web), &gatewayv1.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "web"}, Spec: gatewayv1.ReferenceGrantSpec{
			From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: gatewayv1.Namespace(web)}},
			To:   []gatewayv1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport"}}}}))
	b := &app{t: t, set: set, namespace: web}
	route, shop := b.route(), gatewayv1.Namespace(a.namespace)
	route.Spec.Rules[0].BackendRefs[0].Namespace = &shop
	require.NoError(t, createAll(t.Context(), set.hub, b.gateway(), route))
	b.planCondition("eks", v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonNamespaceMissing)
	require.NoError(t, createAll(t.Context(), set.members["eks"], namespace(web)))
	b.expectWeights("eks", map[string]int32{"gke": 10000})
}
