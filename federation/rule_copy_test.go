// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Where copies of rules cannot be had, the rollout is refused; and where a route changes so that it is under way, it goes on without
// them, since a member would refuse its route as a whole.
func TestWhichRoutesCannotHaveCopiesOfRules(t *testing.T) {
	ref := `backendRefs: [` + importRef + `]`
	other := `backendRefs: [{name: other, port: 80}]`
	withFilter := `backendRefs: [` + strings.TrimSuffix(importRef, "}") + `, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: set-cookie, value: a=b}]}}]}]`
	many := func(n int, each string) string { return strings.Join(slices.Repeat([]string{each}, n), ", ") }
	matches := make([]string, 0, 43)
	for i := range 43 {
		matches = append(matches, fmt.Sprintf(`{path: {type: PathPrefix, value: "/%d"}}`, i))
	}
	tests := map[string]struct{ route, want string }{
		"one rule":               {`{name: web, ` + ref + `}`, ""},
		"its own cookie":         {`{name: web, matches: [{headers: [{name: cookie, value: a}]}], ` + ref + `}`, "rule web of HTTPRoute r matches the header Cookie itself"},
		"its own version":        {`{name: web, matches: [{headers: [{name: x-version, value: a}]}], ` + ref + `}`, "matches the header X-Version itself"},
		"its own cookies":        {`{name: web, ` + withFilter + `}`, "a backend of rule web of HTTPRoute r adds Set-Cookie itself"},
		"a rule of that name":    {`{name: web, ` + ref + `}, {name: web-sticky, ` + other + `}`, "HTTPRoute r has a rule web-sticky"},
		"a query before":         {`{name: beta, matches: [{queryParams: [{name: beta, value: "1"}]}], ` + other + `}, {name: web, ` + ref + `}`, "requests of rule beta of HTTPRoute r would go to the copy of rule web"},
		"a query, of that path":  {`{name: beta, matches: [{path: {type: PathPrefix, value: /}, queryParams: [{name: beta, value: "1"}]}], ` + other + `}, {name: web, ` + ref + `}`, "requests of rule beta"},
		"a query, copied too":    {`{name: beta, matches: [{queryParams: [{name: beta, value: "1"}]}], ` + ref + `}, {name: web, ` + ref + `}`, ""},
		"a query, another path":  {`{name: beta, matches: [{path: {type: PathPrefix, value: /b}, queryParams: [{name: beta, value: "1"}]}], ` + other + `}, {name: web, ` + ref + `}`, ""},
		"a query, by its method": {`{name: beta, matches: [{method: POST, queryParams: [{name: beta, value: "1"}]}], ` + other + `}, {name: web, ` + ref + `}`, ""},
		"a header before":        {`{name: beta, matches: [{headers: [{name: beta, value: "1"}]}], ` + other + `}, {name: web, matches: [{queryParams: [{name: q, value: "1"}]}], ` + ref + `}`, "requests of rule beta"},
		"two headers before":     {`{name: beta, matches: [{headers: [{name: beta, value: "1"}, {name: b, value: "1"}]}], ` + other + `}, {name: web, ` + ref + `}`, ""},
		"another value":          {`{name: beta, matches: [{headers: [{name: x-beta, value: "1"}]}], ` + other + `}, {name: web, matches: [{headers: [{name: x-beta, value: "0"}]}], ` + ref + `}`, ""},
		"an older twin":          {`{name: beta, ` + other + `}, {name: web, ` + ref + `}`, "requests of rule beta"},
		"a younger twin":         {`{name: web, ` + ref + `}, {name: beta, ` + other + `}`, ""},
		"5 rules":                {many(5, `{`+ref+`}`), ""},
		"6 rules":                {many(6, `{`+ref+`}`), "would have 18 rules, and an HTTPRoute holds 16"},
		"42 matches":             {`{matches: [` + strings.Join(matches[:42], ", ") + `], ` + ref + `}`, ""},
		"43 matches":             {`{matches: [` + strings.Join(matches, ", ") + `], ` + ref + `}`, "would have 129 matches, and an HTTPRoute holds 128"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := previewed(at("eks", 10), at("gke", 10))
			r.Spec.Canary.Steps = append(r.Spec.Canary.Steps, v1alpha1.CanaryStep{SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{Match: r.Status.HeaderRoute}})
			s := rolledOver(t, 1, 1, r)
			s.Route = hubRoute(t, test.route)
			refused := RolloutChecks{Rollout: r, Rollouts: s.Rollouts, Exporters: exported, Route: s.Route}.Standing().Refused
			require.Contains(t, refused, test.want)
			require.Equal(t, test.want == "", refused == "", refused)
			rules := rulesOf(t, settled(s))
			require.Equal(t, test.want == "", len(rules) > len(s.Route.Spec.Rules))
			sum := 0
			for _, rule := range rules {
				sum += len(rule.Matches)
			}
			require.LessOrEqual(t, sum, maxMatches)
			require.LessOrEqual(t, len(rules), maxRules)
		})
	}
}

