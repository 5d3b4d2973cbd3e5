// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// ledger remembers what was last seen to be as wished, object by object. A cache lags behind a write, and a wish
// repeated in between must not be written again; and an object that did not change since need not be compared.
type ledger struct {
	mu      sync.Mutex
	entries map[objectKey]entry
	// unseen are the objects that were created and that no cache has shown yet: whoever withdraws them at once
	// finds them here.
	unseen map[objectKey]client.Object
}

type objectKey struct {
	schema.GroupKind
	client.ObjectKey
}

type entry struct {
	hash, version string
	uid           types.UID
}

func newLedger() *ledger {
	return &ledger{entries: map[objectKey]entry{}, unseen: map[objectKey]client.Object{}}
}

func keyOf(gvk schema.GroupVersionKind, obj client.Object) objectKey {
	return objectKey{gvk.GroupKind(), client.ObjectKeyFromObject(obj)}
}

// put records that an object, at its resource version, is what hash says.
func (l *ledger) put(key objectKey, obj client.Object, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.entries[key]; ok && known.uid == obj.GetUID() && newer(known.version, obj.GetResourceVersion()) {
		return
	}
	l.entries[key] = entry{hash: hash, version: obj.GetResourceVersion(), uid: obj.GetUID()}
}

// created records an object that was made just now.
func (l *ledger) created(key objectKey, obj client.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unseen[key] = obj
}

// createdFor returns the objects of one kind that were made for an owner and that no event has shown yet.
func (l *ledger) createdFor(kind schema.GroupKind, label string) []client.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	var made []client.Object
	for key, obj := range l.unseen {
		if key.GroupKind == kind && obj.GetLabels()[v1alpha1.LabelOwner] == label {
			made = append(made, obj)
		}
	}
	return made
}

// holds tells whether an object that a cache shows is known to be what hash says: it is the very one that was
// recorded, or an older one that the cache has not replaced yet.
func (l *ledger) holds(key objectKey, cached client.Object, hash string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.entries[key]
	return ok && known.hash == hash && known.uid == cached.GetUID() && !newer(cached.GetResourceVersion(), known.version)
}

// stale tells whether a cache shows a state of an object from before what was recorded.
func (l *ledger) stale(key objectKey, cached client.Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.entries[key]
	return ok && known.uid == cached.GetUID() && newer(known.version, cached.GetResourceVersion())
}

func (l *ledger) drop(key objectKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, key)
	delete(l.unseen, key)
}

func (l *ledger) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entries)
	clear(l.unseen)
}

// observe takes in an event, and tells whether it is the echo of what was recorded.
func (l *ledger) observe(gvk schema.GroupVersionKind, old, new client.Object) bool {
	if new == nil {
		l.drop(keyOf(gvk, old))
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := keyOf(gvk, new)
	delete(l.unseen, key)
	known, ok := l.entries[key]
	return ok && known.uid == new.GetUID() && !newer(new.GetResourceVersion(), known.version)
}

// newer is true if a is known to be newer than b; versions that cannot be compared are not.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order > 0
}
