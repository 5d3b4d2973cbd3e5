// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// rollout makes a canary rollout of the route with these steps.
func (a *app) rollout(steps ...v1alpha1.CanaryStep) *v1alpha1.TrafficRollout {
	return &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "v2"}, Spec: v1alpha1.TrafficRolloutSpec{
		Route: v1alpha1.RolloutRoute{Name: "helloworld"}, Canary: &v1alpha1.CanaryStrategy{
			Stable: v1alpha1.RolloutSide{Name: "helloworld"}, Canary: v1alpha1.RolloutSide{Name: "canary"}, Steps: steps}}}
}

// sayTo gives a verb of the rollout a value.
func (a *app) sayTo(verb, value string) {
	a.t.Helper()
	rollout := a.rollout()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, verb, value)
	require.NoError(a.t, a.set.hub.Patch(a.t.Context(), rollout, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// expectRollout waits until the rollout stands so.
func (a *app) expectRollout(phase v1alpha1.RolloutPhase, says string) v1alpha1.TrafficRolloutStatus {
	a.t.Helper()
	rollout := a.rollout()
	eventually(a.t, func() error {
		err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(rollout), rollout)
		if err == nil && (rollout.Status.Phase != phase || !strings.Contains(rollout.Status.Message, says)) {
			err = fmt.Errorf("the rollout is %s: %s; want %s: %s", rollout.Status.Phase, rollout.Status.Message, phase, says)
		}
		return err
	})
	return rollout.Status
}

// expectVersions waits until a member's first rule has these weights, by Service or by the service and cluster of a host.
func (a *app) expectVersions(member string, want map[string]int32) {
	a.t.Helper()
	eventually(a.t, func() error {
		var route gatewayv1.HTTPRoute
		if err := a.set.members[member].Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &route); err != nil {
			return err
		}
		have := map[string]int32{}
		for _, b := range route.Spec.Rules[0].BackendRefs {
			name := member + "/" + string(b.Name)
			if b.Kind != nil && *b.Kind == "Hostname" {
				parts := strings.Split(string(b.Name), ".")
				name = parts[2] + "/" + parts[0]
			}
			if *b.Weight > 0 {
				have[name] += *b.Weight
			}
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			return fmt.Errorf("%s has %v, want %v", member, have, want)
		}
		return nil
	})
}

func toWeight(weight int32) v1alpha1.CanaryStep { return v1alpha1.CanaryStep{SetWeight: &weight} }

func untilPromoted() v1alpha1.CanaryStep {
	return v1alpha1.CanaryStep{Pause: &v1alpha1.RolloutPause{}}
}

// An application team ships version 2: the hub's own objects, two members, and the words of a person.
func TestACanaryAcrossClusters(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	ctx := t.Context()
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	require.NoError(t, a.set.hub.Create(ctx, a.rollout(toWeight(10), untilPromoted(), toWeight(50), untilPromoted())))
	a.expectRollout(v1alpha1.RolloutPending, "no cluster exports")
	a.exportOf("canary", "eks")
	a.exportOf("canary", "gke")
	a.partlyOf("canary", "eks", 1, 1)
	a.expectRollout(v1alpha1.RolloutProgressing, "canary in gke")
	a.expectVersions("eks", map[string]int32{"eks/helloworld": 8000, "gke/helloworld": 2000})
	a.partlyOf("canary", "gke", 1, 1)
	a.expectRollout(v1alpha1.RolloutPaused, v1alpha1.VerbPromote)
	ten := map[string]int32{"eks/canary": 800, "eks/helloworld": 7200, "gke/canary": 200, "gke/helloworld": 1800}
	a.expectVersions("eks", ten)
	a.expectVersions("gke", ten)

	a.sayTo(v1alpha1.VerbPromote, "1")
	a.expectVersions("gke", map[string]int32{"eks/canary": 4000, "eks/helloworld": 4000, "gke/canary": 1000, "gke/helloworld": 1000})
	a.partlyOf("canary", "gke", 0, 1)
	a.expectVersions("gke", map[string]int32{"eks/canary": 4000, "eks/helloworld": 4000, "gke/helloworld": 2000})
	a.sayTo(v1alpha1.VerbAbort, "1")
	a.expectVersions("eks", map[string]int32{"eks/helloworld": 8000, "gke/helloworld": 2000})
	a.expectRollout(v1alpha1.RolloutDegraded, "aborted")

	a.partlyOf("canary", "gke", 1, 1)
	a.sayTo(v1alpha1.VerbRetry, "1")
	a.expectVersions("eks", ten)
	a.sayTo(v1alpha1.VerbPromoteFull, "1")
	a.expectRollout(v1alpha1.RolloutHealthy, "make the route name it")
	all := map[string]int32{"eks/canary": 8000, "gke/canary": 2000}
	a.expectVersions("eks", all)

	// Deleted before the route names the new side, it stays, and so does the traffic.
	require.NoError(t, a.set.hub.Delete(ctx, a.rollout()))
	a.sayTo(v1alpha1.VerbPause, "1")
	eventually(t, func() error {
		r := a.rollout()
		err := a.set.hub.Get(ctx, client.ObjectKeyFromObject(r), r)
		if err == nil && r.Status.Handled[v1alpha1.VerbPause] != "1" {
			err = fmt.Errorf("what was said after the deletion has not been heard: %+v", r.Status)
		}
		return err
	})
	a.expectVersions("gke", all)
	route := a.route()
	eventually(t, func() error {
		if err := a.set.hub.Get(ctx, client.ObjectKeyFromObject(route), route); err != nil {
			return err
		}
		route.Spec.Rules[0].BackendRefs[0].Name = "canary"
		return a.set.hub.Update(ctx, route)
	})
	eventually(t, func() error {
		err := a.set.hub.Get(ctx, client.ObjectKeyFromObject(a.rollout()), a.rollout())
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the rollout is still there: %w", err)
	})
	a.expectVersions("gke", all)
}

