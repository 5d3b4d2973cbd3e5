// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/federation"
)

// probe gathers what the probing of an import depends on; false where no policy has a probe that could concern it.
func (g gatherer) probe(ctx context.Context, key federation.ServiceKey, members []member) (federation.ProbeSnapshot, bool, error) {
	s := federation.ProbeSnapshot{Key: key, Gateways: map[federation.NamespacedName]map[string]*gatewayv1.Gateway{}}
	routes, err := routesOfImport(ctx, g.hub, key)
	if err != nil {
		return s, false, err
	}
	configured := false
	for i := range routes {
		r := federation.RouteSnapshot{Route: &routes[i]}
		if err := g.around(ctx, &r, key); err != nil {
			return s, false, err
		}
		configured = configured || federation.ProbeConfigured(r.Policies)
		s.Routes = append(s.Routes, r)
	}
	if !configured {
		return s, false, nil
	}
	service, err := g.service(ctx, key, members, federation.Decided{})
	if err != nil {
		return s, false, err
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		r.Services = map[federation.ServiceKey]federation.ServiceSnapshot{key: service}
		for _, m := range members {
			if !m.leaving {
				r.Members = append(r.Members, g.routeMember(ctx, m, *r, nil))
			}
		}
		g.observeGateways(ctx, r.Parents, members, s.Gateways)
	}
	return s, true, nil
}

// around gathers what decides which policy holds for a route's references to an import.
func (g gatherer) around(ctx context.Context, r *federation.RouteSnapshot, key federation.ServiceKey) error {
	var err error
	if r.Parents, err = g.parents(ctx, r.Route); err != nil {
		return err
	}
	namespaces := []string{r.Route.Namespace, key.Namespace}
	for _, p := range r.Parents {
		namespaces = append(namespaces, p.Gateway.Namespace)
	}
	slices.Sort(namespaces)
	for _, namespace := range slices.Compact(namespaces) {
		if err := g.addPoliciesAndGrants(ctx, namespace, r); err != nil {
			return err
		}
	}
	return nil
}

// observeGateways finds what members hold for the Gateways of a route.
func (g gatherer) observeGateways(ctx context.Context, parents []federation.Parent, members []member,
	into map[federation.NamespacedName]map[string]*gatewayv1.Gateway) {
	for _, p := range parents {
		name := federation.NamespacedName{Namespace: p.Gateway.Namespace, Name: p.Gateway.Name}
		if into[name] != nil {
			continue
		}
		into[name] = map[string]*gatewayv1.Gateway{}
		for _, m := range members {
			observed := &gatewayv1.Gateway{}
			if m.get(ctx, name.Namespace, name.Name, observed) && federation.IsOurs(observed) {
				into[name][m.Name] = observed
			}
		}
	}
}

// suspects are the members whose every service that is probed over a Gateway is suspected, and whether it is known yet what
// is probed at all.
func (g gatherer) suspects(ctx context.Context, gateway types.NamespacedName, members []member) (names []string, known bool, err error) {
	for _, route := range routesOfGateway(ctx, g.hub, gateway) {
		for _, key := range federation.ImportsOf(&route) {
			if !g.probes.await(key) {
				return nil, false, nil
			}
		}
	}
	over := g.probes.probedOver(federation.NamespacedName{Namespace: gateway.Namespace, Name: gateway.Name})
	services := map[federation.ServiceKey]federation.ServiceSnapshot{}
	for _, keys := range over {
		for _, key := range keys {
			if _, have := services[key]; have {
				continue
			}
			last, err := g.lastDecided(ctx, key)
			if err == nil {
				services[key], err = g.service(ctx, key, members, last)
			}
			if err != nil {
				return nil, false, err
			}
		}
	}
	for _, m := range members {
		probed := over[m.Name]
		if len(probed) > 0 && !slices.ContainsFunc(probed, func(key federation.ServiceKey) bool { return !services[key].Suspects(m.Name) }) {
			names = append(names, m.Name)
		}
	}
	return names, true, nil
}
