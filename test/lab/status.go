// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// Usage is what the lab costs.
type Usage struct {
	Memory int64   // bytes, the sum of the processes' proportional set sizes
	Cores  float64 // processor time by time, over the measured interval
	Count  int     // processes
}

// Measure returns what all processes of the lab cost, their processor time over interval.
func (l *Lab) Measure(ctx context.Context, interval time.Duration) (Usage, error) {
	before, err := ticks()
	if err != nil {
		return Usage{}, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return Usage{}, ctx.Err()
	case <-time.After(interval):
	}
	after, err := ticks()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Count: len(after)}
	spent := uint64(0)
	for pid, t := range after {
		spent += t - min(t, before[pid])
		u.Memory += proportionalSize(pid)
	}
	u.Cores = float64(spent) / clockTicks / time.Since(start).Seconds()
	return u, nil
}

// clockTicks is USER_HZ, which is 100 on every architecture that Go runs Linux on.
const clockTicks = 100

// ticks returns the processor time so far of each process in the lab's namespaces.
func ticks() (map[int]uint64, error) {
	names, err := ownNamespaces()
	if err != nil {
		return nil, err
	}
	found, err := process.In(names...)
	if err != nil {
		return nil, err
	}
	all := map[int]uint64{}
	for _, p := range found {
		if t, err := state.ProcessorTime(p.PID); err == nil {
			all[p.PID] = t
		}
	}
	return all, nil
}

// proportionalSize returns a process's memory in bytes, shared pages divided by their sharers; 0 when
// it is gone.
func proportionalSize(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == "Pss:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// Status tells what runs, what it costs and what to look at next. It reports whether all is alive.
func (l *Lab) Status(ctx context.Context, out io.Writer) (healthy bool, err error) {
	lab, err := l.State()
	if err != nil {
		return false, err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CLUSTER\tROLE\tREGION\tAPI SERVER\tGATEWAY\tEAST-WEST")
	for _, c := range lab.Clusters {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Role, orDash(c.Region), c.APIServer, orDash(c.Gateway), orDash(c.EastWestGateway))
	}
	_, _ = fmt.Fprintln(w, "\nCLUSTER\tCOMPONENT\tNAME\tPID\tSTATE")
	healthy = lab.Ready
	for _, p := range lab.Processes {
		condition := "alive"
		if !p.Alive() {
			condition, healthy = "dead, see "+p.Log, false
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", p.Cluster, p.Component, p.Name, p.PID, condition)
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	usage, err := l.Measure(ctx, time.Second)
	if err != nil {
		return false, err
	}
	_, _ = fmt.Fprintf(out, "\n%d processes, %.2f GB of memory, %.2f cores over the last second\n",
		usage.Count, float64(usage.Memory)/1e9, usage.Cores)
	switch {
	case !lab.Ready:
		_, _ = fmt.Fprintln(out, "The lab did not come up completely: `make lab` goes on with it.")
	case !healthy:
		_, _ = fmt.Fprintln(out, "Something died: `make lab` starts it again.")
	default:
		l.Next(out, lab)
	}
	return healthy, nil
}

// Next tells what to look at in a lab.
func (l *Lab) Next(out io.Writer, lab *state.Lab) {
	_, _ = fmt.Fprintf(out, "\nLook around:\n  export KUBECONFIG=%s PATH=%s:$PATH\n", filepath.Join(l.Dir, "kubeconfig"), l.binDir())
	for _, c := range lab.Clusters {
		_, _ = fmt.Fprintf(out, "  kubectl --context %s get pods -A\n", c.Name)
	}
	said := false
	for _, c := range lab.Members() {
		if c.Gateway == "" {
			continue
		}
		if !said {
			_, _ = fmt.Fprintln(out, "\nWatch requests split over the clusters:")
			said = true
		}
		_, _ = fmt.Fprintf(out, "  for i in $(seq 20); do curl -s -H 'Host: %s' http://%s%s; done   # enters at %s\n", exampleHost, c.Gateway, examplePath, c.Name)
	}
	if said {
		_, _ = fmt.Fprintln(out, "\nChange the split, take pods away: examples/split/README.md. End it: make lab-down")
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
