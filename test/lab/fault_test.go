// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/test/lab/shaper"
	"isthmus.dev/isthmus/test/lab/state"
)

func threeClusters() *state.Lab {
	return &state.Lab{Clusters: []state.Cluster{{Name: "hub", Index: 1}, {Name: "eks", Index: 2}, {Name: "gke", Index: 3}}}
}

func TestALinkIsWhatTheFaultsMakeOfIt(t *testing.T) {
	lab := threeClusters()
	for _, f := range []state.Fault{
		{Kind: state.Partition, Cluster: "eks", Peer: "gke"},
		{Kind: state.Latency, Cluster: "eks", Latency: &metav1.Duration{Duration: time.Second}},
		{Kind: state.Loss, Cluster: "eks", Peer: "hub", Loss: 0.1},
		{Kind: state.Partition, Cluster: "hub"},
		{Kind: state.NodeLoss, Cluster: "gke"},
		{Kind: state.Killed, Cluster: "gke", Component: state.Etcd},
	} {
		require.NoError(t, checkFault(lab, &f))
		lab.AddFault(f)
	}
	eks, err := linkOf(lab, "eks")
	require.NoError(t, err)
	hub, err := linkOf(lab, "hub")
	require.NoError(t, err)
	gke, err := linkOf(lab, "gke")
	require.NoError(t, err)

	require.True(t, eks.up)
	require.Equal(t, []shaper.Rule{{Latency: time.Second}, {To: hub.network.Ranges(), Loss: 0.1}}, eks.rules)
	require.Equal(t, "gke", eks.drops.From[0].Name, "each end of a cut drops what comes from the other")
	require.Equal(t, "eks", gke.drops.From[0].Name)
	require.False(t, eks.drops.Pods)
	require.True(t, gke.drops.Pods)
	require.False(t, hub.up)
	require.Empty(t, hub.rules, "one end of a lossy way is enough")
}

func TestFaultsAreRefusedInWords(t *testing.T) {
	for say, f := range map[string]state.Fault{
		`no cluster "aks"`:      {Kind: state.Partition, Cluster: "aks"},
		`no cluster "azure"`:    {Kind: state.Partition, Cluster: "eks", Peer: "azure"},
		"no link to itself":     {Kind: state.Partition, Cluster: "eks", Peer: "eks"},
		"more than 0 and up":    {Kind: state.Latency, Cluster: "eks", Latency: &metav1.Duration{}},
		"not more than the lat": {Kind: state.Latency, Cluster: "eks", Latency: &metav1.Duration{Duration: 1}, Jitter: &metav1.Duration{Duration: 2}},
		"more than 0% and":      {Kind: state.Loss, Cluster: "eks", Loss: 1.1},
		"to 100%":               {Kind: state.Loss, Cluster: "eks", Loss: math.NaN()},
		"at least 8kbit":        {Kind: state.Bandwidth, Cluster: "eks", Rate: 7999},
		"is lost already":       {Kind: state.NodeLoss, Cluster: "gke"},
	} {
		lab := threeClusters()
		lab.AddFault(state.Fault{Kind: state.NodeLoss, Cluster: "gke"})
		require.ErrorContains(t, checkFault(lab, &f), say)
	}
}

func TestTheSameCutFromEitherSideIsOne(t *testing.T) {
	lab := threeClusters()
	for _, f := range []state.Fault{
		{Kind: state.Partition, Cluster: "eks", Peer: "gke"}, {Kind: state.Partition, Cluster: "gke", Peer: "eks"},
	} {
		require.NoError(t, checkFault(lab, &f))
		lab.AddFault(f)
	}
	require.Len(t, lab.Faults, 1)
}

