// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// resolve finds the port of an import that a reference means, or says why it means none.
func (s routePlanner) resolve(key ServiceKey, ref gatewayv1.BackendObjectReference) (int32, *metav1.Condition) {
	problem := func(reason gatewayv1.RouteConditionReason, message string) *metav1.Condition {
		c := condition(gatewayv1.RouteConditionResolvedRefs, metav1.ConditionFalse, reason, message)
		return &c
	}
	if !s.granted(key) {
		return 0, problem(gatewayv1.RouteReasonRefNotPermitted, fmt.Sprintf(
			"no ReferenceGrant in namespace %s lets HTTPRoutes of %s refer to ServiceImport %s: create one there",
			key.Namespace, s.Route.Namespace, key.Name))
	}
	imp := s.imports[key]
	if imp == nil {
		return 0, problem(gatewayv1.RouteReasonBackendNotFound, fmt.Sprintf(
			"no member exports %s: create a ServiceExport of that name next to its Service%s; until then %s", key, s.orLeaveOut(), s.unanswered()))
	}
	ports := tcpPorts(imp.Spec.Ports)
	switch {
	case len(ports) == 0:
		return 0, problem(gatewayv1.RouteReasonBackendNotFound, fmt.Sprintf(
			"ServiceImport %s has no TCP port, so no HTTPRoute can lead to it: export a Service with one", key))
	case ref.Port == nil && len(ports) == 1:
		return ports[0].Port, nil
	case ref.Port == nil:
		return 0, problem(gatewayv1.RouteReasonBackendNotFound, fmt.Sprintf(
			"the reference to ServiceImport %s names no port, and it has %s: name one", key, portList(ports)))
	case !slices.ContainsFunc(ports, func(p mcsv1beta1.ServicePort) bool { return p.Port == *ref.Port }):
		return 0, problem(gatewayv1.RouteReasonBackendNotFound, fmt.Sprintf(
			"ServiceImport %s has no TCP port %d: name one that it has (%s)", key, *ref.Port, portList(ports)))
	}
	return *ref.Port, nil
}

// orLeaveOut is what else can be done about a backend that nobody exports, where a client may have left it behind.
func (s routePlanner) orLeaveOut() string {
	if readsImports(s.Route) {
		return ", or take it out of the route"
	}
	return ""
}

// tcpPorts are the ports that an HTTPRoute can lead to.
func tcpPorts(ports []mcsv1beta1.ServicePort) []mcsv1beta1.ServicePort {
	return slices.DeleteFunc(slices.Clone(ports), func(p mcsv1beta1.ServicePort) bool {
		return p.Protocol != "" && p.Protocol != corev1.ProtocolTCP
	})
}

func portList(ports []mcsv1beta1.ServicePort) string {
	if len(ports) == 0 {
		return "none"
	}
	numbers := make([]string, 0, len(ports))
	for _, p := range ports {
		numbers = append(numbers, strconv.Itoa(int(p.Port)))
	}
	return strings.Join(numbers, ", ")
}

// granted tells whether the route may refer to an import: in its own namespace always, elsewhere by a
// ReferenceGrant (Gateway API, ReferenceGrant).
func (s routePlanner) granted(key ServiceKey) bool {
	if key.Namespace == s.Route.Namespace {
		return true
	}
	return Granted(s.Grants, s.Route.Namespace, key)
}

// Granted tells whether HTTPRoutes of a namespace may refer to an import of another.
func Granted(grants []*gatewayv1.ReferenceGrant, from string, key ServiceKey) bool {
	return slices.ContainsFunc(grants, func(g *gatewayv1.ReferenceGrant) bool {
		return g.Namespace == key.Namespace &&
			slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
				return f.Group == gatewayv1.GroupName && f.Kind == "HTTPRoute" && string(f.Namespace) == from
			}) &&
			slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
				return t.Group == mcsv1beta1.GroupName && t.Kind == mcsv1beta1.ServiceImportKindName &&
					(t.Name == nil || string(*t.Name) == key.Name)
			})
	})
}

// resolvedRefs is the route's ResolvedRefs: the first reference that does not resolve decides the reason, and
// the message names all of them.
func (s routePlanner) resolvedRefs() metav1.Condition {
	result := condition(gatewayv1.RouteConditionResolvedRefs, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs,
		"every reference resolves")
	var messages []string
	for _, ref := range backendsOf(s.Route) {
		key, isImport := ImportKey(ref, s.Route.Namespace)
		if !isImport {
			continue
		}
		if s.overlay.standsFor(key) {
			// The new side serves all of it, also where the old one is gone.
			key.Name, ref.Name = s.overlay.to.Name, gatewayv1.ObjectName(s.overlay.to.Name)
		}
		if _, problem := s.resolve(key, ref); problem != nil && !slices.Contains(messages, problem.Message) {
			if len(messages) == 0 {
				result = *problem
			}
			messages = append(messages, problem.Message)
		}
	}
	if len(messages) > 0 {
		result.Message = strings.Join(messages, "; ")
	}
	result.ObservedGeneration = s.Route.Generation
	return result
}
