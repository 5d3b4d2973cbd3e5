// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// addedTo tells whether somebody else holds a field of the spec of an object that is ours and that we do not hold: a
// server-side apply leaves it where it is, though the spec is ours as a whole. What an API server defaults, or a
// webhook adds to our write, is nobody's or ours.
//
//	held by                  | an addition
//	us                       | no
//	us and others            | no: they say the same
//	others alone, the spec   | yes
//	others alone, the status | no: it is theirs to write
func addedTo(obj client.Object) bool {
	ours, theirs := fieldpath.NewSet(), fieldpath.NewSet()
	for _, field := range obj.GetManagedFields() {
		set := &fieldpath.Set{}
		switch {
		case field.FieldsV1 == nil || field.Subresource != "" || set.FromJSON(field.FieldsV1.GetRawReader()) != nil:
		case field.Manager == v1alpha1.FieldOwner:
			ours = ours.Union(set)
		default:
			theirs = theirs.Union(set)
		}
	}
	return !theirs.WithPrefix(specElement).Difference(ours.WithPrefix(specElement)).Empty()
}

var specElement = fieldpath.FieldNameElement("spec")

// stripManagedFields drops what nobody reads from a cache, and what is half of its size. Who holds what stays only
// where it is to be mended, so that an addition can be seen in the cache.
func stripManagedFields(in any) (any, error) {
	obj, ok := in.(client.Object)
	if !ok || federation.IsOurs(obj) && othersHold(obj.GetManagedFields()) && addedTo(obj) {
		return in, nil
	}
	if obj.GetManagedFields() != nil {
		obj.SetManagedFields(nil)
	}
	return in, nil
}

// othersHold is a cheap look: nearly no object needs the dear one.
func othersHold(fields []metav1.ManagedFieldsEntry) bool {
	for _, field := range fields {
		if field.Manager != v1alpha1.FieldOwner && field.Subresource == "" && field.FieldsV1 != nil &&
			strings.Contains(field.FieldsV1.GetRawString(), `"f:spec"`) {
			return true
		}
	}
	return false
}

// replaceSpec puts the wished spec in the place of one to which others added, unless the object changed since.
func (r rendered) replaceSpec(live client.Object) (client.Patch, error) {
	data, err := json.Marshal([]map[string]any{
		{"op": "add", "path": "/metadata/resourceVersion", "value": live.GetResourceVersion()},
		{"op": "add", "path": "/spec", "value": r.content["spec"]},
	})
	return client.RawPatch(types.JSONPatchType, data), err
}
