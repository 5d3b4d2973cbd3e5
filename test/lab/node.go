// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/node"
	"isthmus.dev/isthmus/test/lab/state"
)

// place is where a provider's clusters lie.
type place struct{ region, zone string }

// places are the regions of the providers' clusters, in the order in which the clusters are named.
var places = map[string][]place{
	"eks": {{"us-east-1", "us-east-1a"}, {"us-west-2", "us-west-2b"}, {"eu-central-1", "eu-central-1a"}},
	"gke": {{"europe-west1", "europe-west1-b"}, {"us-central1", "us-central1-c"}, {"asia-east1", "asia-east1-a"}},
}

// providerOf tells a cluster's provider from its name.
func providerOf(name string) string {
	for _, provider := range []string{"eks", "gke"} {
		if strings.HasPrefix(name, provider) {
			return provider
		}
	}
	return ""
}

// RunNode is the node of one cluster of the lab in folder dir. It is to run in the cluster's network
// namespace and returns when ctx ends.
func RunNode(ctx context.Context, dir, cluster string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	lab, err := state.Load(dir)
	if err != nil {
		return err
	}
	c, err := lab.Cluster(cluster)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	config, err := nodeConfig(dir, *c)
	if err != nil {
		return err
	}
	config.OnProcesses = func(pods []state.Process) {
		// A lab that is being taken down has no file any more, and needs none.
		_ = state.UpdateExisting(dir, func(l *state.Lab) error {
			l.ReplacePods(cluster, pods)
			return nil
		})
	}
	tracked := make(chan struct{})
	go func() {
		defer close(tracked)
		if c.Role == state.RoleMember { // the hub's Gateways are intent: nothing answers there
			trackGateways(ctx, dir, cluster, c.Kubeconfig)
		}
	}()
	err = node.Run(ctx, config)
	cancel()
	<-tracked
	return err
}

func nodeConfig(dir string, c state.Cluster) (node.Config, error) {
	pods, err := netip.ParsePrefix(c.PodCIDR)
	if err != nil {
		return node.Config{}, fmt.Errorf("podCIDR of %s: %w", c.Name, err)
	}
	balancers, err := netip.ParsePrefix(c.LoadBalancerCIDR)
	if err != nil {
		return node.Config{}, fmt.Errorf("loadBalancerCIDR of %s: %w", c.Name, err)
	}
	name, id := nodeIdentity(c)
	return node.Config{
		Cluster: c.Name, Provider: c.Provider, NodeName: name, NodeIP: c.NodeIP,
		Region: c.Region, Zone: c.Zone, ProviderID: id,
		Kubeconfig: c.Kubeconfig, PodCIDR: pods, LoadBalancerCIDR: balancers, PodBridge: network.PodBridge,
		ImageDirs:     []string{filepath.Join(dir, "images")},
		StateDir:      filepath.Join(dir, "run", c.Name),
		APIServerHost: c.NodeIP, APIServerPort: apiServerPort,
	}, nil
}

// nodeIdentity names a cluster's node and its provider ID as the cloud would.
func nodeIdentity(c state.Cluster) (name, providerID string) {
	switch c.Provider {
	case "eks":
		return "ip-" + strings.ReplaceAll(c.NodeIP, ".", "-") + ".ec2.internal",
			fmt.Sprintf("aws:///%s/i-%017x", c.Zone, c.Index)
	case "gke":
		name = "gke-" + c.Name + "-default-pool-0"
		return name, fmt.Sprintf("gce://isthmus-lab/%s/%s", c.Zone, name)
	}
	return c.Name + "-node", ""
}
