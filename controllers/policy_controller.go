// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// maxAncestors is what a policy's status holds (GEP-713, PolicyStatus.ancestors).
const maxAncestors = 16

// policyReconciler answers: is a TrafficDistributionPolicy in force, and does it name what exists?
type policyReconciler struct {
	client.Client
	gatherer
}

func (r *policyReconciler) setup(mgr ctrl.Manager) error {
	namespace := handler.EnqueueRequestsFromMapFunc(r.ofNamespace)
	return ctrl.NewControllerManagedBy(mgr).Named("policy").For(&v1alpha1.TrafficDistributionPolicy{}).
		Watches(&v1alpha1.TrafficDistributionPolicy{}, namespace).
		Watches(&gatewayv1.Gateway{}, namespace).
		Watches(&gatewayv1.HTTPRoute{}, namespace).
		Watches(&mcsv1beta1.ServiceImport{}, namespace).
		Watches(&gatewayv1.GatewayClass{}, handler.EnqueueRequestsFromMapFunc(r.all)).
		Watches(&v1alpha1.MemberCluster{}, handler.EnqueueRequestsFromMapFunc(r.all)).
		Complete(r)
}

func (r *policyReconciler) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requests(ctx, client.InNamespace(o.GetNamespace()))
}

func (r *policyReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.requests(ctx)
}

func (r *policyReconciler) requests(ctx context.Context, opts ...client.ListOption) []reconcile.Request {
	var list v1alpha1.TrafficDistributionPolicyList
	if err := r.List(ctx, &list, opts...); err != nil {
		return nil
	}
	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// Reconcile writes one policy's status.
func (r *policyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policy := &v1alpha1.TrafficDistributionPolicy{}
	if err := r.Get(ctx, req.NamespacedName, policy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	snapshot := federation.PolicySnapshot{Policy: policy, Members: memberNames(ctx, r.Client), Exists: map[federation.Target]bool{}}
	all, err := r.policies(ctx, policy.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	for _, other := range all {
		if other.Name != policy.Name {
			snapshot.Others = append(snapshot.Others, other)
		}
	}
	for _, t := range federation.TargetsOf(policy) {
		if snapshot.Exists[t], err = r.exists(ctx, t); err != nil {
			return ctrl.Result{}, err
		}
	}
	changed := policy.DeepCopy()
	changed.Status.Ancestors = mergeAncestors(policy.Status.Ancestors, federation.PolicyStatus(snapshot))
	return ctrl.Result{}, unlessStale(patchStatus(ctx, r.Client, policy, changed))
}

// exists tells whether a target is there, with the section that it names.
func (r *policyReconciler) exists(ctx context.Context, t federation.Target) (bool, error) {
	key := client.ObjectKey{Namespace: t.Namespace, Name: t.Name}
	switch t.Kind {
	case "Gateway":
		gateway, err := r.gateway(ctx, key)
		return gateway != nil && (t.Section == "" || federation.HasListener(gateway, t.Section)), err
	case "HTTPRoute":
		var route gatewayv1.HTTPRoute
		err := r.Get(ctx, key, &route)
		return err == nil && (t.Section == "" || federation.HasRule(&route, t.Section)), client.IgnoreNotFound(err)
	default:
		var imp mcsv1beta1.ServiceImport
		err := r.Get(ctx, key, &imp)
		return err == nil, client.IgnoreNotFound(err)
	}
}

// mergeAncestors keeps other controllers' entries, and the times of what did not change.
func mergeAncestors(have, ours []gatewayv1.PolicyAncestorStatus) []gatewayv1.PolicyAncestorStatus {
	var out []gatewayv1.PolicyAncestorStatus
	for _, entry := range have {
		if entry.ControllerName != v1alpha1.ControllerName {
			out = append(out, entry)
		}
	}
	for _, entry := range ours {
		var before []metav1.Condition
		for _, h := range have {
			if h.ControllerName == entry.ControllerName && equalRefs(h.AncestorRef, entry.AncestorRef) {
				before = h.Conditions
			}
		}
		entry.Conditions = mergeConditions(before, entry.Conditions...)
		out = append(out, entry)
	}
	return out[:min(len(out), maxAncestors)]
}
