// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// leave withdraws the member's contribution, then what was written to it, and lets it go. A member that cannot
// be reached keeps what it holds, and its MemberCluster, until it can be, or until somebody removes the finalizer.
func (r *memberReconciler) leave(ctx context.Context, mc *v1alpha1.MemberCluster) error {
	if !controllerutil.ContainsFinalizer(mc, v1alpha1.FinalizerMember) {
		return nil
	}
	m := r.gatherer.member(mc)
	if m.handle == nil {
		r.connect(ctx, mc)
		m = r.gatherer.member(mc)
	}
	all, err := r.allMembers(ctx)
	if err != nil {
		return err
	}
	named := r.namedBy(ctx, mc.Name)
	// What its cluster holds belongs to the other one that leads there.
	if waiting := r.stillHeld(ctx, m, named); waiting != "" && twinOf(all, mc.Name) == "" {
		fanOut([]member{m}, federation.EastWestOwner(mc.Name), func(member) (fleet.Desired, bool) {
			return fleet.Desired{}, len(named) == 0
		})
		changed := mc.DeepCopy()
		changed.Status.Conditions = mergeConditions(mc.Status.Conditions, metav1.Condition{Type: v1alpha1.MemberSynced,
			Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCleanupPending, ObservedGeneration: mc.Generation, Message: waiting})
		return patchStatus(ctx, r.Client, mc, changed)
	}
	r.fleet.Remove(mc.Name)
	controllerutil.RemoveFinalizer(mc, v1alpha1.FinalizerMember)
	return client.IgnoreNotFound(r.Update(ctx, mc))
}

// stillHeld says what keeps a member from being let go; empty when nothing does. named are the members whose routes
// still send to it.
func (r *memberReconciler) stillHeld(ctx context.Context, m member, named []string) string {
	switch {
	case m.neverConnected():
		return "" // nothing was ever written there
	case !m.Reachable || !m.Synced:
		return "the cluster cannot be reached, so what was written there cannot be withdrawn: bring it back, or remove the finalizer " +
			v1alpha1.FinalizerMember + " to forget it"
	case len(named) > 0:
		return fmt.Sprintf("the routes of %s still name this cluster, or cannot be read: they are moved away first", strings.Join(named, ", "))
	}
	var kinds []string
	for _, o := range m.held(ctx, r.Scheme()) {
		if gvk, err := apiutil.GVKForObject(o, r.Scheme()); err == nil {
			kinds = append(kinds, gvk.Kind)
		}
	}
	if len(kinds) == 0 {
		return ""
	}
	slices.Sort(kinds)
	return "withdrawing what was written there: " + strings.Join(slices.Compact(kinds), ", ")
}

// forget ends the connection to a member that is gone. What another member still holds in its name was written while
// the same cluster had that name, and stands in the way of what is written for the new one.
func (r *memberReconciler) forget(ctx context.Context, name string) error {
	r.fleet.Remove(name)
	r.endpoints.forget(name)
	members, err := r.members(ctx)
	if err == nil {
		fanOut(members, federation.EastWestOwner(name), func(member) (fleet.Desired, bool) { return fleet.Desired{}, true })
	}
	return err
}

// namedBy lists the other members whose routes still send to a cluster, or may: what cannot be read is not known to
// have moved away.
func (r *memberReconciler) namedBy(ctx context.Context, cluster string) []string {
	members, err := r.members(ctx)
	if err != nil {
		return []string{"every member"}
	}
	var names []string
	for _, m := range members {
		if m.Name == cluster || m.neverConnected() {
			continue
		}
		var routes gatewayv1.HTTPRouteList
		err := m.list(ctx, &routes, client.UnsafeDisableDeepCopy, client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy})
		if err != nil || !m.Synced || slices.ContainsFunc(routes.Items, func(route gatewayv1.HTTPRoute) bool { return routeNames(&route, cluster) }) {
			names = append(names, m.Name)
		}
	}
	return names
}
