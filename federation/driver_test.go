// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A rollout whose route something else drives stays where it is, and says so.
func TestTwoDrivers(t *testing.T) {
	made := time.Unix(1000, 0)
	wrote := func(manager, fields string, after time.Duration) metav1.ManagedFieldsEntry {
		at := metav1.NewTime(made.Add(after))
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &at, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const rules = `{"f:spec":{"f:rules":{}}}`
	tests := map[string]struct {
		label  string
		fields []metav1.ManagedFieldsEntry
		says   string
	}{
		"nobody":                                 {},
		"its canary has weight":                  {label: "in-progress", says: "its label rollouts.argoproj.io/gatewayapi-canary is in-progress"},
		"the label says something else":          {label: "done"},
		"it changed the rules since":             {fields: []metav1.ManagedFieldsEntry{wrote("gatewayAPI", rules, time.Minute)}, says: "its field manager gatewayAPI has changed the rules"},
		"it changed them before":                 {fields: []metav1.ManagedFieldsEntry{wrote("gatewayAPI", rules, -time.Minute)}},
		"a person changed the rules":             {fields: []metav1.ManagedFieldsEntry{wrote("kubectl", rules, time.Minute)}},
		"it changed something else":              {fields: []metav1.ManagedFieldsEntry{wrote("gatewayAPI", `{"f:metadata":{}}`, time.Minute)}},
		"it changed them, and nobody knows when": {fields: []metav1.ManagedFieldsEntry{{Manager: "gatewayAPI", FieldsV1: metav1.NewFieldsV1(rules)}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := rolling(at("eks", 10))
			r.CreationTimestamp, r.Status.ObservedGeneration = metav1.NewTime(made), r.Generation
			s := rolledOver(t, 1, 1, r)
			s.Route.ManagedFields = test.fields
			s.Route.Labels = map[string]string{driverLabel: test.label}
			standing := RolloutChecks{Rollout: r, Route: s.Route, Rollouts: s.Rollouts,
				Exporters: map[ServiceKey][]string{canaryKey: {"eks"}}}.Standing()
			if test.says == "" {
				require.Empty(t, standing.Refused)
				return
			}
			require.Contains(t, standing.Refused, test.says)
			require.False(t, standing.Idle, "what it has moved stays moved, also where it is deleted")
			next := AdvanceRollout(RolloutSnapshot{Rollout: r, Standing: standing, Now: made}).Status
			require.Equal(t, r.Status.Clusters, next.Clusters, "traffic stays where it is")
			require.Contains(t, next.Message, "Argo Rollouts drives it too")
		})
	}
}

// Of a route that means imports by its Services a rollout is what it is of one that names them.
func TestRolloutOfServicesReadAsImports(t *testing.T) {
	r := rolling(at("eks", 10))
	route := hubRoute(t, `{backendRefs: [{name: helloworld, port: 80}]}`)
	checks := RolloutChecks{Rollout: r, Route: route, Rollouts: rolledOver(t, 1, 1, r).Rollouts, Exporters: map[ServiceKey][]string{canaryKey: {"eks"}}}
	require.Contains(t, checks.Standing().Refused, "has neither ServiceImport helloworld nor canary")
	route.Annotations = map[string]string{"isthmus.dev/resolve-services": "imports"}
	require.Empty(t, checks.Standing().Refused)
	s := rolledOver(t, 1, 1, r)
	s.Route = route
	require.Equal(t, []ServiceKey{canaryKey, sampleKey}, s.Imports())
	require.Equal(t, int32(800), weightsBy(settled(s), "eks")["canary"], "10 % of the 80 that eks serves")
}
