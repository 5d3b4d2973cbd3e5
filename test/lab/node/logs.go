// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
)

const (
	// logFileSize bounds a log file. One older part of it is kept, and one earlier life of the
	// container, so that a container that floods its log fills 20 MiB and no more.
	logFileSize = 5 << 20
	// logLineSize is where a line is cut into parts, as container runtimes do it.
	logLineSize = 16 << 10
	// logPipeSize is what a container may say while the node agent is stopped or dead, before it has
	// to wait: the kernel's most for an ordinary user.
	logPipeSize = 1 << 20
	// removedLogs is how many pods that are gone keep their logs, for whoever asks why they ended.
	removedLogs = 20
)

// containerLog is the log of one life of a container, in the format of the CRI: a time, a stream and
// a tag before each line, which is what makes --since and --timestamps true.
//
// The container writes to pipes of which it holds the reading end, too: when the node agent dies,
// nothing is sent to a container that goes on speaking.
type containerLog struct {
	path string
	// failed is told once why lines are lost.
	failed func(error)
	// done is closed when the container has closed its streams and all of them is written.
	done    chan struct{}
	copying sync.WaitGroup

	mu        sync.Mutex
	file      *os.File
	size      int64
	told      bool
	listeners map[*listener]bool
}

// logPath returns the log file of one life of a container: its id names the pod, the container and
// how often it was started before.
func (a *agent) logPath(p *pod, container string, life int32) string {
	return filepath.Join(a.logDir(p), container, strconv.Itoa(int(life))+".log")
}

func (a *agent) logsDir() string { return filepath.Join(a.StateDir, "logs") }

// logDir is kubelet's, but for a pod whose name fits a Pod and not a file: that is cut, and the uid tells it from others.
func (a *agent) logDir(p *pod) string {
	const most = 255 // NAME_MAX
	before, after := p.spec.Namespace+"_"+p.spec.Name, "_"+string(p.spec.UID)
	return filepath.Join(a.logsDir(), before[:min(len(before), most-len(after))]+after)
}

// newLog opens the log of the container's next life and forgets the one before its last.
func (c *container) newLog() (*containerLog, error) {
	a := c.pod.agent
	path := a.logPath(c.pod, c.spec.Name, c.restarts)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c.restarts > 1 {
		old := a.logPath(c.pod, c.spec.Name, c.restarts-2)
		_, _ = os.Remove(old), os.Remove(old+".1")
	}
	l := &containerLog{path: path, done: make(chan struct{}), listeners: map[*listener]bool{}, failed: func(err error) {
		c.pod.event(corev1.EventTypeWarning, "LogLost", fmt.Sprintf("container %s: its log is not written: %v", c.spec.Name, explainDisk(err, path)))
	}}
	return l, l.open()
}

func (l *containerLog) open() (err error) {
	l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.size = info.Size()
	return nil
}

// stream makes one of the container's output streams, owned by the container's user, who may open
// it again as /dev/stdout. The caller closes what it gets when the container has it.
func (l *containerLog) stream(kind runtimeapi.LogStreamType, user userSpec) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	both, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", write.Fd()), os.O_RDWR, 0)
	if err := errors.Join(err, write.Close()); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	if err := both.Chown(user.UID, user.GID); err != nil {
		return nil, errors.Join(err, read.Close(), both.Close())
	}
	// A smaller pipe would do: the container only waits sooner when nobody listens.
	_, _ = unix.FcntlInt(both.Fd(), unix.F_SETPIPE_SZ, logPipeSize)
	l.follow(kind, read)
	return both, nil
}

// follow writes what comes from r until its end.
func (l *containerLog) follow(kind runtimeapi.LogStreamType, r io.ReadCloser) {
	l.copying.Go(func() {
		defer func() { _ = r.Close() }()
		l.copy(kind, r)
	})
}

// seal says that all streams are made; the log closes after the last of them.
func (l *containerLog) seal() {
	go func() {
		l.copying.Wait()
		l.mu.Lock()
		_ = l.file.Close()
		l.mu.Unlock()
		close(l.done)
	}()
}

