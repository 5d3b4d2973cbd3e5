// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
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

// split is what a policy of eks and gke in so many hundredths gives.
func split(eks, gke int32) map[string]int32 {
	return map[string]int32{"eks": eks * 100, "gke": gke * 100}
}

func weight(cluster string, w int32) v1alpha1.ClusterWeight {
	return v1alpha1.ClusterWeight{Cluster: cluster, Weight: w}
}

func memberStatus(t *testing.T, set *clusterset, name string, check func(v1alpha1.MemberClusterStatus) error) {
	t.Helper()
	eventually(t, func() error {
		var mc v1alpha1.MemberCluster
		if err := set.hub.Get(context.Background(), client.ObjectKey{Name: name}, &mc); err != nil {
			return err
		}
		if err := check(mc.Status); err != nil {
			return fmt.Errorf("%w: %+v", err, mc.Status)
		}
		return nil
	})
}

func hasCondition(kind string, status metav1.ConditionStatus, reason string) func(v1alpha1.MemberClusterStatus) error {
	return func(s v1alpha1.MemberClusterStatus) error {
		c := meta.FindStatusCondition(s.Conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("no condition %s=%s (%s)", kind, status, reason)
		}
		return nil
	}
}

func TestAMemberSaysWhatItIs(t *testing.T) {
	set := theClusterset(t)
	newApp(t, set, "eks")
	memberStatus(t, set, "eks", func(s v1alpha1.MemberClusterStatus) error {
		if s.Provider != "eks" || s.Region != "us-east-1" || s.Zone != "us-east-1a" || s.KubernetesVersion == "" || s.ExportedServiceCount == 0 ||
			s.EastWestAddress != "192.0.2.1:15443" {
			return errors.New("not discovered yet")
		}
		return errors.Join(
			hasCondition(v1alpha1.MemberConnected, metav1.ConditionTrue, v1alpha1.ReasonConnected)(s),
			hasCondition(v1alpha1.MemberSynced, metav1.ConditionTrue, v1alpha1.ReasonSynced)(s),
			hasCondition(v1alpha1.MemberMeshReady, metav1.ConditionTrue, v1alpha1.ReasonMeshReady)(s))
	})
}

func TestAPolicySplitsARouteInEveryMember(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	a.policy(weight("eks", 25), weight("gke", 75))
	a.expectWeights("eks", split(25, 75))
	a.expectWeights("gke", split(25, 75))
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	a.routeCondition(string(gatewayv1.RouteConditionAccepted), metav1.ConditionTrue, "Accepted")
	a.planCondition("gke", v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
}

func TestAnExportIsImportedAndReachableEverywhere(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	key := client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}
	eventually(t, func() error {
		var imp mcsv1beta1.ServiceImport
		if err := a.set.hub.Get(t.Context(), key, &imp); err != nil {
			return err
		}
		if fmt.Sprint(imp.Status.Clusters) != "[{eks} {gke}]" || imp.Spec.Ports[0].Port != 5000 {
			return fmt.Errorf("hub import: %+v", imp)
		}
		return nil
	})
	for name, other := range map[string]string{"eks": "gke", "gke": "eks"} {
		m := a.set.members[name]
		eventually(t, func() error {
			remote := client.ObjectKey{Namespace: a.namespace, Name: federation.RemoteName(federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"}, other)}
			return errors.Join(
				m.Get(t.Context(), key, &mcsv1beta1.ServiceImport{}),
				m.Get(t.Context(), remote, &istionetworkingv1.ServiceEntry{}),
				m.Get(t.Context(), remote, &istionetworkingv1.DestinationRule{}),
				m.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: "helloworld." + a.namespace}, &gatewayv1.HTTPRoute{}),
				m.Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "public"}, &gatewayv1.Gateway{}))
		})
	}
}

