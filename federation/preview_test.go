// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const previewHost = "preview.example.com"

// previewing is a blue-green rollout from helloworld to canary with a preview under a host name of its own.
func previewing(weights ...v1alpha1.RolloutCluster) *v1alpha1.TrafficRollout {
	r := rolling(weights...)
	r.Spec.Canary = nil
	r.Spec.BlueGreen = &v1alpha1.BlueGreenStrategy{Active: v1alpha1.RolloutSide{Name: "helloworld"}, Preview: v1alpha1.RolloutSide{Name: "canary"},
		PreviewHostname: previewHost}
	r.Status.PreviewHostname = previewHost
	return r
}

// attached is a parent whose one listener takes a host name.
func attached(t *testing.T, route *gatewayv1.HTTPRoute, listener string) Parent {
	t.Helper()
	host := gatewayv1.Hostname(listener)
	gateway := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"},
		Spec: gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{{Name: "web", Protocol: gatewayv1.HTTPProtocolType, Port: 80, Hostname: &host}}}}
	p := Attach(route, gatewayv1.ParentReference{Name: "g"}, gateway, nil)
	require.True(t, p.IsAccepted())
	return p
}

func TestAPreviewIsARouteOfItsOwn(t *testing.T) {
	s := rolledOver(t, 1, 1, previewing(at("eks", 0), at("gke", 0)))
	s.Route.Spec.Hostnames = []gatewayv1.Hostname{"shop.example.com"}
	s.Parents = []Parent{attached(t, s.Route, "*.example.com")}
	plan := settled(s)
	main, preview := plan.Members["eks"].Object, plan.Members["eks"].Preview
	require.Len(t, main.Spec.Rules, 1)
	require.Equal(t, []gatewayv1.Hostname{"shop.example.com"}, main.Spec.Hostnames)
	require.Equal(t, "eks/helloworld 8000, gke/helloworld 2000", versions(plan, "eks"), "nothing of the preview is under the route's own host names")

	require.Equal(t, "r-preview", preview.Name)
	require.Equal(t, []gatewayv1.Hostname{previewHost}, preview.Spec.Hostnames)
	require.Equal(t, main.Spec.ParentRefs, preview.Spec.ParentRefs)
	require.Equal(t, main.Labels, preview.Labels, "it is withdrawn together with the route")
	require.Len(t, preview.Spec.Rules, 1)
	total := int32(0)
	for i, b := range plan.Members["eks"].Rules[1].Backends {
		require.Equal(t, canaryKey.String(), b.Import)
		require.Equal(t, b.Weight, *preview.Spec.Rules[0].BackendRefs[i].Weight)
		total += b.Weight
	}
	require.EqualValues(t, TotalWeight, total)
	require.Equal(t, "web-preview", plan.Members["eks"].Rules[1].Name)

	s.Rollouts[0].Status.PreviewHostname = ""
	require.Nil(t, settled(s).Members["eks"].Preview)
	require.Len(t, settled(s).Members["eks"].Rules, 1)
}

func TestWhichHostNamesAPreviewCanHave(t *testing.T) {
	route := hubRoute(t, `{backendRefs: [`+importRef+`]}`)
	route.Spec.Hostnames, route.Spec.ParentRefs = []gatewayv1.Hostname{"shop.example.com"}, []gatewayv1.ParentReference{{Name: "g"}}
	of := func(name, gateway, host string) *gatewayv1.HTTPRoute {
		other := route.DeepCopy()
		other.Name, other.Spec.ParentRefs[0].Name = name, gatewayv1.ObjectName(gateway)
		other.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(host)}
		return other
	}
	older := previewing()
	older.Name, older.CreationTimestamp, older.Spec.Route.Name = "older", metav1.NewTime(time.Unix(1, 0)), "another"
	tests := map[string]struct {
		listener string
		others   []*gatewayv1.HTTPRoute
		rollouts []*v1alpha1.TrafficRollout
		want     string
	}{
		"one that a listener takes":           {listener: "*.example.com"},
		"one that no listener takes":          {listener: "shop.example.com", want: "no listener to which HTTPRoute r attaches takes the host name preview.example.com"},
		"one that another route serves":       {listener: "*.example.com", others: []*gatewayv1.HTTPRoute{of("x", "g", previewHost)}, want: "HTTPRoute sample/x serves the host name preview.example.com"},
		"one that is served at another place": {listener: "*.example.com", others: []*gatewayv1.HTTPRoute{of("x", "elsewhere", previewHost)}},
		"another route has its name":          {listener: "*.example.com", others: []*gatewayv1.HTTPRoute{of("r-preview", "g", "x.example.com")}, want: "HTTPRoute r-preview has the name that the preview needs"},
		"one of another preview":              {listener: "*.example.com", rollouts: []*v1alpha1.TrafficRollout{older}, want: "TrafficRollout older, which is older, has its preview at"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := previewing()
			r.CreationTimestamp = metav1.NewTime(time.Unix(2, 0))
			checks := RolloutChecks{Rollout: r, Route: route, Rollouts: append(test.rollouts, r), Routes: append(test.others, route),
				Parents: []Parent{attached(t, route, test.listener)}, Exporters: exported}
			s := checks.Standing()
			require.Contains(t, s.Refused, test.want)
			require.Equal(t, test.want == "", s.Refused == "", s.Refused)
			require.False(t, s.Idle)
		})
	}
}

func TestAPreviewLastsUntilTheRolloutIsOver(t *testing.T) {
	r := previewing()
	r.Spec.BlueGreen.KeepWarm = &metav1.Duration{Duration: time.Minute}
	r.Spec.Waves = wavesByName("eks", "gke")
	w := newRolloutWorld(t, r.Spec, "eks", "gke").is("Paused eks=0 gke=0").says("at preview.example.com")
	seen := func(want gatewayv1.PreciseHostname) { require.Equal(t, want, w.rollout.Status.PreviewHostname) }
	seen(previewHost)
	w.say(v1alpha1.VerbPromote).pass(time.Minute).is("Paused eks=100 gke=0")
	seen(previewHost)
	w.say(v1alpha1.VerbAbort).is("Degraded eks=0 gke=0")
	seen("")
	w.say(v1alpha1.VerbRetry).is("Paused eks=0 gke=0")
	seen(previewHost)
	w.say(v1alpha1.VerbPromoteFull).is("Healthy eks=100 gke=100")
	seen("")
}
