// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
)

// child starts a process of this test, outside of any namespace of the lab.
func child(t *testing.T, script string) state.Process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	require.NoError(t, cmd.Start())
	start, err := state.StartTime(cmd.Process.Pid)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return state.Process{Component: "test", PID: cmd.Process.Pid, StartTime: start}
}

func TestStopEndsInPeaceWhatListens(t *testing.T) {
	p := child(t, "sleep 60")
	require.NoError(t, Stop(t.Context(), 10*time.Second, p))
	require.False(t, p.Alive())
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	p := child(t, "trap '' TERM; : > "+ready+"; while :; do sleep 1; done")
	require.Eventually(t, func() bool { _, err := os.Stat(ready); return err == nil }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, Stop(t.Context(), 100*time.Millisecond, p))
	require.False(t, p.Alive())
}

func TestSignalSparesTheStrangerWhoTookThePid(t *testing.T) {
	p := child(t, "sleep 60")
	recorded := p
	recorded.StartTime--
	require.NoError(t, Signal(recorded, syscall.SIGKILL))
	require.True(t, p.Alive())
}

func TestAStartedProcessIsFoundByItsNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network namespace is created")
	}
	c, err := network.Plan("test-process", network.MaxClusters-2)
	require.NoError(t, err)
	require.NoError(t, network.Up([]network.Cluster{c}))
	t.Cleanup(func() { require.NoError(t, network.Remove([]network.Cluster{c})) })

	p, err := Start(Spec{
		Cluster: "test", Component: "sleep", NetNS: c.NetNS, Path: "/bin/sleep", Args: []string{"60"},
		Dir: t.TempDir(), Log: filepath.Join(t.TempDir(), "sleep.log"),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, Stop(t.Context(), time.Second, p)) })
	found, err := In(c.NetNS)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, p.PID, found[0].PID)

	require.NoError(t, Stop(t.Context(), 10*time.Second, found...))
	found, err = In(c.NetNS)
	require.NoError(t, err)
	require.Empty(t, found)
}