func TestAnExportSaysHowItIs(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks")
	says := func(kind mcsv1beta1.ServiceExportConditionType, status metav1.ConditionStatus, reason mcsv1beta1.ServiceExportConditionReason) {
		t.Helper()
		eventually(t, func() error {
			var export mcsv1beta1.ServiceExport
			if err := a.set.members["eks"].Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &export); err != nil {
				return err
			}
			c := meta.FindStatusCondition(export.Status.Conditions, string(kind))
			if c == nil || c.Status != status || c.Reason != string(reason) {
				return fmt.Errorf("no %s=%s (%s): %+v", kind, status, reason, export.Status)
			}
			return nil
		})
	}
	says(mcsv1beta1.ServiceExportConditionValid, metav1.ConditionTrue, mcsv1beta1.ServiceExportReasonValid)
	says(mcsv1beta1.ServiceExportConditionReady, metav1.ConditionTrue, mcsv1beta1.ServiceExportReasonExported)
	says(mcsv1beta1.ServiceExportConditionConflict, metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonNoConflicts)
	require.NoError(t, a.set.members["eks"].Delete(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "helloworld"}}))
	says(mcsv1beta1.ServiceExportConditionValid, metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonNoService)
}

func TestNoPolicyServesLocallyAndFailsOver(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.expectWeights("eks", split(100, 0))
	a.expectWeights("gke", split(0, 100))
	a.endpoints("eks", 0)
	a.expectWeights("eks", split(0, 100))
	shifted := a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonFailedOver)
	require.Contains(t, shifted.Message, "in eks: no endpoint is ready")
	a.endpoints("eks", 1)
	a.expectWeights("eks", split(100, 0))
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionFalse, v1alpha1.ReasonAsIntended)
}

func TestASplitFailsOverAndReturns(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	a.endpoints("eks", 0)
	a.expectWeights("eks", split(0, 100))
	a.expectWeights("gke", split(0, 100))
	a.endpoints("eks", 2)
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
}

func TestWhereNobodyIsFitTheLastGoodSplitStays(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.planCondition("eks", v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	a.endpoints("eks", 0)
	a.expectWeights("eks", split(0, 100))
	a.endpoints("gke", 0)
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonNoFitCluster)
	a.expectWeights("eks", split(0, 100))
}

func TestLosingAnAPIServerMovesNothing(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	a.expectHome("gke")
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	before := a.observed("gke")
	set.members["eks"].proxy.setCut(true)
	t.Cleanup(func() {
		set.members["eks"].proxy.setCut(false)
		memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberConnected, metav1.ConditionTrue, v1alpha1.ReasonConnected))
	})
	memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberConnected, metav1.ConditionFalse, v1alpha1.ReasonUnreachable))
	memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberMeshReady, metav1.ConditionUnknown, v1alpha1.ReasonUnknownMemberState))
	a.planCondition("eks", v1alpha1.PlanWritten, metav1.ConditionUnknown, v1alpha1.ReasonUnreachable)
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionUnknown, v1alpha1.ReasonUnreachable)
	// A marker that has to pass through the same queues: once it is through, whatever else would have been written was.
	a.policy(weight("eks", 60), weight("gke", 40))
	a.expectWeights("gke", split(60, 40))
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	require.Equal(t, before.Spec, a.observed("gke").Spec)
}

// expectHome waits until a member's route names its own share by the home host: it begins with the Service itself.
func (a *app) expectHome(member string) {
	a.t.Helper()
	home := federation.HomeHost(federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"}, member)
	eventually(a.t, func() error {
		for _, b := range a.observed(member).Spec.Rules[0].BackendRefs {
			if string(b.Name) == home {
				return nil
			}
		}
		return fmt.Errorf("the route in %s does not name %s yet", member, home)
	})
}

func (a *app) observed(member string) *gatewayv1.HTTPRoute {
	a.t.Helper()
	var route gatewayv1.HTTPRoute
	require.NoError(a.t, a.set.members[member].Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &route))
	return &route
}

func TestARestartWritesNothing(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	set.stop()
	require.NoError(t, set.start())
	// The marker passes when everything before it has been looked at.
	a.policy(weight("eks", 70), weight("gke", 30))
	a.expectWeights("eks", split(70, 30))
	a.expectWeights("gke", split(70, 30))
	for name, m := range set.members {
		for _, call := range m.faults.Load().Calls() {
			if call.Verb != faults.Get && call.Verb != faults.List && call.Namespace != a.namespace {
				t.Errorf("%s: the restart wrote %s %s %s/%s", name, call.Verb, call.Kind, call.Namespace, call.Name)
			}
		}
	}
}