func (l *containerLog) copy(kind runtimeapi.LogStreamType, r io.Reader) {
	buf := make([]byte, 2*logLineSize)
	var rest []byte
	for {
		n, err := r.Read(buf)
		l.tell(kind, buf[:n])
		var lines []byte
		lines, rest = criLines(time.Now(), kind, append(rest, buf[:n]...))
		if err != nil && len(rest) > 0 {
			lines, _ = criLines(time.Now(), kind, append(rest, '\n'))
		}
		l.write(lines)
		if err != nil {
			return
		}
	}
}

// criLines formats what a container said as lines of the CRI, and returns the unfinished rest.
func criLines(now time.Time, kind runtimeapi.LogStreamType, said []byte) (lines, rest []byte) {
	prefix := now.Format(logs.RFC3339NanoFixed) + " " + string(kind) + " "
	for {
		end, tag := bytes.IndexByte(said, '\n'), runtimeapi.LogTagFull
		skip := 1
		if end < 0 && len(said) < logLineSize {
			return lines, bytes.Clone(said)
		}
		if end < 0 || end > logLineSize {
			end, tag, skip = logLineSize, runtimeapi.LogTagPartial, 0
		}
		lines = append(append(append(lines, prefix...), string(tag)+" "...), said[:end]...)
		lines = append(lines, '\n')
		said = said[end+skip:]
	}
}

// write appends lines. A disk that is full loses them: a container does not stop for its log.
func (l *containerLog) write(lines []byte) {
	if len(lines) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.rotate(len(lines))
	if err == nil {
		_, err = l.file.Write(lines)
	}
	if err == nil {
		l.size += int64(len(lines))
		return
	}
	_ = l.file.Truncate(l.size) // half a line would spoil the next one
	if !l.told {
		l.told = true
		l.failed(err)
	}
}

// rotate makes room for n bytes.
func (l *containerLog) rotate(n int) error {
	if l.size == 0 || l.size+int64(n) <= logFileSize {
		return nil
	}
	if err := errors.Join(l.file.Close(), os.Rename(l.path, l.path+".1")); err != nil {
		return errors.Join(err, l.open())
	}
	return l.open()
}

// listener hears what a container says from now on: an attached client.
type listener struct {
	said chan utterance
}

type utterance struct {
	kind runtimeapi.LogStreamType
	data []byte
}

// listenerBacklog is how many pieces a client may lag behind before it misses some: a container
// does not wait for whoever watches it.
const listenerBacklog = 256

func (l *containerLog) listen() (heard *listener, leave func()) {
	heard = &listener{said: make(chan utterance, listenerBacklog)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners[heard] = true
	return heard, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.listeners, heard)
	}
}

func (l *containerLog) tell(kind runtimeapi.LogStreamType, data []byte) {
	if len(data) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for heard := range l.listeners {
		select {
		case heard.said <- utterance{kind, bytes.Clone(data)}:
		default:
		}
	}
}

// pruneLogs removes the logs of pods that are gone, all but those of the last few.
func (a *agent) pruneLogs() {
	entries, err := os.ReadDir(a.logsDir())
	if err != nil {
		return
	}
	type folder struct {
		name string
		at   time.Time
	}
	var gone []folder
	for _, e := range entries {
		uid := e.Name()[strings.LastIndexByte(e.Name(), '_')+1:]
		if info, err := e.Info(); err == nil && !a.knows(uid) {
			gone = append(gone, folder{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(gone, func(x, y folder) int { return cmp.Or(y.at.Compare(x.at), strings.Compare(x.name, y.name)) })
	for _, old := range gone[min(removedLogs, len(gone)):] {
		if err := os.RemoveAll(filepath.Join(a.logsDir(), old.name)); err != nil {
			a.log.Warn("an old log was not removed", "folder", old.name, "error", err)
		}
	}
}

// explainDisk says what to do about a full disk.
func explainDisk(err error, path string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w; make room on the disk that holds %s", err, filepath.Dir(path))
	}
	return err
}
