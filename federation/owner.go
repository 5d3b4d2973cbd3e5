// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Owner is the hub object for which objects are written in a member. Everything that is written carries its
// label, and only what carries its label is ever pruned for it.
type Owner struct {
	// Noun is what kind of decision the object belongs to: "gateway", "httproute", "service", "member".
	Noun string
	// Namespace of the hub object; empty where it is cluster-scoped.
	Namespace string
	// Name of the hub object.
	Name string
}

// String is the readable form, noun/namespace/name.
func (o Owner) String() string {
	return o.Noun + "/" + o.Namespace + "/" + o.Name
}

// Label is the value of the label isthmus.dev/owner: label values hold 63 characters, names hold 253, so the
// name is hashed. 80 bits keep an accidental collision out of reach; the annotation says it in clear.
func (o Owner) Label() string {
	return o.Noun + "." + shortHash(o.Namespace+"/"+o.Name, 20)
}

// Mark puts the owner's label and annotation, and the label of Isthmus, on an object to be written.
func (o Owner) Mark(meta metav1.Object) {
	labels, annotations := meta.GetLabels(), meta.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[v1alpha1.LabelManagedBy] = v1alpha1.ManagedBy
	labels[v1alpha1.LabelOwner] = o.Label()
	annotations[v1alpha1.AnnotationOwner] = o.String()
	meta.SetLabels(labels)
	meta.SetAnnotations(annotations)
}

// IsOurs tells whether an object was written by Isthmus for anyone.
func IsOurs(meta metav1.Object) bool {
	labels := meta.GetLabels()
	return labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedBy && labels[v1alpha1.LabelOwner] != ""
}

// ParseOwner reads the owner from the annotation of an object that IsOurs.
func ParseOwner(meta metav1.Object) (Owner, bool) {
	parts := strings.SplitN(meta.GetAnnotations()[v1alpha1.AnnotationOwner], "/", 3)
	if len(parts) != 3 || !IsOurs(meta) {
		return Owner{}, false
	}
	owner := Owner{Noun: parts[0], Namespace: parts[1], Name: parts[2]}
	return owner, owner.Label() == meta.GetLabels()[v1alpha1.LabelOwner]
}

// shortHash is the first n hexadecimal digits of a SHA-256.
func shortHash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:n]
}

// boundedName joins parts by '-' and hashes the end away where the result would pass limit characters, so that
// a derived name is always valid, always the same, and readable as far as it fits.
func boundedName(limit int, parts ...string) string {
	name := strings.Join(parts, "-")
	if len(name) <= limit {
		return name
	}
	const digest = 10
	head := strings.TrimRight(name[:limit-digest-1], "-.")
	// The parts are hashed with a separator no name can hold: "a-b","c" and "a","b-c" must differ.
	return head + "-" + shortHash(strings.Join(parts, "\x00"), digest)
}
