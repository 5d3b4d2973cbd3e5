// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

func running(isReady bool) containerSnapshot {
	return containerSnapshot{status: corev1.ContainerStatus{Name: "c", Ready: isReady,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
}

func ended(code int32) containerSnapshot {
	return containerSnapshot{status: corev1.ContainerStatus{Name: "c", Ready: code == 0,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
}

func waiting(ranBefore bool) containerSnapshot {
	c := containerSnapshot{status: corev1.ContainerStatus{Name: "c",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}}
	if ranBefore {
		c.status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
	}
	return c
}

func sidecar(c containerSnapshot) containerSnapshot {
	c.restartable = true
	return c
}

func TestPhaseAndReadiness(t *testing.T) {
	type list = []containerSnapshot
	for name, c := range map[string]struct {
		stage        stage
		inits, mains list
		phase        corev1.PodPhase
		ready        bool
	}{
		"volumes are being made":        {stagePreparing, nil, list{waiting(false)}, corev1.PodPending, false},
		"init containers run":           {stageInitializing, list{running(false)}, list{waiting(false)}, corev1.PodPending, false},
		"all run, all ready":            {stageRunning, list{ended(0)}, list{running(true), running(true)}, corev1.PodRunning, true},
		"all run, one not ready":        {stageRunning, nil, list{running(true), running(false)}, corev1.PodRunning, false},
		"a sidecar is not ready":        {stageRunning, list{sidecar(running(false))}, list{running(true)}, corev1.PodRunning, false},
		"one never ran":                 {stageRunning, nil, list{running(true), waiting(false)}, corev1.PodPending, false},
		"one is in back-off":            {stageRunning, nil, list{running(true), waiting(true)}, corev1.PodRunning, false},
		"being deleted":                 {stageEnding, nil, list{running(true)}, corev1.PodRunning, false},
		"all ended well":                {stageEnded, nil, list{ended(0)}, corev1.PodSucceeded, false},
		"one ended badly":               {stageEnded, nil, list{ended(0), ended(3)}, corev1.PodFailed, false},
		"an init container ended badly": {stageEnded, list{ended(1)}, list{waiting(false)}, corev1.PodFailed, false},
		"a sidecar was killed last":     {stageEnded, list{sidecar(ended(137))}, list{ended(0)}, corev1.PodSucceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := podStatus(snapshot{pod: &corev1.Pod{}, stage: c.stage, inits: c.inits, mains: c.mains, podIP: "10.232.2.2"})
			require.Equal(t, c.phase, got.Phase)
			require.Equal(t, c.ready, conditionTrue(got.Conditions, corev1.PodReady))
			require.Equal(t, c.ready, conditionTrue(got.Conditions, corev1.ContainersReady))
		})
	}
}

func TestReadinessGatesHoldReadyBack(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}}}
	s := snapshot{pod: pod, stage: stageRunning, mains: []containerSnapshot{running(true)}}
	got := podStatus(s)
	require.True(t, conditionTrue(got.Conditions, corev1.ContainersReady))
	require.False(t, conditionTrue(got.Conditions, corev1.PodReady))
	pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/lb", Status: corev1.ConditionTrue}}
	got = podStatus(s)
	require.True(t, conditionTrue(got.Conditions, corev1.PodReady))
	require.True(t, conditionTrue(got.Conditions, "example.com/lb"), "others' conditions stay")
}

func TestTransitionTimeChangesWithTheStatusOnly(t *testing.T) {
	first, second := metav1.NewTime(time.Unix(100, 0)), metav1.NewTime(time.Unix(200, 0))
	pod := &corev1.Pod{}
	pod.Status = podStatus(snapshot{pod: pod, stage: stageRunning, mains: []containerSnapshot{running(false)}, now: first})
	pod.Status = podStatus(snapshot{pod: pod, stage: stageRunning, mains: []containerSnapshot{running(true)}, now: second})
	times := map[corev1.PodConditionType]metav1.Time{}
	for _, c := range pod.Status.Conditions {
		times[c.Type] = c.LastTransitionTime
	}
	require.Equal(t, second, times[corev1.PodReady])
	require.Equal(t, first, times[corev1.PodInitialized])
}

