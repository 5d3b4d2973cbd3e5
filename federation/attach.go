// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Parent is one parentRef of a hub route that leads to a Gateway of the class.
type Parent struct {
	Ref     gatewayv1.ParentReference
	Gateway *gatewayv1.Gateway
	// Listeners that the route attaches to, by name; empty when it was not accepted.
	Listeners []gatewayv1.SectionName
	// Accepted is the route's condition for this parent.
	Accepted metav1.Condition

	// admitting are the listeners that admit the route, whatever its host names.
	admitting []gatewayv1.Listener
}

// takes tells whether any listener would take the route with a host name of its own.
func (p Parent) takes(host gatewayv1.Hostname) bool {
	return slices.ContainsFunc(p.admitting, func(l gatewayv1.Listener) bool {
		return len(intersectHostnames(l.Hostname, []gatewayv1.Hostname{host})) > 0
	})
}

// IsAccepted tells whether the route attaches to at least one listener.
func (p Parent) IsAccepted() bool { return len(p.Listeners) > 0 }

// Attach decides which listeners of a Gateway a route attaches to, by the rules of the Gateway API: the
// parentRef's section and port, the listener's allowedRoutes, and host names that intersect. namespaceLabels
// are those of the route's namespace.
func Attach(route *gatewayv1.HTTPRoute, ref gatewayv1.ParentReference, gateway *gatewayv1.Gateway,
	namespaceLabels map[string]string) Parent {
	p := Parent{Ref: ref, Gateway: gateway, Accepted: metav1.Condition{Type: string(gatewayv1.RouteConditionAccepted),
		Status: metav1.ConditionFalse, ObservedGeneration: route.Generation}}
	named, allowed := 0, 0
	for _, l := range gateway.Spec.Listeners {
		if !refersTo(ref, l) {
			continue
		}
		named++
		if !allows(l, route, gateway, namespaceLabels) {
			continue
		}
		allowed++
		p.admitting = append(p.admitting, l)
		if len(intersectHostnames(l.Hostname, route.Spec.Hostnames)) > 0 {
			p.Listeners = append(p.Listeners, l.Name)
		}
	}
	where := "Gateway " + gateway.Namespace + "/" + gateway.Name
	switch {
	case p.IsAccepted():
		p.Accepted.Status, p.Accepted.Reason = metav1.ConditionTrue, string(gatewayv1.RouteReasonAccepted)
		p.Accepted.Message = "attached to " + where
	case named == 0:
		p.Accepted.Reason = string(gatewayv1.RouteReasonNoMatchingParent)
		p.Accepted.Message = where + " has no listener of that sectionName and port: correct the parentRef"
	case allowed == 0:
		p.Accepted.Reason = string(gatewayv1.RouteReasonNotAllowedByListeners)
		p.Accepted.Message = fmt.Sprintf("no listener of %s admits HTTPRoutes of namespace %s: change its allowedRoutes", where,
			route.Namespace)
	default:
		p.Accepted.Reason = string(gatewayv1.RouteReasonNoMatchingListenerHostname)
		p.Accepted.Message = "no listener of " + where + " has a host name that the route's host names match: change one of the two"
	}
	return p
}

func refersTo(ref gatewayv1.ParentReference, l gatewayv1.Listener) bool {
	return (ref.SectionName == nil || *ref.SectionName == l.Name) && (ref.Port == nil || *ref.Port == l.Port)
}

func allows(l gatewayv1.Listener, route *gatewayv1.HTTPRoute, gateway *gatewayv1.Gateway, nsLabels map[string]string) bool {
	if !carriesHTTP(l) {
		return false
	}
	if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
		return route.Namespace == gateway.Namespace
	}
	switch *l.AllowedRoutes.Namespaces.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector)
		return err == nil && l.AllowedRoutes.Namespaces.Selector != nil && selector.Matches(labels.Set(nsLabels))
	case gatewayv1.NamespacesFromSame:
		return route.Namespace == gateway.Namespace
	}
	return false
}

// carriesHTTP tells whether HTTPRoutes can attach to a listener: by its protocol and by its allowed kinds.
func carriesHTTP(l gatewayv1.Listener) bool {
	if l.Protocol != gatewayv1.HTTPProtocolType && l.Protocol != gatewayv1.HTTPSProtocolType {
		return false
	}
	return l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 ||
		slices.ContainsFunc(l.AllowedRoutes.Kinds, func(k gatewayv1.RouteGroupKind) bool {
			return k.Kind == "HTTPRoute" && (k.Group == nil || *k.Group == gatewayv1.GroupName)
		})
}

// intersectHostnames is what a listener's host name and a route's have in common; "*" stands for all. A
// wildcard covers one or more labels in front.
func intersectHostnames(listener *gatewayv1.Hostname, route []gatewayv1.Hostname) []string {
	l := string(deref(listener))
	if len(route) == 0 {
		if l == "" {
			l = "*"
		}
		return []string{l}
	}
	var out []string
	for _, h := range route {
		if common, ok := intersectHostname(l, string(h)); ok {
			out = append(out, common)
		}
	}
	return out
}

func intersectHostname(a, b string) (string, bool) {
	switch {
	case a == "" || a == b:
		return b, true
	case strings.HasPrefix(a, "*.") && strings.HasSuffix(strings.TrimPrefix(b, "*"), a[1:]):
		return b, true
	case strings.HasPrefix(b, "*.") && strings.HasSuffix(strings.TrimPrefix(a, "*"), b[1:]):
		return a, true
	}
	return "", false
}
