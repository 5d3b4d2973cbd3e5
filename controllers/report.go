// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
)

// problemOf turns an outcome into a condition's status, reason and message; nil when there is none. What a member holds
// that cannot be reached is not known: it is most likely what it was.
func problemOf(err error) *metav1.Condition {
	if err == nil {
		return nil
	}
	status := metav1.ConditionFalse
	if notConnected(err) {
		status = metav1.ConditionUnknown
	}
	return &metav1.Condition{Status: status, Reason: reasonOf(err), Message: err.Error()}
}

// notConnected tells whether an outcome is that of a member which cannot be reached.
func notConnected(err error) bool {
	var waiting *fleet.WaitingError
	return errors.As(err, &waiting) && !slices.Contains([]string{"", v1alpha1.ReasonMissingKinds}, waiting.Reason)
}

func reasonOf(err error) string {
	var (
		foreign     *fleet.ForeignError
		namespace   *fleet.NamespaceMissingError
		unsupported *fleet.UnsupportedError
		refused     *fleet.RefusedError
		waiting     *fleet.WaitingError
	)
	switch {
	case errors.As(err, &foreign):
		return v1alpha1.ReasonForeignObject
	case errors.As(err, &namespace):
		return v1alpha1.ReasonNamespaceMissing
	case errors.As(err, &unsupported):
		return v1alpha1.ReasonUnsupported
	case errors.As(err, &refused):
		return v1alpha1.ReasonMemberRefused
	case errors.As(err, &waiting):
		return cmp.Or(waiting.Reason, v1alpha1.ReasonPending)
	case errors.Is(err, fleet.ErrPending):
		return v1alpha1.ReasonPending
	}
	return v1alpha1.ReasonWriteFailed
}

// mergeConditions sets conditions among those that are there, keeping the times of what did not change, and
// dropping none. Sorted by type, so that the same conditions are the same bytes.
func mergeConditions(have []metav1.Condition, set ...metav1.Condition) []metav1.Condition {
	out := slices.Clone(have)
	for _, c := range set {
		c.Message = bounded(c.Message, maxMessage)
		meta.SetStatusCondition(&out, c)
	}
	slices.SortFunc(out, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return out
}

// maxMessage is what a condition's message holds: a longer one would cost the whole status.
const maxMessage = 32768

// bounded cuts a message to so many bytes, between two characters.
func bounded(message string, limit int) string {
	const more = "…"
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-len(more)], "") + more
}

// patchStatus writes an object's status where it differs from what was read, and nothing where it does not.
func patchStatus(ctx context.Context, c client.Client, read, changed client.Object) error {
	if same(read, changed) {
		return nil
	}
	// An optimistic lock, because lists such as a route's parents are replaced in whole by a merge patch.
	patch := client.MergeFromWithOptions(read, client.MergeFromWithOptimisticLock{})
	return client.IgnoreNotFound(c.Status().Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.FieldOwner)))
}

// unlessStale leaves out that what was read has changed since. The watch that shows the change wakes the key again;
// returned, each would be logged as an error and hold the key back.
func unlessStale(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// merged is a map with the entries of another set in it.
func merged(have, set map[string]string) map[string]string {
	out := make(map[string]string, len(have)+len(set))
	maps.Copy(out, have)
	maps.Copy(out, set)
	return out
}

func same(a, b client.Object) bool { return equality.Semantic.DeepEqual(a, b) }

func equalRefs(a, b gatewayv1.ParentReference) bool { return equality.Semantic.DeepEqual(a, b) }
