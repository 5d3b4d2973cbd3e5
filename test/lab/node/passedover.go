// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// passedOver names what a pod asks for and this node does not do, where the pod works without: whoever misses it has to hear of it.
func passedOver(pod *corev1.Pod) []string {
	var said []string
	var ports []string
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				ports = append(ports, fmt.Sprint(p.HostPort))
			}
		}
	}
	if len(ports) > 0 {
		said = append(said, fmt.Sprintf("host port %s is not opened: reach the pod by a Service of type NodePort or LoadBalancer", strings.Join(ports, ", ")))
	}
	if pod.Spec.ActiveDeadlineSeconds != nil {
		said = append(said, "activeDeadlineSeconds of a pod is not kept: give it to a Job")
	}
	return said
}
