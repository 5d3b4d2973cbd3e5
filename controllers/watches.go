// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// trigger wakes keys of one reconciler. It is a source.Source, and never blocks who wakes.
type trigger struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	early []reconcile.Request
}

// Start is called by the controller with its queue.
func (t *trigger) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = queue
	for _, r := range t.early {
		queue.Add(r)
	}
	t.early = nil
	return nil
}

// wake adds a key, also before the controller has started.
func (t *trigger) wake(namespace, name string) {
	r := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue == nil {
		t.early = append(t.early, r)
		return
	}
	t.queue.Add(r)
}

// triggers are the reconcilers' queues, by what their keys are.
type triggers struct {
	members, gateways, routes, services, reports, probes, policies, rollouts trigger
	// heldProbes are the imports for the probing of which some member may hold a route.
	heldProbes sync.Map
}

// wakeOwner wakes the key for which an object was written.
func (t *triggers) wakeOwner(o federation.Owner) {
	switch o.Noun {
	case nounRoute:
		t.routes.wake(o.Namespace, o.Name)
	case nounGateway:
		t.gateways.wake(o.Namespace, o.Name)
	case nounService:
		t.services.wake(o.Namespace, o.Name)
	case nounMember:
		t.members.wake("", o.Name)
	case nounProbe:
		t.heldProbes.Store(federation.ServiceKey{Namespace: o.Namespace, Name: o.Name}, true)
		t.probes.wake(o.Namespace, o.Name)
	}
}

// wakePolicy wakes a policy, namespace/name.
func (t *triggers) wakePolicy(policy string) {
	if namespace, name, ok := strings.Cut(policy, "/"); ok {
		t.policies.wake(namespace, name)
	}
}

// wakeReport wakes who says how far a member has come.
func (t *triggers) wakeReport(o federation.Owner) {
	if o.Noun == nounRoute {
		t.reports.wake(o.Namespace, o.Name)
		return
	}
	t.wakeOwner(o)
}

// watcher turns what happens in members into the keys that it concerns.
type watcher struct {
	gather gatherer
	scheme *runtime.Scheme
	*triggers
}

// Handlers are what the fleet calls.
func (w *watcher) Handlers() fleet.Handlers {
	return fleet.Handlers{
		Object:  w.objectChanged,
		State:   w.stateChanged,
		Outcome: func(_ string, owner federation.Owner) { w.wakeReport(owner) },
	}
}

// stateChanged wakes whatever may have waited for a member, or may now know more of it.
func (w *watcher) stateChanged(name string) {
	w.wakeAll()
	w.members.wake("", name)
	w.wakeOwners(context.Background(), name)
}

// wakeOwners wakes every key for which a member holds something. The hub object of one may have gone while the member
// could not be read, and then nothing else would ever withdraw what was written for it.
func (w *watcher) wakeOwners(ctx context.Context, name string) {
	handle, ok := w.gather.fleet.Member(name)
	if !ok || !handle.State().Synced {
		return
	}
	seen := map[federation.Owner]bool{}
	for _, o := range (member{handle: handle}).held(ctx, w.scheme) {
		if owner, ok := federation.ParseOwner(o); ok && !seen[owner] {
			seen[owner] = true
			w.wakeOwner(owner)
		}
	}
}

// objectChanged:
//
//	ServiceExport, Service      -> the service, and the routes that refer to it
//	EndpointSlice               -> the same, when a slice becomes empty or stops being so, and when the share of ready
//	                               endpoints is another
//	Gateway, HTTPRoute, …       -> its owner, when it is ours; of a Gateway also what is probed over it, and the member
//	HTTPRoute                   -> also the services that it named and names no more
//	ServiceEntry                -> also the routes that may name it now
//	Namespace, Node             -> whatever waits for the namespace; the member's own status
//	anything of ours that went  -> also the member, which may be leaving and wait for the last of it
func (w *watcher) objectChanged(member string, old, current client.Object) {
	o := current
	if o == nil {
		o = old
		if federation.IsOurs(old) {
			w.members.wake("", member)
		}
	}
	switch typed := o.(type) {
	case *corev1.Service:
		w.serviceChanged(federation.ServiceKey{Namespace: typed.Namespace, Name: typed.Name})
	case *mcsv1beta1.ServiceExport:
		w.serviceChanged(federation.ServiceKey{Namespace: typed.Namespace, Name: typed.Name})
		w.members.wake("", member)
	case *discoveryv1.EndpointSlice:
		w.endpointsChanged(member, typed, endpointsIn(old), endpointsIn(current))
	case *corev1.Node:
		if !samePlace(old, current) {
			w.members.wake("", member)
		}
	case *metav1.PartialObjectMetadata:
		if old == nil || current == nil {
			w.namespaceChanged(typed.Name)
		}
	case *gatewayv1.HTTPRoute:
		w.routeChanged(old, current)
	case *gatewayv1.Gateway:
		w.ownerOf(o)
		w.members.wake("", member) // whose status tells its addresses
	default:
		w.ownerOf(o)
	}
}

