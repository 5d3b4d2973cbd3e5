// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strconv"

	networkingapi "istio.io/api/networking/v1alpha3"
	typeapi "istio.io/api/type/v1beta1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A Service without endpoints answers 503 before anything is tried, so that no retry helps, and its share of the
// requests is lost until the hub has moved the weights. So a route names a home host for its own cluster, and the proxy
// goes on by itself:
//
//	home host -> 1. the Service, as Istio made it: its own balancing, its own mutual TLS, no further hop
//	             2. the cluster's own RemoteHost: its east-west gateway, then the other clusters that serve
//
// In Envoy that is an aggregate cluster, which only an EnvoyFilter can make. Until the proxy has it, the home host
// is a host like the second: one hop more, and nothing lost. The first is skipped as a whole while it has no endpoint.

// homeLabel marks the host under which a cluster knows its own share. No cluster stands there in a RemoteHost.
const homeLabel = "home"

// serviceSuffix ends the names of Services in Istio's registry. In a cluster of another domain the first way is not
// found, and requests take the second.
const serviceSuffix = ".svc.cluster.local"

// maxTargetRefs is what an EnvoyFilter holds (Istio, EnvoyFilter.targetRefs).
const maxTargetRefs = 16

// HomeHost is the host name under which a member's routes know its own share of a service.
func HomeHost(key ServiceKey, cluster string) string {
	return HomeName(key, cluster) + hostSuffix
}

// HomeName is the name of the ServiceEntry and the DestinationRule for HomeHost.
func HomeName(key ServiceKey, cluster string) string {
	return RemoteName(key, cluster) + "." + homeLabel
}

// hasHome tells whether a member's routes are to name its home host: where another cluster could serve in its place,
// and its proxies can be told.
func (s ServiceSnapshot) hasHome(m ServiceMember, imp *Import) bool {
	return imp != nil && m.Synced && !m.Leaving && !m.NoEnvoyFilter && m.Service != nil && m.Open && !m.EastWest.IsZero() &&
		slices.Contains(imp.Clusters, m.Name) && slices.ContainsFunc(s.Members, func(other ServiceMember) bool {
		return other.Name != m.Name && slices.Contains(imp.Clusters, other.Name) && !other.EastWest.IsZero() && other.lets()
	})
}

// homeObjects make the home host known to routes of one namespace: first what it leads to, the name last.
func (s ServiceSnapshot) homeObjects(m ServiceMember, namespace string, imp *Import) []runtime.Object {
	backend := remoteBackend{key: s.Key, cluster: m.Member, fallbacks: s.fallbacks(m, imp), ports: s.remotePorts(imp, m)}
	if len(backend.ports) == 0 || len(backend.reachable()) == 0 {
		return nil
	}
	rule, entry := backend.destinationRule(namespace), backend.serviceEntry(namespace)
	homeRule, home := rule.DeepCopy(), entry.DeepCopy()
	homeRule.Name, home.Name = HomeName(s.Key, m.Name), HomeName(s.Key, m.Name)
	homeRule.Spec.Host, home.Spec.Hosts = HomeHost(s.Key, m.Name), []string{HomeHost(s.Key, m.Name)}
	return []runtime.Object{rule, entry, homeRule, home}
}

// homeFilters make the home host an aggregate in the proxies of the Gateways whose routes may name it.
func (s ServiceSnapshot) homeFilters(m ServiceMember, imp *Import) []runtime.Object {
	if imp == nil {
		imp = &Import{Key: s.Key}
	}
	byNamespace := map[string][]*typeapi.PolicyTargetReference{}
	var namespaces []string
	for _, g := range s.Gateways {
		if byNamespace[g.Namespace] == nil {
			namespaces = append(namespaces, g.Namespace)
		}
		byNamespace[g.Namespace] = append(byNamespace[g.Namespace],
			&typeapi.PolicyTargetReference{Group: gatewayv1.GroupName, Kind: "Gateway", Name: g.Name})
	}
	var out []runtime.Object
	for _, namespace := range namespaces {
		part := 0
		for refs := range slices.Chunk(byNamespace[namespace], maxTargetRefs) {
			part++
			filter := &networkingv1alpha3.EnvoyFilter{
				TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1alpha3.SchemeGroupVersion.String(), Kind: "EnvoyFilter"},
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: HomeName(s.Key, m.Name)},
			}
			if part > 1 {
				filter.Name = fmt.Sprintf("%s.%d", filter.Name, part)
			}
			filter.Spec.TargetRefs = refs
			for _, p := range s.remotePorts(imp, m) {
				filter.Spec.ConfigPatches = append(filter.Spec.ConfigPatches, s.homePatches(m.Name, p.Port)...)
			}
			if len(filter.Spec.ConfigPatches) > 0 {
				out = append(out, filter)
			}
		}
	}
	return out
}

// homePatches put the aggregate in the place of the host's cluster. A merge would not do: Envoy refuses an aggregate
// that has kept the host's source of endpoints.
func (s ServiceSnapshot) homePatches(cluster string, port int32) []*networkingapi.EnvoyFilter_EnvoyConfigObjectPatch {
	of := func(host string) string { return "outbound|" + strconv.Itoa(int(port)) + "||" + host }
	name := of(HomeHost(s.Key, cluster))
	service := s.Key.Name + "." + s.Key.Namespace + serviceSuffix
	const unlimited = 1<<32 - 1 // as Istio has it: the clusters behind it have limits of their own
	return []*networkingapi.EnvoyFilter_EnvoyConfigObjectPatch{
		{
			ApplyTo: networkingapi.EnvoyFilter_CLUSTER,
			Match: &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch{Context: networkingapi.EnvoyFilter_GATEWAY,
				ObjectTypes: &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch_Cluster{
					Cluster: &networkingapi.EnvoyFilter_ClusterMatch{Name: name}}},
			Patch: &networkingapi.EnvoyFilter_Patch{Operation: networkingapi.EnvoyFilter_Patch_REMOVE},
		},
		{
			ApplyTo: networkingapi.EnvoyFilter_CLUSTER,
			Match:   &networkingapi.EnvoyFilter_EnvoyConfigObjectMatch{Context: networkingapi.EnvoyFilter_GATEWAY},
			Patch: patch(networkingapi.EnvoyFilter_Patch_ADD, fields{
				"name": name, "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s",
				// By these two, as istiod gives them, proxies count what is sent: without them each service has metrics of a name of
				// its own, and Istio's istio_requests_total says nothing of where a request went.
				"alt_stat_name": name + ";",
				"metadata": fields{"filter_metadata": fields{"istio": fields{"services": []any{
					fields{"host": service, "name": s.Key.Name, "namespace": s.Key.Namespace}}}}},
				"circuit_breakers": fields{"thresholds": []any{fields{"max_connections": unlimited, "max_pending_requests": unlimited,
					"max_requests": unlimited, "max_retries": unlimited}}},
				"cluster_type": fields{"name": "envoy.clusters.aggregate", "typed_config": fields{
					"@type":    envoyTypes + "clusters.aggregate.v3.ClusterConfig",
					"clusters": []any{of(service), of(RemoteHost(s.Key, cluster))},
				}},
			}),
		},
	}
}

// namesHome tells whether a route names the home host of a service.
func namesHome(route *gatewayv1.HTTPRoute, key ServiceKey, cluster string) bool {
	return route != nil && slices.ContainsFunc(backendsOf(route), func(ref gatewayv1.BackendObjectReference) bool {
		return deref(ref.Kind) == hostnameKind && string(ref.Name) == HomeHost(key, cluster)
	})
}
