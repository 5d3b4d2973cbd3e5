// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const (
	// EastWestGatewayName is the Gateway in isthmus-system through which the other members come in.
	EastWestGatewayName = "isthmus-east-west"
	// EastWestPort is the port of its federation listener.
	EastWestPort = 15443
	// eastWestListener is the name of that listener.
	eastWestListener = "federation"
	// istioTLSMode is Istio's listener option for terminating mutual TLS with the workload certificate, which
	// needs no Secret.
	istioTLSMode = "gateway.istio.io/tls-terminate-mode"
)

// NamespacedName is a namespace and a name.
type NamespacedName struct {
	Namespace, Name string
}

// EastWestSnapshot is what the gateway between clusters of one member depends on.
type EastWestSnapshot struct {
	Member Member
	// Members are all members: their gateways may come in.
	Members []Member
	// Gateways are the hub Gateways of the class: in each member the generated ones send to the others.
	Gateways []NamespacedName
}

// EastWestOwner owns a member's gateway between clusters.
func EastWestOwner(member string) Owner { return Owner{Noun: "member", Name: member} }

// PlanEastWest makes the gateway through which the other members reach a member, and says who may use it.
func PlanEastWest(s EastWestSnapshot) []runtime.Object {
	owner := EastWestOwner(s.Member.Name)
	gateway, policy := eastWestGateway(s.Member), eastWestPolicy(s)
	owner.Mark(&gateway.ObjectMeta)
	owner.Mark(&policy.ObjectMeta)
	// The policy first: the gateway never stands open.
	objects := []runtime.Object{policy, gateway}
	if !s.Member.NoEnvoyFilter {
		retries := eastWestRetries(NamespacedName{gateway.Namespace, gateway.Name})
		owner.Mark(&retries.ObjectMeta)
		objects = append(objects, retries)
	}
	return objects
}

func eastWestGateway(m Member) *gatewayv1.Gateway {
	terminate, same := gatewayv1.TLSModeTerminate, gatewayv1.NamespacesFromSame
	return &gatewayv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: EastWestGatewayName},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: gatewayv1.ObjectName(m.GatewayClassName),
			Listeners: []gatewayv1.Listener{{
				Name: eastWestListener, Port: EastWestPort, Protocol: gatewayv1.HTTPSProtocolType,
				// Only routes of Isthmus's own namespace: else any namespace could attach a route with the same
				// header and take traffic between clusters.
				AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &same}},
				TLS: &gatewayv1.ListenerTLSConfig{Mode: &terminate,
					Options: map[gatewayv1.AnnotationKey]gatewayv1.AnnotationValue{istioTLSMode: "ISTIO_MUTUAL"}},
			}},
		},
	}
}

// eastWestPolicy admits the generated gateways of the clusterset and nobody else. With no gateway there is no
// rule, which denies everybody.
func eastWestPolicy(s EastWestSnapshot) *securityv1.AuthorizationPolicy {
	policy := &securityv1.AuthorizationPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: securityv1.SchemeGroupVersion.String(), Kind: "AuthorizationPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: EastWestGatewayName},
	}
	policy.Spec.Action = securityapi.AuthorizationPolicy_ALLOW
	policy.Spec.TargetRefs = []*typeapi.PolicyTargetReference{{
		Group: gatewayv1.GroupName, Kind: "Gateway", Name: EastWestGatewayName}}
	var principals []string
	for _, m := range s.Members {
		for _, g := range s.Gateways {
			principals = append(principals, m.gatewayIdentity(g.Namespace, g.Name))
		}
	}
	slices.Sort(principals)
	if principals = slices.Compact(principals); len(principals) > 0 {
		policy.Spec.Rules = []*securityapi.Rule{{From: []*securityapi.Rule_From{{
			Source: &securityapi.Source{Principals: principals}}}}}
	}
	return policy
}