// A copy differs from its rule in its name, the headers and the backend, and in nothing else.
func TestACopyKeepsWhatItsRuleSays(t *testing.T) {
	text := `{name: web, matches: [{path: {type: Exact, value: /a}, method: GET}, {path: {type: PathPrefix, value: /b}, headers: [{name: h, value: x}]}],
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}], timeouts: {request: 7s}, retry: {attempts: 2}, backendRefs: [` + importRef + `]}`
	s := rolledOver(t, 1, 1, previewed(at("eks", 10), at("gke", 10)))
	s.Route = hubRoute(t, text)
	rules := rulesOf(t, settled(s))
	require.Len(t, rules, 3)
	for i, headers := range [][]gatewayv1.HTTPHeaderMatch{s.Rollouts[0].Status.HeaderRoute, overlayOf(s.Route, s.Rollouts).cookieMatch()} {
		got := rules[i+1].DeepCopy()
		for j := range got.Matches {
			require.Equal(t, headers, got.Matches[j].Headers[len(got.Matches[j].Headers)-1:])
			got.Matches[j].Headers = got.Matches[j].Headers[:len(got.Matches[j].Headers)-1]
			if len(got.Matches[j].Headers) == 0 {
				got.Matches[j].Headers = nil
			}
		}
		got.Name, got.BackendRefs = rules[0].Name, rules[0].BackendRefs
		require.Equal(t, rules[0], *got)
	}
}

func TestWhichRulesAreCopied(t *testing.T) {
	copies := func(route, rule string) int {
		r := previewed(at("eks", 10), at("gke", 10))
		if rule != "" {
			r.Spec.Route.Rule = new(gatewayv1.SectionName(rule))
		}
		s := rolledOver(t, 1, 1, r)
		s.Route = hubRoute(t, route)
		return len(rulesOf(t, settled(s))) - len(s.Route.Spec.Rules)
	}
	a, b := `{name: a, matches: [{path: {value: /a}}], backendRefs: [`+importRef+`]}`, `{name: b, matches: [{path: {value: /b}}], backendRefs: [`+importRef+`]}`
	require.Equal(t, 4, copies(a+", "+b, ""))
	require.Equal(t, 2, copies(a+", "+b, "b"))
	require.Equal(t, 0, copies(`{backendRefs: [`+strings.TrimSuffix(importRef, "}")+`, weight: 0}, {name: other, port: 80}]}`, ""), "the route gives the old side nothing")
}

// A rule that does not hold both sides of nine clusters goes on being planned, and gives the new one what fits.
func TestARuleThatDoesNotHoldBothSides(t *testing.T) {
	var clusters []ServiceMember
	var weights []v1alpha1.RolloutCluster
	var list []any
	for i := range 9 {
		name := fmt.Sprintf("c%d", i)
		clusters, weights, list = append(clusters, exporter(name, 1)), append(weights, at(name, 10)), append(list, name, 1)
	}
	s := routeSnapshot(hubRoute(t, `{name: web, backendRefs: [`+importRef+`]}`), clusters...)
	s.Services[canaryKey] = ServiceSnapshot{Key: canaryKey, Members: slices.Clone(clusters)}
	for i := range s.Members {
		for _, c := range clusters {
			s.Members[i].Hosts = append(s.Members[i].Hosts, RemoteHost(canaryKey, c.Name))
		}
	}
	s.Policies = append(s.Policies, policyOn("p", "default", "HTTPRoute r"))
	s.Policies[0].Spec.Defaults.Distribution = weighted(list...)
	s.Rollouts = []*v1alpha1.TrafficRollout{rolling(weights...)}
	s = onward(s)
	plan := PlanRoute(s)
	require.NotNil(t, plan.Members["c0"].Object, plan.Members["c0"].Refused.Message)
	backends, total, canaries := plan.Members["c0"].Rules[0].Backends, int32(0), 0
	require.LessOrEqual(t, len(backends), maxBackendRefs)
	for _, b := range backends {
		total += b.Weight
		if b.Import == canaryKey.String() && b.Weight > 0 {
			canaries++
		}
	}
	require.EqualValues(t, TotalWeight, total)
	require.Equal(t, 7, canaries, "as many as there is room for")
	s = emptied(s, sampleKey, "c0")
	require.NotContains(t, serving(PlanRoute(s), "c1", "web"), "c0/helloworld", "failover is in force")
}

func TestACookieBelongsToOneRollout(t *testing.T) {
	a, b := previewed(), previewed()
	a.UID, b.UID = "4f0a-1", "9c2e-1"
	one, other := overlayOf(hubRoute(t, `{}`), []*v1alpha1.TrafficRollout{a}), overlayOf(hubRoute(t, `{}`), []*v1alpha1.TrafficRollout{b})
	require.NotEqual(t, one.cookie(), other.cookie())
	a.Spec.Canary.Sticky.Cookie = "my.cookie"
	require.Contains(t, one.cookieMatch()[0].Value, `my\.cookie=canary-`)
}

// A finished rollout serves what the route names, also when nobody exports that any more.
func TestAFinishedRolloutResolves(t *testing.T) {
	s := rolledOver(t, 1, 1, rolling(at("eks", 100), at("gke", 100)))
	for i := range s.Services[sampleKey].Members {
		s.Services[sampleKey].Members[i].Exported = false
	}
	require.EqualValues(t, "True", settled(s).ResolvedRefs.Status)
	s.Rollouts[0].Status.Clusters[0].Weight = 50
	require.EqualValues(t, "False", settled(s).ResolvedRefs.Status)
}
