// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// fleetSnapshots are 1,000 routes over 50 members: each service is exported by 3 members, each route is planned for 10
// of them, by a policy of 80 to 15 to 5.
func fleetSnapshots() []RouteSnapshot {
	const routes, members, exporters, routed = 1000, 50, 3, 10
	fleet := make([]Member, members)
	for i := range fleet {
		fleet[i] = Member{Name: fmt.Sprintf("c%02d", i), Region: fmt.Sprintf("r%d", i%5), GatewayClassName: "istio", TrustDomain: "cluster.local",
			EastWest: Address{fmt.Sprintf("10.0.0.%d", i), 15443}, Reachable: true, Synced: true}
	}
	gateway := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"}}
	port, prefix := gatewayv1.PortNumber(80), gatewayv1.PathMatchPathPrefix
	group, kind := gatewayv1.Group("multicluster.x-k8s.io"), gatewayv1.Kind("ServiceImport")
	out := make([]RouteSnapshot, routes)
	for r := range out {
		key, path := ServiceKey{"sample", fmt.Sprintf("service-%d", r)}, fmt.Sprintf("/%d", r)
		route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: key.Name}}
		route.Spec.Rules = []gatewayv1.HTTPRouteRule{{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &prefix, Value: &path}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
				Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(key.Name), Port: &port}}}}}}
		policy := policyOn(key.Name, "default", "HTTPRoute "+key.Name)
		service := ServiceSnapshot{Key: key}
		s := RouteSnapshot{Route: route, Policies: []*v1alpha1.TrafficDistributionPolicy{policy},
			Parents: []Parent{{Ref: gatewayv1.ParentReference{Name: "g"}, Gateway: gateway, Listeners: []gatewayv1.SectionName{"web"}}}}
		var hosts []string
		policy.Spec.Defaults.Distribution.Weights = nil
		for i, m := range fleet {
			sm := ServiceMember{Member: m, Namespaces: []string{"sample"}}
			if i%(members/exporters) == r%(members/exporters) && len(hosts) < exporters {
				sm.Exported, sm.Service, sm.ReadyEndpoints, sm.Open = true, serviceWith("http 80"), 2, true
				policy.Spec.Defaults.Distribution.Weights = append(policy.Spec.Defaults.Distribution.Weights,
					v1alpha1.ClusterWeight{Cluster: m.Name, Weight: []int32{80, 15, 5}[len(hosts)]})
				hosts = append(hosts, RemoteHost(key, m.Name))
			}
			service.Members = append(service.Members, sm)
		}
		for i := range routed {
			s.Members = append(s.Members, RouteMember{Member: fleet[(r+i*members/routed)%members], HasNamespace: true, Hosts: hosts})
		}
		slices.SortFunc(s.Members, func(a, b RouteMember) int { return strings.Compare(a.Name, b.Name) })
		s.Services = map[ServiceKey]ServiceSnapshot{key: service}
		out[r] = s
	}
	return out
}

func BenchmarkPlanRoutes(b *testing.B) {
	snapshots := fleetSnapshots()
	b.Run("1000 routes from nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, s := range snapshots {
				PlanRoute(s)
			}
		}
	})
	b.Run("one route after an endpoint event", func(b *testing.B) {
		b.ReportAllocs()
		s := takenOver(snapshots[0], PlanRoute(snapshots[0]), true)
		service := s.Services[ServiceKey{"sample", "service-0"}]
		service.Members[0].ReadyEndpoints = 0
		for b.Loop() {
			plan := PlanRoute(s)
			ReportRoute(s, plan, nil)
		}
	})
	b.Run("one service", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			PlanService(snapshots[0].Services[ServiceKey{"sample", "service-0"}])
		}
	})
}