func TestARestartSaysNothingNew(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	said := []client.Object{a.route(), a.gateway()}
	for _, name := range []string{"eks", "gke"} {
		a.expectWeights(name, split(80, 20))
		a.planCondition(name, v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
		said = append(said, &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}, &v1alpha1.RoutePlan{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: federation.RoutePlanName("httproute", "helloworld", name)}})
		memberStatus(t, set, name, func(s v1alpha1.MemberClusterStatus) error {
			if !slices.Contains(s.ExportedServices, a.namespace+"/helloworld") {
				return errors.New("its export has not been seen yet")
			}
			if !slices.ContainsFunc(s.Gateways, func(g v1alpha1.MemberGateway) bool {
				return g.Namespace == a.namespace && g.Name == "public" && len(g.Addresses) == 1
			}) {
				return errors.New("its gateway has not been seen yet")
			}
			return hasCondition(v1alpha1.MemberMeshReady, metav1.ConditionTrue, v1alpha1.ReasonMeshReady)(s)
		})
	}
	eventually(t, func() error {
		gateway := a.gateway()
		err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway)
		if c := meta.FindStatusCondition(gateway.Status.Conditions, "Programmed"); c == nil || c.Message != "served by every member" {
			return errors.Join(err, fmt.Errorf("gateway: %+v", gateway.Status))
		}
		return err
	})
	marker := &app{t: t, set: set, namespace: "restart-marker"}
	require.NoError(t, createAll(t.Context(), set.hub, namespace(marker.namespace), marker.gateway(), marker.route()))
	marker.routeCondition(string(gatewayv1.RouteConditionResolvedRefs), metav1.ConditionFalse, "BackendNotFound")
	set.stop()
	versions := map[string]string{}
	for _, o := range said {
		require.NoError(t, set.hub.Get(t.Context(), client.ObjectKeyFromObject(o), o))
		versions[fmt.Sprintf("%T %s", o, o.GetName())] = saidOnce(o, marker.namespace)
	}
	require.NoError(t, set.start())
	for name, m := range set.members {
		require.NoError(t, createAll(t.Context(), m, namespace(marker.namespace)))
		marker.planCondition(name, v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	}
	for _, o := range said {
		require.NoError(t, set.hub.Get(t.Context(), client.ObjectKeyFromObject(o), o))
		require.Equal(t, versions[fmt.Sprintf("%T %s", o, o.GetName())], saidOnce(o, marker.namespace), "%T %s: %+v", o, o.GetName(), o)
	}
}

// saidOnce is another whenever an object was written; of a member, which tells of the marker's Gateway too, whenever
// anything else was said of it.
func saidOnce(o client.Object, marker string) string {
	mc, isMember := o.(*v1alpha1.MemberCluster)
	if !isMember {
		return o.GetResourceVersion()
	}
	status := mc.Status.DeepCopy()
	status.Gateways = slices.DeleteFunc(status.Gateways, func(g v1alpha1.MemberGateway) bool { return g.Namespace == marker })
	return fmt.Sprintf("%+v", *status)
}

func TestARestartWithOneMemberAwayKeepsItsShare(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	set.stop()
	set.members["eks"].proxy.setCut(true)
	require.NoError(t, set.start())
	t.Cleanup(func() {
		set.members["eks"].proxy.setCut(false)
		memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberSynced, metav1.ConditionTrue, v1alpha1.ReasonSynced))
	})
	memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberConnected, metav1.ConditionFalse, v1alpha1.ReasonUnreachable))
	a.policy(weight("eks", 60), weight("gke", 40))
	a.expectWeights("gke", split(60, 40))
}

func TestARestartWithOneMemberAwayKeepsWhatTheHubHasNoPlaceFor(t *testing.T) {
	set := theClusterset(t)
	a := &app{t: t, set: set, namespace: "nowhere-in-the-hub"}
	key := federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"}
	gke := set.members["gke"]
	remote := client.ObjectKey{Namespace: a.namespace, Name: federation.RemoteName(key, "eks")}
	for _, name := range []string{"eks", "gke"} {
		require.NoError(t, createAll(t.Context(), set.members[name], namespace(a.namespace)))
		a.export(name)
		a.endpoints(name, 1)
	}
	eventually(t, func() error { return gke.Get(t.Context(), remote, &istionetworkingv1.ServiceEntry{}) })
	set.stop()
	set.members["eks"].proxy.setCut(true)
	require.NoError(t, set.start())
	t.Cleanup(func() {
		set.members["eks"].proxy.setCut(false)
		memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberSynced, metav1.ConditionTrue, v1alpha1.ReasonSynced))
	})
	// The marker is of the same wish: a port that gke adds.
	eventually(t, func() error {
		var service corev1.Service
		if err := gke.Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &service); err != nil {
			return err
		}
		service.Spec.Ports = append(service.Spec.Ports[:1], corev1.ServicePort{Name: "more", Port: 5001})
		return gke.Update(t.Context(), &service)
	})
	eventually(t, func() error {
		var imp mcsv1beta1.ServiceImport
		err := gke.Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &imp)
		if len(imp.Spec.Ports) != 2 {
			return errors.Join(err, fmt.Errorf("import: %+v", imp.Spec))
		}
		return err
	})
	require.NoError(t, gke.Get(t.Context(), remote, &istionetworkingv1.ServiceEntry{}))
}

