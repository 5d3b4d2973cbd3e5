// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// namespaceKind is what wakes a wish that waits for its namespace.
var namespaceKind = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}

// wishes are the newest wish of each owner for one member, and the queue of those to look at.
type wishes struct {
	member  string
	queue   workqueue.TypedRateLimitingInterface[federation.Owner]
	metrics *metrics
	clock   clock.PassiveClock
	outcome func(member string, owner federation.Owner)

	mu      sync.Mutex
	byOwner map[federation.Owner]*wish
	byLabel map[string]federation.Owner
	// open are the owners whose wish is not in the member.
	open map[federation.Owner]struct{}
}

type wish struct {
	desired
	outcome error
	// heals counts the writes that had to undo what others did, the last one at healed.
	heals  int
	healed time.Time
}

func newWishes(member string, opts Options, m *metrics) *wishes {
	return &wishes{
		member: member, metrics: m, clock: opts.Clock, outcome: opts.Handlers.Outcome,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(newBackoff(),
			workqueue.TypedRateLimitingQueueConfig[federation.Owner]{Clock: opts.Clock}),
		byOwner: map[federation.Owner]*wish{},
		byLabel: map[string]federation.Owner{},
		open:    map[federation.Owner]struct{}{},
	}
}

// Submit implements Member. A wish equal to the one before keeps its outcome, so that a reconciler that submits
// on each pass, and passes on each outcome, comes to rest.
func (m *member) Submit(d Desired) {
	m.wishes.put(render(d, m.opts.Scheme))
}

func (w *wishes) put(next desired) {
	w.mu.Lock()
	before := w.byOwner[next.owner]
	same := before != nil && before.hash == next.hash
	if !same {
		w.byOwner[next.owner] = &wish{desired: next, outcome: ErrPending}
		w.byLabel[next.owner.Label()] = next.owner
		w.open[next.owner] = struct{}{}
	}
	w.metrics.setDepth(w.member, len(w.open))
	w.mu.Unlock()
	switch {
	case !same:
		w.again(next.owner)
	case w.queue.NumRequeues(next.owner) == 0:
		w.queue.Add(next.owner)
	}
	// A wish that fails keeps to its backoff: its outcome wakes who submits it, and the two would chase each other at
	// the speed of the network.
}

// again looks at an owner at once, whatever its backoff says.
func (w *wishes) again(owner federation.Owner) {
	w.queue.Forget(owner)
	w.queue.Add(owner)
}

// Outcome implements Member.
func (m *member) Outcome(owner federation.Owner) error {
	m.wishes.mu.Lock()
	defer m.wishes.mu.Unlock()
	if wish := m.wishes.byOwner[owner]; wish != nil {
		return wish.outcome
	}
	return ErrNoWish
}

func (w *wishes) get(owner federation.Owner) *wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byOwner[owner]
}

// settle records the outcome of an attempt, unless a newer wish has come meanwhile, and tells if it is news.
func (w *wishes) settle(tried *wish, wrote bool, err error) {
	w.mu.Lock()
	if w.byOwner[tried.owner] != tried {
		w.mu.Unlock()
		return
	}
	if tried.outcome == nil && wrote {
		tried.heals, tried.healed = tried.heals+1, w.clock.Now()
	}
	news := !sameOutcome(tried.outcome, err)
	tried.outcome = err
	if err == nil {
		delete(w.open, tried.owner)
	} else {
		w.open[tried.owner] = struct{}{}
	}
	w.metrics.setDepth(w.member, len(w.open))
	w.mu.Unlock()
	if news {
		w.outcome(w.member, tried.owner)
	}
}

func sameOutcome(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}

// anyWish is for retry.
func anyWish(error) bool { return true }

// retry looks again, at once, at every open wish whose outcome is of the given sort.
func (m *member) retry(sort func(error) bool) {
	w := m.wishes
	w.mu.Lock()
	var owners []federation.Owner
	for owner := range w.open {
		if sort(w.byOwner[owner].outcome) {
			owners = append(owners, owner)
		}
	}
	w.mu.Unlock()
	for _, owner := range owners {
		w.again(owner)
	}
}

// work is one writer of a member. The queue never hands one owner to two of them.
func (m *member) work() {
	for {
		owner, shutdown := m.wishes.queue.Get()
		if shutdown {
			return
		}
		m.attempt(owner)
		m.wishes.queue.Done(owner)
	}
}

