// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// image is what a container runs: an executable of the lab's image folders, with or without a tree
// of files of its own.
type image struct {
	name string
	// source is the executable on the host, target where the container sees it. An empty source
	// says that target already lies in root.
	source, target string
	// root is a tree that is laid over the host's own; empty for a plain executable.
	root string
}

// imageError says that no folder has the image; its text is what a person reads in the Pod's status.
type imageError struct {
	image, name string
	dirs        []string
	err         error
}

func (e *imageError) Error() string {
	if e.err != nil {
		return fmt.Sprintf("image %q is damaged: %v; add it again with `isthmus-lab image add %s FILE`", e.image, e.err, e.name)
	}
	return fmt.Sprintf("no image %q in %s; add one with `isthmus-lab image add %s FILE`",
		e.name, strings.Join(e.dirs, ", "), e.name)
}

func (e *imageError) Unwrap() error { return e.err }

// imageName returns the name under which a reference is looked up: the repository's last element,
// without tag and digest.
func imageName(ref string) string {
	name, _, _ := strings.Cut(path.Base(ref), "@")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// findImage looks a reference up in dirs, the first that has it wins. An image is an executable
// `<dir>/<name>` or a folder `<dir>/<name>/` with `entrypoint` and, if need be, `root/`.
func findImage(dirs []string, ref string) (image, error) {
	name := imageName(ref)
	if name == "" || name == "." || name == ".." || name == "/" {
		return image{}, &imageError{image: ref, name: "NAME", dirs: dirs, err: fmt.Errorf("the reference names no repository")}
	}
	for _, dir := range dirs {
		at := filepath.Join(dir, name)
		info, err := os.Stat(at)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return image{}, &imageError{image: ref, name: name, dirs: dirs, err: err}
		}
		var img image
		if info.IsDir() {
			img, err = imageFolder(at, name)
		} else {
			img, err = imageFile(at, name)
		}
		if err != nil {
			return image{}, &imageError{image: ref, name: name, dirs: dirs, err: err}
		}
		return img, nil
	}
	return image{}, &imageError{image: ref, name: name, dirs: dirs}
}

// imageFile reads a plain executable. Links are followed here: inside the container they lead
// elsewhere.
func imageFile(file, name string) (image, error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return image{}, err
	}
	return image{name: name, source: real, target: "/usr/local/bin/" + name}, mustBeExecutable(real)
}

// imageFolder reads an image folder. An entrypoint that is a link into root/ runs at its own path,
// so that a program which looks for files beside itself finds them.
func imageFolder(dir, name string) (image, error) {
	img, err := imageFile(filepath.Join(dir, "entrypoint"), name)
	if err != nil {
		return image{}, err
	}
	root, err := filepath.EvalSymlinks(filepath.Join(dir, "root"))
	if os.IsNotExist(err) {
		return img, nil
	}
	if err != nil {
		return image{}, err
	}
	img.root = root
	if rel, err := filepath.Rel(root, img.source); err == nil && filepath.IsLocal(rel) {
		img.source, img.target = "", "/"+rel
	}
	return img, nil
}

// mustBeExecutable looks at the file's mode only: a container may bring a command of its own.
func mustBeExecutable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not an executable file", file)
	}
	return nil
}
