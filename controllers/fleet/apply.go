// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// mustNotExist as the resource version of an apply creates an object and never touches one that is there: etcd's
// first revision is never an object's, so an API server answers Conflict. Without it, an object that somebody made
// since we looked would get our labels.
const mustNotExist = "1"

// writer is the one path by which anything is written to a member.
//
//	is in the member      | what is done
//	nothing               | applied, unless the namespace is missing
//	ours, as wished       | nothing
//	ours, anything else   | applied, taking back what others changed and taking out what they added to the spec
//	another owner's       | nothing: ForeignError
//	not ours              | nothing: ForeignError
//	ours, no longer wished| deleted, once all that is wished was applied
type writer struct {
	member  *member
	opts    Options
	metrics *metrics
	written *ledger
}

// realize makes a wish true, and tells whether anything had to be written for it.
func (w *writer) realize(ctx context.Context, d desired) (wrote bool, err error) {
	conn, state := w.member.connection()
	if state.Phase != Connected {
		return false, w.waiting(state.Reason, "the connection: "+state.Message)
	}
	wrote, err = w.applyAll(ctx, conn, d)
	// Also beside objects that cannot be written: their owner has more need of a word than ever.
	for _, r := range d.statuses {
		did, statusErr := w.applyStatus(ctx, conn, r)
		wrote = wrote || did
		err = errors.Join(err, statusErr)
	}
	return wrote, err
}

// applyAll makes the objects of a wish what they should be, and then deletes what is no longer wished. A sequence ends
// at an object that cannot be written; the others go on, unless it is the API server that has trouble.
func (w *writer) applyAll(ctx context.Context, conn *connection, d desired) (wrote bool, err error) {
	for _, sequence := range d.sequences {
		did, failed := w.applySequence(ctx, conn, d.owner, sequence)
		wrote, err = wrote || did, moreUrgent(err, failed)
		var trouble *WriteError
		if errors.As(failed, &trouble) {
			return wrote, err
		}
	}
	if err != nil {
		return wrote, err
	}
	did, err := w.prune(ctx, conn, d)
	return wrote || did, err
}

func (w *writer) applySequence(ctx context.Context, conn *connection, owner federation.Owner, sequence []rendered) (wrote bool, err error) {
	for _, r := range sequence {
		did, err := w.apply(ctx, conn, owner, r)
		wrote = wrote || did
		if err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}

// applyStatus says what is ours to say in an object's status, where it does not say so already. Nothing is taken
// over by force: another controller's word on the same field stays, and is an error here.
func (w *writer) applyStatus(ctx context.Context, conn *connection, r rendered) (bool, error) {
	entry := w.member.serving(r.gvk)
	if entry == nil {
		return false, nil // without the kind there is no object to speak of
	}
	item, found, err := entry.store.GetByKey(storeKey(r.key))
	if err != nil || !found {
		return false, err
	}
	cached := object(item)
	written := objectKey{schema.GroupKind{Group: r.gvk.Group, Kind: r.gvk.Kind + "/status"}, r.key}
	content, err := contentOf(cached)
	if err != nil {
		return false, err
	}
	if w.written.holds(written, cached, r.hash) || holds(content["status"], r.content["status"]) {
		return false, nil
	}
	config := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(r.content)}
	config.SetGroupVersionKind(r.gvk)
	config.SetNamespace(r.key.Namespace)
	config.SetName(r.key.Name)
	config.SetUID(cached.GetUID())
	err = w.send(ctx, r.gvk, r.key, "status", func(ctx context.Context) error {
		return conn.live.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(config), client.FieldOwner(v1alpha1.FieldOwner))
	})
	if err == nil {
		w.written.put(written, config, r.hash)
	}
	return true, err
}

