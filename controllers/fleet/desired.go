// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// desired is a Desired as it is sent: JSON values, with the hash of each object.
type desired struct {
	owner federation.Owner
	// sequences of objects, none of which rests on another.
	sequences [][]rendered
	// statuses hold nothing but identity and status.
	statuses []rendered
	prune    []schema.GroupVersionKind
	// hash is the same for two wishes that say the same.
	hash string
	// invalid says why the wish cannot be sent at all.
	invalid error
}

// rendered is one object of a wish. It is never changed.
type rendered struct {
	gvk     schema.GroupVersionKind
	key     client.ObjectKey
	content map[string]any
	hash    string
}

func (r rendered) objectKey() objectKey { return objectKey{r.gvk.GroupKind(), r.key} }

// render turns a wish into what is sent. It goes through JSON, and not through reflection: the specs of Istio are
// protobuf messages, which only their own MarshalJSON can say.
func render(d Desired, scheme *runtime.Scheme) desired {
	out := desired{owner: d.Owner, prune: d.Prune}
	digest := sha256.New()
	fmt.Fprintln(digest, d.Owner, d.Prune)
	seen := map[objectKey]bool{}
	for _, objects := range append([][]client.Object{d.Objects}, d.Beside...) {
		sequence, err := renderSequence(objects, d.Owner, scheme, seen)
		if err != nil {
			return desired{owner: d.Owner, invalid: err, hash: err.Error()}
		}
		out.sequences = append(out.sequences, sequence)
		for _, r := range sequence {
			fmt.Fprintln(digest, len(out.sequences), r.gvk, r.key, r.hash)
		}
	}
	for _, obj := range d.Statuses {
		r, err := renderStatus(obj, scheme)
		if err != nil {
			return desired{owner: d.Owner, invalid: err, hash: err.Error()}
		}
		out.statuses = append(out.statuses, r)
		fmt.Fprintln(digest, "status", r.gvk, r.key, r.hash)
	}
	out.hash = hex.EncodeToString(digest.Sum(nil))
	return out
}

func renderSequence(objects []client.Object, owner federation.Owner, scheme *runtime.Scheme, seen map[objectKey]bool) ([]rendered, error) {
	sequence := make([]rendered, 0, len(objects))
	for _, obj := range objects {
		r, err := renderObject(obj, owner, scheme)
		if err != nil {
			return nil, err
		}
		if seen[r.objectKey()] {
			return nil, fmt.Errorf("%s %s is wished twice by %s: give each object a name of its own", r.gvk.Kind, r.key, owner)
		}
		seen[r.objectKey()] = true
		sequence = append(sequence, r)
	}
	return sequence, nil
}

func renderStatus(obj client.Object, scheme *runtime.Scheme) (rendered, error) {
	gvk, err := apiutil.GVKForObject(obj, scheme)
	if err != nil {
		return rendered{}, err
	}
	r := rendered{gvk: gvk, key: client.ObjectKeyFromObject(obj)}
	content, err := contentOf(obj)
	if err != nil {
		return rendered{}, fmt.Errorf("status of %s %s: %w", gvk.Kind, r.key, err)
	}
	r.content = map[string]any{"status": content["status"]}
	dropNulls(r.content)
	r.hash, err = hashOf(r.content)
	return r, err
}

// hashOf a JSON value: its canonical form has the keys sorted.
func hashOf(content map[string]any) (string, error) {
	canonical, err := json.Marshal(content)
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:16]), err
}