func TestAForeignRouteIsNeverTouched(t *testing.T) {
	set := theClusterset(t)
	ctx := t.Context()
	ns := "testaforeignrouteisnevertouched"
	require.NoError(t, createAll(ctx, set.members["gke"], namespace(ns)))
	theirs := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "helloworld"}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "theirs"}}}}}
	require.NoError(t, set.members["gke"].Create(ctx, theirs))
	a := newApp(t, set, "eks", "gke")
	c := a.planCondition("gke", v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonForeignObject)
	require.Contains(t, c.Message, "was not written by Isthmus")
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionFalse, v1alpha1.ReasonForeignObject)
	a.expectWeights("eks", split(100, 0))
	have := a.observed("gke")
	require.Equal(t, theirs.Spec.ParentRefs[0].Name, have.Spec.ParentRefs[0].Name)
	require.Empty(t, have.Labels)
}

func TestNobodyIsSentToAClusterThatLetsNobodyIn(t *testing.T) {
	set := theClusterset(t)
	ctx, eks := t.Context(), set.members["eks"]
	theirs := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "helloworld.testnobodyissenttoaclusterthatletsnobodyin"}}
	theirs.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "theirs"}}
	require.NoError(t, createAll(ctx, eks, theirs))
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 50), weight("gke", 50))
	a.expectWeights("gke", map[string]int32{"gke": 10000})
	eventually(t, func() error {
		var export mcsv1beta1.ServiceExport
		err := eks.Get(ctx, client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &export)
		if ready := meta.FindStatusCondition(export.Status.Conditions, "Ready"); ready == nil || !strings.Contains(ready.Message, theirs.Name) {
			return errors.Join(err, fmt.Errorf("not said where it is exported: %+v", export.Status))
		}
		return err
	})
	require.NoError(t, eks.Delete(ctx, theirs))
	a.expectWeights("eks", split(50, 50))
	a.expectWeights("gke", split(50, 50))
}

func TestANamespaceThatAMemberLacksIsSaidAndWaitedFor(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.expectWeights("gke", split(0, 100))
	b := &app{t: t, set: set, namespace: "only-in-eks"}
	ctx := t.Context()
	require.NoError(t, createAll(ctx, set.hub, namespace(b.namespace)))
	require.NoError(t, createAll(ctx, set.members["eks"], namespace(b.namespace)))
	b.export("eks")
	b.endpoints("eks", 1)
	require.NoError(t, createAll(ctx, set.hub, b.gateway(), b.route()))
	c := b.planCondition("gke", v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonNamespaceMissing)
	require.Contains(t, c.Message, "the member has no namespace only-in-eks")
	b.expectWeights("eks", map[string]int32{"eks": 10000})
	require.NoError(t, createAll(ctx, set.members["gke"], namespace(b.namespace)))
	b.expectWeights("gke", map[string]int32{"eks": 10000})
}

func TestAnImportThatNobodyExportsIsSaid(t *testing.T) {
	a := newApp(t, theClusterset(t))
	c := a.routeCondition(string(gatewayv1.RouteConditionResolvedRefs), metav1.ConditionFalse, "BackendNotFound")
	require.Contains(t, c.Message, "no member exports "+a.namespace+"/helloworld")
	a.export("gke")
	a.endpoints("gke", 1)
	a.routeCondition(string(gatewayv1.RouteConditionResolvedRefs), metav1.ConditionTrue, "ResolvedRefs")
	a.expectWeights("gke", map[string]int32{"gke": 10000})
	a.expectWeights("eks", map[string]int32{"gke": 10000})
}

