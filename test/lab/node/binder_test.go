// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
)

func TestAPodThatWaitsForANodeSaysWhyOnce(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"},
		Spec:       corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, NodeSelector: map[string]string{"disk": "ssd"}},
	}
	events := record.NewFakeRecorder(2)
	a := &agent{Config: Config{NodeName: "n"}, client: fake.NewClientset(node, pod), events: events, clock: clock.RealClock{}}
	for range 2 {
		again, err := a.bindPod(t.Context(), pod)
		require.NoError(t, err)
		require.True(t, again)
		pod, err = a.client.CoreV1().Pods("shop").Get(t.Context(), "web", metav1.GetOptions{})
		require.NoError(t, err)
	}
	require.Equal(t, corev1.PodReasonUnschedulable, pod.Status.Conditions[0].Reason)
	require.Len(t, events.Events, 1)
	require.Contains(t, <-events.Events, "FailedScheduling the only node does not match")
}
