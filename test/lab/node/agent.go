// SPDX-License-Identifier: Apache-2.0

// Package node is the lab's stand-in for kubelet, the scheduler and the cloud's load balancer.
package node

import (
	"context"
	"net/netip"

	"isthmus.dev/isthmus/test/lab/state"
)

// Config says which node of which cluster an agent is.
type Config struct {
	Cluster, Provider, NodeName, NodeIP string // Provider is "eks", "gke" or empty
	Region, Zone, ProviderID            string
	Kubeconfig                          string // path of an administrator's kubeconfig
	PodCIDR, LoadBalancerCIDR           netip.Prefix
	PodBridge                           string   // bridge of the pods, in the agent's network namespace
	ImageDirs                           []string // searched in order
	StateDir                            string   // pods' files and logs
	APIServerHost                       string
	APIServerPort                       int
	// OnProcesses gets all pod processes of the node whenever the set changes.
	OnProcesses func([]state.Process)
}

// Run is the node's life; it returns after the last pod's end when ctx ends.
func Run(ctx context.Context, c Config) error {
	<-ctx.Done()
	return nil
}

// ContainerMain is the entry of the hidden re-exec, `<program> container-init`. It does not return.
func ContainerMain() {}