func (m *member) attempt(owner federation.Owner) {
	wish := m.wishes.get(owner)
	if wish == nil || m.ctx.Err() != nil {
		return
	}
	if wish.invalid != nil {
		m.wishes.settle(wish, false, wish.invalid) // only another wish can help
		return
	}
	wrote, err := m.writer.realize(m.ctx, wish.desired)
	if m.ctx.Err() != nil {
		return
	}
	m.wishes.settle(wish, wrote, err)
	if err == nil || m.waits(err) {
		m.wishes.queue.Forget(owner)
		return
	}
	m.opts.Log.V(1).Info("write failed", "member", m.name, "owner", owner.String(), "why", oneLine(err))
	m.wishes.queue.AddRateLimited(owner)
}

// waits tells whether an event will wake a wish, so that trying again before is of no use.
func (m *member) waits(err error) bool {
	var (
		waiting     *WaitingError
		namespace   *NamespaceMissingError
		unsupported *UnsupportedError
	)
	switch {
	case errors.As(err, &waiting):
		return true
	case errors.As(err, &namespace):
		_, watched := m.kinds[namespaceKind]
		return watched
	case errors.As(err, &unsupported):
		return unsupported.Field == "" && unsupported.watched
	}
	return false
}

// observed takes in a change in a member's caches: it may be what a wish waits for, or somebody changed what was
// written.
func (m *member) observed(gvk schema.GroupVersionKind, old, new client.Object) {
	m.opts.Handlers.Object(m.name, old, new)
	if gvk == namespaceKind {
		m.retryNamespace(new)
	}
	ours := m.writer.written.observe(gvk, old, new)
	if ours || onlyStatusChanged(old, new) {
		return
	}
	for _, label := range ownersOf(old, new) {
		m.wishes.heal(label)
	}
	if new == nil && !federation.IsOurs(old) {
		m.retry(func(err error) bool {
			var foreign *ForeignError
			return errors.As(err, &foreign) && foreign.Kind == gvk.Kind &&
				foreign.Namespace == old.GetNamespace() && foreign.Name == old.GetName()
		})
	}
}

func (m *member) retryNamespace(namespace client.Object) {
	if namespace == nil || namespace.GetDeletionTimestamp() != nil {
		return
	}
	m.retry(func(err error) bool {
		var missing *NamespaceMissingError
		return errors.As(err, &missing) && missing.Namespace == namespace.GetName()
	})
}

// heal looks at the owner whose object changed, at once for the first times. Somebody who undoes what was written
// again and again is answered more and more slowly: two writers must not fight at the speed of the network.
func (w *wishes) heal(label string) {
	const patience, calm = 3, time.Minute
	w.mu.Lock()
	defer w.mu.Unlock()
	owner, known := w.byLabel[label]
	if !known {
		return
	}
	wish := w.byOwner[owner]
	if w.clock.Since(wish.healed) > calm {
		wish.heals = 0
	}
	if wish.heals < patience {
		w.queue.Add(owner)
		return
	}
	w.queue.AddAfter(owner, min(backoffMost, backoffFirst<<min(wish.heals-patience, 8)))
}

// onlyStatusChanged is true for the many updates by which a controller reports on what we wrote.
func onlyStatusChanged(old, new client.Object) bool {
	return old != nil && new != nil && new.GetGeneration() != 0 && old.GetUID() == new.GetUID() &&
		old.GetGeneration() == new.GetGeneration() && old.GetDeletionTimestamp().Equal(new.GetDeletionTimestamp()) &&
		maps.Equal(old.GetLabels(), new.GetLabels()) && maps.Equal(old.GetAnnotations(), new.GetAnnotations())
}

func ownersOf(objects ...client.Object) []string {
	var owners []string
	for _, obj := range objects {
		if obj != nil && federation.IsOurs(obj) {
			owners = append(owners, obj.GetLabels()[v1alpha1.LabelOwner])
		}
	}
	if len(owners) == 2 && owners[0] == owners[1] {
		return owners[:1]
	}
	return owners
}

// backoff of failed attempts: 200 ms, doubled each time, 30 s at most, give or take a quarter.
type backoff struct {
	mu       sync.Mutex
	failures map[federation.Owner]int
}

func newBackoff() *backoff { return &backoff{failures: map[federation.Owner]int{}} }

const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 30 * time.Second
)

// When implements workqueue.TypedRateLimiter.
func (b *backoff) When(owner federation.Owner) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.failures[owner]
	b.failures[owner] = n + 1
	delay := backoffMost
	if n < 8 {
		delay = min(backoffMost, backoffFirst<<n)
	}
	return time.Duration(float64(delay) * (0.75 + 0.5*rand.Float64()))
}

// Forget implements workqueue.TypedRateLimiter.
func (b *backoff) Forget(owner federation.Owner) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failures, owner)
}

// NumRequeues implements workqueue.TypedRateLimiter.
func (b *backoff) NumRequeues(owner federation.Owner) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures[owner]
}
