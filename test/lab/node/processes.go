// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"isthmus.dev/isthmus/test/lab/state"
)

// componentOf tells what a pod's process is to the lab, by its image; any other is a plain pod.
var componentOf = map[string]string{"isthmus-hub": state.Hub, "pilot": state.Istiod}

const (
	proxyImage = "proxyv2"
	// proxyLook is how often a proxy pod is searched for its Envoy, which its agent starts late and
	// may start again.
	proxyLook = time.Second
)

// processTable is the list of the node's pod processes, for the lab's state file.
type processTable struct {
	cluster string
	changed chan struct{}
	mu      sync.Mutex
	of      map[*process][]state.Process
	proxies map[*process]bool
}

func newProcessTable(cluster string) *processTable {
	return &processTable{cluster: cluster, changed: make(chan struct{}, 1),
		of: map[*process][]state.Process{}, proxies: map[*process]bool{}}
}

func (t *processTable) add(c *container, p *process) {
	component := cmp.Or(componentOf[p.image.name], state.Pod)
	t.mu.Lock()
	t.of[p] = []state.Process{t.entry(component, c.pod.name(), p.pid(), p.log.path)}
	if p.image.name == proxyImage {
		t.proxies[p] = true
	}
	t.mu.Unlock()
	t.touch()
}

func (t *processTable) entry(component, name string, pid int, log string) state.Process {
	started, _ := state.StartTime(pid)
	return state.Process{Cluster: t.cluster, Component: component, Name: name, PID: pid, StartTime: started, Log: log}
}

func (t *processTable) remove(p *process) {
	t.mu.Lock()
	delete(t.of, p)
	delete(t.proxies, p)
	t.mu.Unlock()
	t.touch()
}

func (t *processTable) touch() { wake(t.changed) }

// run tells publish each change until ctx ends, and keeps looking for Envoys. What could not be published, as on a full disk,
// is told again.
func (t *processTable) run(ctx context.Context, publish func([]state.Process) error) {
	if publish == nil {
		return
	}
	look := time.NewTicker(proxyLook)
	defer look.Stop()
	var failed error
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if !t.findProxies() && failed == nil {
				continue
			}
		case <-t.changed:
			t.findProxies()
		}
		err := publish(t.list())
		if err != nil && failed == nil {
			slog.Warn("the list of pods is not up to date", "cluster", t.cluster, "error", err)
		}
		failed = err
	}
}

// list returns all processes, by name, component and pid.
func (t *processTable) list() []state.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []state.Process
	for _, some := range t.of {
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b state.Process) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Component, b.Component); c != 0 {
			return c
		}
		return a.PID - b.PID
	})
	return all
}

// findProxies looks for the Envoy below each proxy pod's agent; true when one is new or gone.
func (t *processTable) findProxies() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := false
	for p := range t.proxies {
		have := t.of[p]
		next := have[:1:1]
		if pid := descendant(p.pid(), "envoy"); pid != 0 {
			next = append(next, t.entry(state.Proxy, have[0].Name, pid, p.log.path))
		}
		if !slices.Equal(have, next) {
			t.of[p], changed = next, true
		}
	}
	return changed
}

// descendant returns the first process of that name below pid; 0 when there is none.
func descendant(pid int, name string) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	for _, task := range tasks {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, field := range strings.Fields(string(children)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)); strings.TrimSpace(string(comm)) == name {
				return child
			}
			if found := descendant(child, name); found != 0 {
				return found
			}
		}
	}
	return 0
}
