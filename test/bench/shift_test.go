// SPDX-License-Identifier: Apache-2.0

//go:build bench

// Package bench measures how long a change takes from the hub to the requests. It asserts nothing about times: it
// prints them, next to what a plain patch of the member's own route takes in the same run, which is the floor.
package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/test/labtest"
)

// repetitions of each measurement.
const repetitions = 30

func TestMain(m *testing.M) { labtest.Main(m) }

// stopwatch holds the times of one kind of change.
type stopwatch struct {
	name             string
	written, shifted []time.Duration
	// failed is how many requests had no good answer.
	failed int
}

// istiodAlone is what a patch of a member's own route takes to reach the requests, by istiod alone, on a quiet machine of two
// cores: the floor that was measured before anything was built on it.
const istiodAlone = 155

func (s *stopwatch) report(t *testing.T) {
	t.Helper()
	t.Logf("%-34s n=%d   weight written p50 %5.0f ms, p99 %5.0f ms   requests moved p50 %5.0f ms, p99 %5.0f ms   failed %d", s.name, len(s.shifted),
		quantile(s.written, 0.5), quantile(s.written, 0.99), quantile(s.shifted, 0.5), quantile(s.shifted, 0.99), s.failed)
}

// quantile by the nearest rank, in milliseconds.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := min(len(sorted)-1, int(q*float64(len(sorted))))
	return float64(sorted[rank].Microseconds()) / 1000
}

// observe makes a change and measures until the route of a member carries the wanted weights, and until requests at
// that member's gateway are answered by one cluster alone.
func (s *stopwatch) observe(t *testing.T, routes *routeWatch, r *labtest.Requester, want map[string]int32, server string, change func()) {
	t.Helper()
	stop := make(chan struct{})
	moved := make(chan time.Time, 1)
	failed := 0
	go func() {
		at, n := firstOfMany(r, server, stop)
		failed = n
		moved <- at
	}()
	started := time.Now()
	change()
	s.written = append(s.written, routes.expect(t, want).Sub(started))
	select {
	case at := <-moved:
		s.shifted, s.failed = append(s.shifted, at.Sub(started)), s.failed+failed
	case <-time.After(labtest.Patience):
		close(stop)
		t.Fatalf("requests never moved to %s", server)
	}
}

// firstOfMany is when the first of fifty answers in a row by one cluster came, and how many requests failed meanwhile.
func firstOfMany(r *labtest.Requester, server string, stop <-chan struct{}) (first time.Time, failed int) {
	const inARow = 50
	for n := 0; n < inARow; {
		select {
		case <-stop:
			return first, failed
		default:
		}
		who, err := r.Send(context.Background())
		if err != nil {
			failed++
		}
		if err != nil || who != server {
			n = 0
			continue
		}
		if n++; n == 1 {
			first = time.Now()
		}
	}
	return first, failed
}

// routeWatch follows one member's generated route.
type routeWatch struct {
	member, name string
	seen         chan observation
}

type observation struct {
	at      time.Time
	weights map[string]int32
}

func watchRoute(ctx context.Context, t *testing.T, member, name string) *routeWatch {
	t.Helper()
	cfg, err := labtest.Lab.RESTConfig(member)
	require.NoError(t, err)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: controllers.NewScheme()})
	require.NoError(t, err)
	w, err := c.Watch(ctx, &gatewayv1.HTTPRouteList{}, client.InNamespace(labtest.Sample))
	require.NoError(t, err)
	out := &routeWatch{member: member, name: name, seen: make(chan observation, 10000)}
	go func() {
		for e := range w.ResultChan() {
			if route, ok := e.Object.(*gatewayv1.HTTPRoute); ok && route.Name == name {
				out.seen <- observation{time.Now(), labtest.WeightsOf(route, member)}
			}
		}
	}()
	return out
}

// expect waits for a version of the route with these weights, and says when it was seen.
func (w *routeWatch) expect(t *testing.T, want map[string]int32) time.Time {
	t.Helper()
	deadline := time.After(labtest.Patience)
	for {
		select {
		case o := <-w.seen:
			if fmt.Sprint(o.weights) == fmt.Sprint(want) {
				return o.at
			}
		case <-deadline:
			t.Fatalf("%s's route %s never had the weights %v", w.member, w.name, want)
		}
	}
}

