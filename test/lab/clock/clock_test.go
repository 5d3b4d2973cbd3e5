// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package clock

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain is also the process whose clock is moved: it says the time, by Go's own clock, for every line that it reads.
func TestMain(m *testing.M) {
	if os.Getenv("TELL_THE_TIME") == "" {
		os.Exit(m.Run())
	}
	began := time.Now()
	go func() { // a thread that is always in the clock
		for !time.Now().IsZero() {
			continue
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().Unix(), int(time.Since(began).Seconds()))
	}
}

func TestOneProcessHasAnotherWallClock(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another process is traced")
	}
	ask, pid := clockOf(t)
	wall, _ := ask()
	require.InDelta(t, time.Now().Unix(), wall, 5)
	for _, offset := range []time.Duration{90 * time.Second, -24 * time.Hour, 0, time.Hour, 0} {
		require.NoError(t, Set(pid, offset))
		wall, elapsed := ask()
		require.InDelta(t, time.Now().Add(offset).Unix(), wall, 5, "offset %s", offset)
		require.Less(t, elapsed, 600, "the monotonic clock goes on as it was")
	}
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	require.Eventually(t, func() bool { return allStopped(pid) }, 10*time.Second, time.Millisecond)
	require.NoError(t, Set(pid, time.Minute))
	require.True(t, allStopped(pid), "what was frozen stays so")
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	wall, _ = ask()
	require.InDelta(t, time.Now().Add(time.Minute).Unix(), wall, 5)
	require.InDelta(t, 0, time.Since(time.Unix(time.Now().Unix(), 0)).Seconds(), 5, "nobody else's clock moved")
	require.ErrorContains(t, Set(pid, time.Millisecond), "whole seconds")
}

// clockOf starts a process that can be asked for its wall clock and for the seconds since its start.
func clockOf(t *testing.T) (ask func() (wall int64, elapsed int), pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TELL_THE_TIME=1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	answers := bufio.NewReader(out)
	return func() (wall int64, elapsed int) {
		_, err := io.WriteString(in, "\n")
		require.NoError(t, err)
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		_, err = fmt.Fscan(strings.NewReader(line), &wall, &elapsed)
		require.NoError(t, err)
		return wall, elapsed
	}, cmd.Process.Pid
}
