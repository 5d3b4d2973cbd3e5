// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/controllers/fleet/fleetfake"
	"isthmus.dev/isthmus/federation"
)

// household is a hub and its members in memory, with the watcher between them. Nothing runs: who is woken is noted.
type household struct {
	*watcher
	hub    client.Client
	fleet  *fleetfake.Fleet
	member memberReconciler
	wrote  int
}

func newHousehold(hub ...client.Object) *household {
	h := &household{watcher: &watcher{triggers: &triggers{}, scheme: NewScheme()}}
	h.hub = fake.NewClientBuilder().WithScheme(h.scheme).WithObjects(hub...).
		WithStatusSubresource(&v1alpha1.MemberCluster{}).
		WithIndex(&gatewayv1.HTTPRoute{}, indexImport, importsOf).
		WithIndex(&v1alpha1.TrafficRollout{}, indexImport, importsOf).
		WithInterceptorFuncs(h.counting()).Build()
	h.fleet = fleetfake.New(h.scheme, fleet.Handlers{})
	h.gather = gatherer{hub: h.hub, fleet: h.fleet, endpoints: newEndpoints(), decided: newMemory()}
	h.member = memberReconciler{Client: h.hub, gatherer: h.gather, fleet: h.fleet, watcher: h.watcher, triggers: h.triggers}
	return h
}

func (h *household) counting() interceptor.Funcs {
	return interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			h.wrote++
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	}
}

// woken takes what was woken so far, sorted, each once.
func woken(t *trigger) []string {
	var out []string
	for _, r := range t.early {
		out = append(out, r.String())
	}
	t.early = nil
	slices.Sort(out)
	return slices.Compact(out)
}

func routeTo(namespace, name string, imp federation.ServiceKey) *gatewayv1.HTTPRoute {
	group, kind, ns := gatewayv1.Group(mcsv1beta1.GroupName), gatewayv1.Kind("ServiceImport"), gatewayv1.Namespace(imp.Namespace)
	return &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: gatewayv1.HTTPRouteSpec{
		Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Namespace: &ns, Name: gatewayv1.ObjectName(imp.Name)}}}}}}}}
}

// sending is a generated route that names the host of a cluster.
func sending(owner federation.Owner, imp federation.ServiceKey, cluster string) *gatewayv1.HTTPRoute {
	route := routeTo(owner.Namespace, owner.Name, imp)
	group, kind := gatewayv1.Group("networking.istio.io"), gatewayv1.Kind("Hostname")
	ref := &route.Spec.Rules[0].BackendRefs[0].BackendObjectReference
	ref.Group, ref.Kind, ref.Namespace, ref.Name = &group, &kind, nil, gatewayv1.ObjectName(federation.RemoteHost(imp, cluster))
	owner.Mark(&route.ObjectMeta)
	return route
}

var cart = federation.ServiceKey{Namespace: "shop", Name: "cart"}

func TestANewNamespaceWakesTheImportsOfItsRoutes(t *testing.T) {
	h := newHousehold(routeTo("web", "front", cart))
	h.fleet.Add("eks")
	namespace := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	h.objectChanged("eks", nil, namespace)
	require.Equal(t, []string{"web/front"}, woken(&h.routes))
	require.Equal(t, []string{"shop/cart"}, woken(&h.services), "its hosts are made known in the route's namespace")
}

func TestAMemberThatHasBeenReadWakesWhateverItHolds(t *testing.T) {
	h := newHousehold()
	m := h.fleet.Add("eks", sending(federation.RouteOwner("web", "deleted-while-away"), cart, "gke"))
	m.SetState(fleet.State{Phase: fleet.Connected})
	h.stateChanged("eks")
	require.Empty(t, woken(&h.routes), "not all has been read")
	m.SetState(fleet.State{Phase: fleet.Connected, Synced: true})
	h.stateChanged("eks")
	require.Equal(t, []string{"web/deleted-while-away"}, woken(&h.routes))
}

// sliceOf cart, with so many endpoints ready of ten.
func sliceOf(ready int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: cart.Namespace, Name: "cart-1",
		Labels: map[string]string{discoveryv1.LabelServiceName: cart.Name}}}
	for i := range 10 {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: new(i < ready)}})
	}
	return slice
}

