// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestOwner(t *testing.T) {
	long := strings.Repeat("n", 253)
	owners := []Owner{RouteOwner("sample", "r"), RouteOwner("sample", long), GatewayOwner("sample", "g"), ServiceOwner(sampleKey),
		EastWestOwner("eks"), EastWestOwner(long)}
	labels := map[string]Owner{}
	for _, owner := range owners {
		object := &metav1.ObjectMeta{Labels: map[string]string{"kept": "yes"}}
		owner.Mark(object)
		label := object.Labels[v1alpha1.LabelOwner]
		require.Empty(t, validation.IsValidLabelValue(label), label)
		require.Equal(t, "yes", object.Labels["kept"])
		require.True(t, IsOurs(object))
		parsed, ok := ParseOwner(object)
		require.True(t, ok)
		require.Equal(t, owner, parsed)
		require.NotContains(t, labels, label, "%s and %s share a label", owner, labels[label])
		labels[label] = owner
	}
}

func TestOwnerOfForeignObjects(t *testing.T) {
	marked := func(change func(*metav1.ObjectMeta)) *metav1.ObjectMeta {
		object := &metav1.ObjectMeta{}
		RouteOwner("sample", "r").Mark(object)
		change(object)
		return object
	}
	tests := map[string]*metav1.ObjectMeta{
		"bare":                {},
		"not managed by us":   marked(func(m *metav1.ObjectMeta) { m.Labels[v1alpha1.LabelManagedBy] = "helm" }),
		"no owner":            marked(func(m *metav1.ObjectMeta) { delete(m.Labels, v1alpha1.LabelOwner) }),
		"annotation gone":     marked(func(m *metav1.ObjectMeta) { delete(m.Annotations, v1alpha1.AnnotationOwner) }),
		"annotation edited":   marked(func(m *metav1.ObjectMeta) { m.Annotations[v1alpha1.AnnotationOwner] = "httproute/sample/other" }),
		"annotation is noise": marked(func(m *metav1.ObjectMeta) { m.Annotations[v1alpha1.AnnotationOwner] = "noise" }),
	}
	for name, object := range tests {
		_, ok := ParseOwner(object)
		require.False(t, ok, name)
	}
}

func TestBoundedName(t *testing.T) {
	require.Equal(t, "httproute-hello-eks", RoutePlanName("httproute", "hello", "eks"))
	long := RoutePlanName("httproute", strings.Repeat("r", 253), strings.Repeat("m", 63))
	require.Len(t, long, 253)
	require.Empty(t, validation.IsDNS1123Subdomain(long))
	require.NotEqual(t, long, RoutePlanName("httproute", strings.Repeat("r", 253), strings.Repeat("m", 62)+"n"))
	require.Equal(t, "aaaaaaaaaa-bbbbbb", boundedName(17, "aaaaaaaaaa", "bbbbbb"), "what fits is readable")
	require.NotEqual(t, boundedName(20, "a-b", "c"+strings.Repeat("x", 20)), boundedName(20, "a", "b-c"+strings.Repeat("x", 20)))
	require.Empty(t, validation.IsDNS1123Subdomain(boundedName(20, "abcdefg..", "hijklmnopqrstuv")), "no dot before the digest")
}

func TestAddress(t *testing.T) {
	tests := []struct {
		address Address
		text    string
		ip      bool
	}{
		{Address{}, "", false},
		{Address{"10.0.0.1", 15443}, "10.0.0.1:15443", true},
		{Address{"2001:db8::1", 443}, "[2001:db8::1]:443", true},
		{Address{"eks.elb.example.com", 15443}, "eks.elb.example.com:15443", false},
	}
	for _, test := range tests {
		require.Equal(t, test.text, test.address.String())
		require.Equal(t, test.ip, test.address.IsIP(), test.text)
		require.Equal(t, test.text == "", test.address.IsZero())
	}
}

