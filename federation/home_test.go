// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A route names the home host only where the member's proxies can be told what it is, and somebody stands behind it.
func TestWhoHasAHomeHost(t *testing.T) {
	eks, gke := exporter("eks", 1), exporter("gke", 1)
	tests := map[string]struct {
		change func(eks, gke *ServiceMember)
		want   bool
	}{
		"two exporters":                    {func(_, _ *ServiceMember) {}, true},
		"alone":                            {func(_, gke *ServiceMember) { gke.Exported = false }, false},
		"does not export":                  {func(eks, _ *ServiceMember) { eks.Exported = false }, false},
		"no EnvoyFilter":                   {func(eks, _ *ServiceMember) { eks.NoEnvoyFilter = true }, false},
		"its own gateway is not there yet": {func(eks, _ *ServiceMember) { eks.EastWest = Address{} }, false},
		"its own gateway lets nobody in":   {func(eks, _ *ServiceMember) { eks.Open = false }, false},
		"the other cannot be reached":      {func(_, gke *ServiceMember) { gke.EastWest = Address{} }, false},
		"the other is empty":               {func(_, gke *ServiceMember) { gke.ReadyEndpoints = 0 }, true},
		"leaving":                          {func(eks, _ *ServiceMember) { eks.Leaving = true }, false},
		"not read":                         {func(eks, _ *ServiceMember) { eks.Synced = false }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			one, other := eks, gke
			test.change(&one, &other)
			s := ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{one, other}}
			require.Equal(t, test.want, s.hasHome(one, s.Import()))
		})
	}
}

// Until the home host is known the route names the Service, and what it names stays known for as long as it does.
func TestRoutesNameTheHomeHostOnceItIsKnown(t *testing.T) {
	backends := func(s RouteSnapshot) (names []string) {
		for _, b := range PlanRoute(s).Members["eks"].Object.Spec.Rules[0].BackendRefs {
			if *b.Weight > 0 {
				names = append(names, string(b.Name))
			}
		}
		return names
	}
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	require.Equal(t, []string{"helloworld"}, backends(s))
	s.Members[0].Hosts = append(s.Members[0].Hosts, HomeHost(sampleKey, "eks"))
	require.Equal(t, []string{"helloworld.sample.eks.home.isthmus.internal"}, backends(s))
	route := PlanRoute(s).Members["eks"].Object
	require.Contains(t, NamedClusters(route)[sampleKey], "eks")
	require.Equal(t, []string{BackendHeader}, route.Spec.Rules[0].BackendRefs[0].Filters[0].RequestHeaderModifier.Remove,
		"a client could name another service in the cluster that takes over")

	eks := exporter("eks", 1)
	eks.Names, eks.Exported = []string{"eks"}, false
	kinds := kindsIn(PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{eks, exporter("gke", 1)}}).Objects["eks"].All())
	require.Contains(t, kinds, "ServiceEntry sample/helloworld.sample.eks.home", "withdrawn, and still named")
}

// A member that unexported its service gives up the weight of the home host before the name goes.
func TestAHomeHostGoesToZeroFirst(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	s.Members[0].Hosts = append(s.Members[0].Hosts, HomeHost(sampleKey, "eks"))
	planned := PlanRoute(s).Members["eks"]
	s.Members[0].Observed, s.Members[0].Last = planned.Object, planned.Rules
	gone := exporter("eks", 1)
	gone.Exported = false
	s.Services[sampleKey] = ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{gone, exporter("gke", 1)}}
	weights := map[gatewayv1.ObjectName]int32{}
	for _, b := range PlanRoute(s).Members["eks"].Object.Spec.Rules[0].BackendRefs {
		weights[b.Name] = *b.Weight
	}
	require.Equal(t, map[gatewayv1.ObjectName]int32{"helloworld.sample.eks.home.isthmus.internal": 0, "helloworld.sample.gke.isthmus.internal": TotalWeight}, weights)
}

// A Service's port that another cluster's gateway is asked for is said by the name it is asked under.
func TestServerNames(t *testing.T) {
	require.Equal(t, "5000.helloworld.sample.isthmus.internal", serverName(sampleKey, 5000))
}
