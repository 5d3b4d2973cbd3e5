// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// What an HTTPRoute holds (Gateway API, HTTPRouteSpec.rules, HTTPRouteRule.matches, HTTPRouteMatch.headers).
const (
	maxRules   = 16
	maxMatches = 128
	maxHeaders = 16
)

// pin is what requests have that are led to the new side whatever its share, and what copies of rules for them are called by.
type pin struct {
	suffix  string
	headers []gatewayv1.HTTPHeaderMatch
}

// pinned are the pins with these headers, where there are any, and with the cookie, where clients stick.
func (o *overlay) pinned(headers []gatewayv1.HTTPHeaderMatch, sticks bool) []pin {
	var pins []pin
	if len(headers) > 0 {
		pins = append(pins, pin{"-header", headers})
	}
	if sticks {
		pins = append(pins, pin{"-sticky", o.cookieMatch()})
	}
	return pins
}

// pinsToCome are the pins of each step of a rollout, together with the cookie.
func (o *overlay) pinsToCome() [][]pin {
	if b := o.Spec.BlueGreen; b != nil {
		return [][]pin{o.pinned(b.PreviewMatch, false)}
	}
	if o.Spec.Canary == nil {
		return nil // the schema lets none through
	}
	sticks := o.Spec.Canary.Sticky != nil
	all := [][]pin{o.pinned(nil, sticks)}
	for _, step := range o.Spec.Canary.Steps {
		if step.SetHeaderRoute != nil {
			all = append(all, o.pinned(step.SetHeaderRoute.Match, sticks))
		}
	}
	return all
}

// ruleCopy is a copy of a rule for requests with certain headers.
type ruleCopy struct {
	gatewayv1.HTTPRouteRule
	source gatewayv1.HTTPRouteRule
	// of names the source, and index is its own in the route.
	of    string
	index int
	pin   pin
}

// layRules adds the rules by which requests reach the new side whatever its share: those with the headers of a step, and those of
// clients that were there before. They stand behind the route's own, which keep their indexes, and go before the rules that they are
// copies of by what they match (Gateway API, HTTPRouteRule.matches: more headers go first). It also returns what was copied, by the
// index of the copy. Where the copies cannot be had, there is none: a member that refuses its route would miss every failover.
func (o *overlay) layRules(route *gatewayv1.HTTPRoute) (*gatewayv1.HTTPRoute, map[int]gatewayv1.HTTPRouteRule) {
	if o == nil {
		return route, nil
	}
	copies, problem := o.copies(route, o.pinned(o.Status.HeaderRoute, o.sticks()))
	if len(copies) == 0 || problem != "" {
		return route, nil
	}
	laid, copied := &gatewayv1.HTTPRoute{TypeMeta: route.TypeMeta, ObjectMeta: route.ObjectMeta, Status: route.Status}, map[int]gatewayv1.HTTPRouteRule{}
	route.Spec.DeepCopyInto(&laid.Spec)
	for _, c := range copies {
		copied[len(laid.Spec.Rules)] = c.source
		laid.Spec.Rules = append(laid.Spec.Rules, c.HTTPRouteRule)
	}
	return laid, copied
}

// copies are the rules that a route needs for pins, and why it cannot have them; empty where it can.
func (o *overlay) copies(route *gatewayv1.HTTPRoute, pins []pin) ([]ruleCopy, string) {
	var copies []ruleCopy
	for i, rule := range route.Spec.Rules {
		at := slices.IndexFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool {
			return o.concerns(rule, b, route.Namespace) && backendWeight(b) > 0
		})
		for _, p := range pins {
			if at >= 0 {
				copies = append(copies, copyOf(rule, i, at, p))
			}
		}
	}
	rules, matches := len(route.Spec.Rules)+len(copies), 0
	for _, rule := range route.Spec.Rules {
		matches += max(1, len(rule.Matches))
	}
	for _, c := range copies {
		if problem := c.problem(route, copies); problem != "" {
			return copies, problem
		}
		matches += len(c.Matches)
	}
	switch {
	case rules > maxRules:
		return copies, fmt.Sprintf("with its headers and cookies HTTPRoute %s would have %d rules, and an HTTPRoute holds %d: name one rule, or split the route", route.Name, rules, maxRules)
	case matches > maxMatches:
		return copies, fmt.Sprintf("with its headers and cookies HTTPRoute %s would have %d matches, and an HTTPRoute holds %d: name one rule, or split the route", route.Name, matches, maxMatches)
	}
	return copies, ""
}

// copyOf is a copy of a rule, and of its backends the one at an index.
func copyOf(rule gatewayv1.HTTPRouteRule, index, at int, p pin) ruleCopy {
	c := ruleCopy{HTTPRouteRule: *rule.DeepCopy(), source: rule, of: RuleName(rule, index), index: index, pin: p}
	section, one := gatewayv1.SectionName(c.of+p.suffix), int32(1)
	c.Name, c.BackendRefs = &section, c.BackendRefs[at:at+1]
	c.BackendRefs[0].Weight = &one
	c.Matches = matchesOf(c.HTTPRouteRule)
	for i := range c.Matches {
		c.Matches[i].Headers = append(slices.Clone(c.Matches[i].Headers), p.headers...)
	}
	return c
}