func TestIstioProtocol(t *testing.T) {
	tests := []struct{ name, app, want string }{
		{"", "", "HTTP"}, {"http", "", "HTTP"}, {"http-web", "", "HTTP"}, {"tcp", "", "HTTP"}, {"web", "", "HTTP"},
		{"http2", "", "HTTP2"}, {"http2-x", "", "HTTP2"}, {"h2c", "", "HTTP2"}, {"grpc", "", "GRPC"}, {"grpc-admin", "", "GRPC"},
		{"grpc-web", "", "HTTP"}, {"grpc-web-x", "", "HTTP"}, {"grpcx", "", "HTTP"},
		{"x", "kubernetes.io/h2c", "HTTP2"}, {"x", "GRPC", "GRPC"}, {"grpc", "http", "HTTP"}, {"grpc", "kubernetes.io/ws", "HTTP"},
	}
	for _, test := range tests {
		p := mcsv1beta1.ServicePort{Name: test.name}
		if test.app != "" {
			p.AppProtocol = &test.app
		}
		require.Equal(t, test.want, istioProtocol(p), "%q %q", test.name, test.app)
	}
	require.Equal(t, "http-80", portName(mcsv1beta1.ServicePort{Port: 80}))
	require.Equal(t, "grpc", portName(mcsv1beta1.ServicePort{Name: "grpc", Port: 80}))
}

func TestNamedClusters(t *testing.T) {
	route := fromYAML[gatewayv1.HTTPRoute](t, `
metadata: {namespace: shop, name: r}
spec:
  rules:
  - backendRefs:
    - {group: networking.istio.io, kind: Hostname, name: helloworld.sample.gke.isthmus.internal, port: 1}
    - {group: networking.istio.io, kind: Hostname, name: helloworld.sample.eks.isthmus.internal, port: 1}
    - {group: networking.istio.io, kind: Hostname, name: helloworld.sample.isthmus.invalid, port: 1}
    - {name: helloworld.sample.aks.isthmus.internal, port: 1}
    - {name: helloworld, namespace: sample, port: 1}
    - {name: plain, port: 1}
  - backendRefs: [{group: networking.istio.io, kind: Hostname, name: helloworld.sample.gke.isthmus.internal, port: 2}]
`)
	require.Equal(t, map[ServiceKey][]string{sampleKey: {namedHere, "eks", "gke"}}, NamedClusters(&route))
}

func TestGranted(t *testing.T) {
	grant := func(namespace, from, to string) *gatewayv1.ReferenceGrant {
		return &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
			Spec: fromYAML[gatewayv1.ReferenceGrantSpec](t, `{from: [`+from+`], to: [`+to+`]}`)}
	}
	const from, to = `{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}`, `{group: multicluster.x-k8s.io, kind: ServiceImport}`
	tests := map[string]struct {
		grant   *gatewayv1.ReferenceGrant
		granted bool
	}{
		"all imports":       {grant("sample", from, to), true},
		"by name":           {grant("sample", from, `{group: multicluster.x-k8s.io, kind: ServiceImport, name: helloworld}`), true},
		"second of each":    {grant("sample", `{group: x, kind: Y, namespace: z},`+from, `{group: "", kind: Secret},`+to), true},
		"another name":      {grant("sample", from, `{group: multicluster.x-k8s.io, kind: ServiceImport, name: other}`), false},
		"another namespace": {grant("other", from, to), false},
		"another from":      {grant("sample", `{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: mall}`, to), false},
		"another route":     {grant("sample", `{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop}`, to), false},
		"another from kind": {grant("sample", `{group: "", kind: HTTPRoute, namespace: shop}`, to), false},
		"a Service":         {grant("sample", from, `{group: "", kind: Service}`), false},
	}
	for name, test := range tests {
		require.Equal(t, test.granted, Granted([]*gatewayv1.ReferenceGrant{test.grant}, "shop", sampleKey), name)
	}
	require.False(t, Granted(nil, "shop", sampleKey))
}
