// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

func fromYAML[T any](t *testing.T, text string) T {
	t.Helper()
	var into T
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &into), text)
	return into
}

func TestAttach(t *testing.T) {
	const web = `{name: web, port: 80, protocol: HTTP}`
	tests := map[string]struct {
		listeners, ref, hostnames string
		namespace                 string
		labels                    map[string]string
		listens                   []gatewayv1.SectionName
		reason                    gatewayv1.RouteConditionReason
	}{
		"plain":                     {web, `{name: g}`, `[]`, "sample", nil, []gatewayv1.SectionName{"web"}, gatewayv1.RouteReasonAccepted},
		"two listeners":             {web + `,{name: tls, port: 443, protocol: HTTPS}`, `{name: g}`, `[]`, "sample", nil, []gatewayv1.SectionName{"web", "tls"}, gatewayv1.RouteReasonAccepted},
		"by section":                {web + `,{name: tls, port: 443, protocol: HTTPS}`, `{name: g, sectionName: tls}`, `[]`, "sample", nil, []gatewayv1.SectionName{"tls"}, gatewayv1.RouteReasonAccepted},
		"by port":                   {web + `,{name: tls, port: 443, protocol: HTTPS}`, `{name: g, port: 443}`, `[]`, "sample", nil, []gatewayv1.SectionName{"tls"}, gatewayv1.RouteReasonAccepted},
		"no such section":           {web, `{name: g, sectionName: tls}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNoMatchingParent},
		"section and port differ":   {web, `{name: g, sectionName: web, port: 81}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNoMatchingParent},
		"another namespace":         {web, `{name: g}`, `[]`, "shop", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"from Same":                 {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}`, `{name: g}`, `[]`, "shop", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"from None":                 {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: None}}}`, `{name: g}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"from All":                  {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}`, `{name: g}`, `[]`, "shop", nil, []gatewayv1.SectionName{"web"}, gatewayv1.RouteReasonAccepted},
		"selected":                  {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}`, `{name: g}`, `[]`, "shop", map[string]string{"team": "a"}, []gatewayv1.SectionName{"web"}, gatewayv1.RouteReasonAccepted},
		"not selected":              {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}`, `{name: g}`, `[]`, "shop", map[string]string{"team": "b"}, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"a selector that is none":   {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}}`, `{name: g}`, `[]`, "shop", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"a selector that is wrong":  {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Nope}]}}}}`, `{name: g}`, `[]`, "shop", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"not HTTP":                  {`{name: web, port: 80, protocol: TCP}`, `{name: g}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"other kinds":               {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}`, `{name: g}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"its kind of another group": {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{group: example.com, kind: HTTPRoute}]}}`, `{name: g}`, `[]`, "sample", nil, nil, gatewayv1.RouteReasonNotAllowedByListeners},
		"its kind":                  {`{name: web, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}, {kind: HTTPRoute}]}}`, `{name: g}`, `[]`, "sample", nil, []gatewayv1.SectionName{"web"}, gatewayv1.RouteReasonAccepted},
		"host in common":            {`{name: web, port: 80, protocol: HTTP, hostname: "*.example.com"}`, `{name: g}`, `[a.example.org, a.example.com]`, "sample", nil, []gatewayv1.SectionName{"web"}, gatewayv1.RouteReasonAccepted},
		"no host in common":         {`{name: web, port: 80, protocol: HTTP, hostname: "*.example.com"}`, `{name: g}`, `[a.example.org]`, "sample", nil, nil, gatewayv1.RouteReasonNoMatchingListenerHostname},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			gateway := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"},
				Spec: fromYAML[gatewayv1.GatewaySpec](t, `{gatewayClassName: c, listeners: [`+test.listeners+`]}`)}
			route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, Name: "r", Generation: 3}}
			route.Spec.Hostnames = fromYAML[[]gatewayv1.Hostname](t, test.hostnames)
			p := Attach(route, fromYAML[gatewayv1.ParentReference](t, test.ref), gateway, test.labels)
			require.Equal(t, test.listens, p.Listeners)
			require.Equal(t, string(test.reason), p.Accepted.Reason)
			require.Equal(t, len(test.listens) > 0, p.IsAccepted())
			require.Equal(t, p.IsAccepted(), p.Accepted.Status == metav1.ConditionTrue)
			require.Equal(t, int64(3), p.Accepted.ObservedGeneration)
			require.Contains(t, p.Accepted.Message, "Gateway sample/g")
		})
	}
}

func TestHostnamesIntersect(t *testing.T) {
	tests := []struct {
		listener string
		route    []gatewayv1.Hostname
		want     []string
	}{
		{"", nil, []string{"*"}},
		{"a.example.com", nil, []string{"a.example.com"}},
		{"", []gatewayv1.Hostname{"a.example.com"}, []string{"a.example.com"}},
		{"a.example.com", []gatewayv1.Hostname{"a.example.com", "b.example.com"}, []string{"a.example.com"}},
		{"*.example.com", []gatewayv1.Hostname{"a.example.com", "a.b.example.com", "example.com", "badexample.com"}, []string{"a.example.com", "a.b.example.com"}},
		{"a.example.com", []gatewayv1.Hostname{"*.example.com"}, []string{"a.example.com"}},
		{"a.b.example.com", []gatewayv1.Hostname{"*.example.com"}, []string{"a.b.example.com"}},
		{"*.example.com", []gatewayv1.Hostname{"*.example.com"}, []string{"*.example.com"}},
		{"*.example.com", []gatewayv1.Hostname{"*.a.example.com"}, []string{"*.a.example.com"}},
		{"*.a.example.com", []gatewayv1.Hostname{"*.example.com"}, []string{"*.a.example.com"}},
		{"*.a.example.com", []gatewayv1.Hostname{"*.b.example.com"}, nil},
		{"example.com", []gatewayv1.Hostname{"*.example.com"}, nil},
		{"a.example.com", []gatewayv1.Hostname{"a.example.org"}, nil},
	}
	for _, test := range tests {
		listener := gatewayv1.Hostname(test.listener)
		require.Equal(t, test.want, intersectHostnames(&listener, test.route), "%s and %v", listener, test.route)
	}
	require.Equal(t, []string{"*"}, intersectHostnames(nil, nil))
}
