// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// lookEvery is how often a drain is looked at while it is waited for.
const lookEvery = 500 * time.Millisecond

// awaitDrained waits until a drain is done, and says how far it is whenever that changes. What cannot end well by
// waiting (it was deleted, or is not in force) ends it at once.
func (h *hub) awaitDrained(ctx context.Context, out io.Writer, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	said := ""
	err := wait.PollUntilContextCancel(ctx, lookEvery, true, func(ctx context.Context) (bool, error) {
		o := &v1alpha1.TrafficOverride{}
		err := h.Get(ctx, client.ObjectKey{Name: name}, o)
		if apierrors.IsNotFound(err) {
			return false, fmt.Errorf("TrafficOverride %s was deleted while it was waited for: somebody has ended the drain", name)
		}
		var (
			now  string
			done bool
		)
		if err != nil {
			// A hub that restarts is no reason to give up: members go on as they are.
			now = h.explain(err, "TrafficOverrides").Error() + "; trying again"
		} else if now, done, err = progress(o); err != nil {
			return false, err
		}
		if now != said && ctx.Err() == nil {
			said = now
			fmt.Fprintln(out, now)
		}
		return done, nil
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("TrafficOverride %s is not Drained yet, and stays in force; wait on by the same command, or see docs/runbooks/drain-a-cluster.md", name)
	}
	return err
}

// progress is how far a drain is, and whether it is done; an error where it will not be done by waiting.
func progress(o *v1alpha1.TrafficOverride) (words string, done bool, err error) {
	inForce := newest(o, v1alpha1.OverrideInForce)
	drained := newest(o, v1alpha1.OverrideDrained)
	switch {
	case inForce == nil || drained == nil:
		return "waiting for the hub's controller to look at it", false, nil
	case inForce.Status == metav1.ConditionFalse:
		return "", false, fmt.Errorf("TrafficOverride %s is not in force (%s): %s", o.Name, inForce.Reason, inForce.Message)
	}
	return drained.Reason + ": " + drained.Message, drained.Status == metav1.ConditionTrue, nil
}

// newest is a condition that speaks of the spec as it is now; nil where none does yet.
func newest(o *v1alpha1.TrafficOverride, kind string) *metav1.Condition {
	c := meta.FindStatusCondition(o.Status.Conditions, kind)
	if c == nil || c.ObservedGeneration != o.Generation {
		return nil
	}
	return c
}
