// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// RolloutChecks is what is needed to tell whether a rollout can run.
type RolloutChecks struct {
	Rollout *v1alpha1.TrafficRollout
	// Route that it names; nil where there is none.
	Route *gatewayv1.HTTPRoute
	// Rollouts of the namespace.
	Rollouts []*v1alpha1.TrafficRollout
	// Parents of the route, and Routes of the hub, where the rollout has a preview under a host name of its own.
	Parents []Parent
	Routes  []*gatewayv1.HTTPRoute
	// Exporters of the imports that exist.
	Exporters map[ServiceKey][]string
}

// RolloutStanding is how a rollout and its route stand to each other.
type RolloutStanding struct {
	// Refused is why the rollout cannot run; empty where it can.
	Refused string
	// Adopted is whether the route itself names the new side, and the old one no more.
	Adopted bool
	// Idle is whether the rollout lies over nothing, so that nothing changes when it goes.
	Idle bool
}

// Standing says whether a rollout can run:
//
//	route              | old side in it | new side in it | says
//	absent             |                |                | refused
//	there              | no             | yes            | adopted
//	another rollout's  |                |                | refused: the older holds
//	there              | no             | no             | refused
//	there              | yes            | yes            | refused: the route splits them itself
//	Argo Rollouts'     | yes            | no             | refused: one of the two has to go
//	there              | yes            | no             | runs, once the new side is exported, and its preview has its host name
//
// A move is adopted when everything has moved and the old cluster exports the import no more; it is refused where that never did, or
// where nobody is known to.
func (c RolloutChecks) Standing() RolloutStanding {
	from, to := sidesOf(c.Rollout.Spec)
	name := "HTTPRoute " + c.Rollout.Spec.Route.Name
	idle := func(format string, args ...any) RolloutStanding {
		return RolloutStanding{Refused: fmt.Sprintf(format, args...), Idle: true}
	}
	refused := func(format string, args ...any) RolloutStanding {
		return RolloutStanding{Refused: fmt.Sprintf(format, args...)}
	}
	if c.Route == nil {
		return idle("there is no %s in namespace %s: name one", name, c.Rollout.Namespace)
	}
	c.Route = intent(c.Route)
	old, next := c.uses(from), c.uses(to)
	exporters := c.Exporters[ServiceKey{c.Rollout.Namespace, from.Name}]
	gone := from.Cluster != "" && !slices.Contains(exporters, from.Cluster)
	if from.Cluster != "" {
		next = gone && allMoved(c.Rollout.Status) && slices.Contains(exporters, to.Cluster)
	}
	laid := c.Rollout.Status.Laid
	lies := laid != nil && c.uses(laid.From)
	first, other := RolloutInForce(c.Route, c.Rollouts), otherDriver(c.Route, c.Rollout.CreationTimestamp.Time)
	key := ServiceKey{c.Rollout.Namespace, to.Name}
	switch {
	case retired(c.Rollout), next && (gone || !old):
		return RolloutStanding{Adopted: true, Idle: true}
	case first != nil && first.Name != c.Rollout.Name:
		return idle("TrafficRollout %s is older and rolls out the same route: delete one of them", first.Name)
	case c.Rollout.Spec.Route.Rule != nil && !HasRule(c.Route, string(*c.Rollout.Spec.Route.Rule)):
		return idle("%s has no rule %s: name one that it has", name, *c.Rollout.Spec.Route.Rule)
	case lies && (laid.From != from || laid.To != to) && allMoved(c.Rollout.Status):
		return refused("everything is at %s by this rollout: make %s name it, or annotate the rollout with %s, before it rolls out %s",
			sideName(laid.To), name, v1alpha1.VerbAbort, sideName(to))
	case gone && old:
		standing := idle("%s does not export %s: name a cluster that does, or create a ServiceExport there next to its Service", from.Cluster, from.Name)
		standing.Idle = len(exporters) > 0 // who exports it is known, and this cluster has no share to take back
		return standing
	case !old:
		standing := idle("%s has neither ServiceImport %s nor %s among its backends: name the one that serves now", name, from.Name, to.Name)
		standing.Idle = !lies
		return standing
	case next:
		return refused("%s names both %s and %s: leave its split to the rollout, and only %s in the route", name, from.Name, to.Name, from.Name)
	case other != "":
		return refused("%s has two drivers, since Argo Rollouts drives it too (%s): take it out of that Rollout's trafficRouting, or abort and delete this rollout; until then it stays where it is", name, other)
	case len(c.Exporters[key]) == 0:
		return refused("no cluster exports %s: create a ServiceExport of that name next to its Service", key)
	}
	if problem := cmp.Or(c.previewProblem(), c.copiesProblem()); problem != "" {
		return refused("%s", problem)
	}
	return RolloutStanding{}
}

// copiesProblem says why the route cannot have the copies of rules that some step asks for; empty where it can.
func (c RolloutChecks) copiesProblem() string {
	o := writtenOverlay(c.Rollout)
	for _, pins := range o.pinsToCome() {
		if _, problem := o.copies(c.Route, pins); problem != "" {
			return problem
		}
	}
	return ""
}

// uses tells whether the rules that are meant have a side among their backends.
func (c RolloutChecks) uses(side v1alpha1.RolloutSide) bool { return len(c.rulesWith(side)) > 0 }

func (c RolloutChecks) rulesWith(side v1alpha1.RolloutSide) []gatewayv1.HTTPRouteRule {
	o := &overlay{TrafficRollout: c.Rollout, from: side}
	var out []gatewayv1.HTTPRouteRule
	for _, rule := range c.Route.Spec.Rules {
		if slices.ContainsFunc(rule.BackendRefs, func(b gatewayv1.HTTPBackendRef) bool { return o.concerns(rule, b, c.Route.Namespace) }) {
			out = append(out, rule)
		}
	}
	return out
}
