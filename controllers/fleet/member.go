// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/federation"
)

// Member is one cluster of the clusterset. None of its methods waits for the network.
type Member interface {
	// Name of the MemberCluster.
	Name() string
	// State of the connection, as of now.
	State() State
	// Reader reads the caches: the last known contents, also while the API server is lost. It never starts an
	// informer: see ErrNotSynced, and meta.IsNoMatchError for a kind that the member lacks.
	Reader() client.Reader
	// Submit hands over the newest wish for an owner, which replaces the one before. The objects must not be
	// changed afterwards.
	Submit(Desired)
	// Outcome of the newest wish for an owner: nil when it is in the member, ErrPending (errors.Is) while it
	// waits, ErrNoWish when there is none, else why it could not be written. See errors.go for the types.
	Outcome(federation.Owner) error
}

// Phase of a connection.
type Phase string

const (
	// Connecting until the first probe was answered, or LostAfter of them failed.
	Connecting Phase = "Connecting"
	// Connected while probes are answered.
	Connected Phase = "Connected"
	// Lost after LostAfter probes failed in a row.
	Lost Phase = "Lost"
)

// State of a connection.
type State struct {
	Phase Phase
	// Synced is true when each kind that the member serves has been read in whole at least once in this
	// process, and no kind is missing but optional ones. Nothing is deleted while it is false.
	Synced bool
	// Reason is one of the v1alpha1 reasons of a MemberCluster: Connected, Connecting, Syncing, MissingKinds,
	// Unreachable, Unauthorized, Forbidden.
	Reason string
	// Message says what is the matter and what to do; no credentials, no times, no counts.
	Message string
	// Version of Kubernetes in the member, such as v1.36.3; empty until the first answer.
	Version string
	// Missing kinds as Kind.group, sorted.
	Missing []string
	// Since is when the phase was entered.
	Since time.Time
}

// Desired is everything that one owner wants in one member.
type Desired struct {
	// Owner that the objects were marked with, by its Mark.
	Owner federation.Owner
	// Objects in whole, in the order in which they are to be written: a failure holds up those behind it, since they
	// may rest on what failed. No Objects and nothing Beside withdraws everything of the owner.
	Objects []client.Object
	// Beside are further sequences, each like Objects and independent of it and of each other.
	Beside [][]client.Object
	// Statuses are parts of the status of objects that are not the owner's, such as the conditions of a user's
	// ServiceExport: of each the name, and what of its status is ours to say. One whose object is not there is left
	// out. They are written last, also when an object could not be, and take nothing over from another field manager.
	Statuses []client.Object
	// Prune are the kinds in which objects of the owner that are not wished are deleted, once all that is wished was
	// written.
	Prune []schema.GroupVersionKind
}