func TestWavesAcrossClusters(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	for _, m := range []string{"eks", "gke"} {
		a.exportOf("canary", m)
		a.partlyOf("canary", m, 1, 1)
	}
	r := a.rollout(toWeight(20), untilPromoted())
	r.Spec.Waves = []v1alpha1.RolloutWave{{Name: "first", Clusters: []string{"gke"}}, {Name: "rest", ClusterSelector: &metav1.LabelSelector{}}}
	require.NoError(t, a.set.hub.Create(t.Context(), r))
	require.Equal(t, "first", a.expectRollout(v1alpha1.RolloutPaused, v1alpha1.VerbPromote).WaveName)
	a.expectVersions("gke", map[string]int32{"gke/canary": 2000, "gke/helloworld": 8000})
	a.expectVersions("eks", map[string]int32{"eks/helloworld": 10000})
	a.sayTo(v1alpha1.VerbPromote, "1")
	a.expectVersions("eks", map[string]int32{"eks/canary": 2000, "eks/helloworld": 8000})
	a.expectVersions("gke", map[string]int32{"gke/canary": 10000})
	a.expectRollout(v1alpha1.RolloutPaused, v1alpha1.VerbPromote)
	a.sayTo(v1alpha1.VerbPromote, "2")
	a.expectRollout(v1alpha1.RolloutHealthy, "")
	a.expectVersions("eks", map[string]int32{"eks/canary": 10000})
}

func TestRolloutsThatAdmissionRefuses(t *testing.T) {
	a := newApp(t, theClusterset(t))
	tests := map[string]struct {
		change func(*v1alpha1.TrafficRolloutSpec)
		says   string
	}{
		"a weight over 100":    {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary.Steps = []v1alpha1.CanaryStep{toWeight(101)} }, "less than or equal to 100"},
		"no step":              {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary.Steps = nil }, "steps"},
		"a step of two things": {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary.Steps[0].Pause = &v1alpha1.RolloutPause{} }, "exactly one of"},
		"a step of nothing":    {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary.Steps = []v1alpha1.CanaryStep{{}} }, "exactly one of"},
		"a canary of itself":   {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary.Canary = s.Canary.Stable }, "stable and canary are the same"},
		"a move of waves": {func(s *v1alpha1.TrafficRolloutSpec) {
			s.Canary.Stable, s.Canary.Canary = v1alpha1.RolloutSide{Name: "a", Cluster: "eks"}, v1alpha1.RolloutSide{Name: "a", Cluster: "gke"}
			s.Waves = []v1alpha1.RolloutWave{{Name: "w", Clusters: []string{"eks"}}}
		}, "has no waves"},
		"a move to where it is": {func(s *v1alpha1.TrafficRolloutSpec) {
			s.Canary.Stable, s.Canary.Canary = v1alpha1.RolloutSide{Name: "a", Cluster: "eks"}, v1alpha1.RolloutSide{Name: "a", Cluster: "eks"}
		}, "a move is between two clusters"},
		"neither canary nor blue": {func(s *v1alpha1.TrafficRolloutSpec) { s.Canary = nil }, "canary or blueGreen"},
		"a wave of nobody":        {func(s *v1alpha1.TrafficRolloutSpec) { s.Waves = []v1alpha1.RolloutWave{{Name: "w"}} }, "either clusters or a clusterSelector"},
		"steps after 100": {func(s *v1alpha1.TrafficRolloutSpec) {
			s.Canary.Steps = []v1alpha1.CanaryStep{toWeight(100), toWeight(50)}
		}, "nothing follows a weight of 100"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := a.rollout(toWeight(10))
			test.change(&r.Spec)
			require.ErrorContains(t, a.set.hub.Create(t.Context(), r), test.says)
		})
	}
}

