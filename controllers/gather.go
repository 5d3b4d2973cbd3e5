// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// systemNamespace holds what belongs to Isthmus itself, in the hub and in each member.
const systemNamespace = v1alpha1.SystemNamespace

// memberSource is what the reconcilers need of the fleet.
type memberSource interface {
	Member(name string) (fleet.Member, bool)
}

// gatherer reads snapshots from the hub's cache and the members'. It never waits for a member.
type gatherer struct {
	hub       client.Reader
	fleet     memberSource
	probes    *prober
	endpoints *endpoints
	decided   *memory
}

// member is a MemberCluster, what is known of it, and the way to its cache.
type member struct {
	federation.Member
	object *v1alpha1.MemberCluster
	// handle is nil while nothing was ever connected.
	handle fleet.Member
	// twin is the older MemberCluster that leads to the same cluster; empty where there is none.
	twin string
	// leaving is whether the MemberCluster is being deleted: it exports nothing any more.
	leaving bool
}

// members reads all members, sorted by name. A cluster counts once, however many MemberClusters lead to it: it would
// fight itself under its two names, and have two shares.
func (g gatherer) members(ctx context.Context) ([]member, error) {
	all, err := g.allMembers(ctx)
	return slices.DeleteFunc(all, func(m member) bool { return m.twin != "" }), err
}

// allMembers reads all members, sorted by name, with those that another stands for.
func (g gatherer) allMembers(ctx context.Context) ([]member, error) {
	var list v1alpha1.MemberClusterList
	if err := g.hub.List(ctx, &list); err != nil {
		return nil, err
	}
	members := make([]member, 0, len(list.Items))
	for i := range list.Items {
		members = append(members, g.member(&list.Items[i]))
	}
	findTwins(ctx, members)
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return members, nil
}

// findTwins marks the younger ones of those members that are one cluster.
func findTwins(ctx context.Context, members []member) {
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	oldest := map[string]string{}
	for i := range members {
		uid := members[i].clusterUID(ctx)
		if uid == "" {
			continue
		}
		if members[i].twin = oldest[uid]; members[i].twin == "" {
			oldest[uid] = members[i].Name
		}
	}
}

// clusterUID is what a cluster is known by: what it says, or else what it last said. Empty where it never did.
func (m member) clusterUID(ctx context.Context) string {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(namespaceKind)
	if m.get(ctx, "", metav1.NamespaceSystem, namespace) {
		return string(namespace.UID)
	}
	return m.object.Status.ClusterUID
}

func (g gatherer) member(mc *v1alpha1.MemberCluster) member {
	m := member{object: mc, leaving: mc.DeletionTimestamp != nil, Member: federation.Member{
		Name: mc.Name, Region: mc.Status.Region, Zone: mc.Status.Zone,
		GatewayClassName: mc.Spec.GatewayClassName, TrustDomain: mc.Spec.TrustDomain,
		EastWest: federation.ParseAddress(mc.Status.EastWestAddress)}}
	if handle, ok := g.fleet.Member(mc.Name); ok {
		state := handle.State()
		m.handle = handle
		m.Reachable, m.Synced = state.Phase == fleet.Connected, state.Synced
		m.NoEnvoyFilter = slices.Contains(state.Missing, envoyFilterKind.GroupKind().String())
	}
	return m
}

// neverConnected tells whether the member's API server never answered, so that nothing can have been written there.
func (m member) neverConnected() bool {
	return m.object.Status.KubernetesVersion == "" && (m.handle == nil || m.handle.State().Version == "")
}

// get reads an object of a member; false where it is absent or the member has not been read.
func (m member) get(ctx context.Context, namespace, name string, into client.Object) bool {
	return m.handle != nil && m.handle.Reader().Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into) == nil
}

// list reads objects of a member, as far as they have been read.
func (m member) list(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	if m.handle == nil {
		return nil
	}
	err := m.handle.Reader().List(ctx, into, opts...)
	if errors.Is(err, fleet.ErrNotSynced) || meta.IsNoMatchError(err) {
		return nil
	}
	return err
}

