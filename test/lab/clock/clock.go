// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package clock gives a running process a wall clock of its own.
//
// The kernel's time namespaces shift only the monotonic clocks, and preloading a library does not work on programs that are
// linked statically, as Go's are. But nearly every program reads the time by the vDSO, a page of code that the kernel maps into
// each process: that copy is changed, in the one process, to ask the kernel and add the offset. Timers, timeouts and monotonic
// clocks go on as they are, as they do when a machine's clock is wrong. What asks the kernel without the vDSO is not
// deceived, and a process that is started anew has the machine's clock again.
package clock

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Set moves a process's wall clock by so much, in whole seconds, against the machine's; zero gives it back the
// machine's own. It needs the right to trace the process, and stops it for a moment.
func Set(pid int, offset time.Duration) error {
	if offset%time.Second != 0 {
		return fmt.Errorf("a clock moves by whole seconds, not by %s", offset)
	}
	own, err := image()
	if err != nil {
		return err
	}
	start, _, err := mapping(pid)
	if err != nil {
		return err
	}
	changes, err := patch(own, int64(offset/time.Second))
	if err != nil {
		return err
	}
	return whileStopped(pid, func() error {
		if err := outside(pid, start, changes); err != nil {
			return err
		}
		return write(pid, start, changes)
	})
}

// change is bytes to write at an offset in the vDSO.
type change struct {
	at   uint64
	code []byte
	// entry says that threads run through here: none may stand in the middle of the bytes.
	entry bool
}

// image is the vDSO as the kernel made it, which is the same in every process.
func image() ([]byte, error) {
	start, end, err := mapping(os.Getpid())
	if err != nil {
		return nil, err
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return nil, err
	}
	defer func() { _ = mem.Close() }()
	data := make([]byte, end-start)
	_, err = mem.ReadAt(data, int64(start)) // #nosec G115 -- a user's address
	return data, err
}

// mapping returns where a process has its vDSO.
func mapping(pid int) (start, end uint64, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = maps.Close() }()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		if !strings.HasSuffix(lines.Text(), "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil {
			return 0, 0, err
		}
		return start, end, nil
	}
	return 0, 0, fmt.Errorf("process %d has no vDSO, so its clock cannot be moved", pid)
}

// stopWait is how long a process may take to stop, and a thread to leave the code that is about to change.
const stopWait = 5 * time.Second

// whileStopped runs f while all threads of a process are stopped.
func whileStopped(pid int, f func() error) error {
	if allStopped(pid) {
		return f() // somebody else has frozen it, and it is to stay so
	}
	var last error
	for deadline := time.Now().Add(stopWait); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		last = stopped(pid)
		if last == nil {
			last = f()
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			return err
		}
		if !errors.Is(last, errBusy) {
			return last
		}
	}
	return last
}

// errBusy says that a thread is where it must not be just now.
var errBusy = errors.New("the process does not hold still")

func stopped(pid int) error {
	for range 1000 {
		if allStopped(pid) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errBusy
}

// allStopped says whether no thread of a process runs.
func allStopped(pid int) bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended
		}
		// The second field, the command, is in brackets and may hold anything.
		end := strings.LastIndex(string(data), ") ")
		if end < 0 || !strings.ContainsRune("TZ", rune(data[end+2])) {
			return false
		}
	}
	return len(files) > 0
}

// outside says whether any thread stands within the bytes that threads run through.
func outside(pid int, start uint64, changes []change) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(data))
		pc, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		if err != nil {
			return errBusy // "running"
		}
		for _, c := range changes {
			if at := start + c.at; c.entry && pc > at && pc < at+uint64(len(c.code)) {
				return errBusy
			}
		}
	}
	return nil
}

func write(pid int, start uint64, changes []change) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }()
	for _, c := range changes {
		if _, err := mem.WriteAt(c.code, int64(start+c.at)); err != nil { // #nosec G115 -- a user's address
			return fmt.Errorf("write the vDSO of process %d: %w (does the kernel forbid it, proc_mem.force_override=never?)", pid, err)
		}
	}
	return nil
}
