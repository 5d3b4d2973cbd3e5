// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// says makes an override that ends with the test, named like the test's namespace.
func (a *app) says(kind v1alpha1.OverrideType, more func(*v1alpha1.TrafficOverrideSpec)) *v1alpha1.TrafficOverride {
	a.t.Helper()
	o := &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: a.namespace + "-" + string(kind[0]|0x20)}}
	o.Spec = v1alpha1.TrafficOverrideSpec{Type: kind, Author: "alice@example.com", Reason: "a test"}
	more(&o.Spec)
	require.NoError(a.t, a.set.hub.Create(a.t.Context(), o))
	a.t.Cleanup(func() { _ = a.set.hub.Delete(context.Background(), o) })
	return o
}

// drains eks of this test's service alone: the routes of other tests are none of its business.
func (a *app) drains(force bool) *v1alpha1.TrafficOverride {
	a.t.Helper()
	return a.says(v1alpha1.OverrideDrain, func(s *v1alpha1.TrafficOverrideSpec) {
		s.Cluster, s.Imports, s.Force, s.GracePeriod = "eks", []v1alpha1.ObjectReference{a.itself()}, force, &metav1.Duration{}
	})
}

// itself names the test's service, and its route.
func (a *app) itself() v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{Namespace: a.namespace, Name: "helloworld"}
}

func (a *app) overrideCondition(o *v1alpha1.TrafficOverride, kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	a.t.Helper()
	var found metav1.Condition
	eventually(a.t, func() error {
		var have v1alpha1.TrafficOverride
		if err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(o), &have); err != nil {
			return err
		}
		c := meta.FindStatusCondition(have.Status.Conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != have.Generation {
			return fmt.Errorf("no condition %s=%s (%s): %+v", kind, status, reason, have.Status)
		}
		found = *c
		return nil
	})
	return found
}

// event waits for an Event in a namespace about an object of that name.
func (a *app) event(namespace, about, reason string) eventsv1.Event {
	a.t.Helper()
	var found eventsv1.Event
	eventually(a.t, func() error {
		var list eventsv1.EventList
		if err := a.set.hub.List(a.t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Regarding.Name == about && e.Reason == reason {
				found = e
				return nil
			}
		}
		return fmt.Errorf("no Event %s about %s among %d", reason, about, len(list.Items))
	})
	return found
}

func TestADrainMovesAServiceAwayAndUndrainingBack(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	o := a.drains(false)
	a.expectWeights("eks", split(0, 100))
	a.expectWeights("gke", split(0, 100))
	a.overrideCondition(o, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	a.overrideCondition(o, v1alpha1.OverrideInForce, metav1.ConditionTrue, v1alpha1.ReasonInForce)
	a.overrideCondition(o, v1alpha1.OverrideDrained, metav1.ConditionTrue, v1alpha1.ReasonDrained)
	shifted := a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonOverridden)
	require.Contains(t, shifted.Message, "drained by TrafficOverride "+o.Name)
	require.Contains(t, a.event(a.namespace, "helloworld", v1alpha1.ShiftDrained).Note, "gke 100.00%")
	require.Contains(t, a.event("default", o.Name, v1alpha1.ReasonDrained).Note, "(alice@example.com: a test)")

	require.NoError(t, a.set.hub.Delete(t.Context(), o))
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionFalse, v1alpha1.ReasonAsIntended)
	a.event(a.namespace, "helloworld", v1alpha1.ShiftUndrained)
}

func TestADrainOfTheLastFitClusterIsRefusedUnlessForced(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	a.endpoints("gke", 0)
	a.expectWeights("eks", split(100, 0))
	o := a.drains(false)
	c := a.overrideCondition(o, v1alpha1.OverrideDrained, metav1.ConditionFalse, v1alpha1.ReasonDrainBlocked)
	require.Contains(t, c.Message, "HTTPRoute "+a.namespace+"/helloworld in eks")
	a.expectWeights("eks", split(100, 0))
	a.changes(o, func(s *v1alpha1.TrafficOverrideSpec) { s.Force = true })
	a.expectWeights("eks", split(0, 100))
	a.changes(o, func(s *v1alpha1.TrafficOverrideSpec) { s.Force = false })
	a.expectWeights("eks", split(100, 0))
	a.endpoints("gke", 1)
	a.expectWeights("eks", split(0, 100))
	a.overrideCondition(o, v1alpha1.OverrideDrained, metav1.ConditionTrue, v1alpha1.ReasonDrained)
}

