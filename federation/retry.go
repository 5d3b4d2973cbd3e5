// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"google.golang.org/protobuf/types/known/structpb"
	networkingapi "istio.io/api/networking/v1alpha3"
	typeapi "istio.io/api/type/v1beta1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// NotSentHeader is stamped by an east-west gateway on an answer of its own that it gives because it found nobody to
// send the request to. Whoever reads it may send the request elsewhere, also one that is not safe to repeat.
const NotSentHeader = "x-isthmus-not-sent"

// maxRetries of a request, after its first try: each goes to a cluster that was not tried yet while there is one.
const maxRetries = 3

// What Envoy knows of its own (https://www.envoyproxy.io/docs): names that a proxy must have compiled in, and all of
// which are in Istio's.
const (
	envoyTypes      = "type.googleapis.com/envoy.extensions."
	envoyHTTPFilter = "envoy.filters.network.http_connection_manager"
	envoyRouter     = "envoy.filters.http.router"
)

// retryOnNeverSent are the conditions of Envoy under which no application can have seen the request.
//
//	connect-failure       no connection could be made
//	refused-stream        the other side says that it has not looked at it
//	reset-before-request  the connection ended before the request's headers were out
//	retriable-headers     the answer carries NotSentHeader
const retryOnNeverSent = "connect-failure,refused-stream,reset-before-request,retriable-headers"

// retrySafeMethods adds, for methods that are safe to repeat (RFC 9110, section 9.2.1), the retry of a request whose
// connection ended before an answer began. Envoy's policy of a route knows no methods, but adds up with this header,
// which it takes off the request.
const retrySafeMethods = `local safe = {GET = true, HEAD = true, OPTIONS = true}
function envoy_on_request(handle)
  if safe[handle:headers():get(":method")] then
    handle:headers():add("x-envoy-retry-on", "reset")
  end
end
`

// backendByServerName reads what a request is for from the name that the sending gateway asked for when it connected
// (serverName), where BackendHeader does not say it: a home host must not set that header, which its own pods would see.
// Only gateways of the clusterset connect, and clients have no part in the name.
const backendByServerName = `function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("` + BackendHeader + `") then return end
  local name = handle:streamInfo():requestedServerName()
  local port, service, namespace = name:match("^(%d+)%.([^.]+)%.([^.]+)%.isthmus%.internal$")
  if port then
    headers:replace("` + BackendHeader + `", namespace .. "/" .. service .. ":" .. port)
    handle:clearRouteCache()
  end
end
`

// gatewayRetries lets the proxies of a generated Gateway try another cluster, in the order of each host's endpoints,
// when a request did not get through. HTTPRoute cannot say it: its retries stay with the endpoints that failed.
//
//	what became of the request                | GET, HEAD, OPTIONS | any other
//	never sent (retryOnNeverSent)             | tried elsewhere    | tried elsewhere
//	sent, and no answer began                 | tried elsewhere    | 503
//	answered, whatever the answer             | as answered        | as answered
//	not answered yet, the connection is alive | waits              | waits
//
// An application's error is an answer. There is no time limit for a try: a slow backend is slow, and is not to do its
// work three times over. A dead connection is found by its pings (remoteConnectionPool).
func gatewayRetries(gateway NamespacedName) *networkingv1alpha3.EnvoyFilter {
	filter := &networkingv1alpha3.EnvoyFilter{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1alpha3.SchemeGroupVersion.String(), Kind: "EnvoyFilter"},
		ObjectMeta: metav1.ObjectMeta{Namespace: gateway.Namespace, Name: gateway.Name},
	}
	filter.Spec.TargetRefs = []*typeapi.PolicyTargetReference{{Group: gatewayv1.GroupName, Kind: "Gateway", Name: gateway.Name}}
	filter.Spec.ConfigPatches = []*networkingapi.EnvoyFilter_EnvoyConfigObjectPatch{
		retryPatch(), script("isthmus.retry-safe-methods", retrySafeMethods)}
	return filter
}

// eastWestRetries does the same within the cluster, and tells the sending gateway what was never sent.
func eastWestRetries(gateway NamespacedName) *networkingv1alpha3.EnvoyFilter {
	filter := gatewayRetries(gateway)
	filter.Spec.ConfigPatches = append(filter.Spec.ConfigPatches, notSentPatch(), script("isthmus.backend-by-server-name", backendByServerName))
	return filter
}

