// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/alert"
)

// webhookReconciler answers: can a web hook be told of alerts? One that is new or was changed gets a message at once, so
// that whoever set it up sees that it arrives, and does not learn at night that it does not.
type webhookReconciler struct {
	client.Client
	events  events.EventRecorder
	teller  *alert.Sender
	started time.Time
	// known is the resource version that was last looked at. One worker uses it.
	known map[string]string
}

func (r *webhookReconciler) setup(mgr ctrl.Manager) error {
	r.started = time.Now()
	return ctrl.NewControllerManagedBy(mgr).Named("alert-webhook").WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		For(&corev1.Secret{}, builder.WithPredicates(predicate.NewPredicateFuncs(alert.IsWebhook))).Complete(r)
}

// Reconcile looks at one web hook.
func (r *webhookReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	secret := &corev1.Secret{}
	if err := r.Get(ctx, req.NamespacedName, secret); err != nil {
		if apierrors.IsNotFound(err) {
			delete(r.known, req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	was, known := r.known[req.Name]
	if r.known[req.Name] = secret.ResourceVersion; was == secret.ResourceVersion {
		return ctrl.Result{}, nil
	}
	if err := alert.Validate(secret); err != nil {
		r.events.Eventf(secret, nil, corev1.EventTypeWarning, v1alpha1.ReasonWebhookInvalid, "Alert", "nobody is told: %v", err)
		return ctrl.Result{}, nil
	}
	// What was there before this process was told then.
	if known || secret.CreationTimestamp.After(r.started) {
		r.events.Eventf(secret, nil, corev1.EventTypeNormal, v1alpha1.ReasonWebhookReady, "Alert", "it is told of alerts, and a first message is on its way")
		r.teller.Ready(secret)
	}
	return ctrl.Result{}, nil
}
