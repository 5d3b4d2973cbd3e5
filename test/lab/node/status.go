// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// snapshot is all that a pod's status is computed from.
type snapshot struct {
	pod       *corev1.Pod // with the status as the API server has it
	nodeIP    string
	podIP     string
	startTime metav1.Time
	stage     stage
	message   string
	inits     []containerSnapshot
	mains     []containerSnapshot
	now       metav1.Time
}

type containerSnapshot struct {
	status      corev1.ContainerStatus
	restartable bool // a sidecar
}

// snapshot takes what the status says from the pod, at one moment.
func (p *pod) snapshot() snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := snapshot{pod: p.latest, nodeIP: p.agent.NodeIP, startTime: p.startTime, stage: p.phase, message: p.message,
		now: metav1.NewTime(p.agent.clock.Now())}
	if p.ip.IsValid() {
		s.podIP = p.ip.String()
	}
	for _, c := range p.containers {
		one := containerSnapshot{restartable: c.restartable, status: *c.status()}
		if c.init {
			s.inits = append(s.inits, one)
		} else {
			s.mains = append(s.mains, one)
		}
	}
	return s
}

// status is the container's; the caller holds the pod's lock.
func (c *container) status() *corev1.ContainerStatus {
	started := c.started
	s := &corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: imageName(c.spec.Image), RestartCount: c.restarts,
		State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(), Started: &started,
		Ready: c.ready && c.pod.phase < stageEnding,
	}
	if c.init && !c.restartable {
		s.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
	}
	switch {
	case c.state.Running != nil:
		s.ContainerID = c.id()
	case c.state.Terminated != nil:
		s.ContainerID = c.state.Terminated.ContainerID
	case c.last.Terminated != nil:
		s.ContainerID = c.last.Terminated.ContainerID
	}
	return s
}

// podStatus computes a pod's status. What it does not decide (the QoS class, conditions of others)
// it takes over from the status that the API server has.
func podStatus(s snapshot) corev1.PodStatus {
	out := *s.pod.Status.DeepCopy()
	out.HostIP, out.HostIPs = s.nodeIP, []corev1.HostIP{{IP: s.nodeIP}}
	out.PodIP, out.PodIPs = s.podIP, nil
	if s.podIP != "" {
		out.PodIPs = []corev1.PodIP{{IP: s.podIP}}
	}
	out.StartTime = &s.startTime
	out.InitContainerStatuses, out.ContainerStatuses = statuses(s.inits), statuses(s.mains)
	out.Phase = phase(s)
	out.ObservedGeneration = s.pod.Generation
	setConditions(&out, s)
	return out
}

func statuses(list []containerSnapshot) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, c := range list {
		out = append(out, c.status)
	}
	return out
}

