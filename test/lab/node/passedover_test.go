// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

func TestWhatANodeDoesNotDoIsSaid(t *testing.T) {
	events := record.NewFakeRecorder(5)
	a := &agent{Config: Config{StateDir: t.TempDir()}, ctx: t.Context(), events: events, clock: clock.RealClock{}}
	p := newPod(a, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1"}, Spec: corev1.PodSpec{
		HostNetwork: true, ActiveDeadlineSeconds: ptr.To(int64(5)),
		Containers: []corev1.Container{{Name: "a", Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 81, HostPort: 8081}}}},
	}})
	debugged := p.spec.DeepCopy()
	debugged.ResourceVersion = "2"
	debugged.Spec.EphemeralContainers = make([]corev1.EphemeralContainer, 1)
	p.update(debugged)
	p.update(debugged.DeepCopy())
	require.Len(t, events.Events, 1)
	require.Contains(t, <-events.Events, "ephemeral")
	p.end(errShutdown)
	require.False(t, p.prepare())
	require.Len(t, events.Events, 2)
	require.Contains(t, <-events.Events, "host port 8081 is not opened")
	require.Contains(t, <-events.Events, "activeDeadlineSeconds")
	require.Empty(t, passedOver(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}}))
}
