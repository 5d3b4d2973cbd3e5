// SPDX-License-Identifier: Apache-2.0

// Package state keeps .lab/lab.json, the one description of a running lab: its clusters, where
// they are reached and which processes they consist of. People, scripts and tests read it; the
// lab's own processes change it under a lock, so that a reader never sees half a file.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// File is the name of the state file in the lab's folder.
const File = "lab.json"

// Roles of a cluster.
const (
	RoleHub    = "hub"
	RoleMember = "member"
)

// Components of a cluster, as Process.Component names them.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "controller-manager"
	KubeProxy         = "kube-proxy"
	NodeAgent         = "node-agent"
	Istiod            = "istiod"
	Link              = "link"  // carries a cluster's frames while its link is slow, narrow or lossy
	Proxy             = "proxy" // an Envoy
	Pod               = "pod"   // any other pod's process
	Hub               = "hub"   // Isthmus itself
)

// ErrNoLab says that the folder holds no lab.
var ErrNoLab = errors.New("no lab here: start one with `make lab` or `isthmus-lab up`")

// Lab is the content of lab.json.
type Lab struct {
	// Root is the checkout that the lab was started from, Cache the folder of the built tools.
	Root  string `json:"root,omitempty"`
	Cache string `json:"cache,omitempty"`
	// BootID is the kernel's name for the machine's run in which the lab was started: a pid of another run is a stranger's.
	BootID string `json:"bootID,omitempty"`
	// Mesh says whether the members run Istio.
	Mesh bool `json:"mesh"`
	// Ready says that everything was installed once: from then on `up` only repairs processes, and
	// leaves alone what people changed in the clusters.
	Ready bool `json:"ready"`
	// PilotDebounce is istiod's debounce time as a Go duration; empty is istiod's own default.
	PilotDebounce string    `json:"pilotDebounce,omitempty"`
	Clusters      []Cluster `json:"clusters"`
	Processes     []Process `json:"processes"`
	// Faults are those that are in force, in the order in which they were made.
	Faults []Fault `json:"faults"`
}

// Cluster is one cluster of the lab.
type Cluster struct {
	Name     string `json:"name"`
	Role     string `json:"role"`     // hub or member
	Member   bool   `json:"member"`   // whether it carries traffic: every member does, and a hub may besides
	Provider string `json:"provider"` // eks, gke, aks or empty
	NetNS    string `json:"netns"`    // name below /run/netns
	Link     string `json:"link"`     // host side of the cluster's uplink

	APIServer  string `json:"apiServer"`  // URL
	Kubeconfig string `json:"kubeconfig"` // absolute path

	Gateway         string `json:"gateway,omitempty"`         // IP:port, reachable from the host
	EastWestGateway string `json:"eastWestGateway,omitempty"` // IP:port, reachable from the host

	Index            int    `json:"index"` // the third number of its ranges; the hub is 1
	NodeIP           string `json:"nodeIP"`
	PodCIDR          string `json:"podCIDR"`
	LoadBalancerCIDR string `json:"loadBalancerCIDR"`
	ServiceCIDR      string `json:"serviceCIDR"`
	Region           string `json:"region,omitempty"`
	Zone             string `json:"zone,omitempty"`
}

// Process is one process of the lab. A pid alone may be somebody else's tomorrow: StartTime (clock
// ticks after boot, field 22 of /proc/<pid>/stat) tells whether it still is the same process.
type Process struct {
	Cluster   string `json:"cluster"`
	Component string `json:"component"`
	Name      string `json:"name"` // the component, or namespace/pod
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime,omitempty"`
	Log       string `json:"log"`
}

// Load reads the lab of folder dir; ErrNoLab when there is none.
func Load(dir string) (*Lab, error) {
	data, err := os.ReadFile(filepath.Join(dir, File))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoLab)
	}
	if err != nil {
		return nil, err
	}
	lab := &Lab{}
	if err := json.Unmarshal(data, lab); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): `isthmus-lab down` clears it", filepath.Join(dir, File), err)
	}
	return lab, nil
}

// Update reads the lab of folder dir (an empty one when there is none), lets change work on it and
// writes the result. It holds the folder's lock from the read to the write.
func Update(dir string, change func(*Lab) error) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	lab, err := Load(dir)
	if errors.Is(err, ErrNoLab) {
		lab, err = &Lab{}, nil
	}
	if err != nil {
		return err
	}
	if err := change(lab); err != nil {
		return err
	}
	return write(dir, lab)
}

// UpdateExisting is Update that refuses to bring back a lab that is gone: a process that outlives
// `down` for a moment must not leave a new file behind.
func UpdateExisting(dir string, change func(*Lab) error) error {
	if _, err := os.Stat(filepath.Join(dir, File)); err != nil {
		return fmt.Errorf("%s: %w", dir, ErrNoLab)
	}
	return Update(dir, change)
}

// Remove deletes the state file of folder dir.
func Remove(dir string) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(filepath.Join(dir, File)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}

// write replaces the file by rename: readers take no lock.
func write(dir string, lab *Lab) error {
	sortLab(lab)
	data, err := json.MarshalIndent(lab, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".lab-*.json")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := f.Chmod(0o644); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, File))
}

func sortLab(lab *Lab) {
	if lab.Clusters == nil {
		lab.Clusters = []Cluster{}
	}
	if lab.Processes == nil {
		lab.Processes = []Process{}
	}
	if lab.Faults == nil {
		lab.Faults = []Fault{}
	}
	slices.SortFunc(lab.Clusters, func(a, b Cluster) int { return a.Index - b.Index })
	slices.SortStableFunc(lab.Processes, func(a, b Process) int {
		return strings.Compare(a.Cluster+"\x00"+a.Component+"\x00"+a.Name, b.Cluster+"\x00"+b.Component+"\x00"+b.Name)
	})
}

// Cluster returns the cluster of that name, or an error that lists those that exist.
func (l *Lab) Cluster(name string) (*Cluster, error) {
	names := make([]string, 0, len(l.Clusters))
	for i := range l.Clusters {
		if l.Clusters[i].Name == name {
			return &l.Clusters[i], nil
		}
		names = append(names, l.Clusters[i].Name)
	}
	return nil, fmt.Errorf("the lab has no cluster %q, only %s", name, strings.Join(names, ", "))
}

// Members returns the member clusters in the lab's order.
func (l *Lab) Members() []Cluster {
	var members []Cluster
	for _, c := range l.Clusters {
		if c.Member {
			members = append(members, c)
		}
	}
	return members
}

// Find returns the processes of a component of a cluster.
func (l *Lab) Find(cluster, component string) []Process {
	var found []Process
	for _, p := range l.Processes {
		if p.Cluster == cluster && p.Component == component {
			found = append(found, p)
		}
	}
	return found
}

// SetProcess records p in the place of the process with the same cluster, component and name.
func (l *Lab) SetProcess(p Process) {
	l.Processes = slices.DeleteFunc(l.Processes, func(o Process) bool {
		return o.Cluster == p.Cluster && o.Component == p.Component && o.Name == p.Name
	})
	l.Processes = append(l.Processes, p)
}

// ReplacePods records pods as all the pod processes (components proxy, istiod, pod and hub) of a cluster.
func (l *Lab) ReplacePods(cluster string, pods []Process) {
	l.Processes = slices.DeleteFunc(l.Processes, func(p Process) bool {
		return p.Cluster == cluster && IsPod(p.Component)
	})
	l.Processes = append(l.Processes, pods...)
}

// IsPod says whether a component runs as a pod of the node agent.
func IsPod(component string) bool {
	return component == Proxy || component == Istiod || component == Pod || component == Hub
}
