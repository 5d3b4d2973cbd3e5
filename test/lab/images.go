// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Programs of the lab's own that are built from the checkout at each start. An image is an
// executable named like the image's repository.
var (
	imagePackages   = []string{"./test/lab/images/helloworld", "./test/lab/images/echoserver"}
	hubPackage      = "./cmd/isthmus-hub"
	commandPackages = []string{"./cmd/isthmus-lab"}
)

func (l *Lab) imageDir() string { return filepath.Join(l.Dir, "images") }
func (l *Lab) binDir() string   { return filepath.Join(l.Dir, "bin") }

// buildImages makes the images of the lab's pods, and the lab's own command.
func (l *Lab) buildImages(ctx context.Context, root string, hub, mesh bool) error {
	packages := imagePackages
	if hub {
		packages = append([]string{hubPackage}, packages...)
	}
	if err := buildPrograms(ctx, root, l.imageDir(), packages); err != nil {
		return err
	}
	if err := buildPrograms(ctx, root, l.binDir(), commandPackages); err != nil {
		return err
	}
	if err := replaceLink(l.tools.File(tools.Kubernetes, "kubectl"), filepath.Join(l.binDir(), "kubectl")); err != nil {
		return err
	}
	if err := linkFile(l.tools.File(tools.CoreDNS, "coredns"), filepath.Join(l.imageDir(), "coredns")); err != nil {
		return err
	}
	if !mesh {
		return nil
	}
	pilot := linkFile(l.tools.File(tools.Istio, "pilot-discovery"), filepath.Join(l.imageDir(), "pilot"))
	return errors.Join(pilot, l.makeProxyImage())
}

// buildPrograms builds packages of the checkout into dir. They are built in the cache first, in a
// folder of this checkout's own, where `go build` finds what is up to date and does not link again.
func buildPrograms(ctx context.Context, root, dir string, packages []string) error {
	cache, err := tools.CacheDir()
	if err != nil {
		return err
	}
	built := filepath.Join(cache, "programs", strings.ReplaceAll(strings.Trim(root, "/"), "/", "-"))
	if err := os.MkdirAll(built, 0o755); err != nil {
		return err
	}
	args := append([]string{"build", "-o", built + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, output.String())
	}
	for _, p := range packages {
		name := filepath.Base(p)
		if err := replaceFile(filepath.Join(built, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile copies a program to where another may be running: it gets a file of its own.
func replaceFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

// makeProxyImage makes the image proxyv2 that istiod's Deployments name: pilot-agent, with Envoy and
// the template of its bootstrap where pilot-agent looks for them.
func (l *Lab) makeProxyImage() error {
	image := filepath.Join(l.imageDir(), "proxyv2")
	return errors.Join(
		linkFile(l.tools.File(tools.Istio, "pilot-agent"), filepath.Join(image, "entrypoint")),
		linkFile(l.tools.File(tools.Istio, "pilot-agent"), filepath.Join(image, "root/usr/local/bin/pilot-agent")),
		linkFile(l.tools.File(tools.Envoy, "envoy"), filepath.Join(image, "root/usr/local/bin/envoy")),
		linkFile(l.tools.File(tools.Istio, controlplane.EnvoyBootstrap),
			filepath.Join(image, "root/var/lib/istio/envoy/envoy_bootstrap_tmpl.json")),
	)
}

// linkFile makes to the same file as from: by a hard link, or across file systems by a copy.
func linkFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func replaceLink(target, link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, link)
}
