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
	triggers *triggers
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
		WatchesRawSource(&r.triggers.policies).
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
	names, err := memberNames(ctx, r.Client)
	if err != nil {
		return ctrl.Result{}, err
	}
	all, err := r.policies(ctx, policy.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	snapshot := federation.PolicySnapshot{Policy: policy, Members: names, Exists: map[federation.Target]bool{},
		OtherClass: map[federation.Target]string{}, Metrics: r.probes.metricUses(policy.Namespace + "/" + policy.Name)}
	for _, other := range all {
		if other.Name != policy.Name {
			snapshot.Others = append(snapshot.Others, other)
		}
	}
	for _, t := range federation.TargetsOf(policy) {
		if err := r.look(ctx, t, &snapshot); err != nil {
			return ctrl.Result{}, err
		}
	}
	changed := policy.DeepCopy()
	changed.Status.Ancestors = mergeAncestors(policy.Status.Ancestors, federation.PolicyStatus(snapshot))
	return ctrl.Result{}, unlessStale(patchStatus(ctx, r.Client, policy, changed))
}

// look finds out whether a target is there, with the section that it names, and whether it is ours.
func (r *policyReconciler) look(ctx context.Context, t federation.Target, s *federation.PolicySnapshot) error {
	var err error
	key := client.ObjectKey{Namespace: t.Namespace, Name: t.Name}
	switch t.Kind {
	case "Gateway":
		var gateway gatewayv1.Gateway
		if err = r.Get(ctx, key, &gateway); err != nil {
			break
		}
		s.Exists[t] = t.Section == "" || federation.HasListener(&gateway, t.Section)
		ours, err := r.ours(ctx, &gateway)
		if !ours && err == nil {
			s.OtherClass[t] = string(gateway.Spec.GatewayClassName)
		}
		return err
	case "HTTPRoute":
		var route gatewayv1.HTTPRoute
		err = r.Get(ctx, key, &route)
		s.Exists[t] = err == nil && (t.Section == "" || federation.HasRule(&route, t.Section))
	default:
		err = r.Get(ctx, key, &mcsv1beta1.ServiceImport{})
		s.Exists[t] = err == nil
	}
	return client.IgnoreNotFound(err)
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