// held is what Isthmus wrote in a member, as far as it has been read. It belongs to the cache: it must not be changed.
func (m member) held(ctx context.Context, s *runtime.Scheme) []client.Object {
	var out []client.Object
	seen := map[schema.GroupVersionKind]bool{}
	for _, noun := range []string{nounMember, nounGateway, nounRoute, nounService} {
		for _, gvk := range kindsOf(noun) {
			list := listOf(s, gvk)
			if seen[gvk] || m.list(ctx, list, client.UnsafeDisableDeepCopy,
				client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}) != nil {
				continue
			}
			seen[gvk] = true
			_ = meta.EachListItem(list, func(o runtime.Object) error {
				if typed, ok := o.(client.Object); ok {
					out = append(out, typed)
				}
				return nil
			})
		}
	}
	return out
}

func (m member) hasNamespace(ctx context.Context, name string) bool {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(namespaceKind)
	return m.get(ctx, "", name, namespace)
}

// Names of the hub's cache indexes.
const (
	indexImport  = "isthmus.import"
	indexGateway = "isthmus.gateway"
)

// indexHub adds the indexes by which routes, and the rollouts that lead routes to an import, are found.
func indexHub(ctx context.Context, indexer client.FieldIndexer) error {
	return errors.Join(
		indexer.IndexField(ctx, &gatewayv1.HTTPRoute{}, indexImport, importsOf),
		indexer.IndexField(ctx, &v1alpha1.TrafficRollout{}, indexImport, importsOf),
		indexer.IndexField(ctx, &gatewayv1.HTTPRoute{}, indexGateway, func(o client.Object) []string {
			return gatewaysOf(o.(*gatewayv1.HTTPRoute))
		}))
}

// importsOf lists the imports that a route or a rollout refers to, as namespace/name.
func importsOf(o client.Object) []string {
	var keys []federation.ServiceKey
	switch typed := o.(type) {
	case *gatewayv1.HTTPRoute:
		keys = federation.ImportsOf(typed)
	case *v1alpha1.TrafficRollout:
		keys = federation.ImportsOfRollout(typed)
	}
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		names = append(names, key.String())
	}
	return names
}

// gatewaysOf lists the Gateways that a route's parentRefs name, as namespace/name.
func gatewaysOf(route *gatewayv1.HTTPRoute) []string {
	var keys []string
	for _, ref := range route.Spec.ParentRefs {
		if key, ok := gatewayKey(ref, route.Namespace); ok && !slices.Contains(keys, key.String()) {
			keys = append(keys, key.String())
		}
	}
	return keys
}

