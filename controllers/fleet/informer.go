// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const (
	// missingInterval is how often a missing kind is looked for.
	missingInterval = 10 * time.Second
	// missingDoubts is how many times, a missingDoubt apart, a kind that was served is looked for again before its
	// absence is believed. An API server that has just started may answer 404 until it has found its CRDs, and to
	// believe it at once would withdraw every export of the member.
	missingDoubts = 5
	missingDoubt  = time.Second
	// ownerIndex finds what an owner has in a kind without a walk over all of it.
	ownerIndex = "isthmus.dev/owner"
)

// kindWatch keeps one kind of one connection read, from discovery to the informer.
type kindWatch struct {
	member *member
	conn   *connection
	kind   Kind
	gvk    schema.GroupVersionKind
}

// run ends with the connection.
func (w *kindWatch) run() {
	retry, doubts := 200*time.Millisecond, 0
	for w.conn.ctx.Err() == nil {
		err := w.conn.resolve(w.conn.ctx, w.gvk)
		switch {
		case errors.Is(err, errKindMissing) && doubts < missingDoubts && w.member.served(w.gvk):
			doubts++
			w.member.sleep(w.conn.ctx, jitter(missingDoubt, 0.1))
			continue
		case errors.Is(err, errKindMissing):
			w.member.kindMissing(w.conn, w.gvk)
			w.member.sleep(w.conn.ctx, jitter(missingInterval, 0.1))
			continue
		case err == nil:
			doubts = 0
			err = w.watch()
		}
		w.member.kindTrouble(w.conn, w.gvk, err)
		w.member.sleep(w.conn.ctx, jitter(retry, 0.2))
		retry = min(2*retry, missingInterval)
	}
}

// watch runs an informer until the connection ends or the kind is gone. An informer that has synced outlives its
// connection, and serves until its successor has synced too.
func (w *kindWatch) watch() error {
	gone := make(chan struct{}, 1)
	entry, err := w.newCache(gone)
	if err != nil {
		return err
	}
	w.member.kindFound(w.conn, w.gvk)
	select {
	case <-w.conn.ctx.Done():
		entry.stop()
		return nil
	case <-gone:
		entry.stop()
		return errors.New("the member stopped serving it")
	case <-entry.synced:
	}
	w.member.serve(w.conn, w.gvk, entry)
	select {
	case <-w.conn.ctx.Done():
	case <-gone:
	}
	return nil
}

// kindCache is one informer with its reader.
type kindCache struct {
	cache.Cache
	store toolscache.Indexer
	// active informers tell of events; one that waits to take over does not.
	active atomic.Bool
	synced <-chan struct{}
	stop   context.CancelFunc
}

func (w *kindWatch) newCache(gone chan<- struct{}) (*kindCache, error) {
	entry := &kindCache{}
	ctx, stop := context.WithCancel(w.member.ctx)
	entry.stop = stop
	var err error
	entry.Cache, err = cache.New(w.conn.config, cache.Options{
		HTTPClient:                  w.conn.http,
		Scheme:                      w.member.opts.Scheme,
		Mapper:                      w.conn.mapper,
		ReaderFailOnMissingInformer: true,
		DefaultLabelSelector:        w.kind.Selector,
		DefaultTransform:            w.transform(),
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) {
			w.watchFailed(err, gone)
		},
		NewInformer: func(lw toolscache.ListerWatcher, obj runtime.Object, resync time.Duration, by toolscache.Indexers) toolscache.SharedIndexInformer {
			by[ownerIndex] = ownerLabels
			informer := toolscache.NewSharedIndexInformer(lw, obj, resync, by)
			entry.store = informer.GetIndexer()
			return informer
		},
	})
	if err == nil {
		err = w.start(ctx, entry)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("cache of %s: %w", w.gvk.GroupKind(), err)
	}
	return entry, nil
}

