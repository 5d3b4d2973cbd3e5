// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// before is the verdict that was last acted on, by import and cluster, as the RoutePlans remember it. Where a cluster
// was unfit in one member's plan it was unfit in all: another plan that held its split says the same of it.
type before map[[2]string]federation.Verdict

func (b before) remember(rules []v1alpha1.PlannedRule) {
	for _, rule := range rules {
		for _, planned := range rule.Backends {
			key := [2]string{planned.Import, planned.Cluster}
			switch verdict := federation.Verdict(planned.Verdict); {
			case verdict == federation.Fit, verdict == federation.Unfit:
				b[key] = verdict
			case planned.Reason == v1alpha1.WeightUnfit:
				b[key] = federation.Unfit
			case planned.Reason == v1alpha1.WeightResolving, planned.Reason == v1alpha1.WeightWithdrawing:
				// These say nothing of its health.
			default:
				b[key] = federation.Fit
			}
		}
	}
}

// service gathers one namespaced service over the members.
func (g gatherer) service(ctx context.Context, key federation.ServiceKey, members []member, last before) (federation.ServiceSnapshot, error) {
	s := federation.ServiceSnapshot{Key: key}
	var err error
	if s.Remembered, err = g.remembered(ctx, key); err != nil {
		return s, err
	}
	if s.RouteNamespaces, err = g.routeNamespaces(ctx, key); err != nil {
		return s, err
	}
	for _, m := range members {
		gathered, err := g.serviceMember(ctx, key, m, s.RouteNamespaces)
		if err != nil {
			return s, err
		}
		gathered.Before = last[[2]string{key.String(), m.Name}]
		s.Members = append(s.Members, gathered)
	}
	return s, nil
}

func (g gatherer) serviceMember(ctx context.Context, key federation.ServiceKey, m member, routeNamespaces []string) (federation.ServiceMember, error) {
	sm := federation.ServiceMember{Member: m.Member}
	var export mcsv1beta1.ServiceExport
	if m.get(ctx, key.Namespace, key.Name, &export) && export.DeletionTimestamp == nil && !m.leaving {
		sm.Exported, sm.Created = true, export.CreationTimestamp.Time
	}
	service := &corev1.Service{}
	if m.get(ctx, key.Namespace, key.Name, service) {
		sm.Service = service
	}
	var err error
	if sm.ReadyEndpoints, err = m.readyEndpoints(ctx, key); err != nil {
		return sm, err
	}
	for _, namespace := range append([]string{key.Namespace}, routeNamespaces...) {
		if !m.hasNamespace(ctx, namespace) {
			continue
		}
		sm.Namespaces = append(sm.Namespaces, namespace)
		if err := addNames(ctx, m, namespace, key, &sm.Names); err != nil {
			return sm, err
		}
	}
	return sm, nil
}

// addNames adds the clusters whose host for a service the member's generated routes name.
func addNames(ctx context.Context, m member, namespace string, key federation.ServiceKey, names *[]string) error {
	var routes gatewayv1.HTTPRouteList
	if err := m.list(ctx, &routes, client.InNamespace(namespace),
		client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}); err != nil {
		return err
	}
	for i := range routes.Items {
		for _, cluster := range federation.NamedClusters(&routes.Items[i])[key] {
			if !slices.Contains(*names, cluster) {
				*names = append(*names, cluster)
			}
		}
	}
	slices.Sort(*names)
	return nil
}

// routeNamespaces are the other namespaces whose hub routes refer to an import and may.
func (g gatherer) routeNamespaces(ctx context.Context, key federation.ServiceKey) ([]string, error) {
	var foreign []string
	for _, r := range routesOfImport(ctx, g.hub, key) {
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