func only(server string) map[string]int32 {
	w := map[string]int32{"eks": 0, "gke": 0}
	w[server] = 10000
	return w
}

func TestShift(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t.Cleanup(func() { labtest.SetPolicy(t, 80, 20); labtest.Scale(t, "eks", "helloworld", 2) })
	for _, member := range labtest.Members {
		labtest.ExpectMember(t, member, v1alpha1.MemberMeshReady, metav1.ConditionTrue)
	}
	r := labtest.Hello(t, "eks")
	labtest.SetPolicy(t, 100, 0)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(100, 0))
	r.ExpectOnly(t, "eks", 100)

	plain, policy, endpoint := stopwatch{name: "plain patch of the member's route"},
		stopwatch{name: "policy change in the hub"}, stopwatch{name: "last ready endpoint goes"}
	routes := watchRoute(ctx, t, "eks", "helloworld")
	ends := newEndpoints(t)
	endsRoutes := watchRoute(ctx, t, "eks", "bench")
	base := newPlain(t)
	plainRoutes := watchRoute(ctx, t, "eks", "bench-plain")
	// One of each in turn, so that whatever else the machine does falls on all alike.
	for range repetitions {
		plain.observe(t, plainRoutes, base.requester, map[string]int32{"eks": 0, "gke": 10000}, "gke", func() { base.move(t, "gke") })
		base.back(t)
		policy.observe(t, routes, r, only("gke"), "gke", func() { labtest.SetPolicy(t, 0, 100) })
		labtest.SetPolicy(t, 100, 0)
		r.ExpectOnly(t, "eks", 50)
		endpoint.observe(t, endsRoutes, ends.requester, only("gke"), "gke", func() { ends.set(t, false) })
		ends.set(t, true)
		ends.requester.ExpectOnly(t, "eks", 50)
		drain(routes, endsRoutes, plainRoutes)
	}
	for _, s := range []*stopwatch{&plain, &policy, &endpoint} {
		s.report(t)
	}
	t.Logf("added to a plain patch, at the median: policy change %.0f ms, endpoint change %.0f ms",
		quantile(policy.shifted, 0.5)-quantile(plain.shifted, 0.5), quantile(endpoint.shifted, 0.5)-quantile(plain.shifted, 0.5))
	t.Logf("last ready endpoint goes: requests moved p99 is %.0f ms above the %d ms of istiod alone; what is to be reached is 250",
		quantile(endpoint.shifted, 0.99)-istiodAlone, istiodAlone)
}

// drain forgets what was seen on the way back.
func drain(watches ...*routeWatch) {
	for _, w := range watches {
		for len(w.seen) > 0 {
			<-w.seen
		}
	}
}

// endpoints is a service whose slice in eks is written by hand, so that the change has an exact beginning.
type endpoints struct {
	eks       client.Client
	slice     *discoveryv1.EndpointSlice
	requester *labtest.Requester
}

func newEndpoints(t *testing.T) *endpoints {
	t.Helper()
	ctx := context.Background()
	e := &endpoints{eks: labtest.Cluster(t, "eks")}
	for _, member := range labtest.Members {
		c := labtest.Cluster(t, member)
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench"},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 5000}}}}
		export := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench"}}
		slice := benchSlice(ctx, t, c)
		for _, o := range []client.Object{service, export, slice} {
			require.NoError(t, c.Create(ctx, o))
			t.Cleanup(func() { _ = c.Delete(ctx, o) })
		}
		if member == "eks" {
			e.slice = slice
		}
	}
	hub := labtest.Cluster(t, "hub")
	route := &gatewayv1.HTTPRoute{}
	require.NoError(t, hub.Get(ctx, client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, route))
	route.ObjectMeta = metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench"}
	route.Spec.Hostnames = []gatewayv1.Hostname{"bench.example.com"}
	route.Spec.Rules[0].BackendRefs[0].Name = "bench"
	route.Status = gatewayv1.HTTPRouteStatus{}
	require.NoError(t, hub.Create(ctx, route))
	t.Cleanup(func() { _ = hub.Delete(ctx, route) })
	policy := returnsAtOnce()
	require.NoError(t, hub.Create(ctx, policy))
	t.Cleanup(func() { _ = hub.Delete(ctx, policy) })
	e.requester = labtest.HelloAt(t, "eks", "bench.example.com")
	e.requester.ExpectOnly(t, "eks", 100)
	return e
}

