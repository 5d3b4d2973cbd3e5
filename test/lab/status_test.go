// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/lab/state"
)

func reportOf(components ...ComponentReport) Report {
	return Report{
		Dir: "/w/.lab", Ready: true, Memory: 2_000_000_000, Processes: 3,
		Clusters: []ClusterReport{
			{Cluster: state.Cluster{Name: "hub", Role: state.RoleHub, Member: true, APIServer: "https://10.231.0.11:6443"}, Node: "hub-node"},
			{Cluster: state.Cluster{Name: "eks", Role: state.RoleMember, Zone: "us-east-1a", Gateway: "10.233.2.1:80"}, Node: "ip-1", Components: components},
		},
	}
}

func component(component, name, condition string) ComponentReport {
	return ComponentReport{state.Process{Cluster: "eks", Component: component, Name: name, PID: 7, Log: "/log"}, condition}
}

func screen(t *testing.T, r Report, all bool) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, r.Write(&out, all))
	r.Next(&out)
	return out.String()
}

func TestStatusNamesWhatIsDeadAndCountsPods(t *testing.T) {
	r := reportOf(component(state.Etcd, state.Etcd, state.Alive), component(state.APIServer, state.APIServer, state.Frozen),
		component(state.Pod, "a/b", state.Dead), component(state.Proxy, "a/c", state.Dead), component(state.Pod, "a/c", state.Alive))
	r.Faults = []state.Fault{{Kind: state.Stopped, Cluster: "eks", Component: state.APIServer}}
	said := screen(t, r, false)
	require.Contains(t, said, "2 alive, apiserver stopped, 2 in pods dead")
	require.Contains(t, said, "hub, member")
	require.Contains(t, said, "eks: stop apiserver")
	require.Contains(t, said, "fault heal")
	require.NotContains(t, said, "/log")
	require.Contains(t, screen(t, r, true), "/log")
}

func TestStatusSaysWhatToDoNext(t *testing.T) {
	r := reportOf()
	require.Contains(t, screen(t, r, false), "isthmus-lab up` starts it again")
	r.Healthy = true
	said := screen(t, r, false)
	require.NotContains(t, said, "starts it again")
	require.Contains(t, said, "http://10.233.2.1:80/hello")
	r.Ready = false
	require.Contains(t, screen(t, r, false), "begins anew")
}

func TestTheReportForProgramsHoldsEveryProcess(t *testing.T) {
	data, err := json.Marshal(reportOf(component(state.Etcd, state.Etcd, state.Alive)))
	require.NoError(t, err)
	require.Contains(t, string(data), `"component":"etcd"`)
	require.Contains(t, string(data), `"condition":"alive"`)
	require.Contains(t, string(data), `"node":"ip-1"`)
}
