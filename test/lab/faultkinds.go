// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/test/lab/state"
)

// Kill ends a component of a cluster by SIGKILL, as a crash would. It stays dead until Start or Heal; but what is a pod, as
// gateways and Isthmus are, the node starts again.
func (l *Lab) Kill(cluster, component string) error {
	return l.strike(state.Killed, cluster, component)
}

// Stop freezes a component (SIGSTOP) until Start or Heal: its connections stay open and nobody answers.
func (l *Lab) Stop(cluster, component string) error {
	return l.strike(state.Stopped, cluster, component)
}

func (l *Lab) strike(kind, cluster, component string) error {
	return l.Inject(context.Background(), state.Fault{Kind: kind, Cluster: cluster, Component: component})
}

// LoseNode takes a cluster's machine away, as a power cut would: the agent and all pods are gone at once and nothing
// that is sent to them is answered. The API server stays, as a cloud's does. Heal brings the machine back.
func (l *Lab) LoseNode(ctx context.Context, cluster string) error {
	return l.Inject(ctx, state.Fault{Kind: state.NodeLoss, Cluster: cluster})
}

// MoveClock moves the wall clock of a component's processes against the machine's, by whole seconds. Their timers and monotonic
// clocks stay as they are. A pod that its node starts anew has the machine's clock again.
func (l *Lab) MoveClock(ctx context.Context, cluster, component string, offset time.Duration) error {
	return l.Inject(ctx, state.Fault{Kind: state.Clock, Cluster: cluster, Component: component, Offset: &metav1.Duration{Duration: offset}})
}

// Partition cuts a cluster off from the others that are named, or from everything outside it when none is;
// inside it goes on.
func (l *Lab) Partition(ctx context.Context, cluster string, others ...string) error {
	if len(others) == 0 {
		return l.Inject(ctx, state.Fault{Kind: state.Partition, Cluster: cluster})
	}
	for _, other := range others {
		if err := l.Inject(ctx, state.Fault{Kind: state.Partition, Cluster: cluster, Peer: other}); err != nil {
			return err
		}
	}
	return nil
}

// Latency makes each round trip between a cluster and everything else, or one other cluster (to, unless empty), so much longer,
// varied by ± jitter.
func (l *Lab) Latency(ctx context.Context, cluster, to string, latency, jitter time.Duration) error {
	f := state.Fault{Kind: state.Latency, Cluster: cluster, Peer: to, Latency: &metav1.Duration{Duration: latency}}
	if jitter != 0 {
		f.Jitter = &metav1.Duration{Duration: jitter}
	}
	return l.Inject(ctx, f)
}

// Loss loses a share of the packets, 0 to 1, in each direction.
func (l *Lab) Loss(ctx context.Context, cluster, to string, share float64) error {
	return l.Inject(ctx, state.Fault{Kind: state.Loss, Cluster: cluster, Peer: to, Loss: share})
}

// Bandwidth narrows a cluster's link to so many bits a second in each direction.
func (l *Lab) Bandwidth(ctx context.Context, cluster, to string, bitsPerSecond int64) error {
	return l.Inject(ctx, state.Fault{Kind: state.Bandwidth, Cluster: cluster, Peer: to, Rate: bitsPerSecond})
}

// ParseShare reads a share of packets, such as 10% or 0.5%.
func ParseShare(s string) (float64, error) {
	percent, found := strings.CutSuffix(s, "%")
	value, err := strconv.ParseFloat(percent, 64)
	if err != nil || !found {
		return 0, fmt.Errorf("loss %q: write it in percent, such as 10%%", s)
	}
	return value / 100, nil
}

// ParseRate reads a bandwidth as tc(8) does: 500kbit, 1mbit, 10gbit, or bits a second.
func ParseRate(s string) (int64, error) {
	number, factor := s, 1.0
	for suffix, f := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if rest, ok := strings.CutSuffix(strings.ToLower(s), suffix); ok {
			number, factor = rest, f
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || value < 0 || value*factor > 1e12 {
		return 0, fmt.Errorf("bandwidth %q: write it such as 500kbit, 1mbit or 10gbit", s)
	}
	return int64(value * factor), nil
}
