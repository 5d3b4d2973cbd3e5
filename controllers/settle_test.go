// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/federation"
)

func TestHowLongWhatWasSaidStands(t *testing.T) {
	now, old := time.Now(), time.Now().Add(-time.Hour)
	for name, test := range map[string]struct {
		was   metav1.ConditionStatus
		state *fleet.State // nil before it is connected
		want  bool
	}{
		"read":                   {metav1.ConditionTrue, &fleet.State{Phase: fleet.Connected, Synced: true, Since: now}, false},
		"new":                    {"", &fleet.State{Phase: fleet.Connecting, Since: now}, false},
		"lost before":            {metav1.ConditionFalse, &fleet.State{Phase: fleet.Connecting, Since: now}, false},
		"not connected yet":      {metav1.ConditionTrue, nil, true},
		"connecting":             {metav1.ConditionTrue, &fleet.State{Phase: fleet.Connecting, Since: now}, true},
		"connecting for long":    {metav1.ConditionTrue, &fleet.State{Phase: fleet.Connecting, Since: old}, false},
		"lost":                   {metav1.ConditionTrue, &fleet.State{Phase: fleet.Lost, Since: now}, false},
		"being read":             {metav1.ConditionTrue, &fleet.State{Phase: fleet.Connected, Since: now}, true},
		"being read for long":    {metav1.ConditionTrue, &fleet.State{Phase: fleet.Connected, Since: old}, false},
		"lost, as was known":     {metav1.ConditionFalse, &fleet.State{Phase: fleet.Lost, Since: now}, false},
		"returned, not read yet": {metav1.ConditionFalse, &fleet.State{Phase: fleet.Connected, Since: now}, false},
	} {
		t.Run(name, func(t *testing.T) {
			mc := joined("eks")
			mc.Finalizers = []string{v1alpha1.FinalizerMember}
			if test.was != "" {
				mc.Status.Conditions = []metav1.Condition{{Type: v1alpha1.MemberSynced, Status: test.was, Reason: "R"}}
			}
			h := newHousehold(mc)
			if test.state != nil {
				h.fleet.Add("eks").SetState(*test.state)
			}
			left := h.gather.member(mc).settles()
			require.Equal(t, test.want, left > 0)
			require.LessOrEqual(t, left, settleTime)
		})
	}
}

func TestAMemberThatSettlesSaysNothing(t *testing.T) {
	mc := joined("eks")
	mc.Finalizers = []string{v1alpha1.FinalizerMember}
	mc.Spec.Kubeconfig.SecretRef = v1alpha1.SecretKeyRef{Name: "s", Key: "kubeconfig"}
	mc.Status.Conditions = []metav1.Condition{{Type: v1alpha1.MemberSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSynced}}
	h := newHousehold(mc, secretOf("s"))
	h.fleet.Add("eks").SetState(fleet.State{Phase: fleet.Connecting, Since: time.Now()})
	request := ctrl.Request{NamespacedName: client.ObjectKey{Name: "eks"}}
	result, err := h.member.Reconcile(t.Context(), request)
	require.NoError(t, err)
	require.Positive(t, result.RequeueAfter, "it is said when it lasts")
	require.Zero(t, h.wrote)
	h.fleet.Add("eks").SetState(fleet.State{Phase: fleet.Lost, Reason: v1alpha1.ReasonUnreachable, Message: "no answer"})
	_, err = h.member.Reconcile(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, 1, h.wrote)
}

func TestADecisionThatFollowsOrRepeats(t *testing.T) {
	rules := []v1alpha1.PlannedRule{{Name: "0", Backends: []v1alpha1.PlannedBackend{{Cluster: "eks", Weight: 10000}}}}
	d := decision{snapshot: federation.RouteSnapshot{Members: []federation.RouteMember{{Member: federation.Member{Name: "eks"}}}},
		plan: federation.RoutePlan{Members: map[string]federation.MemberRoute{"eks": {Rules: rules}}}}
	require.True(t, d.beforeRead(member{Member: federation.Member{Name: "eks", Synced: true}}))
	require.False(t, d.beforeRead(member{Member: federation.Member{Name: "eks"}}), "it is still not read")
	require.False(t, d.beforeRead(member{Member: federation.Member{Name: "gke", Synced: true}}))
	require.True(t, d.repeats(&v1alpha1.RoutePlan{Status: v1alpha1.RoutePlanStatus{Member: "eks", Rules: rules}}))
	require.False(t, d.repeats(&v1alpha1.RoutePlan{Status: v1alpha1.RoutePlanStatus{Member: "eks"}}))
	said := &v1alpha1.RoutePlan{Status: v1alpha1.RoutePlanStatus{Member: "eks", Rules: []v1alpha1.PlannedRule{*rules[0].DeepCopy()}}}
	said.Status.Rules[0].Backends[0].Message = "was better known"
	require.True(t, d.repeats(said))
	said.Status.Rules[0].Backends[0].Weight = 5000
	require.False(t, d.repeats(said))
}
