// SPDX-License-Identifier: Apache-2.0

//go:build linux

package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaces is where named network namespaces are mounted, as `ip netns` does it.
const namespaces = "/run/netns"

// Path returns the file of a named namespace.
func Path(name string) string { return filepath.Join(namespaces, name) }

// Exists says whether there is a namespace of that name.
func Exists(name string) bool {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return false
	}
	defer func() { _ = ns.Close() }()
	return isNamespace(ns)
}

// isNamespace tells a mounted namespace from the empty file that a crash may have left.
func isNamespace(ns netns.NsHandle) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(ns), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// Do runs f in the named namespace, on a thread of its own. Processes that f starts are born there;
// goroutines that it starts are not.
func Do(name string, f func() error) error {
	target, err := netns.GetFromPath(Path(name))
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	defer func() { _ = target.Close() }()
	return onThread(func() error {
		if err := netns.Set(target); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return f()
	})
}

// onThread runs f on a thread that is thrown away when it could not be led back to the namespace
// that it came from: a goroutine that ends while it is locked ends its thread.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer func() { _ = home.Close() }()
		result <- f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-result
}

// create makes a named namespace, with its loopback link up. A namespace that exists is kept.
func create(name string) error {
	if Exists(name) {
		return nil
	}
	// A crash between creating the file and mounting the namespace leaves an empty file.
	if err := removeNamespace(name); err != nil {
		return err
	}
	return onThread(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("create network namespace %s: %w", name, err)
		}
		defer func() { _ = ns.Close() }()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

func removeNamespace(name string) error {
	path := Path(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Namespaces returns the lab's namespaces, pods' and clusters' alike, whose name starts with prefix.
func Namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(namespaces)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Processes returns the pids of the processes that live in the named namespaces, in ascending order
// within each. It is how the lab finds its own after a crash: nothing else lives in an isl- namespace.
func Processes(names ...string) (map[string][]int, error) {
	byInode := map[uint64]string{}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(Path(name), &st); err == nil && Exists(name) {
			byInode[st.Ino] = name
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[string][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil {
			continue
		}
		if name, ok := byInode[st.Ino]; ok {
			found[name] = append(found[name], pid)
		}
	}
	return found, nil
}

// sysctl sets a network setting of the calling thread's namespace.
func sysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s=%s: %w", key, value, err)
	}
	return nil
}
