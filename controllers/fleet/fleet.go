// SPDX-License-Identifier: Apache-2.0

package fleet

import "context"

// Fleet is the connections to all members.
type Fleet struct{ opts Options }

// New makes a fleet without members.
func New(opts Options) *Fleet { return &Fleet{opts: opts.withDefaults()} }

// Start runs the fleet until the context ends.
func (f *Fleet) Start(ctx context.Context) error { <-ctx.Done(); return nil }

// Ensure connects a member.
func (f *Fleet) Ensure(name string, kubeconfig []byte) error { return nil }

// Remove forgets a member.
func (f *Fleet) Remove(name string) {}

// Member by name.
func (f *Fleet) Member(name string) (Member, bool) { return nil, false }

// Members sorted by name.
func (f *Fleet) Members() []Member { return nil }
