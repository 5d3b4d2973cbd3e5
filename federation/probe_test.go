// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestTheHostThatAProbeAsksFor(t *testing.T) {
	tests := map[string]struct {
		protocol gatewayv1.ProtocolType
		listener gatewayv1.Hostname
		route    []gatewayv1.Hostname
		want     string
	}{
		"a listener for any host": {gatewayv1.HTTPProtocolType, "", []gatewayv1.Hostname{"shop.example.com"}, "probe.isthmus.internal"},
		"a listener for any host, whose certificate is for the route's": {gatewayv1.HTTPSProtocolType, "", []gatewayv1.Hostname{"*.example.org", "shop.example.com"}, "shop.example.com"},
		"a certificate for nobody knows whom":                           {gatewayv1.HTTPSProtocolType, "", []gatewayv1.Hostname{"*.example.org"}, "probe.isthmus.internal"},
		"a listener for a domain":                                       {gatewayv1.HTTPSProtocolType, "*.example.com", []gatewayv1.Hostname{"shop.example.com"}, "isthmus-probe.example.com"},
		"a listener for one host":                                       {gatewayv1.HTTPSProtocolType, "shop.example.com", nil, "shop.example.com"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			route := hubRoute(t, `{}`)
			route.Spec.Hostnames = test.route
			use := probeUse{planner: routePlanner{RouteSnapshot: RouteSnapshot{Route: route}},
				listener: gatewayv1.Listener{Protocol: test.protocol}}
			if test.listener != "" {
				use.listener.Hostname = &test.listener
			}
			require.Equal(t, test.want, use.host())
		})
	}
}