// apply makes one object what it should be.
func (w *writer) apply(ctx context.Context, conn *connection, owner federation.Owner, r rendered) (bool, error) {
	live, done, err := w.compare(ctx, conn, owner, r)
	if done || err != nil {
		return false, err
	}
	if live == nil {
		if err := w.namespaceOf(r); err != nil {
			return false, err
		}
	}
	config := r.configuration(strconv.FormatInt(w.opts.Epoch(), 10), live)
	options := []client.ApplyOption{client.FieldOwner(v1alpha1.FieldOwner)}
	if live != nil {
		options = append(options, client.ForceOwnership)
	} else {
		config.SetResourceVersion(mustNotExist)
	}
	err = w.send(ctx, r.gvk, r.key, "applied", func(ctx context.Context) error {
		return conn.live.Apply(ctx, client.ApplyConfigurationFromUnstructured(config), options...)
	})
	if err == nil && addedTo(config) {
		err = w.takeOut(ctx, conn, r, config)
	}
	if err == nil {
		w.written.put(r.objectKey(), config, r.hash)
		if live == nil {
			w.written.created(r.objectKey(), config)
		}
	}
	return true, err
}

// takeOut removes what others added to the spec of an object that was applied just now, which an apply leaves.
func (w *writer) takeOut(ctx context.Context, conn *connection, r rendered, applied *unstructured.Unstructured) error {
	patch, err := r.replaceSpec(applied)
	if err != nil {
		return err
	}
	return w.send(ctx, r.gvk, r.key, "applied", func(ctx context.Context) error {
		return conn.live.Patch(ctx, applied, patch, client.FieldOwner(v1alpha1.FieldOwner))
	})
}

// compare finds the live object, and whether it is as wished. The cache answers where it can know.
func (w *writer) compare(ctx context.Context, conn *connection, owner federation.Owner, r rendered) (client.Object, bool, error) {
	cached, complete, err := w.cached(ctx, conn, r)
	if err != nil {
		return nil, false, err
	}
	if cached != nil && w.foreign(cached, owner, r) == nil && cached.GetDeletionTimestamp() == nil {
		switch {
		case w.written.holds(r.objectKey(), cached, r.hash):
			return cached, true, nil
		case w.written.stale(r.objectKey(), cached):
			return cached, false, nil // what was written since is not what is wished now
		case complete && r.heldBy(cached):
			w.written.put(r.objectKey(), cached, r.hash)
			return cached, true, nil
		case complete:
			return cached, false, nil
		}
	}
	return w.compareLive(ctx, conn, owner, r)
}

// compareLive asks the API server: the cache may select by our label, and then cannot show an object of another.
func (w *writer) compareLive(ctx context.Context, conn *connection, owner federation.Owner, r rendered) (client.Object, bool, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(r.gvk)
	ctx, cancel := context.WithTimeout(ctx, w.opts.RequestTimeout)
	defer cancel()
	switch err := conn.live.Get(ctx, r.key, live); {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, w.classify(err, r.gvk, r.key)
	}
	if err := w.foreign(live, owner, r); err != nil {
		return nil, false, err
	}
	if live.GetDeletionTimestamp() != nil {
		return nil, false, w.waiting("", r.gvk.Kind+" "+r.key.String()+" to be gone: it is being deleted")
	}
	if !r.heldBy(live) {
		return live, false, nil
	}
	w.written.put(r.objectKey(), live, r.hash)
	return live, true, nil
}

// cached looks into the cache. complete is false where what is cached is less than the object.
func (w *writer) cached(ctx context.Context, conn *connection, r rendered) (obj client.Object, complete bool, err error) {
	entry, err := w.member.cacheOf(r.gvk)
	var notCached *cache.ErrResourceNotCached
	switch {
	case meta.IsNoMatchError(err):
		return nil, false, &UnsupportedError{ObjectRef: w.ref(r.gvk, r.key), watched: true}
	case errors.As(err, &notCached):
		return nil, false, w.resolve(ctx, conn, r)
	case err != nil && conn.mapper.knows(r.gvk) && w.member.kindTroubled(r.gvk):
		return nil, false, nil
	case err != nil:
		return nil, false, w.waiting("", r.gvk.GroupKind().String()+" to be read")
	}
	item, _, err := entry.store.GetByKey(storeKey(r.key))
	_, metadataOnly := item.(*metav1.PartialObjectMetadata)
	return object(item), !metadataOnly && w.member.kinds[r.gvk].kind.Transform == nil, err
}

// resolve learns the resource of a kind that nobody caches.
func (w *writer) resolve(ctx context.Context, conn *connection, r rendered) error {
	if conn.mapper.knows(r.gvk) {
		return nil
	}
	err := conn.resolve(ctx, r.gvk)
	if errors.Is(err, errKindMissing) {
		return &UnsupportedError{ObjectRef: w.ref(r.gvk, r.key)}
	}
	return w.classify(err, r.gvk, r.key)
}