func TestANamespaceThatTheHubLacksIsWaitedFor(t *testing.T) {
	set := theClusterset(t)
	a := &app{t: t, set: set, namespace: "later-in-the-hub"}
	for _, name := range []string{"eks", "gke"} {
		require.NoError(t, createAll(t.Context(), set.members[name], namespace(a.namespace)))
		a.export(name)
		a.endpoints(name, 1)
		eventually(t, func() error {
			return set.members[name].Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &mcsv1beta1.ServiceImport{})
		})
	}
	require.NoError(t, createAll(t.Context(), set.hub, namespace(a.namespace)))
	eventually(t, func() error {
		return set.hub.Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &mcsv1beta1.ServiceImport{})
	})
	require.NoError(t, createAll(t.Context(), set.hub, a.gateway(), a.route()))
	a.expectWeights("eks", split(100, 0))
}

func TestAWithdrawnExportGoesToZeroFirst(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 50), weight("gke", 50))
	a.expectWeights("eks", split(50, 50))
	require.NoError(t, a.set.members["gke"].Delete(t.Context(), &mcsv1beta1.ServiceExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "helloworld"}}))
	a.expectWeights("eks", map[string]int32{"eks": 10000})
	a.expectWeights("gke", map[string]int32{"eks": 10000})
}

func TestDriftIsMended(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	eventually(t, func() error {
		route := a.observed("eks")
		ten := int32(10)
		route.Spec.Rules[0].BackendRefs[0].Weight = &ten
		return a.set.members["eks"].Update(t.Context(), route)
	})
	a.expectWeights("eks", split(80, 20))
	require.NoError(t, a.set.members["eks"].Delete(t.Context(), a.observed("eks")))
	a.expectWeights("eks", split(80, 20))
}

func TestARouteSaysNothingOfAGatewayThatIsGone(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.routeCondition(v1alpha1.RouteProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	require.NoError(t, a.set.hub.Delete(t.Context(), a.gateway()))
	eventually(t, func() error {
		route := a.route()
		err := a.set.hub.Get(t.Context(), client.ObjectKeyFromObject(route), route)
		if len(route.Status.Parents) > 0 {
			return errors.Join(err, fmt.Errorf("still says %+v", route.Status.Parents))
		}
		return err
	})
}

func TestParametersOfAClassTakeNoTrafficAway(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	change := func(parameters *gatewayv1.ParametersReference, status metav1.ConditionStatus) {
		t.Helper()
		class := &gatewayv1.GatewayClass{}
		eventually(t, func() error {
			if err := set.hub.Get(context.Background(), client.ObjectKey{Name: "isthmus"}, class); err != nil {
				return err
			}
			class.Spec.ParametersRef = parameters
			return set.hub.Update(context.Background(), class)
		})
		eventually(t, func() error {
			err := set.hub.Get(context.Background(), client.ObjectKey{Name: "isthmus"}, class)
			if !meta.IsStatusConditionPresentAndEqual(class.Status.Conditions, "Accepted", status) {
				return errors.Join(err, fmt.Errorf("not said on the class: %+v", class.Status))
			}
			return err
		})
	}
	defer change(nil, metav1.ConditionTrue)
	change(&gatewayv1.ParametersReference{Group: "example.com", Kind: "Anything", Name: "x"}, metav1.ConditionFalse)
	a.policy(weight("eks", 30), weight("gke", 70))
	a.expectWeights("eks", split(30, 70))
	a.expectWeights("gke", split(30, 70))
}

func TestADeletedHubRouteLeavesTheMembers(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.expectWeights("eks", split(100, 0))
	a.expectWeights("gke", split(0, 100))
	require.NoError(t, a.set.hub.Delete(t.Context(), a.route()))
	require.NoError(t, a.set.hub.Delete(t.Context(), a.gateway()))
	for _, m := range a.set.members {
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

func TestOneMembersFailureDoesNotHoldBackTheOther(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	release := make(chan struct{})
	fault := set.members["eks"].faults.Load()
	fault.Inject(faults.Rule{Verb: faults.Apply, Namespace: a.namespace, Hold: release})
	t.Cleanup(fault.Heal)
	a.policy(weight("eks", 10), weight("gke", 90))
	a.expectWeights("gke", split(10, 90))
	a.policy(weight("eks", 20), weight("gke", 80))
	a.expectWeights("gke", split(20, 80))
	fault.Heal()
	close(release)
	a.expectWeights("eks", split(20, 80))
}

func TestPoliciesThatAdmissionRefuses(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set)
	target := gatewayv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: "helloworld"}}
	weighted := func(weights ...v1alpha1.ClusterWeight) *v1alpha1.TrafficDistribution {
		return &v1alpha1.TrafficDistribution{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted, Weights: weights}}
	}
	for name, test := range map[string]struct {
		spec v1alpha1.TrafficDistributionPolicySpec
		says string
	}{
		"all weights 0": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target},
			Defaults: weighted(weight("eks", 0), weight("gke", 0))}, "all weights are 0"},
		"negative": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target},
			Defaults: weighted(weight("eks", -1), weight("gke", 1))}, "greater than or equal to 0"},
		"a cluster twice": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target},
			Defaults: weighted(weight("eks", 1), weight("eks", 1))}, "Duplicate value"},
		"no target": {v1alpha1.TrafficDistributionPolicySpec{Defaults: weighted(weight("eks", 1))}, "targetRefs"},
		"says nothing": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target}},
			"say something in defaults or in overrides"},
		"weights without Weighted": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target},
			Defaults: &v1alpha1.TrafficDistribution{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionLocal,
				Weights: []v1alpha1.ClusterWeight{weight("eks", 1)}}}}, "weights belong to type Weighted"},
		"another kind": {v1alpha1.TrafficDistributionPolicySpec{TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{
			LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{Group: "apps", Kind: "Deployment", Name: "x"}}},
			Defaults: weighted(weight("eks", 1))}, "a target is a Gateway or an HTTPRoute"},
	} {
		err := set.hub.Create(t.Context(), &v1alpha1.TrafficDistributionPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "bad"}, Spec: test.spec})
		require.ErrorContains(t, err, test.says, name)
	}
}

