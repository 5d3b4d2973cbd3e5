// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// stamps are the headers on answers by which gateways tell each other what became of a request. Only they and the hub's
// probes read them.
var stamps = []string{NotSentHeader, ServedByHeader}

// withoutStamps takes the stamps off the answers of a backendRef that leads to a host of ours, so that no client learns
// which clusters there are. It is said for each backendRef and not in an EnvoyFilter, so that a member without those keeps
// it as well, and that the probes' routes, which need the stamps, are not concerned. Each list of filters holds one
// ResponseHeaderModifier at most (Gateway API), so one that the user wrote is extended.
func withoutStamps(ref gatewayv1.HTTPBackendRef) gatewayv1.HTTPBackendRef {
	if deref(ref.Kind) != hostnameKind || !strings.HasSuffix(string(ref.Name), hostSuffix) {
		return ref
	}
	for i := range ref.Filters {
		if own := ref.Filters[i].ResponseHeaderModifier; own != nil {
			own.Remove = append(own.Remove, stamps...)
			return ref
		}
	}
	ref.Filters = append(ref.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier,
		ResponseHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: slices.Clone(stamps)}})
	return ref
}
