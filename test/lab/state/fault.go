// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kinds of faults that last until they are healed.
const (
	Partition = "partition" // no packet passes
	Latency   = "latency"
	Loss      = "loss"
	Bandwidth = "bandwidth"
	Killed    = "kill" // a component is dead and stays so
	Stopped   = "stop" // a component is frozen (SIGSTOP)
	NodeLoss  = "node-loss"
	Clock     = "clock"
)

// Fault is something that was broken on purpose. Two faults of the same kind, cluster, peer and component are one.
type Fault struct {
	Kind      string `json:"kind"`
	Cluster   string `json:"cluster"`
	Peer      string `json:"peer,omitempty"`      // another cluster; empty is everything outside the cluster
	Component string `json:"component,omitempty"` // as commands name it

	Latency *metav1.Duration `json:"latency,omitempty"` // what a round trip takes longer
	Jitter  *metav1.Duration `json:"jitter,omitempty"`
	Loss    float64          `json:"loss,omitempty"` // the share of packets lost in each direction, 0 to 1
	Rate    int64            `json:"rate,omitempty"` // bits a second in each direction
	Offset  *metav1.Duration `json:"offset,omitempty"`

	Since metav1.Time `json:"since"`
}

// Same says whether two faults are one, of whatever measure.
func (f Fault) Same(o Fault) bool {
	return f.Kind == o.Kind && f.Cluster == o.Cluster && f.Peer == o.Peer && f.Component == o.Component
}

// Touches says whether the fault is one of a cluster, alone or with another.
func (f Fault) Touches(cluster string) bool { return f.Cluster == cluster || f.Peer == cluster }

// String says what is broken: "gke: latency 200ms ±20ms to eks".
func (f Fault) String() string {
	words := []string{f.Cluster + ":", f.Kind}
	if f.Component != "" {
		words = append(words, f.Component)
	}
	switch f.Kind {
	case Latency:
		words = append(words, f.Latency.Duration.String())
		if f.Jitter != nil {
			words = append(words, "±"+f.Jitter.Duration.String())
		}
	case Loss:
		words = append(words, fmt.Sprintf("%g%%", f.Loss*100))
	case Bandwidth:
		words = append(words, formatRate(f.Rate))
	case Clock:
		words = append(words, fmt.Sprintf("%+gs", f.Offset.Seconds()))
	}
	switch {
	case f.Peer != "" && f.Kind == Partition:
		words = append(words, "from", f.Peer)
	case f.Peer != "":
		words = append(words, "to", f.Peer)
	case f.Kind == Partition:
		words = append(words, "from everything")
	}
	return strings.Join(words, " ")
}

func formatRate(bits int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1e9, "gbit"}, {1e6, "mbit"}, {1e3, "kbit"}} {
		if bits >= unit.size {
			return fmt.Sprintf("%g%s", float64(bits)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%dbit", bits)
}

// AddFault records a fault in the place of the same one.
func (l *Lab) AddFault(f Fault) {
	f.Since = metav1.Time{Time: time.Now().UTC().Truncate(time.Second)}
	l.RemoveFaults(f.Same)
	l.Faults = append(l.Faults, f)
}

// RemoveFaults takes the faults off the list for which which is true, and returns them.
func (l *Lab) RemoveFaults(which func(Fault) bool) []Fault {
	var gone []Fault
	l.Faults = slices.DeleteFunc(l.Faults, func(f Fault) bool {
		if which(f) {
			gone = append(gone, f)
			return true
		}
		return false
	})
	return gone
}

// FaultsOf returns the faults of a cluster that are its own or shared with another.
func (l *Lab) FaultsOf(cluster string) []Fault {
	var found []Fault
	for _, f := range l.Faults {
		if f.Touches(cluster) {
			found = append(found, f)
		}
	}
	return found
}

// Faulty says whether a component of a cluster was made to fail by one of some kinds of fault.
func (l *Lab) Faulty(cluster, component string, kinds ...string) bool {
	return slices.ContainsFunc(l.Faults, func(f Fault) bool {
		return f.Cluster == cluster && f.Component == component && slices.Contains(kinds, f.Kind)
	})
}
