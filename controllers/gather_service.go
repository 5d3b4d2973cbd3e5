// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"slices"

	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// wholeService gathers one namespaced service with all that decides what the members hold for it.
func (g gatherer) wholeService(ctx context.Context, key federation.ServiceKey, members []member) (federation.ServiceSnapshot, error) {
	last, err := g.lastDecided(ctx, key)
	if err != nil {
		return federation.ServiceSnapshot{}, err
	}
	s, err := g.service(ctx, key, members, last)
	if err != nil {
		return s, err
	}
	if s.Overrides, err = g.overrides(ctx); err != nil {
		return s, err
	}
	for i, m := range members {
		if err := addNames(ctx, m, key, &s.Members[i]); err != nil {
			return s, err
		}
	}
	return s, nil
}

// lastDecided is what the routes that refer to a service last decided of it: in this process, or else as RoutePlans remember it.
func (g gatherer) lastDecided(ctx context.Context, key federation.ServiceKey) (federation.Decided, error) {
	routes, err := routesOfImport(ctx, g.hub, key)
	if err != nil {
		return nil, err
	}
	last := federation.Decided{}
	for i := range routes {
		if g.decided.addTo(last, client.ObjectKeyFromObject(&routes[i])) {
			continue
		}
		plans, err := plansOf(ctx, g.hub, &routes[i])
		if err != nil {
			return nil, err
		}
		for _, plan := range plans {
			last.Add(plan.Status.Rules)
		}
	}
	return last, nil
}

// service gathers one namespaced service over the members.
func (g gatherer) service(ctx context.Context, key federation.ServiceKey, members []member, last federation.Decided) (federation.ServiceSnapshot, error) {
	s := federation.ServiceSnapshot{Key: key}
	var err error
	if s.Remembered, err = g.remembered(ctx, key); err != nil {
		return s, err
	}
	if s.Remembered == nil {
		s.Remembered = rememberedByMembers(ctx, key, members)
	}
	if s.RouteNamespaces, err = g.routeNamespaces(ctx, key); err != nil {
		return s, err
	}
	if s.Gateways, err = g.gatewaysOfImport(ctx, key); err != nil {
		return s, err
	}
	for _, m := range members {
		gathered, err := g.serviceMember(ctx, key, m, s.RouteNamespaces)
		if err != nil {
			return s, err
		}
		decision := last.Of(key, m.Name)
		gathered.Before, gathered.LeftOut = decision.Verdict, decision.Out
		gathered.Probe = g.probes.signal(key, m.Name, gathered.Before)
		gathered.Metric = g.probes.metricSignal(key, m.Name)
		s.Members = append(s.Members, gathered)
	}
	return s, nil
}

// rememberedByMembers is an import as members that have been read hold it, for where the hub keeps no record of it: a hub
// without the namespace has nowhere to. A host that was made for the export of a cluster says that it exported; without
// it, a restart while that cluster is away would take the host from the others.
func rememberedByMembers(ctx context.Context, key federation.ServiceKey, members []member) *federation.RememberedImport {
	var out *federation.RememberedImport
	for _, away := range members {
		for _, m := range members {
			var entry istionetworkingv1.ServiceEntry
			var held mcsv1beta1.ServiceImport
			if away.Synced || !m.Synced || !m.get(ctx, key.Namespace, federation.RemoteName(key, away.Name), &entry) ||
				!m.get(ctx, key.Namespace, key.Name, &held) || !federation.IsOurs(&held) {
				continue
			}
			if out == nil {
				out = &federation.RememberedImport{Spec: held.Spec}
			}
			out.Clusters = append(out.Clusters, away.Name)
			break
		}
	}
	return out
}

func (g gatherer) serviceMember(ctx context.Context, key federation.ServiceKey, m member, routeNamespaces []string) (federation.ServiceMember, error) {
	sm := federation.ServiceMember{Member: m.Member, Leaving: m.leaving}
	var export mcsv1beta1.ServiceExport
	if m.get(ctx, key.Namespace, key.Name, &export) && export.DeletionTimestamp == nil && !m.leaving {
		sm.Exported, sm.Created = true, export.CreationTimestamp.Time
	}
	service := &corev1.Service{}
	if m.get(ctx, key.Namespace, key.Name, service) {
		sm.Service = service
	}
	entry := &gatewayv1.HTTPRoute{}
	sm.Open = m.get(ctx, systemNamespace, federation.EastWestRouteName(key), entry) && federation.LetsIn(entry, key)
	count, err := m.endpoints(ctx, key)
	if err != nil {
		return sm, err
	}
	sm.ReadyEndpoints = count.ready
	for _, namespace := range append([]string{key.Namespace}, routeNamespaces...) {
		if m.hasNamespace(ctx, namespace) {
			sm.Namespaces = append(sm.Namespaces, namespace)
		}
	}
	return sm, nil
}

