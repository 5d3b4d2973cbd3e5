// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"maps"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
