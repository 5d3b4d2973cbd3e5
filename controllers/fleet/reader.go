// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// reader reads a member's caches.
type reader struct{ member *member }

// Get implements client.Reader.
func (r reader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	entry, err := r.of(obj, "")
	if err != nil {
		return err
	}
	return entry.Get(ctx, key, obj, opts...)
}

// List implements client.Reader.
func (r reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	entry, err := r.of(list, "List")
	if err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if o.LabelSelector != nil {
		if owner, exact := o.LabelSelector.RequiresExactMatch(v1alpha1.LabelOwner); exact {
			return entry.listOwned(list, owner, o)
		}
	}
	return entry.List(ctx, list, opts...)
}

// listOwned lists by the index: each service is looked at again and again, and would else go through the objects of all.
func (c *kindCache) listOwned(list client.ObjectList, owner string, o *client.ListOptions) error {
	items, err := c.store.ByIndex(ownerIndex, owner)
	if err != nil {
		return err
	}
	var found []runtime.Object
	for _, item := range items {
		obj := object(item)
		if (o.Namespace == "" || o.Namespace == obj.GetNamespace()) && o.LabelSelector.Matches(labels.Set(obj.GetLabels())) {
			found = append(found, obj.DeepCopyObject())
		}
	}
	return meta.SetList(list, found)
}

func (r reader) of(obj runtime.Object, suffix string) (*kindCache, error) {
	gvk, err := apiutil.GVKForObject(obj, r.member.opts.Scheme)
	if err != nil {
		return nil, err
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, suffix)
	return r.member.cacheOf(gvk)
}

// serving is the informer that serves a kind, or nil.
func (m *member) serving(gvk schema.GroupVersionKind) *kindCache {
	entry, err := m.cacheOf(gvk)
	if err != nil {
		return nil
	}
	return entry
}

// cacheOf finds the informer that serves a kind. A kind that the member lacks is a meta.NoKindMatchError, one not
// read yet an ErrNotSynced, one that nobody asked to cache a cache.ErrResourceNotCached.
func (m *member) cacheOf(gvk schema.GroupVersionKind) (*kindCache, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	state, ok := m.kinds[gvk]
	switch {
	case !ok:
		return nil, &cache.ErrResourceNotCached{GVK: gvk}
	case state.serving != nil:
		return state.serving, nil
	case state.missing:
		return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return nil, fmt.Errorf("member %s: %s: %w", m.name, gvk.GroupKind(), ErrNotSynced)
}