// A web hook decides: with its yes the rollout goes on, with its no everything goes back, and while it is away traffic stays.
func TestAnAnalysisDecides(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks")
	a.exportOf("canary", "eks")
	a.partlyOf("canary", "eks", 1, 1)
	var status atomic.Int32
	status.Store(http.StatusBadGateway)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(server.Close)
	none := int32(0)
	smoke := v1alpha1.CanaryStep{Analysis: &v1alpha1.RolloutAnalysis{Metrics: []v1alpha1.RolloutMetric{{Name: "smoke", ConsecutiveErrorLimit: &none,
		Interval: &metav1.Duration{Duration: time.Second}, Provider: v1alpha1.MetricProvider{Webhook: &v1alpha1.WebhookMetric{URL: server.URL}}}}}}
	require.NoError(t, a.set.hub.Create(t.Context(), a.rollout(toWeight(10), smoke, toWeight(50), smoke, untilPromoted())))
	a.expectRollout(v1alpha1.RolloutPaused, "smoke (the web hook answers 502")
	a.expectVersions("eks", map[string]int32{"eks/canary": 1000, "eks/helloworld": 9000})

	status.Store(http.StatusNoContent)
	a.sayTo(v1alpha1.VerbPromote, "1")
	a.expectRollout(v1alpha1.RolloutPaused, "waits for a person")
	a.expectVersions("eks", map[string]int32{"eks/canary": 5000, "eks/helloworld": 5000})

	status.Store(http.StatusPreconditionFailed)
	a.sayTo(v1alpha1.VerbAbort, "1")
	a.expectRollout(v1alpha1.RolloutDegraded, "by a person")
	a.sayTo(v1alpha1.VerbRetry, "1")
	a.expectRollout(v1alpha1.RolloutDegraded, "smoke: the web hook says no")
	a.expectVersions("eks", map[string]int32{"eks/helloworld": 10000})
}

// A preview under a host name of its own is there in each member until the rollout is over, and refused where it cannot be.
func TestAPreviewUnderAHostNameOfItsOwn(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	ctx := t.Context()
	for _, m := range []string{"eks", "gke"} {
		a.exportOf("canary", m)
		a.partlyOf("canary", m, 1, 1)
	}
	const host = "preview.example.com"
	taken := a.route()
	taken.Name, taken.Spec.Hostnames = "other", []gatewayv1.Hostname{host}
	require.NoError(t, a.set.hub.Create(ctx, taken))
	r := a.rollout()
	r.Spec.Canary = nil
	r.Spec.BlueGreen = &v1alpha1.BlueGreenStrategy{Active: v1alpha1.RolloutSide{Name: "helloworld"}, Preview: v1alpha1.RolloutSide{Name: "canary"},
		PreviewHostname: host, KeepWarm: &metav1.Duration{Duration: time.Hour}}
	require.NoError(t, a.set.hub.Create(ctx, r))
	a.expectRollout(v1alpha1.RolloutPending, "HTTPRoute "+a.namespace+"/other serves the host name "+host)
	require.NoError(t, a.set.hub.Delete(ctx, taken))
	a.expectRollout(v1alpha1.RolloutPaused, "the preview is there to be looked at, at "+host)
	key := client.ObjectKey{Namespace: a.namespace, Name: "helloworld-preview"}
	for _, m := range []string{"eks", "gke"} {
		var preview gatewayv1.HTTPRoute
		require.NoError(t, a.set.members[m].Get(ctx, key, &preview))
		require.Equal(t, []gatewayv1.Hostname{host}, preview.Spec.Hostnames)
		for _, b := range preview.Spec.Rules[0].BackendRefs {
			require.Contains(t, string(b.Name), "canary")
		}
		a.expectVersions(m, map[string]int32{m + "/helloworld": 10000})
	}
	a.sayTo(v1alpha1.VerbPromote, "1")
	a.expectVersions("gke", map[string]int32{"gke/canary": 10000})
	a.expectRollout(v1alpha1.RolloutPaused, "keep helloworld as it is")
	a.sayTo(v1alpha1.VerbAbort, "1")
	a.expectVersions("gke", map[string]int32{"gke/helloworld": 10000})
	for _, m := range []string{"eks", "gke"} {
		eventually(t, func() error {
			if err := a.set.members[m].Get(ctx, key, &gatewayv1.HTTPRoute{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("the preview is still in %s: %w", m, err)
			}
			return nil
		})
	}
}
