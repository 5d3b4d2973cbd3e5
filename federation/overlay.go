// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// overlay is what a rollout lays over a route: of the requests that a cluster would serve of the old side, a percentage goes to
// the new one.
type overlay struct {
	*v1alpha1.TrafficRollout
	from, to v1alpha1.RolloutSide
	weights  map[string]int32
}

// RolloutInForce is the rollout that is laid over a route: the oldest of those that name it and have not been retired, by creation
// time and then by name; nil where there is none. One that was retired and is to begin anew waits until no other is.
func RolloutInForce(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) *v1alpha1.TrafficRollout {
	var found *v1alpha1.TrafficRollout
	for _, r := range rollouts {
		if r.Namespace == route.Namespace && r.Spec.Route.Name == route.Name && !r.Status.Retired && (found == nil || olderRollout(r, found)) {
			found = r
		}
	}
	return found
}

// retired tells whether a rollout has nothing to do any more, unless its spec changes.
func retired(r *v1alpha1.TrafficRollout) bool {
	return r.Status.Retired && inUse(r)
}

func olderRollout(a, b *v1alpha1.TrafficRollout) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name)) < 0
}

// overlayOf is what the rollout in force lays over a route; nil where that is nothing.
func overlayOf(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) *overlay {
	r := RolloutInForce(route, rollouts)
	if r == nil || r.Status.Phase == "" {
		return nil
	}
	o := writtenOverlay(r)
	o.weights = map[string]int32{}
	// What the status says is of the sides that it names: the spec may have changed since.
	if laid := r.Status.Laid; laid != nil {
		o.from, o.to = laid.From, laid.To
	}
	for _, c := range r.Status.Clusters {
		o.weights[c.Cluster] = c.Weight
	}
	return o
}

// writtenOverlay is a rollout as its spec has it, before anything is laid.
func writtenOverlay(r *v1alpha1.TrafficRollout) *overlay {
	o := &overlay{TrafficRollout: r}
	o.from, o.to = sidesOf(r.Spec)
	return o
}

