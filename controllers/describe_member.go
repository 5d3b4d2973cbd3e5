// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// What a MemberCluster's status names at most.
const (
	maxListedExports   = 100
	maxListedGateways  = 100
	maxListedAddresses = 16 // of one Gateway, as of the hub's own (Gateway API, GatewayStatus.addresses)
)

// discover fills in what the member's own objects say of it. What cannot be read now stays as last known.
func (r *memberReconciler) discover(ctx context.Context, m member, status *v1alpha1.MemberClusterStatus) error {
	if m.handle != nil {
		if version := m.handle.State().Version; version != "" {
			status.KubernetesVersion = version
		}
	}
	spec := m.object.Spec
	if m.Synced {
		var nodes corev1.NodeList
		if err := m.list(ctx, &nodes); err != nil {
			return err
		}
		place := federation.DiscoverPlace(nodes.Items)
		status.Provider, status.Region, status.Zone = place.Provider, place.Region, place.Zone
		if err := listExports(ctx, m, status); err != nil {
			return err
		}
		if err := listGateways(ctx, m, status); err != nil {
			return err
		}
	}
	if spec.Region != "" {
		status.Region = spec.Region
	}
	if spec.Zone != "" {
		status.Zone = spec.Zone
	}
	return nil
}

func listExports(ctx context.Context, m member, status *v1alpha1.MemberClusterStatus) error {
	var exports mcsv1beta1.ServiceExportList
	if err := m.list(ctx, &exports); err != nil {
		return err
	}
	var names []string
	for i := range exports.Items {
		service := &corev1.Service{}
		if !m.get(ctx, exports.Items[i].Namespace, exports.Items[i].Name, service) {
			service = nil
		}
		if (federation.Export{Cluster: m.Name, Service: service}).Refuse() == nil {
			names = append(names, exports.Items[i].Namespace+"/"+exports.Items[i].Name)
		}
	}
	slices.Sort(names)
	status.ExportedServiceCount = int32(len(names))
	status.ExportedServices = names[:min(len(names), maxListedExports)]
	return nil
}

// listGateways tells whose the addresses of the hub's Gateways are, which these do not say themselves.
func listGateways(ctx context.Context, m member, status *v1alpha1.MemberClusterStatus) error {
	var held gatewayv1.GatewayList
	if err := m.list(ctx, &held, client.UnsafeDisableDeepCopy, client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}); err != nil {
		return err
	}
	status.Gateways = nil
	for i := range held.Items {
		g := &held.Items[i]
		owner, ours := federation.ParseOwner(g)
		if !ours || owner != federation.GatewayOwner(g.Namespace, g.Name) || federation.GatewayWaitsFor(g) != "" {
			continue
		}
		listed := v1alpha1.MemberGateway{Namespace: g.Namespace, Name: g.Name}
		for _, a := range g.Status.Addresses[:min(len(g.Status.Addresses), maxListedAddresses)] {
			listed.Addresses = append(listed.Addresses, a.Value)
		}
		status.Gateways = append(status.Gateways, listed)
	}
	slices.SortFunc(status.Gateways, func(a, b v1alpha1.MemberGateway) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	status.Gateways = status.Gateways[:min(len(status.Gateways), maxListedGateways)]
	return nil
}

// mesh hands the member its east-west gateway, finds its address, and says whether the others can get in.
func (r *memberReconciler) mesh(ctx context.Context, m member, members []member, status *v1alpha1.MemberClusterStatus) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.MemberMeshReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}
	objects, err := r.eastWestObjects(ctx, m, members)
	if err != nil {
		return no(v1alpha1.ReasonWriteFailed, err.Error())
	}
	owner := federation.EastWestOwner(m.Name)
	outcomes := fanOut([]member{m}, owner, func(member) (fleet.Desired, bool) { return fleet.Desired{Objects: objects}, true })
	gateway := &gatewayv1.Gateway{}
	found := m.get(ctx, systemNamespace, federation.EastWestGatewayName, gateway) && federation.IsOurs(gateway)
	if address := eastWestAddress(m.object.Spec.EastWest, gateway); address != "" {
		status.EastWestAddress = address
	}
	if !m.Reachable {
		return metav1.Condition{Type: v1alpha1.MemberMeshReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonUnknownMemberState,
			Message: "the cluster cannot be reached, so its east-west gateway cannot be seen; it is used as before"}
	}
	said := meta.FindStatusCondition(m.object.Status.Conditions, v1alpha1.MemberMeshReady)
	if said != nil && inFlight(outcomes[m.Name]) {
		return *said // its outcome wakes the key again
	}
	switch problem := problemOf(outcomes[m.Name]); {
	case problem != nil:
		return no(problem.Reason, problem.Message)
	case !found:
		return no(v1alpha1.ReasonGatewayPending, "the east-west gateway has been written and is not seen yet")
	}
	if why := federation.GatewayWaitsFor(gateway); why != "" {
		return no(v1alpha1.ReasonGatewayPending, "the east-west gateway "+why)
	}
	ready := metav1.Condition{Type: v1alpha1.MemberMeshReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonMeshReady,
		Message: "the other members come in at " + status.EastWestAddress}
	if m.NoEnvoyFilter {
		ready.Reason = v1alpha1.ReasonNoRetries
		ready.Message += "; its proxies do not retry elsewhere what did not get through, because it lacks Istio's kind EnvoyFilter: install its CRD"
	}
	return ready
}

