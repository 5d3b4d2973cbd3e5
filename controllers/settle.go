// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
)

// settleTime is how long what was last said of a member stands after a restart while nothing new is known of it. Longer
// than that, and what is said may well be wrong.
const settleTime = 30 * time.Second

// settles is how much longer what was last said of a member stands. A hub that has just started has read nothing yet: to
// say so on every object would tell of a trouble that there is not.
//
//	read now | was read before | its API server | settles
//	yes      | any             | any            | no: it is known how it is
//	no       | no              | any            | no: it is new, or was lost before
//	no       | yes             | lost           | no: that is known
//	no       | yes             | else           | for settleTime
func (m member) settles() time.Duration {
	if m.Synced || !meta.IsStatusConditionTrue(m.object.Status.Conditions, v1alpha1.MemberSynced) {
		return 0
	}
	if m.handle == nil {
		return settleTime // its connection is about to be made, or its MemberCluster to say why not
	}
	state := m.handle.State()
	if state.Phase == fleet.Lost {
		return 0
	}
	return max(0, settleTime-time.Since(state.Since))
}

// settling are the members of which something is not known yet, and how long it is to be waited for that.
func settling(members []member) (names map[string]bool, wait time.Duration) {
	names = map[string]bool{}
	for _, m := range members {
		if left := m.settles(); left > 0 {
			names[m.Name], wait = true, max(wait, left)
		}
	}
	return names, wait
}
