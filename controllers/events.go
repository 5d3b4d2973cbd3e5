// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
)

// maxNote is what the note of an Event holds, in bytes (events.k8s.io/v1): the API server refuses a longer one, and then
// nothing is said at all.
const maxNote = 1024

// recorder makes Events that the API server takes.
type recorder struct{ events.EventRecorder }

// Eventf makes an Event, with the note cut to what it holds. Events of one reason about one object, as it is now, are
// counted together under the note of the first: where each says something else, related tells them apart.
//
//nolint:revive // the arguments are those of the recorder that it stands for
func (r recorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, kind, reason, action, "%s", bounded(fmt.Sprintf(note, args...), maxNote))
}