func (r *memberReconciler) eastWestObjects(ctx context.Context, m member, members []member) ([]client.Object, error) {
	s := federation.EastWestSnapshot{Member: m.Member}
	for _, other := range members {
		s.Members = append(s.Members, other.Member)
	}
	var gateways gatewayv1.GatewayList
	if err := r.List(ctx, &gateways); err != nil {
		return nil, err
	}
	for i := range gateways.Items {
		ours, err := r.ours(ctx, &gateways.Items[i])
		if err != nil {
			return nil, err
		}
		if ours {
			s.Gateways = append(s.Gateways, federation.NamespacedName{Namespace: gateways.Items[i].Namespace, Name: gateways.Items[i].Name})
		}
	}
	return clientObjects(federation.PlanEastWest(s)), nil
}

// eastWestAddress is what the spec gives, else what the gateway's status says; empty while neither does.
func eastWestAddress(spec *v1alpha1.EastWestSpec, gateway *gatewayv1.Gateway) string {
	if spec != nil {
		return net.JoinHostPort(spec.Address, strconv.Itoa(int(spec.Port)))
	}
	for _, a := range gateway.Status.Addresses {
		return net.JoinHostPort(a.Value, strconv.Itoa(federation.EastWestPort))
	}
	return ""
}

// connectionConditions are Connected and Synced.
func connectionConditions(m member, problem *metav1.Condition) (metav1.Condition, metav1.Condition) {
	connected := metav1.Condition{Type: v1alpha1.MemberConnected, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonConnecting,
		Message: "connecting"}
	synced := metav1.Condition{Type: v1alpha1.MemberSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnknownMemberState,
		Message: "not connected yet"}
	if m.handle != nil {
		state := m.handle.State()
		connected.Reason, connected.Message = state.Reason, state.Message
		switch state.Phase {
		case fleet.Connected:
			connected.Status, connected.Reason = metav1.ConditionTrue, v1alpha1.ReasonConnected
			connected.Message = "the API server answers"
		case fleet.Lost:
			connected.Message = strings.TrimSuffix(state.Message, ".") + "; no traffic is moved by this alone"
		case fleet.Connecting:
		}
		synced.Reason, synced.Message = v1alpha1.ReasonSyncing, state.Message
		if state.Synced {
			synced.Status, synced.Reason = metav1.ConditionTrue, v1alpha1.ReasonSynced
			synced.Message = "its contents have been read"
		}
		if state.Synced && len(state.Missing) > 0 {
			synced.Reason = v1alpha1.ReasonMissingKinds
			synced.Message = "its contents have been read; it lacks " + strings.Join(state.Missing, ", ") + ": install their CRDs"
		}
	}
	if problem != nil {
		if connected.Status == metav1.ConditionTrue {
			// The last good credentials still work: say what is wrong with the new ones, and change nothing else.
			connected.Message = "the last good kubeconfig is still in use; the new one cannot be: " + problem.Message
			connected.Reason = problem.Reason
		} else {
			connected.Status, connected.Reason, connected.Message = problem.Status, problem.Reason, problem.Message
		}
	}
	return connected, synced
}

func twinOf(members []member, name string) string {
	i := slices.IndexFunc(members, func(m member) bool { return m.Name == name })
	if i < 0 {
		return ""
	}
	return members[i].twin
}

// duplicateConditions are those of a member whose cluster an older one leads to.
func duplicateConditions(twin string, generation int64) []metav1.Condition {
	conditions := []metav1.Condition{
		{Type: v1alpha1.MemberConnected, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDuplicateCluster,
			Message: fmt.Sprintf("this is the cluster of the older MemberCluster %s, so nothing is written through this one: delete one of the two", twin)},
		{Type: v1alpha1.MemberSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnknownMemberState, Message: "see Connected"},
		{Type: v1alpha1.MemberMeshReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonUnknownMemberState, Message: "see Connected"},
	}
	for i := range conditions {
		conditions[i].ObservedGeneration = generation
	}
	return conditions
}

// isHub tells whether a member is the cluster that this controller runs for.
func (r *memberReconciler) isHub(ctx context.Context, uid string) bool {
	var own corev1.Namespace
	return uid != "" && r.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &own) == nil && string(own.UID) == uid
}

// routeNames tells whether a generated route sends anything to another cluster.
func routeNames(route *gatewayv1.HTTPRoute, cluster string) bool {
	for _, clusters := range federation.NamedClusters(route) {
		if slices.Contains(clusters, cluster) {
			return true
		}
	}
	return false
}