func TestPoliciesThatNameWhatIsNotThere(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 10), weight("aks", 10))
	a.expectWeights("eks", map[string]int32{"eks": 8889, "gke": 1111})
	ancestor := func(name string, check func(gatewayv1.PolicyAncestorStatus) error) {
		t.Helper()
		eventually(t, func() error {
			var p v1alpha1.TrafficDistributionPolicy
			if err := set.hub.Get(t.Context(), client.ObjectKey{Namespace: a.namespace, Name: name}, &p); err != nil {
				return err
			}
			if len(p.Status.Ancestors) != 1 {
				return fmt.Errorf("ancestors: %+v", p.Status.Ancestors)
			}
			return check(p.Status.Ancestors[0])
		})
	}
	says := func(kind string, status metav1.ConditionStatus, reason string) func(gatewayv1.PolicyAncestorStatus) error {
		return func(s gatewayv1.PolicyAncestorStatus) error {
			if c := meta.FindStatusCondition(s.Conditions, kind); c == nil || c.Status != status || c.Reason != reason {
				return fmt.Errorf("no %s=%s (%s): %+v", kind, status, reason, s)
			}
			return nil
		}
	}
	ancestor("split", says(v1alpha1.PolicyClustersResolved, metav1.ConditionFalse, v1alpha1.ReasonUnknownCluster))
	ancestor("split", says("Accepted", metav1.ConditionTrue, "Accepted"))
	stray := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "stray"}}
	stray.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: "nobody"}}}
	stray.Spec.Defaults = &v1alpha1.TrafficDistribution{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}}
	require.NoError(t, set.hub.Create(t.Context(), stray))
	ancestor("stray", says("Accepted", metav1.ConditionFalse, "TargetNotFound"))
	second := stray.DeepCopy()
	second.ObjectMeta = metav1.ObjectMeta{Namespace: a.namespace, Name: "zz-second"}
	second.Spec.TargetRefs[0].Name = "helloworld"
	require.NoError(t, set.hub.Create(t.Context(), second))
	ancestor("zz-second", says("Accepted", metav1.ConditionFalse, "Conflicted"))
}

func TestAPolicyOnAnotherControllersGatewaySaysSo(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set)
	theirs, policy := a.gateway(), &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "p"}}
	theirs.Name, theirs.Spec.GatewayClassName = "theirs", "theirs"
	policy.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: gatewayv1.GroupName, Kind: "Gateway", Name: "theirs"}}}
	policy.Spec.Defaults = &v1alpha1.TrafficDistribution{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}}
	require.NoError(t, createAll(t.Context(), set.hub, theirs, policy))
	eventually(t, func() error {
		err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(policy), policy)
		if a := policy.Status.Ancestors; len(a) != 1 || !strings.Contains(fmt.Sprint(a[0].Conditions), "is of GatewayClass theirs") {
			return errors.Join(err, fmt.Errorf("ancestors: %+v", a))
		}
		return err
	})
}

