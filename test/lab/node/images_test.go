// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImageNameIsTheRepositorysLastElement(t *testing.T) {
	for ref, want := range map[string]string{
		"helloworld":                       "helloworld",
		"helloworld:v2":                    "helloworld",
		"example.com:5000/lab/helloworld":  "helloworld",
		"example.com/lab/helloworld:v2":    "helloworld",
		"example.com/lab/hello@sha256:abc": "hello",
		"a/hello:v1@sha256:abc":            "hello",
	} {
		require.Equal(t, want, imageName(ref), ref)
	}
}

func executable(t *testing.T, parts ...string) string {
	t.Helper()
	file := filepath.Join(parts...)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755))
	return file
}

func TestFindImage(t *testing.T) {
	first, second := realTemp(t), realTemp(t)
	dirs := []string{first, second}
	plain := executable(t, first, "plain")
	hidden := executable(t, second, "plain")
	require.NotEqual(t, plain, hidden)
	entry := executable(t, second, "folder", "entrypoint")
	executable(t, second, "inside", "root", "usr", "local", "bin", "agent")
	require.NoError(t, os.Symlink("root/usr/local/bin/agent", filepath.Join(second, "inside", "entrypoint")))
	require.NoError(t, os.Symlink(plain, filepath.Join(second, "linked")))
	for ref, want := range map[string]image{
		"x/plain:v1": {name: "plain", source: plain, target: "/usr/local/bin/plain"},
		"folder":     {name: "folder", source: entry, target: "/usr/local/bin/folder"},
		"inside":     {name: "inside", target: "/usr/local/bin/agent", root: filepath.Join(second, "inside", "root")},
		"linked":     {name: "linked", source: plain, target: "/usr/local/bin/linked"},
	} {
		got, err := findImage(dirs, ref)
		require.NoError(t, err, ref)
		require.Equal(t, want, got, ref)
	}
}

func TestMissingImageSaysWhatToDo(t *testing.T) {
	dir := realTemp(t)
	_, err := findImage([]string{dir, "/other"}, "example.com/nothing:v1")
	require.EqualError(t, err, `no image "nothing" in `+dir+`, /other; add one with `+"`isthmus-lab image add nothing FILE`")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no program"), 0o644))
	_, err = findImage([]string{dir}, "text")
	require.ErrorContains(t, err, "is not an executable file")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	_, err = findImage([]string{dir}, "empty")
	require.ErrorContains(t, err, "entrypoint")
	_, err = findImage([]string{dir}, "..")
	require.ErrorContains(t, err, "names no repository")
}

// realTemp is a temporary folder whose path holds no link.
func realTemp(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}
