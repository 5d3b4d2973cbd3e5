// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/node"
	"isthmus.dev/isthmus/test/lab/state"
)

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
	config.OnProcesses = func(pods []state.Process) error {
		err := state.UpdateExisting(dir, func(l *state.Lab) error {
			l.ReplacePods(cluster, pods)
			return nil
		})
		if errors.Is(err, state.ErrNoLab) {
			return nil // it is being taken down, and needs no list
		}
		return err
	}
	tracked := make(chan struct{})
	go func() {
		defer close(tracked)
		if c.Member { // the Gateways of a hub that is none are intent: nothing answers there
			trackGateways(ctx, dir, cluster, c.Kubeconfig)
		}
	}()
	err = node.Run(ctx, config)
	cancel()
	<-tracked
	return err
}

// apiServerServicePort is the port of the Service kubernetes.
const apiServerServicePort = 443

func nodeConfig(dir string, c state.Cluster) (node.Config, error) {
	net, err := network.Plan(c.Name, c.Index)
	if err != nil {
		return node.Config{}, err
	}
	name, id, labels := nodeIdentity(c)
	run := filepath.Join(dir, "run", c.Name)
	cert, key, clientCA := controlplane.Cluster{Dir: run}.NodeFiles()
	return node.Config{
		Cluster: c.Name, NodeName: name, NodeIP: c.NodeIP,
		Region: c.Region, Zone: c.Zone, ProviderID: id, Labels: labels,
		Kubeconfig: c.Kubeconfig, PodCIDR: net.Pods, LoadBalancerCIDR: net.LoadBalancers, PodBridge: network.PodBridge,
		ImageDirs: imageDirs(dir),
		StateDir:  run,
		APIServer: netip.AddrPortFrom(net.APIServer(), apiServerServicePort), DNS: net.DNS(),
		Serving: &node.Serving{CertFile: cert, KeyFile: key, ClientCAFile: clientCA},
	}, nil
}
