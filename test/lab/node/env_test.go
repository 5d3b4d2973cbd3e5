// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

// fakeObjects are the objects of one namespace. Each token is new, and valid for an hour from now.
type fakeObjects struct {
	configMaps map[string]map[string]string
	secrets    map[string]map[string][]byte
	now        func() time.Time
	tokens     int
	tokenErr   error
}

func (f *fakeObjects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	data, ok := f.configMaps[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (f *fakeObjects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, ok := f.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return &corev1.Secret{Data: data}, nil
}

func (f *fakeObjects) Token(_ context.Context, _ *corev1.Pod, audience string, seconds int64) (*authenticationv1.TokenRequestStatus, error) {
	if f.tokenErr != nil {
		return nil, f.tokenErr
	}
	f.tokens++
	return &authenticationv1.TokenRequestStatus{
		Token:               fmt.Sprintf("%s-%d", audience, f.tokens),
		ExpirationTimestamp: metav1.NewTime(f.now().Add(time.Duration(seconds) * time.Second)),
	}, nil
}

func TestExpandFollowsTheRulesOfCoreV1(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "2", "EMPTY": ""}
	for in, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)$(B)":      "12",
		"x$(A)y":        "x1y",
		"$(NONE)":       "$(NONE)",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$1",
		"$A":            "$A",
		"$":             "$",
		"a$":            "a$",
		"$(A":           "$(A",
		"$()":           "$()",
		"[$(EMPTY)]":    "[]",
		"$(A)) and (A)": "1) and (A)",
		"$(A $(B)":      "$(A $(B)",
	} {
		require.Equal(t, want, expand(in, vars), in)
	}
}

func testEnvironment(o objects) *environment {
	return &environment{
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"app": "x"}},
			Spec:       corev1.PodSpec{NodeName: "node-1", ServiceAccountName: "who"},
		},
		podIP: "10.232.2.9", nodeIP: "10.231.0.12", objects: o,
		allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		base:        []corev1.EnvVar{{Name: "HOSTNAME", Value: "p"}, {Name: "PATH", Value: "/bin"}},
	}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnvironmentInOrder(t *testing.T) {
	o := &fakeObjects{
		configMaps: map[string]map[string]string{"cm": {"color": "blue", "HOSTNAME": "from-map"}},
		secrets:    map[string]map[string][]byte{"s": {"key": []byte("k")}},
	}
	c := &corev1.Container{
		EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: ptr.To(true)}},
		},
		Env: []corev1.EnvVar{
			{Name: "NAME", ValueFrom: field("metadata.name")},
			{Name: "LABEL", ValueFrom: field("metadata.labels['app']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
			{Name: "IPS", Value: "$(IP) before"},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "HOST", ValueFrom: field("status.hostIP")},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "GONE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "other", Optional: ptr.To(true)}}},
			{Name: "URL", Value: "http://$(IP):80/$(color)"},
		},
	}
	got, err := testEnvironment(o).list(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, []string{
		"HOSTNAME=from-map", "PATH=/bin", "color=blue", "S_key=k", "NAME=p", "LABEL=x", "NODE=node-1", "SA=who",
		"IPS=$(IP) before", "IP=10.232.2.9", "HOST=10.231.0.12", "CPU=2", "URL=http://10.232.2.9:80/blue",
	}, got)
}

func TestEnvironmentSaysWhatIsMissing(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"cm": {}}}
	key := &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "color"}
	_, err := testEnvironment(o).list(t.Context(), &corev1.Container{
		Env: []corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: key}}}})
	require.EqualError(t, err, `env COLOR: no key "color" in ConfigMap cm`)
	key.Name = "none"
	_, err = testEnvironment(o).list(t.Context(), &corev1.Container{
		Env: []corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: key}}}})
	require.EqualError(t, err, `env COLOR: configmaps "none" not found`)
}
