// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"io"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// attachment is a client that shares a container's own streams.
type attachment struct {
	in       io.Reader
	out, err io.Writer
	resize   <-chan remotecommand.TerminalSize
}

// attach lets a client hear what the container says, and speak to it where its spec asks for stdin,
// until the container ends or the client leaves.
func (c *container) attach(ctx context.Context, proc *process, a attachment) error {
	heard, leave := proc.log.listen()
	defer leave()
	if c.spec.TTY && a.resize != nil {
		go resizeConsole(proc.stdin, a.resize)
	}
	left := make(chan struct{})
	if a.in != nil && proc.stdin != nil {
		go func() {
			defer close(left)
			_, _ = io.Copy(proc.stdin, a.in)
			if c.spec.StdinOnce && !c.spec.TTY {
				_ = proc.stdin.Close()
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-proc.log.done:
			return a.finish(heard)
		case said := <-heard.said:
			if a.write(said) != nil {
				return nil // the client has left
			}
		case <-left:
			if c.spec.TTY || (a.out == nil && a.err == nil) {
				return nil
			}
			left = nil // it only had nothing more to say
		}
	}
}

// finish writes what was said before the end.
func (a attachment) finish(heard *listener) error {
	for {
		select {
		case said := <-heard.said:
			if err := a.write(said); err != nil {
				return nil //nolint:nilerr // the client has left
			}
		default:
			return nil
		}
	}
}

func (a attachment) write(said utterance) error {
	to := a.out
	if said.kind == runtimeapi.Stderr {
		to = a.err
	}
	if to == nil {
		return nil
	}
	_, err := to.Write(said.data)
	return err
}

// connectStreams makes the streams of a new life of the container: its outputs go to its log, and its
// input stays open where its spec asks for one. What it returns is the container's; the caller
// closes it.
func (c *container) connectStreams(proc *process) (stdio, error) {
	var files stdio
	if c.spec.TTY {
		return files, nil // the terminal comes from the container itself
	}
	var err error
	if c.spec.Stdin {
		if files.in, proc.stdin, err = os.Pipe(); err != nil {
			return files, err
		}
	}
	if files.out, err = proc.log.stream(runtimeapi.Stdout, proc.spec.User); err == nil {
		files.err, err = proc.log.stream(runtimeapi.Stderr, proc.spec.User)
	}
	return files, err
}