func (w *kindWatch) start(ctx context.Context, entry *kindCache) error {
	informer, err := entry.GetInformer(ctx, w.kind.Object, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	handle := func(old, new client.Object) {
		if entry.active.Load() {
			w.member.observed(w.gvk, old, new)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { handle(nil, object(obj)) },
		UpdateFunc: func(old, new any) { handle(object(old), object(new)) },
		DeleteFunc: func(obj any) { handle(object(obj), nil) },
	})
	if err != nil {
		return err
	}
	entry.synced = registration.HasSyncedChecker().Done()
	w.member.wg.Go(func() { _ = entry.Start(ctx) })
	return nil
}

func (w *kindWatch) transform() toolscache.TransformFunc {
	if w.kind.Transform == nil {
		return stripManagedFields
	}
	return func(in any) (any, error) {
		out, err := stripManagedFields(in)
		if err != nil {
			return nil, err
		}
		return w.kind.Transform(out)
	}
}

// watchFailed is called at each failed list and watch; client-go tries again by itself.
func (w *kindWatch) watchFailed(err error, gone chan<- struct{}) {
	if apierrors.IsNotFound(err) { // its CRD was deleted
		select {
		case gone <- struct{}{}:
		default:
		}
	}
	w.member.kindTrouble(w.conn, w.gvk, err)
}

func ownerLabels(item any) ([]string, error) {
	if owner := object(item).GetLabels()[v1alpha1.LabelOwner]; owner != "" {
		return []string{owner}, nil
	}
	return nil, nil
}

// object unpacks what an informer hands over, which for a deletion that was missed is a tombstone.
func object(in any) client.Object {
	if tombstone, ok := in.(toolscache.DeletedFinalStateUnknown); ok {
		in = tombstone.Obj
	}
	obj, _ := in.(client.Object)
	return obj
}

// serve lets an informer that has synced answer reads in place of its predecessor, and tells of what differs
// between the two, and of nothing else.
func (m *member) serve(conn *connection, gvk schema.GroupVersionKind, entry *kindCache) {
	m.mu.Lock()
	if m.conn != conn {
		m.mu.Unlock()
		entry.stop()
		return
	}
	state := m.kinds[gvk]
	old := state.serving
	state.serving, state.missing, state.trouble = entry, false, ""
	m.mu.Unlock()
	m.replace(gvk, old, entry)
	m.retry(anyWish)
	m.changed()
}

// replace hands the events over from one informer to the next. Either may be nil.
func (m *member) replace(gvk schema.GroupVersionKind, old, next *kindCache) {
	var before, after []any
	if old != nil {
		old.active.Store(false)
		before = old.store.List()
		old.stop()
	}
	if next != nil {
		next.active.Store(true)
		after = next.store.List()
	}
	known := make(map[client.ObjectKey]client.Object, len(before))
	for _, item := range before {
		obj := object(item)
		known[client.ObjectKeyFromObject(obj)] = obj
	}
	for _, item := range after {
		obj := object(item)
		key := client.ObjectKeyFromObject(obj)
		was := known[key]
		delete(known, key)
		if was == nil || was.GetUID() != obj.GetUID() || was.GetResourceVersion() != obj.GetResourceVersion() {
			m.observed(gvk, was, obj)
		}
	}
	for _, obj := range known {
		m.observed(gvk, obj, nil)
	}
}

func (m *member) kindMissing(conn *connection, gvk schema.GroupVersionKind) {
	m.updateKind(conn, gvk, func(state *kindState) {
		state.missing, state.trouble = true, ""
	})
	m.mu.Lock()
	var old *kindCache
	if m.conn == conn {
		old, m.kinds[gvk].serving = m.kinds[gvk].serving, nil
	}
	m.mu.Unlock()
	if old != nil {
		m.replace(gvk, old, nil)
	}
	m.changed()
}

func (m *member) kindFound(conn *connection, gvk schema.GroupVersionKind) {
	m.updateKind(conn, gvk, func(state *kindState) { state.missing = false })
	m.changed()
}

// kindTrouble remembers in words why a kind cannot be read; only the words for those who have not synced show.
func (m *member) kindTrouble(conn *connection, gvk schema.GroupVersionKind, err error) {
	if err == nil {
		return
	}
	words := explainNetwork(err, m.opts.RequestTimeout)
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		words = string(status.Status().Reason)
		if status.Status().Reason == metav1.StatusReasonForbidden {
			words = "forbidden: give Isthmus's account in the member list and watch on it"
		}
	}
	m.updateKind(conn, gvk, func(state *kindState) { state.trouble = words })
	m.opts.Log.V(1).Info("reading a kind failed", "member", m.name, "kind", gvk.GroupKind().String(), "why", words)
	m.changed()
}

// served tells whether a kind has been read and answers reads.
func (m *member) served(gvk schema.GroupVersionKind) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.kinds[gvk].serving != nil
}

// kindTroubled tells whether a kind that has not synced is known to have trouble doing so.
func (m *member) kindTroubled(gvk schema.GroupVersionKind) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.kinds[gvk].trouble != ""
}

func (m *member) updateKind(conn *connection, gvk schema.GroupVersionKind, update func(*kindState)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == conn {
		update(m.kinds[gvk])
	}
}
