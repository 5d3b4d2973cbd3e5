// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

func TestTheNthCallFails(t *testing.T) {
	c := Wrap(fake.NewFakeClient())
	c.Inject(Rule{Verb: Create, Kind: "ConfigMap", Name: "a*", Skip: 1, Times: 1, Err: ErrUnavailable})
	require.NoError(t, c.Create(t.Context(), configMap("a1")))
	require.NoError(t, c.Create(t.Context(), configMap("b")))
	require.ErrorIs(t, c.Create(t.Context(), configMap("a2")), ErrUnavailable)
	require.NoError(t, c.Create(t.Context(), configMap("a3")))
	require.Equal(t, Call{Create, "ConfigMap", "shop", "a2", ErrUnavailable}, c.Writes()[2])
}

func TestTheAnswerOfAWriteThatLandedIsLost(t *testing.T) {
	c := Wrap(fake.NewFakeClient())
	c.Inject(Rule{Verb: Create, Err: ErrTimeout, AfterWrite: true})
	require.ErrorIs(t, c.Create(t.Context(), configMap("a")), ErrTimeout)
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "a"}, &corev1.ConfigMap{}))
}

func TestAHeldCallEndsWithItsCaller(t *testing.T) {
	c := Wrap(fake.NewFakeClient())
	released := make(chan struct{})
	c.Inject(Rule{Verb: Create, Hold: released, Times: 2})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Create(ctx, configMap("a")), context.Canceled)
	close(released)
	require.NoError(t, c.Create(t.Context(), configMap("a")))
}

func TestHealedClientsBehave(t *testing.T) {
	c := Wrap(fake.NewFakeClient())
	c.Inject(Rule{Err: ErrConflict})
	require.True(t, apierrors.IsConflict(c.Delete(t.Context(), configMap("a"))))
	c.Heal()
	require.True(t, apierrors.IsNotFound(c.Delete(t.Context(), configMap("a"))))
	require.Len(t, c.Calls(), 2)
	c.Forget()
	require.Empty(t, c.Calls())
}
