// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// By these a route is known that Argo Rollouts' Gateway API plugin drives: the label is there while its canary has weight, and the
// field manager is that of its updates.
const (
	driverLabel   = "rollouts.argoproj.io/gatewayapi-canary"
	driverLabelOn = "in-progress"
	driverManager = "gatewayAPI"
)

// WritesOfDrivers are those managed fields of a route that say whether something else than a TrafficRollout drives it.
func WritesOfDrivers(fields []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var out []metav1.ManagedFieldsEntry
	for _, f := range fields {
		if f.Manager == driverManager && strings.Contains(f.FieldsV1.GetRawString(), `"f:rules"`) {
			out = append(out, f)
		}
	}
	return out
}

// otherDriver says by what it is known that Argo Rollouts changes the weights of a route, now or since a time; empty where
// it does not.
func otherDriver(route *gatewayv1.HTTPRoute, since time.Time) string {
	if route.Labels[driverLabel] == driverLabelOn {
		return "its label " + driverLabel + " is " + driverLabelOn
	}
	for _, f := range WritesOfDrivers(route.ManagedFields) {
		if f.Time != nil && f.Time.After(since) {
			return "its field manager " + driverManager + " has changed the rules since this rollout was made"
		}
	}
	return ""
}