// changes an override; again on a conflict, since the controllers write its status.
func (a *app) changes(o *v1alpha1.TrafficOverride, change func(*v1alpha1.TrafficOverrideSpec)) {
	a.t.Helper()
	eventually(a.t, func() error {
		if err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change(&o.Spec)
		return a.set.hub.Update(a.t.Context(), o)
	})
}

func TestAnOverrideEndsByItself(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	o := a.drains(false)
	a.changes(o, func(s *v1alpha1.TrafficOverrideSpec) { s.Expires = &metav1.Time{Time: time.Now().Add(time.Hour)} })
	a.expectWeights("gke", split(0, 100))
	// Nothing else wakes anybody then.
	a.changes(o, func(s *v1alpha1.TrafficOverrideSpec) { s.Expires = &metav1.Time{Time: time.Now().Add(2 * time.Second)} })
	a.expectWeights("eks", split(80, 20))
	a.expectWeights("gke", split(80, 20))
	a.overrideCondition(o, v1alpha1.OverrideInForce, metav1.ConditionFalse, v1alpha1.ReasonExpired)
	a.overrideCondition(o, v1alpha1.OverrideDrained, metav1.ConditionFalse, v1alpha1.ReasonNotInForce)
}

// planned waits until a member's RoutePlan gives a cluster's weight this reason and verdict.
func (a *app) planned(member, cluster, reason string, verdict federation.Verdict) {
	a.t.Helper()
	eventually(a.t, func() error {
		var plan v1alpha1.RoutePlan
		key := client.ObjectKey{Namespace: a.namespace, Name: federation.RoutePlanName("httproute", "helloworld", member)}
		if err := a.set.hub.Get(a.t.Context(), key, &plan); err != nil {
			return err
		}
		for _, rule := range plan.Status.Rules {
			for _, b := range rule.Backends {
				if b.Cluster == cluster && b.Reason == reason && b.Verdict == string(verdict) {
					return nil
				}
			}
		}
		return fmt.Errorf("%s is not %s and %s in %+v", cluster, reason, verdict, plan.Status.Rules)
	})
}

func TestAHeldRouteStaysWhateverHealthSays(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	a.planCondition("gke", v1alpha1.PlanProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	o := a.says(v1alpha1.OverrideHold, func(s *v1alpha1.TrafficOverrideSpec) { s.Routes = []v1alpha1.ObjectReference{a.itself()} })
	a.planned("gke", "eks", v1alpha1.WeightOnHold, federation.Fit)
	a.endpoints("eks", 0)
	a.planned("gke", "eks", v1alpha1.WeightOnHold, federation.Unfit)
	a.expectWeights("gke", split(80, 20))
	require.NoError(t, a.set.hub.Delete(t.Context(), o))
	a.expectWeights("gke", split(0, 100))
}

func TestAPinBeatsPolicyAndHealth(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("eks", split(80, 20))
	pin := a.says(v1alpha1.OverridePin, func(s *v1alpha1.TrafficOverrideSpec) {
		s.Routes, s.Weights = []v1alpha1.ObjectReference{a.itself()}, []v1alpha1.ClusterWeight{weight("eks", 1), weight("gke", 3)}
	})
	a.expectWeights("eks", split(25, 75))
	a.endpoints("gke", 0)
	a.planned("eks", "gke", v1alpha1.WeightPinned, federation.Unfit)
	a.expectWeights("eks", split(25, 75))
	a.endpoints("gke", 1)
	a.drains(false)
	a.expectWeights("eks", split(0, 100))
	c := a.overrideCondition(pin, v1alpha1.OverrideInForce, metav1.ConditionTrue, v1alpha1.ReasonInForce)
	require.NotContains(t, c.Message, "drains", "the drain of one service leaves others to the pin")
}

func TestADrainedClusterLeavesTheAddressesAndAFreezeKeepsThem(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.expectAddresses("192.0.2.1", "192.0.2.2")
	whole := func(s *v1alpha1.TrafficOverrideSpec) { s.Cluster = "eks" }
	drain := a.says(v1alpha1.OverrideDrain, whole)
	a.expectAddresses("192.0.2.2")
	a.expectWeights("eks", split(0, 100))
	freeze := a.says(v1alpha1.OverrideFreeze, func(*v1alpha1.TrafficOverrideSpec) {})
	a.overrideCondition(drain, v1alpha1.OverrideInForce, metav1.ConditionFalse, v1alpha1.ReasonConflicted)
	require.NoError(t, a.set.hub.Delete(t.Context(), drain))
	a.planned("eks", "eks", v1alpha1.WeightFrozen, federation.Fit)
	a.expectWeights("eks", split(0, 100))
	a.expectAddresses("192.0.2.2")
	require.NoError(t, a.set.hub.Delete(t.Context(), freeze))
	a.expectWeights("eks", split(100, 0))
	a.expectAddresses("192.0.2.1", "192.0.2.2")
}

func (a *app) expectAddresses(want ...string) {
	a.t.Helper()
	eventually(a.t, func() error {
		gateway := a.gateway()
		err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(gateway), gateway)
		var have []string
		for _, address := range gateway.Status.Addresses {
			have = append(have, address.Value)
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			return errors.Join(err, fmt.Errorf("addresses %v, want %v", have, want))
		}
		return err
	})
}

