// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rootless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// HoldCommand is the hidden command under which the program is called again to be a holder.
const HoldCommand = "hold"

// file of a lab's folder that names its holder.
const file = "holder.json"

// Holder keeps a place.
type Holder struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	UID       int    `json:"uid"`
	// Namespace is the number of its user namespace, by which a process tells that it is inside.
	Namespace uint64 `json:"namespace"`
}

// Find returns the holder of the lab in dir; nil when none lives.
func Find(dir string) (*Holder, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := &Holder{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("%s is damaged: remove it, and end its process if one is left (`pgrep -f 'isthmus-lab hold'`): %w", filepath.Join(dir, file), err)
	}
	if h.Inside() || h.process().Alive() {
		return h, nil
	}
	return nil, nil
}

func (h *Holder) process() state.Process { return state.Process{PID: h.PID, StartTime: h.StartTime} }

// Inside says whether this process is in the holder's place.
func (h *Holder) Inside() bool {
	own, err := userNamespace("self")
	return err == nil && own == h.Namespace
}

func userNamespace(pid string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join("/proc", pid, "ns/user"), &st)
	return st.Ino, err
}

// Start makes a place for the lab in dir.
func Start(dir string) (*Holder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	said, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = said.Close() }()
	cmd := exec.Command("/proc/self/exe", HoldCommand) //nolint:noctx // it is to outlive this program
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	err = cmd.Start()
	_ = tell.Close()
	if err != nil {
		return nil, explain(err, kernel)
	}
	words, err := io.ReadAll(said)
	if err == nil && string(words) != ready {
		err = explain(errors.New(strings.TrimSpace(string(words))), kernel)
	}
	h := &Holder{PID: cmd.Process.Pid, UID: os.Geteuid()}
	if err == nil {
		err = h.record(dir)
	}
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	return h, cmd.Process.Release()
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (h *Holder) record(dir string) (err error) {
	if h.StartTime, err = state.StartTime(h.PID); err != nil {
		return err
	}
	if h.Namespace, err = userNamespace(fmt.Sprint(h.PID)); err != nil {
		return err
	}
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), append(data, '\n'), 0o644) // for everybody to see whose it is
}

// killWait bounds the wait for the kernel to end a place.
const killWait = 20 * time.Second

// End ends the place of the lab in dir, and everything in it.
func (h *Holder) End(dir string) error {
	if err := process.Signal(h.process(), syscall.SIGKILL); err != nil {
		return err
	}
	if err := process.AwaitEnd(context.Background(), killWait, []state.Process{h.process()}); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ready is what a holder says when its place is.
const ready = "ready\n"

// tellFD is where a holder says it, or what went wrong.
const tellFD = 3

// Hold is the holder: it makes the place and stays until it is killed. It does not return.
func Hold() {
	tell := os.NewFile(tellFD, "tell")
	if err := furnish(); err != nil {
		_, _ = tell.WriteString(err.Error())
		os.Exit(1)
	}
	_, _ = tell.WriteString(ready)
	_ = tell.Close()
	reap()
}

// furnish makes what the lab expects of a machine.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// reap takes leave of processes whose parents have gone: a pid 1 has to.
func reap() {
	children := make(chan os.Signal, 1)
	notifyOfChildren(children)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			<-children
		}
	}
}

// Left says that a holder of the lab in dir was there once and did not end in peace.
func Left(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}
