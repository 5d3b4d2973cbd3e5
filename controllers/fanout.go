// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

// fanOut hands every member its part of a plan and says how far each has come: nil for a member that holds the
// newest wish, else why not. It never waits: a member writes from its own queue, and its outcome wakes the key
// again. A member that has not been read is given nothing, not even a withdrawal, so that what it holds stays: once it
// is read, every key that concerns it is woken.
func fanOut(members []member, owner federation.Owner, wish func(member) (fleet.Desired, bool)) map[string]error {
	for _, m := range members {
		if desired, wanted := wish(m); wanted && m.handle != nil && m.Synced {
			desired.Owner, desired.Prune = owner, kindsOf(owner.Noun)
			m.handle.Submit(desired)
		}
	}
	return outcomesOf(members, owner)
}

// withdraw is the wish of an owner that is gone: every member is to hold nothing of it.
func withdraw(member) (fleet.Desired, bool) { return fleet.Desired{}, true }

// outcomesOf says how far each member has come with the newest wish of an owner. A member for which nothing was
// ever wished has no outcome, unless it is because it could not be read.
func outcomesOf(members []member, owner federation.Owner) map[string]error {
	outcomes := map[string]error{}
	for _, m := range members {
		if m.handle == nil {
			outcomes[m.Name] = &fleet.WaitingError{Member: m.Name, Reason: v1alpha1.ReasonMemberUnreachable, For: "its connection"}
			continue
		}
		if err := m.handle.Outcome(owner); !errors.Is(err, fleet.ErrNoWish) {
			outcomes[m.Name] = err
		} else if !m.Synced {
			outcomes[m.Name] = &fleet.WaitingError{Member: m.Name, Reason: v1alpha1.ReasonSyncing, For: "its contents to be read"}
		}
	}
	return outcomes
}

// failures joins the outcomes that need somebody's attention into one error, sorted by member and on one line;
// what is merely on its way is not a failure.
func failures(outcomes map[string]error) error {
	var all *multierror.Error
	for _, err := range outcomes {
		if err != nil && !errors.Is(err, fleet.ErrPending) {
			all = multierror.Append(all, err)
		}
	}
	if all == nil {
		return nil
	}
	slices.SortFunc(all.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	all.ErrorFormat = func(errs []error) string {
		texts := make([]string, len(errs))
		for i, err := range errs {
			texts[i] = err.Error()
		}
		return strings.Join(texts, "; ")
	}
	return all
}

// inFlight tells whether a wish is merely queued: its outcome follows at once, and there is nothing to report yet.
func inFlight(err error) bool {
	var waiting *fleet.WaitingError
	return errors.Is(err, fleet.ErrPending) && !errors.As(err, &waiting)
}
