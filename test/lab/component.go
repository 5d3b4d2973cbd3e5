// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/test/lab/state"
)

// Names for what a fault strikes that are not a component's own.
const (
	Gateway = "gateway" // all Envoys of a cluster
	Node    = "node"    // the node agent
	CoreDNS = "coredns"
)

// podTargets are those that the node starts again by itself; each stands for some of a cluster's pod processes.
var podTargets = map[string]func(state.Process) bool{
	Gateway:      func(p state.Process) bool { return p.Component == state.Proxy },
	state.Istiod: func(p state.Process) bool { return p.Component == state.Istiod },
	state.Hub:    func(p state.Process) bool { return p.Component == state.Hub },
	CoreDNS:      func(p state.Process) bool { return strings.HasPrefix(p.Name, "kube-system/coredns-") },
}

// Targets returns what Kill, Stop, Start and Clock can be asked for by name; besides, a pod by NAMESPACE/NAME, or its
// Deployment by the same.
func Targets() []string {
	var all []string
	for _, component := range components {
		if component == state.NodeAgent {
			component = Node
		}
		all = append(all, component)
	}
	return append(all, Gateway, state.Istiod, state.Hub, CoreDNS)
}

// target is what a fault strikes in a cluster.
type target struct {
	name string
	// component is the lab's own process, which nobody starts again; empty for pods.
	component string
	is        func(state.Process) bool
}

func targetOf(name string) (target, error) {
	if name == state.NodeAgent {
		name = Node
	}
	component := name
	if name == Node {
		component = state.NodeAgent
	}
	if slices.Contains(components, component) {
		return target{name, component, func(p state.Process) bool { return p.Component == component }}, nil
	}
	if is, ok := podTargets[name]; ok {
		return target{name: name, is: is}, nil
	}
	if strings.Contains(name, "/") {
		return target{name: name, is: func(p state.Process) bool {
			return state.IsPod(p.Component) && (p.Name == name || strings.HasPrefix(p.Name, name+"-"))
		}}, nil
	}
	return target{}, fmt.Errorf("no component %q: there are %s, and pods by NAMESPACE/NAME", name, strings.Join(Targets(), ", "))
}

// IsPods says whether a name that a fault can strike stands for pods, which their node starts again.
func IsPods(name string) bool {
	t, err := targetOf(name)
	return err == nil && t.component == ""
}

// in returns the target's processes in a cluster that are alive; it is an error when there are none.
func (t target) in(lab *state.Lab, cluster string) ([]state.Process, error) {
	if _, err := lab.Cluster(cluster); err != nil {
		return nil, err
	}
	var found []state.Process
	for _, p := range lab.Processes {
		if p.Cluster == cluster && t.is(p) && p.Alive() {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no %s runs in %s: see `isthmus-lab status`", t.name, cluster)
	}
	return found, nil
}