func gatewayKey(ref gatewayv1.ParentReference, namespace string) (types.NamespacedName, bool) {
	if (ref.Group != nil && *ref.Group != gatewayv1.GroupName) || (ref.Kind != nil && *ref.Kind != "Gateway") {
		return types.NamespacedName{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}, true
}

// routesOfImport finds the hub routes that refer to an import, and those that a rollout leads there.
func routesOfImport(ctx context.Context, hub client.Reader, key federation.ServiceKey) ([]gatewayv1.HTTPRoute, error) {
	var routes gatewayv1.HTTPRouteList
	if err := hub.List(ctx, &routes, client.MatchingFields{indexImport: key.String()}); err != nil {
		return nil, err
	}
	var rollouts v1alpha1.TrafficRolloutList
	err := hub.List(ctx, &rollouts, client.MatchingFields{indexImport: key.String()})
	for _, r := range rollouts.Items {
		name := types.NamespacedName{Namespace: r.Namespace, Name: r.Spec.Route.Name}
		if slices.ContainsFunc(routes.Items, func(have gatewayv1.HTTPRoute) bool { return client.ObjectKeyFromObject(&have) == name }) {
			continue
		}
		var route gatewayv1.HTTPRoute
		if hub.Get(ctx, name, &route) == nil {
			routes.Items = append(routes.Items, route)
		}
	}
	return routes.Items, err
}

// rolloutsOf are the TrafficRollouts of a namespace.
func rolloutsOf(ctx context.Context, hub client.Reader, namespace string) ([]*v1alpha1.TrafficRollout, error) {
	var list v1alpha1.TrafficRolloutList
	if err := hub.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	rollouts := make([]*v1alpha1.TrafficRollout, 0, len(list.Items))
	for i := range list.Items {
		rollouts = append(rollouts, &list.Items[i])
	}
	return rollouts, nil
}

// routesOfGateway finds the hub routes whose parentRefs name a Gateway.
func routesOfGateway(ctx context.Context, hub client.Reader, key types.NamespacedName) []gatewayv1.HTTPRoute {
	var routes gatewayv1.HTTPRouteList
	if err := hub.List(ctx, &routes, client.MatchingFields{indexGateway: key.String()}); err != nil {
		return nil
	}
	return routes.Items
}

// gatewaysOfClass finds the hub Gateways that name a class.
func gatewaysOfClass(ctx context.Context, hub client.Reader, class string) []types.NamespacedName {
	var list gatewayv1.GatewayList
	if err := hub.List(ctx, &list); err != nil {
		return nil
	}
	var keys []types.NamespacedName
	for i := range list.Items {
		if string(list.Items[i].Spec.GatewayClassName) == class {
			keys = append(keys, client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

func memberNames(ctx context.Context, hub client.Reader) ([]string, error) {
	var list v1alpha1.MemberClusterList
	if err := hub.List(ctx, &list); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}

// ours tells whether a hub Gateway is ours to serve:
//
//	its GatewayClass          | ours
//	is our controller's       | yes, whatever its parameters say: what is wrong with them is said on the class
//	is another controller's   | no
//	does not exist            | yes while any member holds what was written for the Gateway
//
// All the traffic of a fleet may hang on one class, so that losing it takes none away.
func (g gatherer) ours(ctx context.Context, gateway *gatewayv1.Gateway) (bool, error) {
	var class gatewayv1.GatewayClass
	err := g.hub.Get(ctx, classOf(gateway), &class)
	if apierrors.IsNotFound(err) {
		return g.served(ctx, gateway)
	}
	return err == nil && class.Spec.ControllerName == v1alpha1.ControllerName, err
}

func classOf(gateway *gatewayv1.Gateway) types.NamespacedName {
	return types.NamespacedName{Name: string(gateway.Spec.GatewayClassName)}
}

// served tells whether any member is seen to hold what was written for a hub Gateway.
func (g gatherer) served(ctx context.Context, gateway *gatewayv1.Gateway) (bool, error) {
	members, err := g.members(ctx)
	return slices.ContainsFunc(members, func(m member) bool {
		var held gatewayv1.Gateway
		if !m.get(ctx, gateway.Namespace, gateway.Name, &held) {
			return false
		}
		owner, marked := federation.ParseOwner(&held)
		return marked && owner == federation.GatewayOwner(gateway.Namespace, gateway.Name)
	}), err
}

// gateway reads a hub Gateway that is ours; nil where there is none.
func (g gatherer) gateway(ctx context.Context, key types.NamespacedName) (*gatewayv1.Gateway, error) {
	gateway := &gatewayv1.Gateway{}
	if err := g.hub.Get(ctx, key, gateway); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	ours, err := g.ours(ctx, gateway)
	if !ours {
		return nil, err
	}
	return gateway, nil
}

// remembered is an import as the hub last recorded it.
func (g gatherer) remembered(ctx context.Context, key federation.ServiceKey) (*federation.RememberedImport, error) {
	var si mcsv1beta1.ServiceImport
	if err := g.hub.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, &si); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if !federation.IsOurs(&si) {
		return nil, nil
	}
	r := &federation.RememberedImport{Spec: si.Spec}
	for _, c := range si.Status.Clusters {
		r.Clusters = append(r.Clusters, c.Cluster)
	}
	return r, nil
}
