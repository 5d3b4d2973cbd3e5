// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// loadBalancer looks at the addresses; that they are served is kube-proxy's part, and test/e2e's.
func (r *rig) loadBalancer(t *testing.T) {
	services := r.client.CoreV1().Services(testNS)
	add := func(name string, class *string) *corev1.Service {
		service, err := services.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: class,
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = services.Delete(context.Background(), name, metav1.DeleteOptions{}) })
		return service
	}
	has := func(name, want string) {
		require.Eventually(t, func() bool {
			service, err := services.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && statusAddress(service) == netip.MustParseAddr(want)
		}, patience, 10*time.Millisecond, "%s has not %s", name, want)
	}
	other := add("lb-other", ptr.To("example.com/other"))
	one := add("lb-one", nil)
	has("lb-one", "10.233.250.1")
	add("lb-two", nil)
	has("lb-two", "10.233.250.2")
	patch := []byte(`{"spec":{"type":"ClusterIP"}}`)
	_, err := services.Patch(t.Context(), one.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		service, err := services.Get(t.Context(), one.Name, metav1.GetOptions{})
		return err == nil && len(service.Status.LoadBalancer.Ingress) == 0
	}, patience, 10*time.Millisecond, "the address is not taken back")
	add("lb-three", nil)
	has("lb-three", "10.233.250.1")
	other, err = services.Get(t.Context(), other.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, other.Status.LoadBalancer.Ingress, "a class is another controller's")
}
