// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// nonRoot is the user of a container that must not be root and names no user: an image of the lab
// has no user of its own, and this is the one that distroless images use.
const nonRoot = 65532

// prepare makes everything that a new process of the container needs: a fresh root, its volumes'
// places, its environment and its command.
func (c *container) prepare(ctx context.Context) (*process, error) {
	img, err := findImage(c.pod.agent.ImageDirs, c.spec.Image)
	if err != nil {
		return nil, err
	}
	env := c.pod.environment()
	vars, err := env.list(ctx, c.spec)
	if err != nil {
		return nil, &configError{err}
	}
	user, err := userOf(c.pod.spec, c.spec)
	if err != nil {
		return nil, &configError{err}
	}
	dir := filepath.Join(c.pod.dir, "containers", c.spec.Name)
	root, err := c.makeFiles(dir, img, vars)
	if err != nil {
		return nil, err
	}
	proc := &process{
		image: img, began: c.pod.agent.clock.Now(), exited: make(chan struct{}),
		message: filepath.Join(dir, "termination-log"),
		spec:    initSpec{Root: root, User: user, Argv: c.argv(img, vars), Env: withHome(vars, user.UID), Dir: workingDir(c.spec), TTY: c.spec.TTY},
	}
	if err := os.WriteFile(proc.message, nil, 0o666); err != nil {
		return nil, err
	}
	return proc, os.Chmod(proc.message, 0o666)
}

// argv is command and args, as Kubernetes has it: a command replaces the image's program.
func (c *container) argv(img image, env []string) []string {
	argv := expandAll(c.spec.Command, env)
	if len(argv) == 0 {
		argv = []string{img.target}
	}
	return append(argv, expandAll(c.spec.Args, env)...)
}

func workingDir(c *corev1.Container) string {
	if c.WorkingDir == "" {
		return "/"
	}
	return c.WorkingDir
}

func withHome(env []string, uid int) []string {
	if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		return env
	}
	home := "HOME=/"
	if uid == 0 {
		home = "HOME=/root"
	}
	return append(env, home)
}

// makeFiles makes the folders of a fresh root and says what is mounted in it.
func (c *container) makeFiles(dir string, img image, env []string) (rootSpec, error) {
	root := rootSpec{
		Merged: filepath.Join(dir, "root"), Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Lower: []string{"/"}, Hostname: c.pod.hostname(),
	}
	var err error
	if root.Files, err = c.pod.etcFiles(); err != nil {
		return root, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return root, err
	}
	for _, d := range []string{root.Merged, root.Upper, root.Work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return root, err
		}
	}
	if sc := c.spec.SecurityContext; sc != nil {
		root.ReadOnly = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
		root.Privileged = sc.Privileged != nil && *sc.Privileged
	}
	mounts, err := c.volumeMounts(env)
	if err != nil {
		return root, &configError{err}
	}
	if root.Mounts, err = imageMounts(img.root); err != nil {
		return root, err
	}
	root.Mounts = append(root.Mounts, mounts...)
	root.Mounts = append(root.Mounts, mountSpec{Source: filepath.Join(dir, "termination-log"), Target: c.messagePath()})
	if img.source != "" {
		root.Mounts = append(root.Mounts, mountSpec{Source: img.source, Target: img.target, ReadOnly: true})
	}
	return root, nil
}

// imageMounts puts each file of an image's tree at its place. The tree cannot be a layer of the
// overlay: it lies below /, which is one, and overlayfs refuses layers that overlap (ELOOP).
func imageMounts(tree string) ([]mountSpec, error) {
	if tree == "" {
		return nil, nil
	}
	var mounts []mountSpec
	err := filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		mounts = append(mounts, mountSpec{Source: path, Target: "/" + rel, ReadOnly: true})
		return nil
	})
	return mounts, err
}

func (c *container) messagePath() string {
	if c.spec.TerminationMessagePath == "" {
		return corev1.TerminationMessagePathDefault
	}
	return c.spec.TerminationMessagePath
}

// volumeMounts lists the container's mounts, outer folders before inner ones.
func (c *container) volumeMounts(env []string) ([]mountSpec, error) {
	var mounts []mountSpec
	for _, m := range c.spec.VolumeMounts {
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expandAll([]string{m.SubPathExpr}, env)[0]
		}
		source, err := c.mountSource(m.Name, sub)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mountSpec{Source: source, Target: filepath.Clean(m.MountPath), ReadOnly: m.ReadOnly})
	}
	slices.SortStableFunc(mounts, func(a, b mountSpec) int { return strings.Compare(a.Target, b.Target) })
	return mounts, nil
}

// mountSource returns the file or folder of a volume; a sub path that is not there becomes a folder.
// Links in a sub path are followed here and must stay in the volume.
func (c *container) mountSource(volume, sub string) (string, error) {
	at := c.pod.volumePath(volume)
	if sub == "" {
		return at, nil
	}
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leaves volume %q", sub, volume)
	}
	if _, err := os.Stat(filepath.Join(at, sub)); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Join(at, sub), 0o755); err != nil {
			return "", err
		}
	}
	base, err := filepath.EvalSymlinks(at)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(at, sub))
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(base, real); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("subPath %q leaves volume %q", sub, volume)
	}
	return real, nil
}

// userOf merges the pod's and the container's security contexts, the container's first.
func userOf(pod *corev1.Pod, c *corev1.Container) (userSpec, error) {
	p, s := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	uid, gid, nonRootOnly := first(s.RunAsUser, p.RunAsUser), first(s.RunAsGroup, p.RunAsGroup), first(s.RunAsNonRoot, p.RunAsNonRoot)
	user := userSpec{Groups: []int{}}
	must := nonRootOnly != nil && *nonRootOnly
	switch {
	case uid != nil:
		user.UID = int(*uid)
	case must:
		user.UID, user.GID = nonRoot, nonRoot
	}
	if must && user.UID == 0 {
		return user, errors.New("runAsNonRoot is set and runAsUser is 0")
	}
	if gid != nil {
		user.GID = int(*gid)
	}
	for _, g := range p.SupplementalGroups {
		user.Groups = append(user.Groups, int(g))
	}
	if p.FSGroup != nil {
		user.Groups = append(user.Groups, int(*p.FSGroup))
	}
	user.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
	user = user.existing(userMap(), groupMap())
	user.DropCapabilities = s.Capabilities != nil && len(s.Capabilities.Add) == 0 && slices.Contains(s.Capabilities.Drop, "ALL")
	return user, nil
}

func first[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}