// One route may be planned between a change and its event, for a reason of its own. The others still have to hear of it.
func TestALossOfEndpointsWakesAllWhoeverSawItFirst(t *testing.T) {
	h := newHousehold(routeTo("web", "front", cart), routeTo("web", "back", cart))
	eks := h.fleet.Add("eks", sliceOf(10))
	m := member{Member: federation.Member{Name: "eks"}, handle: eks}
	planned := func() int {
		seen, err := h.gather.endpoints.look(t.Context(), m, cart)
		require.NoError(t, err)
		return seen.ReadyPercent
	}
	require.Equal(t, 100, planned())
	for _, change := range []struct{ was, is int }{{10, 5}, {5, 10}} {
		require.NoError(t, eks.Client().Delete(t.Context(), sliceOf(change.was)))
		require.NoError(t, eks.Client().Create(t.Context(), sliceOf(change.is)))
		require.Equal(t, change.is*10, planned())
		h.objectChanged("eks", sliceOf(change.was), sliceOf(change.is))
		require.Equal(t, []string{"web/back", "web/front"}, woken(&h.routes))
		h.objectChanged("eks", sliceOf(change.was), sliceOf(change.is))
		require.Empty(t, woken(&h.routes), "told once")
	}
	_, err := h.member.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "eks"}})
	require.NoError(t, err)
	require.Empty(t, h.gather.endpoints.seen, "there is no MemberCluster of that name any more")
	require.Empty(t, h.gather.endpoints.told)

}

func TestANodesHeartbeatWakesNobody(t *testing.T) {
	h := newHousehold()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "a"}}}
	beat := node.DeepCopy()
	beat.ResourceVersion = "2"
	h.objectChanged("eks", node, beat)
	require.Empty(t, woken(&h.members))
	moved := node.DeepCopy()
	moved.Labels[corev1.LabelTopologyZone] = "b"
	h.objectChanged("eks", node, moved)
	require.Equal(t, []string{"/eks"}, woken(&h.members))
	h.objectChanged("eks", nil, node)
	require.Equal(t, []string{"/eks"}, woken(&h.members))
}

func TestWhatALeavingMemberWaitsForWakesIt(t *testing.T) {
	h := newHousehold()
	route := sending(federation.RouteOwner("web", "front"), cart, "gke")
	h.objectChanged("eks", route, sending(federation.RouteOwner("web", "front"), cart, "aks"))
	require.Equal(t, []string{"/gke"}, woken(&h.members), "the route of another member names it no more")
	h.objectChanged("gke", route, nil)
	require.Contains(t, woken(&h.members), "/gke", "something that it held is gone")
}

// leaving is a MemberCluster that is being deleted.
func leaving(name, version string) *v1alpha1.MemberCluster {
	now := metav1.Now()
	return &v1alpha1.MemberCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name, DeletionTimestamp: &now, Finalizers: []string{v1alpha1.FinalizerMember}},
		Status:     v1alpha1.MemberClusterStatus{KubernetesVersion: version}}
}

func joined(name string) *v1alpha1.MemberCluster {
	return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.MemberClusterStatus{KubernetesVersion: "v1.36.3"}}
}

func TestLeaving(t *testing.T) {
	connected := fleet.State{Phase: fleet.Connected, Synced: true, Version: "v1.36.3"}
	lost := fleet.State{Phase: fleet.Lost, Synced: true, Version: "v1.36.3"}
	unread := fleet.State{Phase: fleet.Connected, Version: "v1.36.3"}
	held := sending(federation.RouteOwner("web", "front"), cart, "aks")
	names := sending(federation.RouteOwner("web", "front"), cart, "gke")
	for name, test := range map[string]struct {
		version  string
		gke, eks *fleet.State
		holds    client.Object // in gke
		sends    client.Object // in eks
		waits    string        // empty where it is let go
	}{
		"nothing left":                        {"v1.36.3", &connected, &connected, nil, nil, ""},
		"never connected":                     {"", nil, &connected, nil, nil, ""},
		"something left":                      {"v1.36.3", &connected, &connected, held, nil, "withdrawing what was written there: HTTPRoute"},
		"lost":                                {"v1.36.3", &lost, &connected, nil, nil, "cannot be reached"},
		"no connection since the hub's start": {"v1.36.3", nil, &connected, nil, nil, "cannot be reached"},
		"named elsewhere":                     {"v1.36.3", &connected, &connected, nil, names, "the routes of eks still name"},
		"named by a lost one":                 {"v1.36.3", &connected, &lost, nil, names, "the routes of eks still name"},
		"another has not been read":           {"v1.36.3", &connected, &unread, nil, nil, "the routes of eks still name"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHousehold(leaving("gke", test.version), joined("eks"))
			for name, member := range map[string]struct {
				state *fleet.State
				holds client.Object
			}{"gke": {test.gke, test.holds}, "eks": {test.eks, test.sends}} {
				if member.state == nil {
					continue
				}
				var contents []client.Object
				if member.holds != nil {
					contents = append(contents, member.holds)
				}
				h.fleet.Add(name, contents...).SetState(*member.state)
			}
			request := ctrl.Request{NamespacedName: client.ObjectKey{Name: "gke"}}
			for range 3 {
				_, err := h.member.Reconcile(t.Context(), request)
				require.NoError(t, err)
			}
			var mc v1alpha1.MemberCluster
			err := h.hub.Get(t.Context(), request.NamespacedName, &mc)
			if test.waits == "" {
				require.True(t, apierrors.IsNotFound(err), "%v", err)
				return
			}
			require.NoError(t, err)
			require.Contains(t, mc.Status.Conditions[0].Message, test.waits)
			require.Equal(t, 1, h.wrote, "the same is said once")
			require.Empty(t, slices.Concat(woken(&h.gateways), woken(&h.routes), woken(&h.members)), "waiting wakes nobody, or it would go round and round")
		})
	}
}

