// SPDX-License-Identifier: Apache-2.0

// Package argo writes into a hub route what the Gateway API plugin of Argo Rollouts writes, for tests: no module proxy has the
// plugin itself. It reads a route typed, changes it and writes it back whole, at every reconcile of its Rollout, also where nothing
// is different.
package argo

import (
	"context"
	"slices"

	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	// Label is on a route while its canary has weight.
	Label = "rollouts.argoproj.io/gatewayapi-canary"
	// InProgress is the value of Label.
	InProgress = "in-progress"
	// Manager is the field manager of the plugin's updates.
	Manager = "gatewayAPI"
)

// Plugin is what a Rollout says of its route.
type Plugin struct {
	Hub   client.Client
	Route client.ObjectKey
	// Stable and Canary are the names of the two Services. References are compared by name alone, whatever their kind.
	Stable, Canary string
}

// SetWeight sets the two weights in each rule that names both.
func (p Plugin) SetWeight(ctx context.Context, percent int32) error {
	return p.update(ctx, func(route *gatewayv1.HTTPRoute) {
		for _, rule := range route.Spec.Rules {
			stable, canary := find(rule, p.Stable), find(rule, p.Canary)
			if stable != nil && canary != nil {
				stable.Weight, canary.Weight = new(100-percent), new(percent)
			}
		}
		if percent == 0 {
			delete(route.Labels, Label)
			return
		}
		if route.Labels == nil {
			route.Labels = map[string]string{}
		}
		route.Labels[Label] = InProgress
	})
}

// SetHeaderRoute adds a rule that leads requests with a header to the canary, by a plain Service.
func (p Plugin) SetHeaderRoute(ctx context.Context, header, value string) error {
	return p.update(ctx, func(route *gatewayv1.HTTPRoute) {
		exact, group, kind := gatewayv1.HeaderMatchExact, gatewayv1.Group(""), gatewayv1.Kind("Service")
		canary := find(route.Spec.Rules[0], p.Canary)
		route.Spec.Rules = append(route.Spec.Rules, gatewayv1.HTTPRouteRule{
			Matches: []gatewayv1.HTTPRouteMatch{{Headers: []gatewayv1.HTTPHeaderMatch{
				{Type: &exact, Name: gatewayv1.HTTPHeaderName(header), Value: value}}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
				BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: canary.Name, Port: canary.Port}}}}})
	})
}

// RemoveManagedRoutes takes out every rule that does not name both Services.
func (p Plugin) RemoveManagedRoutes(ctx context.Context) error {
	return p.update(ctx, func(route *gatewayv1.HTTPRoute) {
		route.Spec.Rules = slices.DeleteFunc(route.Spec.Rules, func(rule gatewayv1.HTTPRouteRule) bool {
			return find(rule, p.Stable) == nil || find(rule, p.Canary) == nil
		})
	})
}

// AddExperiment adds a Service with a weight beside the two. Nothing takes it out again when the experiment ends.
func (p Plugin) AddExperiment(ctx context.Context, service string, weight int32) error {
	return p.update(ctx, func(route *gatewayv1.HTTPRoute) {
		rule := &route.Spec.Rules[0]
		rule.BackendRefs = append(rule.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{Weight: &weight,
			BackendObjectReference: gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(service), Port: find(*rule, p.Stable).Port}}})
	})
}

func find(rule gatewayv1.HTTPRouteRule, name string) *gatewayv1.HTTPBackendRef {
	i := slices.IndexFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool { return string(b.Name) == name })
	if i < 0 {
		return nil
	}
	return &rule.BackendRefs[i]
}

func (p Plugin) update(ctx context.Context, change func(*gatewayv1.HTTPRoute)) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		route := &gatewayv1.HTTPRoute{}
		if err := p.Hub.Get(ctx, p.Route, route); err != nil {
			return err
		}
		change(route)
		return p.Hub.Update(ctx, route, client.FieldOwner(Manager))
	})
}
