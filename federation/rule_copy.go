// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// layRules adds the rules by which requests reach the new side whatever its share: those with the headers of a step, and those of
// clients that were there before. They stand behind the route's own, which keep their indexes, and go before the rules that they are
// copies of by what they match (Gateway API, HTTPRouteRule.matches: more headers go first). It also returns what was copied, by the
// index of the copy.
func (o *overlay) layRules(route *gatewayv1.HTTPRoute) (*gatewayv1.HTTPRoute, map[int]gatewayv1.HTTPRouteRule) {
	if o == nil || len(o.Status.HeaderRoute) == 0 && !o.sticks() {
		return route, nil
	}
	laid, copied := &gatewayv1.HTTPRoute{TypeMeta: route.TypeMeta, ObjectMeta: route.ObjectMeta, Status: route.Status}, map[int]gatewayv1.HTTPRouteRule{}
	route.Spec.DeepCopyInto(&laid.Spec)
	for i, rule := range route.Spec.Rules {
		at := slices.IndexFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool {
			return o.concerns(rule, b, route.Namespace) && backendWeight(b) > 0
		})
		if at < 0 {
			continue
		}
		if len(o.Status.HeaderRoute) > 0 {
			copied[len(laid.Spec.Rules)] = rule
			laid.Spec.Rules = append(laid.Spec.Rules, pinnedRule(rule, at, RuleName(rule, i)+"-header", o.Status.HeaderRoute))
		}
		if o.sticks() {
			copied[len(laid.Spec.Rules)] = rule
			laid.Spec.Rules = append(laid.Spec.Rules, pinnedRule(rule, at, RuleName(rule, i)+"-sticky", o.cookieMatch()))
		}
	}
	return laid, copied
}

// pinnedRule is a copy of a rule for requests with certain headers, and of its backends the one at an index.
func pinnedRule(rule gatewayv1.HTTPRouteRule, at int, name string, headers []gatewayv1.HTTPHeaderMatch) gatewayv1.HTTPRouteRule {
	pinned := *rule.DeepCopy()
	section, one := gatewayv1.SectionName(name), int32(1)
	pinned.Name, pinned.BackendRefs = &section, pinned.BackendRefs[at:at+1]
	pinned.BackendRefs[0].Weight = &one
	if len(pinned.Matches) == 0 {
		pinned.Matches = []gatewayv1.HTTPRouteMatch{{}}
	}
	for i := range pinned.Matches {
		m := &pinned.Matches[i]
		for _, h := range headers {
			m.Headers = slices.DeleteFunc(m.Headers, func(have gatewayv1.HTTPHeaderMatch) bool {
				return strings.EqualFold(string(have.Name), string(h.Name))
			})
			m.Headers = append(m.Headers, h)
		}
	}
	return pinned
}

// mirrors are the filters by which a rule of a member's route copies a percentage of the requests that enter there to the new side.
func (o *overlay) mirrors(rule routedRule, member string) []gatewayv1.HTTPRouteFilter {
	if o == nil || rule.pinned || o.Status.Mirror == 0 || !o.reaches(member) {
		return nil
	}
	at := slices.IndexFunc(rule.backends, func(b gatewayv1.HTTPBackendRef) bool { return o.concerns(rule.HTTPRouteRule, b, o.Namespace) })
	if at < 0 {
		return nil
	}
	percent := o.Status.Mirror
	return []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestMirror,
		RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: o.newRef(rule.backends[at]).BackendObjectReference, Percent: &percent}}}
}
