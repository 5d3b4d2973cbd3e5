// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// drainWait is how long the output of a program that ended is waited for: something that it left
// behind in the container may hold its streams for ever.
const drainWait = time.Second

// execution is a program that is to run inside a running container.
type execution struct {
	argv     []string
	in       io.Reader // nil is /dev/null
	out, err io.Writer // nil throws it away
	tty      bool      // then out has everything
	resize   <-chan remotecommand.TerminalSize
}

// exec runs a program as the container's user, in its namespaces and with its environment, until it
// ends or ctx does. A program that ends with another code than 0 is a utilexec.CodeExitError.
func (c *container) exec(ctx context.Context, proc *process, e execution) error {
	streams, files, err := e.streams()
	if err != nil {
		return err
	}
	s, err := initProcess(initSpec{
		JoinPID: proc.pid(), User: proc.spec.User, Argv: e.argv, Env: proc.spec.Env, Dir: proc.spec.Dir, TTY: e.tty,
	}, files)
	if err == nil {
		err = s.start(c.pod.netns)
	}
	files.close()
	if err != nil {
		streams.close()
		return err
	}
	if e.tty {
		streams = e.console(s.console)
	}
	end := func() { _ = s.cmd.Process.Signal(syscall.SIGTERM) }
	unwatch := context.AfterFunc(ctx, end)
	defer unwatch()
	lost := streams.copy(end)
	waitErr := s.cmd.Wait()
	select {
	case <-lost:
	case <-time.After(drainWait):
	}
	streams.close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return exitOf(s.cmd.ProcessState.ExitCode(), waitErr)
}

func exitOf(code int, err error) error {
	switch {
	case code == 0:
		return nil
	case code > 0:
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

// runCommand runs a command of the pod itself, a probe or a hook: its output is part of the error.
func (c *container) runCommand(ctx context.Context, proc *process, argv []string) error {
	var said limitedBuffer
	err := c.exec(ctx, proc, execution{argv: argv, out: &said, err: &said})
	if err != nil && said.Len() > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return err
}

// limitedBuffer keeps the first 10 KiB, kubelet's limit for what a probe says.
type limitedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Buffer.Write(p[:min(len(p), max(0, 10<<10-b.Len()))])
	return len(p), nil
}

// close closes what a child has copies of.
func (s stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// pumps copy between a program and whoever runs it.
type pumps struct {
	in   func() // nil where nothing goes in; may be stuck until the other side leaves
	outs []func() error
	ours []io.Closer
}

// streams makes the pipes of an execution without a terminal: the agent's side and the program's.
func (e execution) streams() (pumps, stdio, error) {
	var p pumps
	var files stdio
	if e.tty {
		return p, files, nil
	}
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err != nil {
			p.close()
			files.close()
		}
		return r, w, err
	}
	if e.in != nil {
		r, w, err := pipe()
		if err != nil {
			return p, files, err
		}
		files.in, p.ours = r, append(p.ours, w)
		p.in = func() {
			_, _ = io.Copy(w, e.in)
			_ = w.Close()
		}
	}
	for _, o := range []struct {
		to   io.Writer
		file **os.File
	}{{e.out, &files.out}, {e.err, &files.err}} {
		if o.to == nil {
			continue
		}
		r, w, err := pipe()
		if err != nil {
			return p, files, err
		}
		*o.file, p.ours = w, append(p.ours, r)
		p.outs = append(p.outs, func() error { _, err := io.Copy(o.to, r); return err })
	}
	return p, files, nil
}

// console makes the pumps of a terminal. A client that leaves hangs up.
func (e execution) console(master *os.File) pumps {
	p := pumps{ours: []io.Closer{master}}
	if e.in != nil {
		p.in = func() {
			_, _ = io.Copy(master, e.in)
			_ = master.Close()
		}
	}
	if e.out != nil {
		p.outs = append(p.outs, func() error {
			_, err := io.Copy(e.out, master)
			if errors.Is(err, syscall.EIO) { // the last program has let go of the terminal
				return nil
			}
			return err
		})
	}
	if e.resize != nil {
		go resizeConsole(master, e.resize)
	}
	return p
}

func resizeConsole(master *os.File, sizes <-chan remotecommand.TerminalSize) {
	for size := range sizes {
		_ = pty.Setsize(master, &pty.Winsize{Rows: size.Height, Cols: size.Width})
	}
}

// copy starts copying; the channel is closed when all output is through. A reader that is lost ends
// the program.
func (p pumps) copy(end func()) <-chan struct{} {
	if p.in != nil {
		go p.in()
	}
	var outs sync.WaitGroup
	for _, out := range p.outs {
		outs.Go(func() {
			if out() != nil {
				end()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		outs.Wait()
	}()
	return done
}

func (p pumps) close() {
	for _, f := range p.ours {
		_ = f.Close()
	}
}
