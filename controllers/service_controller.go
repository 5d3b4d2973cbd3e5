// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// serviceReconciler answers: who exports a service, and what makes it reachable in each member?
type serviceReconciler struct {
	client.Client
	gatherer
	triggers *triggers
	metrics  *metrics
	events   events.EventRecorder
}

func (r *serviceReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("service").WithOptions(concurrently).For(&mcsv1beta1.ServiceImport{}).
		Watches(&gatewayv1.HTTPRoute{}, handler.EnqueueRequestsFromMapFunc(importsElsewhere)).
		Watches(&gatewayv1.ReferenceGrant{}, handler.EnqueueRequestsFromMapFunc(r.importsOfNamespace)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.exportsOfNamespace)).
		WatchesRawSource(&r.triggers.services).
		Complete(r)
}

// importsElsewhere are the imports of other namespaces that a route refers to: their hosts have to be made
// known in the route's namespace too.
func importsElsewhere(_ context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range federation.ImportsOf(o.(*gatewayv1.HTTPRoute)) {
		if key.Namespace != o.GetNamespace() {
			out = append(out, requestFor(key))
		}
	}
	return out
}

func (r *serviceReconciler) importsOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	var list mcsv1beta1.ServiceImportList
	if err := r.List(ctx, &list, client.InNamespace(o.GetNamespace())); err != nil {
		return nil
	}
	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// exportsOfNamespace are the services that any member exports from a namespace: the hub's import of them may have
// been waiting for it.
func (r *serviceReconciler) exportsOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range r.exported(ctx, client.InNamespace(o.GetName())) {
		out = append(out, requestFor(key))
	}
	return out
}

func requestFor(key federation.ServiceKey) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKey{Namespace: key.Namespace, Name: key.Name}}
}

// Reconcile plans one service.
func (r *serviceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	members, err := r.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	key := federation.ServiceKey{Namespace: req.Namespace, Name: req.Name}
	snapshot, err := r.wholeService(ctx, key, members)
	if err != nil {
		return ctrl.Result{}, err
	}
	started := time.Now()
	plan := federation.PlanService(snapshot)
	r.metrics.planned(nounService, started)
	conditions := federation.ExportConditions(snapshot, plan)
	outcomes := fanOut(members, federation.ServiceOwner(key), func(m member) (fleet.Desired, bool) {
		wish := fleet.Desired{Statuses: exportStatus(ctx, m, key, conditions[m.Name])}
		for _, sequence := range plan.Objects[m.Name] {
			wish.Beside = append(wish.Beside, clientObjects(sequence))
		}
		return wish, true
	})
	return ctrl.Result{}, unlessStale(r.report(ctx, key, plan, outcomes))
}

// exportStatus is what is said on a member's own ServiceExport.
func exportStatus(ctx context.Context, m member, key federation.ServiceKey, conditions []metav1.Condition) []client.Object {
	export := &mcsv1beta1.ServiceExport{}
	if len(conditions) == 0 || !m.get(ctx, key.Namespace, key.Name, export) {
		return nil
	}
	for i := range conditions {
		conditions[i].ObservedGeneration = export.Generation
	}
	said := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	for _, c := range mergeConditions(export.Status.Conditions, conditions...) {
		if slices.ContainsFunc(conditions, func(ours metav1.Condition) bool { return ours.Type == c.Type }) {
			said.Status.Conditions = append(said.Status.Conditions, c)
		}
	}
	return []client.Object{said}
}

// clientObjects is the view of rendered objects that clients need; every rendered object has it.
func clientObjects(objects []runtime.Object) []client.Object {
	out := make([]client.Object, 0, len(objects))
	for _, o := range objects {
		if typed, ok := o.(client.Object); ok {
			out = append(out, typed)
		}
	}
	return out
}

// report keeps the hub's own ServiceImport, which is also the memory of who exports.
func (r *serviceReconciler) report(ctx context.Context, key federation.ServiceKey, plan federation.ServicePlan, outcomes map[string]error) error {
	current := &mcsv1beta1.ServiceImport{}
	err := r.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, current)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	exists := err == nil
	switch {
	case plan.HubImport == nil && (!exists || !federation.IsOurs(current)):
		return nil
	case plan.HubImport == nil:
		return client.IgnoreNotFound(r.Delete(ctx, current, client.Preconditions{UID: &current.UID}))
	case exists && !federation.IsOurs(current):
		// What they wrote is left alone, also its status.
		r.events.Eventf(current, nil, corev1.EventTypeWarning, v1alpha1.ReasonForeignObject, "Import", "this ServiceImport was not written by Isthmus and is left as it is; routes use what members export of %s: delete it, and Isthmus writes its own", key)
		return nil
	}
	if current, err = r.writeHubImport(ctx, plan.HubImport, current, exists); err != nil || current == nil {
		return err
	}
	changed := current.DeepCopy()
	changed.Status.Clusters = nil
	for _, cluster := range plan.Import.Clusters {
		changed.Status.Clusters = append(changed.Status.Clusters, mcsv1beta1.ClusterStatus{Cluster: cluster})
	}
	changed.Status.Conditions = mergeConditions(current.Status.Conditions, importReady(current.Generation, plan, outcomes))
	return patchStatus(ctx, r.Client, current, changed)
}

// writeHubImport returns the import as it is now; nil where the hub has no such namespace, and so nobody there
// who could refer to it.
func (r *serviceReconciler) writeHubImport(ctx context.Context, desired, current *mcsv1beta1.ServiceImport, exists bool) (*mcsv1beta1.ServiceImport, error) {
	if !exists {
		created := desired.DeepCopy()
		err := r.Create(ctx, created, client.FieldOwner(v1alpha1.FieldOwner))
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return nil, client.IgnoreAlreadyExists(err)
		}
		return created, nil
	}
	changed := current.DeepCopy()
	changed.Spec, changed.Labels, changed.Annotations = desired.Spec, merged(changed.Labels, desired.Labels), merged(changed.Annotations, desired.Annotations)
	if same(current, changed) {
		return current, nil
	}
	return changed, r.Update(ctx, changed, client.FieldOwner(v1alpha1.FieldOwner))
}

func importReady(generation int64, plan federation.ServicePlan, outcomes map[string]error) metav1.Condition {
	ready := metav1.Condition{Type: string(mcsv1beta1.ServiceImportConditionReady), Status: metav1.ConditionTrue,
		Reason: string(mcsv1beta1.ServiceImportReasonReady), Message: "imported in every member that has the namespace",
		ObservedGeneration: generation}
	var messages []string
	for _, cluster := range plan.Import.Clusters {
		if waiting := plan.Waiting[cluster]; waiting != "" {
			messages = append(messages, waiting)
		}
	}
	if err := failures(outcomes); err != nil {
		messages = append(messages, err.Error())
	}
	if len(messages) > 0 {
		ready.Status, ready.Reason = metav1.ConditionFalse, string(mcsv1beta1.ServiceImportReasonPending)
		ready.Message = strings.Join(messages, "; ")
	}
	return ready
}
