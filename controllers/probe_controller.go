// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

const (
	// probeSecret is the Secret in isthmus-system from which the tokens of probe routes are made.
	probeSecret = "isthmus-probe"
	// probeSecretKey is its key.
	probeSecretKey = "secret"
)

// probeReconciler answers: how is an import probed, and what do members hold for that?
type probeReconciler struct {
	client.Client
	gatherer
	triggers *triggers
	metrics  *metrics
}

func (r *probeReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("probe").WithOptions(concurrently).
		For(&mcsv1beta1.ServiceImport{}, builder.WithPredicates(specChanged)).
		Watches(&gatewayv1.HTTPRoute{}, handler.EnqueueRequestsFromMapFunc(importsReferredTo), builder.WithPredicates(specChanged)).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.ofSecret)).
		WatchesRawSource(&r.triggers.probes).
		Complete(r)
}

// importsReferredTo are the imports that a route refers to, or did: how they are probed may depend on it.
func importsReferredTo(_ context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range federation.ImportsOf(o.(*gatewayv1.HTTPRoute)) {
		out = append(out, requestFor(key))
	}
	return out
}

// ofSecret wakes all that is probed when the tokens are to be others: one that was made known must not stay good until
// something else happens.
func (r *probeReconciler) ofSecret(_ context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() != systemNamespace || o.GetName() != probeSecret {
		return nil
	}
	var out []reconcile.Request
	for _, key := range r.probes.probed() {
		out = append(out, requestFor(key))
	}
	return out
}

// Reconcile plans the probing of one import.
func (r *probeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	key := federation.ServiceKey{Namespace: req.Namespace, Name: req.Name}
	members, err := r.members(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	plan, token, err := r.plan(ctx, key, members)
	if err != nil {
		return ctrl.Result{}, err
	}
	if _, held := r.triggers.heldProbes.Load(key); plan.Probe != nil || held {
		fanOut(members, federation.ProbeOwner(key), func(m member) (fleet.Desired, bool) {
			wish := fleet.Desired{}
			for _, route := range plan.Objects[m.Name] {
				wish.Objects = append(wish.Objects, route)
			}
			return wish, true
		})
	}
	if plan.Probe != nil {
		r.triggers.heldProbes.Store(key, true)
	}
	r.probes.set(key, plan, token)
	if plan.Probe == nil {
		return ctrl.Result{}, r.forget(ctx, key)
	}
	return ctrl.Result{}, nil
}

// forget ends what is remembered of an import to which no route refers any more. Until one does, nobody asks how it is.
func (r *probeReconciler) forget(ctx context.Context, key federation.ServiceKey) error {
	routes, err := routesOfImport(ctx, r.hub, key)
	if err == nil && len(routes) == 0 {
		r.probes.forget(key)
		r.triggers.heldProbes.Delete(key)
	}
	return err
}

func (r *probeReconciler) plan(ctx context.Context, key federation.ServiceKey, members []member) (federation.ProbePlan, string, error) {
	snapshot, configured, err := r.probe(ctx, key, members)
	if err != nil || !configured {
		return federation.ProbePlan{}, "", err
	}
	secret, err := r.secret(ctx)
	if err != nil {
		return federation.ProbePlan{}, "", err
	}
	snapshot.Token = tokenOf(secret, key)
	started := time.Now()
	plan := federation.PlanProbe(snapshot)
	r.metrics.planned(nounProbe, started)
	return plan, snapshot.Token, nil
}

// tokenOf a service: whoever may read the routes of its namespace in a member learns no other's.
func tokenOf(secret []byte, key federation.ServiceKey) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(key.String()))
	return hex.EncodeToString(mac.Sum(nil))
}

// secret reads the Secret of the probes, and makes it where there is none. To have another, delete it.
func (r *probeReconciler) secret(ctx context.Context) ([]byte, error) {
	have := &corev1.Secret{}
	err := r.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: probeSecret}, have)
	switch {
	case err == nil && len(have.Data[probeSecretKey]) == 0:
		return nil, fmt.Errorf("the Secret %s/%s has no key %q, so nothing can be probed: delete it, and it is made anew",
			systemNamespace, probeSecret, probeSecretKey)
	case err == nil:
		return have.Data[probeSecretKey], nil
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	made := make([]byte, 32)
	_, _ = rand.Read(made) // it never fails
	return made, r.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: probeSecret,
		Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}}, Data: map[string][]byte{probeSecretKey: made}})
}