// phase follows kubelet's rules:
//
//	init containers not done       Pending, Failed when one failed for good
//	a main one never ran           Pending
//	one runs, or will run again    Running
//	all ended for good             Succeeded, Failed when one failed
func phase(s snapshot) corev1.PodPhase {
	if p := s.pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return p // for good
	}
	failed := anyFailed(s.mains) || anyFailed(s.inits)
	if s.stage == stageEnded {
		if failed {
			return corev1.PodFailed
		}
		return corev1.PodSucceeded
	}
	if s.stage < stageRunning {
		return corev1.PodPending
	}
	for _, c := range s.mains {
		if c.status.State.Waiting != nil && c.status.LastTerminationState.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

// anyFailed says whether a container ended badly. A sidecar's end says nothing: it is killed last.
func anyFailed(list []containerSnapshot) bool {
	for _, c := range list {
		end := c.status.State.Terminated
		if !c.restartable && end != nil && end.ExitCode != 0 {
			return true
		}
	}
	return false
}

func setConditions(out *corev1.PodStatus, s snapshot) {
	running := s.stage >= stageRunning && s.stage < stageEnded
	ready := running && s.stage != stageEnding
	for _, c := range append(append([]containerSnapshot{}, s.mains...), s.inits...) {
		ready = ready && c.status.Ready
	}
	gates := true
	for _, gate := range s.pod.Spec.ReadinessGates {
		gates = gates && conditionTrue(s.pod.Status.Conditions, gate.ConditionType)
	}
	reason := func(ok bool, why string) string {
		if ok {
			return ""
		}
		return why
	}
	done := ""
	if s.stage >= stageEnding {
		done = "PodCompleted"
	}
	unready := done
	if unready == "" {
		unready = "ContainersNotReady"
	}
	set := func(kind corev1.PodConditionType, ok bool, why, message string) {
		setCondition(out, corev1.PodCondition{Type: kind, Status: boolStatus(ok), Reason: reason(ok, why), Message: message}, s.now)
	}
	set(corev1.PodReadyToStartContainers, s.podIP != "" && s.stage != stageEnded, done, s.message)
	set(corev1.PodInitialized, s.stage >= stageRunning, "ContainersNotInitialized", "")
	set(corev1.ContainersReady, ready, unready, "")
	if ready && !gates {
		unready = "ReadinessGatesNotReady"
	}
	set(corev1.PodReady, ready && gates, unready, "")
	set(corev1.PodScheduled, true, "", "")
}

func conditionTrue(list []corev1.PodCondition, kind corev1.PodConditionType) bool {
	for _, c := range list {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func boolStatus(ok bool) corev1.ConditionStatus {
	if ok {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// setCondition replaces the condition of that type; its transition time changes with its status only.
func setCondition(out *corev1.PodStatus, next corev1.PodCondition, now metav1.Time) {
	next.LastTransitionTime = now
	for i, c := range out.Conditions {
		if c.Type != next.Type {
			continue
		}
		if c.Status == next.Status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		next.ObservedGeneration = c.ObservedGeneration
		out.Conditions[i] = next
		return
	}
	out.Conditions = append(out.Conditions, next)
}

// writeStatus writes the pod's status each time that it changed, until ctx ends or the pod is gone.
// Only the newest status matters: what changes during a write is written next.
func (p *pod) writeStatus(ctx context.Context) {
	retry := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.dirty:
		}
		err := p.writeOnce(ctx)
		if apierrors.IsNotFound(err) || ctx.Err() != nil {
			return
		}
		// Also a conflict is tried again: it may be another writer. Where it is another pod of that name, ctx ends soon.
		if err == nil {
			retry = 0
			continue
		}
		p.agent.log.Warn("a pod's status was not written", "pod", p.name(), "error", err)
		retry = min(max(2*retry, 100*time.Millisecond), 5*time.Second)
		if !wait(ctx, p.agent.clock, retry) {
			return
		}
		p.touch()
	}
}

// writeOnce patches the status if it differs from the API server's.
func (p *pod) writeOnce(ctx context.Context) error {
	s := p.snapshot()
	want := podStatus(s)
	patch, err := statusPatch(s.pod, want)
	if err != nil || patch == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	written, err := p.agent.client.CoreV1().Pods(s.pod.Namespace).
		Patch(ctx, s.pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "status")
	if err != nil {
		return err
	}
	p.wrote(written)
	return nil
}

// newer says whether a is a later version of an object than b.
func newer(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order > 0
}

// wrote remembers the written status, so that the next patch is against it and not against what the
// watch will bring a moment later.
func (p *pod) wrote(written *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if newer(written, p.latest) {
		p.latest = written
	}
}

// statusPatch is the difference between the pod's status and the wanted one, valid for this very pod
// (by its uid) only; nil when there is none. Comparing what is sent, not the values, leaves out what
// the API cannot say, such as fractions of seconds.
func statusPatch(pod *corev1.Pod, want corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: pod.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{Status: want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		return nil, nil
	}
	fields["metadata"] = map[string]any{"uid": pod.UID}
	return json.Marshal(fields)
}
