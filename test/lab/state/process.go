// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// StartTime returns when process pid started, in clock ticks after boot; os.ErrNotExist when there
// is no such process.
func StartTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Alive says whether p still runs: its pid exists, is no zombie and started when p says it did.
func (p Process) Alive() bool {
	fields, err := stat(p.PID)
	if err != nil || fields[0] == "Z" || fields[0] == "X" {
		return false
	}
	return p.StartTime == 0 || fields[19] == strconv.FormatUint(p.StartTime, 10)
}

// Conditions of a process.
const (
	Alive  = "alive"
	Frozen = "stopped" // by SIGSTOP: it lives and does nothing
	Dead   = "dead"
)

// Condition says how p is.
func (p Process) Condition() string {
	fields, err := stat(p.PID)
	switch {
	case err != nil || !p.Alive():
		return Dead
	case fields[0] == "T" || fields[0] == "t":
		return Frozen
	}
	return Alive
}

// stat returns the fields of /proc/<pid>/stat from the third (the state) on. The second, the
// command, is in brackets and may hold anything, brackets too.
func stat(pid int) ([]string, error) {
	if pid <= 0 {
		return nil, os.ErrNotExist
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return parseStat(string(data))
}

func parseStat(line string) ([]string, error) {
	end := strings.LastIndex(line, ") ")
	if end < 0 {
		return nil, errors.New("unreadable /proc stat line")
	}
	fields := strings.Fields(line[end+2:])
	if len(fields) < 22 {
		return nil, errors.New("short /proc stat line")
	}
	return fields, nil
}

// ProcessorTime returns how much processor time process pid has used, in clock ticks.
func ProcessorTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(fields[12], 10, 64)
	return user + system, err
}
