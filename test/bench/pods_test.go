// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/labtest"
)

const hundred = 100

// TestAHundredPods measures how long one node takes to start a hundred pods of one Deployment, and to stop them. It works on the
// hub, which has the least to do.
func TestAHundredPods(t *testing.T) {
	hub := labtest.Cluster(t, "hub")
	labels := map[string]string{"app": "hundred"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hundred", Namespace: metav1.NamespaceDefault},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(hundred)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "helloworld", Env: []corev1.EnvVar{{Name: "LAME_DUCK", Value: "0s"}}}}},
			},
		},
	}
	began := time.Now()
	require.NoError(t, hub.Create(t.Context(), deployment))
	t.Cleanup(func() { _ = hub.Delete(context.Background(), deployment) })
	labtest.Eventually(t, func() error {
		if err := hub.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment); err != nil {
			return err
		}
		if n := deployment.Status.ReadyReplicas; n < hundred {
			return fmt.Errorf("%d of %d are ready", n, hundred)
		}
		return nil
	})
	t.Logf("%d pods ready after %s", hundred, time.Since(began).Round(10*time.Millisecond))
	began = time.Now()
	require.NoError(t, hub.Delete(t.Context(), deployment, client.PropagationPolicy(metav1.DeletePropagationForeground)))
	labtest.Eventually(t, func() error {
		var left corev1.PodList
		if err := hub.List(t.Context(), &left, client.MatchingLabels(labels)); err != nil {
			return err
		}
		if n := len(left.Items); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	t.Logf("%d pods gone after %s", hundred, time.Since(began).Round(10*time.Millisecond))
}
