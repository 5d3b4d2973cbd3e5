// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// PreviewName is the name of the HTTPRoute by which a route's preview is reached under a host name of its own. A rule cannot match a
// host name (Gateway API, HTTPRouteSpec.hostnames hold for all rules), so that the preview is a second route in each member, written
// and withdrawn together with the first.
func PreviewName(route string) string { return boundedName(253, route, "preview") }

// layPreview adds a copy of each of the route's rules, in which the new side stands for the old one. They are planned like the others,
// and cut off at the end: previewFrom is the first of them.
func (o *overlay) layPreview(laid, route *gatewayv1.HTTPRoute) (out *gatewayv1.HTTPRoute, previewFrom int) {
	previewFrom = len(laid.Spec.Rules)
	if o == nil || o.Status.PreviewHostname == "" {
		return laid, previewFrom
	}
	out = laid.DeepCopy()
	for i, rule := range route.Spec.Rules {
		preview, name := *rule.DeepCopy(), gatewayv1.SectionName(RuleName(rule, i)+"-preview")
		preview.Name = &name
		for j, b := range preview.BackendRefs {
			if o.concerns(rule, b, route.Namespace) {
				preview.BackendRefs[j] = o.newRef(b)
			}
		}
		out.Spec.Rules = append(out.Spec.Rules, preview)
	}
	return out, previewFrom
}

// cutPreview takes the preview's rules out of a planned route, into one of their own; nil where there is no preview, or no listener
// takes its host name any more.
func (s routePlanner) cutPreview(object *gatewayv1.HTTPRoute) *gatewayv1.HTTPRoute {
	if s.previewFrom == len(object.Spec.Rules) {
		return nil
	}
	preview, host := object.DeepCopy(), gatewayv1.Hostname(s.overlay.Status.PreviewHostname)
	preview.Name, preview.Spec.Hostnames = PreviewName(object.Name), []gatewayv1.Hostname{host}
	preview.Spec.Rules, object.Spec.Rules = preview.Spec.Rules[s.previewFrom:], object.Spec.Rules[:s.previewFrom]
	preview.Spec.ParentRefs = nil
	for _, p := range s.Parents {
		if p.takes(host) {
			preview.Spec.ParentRefs = append(preview.Spec.ParentRefs, *p.Ref.DeepCopy())
		}
	}
	if len(preview.Spec.ParentRefs) == 0 {
		return nil
	}
	return preview
}

// previewProblem says why the preview cannot have its host name; empty where it can, or needs it no more.
func (c RolloutChecks) previewProblem() string {
	b := c.Rollout.Spec.BlueGreen
	if b == nil || b.PreviewHostname == "" ||
		c.Rollout.Status.Phase == v1alpha1.RolloutHealthy && c.Rollout.Status.ObservedGeneration == c.Rollout.Generation {
		return ""
	}
	host := gatewayv1.Hostname(b.PreviewHostname)
	for _, r := range c.Routes {
		switch {
		case r.Namespace == c.Route.Namespace && r.Name == PreviewName(c.Route.Name):
			return fmt.Sprintf("HTTPRoute %s has the name that the preview needs in the members: rename it", r.Name)
		case slices.Contains(r.Spec.Hostnames, host) && shareGateway(r, c.Route):
			return fmt.Sprintf("HTTPRoute %s/%s serves the host name %s: give the preview one of its own", r.Namespace, r.Name, host)
		}
	}
	for _, r := range c.Rollouts {
		if r.Name != c.Rollout.Name && olderRollout(r, c.Rollout) && !retired(r) && r.Spec.BlueGreen != nil && r.Spec.BlueGreen.PreviewHostname == b.PreviewHostname {
			return fmt.Sprintf("TrafficRollout %s, which is older, has its preview at %s: give this one a host name of its own", r.Name, host)
		}
	}
	if !slices.ContainsFunc(c.Parents, func(p Parent) bool { return p.takes(host) }) {
		return fmt.Sprintf("no listener to which HTTPRoute %s attaches takes the host name %s of the preview: name another, or give its Gateway a listener for it",
			c.Route.Name, host)
	}
	return ""
}

// shareGateway tells whether two routes have a parent in common, whatever the listener.
func shareGateway(a, b *gatewayv1.HTTPRoute) bool {
	type parent struct{ kind, namespace, name string }
	of := func(ref gatewayv1.ParentReference, route *gatewayv1.HTTPRoute) parent {
		return parent{cmp.Or(string(deref(ref.Kind)), "Gateway"), cmp.Or(string(deref(ref.Namespace)), route.Namespace), string(ref.Name)}
	}
	return slices.ContainsFunc(a.Spec.ParentRefs, func(x gatewayv1.ParentReference) bool {
		return slices.ContainsFunc(b.Spec.ParentRefs, func(y gatewayv1.ParentReference) bool { return of(x, a) == of(y, b) })
	})
}