func storeKey(key client.ObjectKey) string {
	return strings.TrimPrefix(key.Namespace+"/"+key.Name, "/")
}

// foreign says whose an object is, if it is not the owner's.
func (w *writer) foreign(live client.Object, owner federation.Owner, r rendered) error {
	if !federation.IsOurs(live) {
		managers := []string{}
		for _, field := range live.GetManagedFields() {
			managers = append(managers, field.Manager)
		}
		slices.Sort(managers)
		return &ForeignError{ObjectRef: w.ref(r.gvk, r.key), Managers: slices.Compact(managers)}
	}
	if live.GetLabels()[v1alpha1.LabelOwner] != owner.Label() {
		return &ForeignError{ObjectRef: w.ref(r.gvk, r.key), Owner: live.GetAnnotations()[v1alpha1.AnnotationOwner]}
	}
	return nil
}

// namespaceOf looks for an object's namespace before it is created, where namespaces are cached.
func (w *writer) namespaceOf(r rendered) error {
	if r.key.Namespace == "" {
		return nil
	}
	entry := w.member.serving(namespaceKind)
	if entry == nil {
		return nil // the API server will say
	}
	item, found, err := entry.store.GetByKey(r.key.Namespace)
	if err != nil {
		return err
	}
	if !found {
		return &NamespaceMissingError{ObjectRef: w.ref(r.gvk, r.key)}
	}
	if object(item).GetDeletionTimestamp() != nil {
		return &NamespaceMissingError{ObjectRef: w.ref(r.gvk, r.key), Terminating: true}
	}
	return nil
}

// prune deletes what carries the owner's label and is no longer wished.
func (w *writer) prune(ctx context.Context, conn *connection, d desired) (wrote bool, err error) {
	keep := map[objectKey]bool{}
	for _, r := range slices.Concat(d.sequences...) {
		keep[r.objectKey()] = true
	}
	var first error
	for _, gvk := range d.prune {
		owned, err := w.owned(gvk, d.owner)
		first = moreUrgent(first, err)
		for _, obj := range owned {
			if keep[keyOf(gvk, obj)] {
				continue
			}
			did, err := w.remove(ctx, conn, gvk, obj)
			wrote = wrote || did
			first = moreUrgent(first, err)
		}
	}
	return wrote, first
}

// moreUrgent of two errors is the one to try again after: an event wakes what only waits, and nothing would wake a
// deletion that failed beside it.
func moreUrgent(a, b error) error {
	if a == nil || b != nil && errors.Is(a, ErrPending) && !errors.Is(b, ErrPending) {
		return b
	}
	return a
}

// owned lists what an owner has of one kind, sorted by name: what the cache shows, and what was created so lately
// that it does not show it yet.
func (w *writer) owned(gvk schema.GroupVersionKind, owner federation.Owner) ([]client.Object, error) {
	entry, err := w.member.cacheOf(gvk)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if errors.Is(err, ErrNotSynced) {
		return nil, w.waiting("", gvk.GroupKind().String()+" to be read before anything is deleted")
	}
	if err != nil {
		return nil, fmt.Errorf("member %s: %s cannot be pruned: %w: add the kind to the fleet's Kinds", w.member.name, gvk.GroupKind(), err)
	}
	items, err := entry.store.ByIndex(ownerIndex, owner.Label())
	if err != nil {
		return nil, err
	}
	var owned []client.Object
	for _, item := range items {
		if obj := object(item); federation.IsOurs(obj) {
			owned = append(owned, obj)
		}
	}
	for _, obj := range w.written.createdFor(gvk.GroupKind(), owner.Label()) {
		if _, seen, err := entry.store.GetByKey(storeKey(client.ObjectKeyFromObject(obj))); err == nil && !seen {
			owned = append(owned, obj)
		}
	}
	slices.SortFunc(owned, func(a, b client.Object) int {
		return strings.Compare(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName())
	})
	return owned, nil
}