// problem says why a copy cannot stand in a route, among others; empty where it can.
//
//	its rule itself matches a header of the pin | both would have to match, and a match names a header once
//	a match would have more than 16 headers     | the API server of the member refuses it
//	a rule of the route has its name            | what is remembered of one would be taken for the other's
//	its backend sets cookies itself             | a list of headers names each once
//	it takes requests from another rule         | by more headers it goes before rules that go before its own
func (c ruleCopy) problem(route *gatewayv1.HTTPRoute, copies []ruleCopy) string {
	rule := fmt.Sprintf("rule %s of HTTPRoute %s", c.of, route.Name)
	for _, m := range c.Matches {
		if name := repeatedHeader(m.Headers); name != "" {
			return fmt.Sprintf("%s matches the header %s itself: choose another one, or name another rule", rule, name)
		}
		if len(m.Headers) > maxHeaders {
			return fmt.Sprintf("%s would match %d headers, and a match holds %d: choose fewer", rule, len(m.Headers), maxHeaders)
		}
	}
	if HasRule(route, string(*c.Name)) {
		return fmt.Sprintf("HTTPRoute %s has a rule %s, which would be the name of the copy of rule %s: give one of them another name", route.Name, *c.Name, c.of)
	}
	if c.pin.suffix == "-sticky" && setsCookies(c.BackendRefs[0]) {
		return fmt.Sprintf("a backend of %s adds Set-Cookie itself: move that to the rule's filters, or leave sticky out", rule)
	}
	for i, other := range route.Spec.Rules {
		if !slices.ContainsFunc(copies, func(d ruleCopy) bool { return d.index == i }) && c.takesFrom(other, i) {
			return fmt.Sprintf("requests of rule %s of HTTPRoute %s would go to the copy of rule %s, since that matches %d headers more, and more headers go before query parameters and fewer headers: give the rules different paths or methods, or name another rule",
				RuleName(other, i), route.Name, c.of, len(c.pin.headers))
		}
	}
	return ""
}

func repeatedHeader(headers []gatewayv1.HTTPHeaderMatch) string {
	for i, h := range headers {
		if slices.ContainsFunc(headers[:i], func(o gatewayv1.HTTPHeaderMatch) bool { return strings.EqualFold(string(o.Name), string(h.Name)) }) {
			return string(h.Name)
		}
	}
	return ""
}

func setsCookies(ref gatewayv1.HTTPBackendRef) bool {
	return slices.ContainsFunc(ref.Filters, func(f gatewayv1.HTTPRouteFilter) bool {
		return f.ResponseHeaderModifier != nil && slices.ContainsFunc(f.ResponseHeaderModifier.Add, func(h gatewayv1.HTTPHeader) bool {
			return strings.EqualFold(string(h.Name), "Set-Cookie")
		})
	})
}

// takesFrom tells whether some request goes to another rule of the route now, and would go to the copy.
func (c ruleCopy) takesFrom(other gatewayv1.HTTPRouteRule, index int) bool {
	sources := matchesOf(c.source)
	for _, theirs := range matchesOf(other) {
		for i, pinned := range c.Matches {
			before := cmp.Or(compareMatches(theirs, sources[i]), index-c.index) < 0
			if before && compareMatches(pinned, theirs) < 0 && overlap(pinned, theirs) {
				return true
			}
		}
	}
	return false
}

// matchesOf are the matches of a rule, each with what it stands for.
func matchesOf(rule gatewayv1.HTTPRouteRule) []gatewayv1.HTTPRouteMatch {
	matches := rule.DeepCopy().Matches
	if len(matches) == 0 {
		matches = []gatewayv1.HTTPRouteMatch{{}}
	}
	for i := range matches {
		if matches[i].Path == nil {
			kind, root := gatewayv1.PathMatchPathPrefix, "/"
			matches[i].Path = &gatewayv1.HTTPPathMatch{Type: &kind, Value: &root}
		}
	}
	return matches
}

// compareMatches is negative where one goes before the other among matches with the same path: by method, then by the number of
// headers, then by that of query parameters (Gateway API, HTTPRouteRule.matches).
func compareMatches(a, b gatewayv1.HTTPRouteMatch) int {
	method := func(m gatewayv1.HTTPRouteMatch) int {
		if m.Method != nil {
			return 1
		}
		return 0
	}
	return cmp.Or(method(b)-method(a), len(b.Headers)-len(a.Headers), len(b.QueryParams)-len(a.QueryParams))
}

// overlap tells whether a request may match both of two, where headers decide between them: other paths and methods do before.
func overlap(a, b gatewayv1.HTTPRouteMatch) bool {
	if (a.Method == nil) != (b.Method == nil) || deref(a.Method) != deref(b.Method) {
		return false
	}
	kind := cmp.Or(deref(a.Path.Type), gatewayv1.PathMatchPathPrefix)
	if kind != cmp.Or(deref(b.Path.Type), gatewayv1.PathMatchPathPrefix) {
		return false
	}
	if kind != gatewayv1.PathMatchRegularExpression && deref(a.Path.Value) != deref(b.Path.Value) {
		return false
	}
	return !slices.ContainsFunc(a.Headers, func(h gatewayv1.HTTPHeaderMatch) bool {
		return slices.ContainsFunc(b.Headers, func(o gatewayv1.HTTPHeaderMatch) bool {
			return strings.EqualFold(string(h.Name), string(o.Name)) && h.Value != o.Value && exact(h) && exact(o)
		})
	})
}

func exact(h gatewayv1.HTTPHeaderMatch) bool {
	return cmp.Or(deref(h.Type), gatewayv1.HeaderMatchExact) == gatewayv1.HeaderMatchExact
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