func TestSomebodyElsesImportInTheHubIsSaid(t *testing.T) {
	set := theClusterset(t)
	a := &app{t: t, set: set, namespace: "foreign-import"}
	theirs := &mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "helloworld"},
		Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP, Ports: []mcsv1beta1.ServicePort{{Port: 1}}}}
	require.NoError(t, createAll(t.Context(), set.hub, namespace(a.namespace), theirs))
	require.NoError(t, createAll(t.Context(), set.members["eks"], namespace(a.namespace)))
	a.export("eks")
	eventually(t, func() error {
		var events eventsv1.EventList
		err := set.hub.List(t.Context(), &events, client.InNamespace(a.namespace))
		if !slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Reason == v1alpha1.ReasonForeignObject && e.Regarding.UID == theirs.UID
		}) {
			return errors.Join(err, fmt.Errorf("events: %+v", events.Items))
		}
		return err
	})
	require.NoError(t, set.hub.Get(t.Context(), client.ObjectKeyFromObject(theirs), theirs))
	require.Empty(t, theirs.Labels)
}

func TestAClusterThatJoinsTwiceCountsOnce(t *testing.T) {
	set := theClusterset(t)
	a := newApp(t, set, "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	again := memberObject("eks-again", "eks")
	require.NoError(t, createAll(t.Context(), set.hub, again))
	memberStatus(t, set, "eks-again", hasCondition(v1alpha1.MemberConnected, metav1.ConditionFalse, v1alpha1.ReasonDuplicateCluster))
	a.policy(weight("eks", 60), weight("gke", 40))
	a.expectWeights("eks", split(60, 40))
	a.expectWeights("gke", split(60, 40))
	require.NoError(t, set.hub.Delete(t.Context(), again))
	eventually(t, func() error {
		if err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(again), again); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %+v: %w", again.Status, err)
		}
		return nil
	})
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	memberStatus(t, set, "eks", hasCondition(v1alpha1.MemberMeshReady, metav1.ConditionTrue, v1alpha1.ReasonMeshReady))
}

func TestKubeconfigsThatCannotBeUsed(t *testing.T) {
	set := theClusterset(t)
	const withExec = `{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}],
contexts: [{name: x, context: {cluster: c, user: u}}], users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: touch}}}]}`
	for name, test := range map[string]struct {
		data   map[string][]byte
		reason string
	}{
		"malformed": {map[string][]byte{"kubeconfig": []byte("{not yaml")}, v1alpha1.ReasonInvalidKubeconfig},
		"exec":      {map[string][]byte{"kubeconfig": []byte(withExec)}, v1alpha1.ReasonUnsafeKubeconfig},
		"no-key":    {map[string][]byte{"other": []byte("x")}, v1alpha1.ReasonSecretNotFound},
		"no-secret": {nil, v1alpha1.ReasonSecretNotFound},
		"refused":   {map[string][]byte{"kubeconfig": kubeconfigWithToken(set.hubCfg, "nobody-knows-this")}, v1alpha1.ReasonUnauthorized},
		"nowhere":   {map[string][]byte{"kubeconfig": kubeconfig(set.hubCfg, "127.0.0.1:1")}, v1alpha1.ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{memberObject("bad-"+name, "bad-"+name)}
			if test.data != nil {
				objects = append(objects, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "bad-" + name}, Data: test.data})
			}
			require.NoError(t, createAll(t.Context(), set.hub, objects...))
			memberStatus(t, set, "bad-"+name, hasCondition(v1alpha1.MemberConnected, metav1.ConditionFalse, test.reason))
			require.NoError(t, set.hub.Delete(t.Context(), objects[0]))
			eventually(t, func() error { return gone(t, set, objects[0]) })
		})
	}
}

// gone waits for an object that nothing holds, or releases one that cannot be reached as a person would.
func gone(t *testing.T, set *clusterset, o client.Object) error {
	err := set.hub.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	o.SetFinalizers(nil)
	return errors.Join(fmt.Errorf("%s is still there", o.GetName()), client.IgnoreNotFound(set.hub.Update(t.Context(), o)))
}