func TestAnOverrideThatNamesNothingSaysSo(t *testing.T) {
	a := newApp(t, theClusterset(t))
	o := a.says(v1alpha1.OverrideDrain, func(s *v1alpha1.TrafficOverrideSpec) { s.Cluster = "esk" })
	c := a.overrideCondition(o, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonTargetNotFound)
	require.Contains(t, c.Message, "no MemberCluster esk")
	a.overrideCondition(o, v1alpha1.OverrideInForce, metav1.ConditionFalse, v1alpha1.ReasonTargetNotFound)
}

func TestOverridesThatAdmissionRefuses(t *testing.T) {
	set := theClusterset(t)
	route := []v1alpha1.ObjectReference{{Namespace: "sample", Name: "helloworld"}}
	weights := []v1alpha1.ClusterWeight{weight("eks", 1)}
	for name, test := range map[string]struct {
		spec v1alpha1.TrafficOverrideSpec
		says string
	}{
		"no such type":          {v1alpha1.TrafficOverrideSpec{Type: "Stop"}, "Unsupported value"},
		"a drain of nothing":    {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain}, "name the MemberCluster"},
		"a hold of a cluster":   {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideHold, Routes: route, Cluster: "eks"}, "cluster belongs to the types Drain and Failback"},
		"a failback of nothing": {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFailback}, "name the MemberCluster"},
		"a failback by force":   {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFailback, Cluster: "eks", Force: true}, "force belongs to type Drain"},
		"a pin with a capacity": {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverridePin, Routes: route,
			Weights: []v1alpha1.ClusterWeight{{Cluster: "eks", Weight: 1, Capacity: new(int32(50))}}}, "capacity belongs to a policy"},
		"a hold of nothing":       {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideHold}, "to hold every route, use type Freeze"},
		"a drain of routes":       {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain, Cluster: "eks", Routes: route}, "routes belong to the types Hold and Pin"},
		"a hold of imports":       {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideHold, Routes: route, Imports: route}, "imports belong to the types Drain and Failback"},
		"a freeze by force":       {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFreeze, Force: true}, "force belongs to type Drain"},
		"a pin without weights":   {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverridePin, Routes: route}, "type Pin needs them"},
		"a freeze with weights":   {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFreeze, Weights: weights}, "weights belong to type Pin"},
		"a pin to nobody":         {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverridePin, Routes: route, Weights: []v1alpha1.ClusterWeight{weight("eks", 0)}}, "all weights are 0"},
		"a route twice":           {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideHold, Routes: append(route, route...)}, "Duplicate value"},
		"nobody":                  {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFreeze, Author: " "}, "spec.author"},
		"for no reason":           {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideFreeze, Reason: " "}, "spec.reason"},
		"a negative weight":       {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverridePin, Routes: route, Weights: []v1alpha1.ClusterWeight{weight("eks", -1)}}, "greater than or equal to 0"},
		"a drain with its weight": {v1alpha1.TrafficOverrideSpec{Type: v1alpha1.OverrideDrain, Cluster: "eks", Weights: weights}, "weights belong to type Pin"},
	} {
		o := &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: test.spec}
		if o.Spec.Author == "" {
			o.Spec.Author = "alice"
		}
		if o.Spec.Reason == "" {
			o.Spec.Reason = "a test"
		}
		require.ErrorContains(t, set.hub.Create(t.Context(), o), test.says, name)
	}
}
