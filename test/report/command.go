// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// runner runs a suite's command and counts it.
type runner func(name string, command []string, out io.Writer) (Suite, error)

// goTest runs `go test -json …` and counts its events.
func goTest(verbose bool) runner {
	return func(name string, command []string, out io.Writer) (Suite, error) {
		counter := newCounter(name, out, verbose)
		took, err := stream(command, func(line []byte) {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(out, "%s\n", line) // not an event: go's own words, as on a wrong flag
				return
			}
			counter.add(e)
		})
		return finish(counter.suite, took, err)
	}
}

// plainCommand runs a command whose exit code is its only result.
func plainCommand(name string, command []string, out io.Writer) (Suite, error) {
	took, err := stream(command, func(line []byte) { fmt.Fprintf(out, "%s\n", line) })
	suite := Suite{Name: name}
	if err == nil {
		suite.Passed = 1
	}
	return finish(suite, took, err)
}

// finish makes sure that a command which failed never looks like a suite which passed.
func finish(suite Suite, took time.Duration, err error) (Suite, error) {
	suite.Seconds = took.Seconds()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return suite, err
	}
	if err != nil && suite.Failed == 0 {
		suite.Failed = 1
	}
	return suite, nil
}

// stream runs a command and hands over each line that it prints. Its standard error is ours. An interrupt is passed
// on and waited for, so that the tests can clean up after themselves.
func stream(command []string, line func([]byte)) (time.Duration, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	// `go test` waits for its tests after SIGINT, but not after SIGTERM.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the suite: %w", err)
	}
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(make([]byte, 1<<20), 16<<20)
	for scanner.Scan() {
		line(scanner.Bytes())
	}
	if err := scanner.Err(); err != nil {
		_, _ = io.Copy(io.Discard, stdout) // else the command blocks on a full pipe
		return time.Since(start), errors.Join(err, cmd.Wait())
	}
	return time.Since(start), cmd.Wait()
}
