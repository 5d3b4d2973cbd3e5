// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"isthmus.dev/isthmus/test/lab/node"
)

// imageNames are the last elements of repositories, as registries allow them.
var imageNames = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*$`)

// imageDirs are where a cluster's pods find their images, in the order of the search: what people
// added comes before the lab's own, so that they can try another program in the place of one.
func imageDirs(lab string) []string {
	return []string{filepath.Join(lab, "added-images"), filepath.Join(lab, "images")}
}

func (l *Lab) addedImages() string { return imageDirs(l.Dir)[0] }

// checkImageName says what is wrong with the name of an image.
func checkImageName(name string) error {
	if imageNames.MatchString(name) && len(name) <= 128 {
		return nil
	}
	base, _, _ := strings.Cut(path.Base(name), "@")
	base, _, _ = strings.Cut(base, ":")
	if base != name && imageNames.MatchString(base) {
		return fmt.Errorf("image %q: leave registry, path and tag away: pods that name %s run the image %q", name, name, base)
	}
	return fmt.Errorf("image %q: a name is of lower-case letters and digits, with dots, dashes and underscores between them", name)
}

// AddImage makes a file or a folder an image of the lab: pods that name it run it from their next
// start on. A file is a program of this machine. A folder is a tree of files that a container sees
// over the machine's own; entrypoint is the program's path in it, as the container sees it.
func (l *Lab) AddImage(name, from, entrypoint string) error {
	if err := checkImageName(name); err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir() && entrypoint == "":
		return fmt.Errorf("%s is a folder: say which of its files is the program (--entrypoint /bin/…)", from)
	case info.IsDir():
		return l.addTree(name, from, entrypoint)
	case entrypoint != "":
		return fmt.Errorf("%s is a file: --entrypoint is for folders", from)
	}
	if err := node.CheckProgram(from); err != nil {
		return err
	}
	return l.putImage(name, func(at string) error { return replaceFile(from, at) })
}

// addTree copies a folder.
func (l *Lab) addTree(name, from, entrypoint string) error {
	inTree := filepath.Join("root", filepath.Clean("/"+entrypoint))
	program := filepath.Join(from, filepath.Clean("/"+entrypoint))
	if err := node.CheckProgram(program); err != nil {
		return fmt.Errorf("entrypoint: %w", err)
	}
	return l.putImage(name, func(at string) error {
		return errors.Join(os.CopyFS(filepath.Join(at, "root"), os.DirFS(from)), os.Symlink(inTree, filepath.Join(at, "entrypoint")))
	})
}

// putImage has put make an image beside its place and moves it there, so that a pod finds the old
// one or the new one, whole.
func (l *Lab) putImage(name string, put func(at string) error) error {
	dir := l.addedImages()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	made, to := filepath.Join(tmp, name), filepath.Join(dir, name)
	err = put(made)
	if err == nil {
		err = os.RemoveAll(to)
	}
	if err == nil {
		err = os.Rename(made, to)
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// Image is a program that the lab's pods can name.
type Image struct {
	Name   string
	Folder bool // it has files of its own
	Added  bool // by somebody, and not the lab's own
}

// Images lists the images that pods find, by name.
func (l *Lab) Images() ([]Image, error) {
	var all []Image
	for i, dir := range imageDirs(l.Dir) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			hidden := slices.ContainsFunc(all, func(other Image) bool { return other.Name == e.Name() })
			if !hidden && !strings.HasPrefix(e.Name(), ".") {
				all = append(all, Image{Name: e.Name(), Folder: e.IsDir(), Added: i == 0})
			}
		}
	}
	slices.SortFunc(all, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// RemoveImage removes an image that somebody added. Pods that run it go on until they end.
func (l *Lab) RemoveImage(name string) error {
	at := filepath.Join(l.addedImages(), name)
	if _, err := os.Stat(at); err == nil && imageNames.MatchString(name) {
		return os.RemoveAll(at)
	}
	images, err := l.Images()
	if err != nil {
		return err
	}
	var added []string
	for _, image := range images {
		switch {
		case image.Added:
			added = append(added, image.Name)
		case image.Name == name:
			return fmt.Errorf("image %s is the lab's own: only added ones can be removed", name)
		}
	}
	if len(added) == 0 {
		return fmt.Errorf("no image %q: none was added", name)
	}
	return fmt.Errorf("no image %q: added were %s", name, strings.Join(added, ", "))
}
