// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// bindRetry is when a pod that the node may not take is looked at again.
const bindRetry = 5 * time.Second

// bind gives every pod that has no node to this one until ctx ends: the cluster has one node and no
// scheduler.
func (a *agent) bind(ctx context.Context) {
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, bindRetry))
	informer := a.podInformer(fields.OneTermEqualSelector("spec.nodeName", ""))
	add := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			queue.Add(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
		}
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	context.AfterFunc(ctx, queue.ShutDown)
	go informer.RunWithContext(ctx)
	for {
		key, shutdown := queue.Get()
		if shutdown {
			return
		}
		a.bindNext(ctx, queue, informer.GetIndexer(), key)
		queue.Done(key)
	}
}

func (a *agent) bindNext(ctx context.Context, queue workqueue.TypedRateLimitingInterface[types.NamespacedName], pods cache.Indexer, key types.NamespacedName) {
	o, exists, err := pods.GetByKey(key.String())
	if err != nil || !exists {
		queue.Forget(key)
		return
	}
	again, err := a.bindPod(ctx, o.(*corev1.Pod))
	switch {
	case err != nil && ctx.Err() == nil:
		a.log.Warn("a pod was not bound", "pod", key.String(), "error", err)
		queue.AddRateLimited(key)
	case again:
		queue.AddAfter(key, bindRetry)
	default:
		queue.Forget(key)
	}
}

// bindPod binds a pod; true when it has to wait for the node or for itself to change.
func (a *agent) bindPod(ctx context.Context, pod *corev1.Pod) (again bool, err error) {
	if pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 || pod.Spec.SchedulerName != corev1.DefaultSchedulerName {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	node, err := a.client.CoreV1().Nodes().Get(ctx, a.NodeName, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	if why := refuses(node, pod); why != "" {
		return true, a.markUnschedulable(ctx, pod, why)
	}
	err = a.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: a.NodeName},
	}, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return false, nil
	}
	return false, err
}

// refuses says why a node does not take a pod; empty when it does. Resources are not counted: all
// nodes of the lab share one machine.
func refuses(node *corev1.Node, pod *corev1.Pod) string {
	if node.Spec.Unschedulable {
		return "the only node is cordoned: `kubectl uncordon " + node.Name + "`"
	}
	match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	if err != nil {
		return "the pod's node affinity cannot be read: " + err.Error()
	}
	if !match {
		return "the only node does not match the pod's node selector or affinity"
	}
	return ""
}

// markUnschedulable says in the pod's status, and by an event when it changes, why the pod waits.
func (a *agent) markUnschedulable(ctx context.Context, pod *corev1.Pod, why string) error {
	want := *pod.Status.DeepCopy()
	setCondition(&want, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why,
	}, metav1.NewTime(a.clock.Now()))
	patch, err := statusPatch(pod, want)
	if err != nil || patch == nil {
		return err
	}
	a.events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", why)
	_, err = a.client.CoreV1().Pods(pod.Namespace).
		Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "status")
	return err
}
