// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

var lostGKE = Observation{"sample/shop", "gke", "Unfit", "Unfit", "no endpoint is ready"}

func TestOneAlertForEachReason(t *testing.T) {
	alerts := RouteAlerts("sample", "shop", []Shift{
		{"gke", v1alpha1.ReasonFailedOver, "gke 100.00%", "eks 100.00%", []Observation{lostGKE}},
		{"eks", v1alpha1.ReasonFailedOver, "eks 80.00% gke 20.00%", "eks 100.00%", []Observation{lostGKE}},
		{"aks", v1alpha1.ShiftWeightsChanged, "a", "b", nil},
	})
	require.Equal(t, []Alert{{Reason: "FailedOver", Severity: "warning", Object: AlertObject{"HTTPRoute", "sample", "shop"},
		Summary: "HTTPRoute sample/shop: FailedOver: requests that enter eks: eks 100.00%, before: eks 80.00% gke 20.00%; " +
			"requests that enter gke: eks 100.00%, before: gke 100.00% (sample/shop in gke: no endpoint is ready)",
		Moved: []Move{{"eks", "eks 80.00% gke 20.00%", "eks 100.00%"}, {"gke", "gke 100.00%", "eks 100.00%"}},
		Seen:  []Observation{lostGKE}}}, alerts)
}

func TestAlertsOfTwoMomentsBecomeOne(t *testing.T) {
	of := func(s ...Shift) Alert { return RouteAlerts("sample", "shop", s)[0] }
	later := lostGKE
	later.Message = "no endpoint was ready when last seen"
	first := of(Shift{"eks", v1alpha1.ReasonFailedOver, "a", "b", []Observation{lostGKE}})
	second := of(Shift{"eks", v1alpha1.ReasonFailedOver, "b", "c", []Observation{later}}, Shift{"gke", v1alpha1.ReasonFailedOver, "", "c", nil})
	merged := first.Merge(second)
	require.Equal(t, []Move{{"eks", "a", "c"}, {"gke", "", "c"}}, merged.Moved)
	require.Equal(t, []Observation{later}, merged.Seen, "what was seen last")
	require.Equal(t, []Move{{"eks", "a", "b"}}, first.Moved, "the first is left as it was")
}

func TestWhichConditionsAreAlerts(t *testing.T) {
	route := AlertObject{"HTTPRoute", "sample", "shop"}
	none := metav1.Condition{Type: v1alpha1.RouteTrafficShifted, Status: "True", Reason: v1alpha1.ReasonNoFitCluster, Message: "nobody"}
	a, raised := ConditionAlert(route, nil, none)
	require.True(t, raised)
	require.Equal(t, Alert{Reason: "NoFitCluster", Severity: "warning", Object: route, Summary: "HTTPRoute sample/shop: NoFitCluster: nobody"}, a)
	_, raised = ConditionAlert(route, &none, none)
	require.False(t, raised, "it was so before")
	_, raised = ConditionAlert(route, nil, metav1.Condition{Type: v1alpha1.RouteTrafficShifted, Reason: v1alpha1.ReasonFailedOver})
	require.False(t, raised, "the shift says so")
}

func TestWhichOverridesAreAlerts(t *testing.T) {
	inForce := metav1.Condition{Type: v1alpha1.OverrideInForce, Status: "True", Reason: v1alpha1.ReasonInForce, Message: "in force until it is deleted"}
	for kind, raises := range map[v1alpha1.OverrideType]bool{v1alpha1.OverrideFreeze: true, v1alpha1.OverrideHold: true,
		v1alpha1.OverridePin: false, v1alpha1.OverrideDrain: false} {
		o := override("o", kind)
		o.Spec.Author, o.Spec.Reason = "ada", "audit"
		a, raised := OverrideAlert(o, nil, inForce)
		require.Equal(t, raises, raised, kind)
		if raises {
			require.Equal(t, Alert{Reason: "InForce", Severity: "warning", Object: AlertObject{Kind: "TrafficOverride", Name: "o"},
				Summary: "TrafficOverride o: InForce: in force until it is deleted", Author: "ada", Why: "audit"}, a)
		}
		ended, raised := OverrideEnded(o)
		require.Equal(t, raises, raised, kind)
		require.Equal(t, raises, ended.Reason == v1alpha1.ReasonEnded)
	}
	blocked := metav1.Condition{Type: v1alpha1.OverrideDrained, Status: "False", Reason: v1alpha1.ReasonDrainBlocked}
	_, raised := OverrideAlert(override("d", v1alpha1.OverrideDrain), nil, blocked)
	require.True(t, raised)
}
