// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rootless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// TestMain lets the test's own program be what isthmus-lab is: the holder, and the command that is called again inside.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "inside" {
		if err := errors.Join(Entered(), look(os.Args[2])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(7)
	}
	if len(os.Args) > 1 && os.Args[1] == HoldCommand {
		Hold()
	}
	os.Exit(m.Run())
}

// sight is what a command inside sees.
type sight struct {
	UID, PID     int
	Folder       string
	Links        []string
	Run          []string // names in /run
	Inside, Left bool
}

// look writes what it sees into a file of dir, and leaves a process behind that holds the lock of another.
func look(dir string) error {
	s := sight{UID: os.Geteuid(), PID: os.Getpid(), Left: Left(dir)}
	var err error
	if s.Folder, err = os.Getwd(); err != nil {
		return err
	}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		s.Links = append(s.Links, l.Name)
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		return err
	}
	for _, e := range entries {
		s.Run = append(s.Run, e.Name())
	}
	h, err := Find(dir)
	if err != nil {
		return err
	}
	s.Inside = h != nil && h.Inside()
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "sight"), data, 0o600), leaveBehind(filepath.Join(dir, "held")))
}

func leaveBehind(name string) error {
	held, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	cmd := exec.Command("sleep", "infinity")
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// start makes a place, or says why this machine has none.
func start(t *testing.T, dir string) *Holder {
	t.Helper()
	h, err := Start(dir)
	if why := forbidden(); err != nil && why != "" {
		t.Skipf("%s: %v", why, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.End(dir)) })
	return h
}

// forbidden says what on this machine keeps a user from a place; empty when nothing does.
func forbidden() string {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if cmd.Run() != nil {
		return "no user namespaces"
	}
	if kernel("kernel.apparmor_restrict_unprivileged_userns") == "1" && os.Geteuid() != 0 {
		return "no rights in user namespaces"
	}
	// The kernel gives nobody a new /proc who sees the old one only in part.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(strings.ReplaceAll(string(mounts), " /proc/sys/fs/binfmt_misc ", ""), " /proc/") {
		return "a masked /proc"
	}
	return ""
}

func TestAPlaceIsAMachineOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	code, err := h.Run(context.Background(), []string{"inside", dir})
	require.NoError(t, err)
	require.Equal(t, 7, code, "the exit code is the command's")
	data, err := os.ReadFile(filepath.Join(dir, "sight"))
	require.NoError(t, err)
	var s sight
	require.NoError(t, json.Unmarshal(data, &s))
	here, err := os.Getwd()
	require.NoError(t, err)
	require.Greater(t, s.PID, 1)
	s.PID = 0
	require.Equal(t, sight{UID: 0, Folder: here, Links: []string{"lo"}, Run: []string{"netns"}, Inside: true, Left: true}, s)
	require.False(t, h.Inside())

	found, err := Find(dir)
	require.NoError(t, err)
	require.Equal(t, h, found)
}

func TestNothingOutlivesTheHolder(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	_, err := h.Run(context.Background(), []string{"inside", dir})
	require.NoError(t, err)
	held, err := os.Open(filepath.Join(dir, "held"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, held.Close()) })
	require.ErrorIs(t, unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "a process runs inside")

	require.NoError(t, syscall.Kill(h.PID, syscall.SIGKILL))
	require.NoError(t, unix.Flock(int(held.Fd()), unix.LOCK_EX), "and has ended with the holder")
	require.NoError(t, process.AwaitEnd(context.Background(), killWait, []state.Process{h.process()}))
	found, err := Find(dir)
	require.NoError(t, err)
	require.Nil(t, found)
	require.True(t, Left(dir), "what it left in the folder is still to be cleared")
}

func TestAFolderWithoutAHolder(t *testing.T) {
	dir := t.TempDir()
	h, err := Find(dir)
	require.NoError(t, err)
	require.Nil(t, h)
	require.False(t, Left(dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte("{"), 0o600))
	_, err = Find(dir)
	require.ErrorContains(t, err, "is damaged: remove it")
}

func TestSomebodyElsesLab(t *testing.T) {
	_, err := (&Holder{UID: os.Geteuid() + 1}).Run(context.Background(), nil)
	require.ErrorContains(t, err, "belongs to the user with the number")
}

func TestWhatForbidsNamespacesIsNamedWithItsRemedy(t *testing.T) {
	for setting, remedy := range map[string]string{
		"user.max_user_namespaces=0":                       "sysctl -w user.max_user_namespaces=15000",
		"kernel.unprivileged_userns_clone=0":               "sysctl -w kernel.unprivileged_userns_clone=1",
		"kernel.apparmor_restrict_unprivileged_userns=1":   "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
		"kernel.apparmor_restrict_unprivileged_userns=0\n": "run the lab as root",
	} {
		name, value, _ := strings.Cut(strings.TrimSpace(setting), "=")
		err := explain(unix.EPERM, func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		})
		require.ErrorIs(t, err, unix.EPERM)
		require.ErrorContains(t, err, remedy)
	}
	none := func(string) string { return "" }
	require.ErrorContains(t, explain(unix.ENOSPC, none), "as many as user.max_user_namespaces allows")
	require.ErrorContains(t, explain(unix.EINVAL, none), "CONFIG_USER_NS")
}
