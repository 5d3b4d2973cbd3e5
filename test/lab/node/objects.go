// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// objects is what volumes and environments are made from.
type objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token asks for a token of the pod's service account, bound to the pod.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (*authenticationv1.TokenRequestStatus, error)
}

// apiObjects reads from the API server. It has no cache: a pod is started seldom, and a watch over
// every Secret of the cluster would cost more than it saves.
type apiObjects struct{ client kubernetes.Interface }

func (a apiObjects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return a.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a apiObjects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return a.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a apiObjects) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (*authenticationv1.TokenRequestStatus, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	out, err := a.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &out.Status, nil
}

// recentObjects answers from what it read a moment ago: the pods of a namespace share most of what
// they mount, the cluster's root certificate above all.
type recentObjects struct {
	objects
	clock      clock.PassiveClock
	configMaps recent[*corev1.ConfigMap]
	secrets    recent[*corev1.Secret]
}

func newRecentObjects(o objects, c clock.PassiveClock) *recentObjects {
	return &recentObjects{objects: o, clock: c}
}

func (r *recentObjects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return r.configMaps.get(namespace+"/"+name, r.clock.Now(), func() (*corev1.ConfigMap, error) { return r.objects.ConfigMap(ctx, namespace, name) })
}

func (r *recentObjects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return r.secrets.get(namespace+"/"+name, r.clock.Now(), func() (*corev1.Secret, error) { return r.objects.Secret(ctx, namespace, name) })
}

// recent remembers answers for half of the time between two refreshes.
type recent[T any] struct {
	mu    sync.Mutex
	known map[string]remembered[T]
}

type remembered[T any] struct {
	at    time.Time
	value T
	err   error
}

func (r *recent[T]) get(key string, now time.Time, read func() (T, error)) (T, error) {
	stale := func(_ string, one remembered[T]) bool { return now.Sub(one.at) >= refreshEvery/2 }
	r.mu.Lock()
	maps.DeleteFunc(r.known, stale)
	one, known := r.known[key]
	r.mu.Unlock()
	if known {
		return one.value, one.err
	}
	one = remembered[T]{at: now}
	one.value, one.err = read()
	if one.err != nil && !apierrors.IsNotFound(one.err) {
		return one.value, one.err // one that was cut off says nothing to the next who asks
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]remembered[T]{}
	}
	r.known[key] = one
	return one.value, one.err
}

// optionalObject calls get and turns "not found" into nil where the reference is optional.
func optionalObject[T any](optional *bool, get func() (*T, error)) (*T, error) {
	object, err := get()
	if err == nil {
		return object, nil
	}
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil, nil
	}
	return nil, err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
