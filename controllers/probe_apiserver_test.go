// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// probed is a policy of the test's import that has it probed, and lets clusters return at once.
func (a *app) probed(probe v1alpha1.Probe) *v1alpha1.TrafficDistributionPolicy {
	p := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "health"}}
	p.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
		Group: mcsv1beta1.GroupName, Kind: "ServiceImport", Name: "helloworld"}}}
	none := gatewayv1.Duration("0s")
	p.Spec.Defaults = &v1alpha1.TrafficDistribution{Health: &v1alpha1.Health{Probe: &probe},
		Failback: &v1alpha1.Failback{Hold: &none, Ramp: &v1alpha1.FailbackRamp{Steps: []int32{100}}}}
	return p
}

// see makes probes see the test's service ill in a member, or well.
func (a *app) see(member string, well bool) {
	if well {
		a.set.ill.Delete(a.namespace + "/" + member)
		return
	}
	a.set.ill.Store(a.namespace+"/"+member, true)
}

func (a *app) probeRoute(member string) (*gatewayv1.HTTPRoute, error) {
	route := &gatewayv1.HTTPRoute{}
	name := federation.ProbeRouteName(federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"})
	return route, a.set.members[member].Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: name}, route)
}

func TestASuspectedClusterIsLeftAndJoinedAgain(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	policy := a.probed(v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/status"}, Interval: "500ms", Timeout: "500ms"})
	require.NoError(t, a.set.hub.Create(t.Context(), policy))
	a.routeCondition(v1alpha1.RouteProbed, metav1.ConditionTrue, v1alpha1.ReasonProbed)
	a.see("eks", false)
	for _, member := range []string{"eks", "gke"} {
		a.expectWeights(member, split(0, 100))
	}
	require.Contains(t, a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonFailedOver).Message,
		"its probes fail from the hub: 500; through gke: 500")
	a.expectAddresses("192.0.2.2")
	a.see("eks", true)
	for _, member := range []string{"eks", "gke"} {
		a.expectWeights(member, split(80, 20))
	}
	a.expectAddresses("192.0.2.1", "192.0.2.2")

	a.see("eks", false)
	a.expectWeights("gke", split(0, 100))
	a.see("gke", false)
	a.routeCondition(v1alpha1.RouteProbed, metav1.ConditionFalse, v1alpha1.ReasonGuardHolds)
	a.expectWeights("gke", split(0, 100))

	require.NoError(t, a.set.hub.Delete(t.Context(), policy))
	a.expectWeights("gke", split(80, 20))
	for _, member := range []string{"eks", "gke"} {
		eventually(t, func() error {
			if _, err := a.probeRoute(member); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s still holds the probe's route: %w", member, err)
			}
			return nil
		})
	}
}

func TestTheTokenOfAProbeIsMadeOnceAndKeptUntilItsSecretIsDeleted(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	require.NoError(t, a.set.hub.Create(t.Context(), a.probed(v1alpha1.Probe{GRPC: &v1alpha1.GRPCProbe{}})))
	var tokens []string
	for _, member := range []string{"eks", "gke"} {
		eventually(t, func() error {
			route, err := a.probeRoute(member)
			if err == nil && len(route.Spec.Rules) < 2 {
				err = fmt.Errorf("%s cannot be asked about the other yet", member)
			}
			for _, rule := range route.Spec.Rules {
				tokens = append(tokens, rule.Matches[0].Headers[0].Value)
			}
			return err
		})
	}
	var secret corev1.Secret
	require.NoError(t, a.set.hub.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: probeSecret}, &secret))
	for _, token := range tokens {
		require.Equal(t, tokenOf(secret.Data[probeSecretKey], federation.ServiceKey{Namespace: a.namespace, Name: "helloworld"}), token)
	}
	require.NoError(t, a.set.hub.Delete(t.Context(), &secret))
	for _, member := range []string{"eks", "gke"} {
		eventually(t, func() error {
			route, err := a.probeRoute(member)
			if err == nil && slices.Contains(tokens, route.Spec.Rules[0].Matches[0].Headers[0].Value) {
				err = fmt.Errorf("%s still lets the old token in", member)
			}
			return err
		})
	}
}

func TestProbesThatAdmissionRefuses(t *testing.T) {
	a := newApp(t, theClusterset(t))
	http := &v1alpha1.HTTPProbe{Path: "/"}
	port := int32(70000)
	for want, probe := range map[string]v1alpha1.Probe{
		"http or grpc, and not both":          {},
		"say how to probe":                    {HTTP: http, GRPC: &v1alpha1.GRPCProbe{}},
		"interval is 500ms to 5m":             {HTTP: http, Interval: "100ms", Timeout: "100ms"},
		"timeout is 100ms to 1m":              {HTTP: http, Timeout: "1ms"},
		"timeout is longer than interval":     {HTTP: http, Interval: "1s", Timeout: "3s"},
		"spec.defaults.health.probe.fall":     {HTTP: http, Fall: 11},
		"spec.defaults.health.probe.rise":     {HTTP: http, Rise: -1},
		"spec.defaults.health.probe.port":     {HTTP: http, Port: &port},
		"http.path":                           {HTTP: &v1alpha1.HTTPProbe{Path: "healthz"}},
		"probe.http.path":                     {HTTP: &v1alpha1.HTTPProbe{Path: "/health?deep=1"}},
		"http.statuses":                       {HTTP: &v1alpha1.HTTPProbe{Path: "/", Statuses: []int32{42}}},
		"spec.defaults.health.probe.interval": {HTTP: http, Interval: "soon"},
	} {
		err := a.set.hub.Create(t.Context(), a.probed(probe))
		require.True(t, apierrors.IsInvalid(err), "%s: %v", want, err)
		require.Contains(t, err.Error(), want)
	}
}
