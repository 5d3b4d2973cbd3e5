// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func testLog(t *testing.T, path string) (l *containerLog, failures *[]error) {
	failures = &[]error{}
	l = &containerLog{path: path, done: make(chan struct{}), listeners: map[*listener]bool{},
		failed: func(err error) { *failures = append(*failures, err) }}
	require.NoError(t, l.open())
	t.Cleanup(func() { _ = l.file.Close() })
	return l, failures
}

func TestLinesOfALogAreWholeOrMarked(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 5, time.UTC)
	lines, rest := criLines(now, runtimeapi.Stderr, []byte("one\n\nunfini"))
	require.Equal(t, "2026-11-22T03:00:00.000000005Z stderr F one\n2026-11-22T03:00:00.000000005Z stderr F \n", string(lines))
	require.Equal(t, "unfini", string(rest))
	long := strings.Repeat("x", logLineSize)
	lines, rest = criLines(now, runtimeapi.Stdout, []byte(long+"yz\n"))
	require.Equal(t, "2026-11-22T03:00:00.000000005Z stdout P "+long+"\n2026-11-22T03:00:00.000000005Z stdout F yz\n", string(lines))
	require.Empty(t, rest)
}

func TestALogThatFloodsIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l, failures := testLog(t, path)
	l.copy(runtimeapi.Stdout, strings.NewReader(strings.Repeat("a line of some words, again and again\n", 1<<19)+"last\n"))
	require.Empty(t, *failures)
	var total int64
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		total += info.Size()
	}
	require.Len(t, files, 2)
	require.LessOrEqual(t, total, int64(2*logFileSize))
	var said strings.Builder
	require.NoError(t, ReadLog(t.Context(), LogRequest{File: path, Options: corev1.PodLogOptions{TailLines: ptr.To(int64(1))}, Stdout: &said}))
	require.Equal(t, "last\n", said.String())
}

func TestAFullDiskIsToldOnceAndStopsNothing(t *testing.T) {
	l, failures := testLog(t, "/dev/full")
	l.copy(runtimeapi.Stdout, strings.NewReader(strings.Repeat("lost\n", 1<<16)))
	require.Len(t, *failures, 1)
	require.ErrorIs(t, (*failures)[0], unix.ENOSPC)
	require.ErrorContains(t, explainDisk((*failures)[0], "/lab/logs/0.log"), "make room on the disk that holds /lab/logs")
	require.NoError(t, explainDisk(nil, ""))
}

func TestWhichLifeALogIsOf(t *testing.T) {
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}
	for name, c := range map[string]struct {
		state, last corev1.ContainerState
		previous    bool
		want        string
		err         error
	}{
		"the running one":               {state: running, last: ended("1"), want: "now"},
		"the one before it":             {state: running, last: ended("1"), previous: true, want: "1"},
		"there was none before":         {state: running, previous: true, err: errors.New(`previous terminated container "c" in pod "p" not found`)},
		"it ended":                      {state: ended("2"), last: ended("1"), want: "2"},
		"it waits to be started again":  {state: waiting, last: ended("1"), want: "1"},
		"it waits for its first start":  {state: waiting, err: errors.New(`container "c" in pod "p" is waiting to start: ErrImagePull`)},
		"it never started and ended so": {state: ended(""), err: errors.New(`container "c" in pod "p" has not started`)},
	} {
		id, err := lifeOf("p", &corev1.ContainerStatus{Name: "c", ContainerID: "now", State: c.state, LastTerminationState: c.last}, c.previous)
		require.Equal(t, c.err, err, name)
		require.Equal(t, c.want, id, name)
	}
}

func TestAPodOfTheLongestNameHasALog(t *testing.T) {
	a := &agent{Config: Config{StateDir: t.TempDir()}}
	p := &pod{spec: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: strings.Repeat("n", 63), Name: strings.Repeat("p", 253), UID: "b3c11b44-6b6c-4f36-9c60-07d4ef1b5d2f",
	}}}
	path := a.logPath(p, strings.Repeat("c", 63), 0)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
}
