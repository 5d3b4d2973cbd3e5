// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// refuseFilters says why a route cannot be given to any member because of its filters, or nil. Both checks come before
// anything is written: istiod drops the whole route for a backend's filter that it does not know, and a route that set
// the header between clusters could name any exported service, whatever the ReferenceGrants say.
func refuseFilters(route *gatewayv1.HTTPRoute) *metav1.Condition {
	refuse := func(format string, args ...any) *metav1.Condition {
		c := condition(v1alpha1.PlanWritten, metav1.ConditionFalse, v1alpha1.ReasonUnsupported, fmt.Sprintf(format, args...))
		return &c
	}
	for i, rule := range route.Spec.Rules {
		name := RuleName(rule, i)
		if slices.ContainsFunc(rule.Filters, changesBackendHeader) {
			return refuse("rule %s changes the header %s, by which clusters name the service to each other: leave it out", name, BackendHeader)
		}
		for _, b := range rule.BackendRefs {
			for _, f := range b.Filters {
				if f.RequestHeaderModifier == nil && f.ResponseHeaderModifier == nil {
					return refuse("backend %s of rule %s has a filter of type %s, and a backend can only have header modifiers: move it to the rule",
						b.Name, name, f.Type)
				}
				if changesBackendHeader(f) {
					return refuse("backend %s of rule %s changes the header %s, by which clusters name the service to each other: leave it out",
						b.Name, name, BackendHeader)
				}
			}
		}
	}
	return nil
}

func changesBackendHeader(f gatewayv1.HTTPRouteFilter) bool {
	if f.RequestHeaderModifier == nil {
		return false
	}
	named := func(h gatewayv1.HTTPHeader) bool { return strings.EqualFold(string(h.Name), BackendHeader) }
	return slices.ContainsFunc(f.RequestHeaderModifier.Set, named) || slices.ContainsFunc(f.RequestHeaderModifier.Add, named) ||
		slices.ContainsFunc(f.RequestHeaderModifier.Remove, func(h string) bool { return strings.EqualFold(h, BackendHeader) })
}

// withHeader sets a header on the way to a backend. A list holds one RequestHeaderModifier at most, so one that
// the user wrote is extended.
func withHeader(filters []gatewayv1.HTTPRouteFilter, header gatewayv1.HTTPHeader) []gatewayv1.HTTPRouteFilter {
	for i := range filters {
		if filters[i].RequestHeaderModifier != nil {
			filters[i].RequestHeaderModifier.Set = append(filters[i].RequestHeaderModifier.Set, header)
			return filters
		}
	}
	return append(filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
		RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{header}}})
}

// withoutHeader keeps a header of the client's from a backend.
func withoutHeader(filters []gatewayv1.HTTPRouteFilter, header string) []gatewayv1.HTTPRouteFilter {
	for i := range filters {
		if filters[i].RequestHeaderModifier != nil {
			filters[i].RequestHeaderModifier.Remove = append(filters[i].RequestHeaderModifier.Remove, header)
			return filters
		}
	}
	return append(filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
		RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{header}}})
}

// mirrorLocally points a mirror of an import at the cluster's own Service: a mirror cannot carry the header
// that names the service of another cluster. Where the cluster does not export it, the mirror goes nowhere,
// and answers nobody.
func (s routePlanner) mirrorLocally(m RouteMember, filters []gatewayv1.HTTPRouteFilter) []gatewayv1.HTTPRouteFilter {
	var kept []gatewayv1.HTTPRouteFilter
	for _, f := range filters {
		if f.RequestMirror == nil {
			kept = append(kept, f)
			continue
		}
		key, isImport := ImportKey(f.RequestMirror.BackendRef, s.Route.Namespace)
		if !isImport {
			kept = append(kept, f)
			continue
		}
		port, problem := s.resolve(key, f.RequestMirror.BackendRef)
		if problem != nil || !slices.Contains(s.imports[key].Clusters, m.Name) || !s.known(m, key, m.Name) {
			continue
		}
		// The filters are those of the copy that is being made: the hub's route stays as it is.
		f.RequestMirror.BackendRef = localService(key, port, s.Route.Namespace)
		kept = append(kept, f)
	}
	return kept
}
