// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"isthmus.dev/isthmus/test/lab/network"
)

// initCommand is the hidden command under which the agent calls its own program again.
const initCommand = "container-init"

// File descriptors of the re-executed program: the order it gets, and where it says why it failed.
const (
	specFD  = 3
	errorFD = 4
)

// initSpec is the order to the re-executed program. It goes through a pipe, not through arguments
// or environment, where any user of the machine could read a container's secrets.
type initSpec struct {
	// JoinPID, when set, says to run Argv inside the container whose first process that is.
	JoinPID int
	Root    rootSpec // where the container does not exist yet
	User    userSpec
	Argv    []string
	Env     []string
	Dir     string
}

// rootSpec is a container's file system: an overlay at Merged, with volumes in it.
type rootSpec struct {
	Merged, Upper, Work string
	Lower               []string // the topmost first
	Hostname            string
	Files               map[string]string // written into the root, by path
	Mounts              []mountSpec       // in the order of mounting
	ReadOnly            bool
	Privileged          bool // /proc/sys stays writable
}

// mountSpec puts a file or folder of the host at Target in the container.
type mountSpec struct {
	Source, Target string
	ReadOnly       bool
}

type userSpec struct {
	UID, GID         int
	Groups           []int
	NoNewPrivileges  bool
	DropCapabilities bool
}

// initProcess prepares the re-execution that runs spec, with log as its output.
func initProcess(spec initSpec, log *os.File) (*initStart, error) {
	order, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	s := &initStart{order: order}
	// Not by its path: a new build may have replaced the program meanwhile.
	s.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{os.Args[0], initCommand}, Env: []string{}, Dir: "/", Stdout: log, Stderr: log}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if spec.JoinPID == 0 {
		s.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	}
	return s, nil
}

// initStart is a re-execution that is not started yet.
type initStart struct {
	cmd   *exec.Cmd
	order []byte
}

// start starts the process in a network namespace and returns when the container's own program
// runs in it, or with the reason why it does not.
func (s *initStart) start(netns string) error {
	orderRead, orderWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = orderWrite.Close() }()
	errorRead, errorWrite, err := os.Pipe()
	if err != nil {
		return errors.Join(err, orderRead.Close())
	}
	defer func() { _ = errorRead.Close() }()
	s.cmd.ExtraFiles = []*os.File{orderRead, errorWrite}
	err = network.Do(netns, s.cmd.Start)
	// The child has copies: ours must not keep its pipes open.
	err = errors.Join(err, orderRead.Close(), errorWrite.Close())
	if err != nil {
		return err
	}
	_, writeErr := orderWrite.Write(s.order)
	_ = orderWrite.Close()
	said, readErr := io.ReadAll(errorRead)
	if len(said) == 0 && writeErr == nil && readErr == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	if len(said) > 0 {
		return errors.New(string(said))
	}
	return fmt.Errorf("start container: %w", errors.Join(writeErr, readErr))
}
