// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/lab/state"
)

func TestACrowdOfTheDeadComesBackInTheOrderOfAStart(t *testing.T) {
	killed := func(component string) state.Fault {
		return state.Fault{Kind: state.Killed, Cluster: "eks", Component: component}
	}
	store, stale := []string{state.Etcd, state.APIServer}, []string{state.ControllerManager}
	for name, c := range map[string]struct {
		dead []string
		left []state.Fault
		want revival
	}{
		"all, named from behind": {
			[]string{state.Istiod, state.KubeProxy, Node, state.ControllerManager, state.APIServer, state.Etcd}, nil,
			revival{store, []string{state.ControllerManager, state.NodeAgent, state.KubeProxy}, stale, true, true},
		},
		"etcd, whose API server died since": {[]string{state.Etcd}, nil, revival{store, stale, stale, true, false}},
		"an API server alone":               {[]string{state.APIServer}, []state.Fault{killed(state.ControllerManager)}, revival{store: store, awaitServer: true}},
		"etcd, without an API server":       {[]string{state.Etcd}, []state.Fault{killed(state.APIServer)}, revival{store: store[:1]}},
		"an API server without etcd":        {[]string{state.APIServer}, []state.Fault{killed(state.Etcd)}, revival{store: store[1:]}},
		"a component that is struck twice":  {[]string{state.KubeProxy}, []state.Fault{killed(state.KubeProxy)}, revival{}},
		"istiod":                            {[]string{state.Istiod}, nil, revival{awaitIstiod: true}},
		"istiod, of a node that is lost":    {[]string{state.Istiod}, []state.Fault{{Kind: state.NodeLoss, Cluster: "eks"}}, revival{}},
		"istiod, cut off":                   {[]string{state.Istiod}, []state.Fault{{Kind: state.Partition, Cluster: "eks"}}, revival{awaitIstiod: true}},
		"pods":                              {[]string{Gateway, "sample/helloworld"}, nil, revival{}},
	} {
		lab := threeClusters()
		lab.Faults = c.left
		var targets []target
		for _, component := range c.dead {
			target, err := targetOf(component)
			require.NoError(t, err)
			targets = append(targets, target)
		}
		require.Equal(t, c.want, revivalOf(lab, "eks", targets), name)
	}
}

func TestALostNodeComesBackAsItsAgent(t *testing.T) {
	node, err := revivable(state.Fault{Kind: state.NodeLoss, Cluster: "eks"})
	require.NoError(t, err)
	require.Equal(t, state.NodeAgent, node.component)
	link, err := revivable(state.Fault{Kind: state.Loss, Cluster: "eks", Loss: 1})
	require.NoError(t, err)
	require.Nil(t, link)
}
