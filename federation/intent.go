// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// readsImports tells whether the Services that a route names mean the imports of those names. A client wrote such a route that
// knows of one cluster only, such as Argo Rollouts.
func readsImports(route *gatewayv1.HTTPRoute) bool {
	return route.Annotations[v1alpha1.AnnotationResolveServices] == v1alpha1.ResolveImports
}

// meant is a reference as its route means it: of the same namespace, name and port.
func meant(route *gatewayv1.HTTPRoute, ref gatewayv1.BackendObjectReference) gatewayv1.BackendObjectReference {
	if !readsImports(route) || deref(ref.Group) != "" || cmp.Or(deref(ref.Kind), "Service") != "Service" {
		return ref
	}
	group, kind := gatewayv1.Group(mcsv1beta1.GroupName), gatewayv1.Kind(mcsv1beta1.ServiceImportKindName)
	ref.Group, ref.Kind = &group, &kind
	return ref
}

// intent is a route with every reference as it is meant. The route itself stays as it is: it belongs to who wrote it.
func intent(route *gatewayv1.HTTPRoute) *gatewayv1.HTTPRoute {
	if !readsImports(route) {
		return route
	}
	out := &gatewayv1.HTTPRoute{TypeMeta: route.TypeMeta, ObjectMeta: route.ObjectMeta, Status: route.Status}
	route.Spec.DeepCopyInto(&out.Spec)
	for _, rule := range out.Spec.Rules {
		for i := range rule.BackendRefs {
			b := &rule.BackendRefs[i]
			b.BackendObjectReference = meant(route, b.BackendObjectReference)
		}
		for _, f := range rule.Filters {
			if f.RequestMirror != nil {
				f.RequestMirror.BackendRef = meant(route, f.RequestMirror.BackendRef)
			}
		}
	}
	return out
}

// refuseRoute says why a route cannot be given to any member, or nil.
func refuseRoute(route *gatewayv1.HTTPRoute) *metav1.Condition {
	value, said := route.Annotations[v1alpha1.AnnotationResolveServices]
	if said && value != v1alpha1.ResolveImports {
		// Either reading of its Services could be the wrong one, and would move all of its requests.
		c := condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonUnsupported, fmt.Sprintf(
			"the annotation %s is %q, and can only be %q: correct it, or leave it out where a Service is to be that of each cluster itself; what the member holds stays as it is",
			v1alpha1.AnnotationResolveServices, value, v1alpha1.ResolveImports))
		return &c
	}
	return refuseFilters(route)
}
