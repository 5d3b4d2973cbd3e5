// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// Usage is what the lab costs.
type Usage struct {
	Memory    int64            // bytes, the sum of the processes' proportional set sizes
	ByCluster map[string]int64 // the same, by the cluster that they belong to
	Cores     float64          // processor time by time, over the measured interval
	Count     int              // processes
}

// Measure returns what all processes of the lab cost, their processor time over interval.
func (l *Lab) Measure(ctx context.Context, interval time.Duration) (Usage, error) {
	before, _, err := l.ticks()
	if err != nil {
		return Usage{}, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return Usage{}, ctx.Err()
	case <-time.After(interval):
	}
	after, clusters, err := l.ticks()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Count: len(after), ByCluster: map[string]int64{}}
	spent := uint64(0)
	for pid, t := range after {
		spent += t - min(t, before[pid])
		size := proportionalSize(pid)
		u.Memory += size
		u.ByCluster[clusters[pid]] += size
	}
	u.Cores = float64(spent) / clockTicks / time.Since(start).Seconds()
	return u, nil
}

// clockTicks is USER_HZ, which is 100 on every architecture that Go runs Linux on.
const clockTicks = 100

// ticks returns the processor time so far of each process in the lab's namespaces, and whose it is.
func (l *Lab) ticks() (times map[int]uint64, clusters map[int]string, err error) {
	owner, err := l.namespaceOwners()
	if err != nil {
		return nil, nil, err
	}
	names, err := ownNamespaces()
	if err != nil {
		return nil, nil, err
	}
	found, err := process.In(names...)
	if err != nil {
		return nil, nil, err
	}
	times, clusters = map[int]uint64{}, map[int]string{}
	for _, p := range found {
		if t, err := state.ProcessorTime(p.PID); err == nil {
			times[p.PID], clusters[p.PID] = t, owner[p.Name]
		}
	}
	return times, clusters, nil
}

// namespaceOwners tells which cluster a namespace is of: its own, or that of one of its pods.
func (l *Lab) namespaceOwners() (map[string]string, error) {
	lab, err := l.State()
	if err != nil {
		return nil, err
	}
	owner := map[string]string{}
	for _, c := range lab.Clusters {
		owner[c.NetNS] = c.Name
		namespaces, err := l.podNamespaces(c.Name)
		if err != nil {
			return nil, err
		}
		for _, name := range namespaces {
			owner[name] = c.Name
		}
	}
	return owner, nil
}

// podNamespaces returns the namespaces of a cluster's pods, by the folders that its node keeps for them.
func (l *Lab) podNamespaces(cluster string) ([]string, error) {
	pods, err := os.ReadDir(filepath.Join(l.Dir, "run", cluster, "pods"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, uid := range pods {
		names = append(names, network.PodNamespace(uid.Name()))
	}
	return names, nil
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