func renderObject(obj client.Object, owner federation.Owner, scheme *runtime.Scheme) (rendered, error) {
	gvk, err := apiutil.GVKForObject(obj, scheme)
	if err != nil {
		return rendered{}, err
	}
	r := rendered{gvk: gvk, key: client.ObjectKeyFromObject(obj)}
	if !federation.IsOurs(obj) || obj.GetLabels()[v1alpha1.LabelOwner] != owner.Label() {
		return rendered{}, fmt.Errorf("%s %s does not carry the label of %s: mark it with Owner.Mark", gvk.Kind, r.key, owner)
	}
	if r.content, err = contentOf(obj); err != nil {
		return rendered{}, fmt.Errorf("%s %s: %w", gvk.Kind, r.key, err)
	}
	r.content["apiVersion"], r.content["kind"] = gvk.GroupVersion().String(), gvk.Kind
	delete(r.content, "status")
	r.content["metadata"] = wishedMetadata(r.content["metadata"])
	dropNulls(r.content)
	if r.hash, err = hashOf(r.content); err != nil {
		return rendered{}, fmt.Errorf("%s %s: %w", gvk.Kind, r.key, err)
	}
	annotationsOf(r.content)[v1alpha1.AnnotationPlan] = r.hash
	return r, nil
}

// PlanOf is the value of the annotation isthmus.dev/plan with which an object of an owner is written.
func PlanOf(obj client.Object, owner federation.Owner, scheme *runtime.Scheme) (string, error) {
	r, err := renderObject(obj, owner, scheme)
	return r.hash, err
}

func contentOf(obj runtime.Object) (map[string]any, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	content := map[string]any{}
	return content, utiljson.Unmarshal(data, &content)
}

// wishedMetadata leaves what an API server fills in to the API server.
func wishedMetadata(metadata any) map[string]any {
	from, _ := metadata.(map[string]any)
	out := map[string]any{}
	for _, field := range []string{"name", "namespace", "labels", "annotations", "ownerReferences", "finalizers"} {
		if value, ok := from[field]; ok {
			out[field] = value
		}
	}
	annotations := map[string]any{}
	if given, ok := out["annotations"].(map[string]any); ok {
		annotations = given
	}
	delete(annotations, v1alpha1.AnnotationPlan)
	delete(annotations, v1alpha1.AnnotationEpoch)
	out["annotations"] = annotations
	return out
}

func annotationsOf(content map[string]any) map[string]any {
	return content["metadata"].(map[string]any)["annotations"].(map[string]any)
}

// dropNulls removes what a typed object says without meaning it.
func dropNulls(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, item := range value {
			if item == nil {
				delete(value, key)
				continue
			}
			dropNulls(item)
		}
	case []any:
		for _, item := range value {
			dropNulls(item)
		}
	}
}

// configuration is what is sent: with the epoch, and with the identity of the object that it is for, so that it
// never lands on another object of the same name.
func (r rendered) configuration(epoch string, live client.Object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(r.content)}
	annotationsOf(u.Object)[v1alpha1.AnnotationEpoch] = epoch
	if live != nil {
		u.SetUID(live.GetUID())
	}
	return u
}

// heldBy tells whether a live object is as wished: it says it was written from the same plan, and nobody changed
// since what was written, or added to it.
func (r rendered) heldBy(live client.Object) bool {
	if live.GetAnnotations()[v1alpha1.AnnotationPlan] != r.hash || addedTo(live) {
		return false
	}
	content, err := contentOf(live)
	if err != nil {
		return false
	}
	// Typed objects from a cache do not carry these two.
	content["apiVersion"], content["kind"] = r.content["apiVersion"], r.content["kind"]
	return holds(content, r.content)
}

// holds tells whether want is contained in live: an API server adds defaults, and others may add labels, so what
// is more in a map does not count. A list is one value, except that its items may have been defaulted.
func holds(live, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, _ := live.(map[string]any)
		for key, value := range want {
			if !holds(have[key], value) {
				return false
			}
		}
		return have != nil || len(want) == 0
	case []any:
		have, _ := live.([]any)
		return slices.EqualFunc(have, want, holds)
	}
	return equalScalars(live, want)
}

func equalScalars(a, b any) bool {
	if a == b {
		return true
	}
	x, xok := number(a)
	y, yok := number(b)
	return xok && yok && x == y
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
