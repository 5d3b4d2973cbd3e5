// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A terminal is made inside the container, so that its name means something there, and its master
// is handed to the agent through a socket.
//
//	agent ── socket ──> container-init: open /dev/ptmx, send the master, keep the terminal

// socketPair returns two ends of a socket that no child inherits by accident.
func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveFile receives a file that was sent already.
func receiveFile(socket *os.File) (*os.File, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 1), rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no terminal was handed over: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil || len(fds) != 1 {
			continue
		}
		// Not blocking, so that closing it wakes whoever reads.
		if err := unix.SetNonblock(fds[0], true); err != nil {
			return nil, errors.Join(err, unix.Close(fds[0]))
		}
		return os.NewFile(uintptr(fds[0]), "/dev/ptmx"), nil
	}
	return nil, errors.New("no terminal was handed over")
}

// handConsole opens a terminal of the container for a user and sends its master to the agent.
func handConsole(user userSpec) (*os.File, error) {
	master, terminal, err := pty.Open()
	if err != nil {
		return nil, err
	}
	err = errors.Join(terminal.Chown(user.UID, user.GID),
		unix.Sendmsg(consoleFD, []byte{0}, unix.UnixRights(int(master.Fd())), nil, 0),
		master.Close(), unix.Close(consoleFD))
	if err != nil {
		return nil, errors.Join(err, terminal.Close())
	}
	return terminal, nil
}

// takeConsole makes a new terminal this process's own: its streams, and what controls it.
func takeConsole(user userSpec) error {
	terminal, err := handConsole(user)
	if err != nil {
		return err
	}
	defer func() { _ = terminal.Close() }()
	for fd := range 3 {
		if err := unix.Dup2(int(terminal.Fd()), fd); err != nil {
			return err
		}
	}
	return unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
}
