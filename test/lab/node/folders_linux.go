// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel refuses an ordinary user's namespace an overlay over / (EINVAL): it would uncover what lies below the mounts
// of the machine's owner. An overlay over a folder without mounts in it is allowed. So the root is made of folders:
//
//	tmpfs
//	├── bin -> usr/bin, …     links as on the host
//	├── etc, opt, usr, var …  an overlay each; where that is refused, a folder whose children are tried
//	└── home, root, …         empty
//
// In such an overlay the host's folders belong to nobody whom the namespace knows, and not even its root may write to
// them. Where something is to be mounted or written there, its place is made in the upper layer, before the overlay is.

// private are folders of people and of the machine, which a container has no business in; the last are its own anyway.
var private = []string{"/boot", "/home", "/lost+found", "/media", "/mnt", "/root", "/srv", "/proc", "/sys", "/dev", "/tmp", "/run"}

// folderDepth is how deep folders are tried one by one.
const folderDepth = 3

// mountBase puts the host's files, with the container's own layer over them, at r.Merged.
func (r rootSpec) mountBase() error {
	err := unix.Mount("overlay", r.Merged, "overlay", 0, r.overlayOptions())
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) || !inUserNamespace() {
		return fmt.Errorf("overlay over / (the lab needs root and a kernel with overlayfs): %w", err)
	}
	if err := unix.Mount("tmpfs", r.Merged, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("root of folders: %w", err)
	}
	if err := r.makePlaces(); err != nil {
		return err
	}
	return r.mountFolders("/", folderDepth)
}

func inUserNamespace() bool { return !userMap().has(1<<32 - 2) }

// mountFolders makes what is in a folder of the host appear below r.Merged, where the folder itself is tmpfs.
func (r rootSpec) mountFolders(at string, depth int) error {
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil //nolint:nilerr // a folder that its owner closed stays empty
	}
	for _, e := range entries {
		path := filepath.Join(at, e.Name())
		merged := filepath.Join(r.Merged, path)
		switch {
		case e.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, merged); err != nil {
				return err
			}
		case e.IsDir():
			if err := os.Mkdir(merged, 0o755); err != nil {
				return err
			}
			if slices.Contains(private, path) || r.overlayFolder(path) == nil || depth == 0 {
				continue
			}
			if err := r.mountFolders(path, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlayFolder puts one folder of the host, with the container's layer over it, at its place.
func (r rootSpec) overlayFolder(path string) error {
	one := rootSpec{
		Lower: []string{path}, Upper: filepath.Join(r.Upper, path),
		Work: filepath.Join(r.Work, strings.ReplaceAll(strings.Trim(path, "/"), "/", "-")),
	}
	for _, dir := range []string{one.Upper, one.Work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The layer's marks are "user." attributes: an ordinary user may set no others.
	return unix.Mount("overlay", filepath.Join(r.Merged, path), "overlay", 0, one.overlayOptions()+",userxattr")
}

// writable are folders that programs like to write to.
var writable = []string{"/etc", "/opt", "/usr/local/bin", "/usr/local/share", "/var/cache", "/var/lib", "/var/log", "/var/tmp"}

// makePlaces makes in the upper layer what a container could not make in the host's folders.
func (r rootSpec) makePlaces() error {
	for _, dir := range writable {
		if _, err := os.Stat(dir); err == nil {
			if err := os.MkdirAll(filepath.Join(r.Upper, dir), 0o755); err != nil {
				return err
			}
		}
	}
	for _, m := range r.Mounts {
		info, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		target := onHost(m.Target)
		if _, err := os.Stat(target); err == nil {
			continue
		}
		if err := makeMountPoint(filepath.Join(r.Upper, target), info.IsDir()); err != nil {
			return err
		}
	}
	for path := range r.Files {
		if err := os.MkdirAll(filepath.Join(r.Upper, filepath.Dir(onHost(path))), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// onHost follows the links in a path as far as it exists on the host: /var/run/secrets is /run/secrets.
func onHost(path string) string {
	for at, rest := path, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if at == "/" {
			return path
		}
	}
}

// protect makes / read-only, and with it the overlays of a root of folders. Volumes stay as they are.
func (r rootSpec) protect() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	points := []string{"/"}
	for line := range strings.Lines(string(mounts)) {
		// 36 35 98:0 / /usr rw,noatime - overlay overlay rw,lowerdir=/usr,upperdir=…   (proc(5))
		if fields := strings.Fields(line); len(fields) > 4 && strings.Contains(line, ",upperdir="+overlayPath(r.Upper)+"/") {
			points = append(points, fields[4])
		}
	}
	for _, point := range points {
		if err := remountReadOnly(point); err != nil {
			return err
		}
	}
	return nil
}

// remountReadOnly keeps what else is forbidden at a mount: a user namespace may add to it and not take from it.
func remountReadOnly(point string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		return err
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY)
	for set, flag := range map[int64]uintptr{unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC} {
		if st.Flags&set != 0 {
			flags |= flag
		}
	}
	return unix.Mount("", point, "", flags, "")
}
