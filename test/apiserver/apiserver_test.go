// SPDX-License-Identifier: Apache-2.0

//go:build apiserver && linux

package apiserver

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/state"
)

// startedEnv tells this test binary to be one whose tests are cut off.
const startedEnv = "ISTHMUS_TEST_CUT_OFF"

func TestMain(m *testing.M) { Main(m) }

func TestServersEndWithTheirTests(t *testing.T) {
	if os.Getenv(startedEnv) != "" {
		Start(t, 1)
		fmt.Println("running as", os.Getpid())
		select {} // to be cut off
	}
	for name, pick := range map[string]func(tests, parent int) int{
		"the tests are killed":       func(tests, _ int) int { return tests },
		"whoever ran them is killed": func(_, parent int) int { return parent },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent, tests := cutOff(t)
			servers := children(t, tests)
			require.Len(t, servers, 2, "an etcd and an API server")
			require.NoError(t, unix.Kill(pick(tests, parent), unix.SIGKILL))
			for _, p := range servers {
				require.Eventually(t, func() bool { return !p.Alive() }, 2*time.Minute, 20*time.Millisecond, "%d lives on", p.PID)
			}
		})
	}
}

// cutOff runs this test binary below a shell, until its servers run.
func cutOff(t *testing.T) (parent, tests int) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `"$0" -test.run='^TestServersEndWithTheirTests$' & wait`, self)
	cmd.Env, cmd.Stderr = append(os.Environ(), startedEnv+"=yes", "TMPDIR="+t.TempDir()), os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = unix.Kill(tests, unix.SIGKILL)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if pid, ok := strings.CutPrefix(lines.Text(), "running as "); ok {
			tests, err = strconv.Atoi(pid)
			require.NoError(t, err)
			return cmd.Process.Pid, tests
		}
	}
	t.Fatal("the tests that are to be cut off did not come up")
	return 0, 0
}

func children(t *testing.T, pid int) []state.Process {
	t.Helper()
	var found []state.Process
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	require.NoError(t, err)
	for _, task := range tasks {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(list)) {
			child, err := strconv.Atoi(field)
			require.NoError(t, err)
			start, err := state.StartTime(child)
			require.NoError(t, err)
			found = append(found, state.Process{PID: child, StartTime: start})
		}
	}
	return found
}
