// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// member is the Member behind the interface. mu guards what is below it and is never held across the network or
// a handler.
type member struct {
	name   string
	opts   Options
	wishes *wishes
	writer *writer
	ctx    context.Context
	cancel context.CancelFunc
	wg     *sync.WaitGroup

	mu       sync.RWMutex
	conn     *connection
	kinds    map[schema.GroupVersionKind]*kindState
	phase    Phase
	since    time.Time
	failures int
	version  string
	trouble  probeTrouble
	reported State
}

// kindState is what is known of one kind in one member.
type kindState struct {
	kind Kind
	// serving answers reads; nil until it has synced once, and while the kind is missing.
	serving *kindCache
	missing bool
	// trouble says in words why the kind is not synced, where it is known.
	trouble string
}

func (f *Fleet) newMember(name string) *member {
	m := &member{
		name: name, opts: f.opts, wg: &f.wg, wishes: newWishes(name, f.opts, f.metrics),
		phase: Connecting, since: f.opts.Clock.Now(), kinds: map[schema.GroupVersionKind]*kindState{},
	}
	for gvk, kind := range f.kinds {
		m.kinds[gvk] = &kindState{kind: kind}
	}
	m.ctx, m.cancel = context.WithCancel(f.ctx)
	m.writer = &writer{member: m, opts: f.opts, metrics: f.metrics, written: newLedger()}
	m.reported = m.state()
	for range f.opts.Workers {
		m.wg.Go(func() {
			select {
			case <-f.started:
				m.work()
			case <-m.ctx.Done():
			}
		})
	}
	return m
}

// connect takes a new connection into use in place of the given one, unless another did meanwhile. What the old
// one reads keeps serving, kind by kind, until the new one has read the same.
func (m *member) connect(old *connection, config *rest.Config) (replaced bool, err error) {
	conn, err := newConnection(m.ctx, m.name, config, m.opts)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	if m.conn != old {
		m.mu.Unlock()
		conn.close()
		return false, nil
	}
	m.conn, m.failures = conn, 0
	m.mu.Unlock()
	if old != nil {
		old.close()
	}
	m.writer.written.clear()
	m.wg.Go(func() { m.probeLoop(conn) })
	for gvk, state := range m.kinds {
		watch := &kindWatch{member: m, conn: conn, kind: state.kind, gvk: gvk}
		m.wg.Go(watch.run)
	}
	m.retry(anyWish)
	return true, nil
}

// replaceConnection connects by another kubeconfig, whatever is in use.
func (m *member) replaceConnection(config *rest.Config) error {
	for {
		m.mu.RLock()
		old := m.conn
		m.mu.RUnlock()
		if replaced, err := m.connect(old, config); replaced || err != nil {
			return err
		}
	}
}

// stop ends everything of the member without waiting for it.
func (m *member) stop() {
	m.cancel()
	m.wishes.queue.ShutDown()
}

// Name implements Member.
func (m *member) Name() string { return m.name }

// Reader implements Member.
func (m *member) Reader() client.Reader { return reader{m} }

// State implements Member.
func (m *member) State() State {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state()
}

// state needs mu.
func (m *member) state() State {
	missing, required, unsynced := m.survey()
	s := State{
		Phase: m.phase, Version: m.version, Since: m.since, Missing: missing,
		Synced: m.conn != nil && len(required) == 0 && len(unsynced) == 0,
	}
	switch {
	case m.phase == Lost, m.failures > 0 && m.phase == Connecting:
		s.Reason, s.Message = m.trouble.reason, m.trouble.message
	case m.phase == Connecting:
		s.Reason, s.Message = v1alpha1.ReasonConnecting, "waiting for the API server's first answer"
	case len(required) > 0:
		s.Reason = v1alpha1.ReasonMissingKinds
		s.Message = "the member does not serve " + strings.Join(required, ", ") + ": install the CRDs there"
	case len(unsynced) > 0:
		s.Reason, s.Message = v1alpha1.ReasonSyncing, "reading "+strings.Join(unsynced, ", ")
	default:
		s.Reason, s.Message = v1alpha1.ReasonConnected, "the API server answers"
	}
	return s
}

// survey lists the missing kinds, those of them that are not optional, and those not read yet, all sorted.
func (m *member) survey() (missing, required, unsynced []string) {
	for gvk, state := range m.kinds {
		name := gvk.GroupKind().String()
		switch {
		case state.missing:
			missing = append(missing, name)
			if !state.kind.Optional {
				required = append(required, name)
			}
		case state.serving == nil && state.trouble != "":
			unsynced = append(unsynced, name+" ("+state.trouble+")")
		case state.serving == nil:
			unsynced = append(unsynced, name)
		}
	}
	slices.Sort(missing)
	slices.Sort(required)
	slices.Sort(unsynced)
	return missing, required, unsynced
}

// changed tells of a new State, if it is one, and wakes what waited for it.
func (m *member) changed() {
	if m.ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	before, now := m.reported, m.state()
	m.reported = now
	m.writer.metrics.setConnected(m.name, now.Phase == Connected)
	m.mu.Unlock()
	if reflect.DeepEqual(before, now) {
		return
	}
	ready := func(s State) bool { return s.Phase == Connected && s.Synced }
	if ready(now) && !ready(before) || now.Phase == Connected && before.Phase != Connected {
		m.retry(anyWish)
	}
	m.opts.Handlers.State(m.name)
}

// connection in use, and the state it is in.
func (m *member) connection() (*connection, State) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.conn, m.state()
}