// cluster is the contents by which a cluster is known.
func cluster(uid string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: types.UID(uid)}}
}

// secretOf is a Secret with something under the key kubeconfig.
func secretOf(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: name}, Data: map[string][]byte{"kubeconfig": []byte("x")}}
}

func TestOneClusterUnderTwoNames(t *testing.T) {
	older, younger := joined("eks"), joined("alias")
	older.CreationTimestamp, younger.CreationTimestamp = metav1.Unix(1e9, 0), metav1.Unix(1e9+1, 0)
	younger.Finalizers = []string{v1alpha1.FinalizerMember}
	younger.Spec.Kubeconfig.SecretRef = v1alpha1.SecretKeyRef{Name: "s", Key: "kubeconfig"}
	other := joined("gke")
	other.Finalizers, other.Spec = younger.Finalizers, younger.Spec
	h := newHousehold(older, younger, other, secretOf("s"), cluster("of-gke"))
	h.fleet.Add("eks", cluster("of-eks"))
	alias := h.fleet.Add("alias", cluster("of-eks"))
	h.fleet.Add("gke", cluster("of-gke"))
	say := func(name string) metav1.Condition {
		_, err := h.member.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: name}})
		require.NoError(t, err)
		var mc v1alpha1.MemberCluster
		require.NoError(t, h.hub.Get(t.Context(), client.ObjectKey{Name: name}, &mc))
		return *meta.FindStatusCondition(mc.Status.Conditions, v1alpha1.MemberConnected)
	}
	c := say("alias")
	require.Equal(t, "False DuplicateCluster", string(c.Status)+" "+c.Reason)
	require.Contains(t, c.Message, "the older MemberCluster eks")
	require.Empty(t, alias.Submits())
	members, err := h.gather.members(t.Context())
	require.NoError(t, err)
	require.Len(t, members, 2)
	require.Equal(t, "the API server answers; this is the hub's own cluster", say("gke").Message)

	// Remembered while the cluster cannot be read.
	h.fleet.Remove("alias")
	members, err = h.gather.members(t.Context())
	require.NoError(t, err)
	require.Len(t, members, 2)
	h.fleet.Add("alias", cluster("of-eks"), sending(federation.RouteOwner("web", "front"), cart, "gke"))
	require.NoError(t, h.hub.Delete(t.Context(), younger))
	_, err = h.member.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "alias"}})
	require.NoError(t, err)
	require.True(t, apierrors.IsNotFound(h.hub.Get(t.Context(), client.ObjectKey{Name: "alias"}, younger)), "what it holds is the other's")
}

func TestAPlaceThatChangedWakesAllOnceTheCacheShowsIt(t *testing.T) {
	was := joined("eks")
	for name, test := range map[string]struct {
		change func(*v1alpha1.MemberCluster)
		wakes  bool
	}{
		"a condition":   {func(m *v1alpha1.MemberCluster) { m.Status.ExportedServiceCount = 7 }, false},
		"the region":    {func(m *v1alpha1.MemberCluster) { m.Status.Region = "us-east-1" }, true},
		"the address":   {func(m *v1alpha1.MemberCluster) { m.Status.EastWestAddress = "192.0.2.1:15443" }, true},
		"the spec":      {func(m *v1alpha1.MemberCluster) { m.Generation++ }, true},
		"it is leaving": {func(m *v1alpha1.MemberCluster) { now := metav1.Now(); m.DeletionTimestamp = &now }, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHousehold(routeTo("web", "front", cart), was.DeepCopy())
			is := was.DeepCopy()
			test.change(is)
			h.member.planChanges().Update(t.Context(), event.UpdateEvent{ObjectOld: was, ObjectNew: is}, nil)
			require.Equal(t, test.wakes, len(woken(&h.routes)) > 0)
		})
	}
}
