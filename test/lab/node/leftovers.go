// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/network"
)

// killWait bounds the wait for killed processes to be gone.
const killWait = 5 * time.Second

// removeLeftovers removes what an earlier life of this node's agent left behind. The folders of the
// pods say which namespaces were its: other clusters have theirs beside them.
func (a *agent) removeLeftovers() error {
	entries, err := os.ReadDir(a.podsDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, removePod(network.PodNamespace(e.Name()), filepath.Join(a.podsDir(), e.Name())))
	}
	return errors.Join(errs...)
}

// removePod kills what lives in a pod's namespace and removes the namespace and the pod's files.
func removePod(ns, dir string) error {
	err := killAll(ns)
	return errors.Join(err, network.DeletePod(ns), os.RemoveAll(dir))
}

// killAll kills all processes of a namespace and waits until they are gone.
func killAll(ns string) error {
	found, err := network.Processes(ns)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range found[ns] {
		errs = append(errs, killIn(ns, pid))
	}
	return errors.Join(errs...)
}

// killIn kills a process if it still is one of the namespace: its number may have been given to
// another since, so the process is held by a descriptor before it is looked at again.
func killIn(ns string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	found, err := network.Processes(ns)
	if err != nil {
		return err
	}
	if !slices.Contains(found[ns], pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(killWait.Milliseconds()))
	return err
}
