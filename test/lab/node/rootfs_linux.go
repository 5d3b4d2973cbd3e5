// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// oldRoot is where the host's files are while the container's root is being made.
const oldRoot = "/.lab-host"

// makeRoot makes the container's root in this process's own mount namespace and moves into it:
//
//	overlay of the host's / (and the image's tree), written to a folder of the container
//	├── proc, sys, dev, tmp, run   the container's own
//	└── volumes                    at their real paths
//
// Volumes are mounted after the move, so that a link such as /var/run is followed inside the
// container and never out of it.
func makeRoot(r rootSpec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := r.mountBase(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.Merged, oldRoot), 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(r.Merged, filepath.Join(r.Merged, oldRoot)); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := mountSystem(r.Privileged); err != nil {
		return err
	}
	if err := writeFiles(r.Files); err != nil {
		return err
	}
	for _, m := range r.Mounts {
		if err := m.bind(); err != nil {
			return fmt.Errorf("mount at %s: %w", m.Target, err)
		}
	}
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return os.Remove(oldRoot)
}

// writeFiles writes files of the root, before the volumes, of which one may lie at the same place.
func writeFiles(files map[string]string) error {
	for path, text := range files {
		// It may be a link, which leads nowhere in here.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r rootSpec) overlayOptions() string {
	lower := make([]string, 0, len(r.Lower))
	for _, dir := range r.Lower {
		lower = append(lower, overlayPath(dir))
	}
	return "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + overlayPath(r.Upper) + ",workdir=" + overlayPath(r.Work)
}

// overlayPath escapes what has a meaning in overlayfs's options.
func overlayPath(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// mountSystem mounts what a program expects of any system. The host's /tmp and /run stay out: their
// sockets and locks are other programs'.
func mountSystem(privileged bool) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	mounts := []struct {
		kind, target, options string
		flags                 uintptr
	}{
		{"proc", "/proc", "", safe | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", safe | unix.MS_NOEXEC | unix.MS_RDONLY},
		{"tmpfs", "/tmp", "mode=1777", safe},
		{"tmpfs", "/run", "mode=755", safe},
		{"tmpfs", "/dev", "mode=755,size=64k", unix.MS_NOSUID},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if !privileged {
		if err := (mountSpec{Source: "/proc/sys", Target: "/proc/sys", ReadOnly: true}).bindFrom(""); err != nil {
			return fmt.Errorf("protect /proc/sys: %w", err)
		}
	}
	return mountDevices()
}

// mountDevices fills /dev with the harmless devices. A folder of its own keeps the pod from
// changing the host's.
func mountDevices() error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := (mountSpec{Source: "/dev/" + name, Target: "/dev/" + name}).bind(); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	if err := mountTerminals(); err != nil {
		return fmt.Errorf("terminals: %w", err)
	}
	if err := os.Mkdir("/dev/shm", 0o777); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=64m")
}

// mountTerminals gives the container terminals of its own, whose names mean something in it.
func mountTerminals() error {
	if err := os.Mkdir("/dev/pts", 0o755); err != nil {
		return err
	}
	if err := os.Symlink("pts/ptmx", "/dev/ptmx"); err != nil {
		return err
	}
	return unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
}

// bind mounts a file or folder of the host's root.
func (m mountSpec) bind() error { return m.bindFrom(oldRoot) }

func (m mountSpec) bindFrom(root string) error {
	source := filepath.Join(root, m.Source)
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if err := makeMountPoint(m.Target, info.IsDir()); err != nil {
		return err
	}
	if err := unix.Mount(source, m.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	return remountReadOnly(m.Target)
}

func makeMountPoint(target string, dir bool) error {
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
