// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// rolloutLoop is a rollout and its route, each of which goes by what the other has come to: as in a hub.
type rolloutLoop struct {
	s       RouteSnapshot
	rollout *v1alpha1.TrafficRollout
	// stuck are members that take nothing over, unconfirmed those whose controller says nothing.
	stuck, unconfirmed map[string]bool
}

// round plans the route, checks it, lets the members take it over, and then advances the rollout.
func (l *rolloutLoop) round(t *rapid.T) {
	l.s.Rollouts = []*v1alpha1.TrafficRollout{l.rollout.DeepCopy()}
	plan := PlanRoute(l.s)
	for i, m := range l.s.Members {
		planned := plan.Members[m.Name]
		require.NotNil(t, planned.Object, planned.Refused.Message)
		l.check(t, m, planned)
		if l.stuck[m.Name] {
			continue
		}
		one := l.s
		one.Members = l.s.Members[i : i+1]
		l.s.Members[i] = takenOver(one, plan, !l.unconfirmed[m.Name]).Members[0]
	}
	view := RolloutView{Rollout: l.rollout, Route: l.s, Plan: plan, Programmed: map[string]bool{}}
	for _, m := range l.s.Members {
		view.Programmed[m.Name] = !l.stuck[m.Name] && !l.unconfirmed[m.Name]
	}
	checks := RolloutChecks{Rollout: l.rollout, Route: l.s.Route, Rollouts: l.s.Rollouts, Exporters: map[ServiceKey][]string{}}
	for key, service := range l.s.Services {
		if imp := service.Import(); imp != nil {
			checks.Exporters[key] = imp.Clusters
		}
	}
	l.rollout.Status = AdvanceRollout(RolloutSnapshot{Rollout: l.rollout, Members: view.Members(), Standing: checks.Standing(), Lagging: view.Lagging(),
		Held: view.Held(), Now: l.s.Now}).Status
}

// check: every rule has weight, what goes was at 0 before, and a cluster whose new side is lost is served by its old one.
func (l *rolloutLoop) check(t *rapid.T, m RouteMember, planned MemberRoute) {
	for i, rule := range planned.Object.Spec.Rules {
		total := uint64(0)
		for _, b := range rule.BackendRefs {
			total += backendWeight(b)
		}
		require.EqualValues(t, TotalWeight, total, "rule %s of %s", planned.Rules[i].Name, m.Name)
	}
	for _, b := range planned.Rules[0].Backends {
		if l.s.Overrides.hold(ServiceKey{"sample", "r"}) == nil && b.Import == canaryKey.String() && !l.serves(canaryKey, b.Cluster) && l.serves(sampleKey, b.Cluster) {
			require.Zero(t, b.Weight, "%s in %s: the new side does not serve, the old one does, and it is the new one that has weight", b.Cluster, m.Name)
		}
	}
	if m.Observed == nil || len(m.Observed.Spec.Rules) == 0 {
		return
	}
	for _, b := range m.Observed.Spec.Rules[0].BackendRefs {
		if _, stays := observedWeight(planned.Object, b.BackendObjectReference); !stays {
			require.Zero(t, backendWeight(b), "%s is removed from %s with weight", b.Name, m.Name)
		}
	}
}

func (l *rolloutLoop) serves(key ServiceKey, cluster string) bool {
	m, known := l.s.Services[key].member(cluster)
	return known && m.Exported && m.ReadyEndpoints > 0
}

// happening lets something happen to clusters, people or members.
func (l *rolloutLoop) happening(t *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(t, "cluster")
	name := l.s.Members[i].Name
	key := rapid.SampledFrom([]ServiceKey{sampleKey, canaryKey}).Draw(t, "side")
	service := l.s.Services[key]
	member := &service.Members[i]
	switch rapid.SampledFrom([]string{"verb", "verb", "verb", "endpoints", "endpoints", "export", "drain", "hold", "stuck", "unconfirmed", "time", "spec", "deleted"}).Draw(t, "event") {
	case "verb":
		l.rollout.Annotations[rapid.SampledFrom(rolloutVerbs).Draw(t, "verb").name] += "x"
	case "endpoints":
		member.ReadyEndpoints = 1 - member.ReadyEndpoints
	case "export":
		// The one side at least is exported somewhere: an import of which nothing is left answers 500, and is to.
		member.Exported = key == sampleKey || !member.Exported
	case "drain":
		l.s.Overrides = rapid.SampledFrom([]Overrides{nil, {drainOf(name, false)}}).Draw(t, "drain")
	case "hold":
		l.s.Overrides = rapid.SampledFrom([]Overrides{nil, {hold()}}).Draw(t, "hold")
	case "stuck":
		l.stuck[name] = !l.stuck[name]
	case "unconfirmed":
		l.unconfirmed[name] = !l.unconfirmed[name]
	case "time":
		l.s.Now = l.s.Now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "seconds")) * time.Second)
	case "spec":
		l.rollout.Generation++
	case "deleted":
		l.rollout.DeletionTimestamp = &metav1.Time{Time: l.s.Now}
	}
}

// However a rollout is driven, and whatever is lost meanwhile: no rule is ever without weight, nothing is taken away that has
// weight, and the old side serves where the new one does not.
func TestRolloutsAndFailoverTogether(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		r := rolling()
		r.Status, r.Annotations = v1alpha1.TrafficRolloutStatus{}, map[string]string{}
		match := []gatewayv1.HTTPHeaderMatch{{Name: "X-Version", Value: "v2"}}
		r.Spec.Canary.Steps = append([]v1alpha1.CanaryStep{{SetHeaderRoute: &v1alpha1.RolloutHeaderRoute{Match: match}},
			{SetMirror: &v1alpha1.RolloutMirror{Percent: 5}}}, steps(10, 60)...)
		if rapid.Bool().Draw(t, "sticky") {
			r.Spec.Canary.Sticky = &v1alpha1.RolloutSticky{}
		}
		if rapid.Bool().Draw(t, "waves") {
			r.Spec.Waves = wavesByName("eks", "gke")
			r.Spec.Waves[0].Hold = &metav1.Duration{Duration: time.Minute}
		}
		if rapid.IntRange(0, 3).Draw(t, "move") == 0 {
			r = moving(0)
			r.Status, r.Annotations = v1alpha1.TrafficRolloutStatus{}, map[string]string{}
		}
		l := &rolloutLoop{s: rolledOver(outer, 1, 1, r), rollout: r, stuck: map[string]bool{}, unconfirmed: map[string]bool{}}
		for range rapid.IntRange(1, 8).Draw(t, "events") {
			for range rapid.IntRange(1, 4).Draw(t, "rounds") {
				l.round(t)
			}
			l.happening(t)
		}
		l.round(t)
	})
}
