// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

const apiServerPort = controlplane.Port

// hubName is the name of the hub cluster.
const hubName = "hub"

// Options say which lab to start.
type Options struct {
	// Dir is the lab's folder; default .lab in the checkout.
	Dir string
	// Members are the names of the member clusters; default eks and gke. A name that starts with
	// eks, gke or aks makes a cluster that looks like that provider's.
	Members []string
	// HubMember makes the hub a member as well: with mesh, example and a MemberCluster of its own.
	HubMember bool
	// NoHub leaves out the hub cluster, and Isthmus with it; NoMesh leaves out Istio.
	NoHub, NoMesh bool
	// NoExample leaves out the example.
	NoExample bool
	// PilotDebounce is how long istiod waits for more changes before it pushes one; zero is
	// istiod's own default, 100 ms.
	PilotDebounce time.Duration
	// Out gets the progress; default nowhere.
	Out io.Writer
}

// clusterName is what fits a namespace's, a Node's and a context's name alike.
var clusterName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$`)

func (o *Options) complete() error {
	if o.Out == nil {
		o.Out = io.Discard
	}
	if len(o.Members) == 0 {
		o.Members = []string{"eks", "gke"}
	}
	seen := map[string]bool{}
	for _, m := range o.Members {
		switch {
		case !clusterName.MatchString(m):
			return fmt.Errorf("member %q: a cluster's name is up to 30 lower-case letters, digits and dashes and starts with a letter", m)
		case m == hubName:
			return fmt.Errorf("member %q: that is the hub's name", m)
		case m == "p" || m == "test" || len(m) > 1 && m[:2] == "p-" || len(m) > 4 && m[:5] == "test-":
			return fmt.Errorf("member %q: names that begin with p- and test- are the lab's own", m)
		case seen[m]:
			return fmt.Errorf("member %q is named twice", m)
		}
		seen[m] = true
	}
	if len(o.Members) >= network.MaxClusters {
		return fmt.Errorf("%d members: the address plan holds %d clusters", len(o.Members), network.MaxClusters)
	}
	if o.HubMember && o.NoHub {
		return errors.New("a lab without a hub has no hub that could be a member: leave out one of --no-hub and --hub-member")
	}
	if o.PilotDebounce < 0 {
		return fmt.Errorf("istiod's debounce %v is negative", o.PilotDebounce)
	}
	return o.completeDir()
}

func (o *Options) completeDir() error {
	if o.Dir == "" {
		root, err := tools.Root()
		if err != nil {
			return err
		}
		o.Dir = filepath.Join(root, ".lab")
	}
	dir, err := filepath.Abs(o.Dir)
	o.Dir = dir
	return err
}

// plan lays out the lab that the options ask for.
func (o *Options) plan(root string) (*state.Lab, error) {
	lab := &state.Lab{Root: root, BootID: bootID(), Mesh: !o.NoMesh}
	if o.PilotDebounce > 0 {
		lab.PilotDebounce = o.PilotDebounce.String()
	}
	names := o.Members
	if !o.NoHub {
		names = append([]string{hubName}, names...)
	}
	used := map[string]int{} // clusters of a provider so far
	for _, name := range names {
		index := 2 + slices.Index(o.Members, name) // the hub is 1
		net, err := network.Plan(name, index)
		if err != nil {
			return nil, err
		}
		c := state.Cluster{
			Name: name, Role: state.RoleMember, Member: true, Index: index,
			NetNS: net.NetNS, Link: net.Link, NodeIP: net.Node.Addr().String(),
			APIServer:  fmt.Sprintf("https://%s:%d", net.Node.Addr(), apiServerPort),
			Kubeconfig: filepath.Join(o.Dir, "kubeconfigs", name+".yaml"),
			PodCIDR:    net.Pods.String(), LoadBalancerCIDR: net.LoadBalancers.String(), ServiceCIDR: net.Services.String(),
		}
		if name == hubName {
			c.Role, c.Member = state.RoleHub, o.HubMember
		}
		if p := providerOf(name); p != nil {
			at := p.place(used[p.name])
			c.Provider, c.Region, c.Zone = p.name, at.region, at.zone
			used[p.name]++
		}
		lab.Clusters = append(lab.Clusters, c)
	}
	return lab, nil
}
