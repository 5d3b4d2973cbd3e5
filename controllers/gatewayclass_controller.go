// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// gatewayClassReconciler answers: is this class ours, and can it be served?
type gatewayClassReconciler struct {
	client.Client
}

func (r *gatewayClassReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("gatewayclass").For(&gatewayv1.GatewayClass{}).Complete(r)
}

// Reconcile writes the class's Accepted condition.
func (r *gatewayClassReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var class gatewayv1.GatewayClass
	if err := r.Get(ctx, req.NamespacedName, &class); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if class.Spec.ControllerName != v1alpha1.ControllerName {
		return ctrl.Result{}, nil
	}
	accepted := metav1.Condition{Type: string(gatewayv1.GatewayClassConditionStatusAccepted), Status: metav1.ConditionTrue,
		Reason: string(gatewayv1.GatewayClassReasonAccepted), Message: "Gateways of this class are served by the member clusters",
		ObservedGeneration: class.Generation}
	if class.Spec.ParametersRef != nil {
		accepted.Status, accepted.Reason = metav1.ConditionFalse, string(gatewayv1.GatewayClassReasonInvalidParameters)
		accepted.Message = "this version takes no parameters: remove spec.parametersRef; its Gateways are served without them"
	}
	changed := class.DeepCopy()
	changed.Status.Conditions = mergeConditions(class.Status.Conditions, accepted)
	return ctrl.Result{}, unlessStale(patchStatus(ctx, r.Client, &class, changed))
}