func TestNoPatchWhenNothingChanged(t *testing.T) {
	now := metav1.NewTime(time.Unix(100, 500))
	s := snapshot{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, stage: stageRunning,
		mains: []containerSnapshot{running(true)}, startTime: now, now: now}
	want := podStatus(s)
	patch, err := statusPatch(s.pod, want)
	require.NoError(t, err)
	require.Contains(t, string(patch), `"uid":"u"`)

	// What the API server gives back knows no fractions of seconds.
	data, err := json.Marshal(want)
	require.NoError(t, err)
	s.pod = s.pod.DeepCopy()
	require.NoError(t, json.Unmarshal(data, &s.pod.Status))
	patch, err = statusPatch(s.pod, podStatus(s))
	require.NoError(t, err)
	require.Nil(t, patch)
}

func TestAddressesAreGivenAgainAsLateAsPossible(t *testing.T) {
	pool := newAddressPool(netip.MustParsePrefix("10.232.2.0/29"))
	var got []string
	for range 5 {
		ip, err := pool.take()
		require.NoError(t, err)
		got = append(got, ip.String())
	}
	require.Equal(t, []string{"10.232.2.2", "10.232.2.3", "10.232.2.4", "10.232.2.5", "10.232.2.6"}, got)
	_, err := pool.take()
	require.ErrorIs(t, err, errNoAddress)
	pool.release(netip.MustParseAddr("10.232.2.3"))
	pool.release(netip.MustParseAddr("10.232.2.5"))
	ip, err := pool.take()
	require.NoError(t, err)
	require.Equal(t, "10.232.2.3", ip.String())
	pool.release(ip)
	ip, err = pool.take()
	require.NoError(t, err)
	require.Equal(t, "10.232.2.5", ip.String(), "the one just given back waits")
}

func TestBinderRefusesWhatDoesNotFit(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}}
	require.Empty(t, refuses(node, &corev1.Pod{}))
	require.Empty(t, refuses(node, &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}}}))
	require.Contains(t, refuses(node, &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: map[string]string{"disk": "hdd"}}}), "does not match")
	node.Spec.Unschedulable = true
	require.Contains(t, refuses(node, &corev1.Pod{}), "kubectl uncordon n")
}

func TestAStatusIsWrittenAgainAfterAConflict(t *testing.T) {
	spec := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "app", UID: "uid", ResourceVersion: "1"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}}}
	client := fake.NewClientset(spec)
	conflicts := 2
	client.PrependReactor("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		if conflicts--; conflicts >= 0 {
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "app", errors.New("another writer was quicker"))
		}
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	p := newPod(&agent{ctx: ctx, client: client, clock: clock.RealClock{}, log: slog.New(slog.DiscardHandler)}, spec)
	done := make(chan struct{})
	go func() { defer close(done); p.writeStatus(p.known) }()
	t.Cleanup(func() { cancel(); <-done })
	p.touch()
	require.Eventually(t, func() bool {
		now, err := client.CoreV1().Pods("ns").Get(ctx, "app", metav1.GetOptions{})
		return err == nil && len(now.Status.Conditions) > 0
	}, 2*time.Minute, 10*time.Millisecond)
}

func TestAPodHasOneGracePeriodForAllItsContainers(t *testing.T) {
	p := newPod(&agent{ctx: t.Context()}, &corev1.Pod{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To(int64(1000))}})
	grace, _ := p.grace()
	require.Equal(t, 1000*time.Second, grace, "while nobody asked for its end, as after a failed probe")
	p.asked = time.Now().Add(-900 * time.Second)
	grace, _ = p.grace()
	require.LessOrEqual(t, grace, 100*time.Second, "the others used it up")
}
