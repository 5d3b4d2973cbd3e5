// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// observing is a member that says of its listener "https" that it has no certificate, or that all is well.
func observing(name string, well bool) GatewayMember {
	status, reason := metav1.ConditionTrue, "Fine"
	if !well {
		status, reason = metav1.ConditionFalse, "InvalidCertificateRef"
	}
	said := []metav1.Condition{condition("ResolvedRefs", status, reason, "of the certificate"), condition("Programmed", status, reason, "of the listener")}
	observed := &gatewayv1.Gateway{Status: gatewayv1.GatewayStatus{
		Conditions: []metav1.Condition{condition("Programmed", metav1.ConditionTrue, "Programmed", "")},
		Addresses:  []gatewayv1.GatewayStatusAddress{{Value: "192.0.2." + name}},
		Listeners:  []gatewayv1.ListenerStatus{{Name: "https", Conditions: said}}}}
	return GatewayMember{Member: Member{Name: name, Synced: true}, HasNamespace: true, Observed: observed}
}

func TestAListenerSaysWhatMembersFindWrongWithIt(t *testing.T) {
	hub := &gatewayv1.Gateway{Spec: gatewayv1.GatewaySpec{
		Addresses: []gatewayv1.GatewaySpecAddress{{Value: "192.0.2.9"}},
		TLS:       &gatewayv1.GatewayTLSConfig{Frontend: &gatewayv1.FrontendTLSConfig{}},
		Listeners: []gatewayv1.Listener{{Name: "https", Port: 443, Protocol: gatewayv1.HTTPSProtocolType}}}}
	tests := map[string]struct {
		members              []GatewayMember
		resolved, programmed metav1.ConditionStatus
		message              string
	}{
		"all is well": {[]GatewayMember{observing("1", true), observing("2", true)}, metav1.ConditionTrue, metav1.ConditionTrue, "served by every member"},
		"one refuses": {[]GatewayMember{observing("1", true), observing("2", false)}, metav1.ConditionFalse, metav1.ConditionTrue, "not in every member: 2: of the listener"},
		"all refuse":  {[]GatewayMember{observing("1", false), observing("2", false)}, metav1.ConditionFalse, metav1.ConditionFalse, "not in every member: 1: of the listener; 2: of the listener"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := PlanGateway(GatewaySnapshot{Gateway: hub, Members: test.members})
			said := plan.Status.Listeners[0].Conditions
			require.Equal(t, test.resolved, findCondition(said, "ResolvedRefs").Status)
			require.Equal(t, test.programmed, findCondition(said, "Programmed").Status)
			require.Equal(t, test.message, findCondition(said, "Programmed").Message)
			require.Contains(t, conditionMessage(plan.Status.Conditions, "Accepted"), "spec.addresses is not used")
			require.Equal(t, hub.Spec.TLS, plan.Objects["1"].Spec.TLS, "a demand for client certificates is not dropped")
		})
	}
}
