// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/apimachinery/lease"
	nodeutil "k8s.io/component-helpers/node/util"
)

const (
	leaseSeconds = 40
	leaseRenew   = 10 * time.Second
	// statusCheck is how often the Node is compared with what it should be, statusEvery how often its
	// heartbeat is written though nothing changed.
	statusCheck = 10 * time.Second
	statusEvery = 5 * time.Minute
	maxPods     = 110
)

// capacity is what the node has to give: the machine's, which all nodes of the lab share.
func capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memoryBytes(), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
	}
}

// memoryBytes reads the machine's memory; 1 GiB when /proc does not say.
func memoryBytes() int64 {
	const otherwise = 1 << 30
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return otherwise
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return otherwise
}

// nodeLabels are those that the cloud's own nodes carry and people select by.
func nodeLabels(c Config) map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: c.NodeName, corev1.LabelOSStable: "linux", corev1.LabelArchStable: runtime.GOARCH,
	}
	if c.Region != "" {
		labels[corev1.LabelTopologyRegion] = c.Region
	}
	if c.Zone != "" {
		labels[corev1.LabelTopologyZone] = c.Zone
	}
	maps.Copy(labels, c.Labels)
	return labels
}

func nodeObject(c Config) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: c.NodeName, Labels: nodeLabels(c)},
		Spec:       corev1.NodeSpec{ProviderID: c.ProviderID, PodCIDR: c.PodCIDR.String(), PodCIDRs: []string{c.PodCIDR.String()}},
	}
}

// register creates the Node, trying until the API server is there or ctx ends.
func (a *agent) register(ctx context.Context) error {
	for {
		err := a.syncNode(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("register node %s: %w", a.NodeName, err)
		}
		a.log.Warn("the node is not registered yet", "error", err)
		wait(ctx, a.clock, 500*time.Millisecond)
	}
}

// keepAlive keeps the Node as it should be until ctx ends.
func (a *agent) keepAlive(ctx context.Context) {
	for wait(ctx, a.clock, statusCheck) {
		if err := a.syncNode(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("the node's status was not written", "error", err)
		}
	}
}

// syncNode creates the Node if it is not there, and writes its labels and status when they differ.
func (a *agent) syncNode(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	nodes := a.client.CoreV1().Nodes()
	now, err := nodes.Get(ctx, a.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		now, err = nodes.Create(ctx, nodeObject(a.Config), metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil {
		return err
	}
	if now, err = a.syncLabels(ctx, now); err != nil {
		return err
	}
	next := now.DeepCopy()
	if !a.setNodeStatus(ctx, &next.Status) {
		return nil
	}
	_, _, err = nodeutil.PatchNodeStatus(a.client.CoreV1(), types.NodeName(a.NodeName), now, next)
	return err
}

func (a *agent) syncLabels(ctx context.Context, now *corev1.Node) (*corev1.Node, error) {
	next := now.DeepCopy()
	changed := false
	for name, value := range nodeLabels(a.Config) {
		if next.Labels[name] != value {
			metav1.SetMetaDataLabel(&next.ObjectMeta, name, value)
			changed = true
		}
	}
	if !changed {
		return now, nil
	}
	return a.client.CoreV1().Nodes().Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
}

// setNodeStatus makes the status what it should be, and says whether it has to be written.
func (a *agent) setNodeStatus(ctx context.Context, s *corev1.NodeStatus) bool {
	now := metav1.NewTime(a.clock.Now())
	port := int32(0)
	if a.Serving != nil {
		port = ServerPort
	}
	changed := s.DaemonEndpoints.KubeletEndpoint.Port != port
	s.DaemonEndpoints.KubeletEndpoint.Port = port
	changed = changed || len(s.Addresses) == 0 || s.Addresses[0].Address != a.NodeIP || s.NodeInfo.KubeletVersion == ""
	s.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: a.NodeIP}, {Type: corev1.NodeHostName, Address: a.NodeName},
	}
	s.Capacity, s.Allocatable = a.allocatable, a.allocatable
	if s.NodeInfo.KubeletVersion == "" {
		s.NodeInfo = a.nodeInfo(ctx)
	}
	for _, want := range []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "NodeAgentReady", Message: "the lab's node agent runs"},
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "LabNode"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "LabNode"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "LabNode"},
	} {
		want.LastHeartbeatTime, want.LastTransitionTime = now, now
		i, have := nodeutil.GetNodeCondition(s, want.Type)
		if have == nil {
			s.Conditions, changed = append(s.Conditions, want), true
			continue
		}
		if have.Status != want.Status {
			changed = true
		} else {
			want.LastTransitionTime = have.LastTransitionTime
		}
		changed = changed || now.Sub(have.LastHeartbeatTime.Time) >= statusEvery
		s.Conditions[i] = want
	}
	return changed
}

func (a *agent) nodeInfo(context.Context) corev1.NodeSystemInfo {
	info := corev1.NodeSystemInfo{
		OperatingSystem: "linux", Architecture: runtime.GOARCH, OSImage: "Isthmus lab",
		ContainerRuntimeVersion: "isthmus-lab://1", KubeletVersion: "unknown",
	}
	// The node is as new as its control plane: there is no kubelet that could differ.
	if version, err := a.client.Discovery().ServerVersion(); err == nil {
		info.KubeletVersion = version.GitVersion
	}
	return info
}

// renewLease renews the node's lease until ctx ends: what tells the control plane that it is alive.
func (a *agent) renewLease(ctx context.Context) {
	owned := func(l *coordinationv1.Lease) error {
		node, err := a.client.CoreV1().Nodes().Get(ctx, a.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		return nil
	}
	lease.NewController(a.clock, a.client, a.NodeName, leaseSeconds, nil, leaseRenew, a.NodeName,
		corev1.NamespaceNodeLease, owned).Run(ctx)
}
