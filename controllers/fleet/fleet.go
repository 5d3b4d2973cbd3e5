// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Fleet is the connections to all members. It is safe for use by many goroutines.
type Fleet struct {
	opts    Options
	kinds   map[schema.GroupVersionKind]Kind
	metrics *metrics
	invalid error
	ctx     context.Context
	cancel  context.CancelFunc

	started chan struct{}
	wg      sync.WaitGroup // all that runs for any member

	mu      sync.RWMutex
	members map[string]*membership
}

// membership is a member with the bytes that it was connected by.
type membership struct {
	*member
	kubeconfig []byte
}

// New makes a fleet without members.
func New(opts Options) *Fleet {
	f := &Fleet{opts: opts.withDefaults(), kinds: map[schema.GroupVersionKind]Kind{}, members: map[string]*membership{},
		started: make(chan struct{})}
	f.metrics = newMetrics(f.opts.Registerer)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for _, kind := range opts.Kinds {
		gvk, err := apiutil.GVKForObject(kind.Object, opts.Scheme)
		if err != nil {
			f.invalid = errors.Join(f.invalid, fmt.Errorf("fleet kinds: %w: add it to the scheme", err))
			continue
		}
		f.kinds[gvk] = kind
	}
	return f
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: only the leader writes to members.
func (f *Fleet) NeedLeaderElection() bool { return true }

// Start keeps the connections until the context ends, ends them, and returns when nothing of them runs any more.
// Members may be connected and read before; nothing is written to them until then. It implements manager.Runnable; a
// fleet is started once.
func (f *Fleet) Start(ctx context.Context) error {
	if f.invalid == nil {
		close(f.started)
		<-ctx.Done()
	}
	f.mu.Lock()
	f.cancel()
	for _, m := range f.members {
		m.stop()
	}
	clear(f.members)
	f.mu.Unlock()
	f.wg.Wait()
	return f.invalid
}

// Ensure connects a member, or connects it anew when the kubeconfig changed: its caches and its wishes stay, so
// that a rotated credential changes nothing else. It does not wait for the network. A kubeconfig that is refused
// (*KubeconfigError) leaves a connection that there is as it was.
func (f *Fleet) Ensure(name string, kubeconfig []byte) error {
	config, err := ParseKubeconfig(kubeconfig)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return errors.New("the fleet has ended")
	}
	known := f.members[name]
	if known != nil && bytes.Equal(known.kubeconfig, kubeconfig) {
		return nil
	}
	if known == nil {
		known = &membership{member: f.newMember(name)}
	}
	if err := known.replaceConnection(config); err != nil {
		return fmt.Errorf("member %s: %w", name, err)
	}
	known.kubeconfig = bytes.Clone(kubeconfig)
	f.members[name] = known
	return nil
}

// Remove ends a member's connection and forgets it. What was written in the member stays: withdraw it first, by
// wishes without objects.
func (f *Fleet) Remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[name]
	if m == nil {
		return
	}
	delete(f.members, name)
	m.stop()
	f.metrics.forget(name)
}

// Member by name.
func (f *Fleet) Member(name string) (Member, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m, ok := f.members[name]
	if !ok {
		return nil, false
	}
	return m.member, true
}

// Members sorted by name.
func (f *Fleet) Members() []Member {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := make([]Member, 0, len(f.members))
	for _, m := range f.members {
		all = append(all, m.member)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}
