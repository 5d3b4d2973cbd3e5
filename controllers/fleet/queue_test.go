// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	testingclock "k8s.io/utils/clock/testing"

	"isthmus.dev/isthmus/federation"
)

func TestBackoffDoublesUpToHalfAMinute(t *testing.T) {
	b, owner := newBackoff(), federation.Owner{Name: "a"}
	for _, most := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		most *= time.Millisecond
		delay := b.When(owner)
		require.GreaterOrEqual(t, delay, most*3/4)
		require.LessOrEqual(t, delay, most*5/4)
	}
	b.Forget(owner)
	require.Zero(t, b.NumRequeues(owner))
}

// Each outcome makes the reconciler submit again, so a failing wish that is repeated has to keep to its backoff.
func TestARepeatedWishKeepsItsBackoff(t *testing.T) {
	w := newWishes("eks", Options{Clock: testingclock.NewFakeClock(time.Unix(1e9, 0))}.withDefaults(), newMetrics(nil))
	t.Cleanup(w.queue.ShutDown)
	owner := federation.Owner{Noun: "httproute", Name: "cart"}
	w.put(desired{owner: owner, hash: "1"})
	got, _ := w.queue.Get()
	w.settle(w.get(owner), false, errors.New("connection refused"))
	w.queue.AddRateLimited(got)
	w.queue.Done(got)
	w.put(desired{owner: owner, hash: "1"})
	require.Zero(t, w.queue.Len())
	require.Equal(t, 1, w.queue.NumRequeues(owner))
	w.put(desired{owner: owner, hash: "2"})
	require.Equal(t, 1, w.queue.Len(), "another wish is tried at once")
	require.Zero(t, w.queue.NumRequeues(owner))
}

// Somebody who undoes each write is answered at once three times, then more and more slowly, until a calm minute.
func TestAFightSlowsDown(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Unix(1e9, 0))
	w := newWishes("eks", Options{Clock: clock}.withDefaults(), newMetrics(nil))
	t.Cleanup(w.queue.ShutDown)
	owner := federation.Owner{Noun: "httproute", Name: "cart"}
	w.put(desired{owner: owner, hash: "1"})
	undone := func() int { // one round: the queue's turn, a write, and an event that it was undone
		if w.queue.Len() > 0 {
			got, _ := w.queue.Get()
			w.queue.Done(got)
			w.settle(w.get(owner), true, nil)
		}
		w.heal(owner.Label())
		return w.queue.Len()
	}
	require.Equal(t, []int{1, 1, 1, 0, 0}, []int{undone(), undone(), undone(), undone(), undone()})
	clock.Step(2 * time.Minute)
	w.heal(owner.Label())
	require.Equal(t, 1, w.queue.Len())
}

func TestAFailureIsMoreUrgentThanAWait(t *testing.T) {
	failed, waits := errors.New("failed"), &WaitingError{Member: "eks", For: "a"}
	require.Equal(t, failed, moreUrgent(waits, failed))
	require.Equal(t, failed, moreUrgent(failed, waits))
	require.Equal(t, error(waits), moreUrgent(nil, waits))
	require.Equal(t, error(waits), moreUrgent(waits, nil))
	require.NoError(t, moreUrgent(nil, nil))
}
