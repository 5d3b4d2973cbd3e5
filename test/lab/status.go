// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/test/lab/state"
)

// Report is how a lab is at one moment.
type Report struct {
	Dir string `json:"dir"`
	// Ready says that the lab came up completely once, Healthy that nothing in it is dead or stopped now.
	Ready    bool            `json:"ready"`
	Healthy  bool            `json:"healthy"`
	Mesh     bool            `json:"mesh"`
	Clusters []ClusterReport `json:"clusters"`
	Faults   []state.Fault   `json:"faults"`

	Memory    int64   `json:"memoryBytes"` // the sum of the processes' proportional set sizes
	Cores     float64 `json:"cores"`       // over the last second
	Processes int     `json:"processes"`
}

// ClusterReport is how one cluster is.
type ClusterReport struct {
	state.Cluster
	Node       string            `json:"node"`
	Components []ComponentReport `json:"components"`
	Memory     int64             `json:"memoryBytes"`
}

// ComponentReport is how one process is.
type ComponentReport struct {
	state.Process
	Condition string `json:"condition"` // alive, stopped or dead
}

// Report looks at everything in the lab; it takes a second.
func (l *Lab) Report(ctx context.Context) (Report, error) {
	usage, err := l.Measure(ctx, time.Second)
	if err != nil {
		return Report{}, err
	}
	lab, err := l.State()
	if err != nil {
		return Report{}, err
	}
	r := Report{
		Dir: l.Dir, Ready: lab.Ready, Healthy: lab.Ready, Mesh: lab.Mesh, Faults: lab.Faults,
		Memory: usage.Memory, Cores: usage.Cores, Processes: usage.Count,
	}
	for _, c := range lab.Clusters {
		one := ClusterReport{Cluster: c, Memory: usage.ByCluster[c.Name], Components: []ComponentReport{}}
		one.Node, _, _ = nodeIdentity(c)
		for _, p := range lab.Processes {
			if p.Cluster != c.Name {
				continue
			}
			condition := p.Condition()
			one.Components = append(one.Components, ComponentReport{p, condition})
			r.Healthy = r.Healthy && condition == state.Alive
		}
		r.Clusters = append(r.Clusters, one)
	}
	return r, nil
}

// Write shows the report on a screen; with all, every process on a line of its own as well.
func (r Report) Write(out io.Writer, all bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CLUSTER\tROLE\tAPI SERVER\tGATEWAY\tEAST-WEST")
	for _, c := range r.Clusters {
		role := c.Role
		if c.Role == state.RoleHub && c.Member {
			role = "hub, member"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Name, role, c.APIServer, orDash(c.Gateway), orDash(c.EastWestGateway))
	}
	_, _ = fmt.Fprintln(w, "\nCLUSTER\tNODE\tZONE\tMEMORY\tPODS\tCOMPONENTS")
	for _, c := range r.Clusters {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, c.Node, orDash(c.Zone), megabytes(c.Memory), c.pods(), c.conditions())
	}
	if all {
		r.writeProcesses(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Faults) > 0 {
		_, _ = fmt.Fprintln(out, "\nFaults in force:")
	}
	for _, f := range r.Faults {
		_, _ = fmt.Fprintf(out, "  %s, for %s\n", f, time.Since(f.Since.Time).Truncate(time.Second))
	}
	_, err := fmt.Fprintf(out, "\n%d processes, %.2f GB of memory, %.2f cores over the last second\n", r.Processes, float64(r.Memory)/1e9, r.Cores)
	return err
}

func (r Report) writeProcesses(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nCLUSTER\tCOMPONENT\tNAME\tPID\tSTATE\tLOG")
	for _, c := range r.Clusters {
		for _, p := range c.Components {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", p.Cluster, p.Component, p.Name, p.PID, p.Condition, p.Log)
		}
	}
}

// conditions says how the processes are, and names those that are not alive; pods, of which there may be many, by their number.
func (c ClusterReport) conditions() string {
	alive := 0
	pods := map[string]int{}
	var others []string
	for _, p := range c.Components {
		switch {
		case p.Condition == state.Alive:
			alive++
		case state.IsPod(p.Component):
			pods[p.Condition]++
		default:
			others = append(others, p.Component+" "+p.Condition)
		}
	}
	for _, condition := range []string{state.Frozen, state.Dead} {
		if n := pods[condition]; n > 0 {
			others = append(others, fmt.Sprintf("%d in pods %s", n, condition))
		}
	}
	return strings.Join(append([]string{fmt.Sprintf("%d alive", alive)}, others...), ", ")
}

// pods counts the pods that have a process which is not dead.
func (c ClusterReport) pods() int {
	var names []string
	for _, p := range c.Components {
		if state.IsPod(p.Component) && p.Condition != state.Dead && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return len(names)
}

func megabytes(bytes int64) string { return fmt.Sprintf("%d MB", bytes/1e6) }

// Next tells what to do next: what to mend, and what to look at.
func (r Report) Next(out io.Writer) {
	switch {
	case !r.Ready:
		_, _ = fmt.Fprintln(out, "The lab did not come up completely: `isthmus-lab up` begins anew, `isthmus-lab down` ends it.")
		return
	case len(r.Faults) > 0:
		_, _ = fmt.Fprintln(out, "Mend the faults: `isthmus-lab fault heal`, or of one cluster `isthmus-lab fault heal CLUSTER`.")
	case !r.Healthy:
		_, _ = fmt.Fprintln(out, "Something died: `isthmus-lab up` starts it again, `isthmus-lab logs CLUSTER COMPONENT` says why.")
	}
	_, _ = fmt.Fprintf(out, "\nLook around:\n  export KUBECONFIG=%s PATH=%s:$PATH\n", filepath.Join(r.Dir, "kubeconfig"), filepath.Join(r.Dir, "bin"))
	const most = 3
	for i, c := range r.Clusters {
		if i == most {
			_, _ = fmt.Fprintf(out, "  …                             # and the other %d clusters\n", len(r.Clusters)-most)
			break
		}
		_, _ = fmt.Fprintf(out, "  kubectl --context %s get pods -A\n", c.Name)
	}
	r.nextRequests(out)
}

func (r Report) nextRequests(out io.Writer) {
	said := 0
	for _, c := range r.Clusters {
		if c.Gateway == "" || said == 3 {
			continue
		}
		if said == 0 {
			_, _ = fmt.Fprintln(out, "\nWatch requests split over the clusters:")
		}
		said++
		_, _ = fmt.Fprintf(out, "  for i in $(seq 20); do curl -s -H 'Host: %s' http://%s%s; done   # enters at %s\n", exampleHost, c.Gateway, examplePath, c.Name)
	}
	if said > 0 {
		_, _ = fmt.Fprintln(out, "\nChange the split, take pods away: examples/split/README.md. Break something: isthmus-lab fault --help. End it: make lab-down")
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
