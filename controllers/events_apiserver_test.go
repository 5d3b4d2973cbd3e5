// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// expectSummary waits until the RoutePlan of the test's route in a member says so.
func (a *app) expectSummary(member, want string) {
	a.t.Helper()
	eventually(a.t, func() error {
		var plan v1alpha1.RoutePlan
		name := federation.RoutePlanName("httproute", a.route().Name, member)
		err := a.set.hub.Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: name}, &plan)
		if plan.Status.Summary != want {
			return errors.Join(err, fmt.Errorf("the plan says %q", plan.Status.Summary))
		}
		return err
	})
}

// Both members leave the cluster at once. The Event of one must not be counted as the other's again.
func TestEachMembersShiftHasAnEvent(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectSummary("eks", "eks 80.00% gke 20.00%")
	a.expectSummary("gke", "eks 80.00% gke 20.00%")
	a.endpoints("gke", 0)
	for _, member := range []string{"eks", "gke"} {
		eventually(t, func() error {
			var list eventsv1.EventList
			err := a.set.hub.List(t.Context(), &list, client.InNamespace(a.namespace))
			var notes []string
			for _, e := range list.Items {
				notes = append(notes, e.Reason+": "+e.Note)
			}
			if !slices.ContainsFunc(notes, func(note string) bool {
				return strings.HasPrefix(note, v1alpha1.ReasonFailedOver+": requests that enter "+member+":")
			}) {
				return errors.Join(err, fmt.Errorf("no Event says what became of the requests that enter %s, but %q", member, notes))
			}
			return nil
		})
	}
}

func TestAnEventIsMadeHoweverLongItsReason(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	hold := a.says(v1alpha1.OverrideHold, func(s *v1alpha1.TrafficOverrideSpec) {
		s.Routes, s.Reason = []v1alpha1.ObjectReference{a.itself()}, strings.Repeat("ä", 1024)
	})
	event := a.event("default", hold.Name, v1alpha1.ReasonInForce)
	require.True(t, strings.HasPrefix(event.Note, "in force until it is deleted ("), event.Note)
}
