// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	istionetworkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	istiosecurityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
)

// NewScheme knows every kind that is read or written in the hub and in members.
func NewScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gatewayv1.Install, mcsv1beta1.Install,
		istionetworkingv1.AddToScheme, istionetworkingv1alpha3.AddToScheme, istiosecurityv1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	return s
}

// MemberKinds are what is cached in every member: no more than is needed. Of what Isthmus writes and nobody
// else's matters, only its own objects are kept.
func MemberKinds() []fleet.Kind {
	ours := labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy})
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return []fleet.Kind{
		{Object: namespace},
		{Object: &corev1.Node{}, Transform: trimNode},
		{Object: &corev1.Service{}, Transform: trimService},
		{Object: &discoveryv1.EndpointSlice{}, Transform: trimEndpointSlice},
		{Object: &mcsv1beta1.ServiceExport{}, Optional: true},
		{Object: &mcsv1beta1.ServiceImport{}, Optional: true},
		{Object: &gatewayv1.Gateway{}, Optional: true},
		{Object: &gatewayv1.HTTPRoute{}, Optional: true},
		{Object: &gatewayv1.ReferenceGrant{}, Selector: ours, Optional: true},
		{Object: &istionetworkingv1.ServiceEntry{}, Selector: ours, Optional: true},
		{Object: &istionetworkingv1.DestinationRule{}, Selector: ours, Optional: true},
		{Object: &istionetworkingv1alpha3.EnvoyFilter{}, Selector: ours, Optional: true},
		{Object: &istiosecurityv1.AuthorizationPolicy{}, Selector: ours, Optional: true},
	}
}

// trimNode keeps what tells region, zone and provider.
func trimNode(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok {
		n.Annotations, n.Status = nil, corev1.NodeStatus{}
		n.Spec = corev1.NodeSpec{ProviderID: n.Spec.ProviderID}
	}
	return o, nil
}

func trimService(o any) (any, error) {
	if s, ok := o.(*corev1.Service); ok {
		s.Annotations, s.Status = nil, corev1.ServiceStatus{}
	}
	return o, nil
}

// trimEndpointSlice keeps readiness: the plan counts endpoints, and addresses are the member's own affair.
func trimEndpointSlice(o any) (any, error) {
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return o, nil
	}
	slice.Annotations, slice.Ports = nil, nil
	for i, e := range slice.Endpoints {
		slice.Endpoints[i] = discoveryv1.Endpoint{Conditions: e.Conditions}
	}
	return o, nil
}

// kindsOf is what an owner's objects are looked for in when they are pruned.
func kindsOf(noun string) []schema.GroupVersionKind {
	route, gateway := gatewayKind("HTTPRoute"), gatewayKind("Gateway")
	switch noun {
	case nounRoute, nounProbe:
		return []schema.GroupVersionKind{route}
	case nounGateway:
		return []schema.GroupVersionKind{gateway, envoyFilterKind}
	case nounMember:
		return []schema.GroupVersionKind{gateway, envoyFilterKind, istiosecurityv1.SchemeGroupVersion.WithKind("AuthorizationPolicy")}
	case nounService:
		// Routes first: they refer to the rest.
		return []schema.GroupVersionKind{route, gatewayKind("ReferenceGrant"),
			envoyFilterKind, istionetworkingv1.SchemeGroupVersion.WithKind("DestinationRule"),
			istionetworkingv1.SchemeGroupVersion.WithKind("ServiceEntry"),
			mcsv1beta1.SchemeGroupVersion.WithKind("ServiceImport")}
	}
	return nil
}

// envoyFilterKind is what proxies are told to retry with.
var envoyFilterKind = istionetworkingv1alpha3.SchemeGroupVersion.WithKind("EnvoyFilter")

// Nouns of the owners that the core names.
const (
	nounRoute   = "httproute"
	nounGateway = "gateway"
	nounService = "service"
	nounMember  = "member"
	nounProbe   = "probe"
)

func gatewayKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: gatewayv1.GroupName, Version: gatewayv1.GroupVersion.Version, Kind: kind}
}
