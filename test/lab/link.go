// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/shaper"
	"isthmus.dev/isthmus/test/lab/state"
)

// link is how a cluster is joined to everything else.
type link struct {
	network network.Cluster
	up      bool
	drops   network.Drops
	rules   []shaper.Rule // none: frames go straight
}

// linkOf says what the faults make of a cluster's link.
func linkOf(lab *state.Lab, cluster string) (link, error) {
	c, err := lab.Cluster(cluster)
	if err != nil {
		return link{}, err
	}
	l := link{up: true}
	if l.network, err = network.Plan(c.Name, c.Index); err != nil {
		return l, err
	}
	for _, f := range lab.FaultsOf(cluster) {
		other, err := otherEnd(lab, f, cluster)
		if err != nil {
			return l, err
		}
		switch {
		case f.Kind == state.NodeLoss:
			l.drops.Pods = true
		case f.Kind == state.Partition && other == nil:
			l.up = false
		case f.Kind == state.Partition: // each end drops what comes from the other
			l.drops.From = append(l.drops.From, *other)
		case f.Cluster == cluster: // all that two clusters send one another goes over the link of either: one is enough
			if r := ruleOf(f, other); r != nil {
				l.rules = append(l.rules, *r)
			}
		}
	}
	return l, nil
}

func ruleOf(f state.Fault, other *network.Cluster) *shaper.Rule {
	var r shaper.Rule
	switch f.Kind {
	case state.Latency:
		r.Latency = f.Latency.Duration
		if f.Jitter != nil {
			r.Jitter = f.Jitter.Duration
		}
	case state.Loss:
		r.Loss = f.Loss
	case state.Bandwidth:
		r.Rate = f.Rate
	default:
		return nil
	}
	if other != nil {
		r.To = other.Ranges()
	}
	return &r
}

// otherEnd is the cluster at the other end of a fault between two; nil where it is one with everything.
func otherEnd(lab *state.Lab, f state.Fault, cluster string) (*network.Cluster, error) {
	name := f.Peer
	if name == cluster {
		name = f.Cluster
	}
	if name == "" {
		return nil, nil //nolint:nilnil // no other end is an answer
	}
	c, err := lab.Cluster(name)
	if err != nil {
		return nil, err
	}
	net, err := network.Plan(c.Name, c.Index)
	return &net, err
}

// applyLinks makes the links of some clusters what the faults say; empty names are passed over.
func (l *Lab) applyLinks(ctx context.Context, lab *state.Lab, clusters ...string) error {
	slices.Sort(clusters)
	for _, name := range slices.Compact(clusters) {
		if name == "" {
			continue
		}
		want, err := linkOf(lab, name)
		if err != nil {
			return err
		}
		if err := l.applyLink(ctx, want); err != nil {
			return fmt.Errorf("link of %s: %w", name, err)
		}
	}
	return nil
}

// repairLinks makes all links what the faults say, whatever was done to them by hand.
func (l *Lab) repairLinks(ctx context.Context, lab *state.Lab) error {
	unlock, err := l.lockFaults(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var names []string
	for _, c := range lab.Clusters {
		names = append(names, c.Name)
	}
	return l.applyLinks(ctx, lab, names...)
}

func (l *Lab) applyLink(ctx context.Context, want link) error {
	if err := network.SetDrops(want.network, want.drops); err != nil {
		return err
	}
	shape := l.unshape
	if len(want.rules) > 0 {
		shape = l.shape
	}
	if err := shape(ctx, want); err != nil {
		return err
	}
	return network.SetLink(want.network.Link, want.up)
}

// relayStart is how long a relay may take until it answers, on a machine that is busy.
const relayStart = 30 * time.Second

// shape has a relay carry the cluster's frames by the rules. One that runs is told the new rules, and loses nothing.
func (l *Lab) shape(ctx context.Context, want link) error {
	ctx, cancel := context.WithTimeout(ctx, relayStart)
	defer cancel()
	tell := func() error {
		return network.Do(want.network.NetNS, func() error { return shaper.Set(ctx, want.rules) })
	}
	err := tell()
	if errors.Is(err, unix.ECONNREFUSED) {
		if err := l.startRelay(want.network); err != nil {
			return err
		}
		err = poll(ctx, tell)
	}
	if err != nil {
		return err
	}
	return network.Divert(want.network)
}

// startRelay starts the process that carries a cluster's frames.
func (l *Lab) startRelay(c network.Cluster) error {
	d, err := network.OpenDiversion(c)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	p, err := process.Start(process.Spec{
		Cluster: c.Name, Component: state.Link, NetNS: c.NetNS,
		Path: filepath.Join(l.binDir(), "isthmus-lab"), Args: []string{"link-relay"},
		Dir: filepath.Join(l.Dir, "run", c.Name, "link-work"), Log: filepath.Join(l.logs(c.Name), state.Link+".log"),
		Files: []*os.File{d.Uplink, d.Backbone},
	})
	if err != nil {
		return err
	}
	return l.record(p)
}

// unshape puts the link back and ends the relay, if there is one.
func (l *Lab) unshape(ctx context.Context, want link) error {
	if err := network.Undivert(want.network); err != nil {
		return err
	}
	err := network.Do(want.network.NetNS, func() error { return shaper.End(ctx) })
	if errors.Is(err, unix.ECONNREFUSED) {
		err = nil // none runs
	}
	lab, stateErr := l.State()
	if stateErr != nil {
		return errors.Join(err, stateErr)
	}
	// One that does not answer any more, or froze, still holds its device.
	relays := lab.Find(want.network.Name, state.Link)
	if len(relays) == 0 {
		return err
	}
	if err := kill(ctx, relays); err != nil {
		return err
	}
	return state.UpdateExisting(l.Dir, func(s *state.Lab) error {
		s.Processes = slices.DeleteFunc(s.Processes, func(p state.Process) bool {
			return p.Cluster == want.network.Name && p.Component == state.Link
		})
		return nil
	})
}