// addNames finds what the member's generated routes name of a service, also in namespaces that only hold objects of it
// still.
func addNames(ctx context.Context, m member, key federation.ServiceKey, sm *federation.ServiceMember) error {
	var err error
	if sm.Names, err = namesIn(ctx, m, key, sm.Namespaces); err != nil {
		return err
	}
	holding, err := namespacesHolding(ctx, m, key)
	if err != nil {
		return err
	}
	for _, namespace := range holding {
		if slices.Contains(sm.Namespaces, namespace) || namespace == systemNamespace {
			continue
		}
		names, err := namesIn(ctx, m, key, []string{namespace})
		if err != nil {
			return err
		}
		if len(names) > 0 {
			sm.Former = append(sm.Former, federation.FormerNamespace{Namespace: namespace, Names: names})
			sm.Names = append(sm.Names, names...)
		}
	}
	slices.Sort(sm.Names)
	sm.Names = slices.Compact(sm.Names)
	return nil
}

// namespacesHolding are those whose routes were let refer to a service, by what the member holds for it, sorted.
func namespacesHolding(ctx context.Context, m member, key federation.ServiceKey) ([]string, error) {
	var entries istionetworkingv1.ServiceEntryList
	var grants gatewayv1.ReferenceGrantList
	owned := client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy, v1alpha1.LabelOwner: federation.ServiceOwner(key).Label()}
	if err := errors.Join(m.list(ctx, &entries, owned), m.list(ctx, &grants, owned)); err != nil {
		return nil, err
	}
	var namespaces []string
	for _, e := range entries.Items {
		namespaces = append(namespaces, e.Namespace)
	}
	for _, g := range grants.Items {
		for _, from := range g.Spec.From {
			namespaces = append(namespaces, string(from.Namespace))
		}
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces), nil
}

// namesIn are the clusters whose host for a service the member's generated routes in some namespaces name, sorted.
func namesIn(ctx context.Context, m member, key federation.ServiceKey, namespaces []string) ([]string, error) {
	var names []string
	for _, namespace := range namespaces {
		var routes gatewayv1.HTTPRouteList
		if err := m.list(ctx, &routes, client.InNamespace(namespace), client.UnsafeDisableDeepCopy,
			client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}); err != nil {
			return nil, err
		}
		for i := range routes.Items {
			names = append(names, federation.NamedClusters(&routes.Items[i])[key]...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// gatewaysOfImport are the hub Gateways that the routes which refer to an import name, sorted.
func (g gatherer) gatewaysOfImport(ctx context.Context, key federation.ServiceKey) ([]federation.NamespacedName, error) {
	routes, err := routesOfImport(ctx, g.hub, key)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range routes {
		names = append(names, gatewaysOf(&routes[i])...)
	}
	slices.Sort(names)
	var out []federation.NamespacedName
	for _, name := range slices.Compact(names) {
		parsed := federation.ParseServiceKey(name)
		out = append(out, federation.NamespacedName(parsed))
	}
	return out, nil
}

// routeNamespaces are the other namespaces whose hub routes refer to an import and may.
func (g gatherer) routeNamespaces(ctx context.Context, key federation.ServiceKey) ([]string, error) {
	routes, err := routesOfImport(ctx, g.hub, key)
	if err != nil {
		// Without it their hosts would be withdrawn.
		return nil, err
	}
	var foreign []string
	for _, r := range routes {
		if r.Namespace != key.Namespace && !slices.Contains(foreign, r.Namespace) {
			foreign = append(foreign, r.Namespace)
		}
	}
	if len(foreign) == 0 {
		return nil, nil
	}
	grants, err := g.grants(ctx, key.Namespace)
	if err != nil {
		return nil, err
	}
	slices.Sort(foreign)
	return slices.DeleteFunc(foreign, func(ns string) bool { return !federation.Granted(grants, ns, key) }), nil
}

func (g gatherer) grants(ctx context.Context, namespace string) ([]*gatewayv1.ReferenceGrant, error) {
	var list gatewayv1.ReferenceGrantList
	if err := g.hub.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	grants := make([]*gatewayv1.ReferenceGrant, 0, len(list.Items))
	for i := range list.Items {
		grants = append(grants, &list.Items[i])
	}
	return grants, nil
}

// exported are the services that any member exports.
func (g gatherer) exported(ctx context.Context, opts ...client.ListOption) []federation.ServiceKey {
	members, err := g.members(ctx)
	if err != nil {
		return nil
	}
	var keys []federation.ServiceKey
	seen := map[federation.ServiceKey]bool{}
	for _, m := range members {
		var exports mcsv1beta1.ServiceExportList
		if m.list(ctx, &exports, opts...) != nil {
			continue
		}
		for i := range exports.Items {
			key := federation.ServiceKey{Namespace: exports.Items[i].Namespace, Name: exports.Items[i].Name}
			if !seen[key] {
				seen[key], keys = true, append(keys, key)
			}
		}
	}
	return keys
}
