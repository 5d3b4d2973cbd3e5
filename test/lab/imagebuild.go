// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/test/lab/tools"
)

// AddGoImage builds a Go command, statically, and makes it an image. Without a version the package
// is one of the checkout, or of a module that its go.mod names; with one (example.com/mod/cmd@v1.2.3)
// it comes from the module proxy.
func (l *Lab) AddGoImage(ctx context.Context, name, pkg string) error {
	if err := checkImageName(name); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "isthmus-image-*")
	if err != nil {
		return err
	}
	built := filepath.Join(dir, name)
	from, version, versioned := strings.Cut(pkg, "@")
	if versioned {
		err = buildVersion(ctx, dir, from, version, built)
	} else {
		err = buildHere(ctx, pkg, built)
	}
	if err == nil {
		err = l.AddImage(name, built, "")
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func buildHere(ctx context.Context, pkg, to string) error {
	root, err := tools.Root()
	if err != nil {
		return err
	}
	if strings.HasPrefix(pkg, ".") {
		if root, err = os.Getwd(); err != nil {
			return err
		}
	}
	err = goBuild(ctx, root, pkg, to)
	if err != nil && !strings.HasPrefix(pkg, ".") {
		return fmt.Errorf("%w\n(a package of another module needs its version: %s@v1.2.3)", err, pkg)
	}
	return err
}

// buildVersion builds a package of a published module in a module of its own.
func buildVersion(ctx context.Context, dir, pkg, version, to string) error {
	module, err := findModule(ctx, pkg, version)
	if err != nil {
		return err
	}
	replaces, err := module.replacements(ctx)
	if err != nil {
		return err
	}
	edit := append([]string{"mod", "edit", "-require", module.Path + "@" + module.Version}, replaces...)
	for _, args := range [][]string{{"mod", "init", "isthmus-lab/image"}, edit} {
		if _, err := goCommand(ctx, dir, args...); err != nil {
			return err
		}
	}
	return goBuild(ctx, dir, pkg, to, "-mod=mod")
}

// published is what `go mod download -json` says of a module.
type published struct{ Path, Version, GoMod, Error string }

// findModule finds the module of a package: the longest part of its path that is one.
func findModule(ctx context.Context, pkg, version string) (published, error) {
	var first error
	for at := pkg; at != "." && at != "/"; at = path.Dir(at) {
		var module published
		out, err := goCommand(ctx, "", "mod", "download", "-json", at+"@"+version)
		if jsonErr := json.Unmarshal(out, &module); jsonErr != nil {
			return module, errors.Join(err, jsonErr)
		}
		if module.Error == "" {
			return module, nil
		}
		if first == nil {
			first = errors.New(module.Error)
		}
	}
	return published{}, fmt.Errorf("no module has the package %s at version %s: %w", pkg, version, first)
}

// replacements repeats what the module's own go.mod replaces, which a build from outside ignores.
// A folder of its repository becomes the module that is published from it, at the same version.
func (m published) replacements(ctx context.Context) ([]string, error) {
	out, err := goCommand(ctx, "", "mod", "edit", "-json", m.GoMod)
	if err != nil {
		return nil, err
	}
	type ref struct{ Path, Version string }
	var file struct{ Replace []struct{ Old, New ref } }
	if err := json.Unmarshal(out, &file); err != nil {
		return nil, err
	}
	var args []string
	for _, r := range file.Replace {
		if strings.HasPrefix(r.New.Path, ".") {
			r.New = ref{r.Old.Path, m.Version}
		}
		old := r.Old.Path
		if r.Old.Version != "" {
			old += "@" + r.Old.Version
		}
		args = append(args, "-replace", old+"="+r.New.Path+"@"+r.New.Version)
	}
	return args, nil
}

// goBuild builds a command that needs nothing of the machine.
func goBuild(ctx context.Context, dir, pkg, to string, flags ...string) error {
	name, err := goCommand(ctx, dir, append(append([]string{"list"}, flags...), "-f", "{{.Name}}", pkg)...)
	if err != nil {
		return err
	}
	if kind := strings.TrimSpace(string(name)); kind != "main" {
		return fmt.Errorf("%s is package %s: an image is built from a package main", pkg, kind)
	}
	_, err = goCommand(ctx, dir, append(append([]string{"build"}, flags...), "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)...)
	return err
}

// goCommand runs the go command; an error holds what it said.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("go is missing: it is needed to build an image (https://go.dev/doc/install)")
	}
	if err != nil {
		return out, fmt.Errorf("go %s %s: %w\n%s", args[0], args[len(args)-1], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