// ImportsWith lists the imports that a route refers to, and those to which its rollout leads, sorted, each once.
func ImportsWith(route *gatewayv1.HTTPRoute, rollouts []*v1alpha1.TrafficRollout) []ServiceKey {
	keys := ImportsOf(route)
	if r := RolloutInForce(route, rollouts); r != nil {
		for _, key := range ImportsOfRollout(r) {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		slices.SortFunc(keys, compareKeys)
	}
	return keys
}

// ImportsOfRollout are the two sides of a rollout, and those that it has laid.
func ImportsOfRollout(r *v1alpha1.TrafficRollout) []ServiceKey {
	var keys []ServiceKey
	was, is := sidesOf(r.Spec)
	laid := deref(r.Status.Laid)
	for _, side := range []v1alpha1.RolloutSide{was, is, laid.From, laid.To} {
		key := ServiceKey{r.Namespace, side.Name}
		if side.Name != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// concerns tells whether a backend of a rule is the old side.
func (o *overlay) concerns(rule gatewayv1.HTTPRouteRule, b gatewayv1.HTTPBackendRef, namespace string) bool {
	if o == nil || o.Spec.Route.Rule != nil && deref(rule.Name) != *o.Spec.Route.Rule {
		return false
	}
	key, isImport := ImportKey(b.BackendObjectReference, namespace)
	return isImport && key == ServiceKey{o.Namespace, o.from.Name}
}

// moves tells whether the rollout is from one cluster to another, of one import.
func (o *overlay) moves() bool { return o.from.Cluster != "" }

// target is the candidate of the cluster to which everything moves; nil where it cannot serve.
func (o *overlay) target(candidates []Candidate) *Candidate {
	i := slices.IndexFunc(candidates, func(c Candidate) bool { return c.Cluster == o.to.Cluster })
	if i < 0 || !candidates[i].Serving() || candidates[i].drained() {
		return nil
	}
	return &candidates[i]
}

// judged has the old cluster judged by the new one, once everything has moved and while that serves: the old one may be empty then.
func (o *overlay) judged(candidates []Candidate) []Candidate {
	target := o.target(candidates)
	if target == nil || o.weights[o.from.Cluster] < 100 {
		return candidates
	}
	out := slices.Clone(candidates)
	for i := range out {
		if c := &out[i]; c.Cluster == o.from.Cluster {
			c.Finding, c.Before, c.State, c.Fresh, c.Endpoints = target.Finding, target.Before, target.State, target.Fresh, target.Endpoints
		}
	}
	return out
}

// move gives a part of what the old cluster would serve to the new one.
func (o *overlay) move(slots []slot, candidates []Candidate, sum uint64) {
	at := func(cluster string) *slot {
		i := slices.IndexFunc(slots, func(e slot) bool { return e.planned.Cluster == cluster })
		if i < 0 {
			return nil
		}
		return &slots[i]
	}
	from, to, target, weight := at(o.from.Cluster), at(o.to.Cluster), o.target(candidates), o.weights[o.from.Cluster]
	if from == nil || to == nil || target == nil || weight == 0 || from.fraction.Parts == 0 {
		return
	}
	scale := scaleOf(sum)
	for i := range slots {
		slots[i].fraction.Parts *= scale
		slots[i].fraction.PartsSum *= scale
	}
	takes := from.fraction.Parts * uint64(weight) * uint64(target.percent()) / (100 * 100)
	from.fraction.Parts -= takes
	to.fraction.Parts += takes
	text := fmt.Sprintf("%d %% of what %s would serve goes to %s, by TrafficRollout %s", weight, o.from.Cluster, o.to.Cluster, o.Name)
	from.planned.Message += "; " + text
	to.planned.Reason, to.planned.Message, to.spare = v1alpha1.WeightByRollout, text, 0
}

// scaleOf is by what parts of a sum are multiplied, so that a percentage of a percentage of them is a whole number, or as near to
// one as the products of Apportion can have it within 64 bits: a part in 1e9 of a weight of 1e6 in 10,000.
func scaleOf(sum uint64) uint64 {
	return min(100*100, max(1, 1_000_000_000/max(1, sum)))
}

// standsFor tells whether the new side serves all of what an import is to serve, in every rule.
func (o *overlay) standsFor(key ServiceKey) bool {
	return o != nil && !o.moves() && o.Spec.Route.Rule == nil && allMoved(o.Status) && key == ServiceKey{o.Namespace, o.from.Name}
}

// reaches tells whether a cluster belongs to a wave that is under way or done: what is said of requests with certain headers, and of
// copies of requests, holds for no other.
func (o *overlay) reaches(cluster string) bool {
	i := slices.IndexFunc(o.Status.Clusters, func(c v1alpha1.RolloutCluster) bool { return c.Cluster == cluster })
	if i < 0 {
		return false
	}
	c := o.Status.Clusters[i]
	wave := slices.IndexFunc(o.Spec.Waves, func(w v1alpha1.RolloutWave) bool { return w.Name == c.Wave })
	return c.Weight > 0 || wave <= int(o.Status.Wave)
}

// newRef is a backend of the old side turned into one of the new.
func (o *overlay) newRef(b gatewayv1.HTTPBackendRef) gatewayv1.HTTPBackendRef {
	ref := *b.DeepCopy()
	ref.Name = gatewayv1.ObjectName(o.to.Name)
	return ref
}

// sticks tells whether clients are kept where they were: while the new side takes a share, and not yet everything.
func (o *overlay) sticks() bool {
	return o.Spec.Canary != nil && o.Spec.Canary.Sticky != nil && anyMoved(o.Status) && !allMoved(o.Status)
}

// cookie is the value by which a client is known that this rollout, and no earlier one, sent to the new side.
func (o *overlay) cookie() string {
	// Of one that was deleted and made again under its name, the generation begins anew.
	id, _, _ := strings.Cut(string(o.UID), "-")
	return fmt.Sprintf("%s-%d-%s", o.to.Name, o.Status.ObservedGeneration, id)
}

func (o *overlay) cookieName() string { return cmp.Or(o.Spec.Canary.Sticky.Cookie, "isthmus-canary") }

func (o *overlay) cookieMatch() []gatewayv1.HTTPHeaderMatch {
	regex := gatewayv1.HeaderMatchRegularExpression
	quote := strings.NewReplacer(".", `\.`)
	return []gatewayv1.HTTPHeaderMatch{{Type: &regex, Name: "Cookie",
		Value: `(.*; *)?` + quote.Replace(o.cookieName()) + `=` + quote.Replace(o.cookie()) + `(;.*)?`}}
}

// withCookie makes the answers of a backend set the cookie.
func (o *overlay) withCookie(ref gatewayv1.HTTPBackendRef) gatewayv1.HTTPBackendRef {
	header := gatewayv1.HTTPHeader{Name: "Set-Cookie", Value: o.cookieName() + "=" + o.cookie() + "; Path=/; HttpOnly; SameSite=Lax"}
	for _, f := range ref.Filters {
		if own := f.ResponseHeaderModifier; own != nil {
			own.Add = append(own.Add, header)
			return ref
		}
	}
	ref.Filters = append(ref.Filters, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier,
		ResponseHeaderModifier: &gatewayv1.HTTPHeaderFilter{Add: []gatewayv1.HTTPHeader{header}}})
	return ref
}