// remove deletes one object, if it is still the one that the cache shows, to the last change.
func (w *writer) remove(ctx context.Context, conn *connection, gvk schema.GroupVersionKind, obj client.Object) (bool, error) {
	key := client.ObjectKeyFromObject(obj)
	gone := w.waiting("", gvk.Kind+" "+key.String()+" to be gone: it is being deleted, and its finalizers have to let go")
	if obj.GetDeletionTimestamp() != nil {
		return false, gone
	}
	if state := w.member.State(); !state.Synced || state.Phase != Connected {
		return false, w.waiting(state.Reason, "all kinds to be read before anything is deleted: "+state.Message)
	}
	target := &unstructured.Unstructured{}
	target.SetGroupVersionKind(gvk)
	target.SetNamespace(key.Namespace)
	target.SetName(key.Name)
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	err := w.send(ctx, gvk, key, "deleted", func(ctx context.Context) error {
		return client.IgnoreNotFound(conn.live.Delete(ctx, target, client.Preconditions{UID: &uid, ResourceVersion: &version}))
	})
	if err != nil {
		return true, err
	}
	w.written.drop(keyOf(gvk, obj))
	if len(obj.GetFinalizers()) > 0 {
		return true, gone
	}
	return true, nil
}

// send is the one place where a write leaves: with a time limit, counted, and with an error that says what to do.
func (w *writer) send(ctx context.Context, gvk schema.GroupVersionKind, key client.ObjectKey, result string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.opts.RequestTimeout)
	defer cancel()
	start := w.opts.Clock.Now()
	err := w.classify(call(ctx), gvk, key)
	w.metrics.wrote(w.member.name, gvk.Kind, resultOf(err, result), w.opts.Clock.Since(start))
	return err
}

func resultOf(err error, success string) string {
	var (
		refused     *RefusedError
		unsupported *UnsupportedError
	)
	switch {
	case err == nil:
		return success
	case apierrors.IsConflict(err):
		return "conflict"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &unsupported):
		return "unsupported"
	}
	return "failed"
}

// unknownField finds the field in the two ways by which an API server names one that it does not know.
var unknownField = regexp.MustCompile(`([^\s:]+): field not declared in schema|unknown field "([^"]+)"`)

// classify says what an API server's answer means for the wish.
func (w *writer) classify(err error, gvk schema.GroupVersionKind, key client.ObjectKey) error {
	if err == nil {
		return nil
	}
	ref := w.ref(gvk, key)
	if field := unknownFields(err); field != "" {
		return &UnsupportedError{ObjectRef: ref, Field: field}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return &WriteError{ObjectRef: ref, Err: &networkError{words: explainNetwork(err, w.opts.RequestTimeout), err: err}}
	}
	details := status.Status().Details
	switch {
	case apierrors.IsNotFound(err) && details != nil && details.Kind == "namespaces":
		return &NamespaceMissingError{ObjectRef: ref}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &NamespaceMissingError{ObjectRef: ref, Terminating: true}
	case apierrors.IsNotFound(err):
		return &UnsupportedError{ObjectRef: ref}
	case anotherObject(details):
		return &WriteError{ObjectRef: ref, Err: errors.New("the object was replaced meanwhile")}
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err),
		apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		return &RefusedError{ObjectRef: ref, Err: err}
	}
	return &WriteError{ObjectRef: ref, Err: err}
}

// anotherObject is how an API server answers when the UID that was sent is not that of the object.
func anotherObject(details *metav1.StatusDetails) bool {
	return details != nil && slices.ContainsFunc(details.Causes, func(cause metav1.StatusCause) bool {
		return cause.Field == "metadata.uid"
	})
}

func unknownFields(err error) string {
	var fields []string
	for _, match := range unknownField.FindAllStringSubmatch(err.Error(), -1) {
		fields = append(fields, match[1]+match[2])
	}
	slices.Sort(fields)
	return strings.Join(slices.Compact(fields), ", ")
}

// networkError says a network's trouble in words that are the same each time, and keeps the cause.
type networkError struct {
	words string
	err   error
}

func (e *networkError) Error() string { return e.words }
func (e *networkError) Unwrap() error { return e.err }

func (w *writer) ref(gvk schema.GroupVersionKind, key client.ObjectKey) ObjectRef {
	return ObjectRef{Member: w.member.name, Kind: gvk.Kind, Namespace: key.Namespace, Name: key.Name}
}

func (w *writer) waiting(reason, what string) error {
	return &WaitingError{Member: w.member.name, Reason: reason, For: what}
}
