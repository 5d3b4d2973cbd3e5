// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrPending says that a wish is queued, or waits for what will wake it.
	ErrPending = errors.New("not written yet")
	// ErrNoWish says that nothing was submitted for an owner in this process.
	ErrNoWish = errors.New("nothing was submitted for this owner")
	// ErrNotSynced says that a kind has not been read in whole yet, so that its absence means nothing.
	ErrNotSynced = errors.New("the cache has not synced yet")
)

// ObjectRef names an object in a member, for errors.
type ObjectRef struct {
	Member, Kind, Namespace, Name string
}

// String is the readable form: member eks: HTTPRoute shop/cart.
func (r ObjectRef) String() string {
	name := r.Name
	if r.Namespace != "" {
		name = r.Namespace + "/" + r.Name
	}
	return fmt.Sprintf("member %s: %s %s", r.Member, r.Kind, name)
}

// ForeignError says that an object of that name exists which was not written for this owner. It is never touched.
type ForeignError struct {
	ObjectRef
	// Owner is the other owner (noun/namespace/name) where Isthmus wrote the object for something else.
	Owner string
	// Managers are the field managers of the object, sorted.
	Managers []string
}

func (e *ForeignError) Error() string {
	if e.Owner != "" {
		return fmt.Sprintf("%s exists and belongs to %s: rename one of the two in the hub", e.ObjectRef, e.Owner)
	}
	by := ""
	if len(e.Managers) > 0 {
		by = " (managed by " + strings.Join(e.Managers, ", ") + ")"
	}
	return fmt.Sprintf("%s exists and was not written by Isthmus%s: delete or rename it there, or rename the hub's object",
		e.ObjectRef, by)
}

// NamespaceMissingError says that the member lacks the namespace. It is not created; the wish is tried again when
// the namespace appears.
type NamespaceMissingError struct {
	ObjectRef
	// Terminating is true when the namespace is still there and being deleted.
	Terminating bool
}

func (e *NamespaceMissingError) Error() string {
	if e.Terminating {
		return fmt.Sprintf("%s: namespace %s is being deleted there: create it again, or delete the hub's object",
			e.ObjectRef, e.Namespace)
	}
	return fmt.Sprintf("%s: the member has no namespace %s: create it there", e.ObjectRef, e.Namespace)
}

// UnsupportedError says that the member's API lacks the kind, or a field of it.
type UnsupportedError struct {
	ObjectRef
	// Field is the path of the field, such as .spec.rules[0].retry; empty when the kind is missing.
	Field string
	// watched kinds wake the wish when they appear.
	watched bool
}

func (e *UnsupportedError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: the member does not serve this kind: install its CRD there", e.ObjectRef)
	}
	return fmt.Sprintf("%s: the member's CRD has no field %s: upgrade the CRD there, or leave the field out",
		e.ObjectRef, e.Field)
}

// RefusedError says that the member's API server understood the write and refused it: invalid, forbidden, or
// denied by an admission policy.
type RefusedError struct {
	ObjectRef
	Err error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: refused by the member: %s", e.ObjectRef, oneLine(e.Err))
}

// Unwrap gives the API server's answer.
func (e *RefusedError) Unwrap() error { return e.Err }

// WriteError says that a write or the read before it failed for any other reason; it is tried again.
type WriteError struct {
	ObjectRef
	Err error
}

func (e *WriteError) Error() string { return fmt.Sprintf("%s: %s", e.ObjectRef, oneLine(e.Err)) }

// Unwrap gives the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// WaitingError says that a wish is kept until something happens that wakes it. It is an ErrPending.
type WaitingError struct {
	Member string
	// Reason is that of the member's State, or like one, where it is the connection that is waited for; else empty.
	Reason string
	// For says what is waited for.
	For string
}

func (e *WaitingError) Error() string {
	return fmt.Sprintf("member %s: waiting for %s", e.Member, e.For)
}

// Unwrap makes it an ErrPending.
func (e *WaitingError) Unwrap() error { return ErrPending }

// oneLine joins the lines of a message: a condition and a log line are one line each.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