// returnsAtOnce lets the service come back without a hold, which would double each time: what is measured is how it leaves.
func returnsAtOnce() *v1alpha1.TrafficDistributionPolicy {
	never := ptr.To(gatewayv1.Duration("0s"))
	return &v1alpha1.TrafficDistributionPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench"},
		Spec: v1alpha1.TrafficDistributionPolicySpec{
			TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
				Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: "bench"}}},
			Defaults: &v1alpha1.TrafficDistribution{Failback: &v1alpha1.Failback{Hold: never, Ramp: &v1alpha1.FailbackRamp{Interval: never}}},
		},
	}
}

// benchSlice points at the pods of helloworld.
func benchSlice(ctx context.Context, t *testing.T, c client.Client) *discoveryv1.EndpointSlice {
	t.Helper()
	var pods corev1.PodList
	var d appsv1.Deployment
	require.NoError(t, c.Get(ctx, client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, &d))
	require.NoError(t, c.List(ctx, &pods, client.InNamespace(labtest.Sample), client.MatchingLabels(d.Spec.Selector.MatchLabels)))
	name, port, protocol, yes := "http", int32(5000), corev1.ProtocolTCP, true
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench-1",
		Labels: map[string]string{discoveryv1.LabelServiceName: "bench", discoveryv1.LabelManagedBy: "isthmus-bench"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}}
	for i := range pods.Items {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{pods.Items[i].Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes}})
	}
	require.NotEmpty(t, slice.Endpoints)
	return slice
}

func (e *endpoints) set(t *testing.T, ready bool) {
	t.Helper()
	changed := e.slice.DeepCopy()
	for i := range changed.Endpoints {
		changed.Endpoints[i].Conditions.Ready = &ready
	}
	require.NoError(t, e.eks.Patch(context.Background(), changed, client.MergeFrom(e.slice)))
	e.slice = changed
}

// plainRoute is a route in eks that Isthmus does not know: what Istio alone takes. Its two backends are the hosts
// that Isthmus made known, so that the same proxies answer.
type plainRoute struct {
	eks       client.Client
	requester *labtest.Requester
}

func newPlain(t *testing.T) *plainRoute {
	t.Helper()
	p := &plainRoute{eks: labtest.Cluster(t, "eks")}
	generated := &gatewayv1.HTTPRoute{}
	require.NoError(t, p.eks.Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, generated))
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "bench-plain"}, Spec: *generated.Spec.DeepCopy()}
	route.Spec.Hostnames = []gatewayv1.Hostname{"plain.example.com"}
	require.NoError(t, p.eks.Create(context.Background(), route))
	t.Cleanup(func() { _ = p.eks.Delete(context.Background(), route) })
	p.requester = labtest.HelloAt(t, "eks", "plain.example.com")
	p.back(t)
	return p
}

func (p *plainRoute) move(t *testing.T, server string) {
	t.Helper()
	route := &gatewayv1.HTTPRoute{}
	require.NoError(t, p.eks.Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: "bench-plain"}, route))
	before := route.DeepCopy()
	for i := range route.Spec.Rules[0].BackendRefs {
		b := &route.Spec.Rules[0].BackendRefs[i]
		w := only(server)[labtest.ServerOf(*b, "eks")]
		b.Weight = &w
	}
	require.NoError(t, p.eks.Patch(context.Background(), route, client.MergeFrom(before)))
}

func (p *plainRoute) back(t *testing.T) {
	t.Helper()
	p.move(t, "eks")
	p.requester.ExpectOnly(t, "eks", 50)
}