// endpointsChanged wakes what rests on how many endpoints are ready, where that is enough more or less to change a plan.
func (w *watcher) endpointsChanged(name string, slice *discoveryv1.EndpointSlice, was, is endpointCount) {
	key := federation.ServiceKey{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	if was == is {
		return
	}
	changed := (was.ready > 0) != (is.ready > 0)
	if handle, ok := w.gather.fleet.Member(name); ok {
		m := member{Member: federation.Member{Name: name}, handle: handle}
		changed = w.gather.endpoints.changed(context.Background(), m, key) || changed
	}
	if changed {
		w.serviceChanged(key)
	}
}

func (w *watcher) ownerOf(o client.Object) {
	if owner, ok := federation.ParseOwner(o); ok {
		w.wakeOwner(owner)
		switch owner.Noun {
		case nounService:
			w.wakeRoutesOf(federation.ServiceKey{Namespace: owner.Namespace, Name: owner.Name})
		case nounGateway:
			w.wakeProbesOver(types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name})
		}
	}
}

// wakeProbesOver wakes the probing of what is probed over a Gateway: a member's may have another address now.
func (w *watcher) wakeProbesOver(gateway types.NamespacedName) {
	for _, route := range routesOfGateway(context.Background(), w.gather.hub, gateway) {
		for _, key := range federation.ImportsOf(&route) {
			if _, probed := w.gather.probes.decided(key); probed {
				w.probes.wake(key.Namespace, key.Name)
			}
		}
	}
}

// probeChanged wakes whatever the verdict on a service decides.
func (w *watcher) probeChanged(key federation.ServiceKey) {
	w.serviceChanged(key)
	routes, err := routesOfImport(context.Background(), w.gather.hub, key)
	if err != nil {
		return
	}
	for i := range routes {
		for _, r := range ofRoute(context.Background(), &routes[i]) {
			w.gateways.wake(r.Namespace, r.Name)
		}
	}
}

func (w *watcher) serviceChanged(key federation.ServiceKey) {
	if key.Name == "" {
		return
	}
	// Routes first: failover is theirs.
	w.wakeRoutesOf(key)
	w.services.wake(key.Namespace, key.Name)
}

func (w *watcher) wakeRoutesOf(key federation.ServiceKey) {
	routes, err := routesOfImport(context.Background(), w.gather.hub, key)
	if err != nil {
		return
	}
	for _, r := range routes {
		w.routes.wake(r.Namespace, r.Name)
	}
}

// samePlace tells whether a Node says nothing new: its heartbeats would wake the member again and again.
func samePlace(old, current client.Object) bool {
	was, _ := old.(*corev1.Node)
	is, _ := current.(*corev1.Node)
	return was != nil && is != nil && was.Spec.ProviderID == is.Spec.ProviderID &&
		was.Labels[corev1.LabelTopologyRegion] == is.Labels[corev1.LabelTopologyRegion] &&
		was.Labels[corev1.LabelTopologyZone] == is.Labels[corev1.LabelTopologyZone]
}

// routeChanged wakes the owner, and the services whose hosts the route no longer names: what made those hosts
// known has been waiting for it, and so may have the clusters themselves, to be let go.
func (w *watcher) routeChanged(old, current client.Object) {
	o := current
	if o == nil {
		o = old
	}
	owner, ours := federation.ParseOwner(o)
	if !ours {
		return
	}
	w.wakeOwner(owner)
	before, after := namedBackends(old), namedBackends(current)
	for key, clusters := range before {
		if !slices.Equal(clusters, after[key]) {
			w.services.wake(key.Namespace, key.Name)
			for _, cluster := range clusters {
				if cluster != "" {
					w.members.wake("", cluster)
				}
			}
		}
	}
}

func namedBackends(o client.Object) map[federation.ServiceKey][]string {
	route, ok := o.(*gatewayv1.HTTPRoute)
	if !ok || route == nil {
		return nil
	}
	return federation.NamedClusters(route)
}

func (w *watcher) namespaceChanged(namespace string) {
	w.wakeObjects(context.Background(), client.InNamespace(namespace))
	if namespace == systemNamespace {
		w.wakeAll()
	}
}

// wakeAll wakes every key that there is: a member came, went, or changed its place.
func (w *watcher) wakeAll() {
	ctx := context.Background()
	if names, err := memberNames(ctx, w.gather.hub); err == nil {
		for _, m := range names {
			w.members.wake("", m)
		}
	}
	w.wakeObjects(ctx)
}

// wakeObjects wakes every Gateway, route and service, or those of one namespace. Services are those that the hub
// knows and those that any member exports: an export may have come while the hub, or a member, could not yet be read.
func (w *watcher) wakeObjects(ctx context.Context, opts ...client.ListOption) {
	var gateways gatewayv1.GatewayList
	if w.gather.hub.List(ctx, &gateways, opts...) == nil {
		for i := range gateways.Items {
			w.gateways.wake(gateways.Items[i].Namespace, gateways.Items[i].Name)
		}
	}
	var routes gatewayv1.HTTPRouteList
	if w.gather.hub.List(ctx, &routes, opts...) == nil {
		for i := range routes.Items {
			w.routes.wake(routes.Items[i].Namespace, routes.Items[i].Name)
			// Also those of other namespaces: their hosts are made known next to the route.
			for _, key := range federation.ImportsOf(&routes.Items[i]) {
				w.services.wake(key.Namespace, key.Name)
			}
		}
	}
	var imports mcsv1beta1.ServiceImportList
	if w.gather.hub.List(ctx, &imports, opts...) == nil {
		for i := range imports.Items {
			w.services.wake(imports.Items[i].Namespace, imports.Items[i].Name)
		}
	}
	for _, key := range w.gather.exported(ctx, opts...) {
		w.services.wake(key.Namespace, key.Name)
	}
}
