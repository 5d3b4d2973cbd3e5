// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
)

// connector is what this reconciler needs of the fleet beside its members.
type connector interface {
	memberSource
	Ensure(name string, kubeconfig []byte) error
	Remove(name string)
}

// memberReconciler answers: how is a member reached, what is it, and how do the others get in?
type memberReconciler struct {
	client.Client
	gatherer
	fleet    connector
	watcher  *watcher
	triggers *triggers
}

func (r *memberReconciler) setup(mgr ctrl.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(r.all)
	return ctrl.NewControllerManagedBy(mgr).Named("membercluster").For(&v1alpha1.MemberCluster{}).
		Watches(&v1alpha1.MemberCluster{}, r.planChanges()).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.ofSecret)).
		// Who may come in at the east-west gateways follows from which Gateways there are.
		Watches(&gatewayv1.Gateway{}, all, builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.GatewayClass{}, all, builder.WithPredicates(specChanged)).
		WatchesRawSource(&r.triggers.members).
		Complete(r)
}

func (r *memberReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	names, err := memberNames(ctx, r.Client)
	if err != nil {
		return nil
	}
	var out []reconcile.Request
	for _, name := range names {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKey{Name: name}})
	}
	return out
}

// planChanges wakes every key once the cache shows a MemberCluster on which plans depend. After our own write of its
// status would be too early: a key that is woken before the cache has caught up plans with what was, and rests.
func (r *memberReconciler) planChanges() handler.Funcs {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if !e.IsInInitialList {
				r.watcher.wakeAll()
			}
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if plansDiffer(e.ObjectOld.(*v1alpha1.MemberCluster), e.ObjectNew.(*v1alpha1.MemberCluster)) {
				r.watcher.wakeAll()
			}
		},
		DeleteFunc: func(context.Context, event.DeleteEvent, workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			r.watcher.wakeAll()
		},
	}
}

// plansDiffer tells whether what plans depend on is different now.
func plansDiffer(was, is *v1alpha1.MemberCluster) bool {
	return was.Generation != is.Generation || was.DeletionTimestamp.IsZero() != is.DeletionTimestamp.IsZero() ||
		was.Status.Region != is.Status.Region || was.Status.Zone != is.Status.Zone ||
		was.Status.EastWestAddress != is.Status.EastWestAddress || was.Status.ClusterUID != is.Status.ClusterUID
}

func (r *memberReconciler) ofSecret(ctx context.Context, o client.Object) []reconcile.Request {
	var list v1alpha1.MemberClusterList
	if o.GetNamespace() != systemNamespace || r.List(ctx, &list) != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.Kubeconfig.SecretRef.Name == o.GetName() {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// Reconcile connects one member, plans its east-west gateway, and says what was found.
func (r *memberReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	mc := &v1alpha1.MemberCluster{}
	if err := r.Get(ctx, req.NamespacedName, mc); err != nil {
		if apierrors.IsNotFound(err) {
			return ctrl.Result{}, r.forget(ctx, req.Name)
		}
		return ctrl.Result{}, err
	}
	if mc.DeletionTimestamp != nil {
		return ctrl.Result{}, unlessStale(r.leave(ctx, mc))
	}
	if controllerutil.AddFinalizer(mc, v1alpha1.FinalizerMember) {
		return ctrl.Result{}, unlessStale(r.Update(ctx, mc))
	}
	problem := r.connect(ctx, mc)
	members, err := r.allMembers(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	if left := r.gatherer.member(mc).settles(); left > 0 && problem == nil && mc.Status.ObservedGeneration == mc.Generation {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	status, err := r.describe(ctx, mc, members, problem)
	if err != nil {
		return ctrl.Result{}, err
	}
	changed := mc.DeepCopy()
	changed.Status = status
	return ctrl.Result{}, unlessStale(patchStatus(ctx, r.Client, mc, changed))
}

// connect hands the kubeconfig to the fleet. What is wrong with it is a condition, not an error to be retried:
// a changed Secret wakes the key.
func (r *memberReconciler) connect(ctx context.Context, mc *v1alpha1.MemberCluster) *metav1.Condition {
	ref := mc.Spec.Kubeconfig.SecretRef
	problem := func(reason, message string) *metav1.Condition {
		return &metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}
	var secret corev1.Secret
	if err := r.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: ref.Name}, &secret); err != nil {
		if !apierrors.IsNotFound(err) {
			return problem(v1alpha1.ReasonSecretNotFound, "the Secret cannot be read: "+err.Error())
		}
		return problem(v1alpha1.ReasonSecretNotFound, fmt.Sprintf("there is no Secret %s in namespace %s: create it with the kubeconfig under key %q",
			ref.Name, systemNamespace, ref.Key))
	}
	data, ok := secret.Data[ref.Key]
	if !ok {
		return problem(v1alpha1.ReasonSecretNotFound, fmt.Sprintf("Secret %s/%s has no key %q: put the kubeconfig there, or name its key in secretRef.key",
			systemNamespace, ref.Name, ref.Key))
	}
	var unusable *fleet.KubeconfigError
	if err := r.fleet.Ensure(mc.Name, data); errors.As(err, &unusable) {
		return problem(unusable.Reason, unusable.Message)
	} else if err != nil {
		return problem(v1alpha1.ReasonInvalidKubeconfig, err.Error())
	}
	return nil
}

// describe plans the member's east-west gateway and makes the status, knowing all members.
func (r *memberReconciler) describe(ctx context.Context, mc *v1alpha1.MemberCluster, members []member,
	problem *metav1.Condition) (v1alpha1.MemberClusterStatus, error) {
	m := r.gatherer.member(mc)
	status := *mc.Status.DeepCopy()
	status.ObservedGeneration = mc.Generation
	status.ClusterUID = m.clusterUID(ctx)
	if twin := twinOf(members, mc.Name); twin != "" {
		status.Conditions = mergeConditions(mc.Status.Conditions, duplicateConditions(twin, mc.Generation)...)
		return status, nil
	}
	if err := r.discover(ctx, m, &status); err != nil {
		return status, err
	}
	mesh := r.mesh(ctx, m, slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.twin != "" }), &status)
	connected, synced := connectionConditions(m, problem)
	if connected.Status == metav1.ConditionTrue && r.isHub(ctx, status.ClusterUID) {
		connected.Message += "; this is the hub's own cluster"
	}
	for _, c := range []*metav1.Condition{&connected, &synced, &mesh} {
		c.ObservedGeneration = mc.Generation
	}
	status.Conditions = mergeConditions(mc.Status.Conditions, connected, synced, mesh)
	return status, nil
}
