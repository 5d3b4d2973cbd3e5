// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// route gathers all that a hub HTTPRoute depends on. decided is what was last decided for it, by member.
func (g gatherer) route(ctx context.Context, route *gatewayv1.HTTPRoute, members []member,
	decided map[string][]v1alpha1.PlannedRule) (federation.RouteSnapshot, error) {
	s := federation.RouteSnapshot{Route: route, Services: map[federation.ServiceKey]federation.ServiceSnapshot{}, Now: time.Now()}
	var err error
	if s.Overrides, err = g.overrides(ctx); err != nil {
		return s, err
	}
	if s.Parents, err = g.parents(ctx, route); err != nil {
		return s, err
	}
	if s.Rollouts, err = rolloutsOf(ctx, g.hub, route.Namespace); err != nil {
		return s, err
	}
	last := federation.Decided{}
	for _, rules := range decided {
		last.Add(rules)
		g.endpoints.recall(rules)
	}
	namespaces := []string{route.Namespace}
	for _, p := range s.Parents {
		namespaces = append(namespaces, p.Gateway.Namespace)
	}
	for _, key := range s.Imports() {
		if s.Services[key], err = g.service(ctx, key, members, last); err != nil {
			return s, err
		}
		if err := g.addEndpoints(ctx, s.Services[key], members); err != nil {
			return s, err
		}
		namespaces = append(namespaces, key.Namespace)
	}
	slices.Sort(namespaces)
	for _, namespace := range slices.Compact(namespaces) {
		if err := g.addPoliciesAndGrants(ctx, namespace, &s); err != nil {
			return s, err
		}
	}
	for _, m := range members {
		if !m.leaving {
			s.Members = append(s.Members, g.routeMember(ctx, m, s, decided[m.Name]))
		}
	}
	return s, nil
}

// addEndpoints adds what is remembered of a service's endpoints in the members that have been read.
func (g gatherer) addEndpoints(ctx context.Context, service federation.ServiceSnapshot, members []member) error {
	for i, m := range members {
		if !m.Synced {
			continue
		}
		var err error
		if service.Members[i].Endpoints, err = g.endpoints.look(ctx, m, service.Key); err != nil {
			return err
		}
	}
	return nil
}

func (g gatherer) addPoliciesAndGrants(ctx context.Context, namespace string, s *federation.RouteSnapshot) error {
	policies, err := g.policies(ctx, namespace)
	if err != nil {
		return err
	}
	s.Policies = append(s.Policies, policies...)
	if namespace == s.Route.Namespace {
		return nil
	}
	grants, err := g.grants(ctx, namespace)
	s.Grants = append(s.Grants, grants...)
	return err
}

func (g gatherer) policies(ctx context.Context, namespace string) ([]*v1alpha1.TrafficDistributionPolicy, error) {
	var list v1alpha1.TrafficDistributionPolicyList
	if err := g.hub.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	policies := make([]*v1alpha1.TrafficDistributionPolicy, 0, len(list.Items))
	for i := range list.Items {
		policies = append(policies, &list.Items[i])
	}
	return policies, nil
}

// parents are the route's parentRefs that lead to Gateways of our class.
func (g gatherer) parents(ctx context.Context, route *gatewayv1.HTTPRoute) ([]federation.Parent, error) {
	var namespace corev1.Namespace
	if err := g.hub.Get(ctx, types.NamespacedName{Name: route.Namespace}, &namespace); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	var parents []federation.Parent
	for _, ref := range route.Spec.ParentRefs {
		key, ok := gatewayKey(ref, route.Namespace)
		if !ok {
			continue
		}
		gateway, err := g.gateway(ctx, key)
		if err != nil {
			return nil, err
		}
		if gateway != nil && gateway.DeletionTimestamp == nil {
			parents = append(parents, federation.Attach(route, ref, gateway, namespace.Labels))
		}
	}
	return parents, nil
}

func (g gatherer) routeMember(ctx context.Context, m member, s federation.RouteSnapshot, last []v1alpha1.PlannedRule) federation.RouteMember {
	rm := federation.RouteMember{Member: m.Member, Last: last, HasNamespace: m.hasNamespace(ctx, s.Route.Namespace)}
	observed := &gatewayv1.HTTPRoute{}
	if m.get(ctx, s.Route.Namespace, s.Route.Name, observed) && federation.IsOurs(observed) {
		rm.Observed = observed
	}
	known := func(key federation.ServiceKey, cluster string) {
		var entry istionetworkingv1.ServiceEntry
		if m.get(ctx, s.Route.Namespace, federation.RemoteName(key, cluster), &entry) {
			rm.Hosts = append(rm.Hosts, federation.RemoteHost(key, cluster))
		}
	}
	for key, service := range s.Services {
		var home istionetworkingv1.ServiceEntry
		if m.get(ctx, s.Route.Namespace, federation.HomeName(key, m.Name), &home) {
			rm.Hosts = append(rm.Hosts, federation.HomeHost(key, m.Name))
		}
		for _, exporter := range service.Members {
			known(key, exporter.Name)
		}
		var grant gatewayv1.ReferenceGrant
		if key.Namespace != s.Route.Namespace && m.get(ctx, key.Namespace, federation.GrantName(key, s.Route.Namespace), &grant) {
			rm.Granted = append(rm.Granted, key)
		}
	}
	// What the route named and names no more goes to weight 0 first, for as long as the member knows it.
	for _, rule := range last {
		for _, b := range rule.Backends {
			if key := federation.ParseServiceKey(b.Import); b.Cluster != "" && s.Services[key].Key != key {
				known(key, b.Cluster)
			}
		}
	}
	slices.Sort(rm.Hosts)
	return rm
}