func TestSharesAndRatesAreReadAsTheyAreWritten(t *testing.T) {
	share, err := ParseShare("0.5%")
	require.NoError(t, err)
	require.InDelta(t, 0.005, share, 1e-9)
	for _, bad := range []string{"10", "x%", ""} {
		_, err = ParseShare(bad)
		require.ErrorContains(t, err, "percent")
	}
	for text, want := range map[string]int64{"1mbit": 1_000_000, "500Kbit": 500_000, "1.5gbit": 1_500_000_000, "9000": 9000} {
		rate, err := ParseRate(text)
		require.NoError(t, err)
		require.Equal(t, want, rate)
	}
	for _, bad := range []string{"1mb", "-1mbit", "", "9999gbit"} {
		_, err = ParseRate(bad)
		require.ErrorContains(t, err, "such as")
	}
}

func TestATargetIsFoundAmongWhatRuns(t *testing.T) {
	start, err := state.StartTime(os.Getpid())
	require.NoError(t, err)
	running := func(component, name string) state.Process {
		return state.Process{Cluster: "eks", Component: component, Name: name, PID: os.Getpid(), StartTime: start}
	}
	lab := threeClusters()
	lab.Processes = []state.Process{
		running(state.APIServer, state.APIServer), running(state.Proxy, "sample/public-istio-1"), running(state.Pod, "sample/public-istio-1"),
		running(state.Pod, "sample/helloworld-a-1"), running(state.Pod, "sample/helloworld-a-2"), running(state.Pod, "kube-system/coredns-a-1"),
		{Cluster: "eks", Component: state.Istiod, Name: state.Istiod, PID: 1 << 30},
	}
	for name, want := range map[string]int{
		"apiserver": 1, "gateway": 1, "coredns": 1, "sample/helloworld": 2, "sample/helloworld-a-2": 1, "istiod": 0, "hub": 0, "sample/hello": 0,
	} {
		target, err := targetOf(name)
		require.NoError(t, err)
		found, err := target.in(lab, "eks")
		require.Len(t, found, want, name)
		if want == 0 {
			require.ErrorContains(t, err, "isthmus-lab status")
		}
	}
}

// recorded is a lab that is nothing but its file.
func recorded(t *testing.T, change func(*state.Lab)) *Lab {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, state.Update(dir, func(s *state.Lab) error { change(s); return nil }))
	return &Lab{Dir: dir}
}

func TestAFaultThatCannotBeMadeIsNotListed(t *testing.T) {
	ctx := context.Background()
	l := recorded(t, func(s *state.Lab) { s.Clusters = []state.Cluster{{Name: "test-none", Index: 200}} })
	require.ErrorContains(t, l.Latency(ctx, "test-none", "", time.Second, 0), "isl-test-none", "there is no such network")
	now, err := l.State()
	require.NoError(t, err)
	require.Empty(t, now.Faults)

	require.NoError(t, state.Update(l.Dir, func(s *state.Lab) error {
		s.AddFault(state.Fault{Kind: state.Loss, Cluster: "test-none", Loss: 0.1})
		return nil
	}))
	require.Error(t, l.Loss(ctx, "test-none", "", 0.5))
	now, err = l.State()
	require.NoError(t, err)
	require.Len(t, now.Faults, 1)
	require.InDelta(t, 0.1, now.Faults[0].Loss, 1e-9, "the measure that is still in force")
}

func TestWhoeverWaitsForAnotherFaultCanGiveUp(t *testing.T) {
	l := recorded(t, func(*state.Lab) {})
	unlock, err := l.lockFaults(context.Background())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = l.lockFaults(ctx)
	require.ErrorContains(t, err, "another `isthmus-lab fault`")
	unlock()
	unlock, err = l.lockFaults(context.Background())
	require.NoError(t, err)
	unlock()
}

func TestAProcessThatCannotBeListedIsEnded(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	start, err := state.StartTime(cmd.Process.Pid)
	require.NoError(t, err)
	l := &Lab{Dir: t.TempDir()} // as after `down`
	require.ErrorIs(t, l.record(state.Process{PID: cmd.Process.Pid, StartTime: start}), state.ErrNoLab)
	require.ErrorContains(t, <-ended, "killed")
}