// retryPatch is merged into each route that leads to a backend; what it does not name stays as Istio made it.
func retryPatch() *networkingapi.EnvoyFilter_EnvoyConfigObjectPatch {
	return &networkingapi.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networkingapi.EnvoyFilter_HTTP_ROUTE,
		Match: &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch{
			Context: networkingapi.EnvoyFilter_GATEWAY,
			// Without the action, the patch would make a route of a redirect.
			ObjectTypes: &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch_RouteConfiguration{
				RouteConfiguration: &networkingapi.EnvoyFilter_RouteConfigurationMatch{
					Vhost: &networkingapi.EnvoyFilter_RouteConfigurationMatch_VirtualHostMatch{
						Route: &networkingapi.EnvoyFilter_RouteConfigurationMatch_RouteMatch{
							Action: networkingapi.EnvoyFilter_RouteConfigurationMatch_RouteMatch_ROUTE}}}},
		},
		Patch: patch(networkingapi.EnvoyFilter_Patch_MERGE, fields{
			// Nobody else may say it, and nobody outside is to see it.
			"response_headers_to_remove": []any{NotSentHeader},
			"route": fields{"retry_policy": fields{
				"retry_on":          retryOnNeverSent,
				"retriable_headers": []any{fields{"name": NotSentHeader, "present_match": true}},
				"num_retries":       maxRetries,
				"retry_priority": fields{
					"name": "envoy.retry_priorities.previous_priorities",
					"typed_config": fields{
						"@type": envoyTypes + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
						// 1: leave what failed at the first retry, not at the second.
						"update_frequency": 1,
					},
				},
			}},
		}),
	}
}

// script runs for each request before it is sent on.
func script(name, lua string) *networkingapi.EnvoyFilter_EnvoyConfigObjectPatch {
	return &networkingapi.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networkingapi.EnvoyFilter_HTTP_FILTER,
		Match: inFilter(&networkingapi.EnvoyFilter_ListenerMatch_FilterMatch{Name: envoyHTTPFilter,
			SubFilter: &networkingapi.EnvoyFilter_ListenerMatch_SubFilterMatch{Name: envoyRouter}}),
		Patch: patch(networkingapi.EnvoyFilter_Patch_INSERT_BEFORE, fields{
			"name": name,
			"typed_config": fields{
				"@type":               envoyTypes + "filters.http.lua.v3.Lua",
				"default_source_code": fields{"inline_string": lua},
			},
		}),
	}
}

// notSentPatch stamps the answers that the gateway itself gives because it has no healthy upstream (UH), could not
// connect to it (UF), has too many waiting for it (UO), or knows no such route (NR) or cluster (NC). Whatever it tried
// before was never sent either: its own retries keep to that.
func notSentPatch() *networkingapi.EnvoyFilter_EnvoyConfigObjectPatch {
	return &networkingapi.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networkingapi.EnvoyFilter_NETWORK_FILTER,
		Match:   inFilter(&networkingapi.EnvoyFilter_ListenerMatch_FilterMatch{Name: envoyHTTPFilter}),
		Patch: patch(networkingapi.EnvoyFilter_Patch_MERGE, fields{"typed_config": fields{
			"@type": envoyTypes + "filters.network.http_connection_manager.v3.HttpConnectionManager",
			"local_reply_config": fields{"mappers": []any{fields{
				"filter":         fields{"response_flag_filter": fields{"flags": []any{"UH", "UF", "UO", "NR", "NC"}}},
				"headers_to_add": []any{fields{"header": fields{"key": NotSentHeader, "value": "true"}}},
			}}},
		}}),
	}
}

func inFilter(filter *networkingapi.EnvoyFilter_ListenerMatch_FilterMatch) *networkingapi.EnvoyFilter_EnvoyConfigObjectMatch {
	return &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch{
		Context: networkingapi.EnvoyFilter_GATEWAY,
		ObjectTypes: &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch_Listener{Listener: &networkingapi.EnvoyFilter_ListenerMatch{
			FilterChain: &networkingapi.EnvoyFilter_ListenerMatch_FilterChainMatch{Filter: filter}}},
	}
}

// fields of a message of Envoy's, by the names in its definition.
type fields = map[string]any

func patch(operation networkingapi.EnvoyFilter_Patch_Operation, value fields) *networkingapi.EnvoyFilter_Patch {
	message, err := structpb.NewStruct(value)
	if err != nil {
		panic(err) // a constant of this file is no JSON value
	}
	return &networkingapi.EnvoyFilter_Patch{Operation: operation, Value: message}
}
