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

// File descriptors of the re-executed program: the order it gets, where it says why it failed, and,
// where there is a terminal, the socket through which it hands the terminal over.
const (
	specFD    = 3
	errorFD   = 4
	consoleFD = 5
)

// Exit codes of a re-executed program that did not become the container's: shells have the same.
const (
	exitNode    = 126 // the node could not make the container
	exitCommand = 127 // the container's command cannot be run
)

// commandError says that a container was made and its command cannot be run.
type commandError struct{ err error }

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

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
	TTY     bool // the program gets a terminal instead of the streams
}

// stdio are the streams of a program: nil is /dev/null.
type stdio struct{ in, out, err *os.File }

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

// initProcess prepares the re-execution that runs spec.
func initProcess(spec initSpec, io stdio) (*initStart, error) {
	order, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	s := &initStart{order: order, tty: spec.TTY}
	// Not by its path: a new build may have replaced the program meanwhile.
	s.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{os.Args[0], initCommand}, Env: []string{}, Dir: "/"}
	// An interface that holds a nil file is not nil.
	if io.in != nil {
		s.cmd.Stdin = io.in
	}
	if io.out != nil {
		s.cmd.Stdout = io.out
	}
	if io.err != nil {
		s.cmd.Stderr = io.err
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if spec.JoinPID == 0 {
		s.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	}
	return s, nil
}

// initStart is a re-execution that is not started yet.
type initStart struct {
	cmd     *exec.Cmd
	order   []byte
	tty     bool
	console *os.File // the master of the terminal, once started
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
	var socket *os.File
	if s.tty {
		ours, theirs, err := socketPair()
		if err != nil {
			return errors.Join(err, orderRead.Close(), errorWrite.Close())
		}
		defer func() { _ = ours.Close() }()
		s.cmd.ExtraFiles, socket = append(s.cmd.ExtraFiles, theirs), ours
	}
	err = network.Do(netns, s.cmd.Start)
	// The child has copies: ours must not keep its pipes open.
	for _, f := range s.cmd.ExtraFiles {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return err
	}
	_, writeErr := orderWrite.Write(s.order)
	_ = orderWrite.Close()
	said, readErr := io.ReadAll(errorRead)
	if len(said) > 0 {
		return s.failure(string(said))
	}
	err = errors.Join(writeErr, readErr)
	if err == nil && s.tty {
		s.console, err = receiveFile(socket)
	}
	if err == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	return fmt.Errorf("start container: %w", err)
}

// failure is what the process said before it ended.
func (s *initStart) failure(said string) error {
	_ = s.cmd.Wait()
	if s.cmd.ProcessState.ExitCode() == exitCommand {
		return &commandError{errors.New(said)}
	}
	return errors.New(said)
}
