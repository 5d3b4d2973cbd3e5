// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// kindsIn lists objects as "Kind namespace/name".
func kindsIn(objects []runtime.Object) []string {
	var out []string
	for _, o := range objects {
		meta := o.(metav1.Object)
		out = append(out, o.GetObjectKind().GroupVersionKind().Kind+" "+meta.GetNamespace()+"/"+meta.GetName())
	}
	return out
}

func entryIn(objects []runtime.Object, cluster string) *networkingv1.ServiceEntry {
	for _, o := range objects {
		if e, ok := o.(*networkingv1.ServiceEntry); ok && e.Name == RemoteName(sampleKey, cluster) {
			return e
		}
	}
	return nil
}

func endpointsOf(e *networkingv1.ServiceEntry) string {
	var out []string
	for _, w := range e.Spec.Endpoints {
		out = append(out, w.Labels[v1alpha1.LabelCluster])
	}
	return strings.Join(out, " ")
}

const (
	grantIn = "ReferenceGrant sample/helloworld.isthmus-system"
	routeIn = "HTTPRoute isthmus-system/helloworld.sample"
	entryTo = "ServiceEntry sample/helloworld.sample."
	ruleTo  = "DestinationRule sample/helloworld.sample."
)

func TestWhatAMemberHoldsForAService(t *testing.T) {
	change := func(m ServiceMember, f func(*ServiceMember)) ServiceMember { f(&m); return m }
	eks, gke := exporter("eks", 1), exporter("gke", 1)
	bystander := change(exporter("eks", 1), func(m *ServiceMember) { m.Exported, m.Service = false, nil })
	tests := map[string]struct {
		members []ServiceMember
		want    []string // in the first member; nil where it has no entry
	}{
		"two exporters":               {[]ServiceMember{eks, gke}, []string{"ServiceImport sample/helloworld", grantIn, routeIn, entryTo + "gke", ruleTo + "gke", entryTo + "eks", ruleTo + "eks", entryTo + "eks.home", ruleTo + "eks.home"}},
		"exports nothing":             {[]ServiceMember{bystander, gke}, []string{"ServiceImport sample/helloworld", entryTo + "gke", ruleTo + "gke"}},
		"lacks the namespace":         {[]ServiceMember{change(bystander, func(m *ServiceMember) { m.Namespaces = nil }), gke}, []string{}},
		"has not been read":           {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Synced = false }), gke}, nil},
		"nobody exports":              {[]ServiceMember{bystander, change(gke, func(m *ServiceMember) { m.Exported = false })}, []string{}},
		"nobody, but a route names":   {[]ServiceMember{change(bystander, func(m *ServiceMember) { m.Names = []string{"gke"} }), change(gke, func(m *ServiceMember) { m.Exported = false })}, []string{entryTo + "gke", ruleTo + "gke"}},
		"withdrawn, and named":        {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Exported = false }), change(gke, func(m *ServiceMember) { m.Names = []string{"eks"} })}, []string{"ServiceImport sample/helloworld", grantIn, routeIn, entryTo + "gke", ruleTo + "gke"}},
		"withdrawn, named no more":    {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Exported = false }), gke}, []string{"ServiceImport sample/helloworld", entryTo + "gke", ruleTo + "gke"}},
		"leaving, and named":          {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Exported, m.Leaving = false, true }), change(gke, func(m *ServiceMember) { m.Names = []string{"eks"} })}, []string{grantIn, routeIn}},
		"leaving, named no more":      {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Exported, m.Leaving = false, true }), gke}, []string{}},
		"lets nobody in yet":          {[]ServiceMember{eks, change(gke, func(m *ServiceMember) { m.Open = false })}, []string{"ServiceImport sample/helloworld", grantIn, routeIn}},
		"lets nobody in, but named":   {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Names = []string{"gke"} }), change(gke, func(m *ServiceMember) { m.Open = false })}, []string{"ServiceImport sample/helloworld", grantIn, routeIn, entryTo + "gke", ruleTo + "gke"}},
		"no address yet":              {[]ServiceMember{eks, change(gke, func(m *ServiceMember) { m.EastWest = Address{} })}, []string{"ServiceImport sample/helloworld", grantIn, routeIn}},
		"address lost, still named":   {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Names = []string{"gke"} }), change(gke, func(m *ServiceMember) { m.EastWest = Address{} })}, []string{"ServiceImport sample/helloworld", grantIn, routeIn, entryTo + "gke", ruleTo + "gke"}},
		"address lost, nobody behind": {[]ServiceMember{change(bystander, func(m *ServiceMember) { m.Names = []string{"gke"} }), change(gke, func(m *ServiceMember) { m.EastWest = Address{} })}, []string{"ServiceImport sample/helloworld"}},
		"UDP alone":                   {[]ServiceMember{change(eks, func(m *ServiceMember) { m.Service = serviceWith("dns 53/UDP") })}, []string{"ServiceImport sample/helloworld"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: test.members})
			sequences, planned := plan.Objects[test.members[0].Name]
			objects := sequences.All()
			require.Equal(t, test.want != nil, planned)
			require.ElementsMatch(t, test.want, kindsIn(objects))
			for _, o := range objects {
				owner, ok := ParseOwner(o.(metav1.Object))
				require.True(t, ok, "every object is marked")
				require.Equal(t, ServiceOwner(sampleKey), owner)
			}
		})
	}
}

// Somebody else's object of one name must not keep the rest from being written, and what rests on it must wait.
func TestSequencesOfAService(t *testing.T) {
	var have [][]string
	for _, sequence := range PlanService(ServiceSnapshot{Key: sampleKey, Gateways: []NamespacedName{{"sample", "public"}},
		Members: []ServiceMember{exporter("aks", 1), exporter("eks", 1), exporter("gke", 1)}}).Objects["eks"] {
		have = append(have, kindsIn(sequence))
	}
	require.Equal(t, [][]string{
		{"ReferenceGrant sample/helloworld.isthmus-system", "HTTPRoute isthmus-system/helloworld.sample"},
		{"EnvoyFilter sample/helloworld.sample.eks.home"},
		{"DestinationRule sample/helloworld.sample.aks", "ServiceEntry sample/helloworld.sample.aks"},
		{"DestinationRule sample/helloworld.sample.eks", "ServiceEntry sample/helloworld.sample.eks",
			"DestinationRule sample/helloworld.sample.eks.home", "ServiceEntry sample/helloworld.sample.eks.home"},
		{"DestinationRule sample/helloworld.sample.gke", "ServiceEntry sample/helloworld.sample.gke"},
		{"ServiceImport sample/helloworld"},
	}, have)
}

func TestGrantsForRoutesOfOtherNamespaces(t *testing.T) {
	shop := exporter("eks", 1)
	shop.Namespaces = []string{"sample", "shop", v1alpha1.SystemNamespace}
	grants := func(m ServiceMember) []string {
		plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{m, exporter("gke", 1)}})
		return slices.DeleteFunc(kindsIn(plan.Objects["eks"].All()), func(s string) bool { return !strings.HasPrefix(s, "ReferenceGrant") })
	}
	require.ElementsMatch(t, []string{grantIn, "ReferenceGrant sample/helloworld.shop"}, grants(shop), "each once")
	shop.Exported = false
	require.Empty(t, grants(shop))
	shop.Names = []string{namedHere}
	require.Contains(t, grants(shop), "ReferenceGrant sample/helloworld.shop", "until no route there names it")
}

func TestWhatAFormerNamespaceStillNamesStays(t *testing.T) {
	eks := exporter("eks", 1)
	eks.Former = []FormerNamespace{{Namespace: "shop", Names: []string{namedHere, "gke"}}}
	kinds := kindsIn(PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{exporter("aks", 1), eks, exporter("gke", 1)}}).Objects["eks"].All())
	require.Equal(t, []string{"ReferenceGrant sample/helloworld.shop", "DestinationRule shop/helloworld.sample.gke", "ServiceEntry shop/helloworld.sample.gke"},
		slices.DeleteFunc(kinds, func(s string) bool { return !strings.Contains(s, "shop") }), "and no more than that")
}

func TestWhoProxiesMayGoTo(t *testing.T) {
	routed, drained := ServiceSnapshot{Key: sampleKey, Gateways: []NamespacedName{{"sample", "g"}}}, override("o", v1alpha1.OverrideDrain)
	drained.Spec.Cluster = "eks"
	tests := map[string]struct {
		ready   int
		before  Verdict
		leftOut bool
		in      ServiceSnapshot
		want    bool
	}{
		"nobody refers to it":              {0, "", false, ServiceSnapshot{Key: sampleKey}, true},
		"nothing decided, and fit":         {1, "", false, routed, true},
		"nothing decided, and empty":       {0, "", false, routed, false},
		"fit, and not decided yet":         {1, Unfit, true, routed, false},
		"fit, and waits to return":         {1, Fit, true, routed, false},
		"empty, and not decided yet":       {0, Fit, false, routed, true},
		"drained":                          {1, Fit, false, ServiceSnapshot{Key: sampleKey, Overrides: Overrides{drained}}, false},
		"nobody refers to it, and drained": {1, "", false, ServiceSnapshot{Key: sampleKey, Overrides: Overrides{drained}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := exporter("eks", test.ready)
			m.Before, m.LeftOut = test.before, test.leftOut
			require.Equal(t, test.want, test.in.takesSpill(m))
		})
	}
}

func TestFallbacks(t *testing.T) {
	at := func(name, region, zone string, ready int) ServiceMember {
		m := exporter(name, ready)
		m.Region, m.Zone = region, zone
		return m
	}
	members := []ServiceMember{at("z-same-zone", "eu", "a", 1), at("aks", "us", "a", 1), at("empty", "eu", "a", 0), at("eks", "eu", "a", 1),
		at("b-same-region", "eu", "b", 1), at("gke", "us", "b", 1)}
	plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: members, Gateways: []NamespacedName{{"sample", "g"}}})
	require.Equal(t, "eks z-same-zone b-same-region aks gke", endpointsOf(entryIn(plan.Objects["gke"].All(), "eks")),
		"itself, then whoever serves, the nearest to it first")
	slices.Reverse(members)
	require.Equal(t, plan, PlanService(ServiceSnapshot{Key: sampleKey, Members: members, Gateways: []NamespacedName{{"sample", "g"}}}), "in whatever order they come")
}

func TestNoFallbackIntoAClusterThatLetsNobodyIn(t *testing.T) {
	aks, eks, gke := exporter("aks", 1), exporter("eks", 1), exporter("gke", 1)
	eks.Open = false
	plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{aks, eks, gke}})
	require.Equal(t, "gke aks", endpointsOf(entryIn(plan.Objects["aks"].All(), "gke")))
	require.Equal(t, map[string]string{"eks": "the other members cannot reach sample/helloworld in eks: its east-west gateway has not accepted HTTPRoute isthmus-system/helloworld.sample yet"}, plan.Waiting)
}

func TestNobodyElsesImportKeepsTrafficFromBeingWritten(t *testing.T) {
	plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{exporter("eks", 1), exporter("gke", 1)}})
	kinds := kindsIn(plan.Objects["eks"].All())
	require.Equal(t, "ServiceImport sample/helloworld", kinds[len(kinds)-1], "the first that cannot be written ends the attempt")
}

func TestAnImportWithoutPortsSaysSo(t *testing.T) {
	headless := exporter("eks", 1)
	headless.Service = &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}}
	plan := PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{headless}})
	require.NotNil(t, plan.HubImport.Spec.Ports, "the API server refuses null")
	require.Empty(t, plan.HubImport.Spec.Ports)
}

func TestServiceEntry(t *testing.T) {
	named, elsewhere := Member{Name: "gke", EastWest: Address{"gke.example.com", 15443}}, Member{Name: "aks", EastWest: Address{"10.0.0.3", 30443}}
	eks := Member{Name: "eks", EastWest: Address{"10.0.0.1", 15443}}
	ports := []mcsv1beta1.ServicePort{{Port: 80}, {Name: "grpc", Port: 90}}
	static := remoteBackend{key: sampleKey, cluster: eks, fallbacks: []Member{elsewhere, {Name: "unknown"}}, ports: ports}.serviceEntry("sample")
	require.Equal(t, networkingapi.ServiceEntry_STATIC, static.Spec.Resolution)
	require.Equal(t, "eks aks", endpointsOf(static), "an address that is not known is left out")
	require.Empty(t, static.Spec.Endpoints[0].Ports)
	require.Equal(t, map[string]uint32{"http-80": 30443, "grpc": 30443}, static.Spec.Endpoints[1].Ports, "another port there")
	require.Equal(t, networkingapi.ServiceEntry_DNS, remoteBackend{key: sampleKey, cluster: eks, fallbacks: []Member{named}, ports: ports}.serviceEntry("sample").Spec.Resolution)
	lost := remoteBackend{key: sampleKey, cluster: Member{Name: "lost"}, fallbacks: []Member{eks}, ports: ports}.serviceEntry("sample")
	require.Equal(t, "eks", endpointsOf(lost))
	require.Equal(t, uint32(EastWestPort), lost.Spec.Ports[0].TargetPort)
}

func TestManyPortsTakeSeveralRoutes(t *testing.T) {
	var ports []string
	for i := range 40 {
		ports = append(ports, fmt.Sprintf("p%d %d", i, 1000+i))
	}
	m := exporter("eks", 1)
	m.Service = serviceWith(ports...)
	var routes []string
	rules := 0
	for _, o := range PlanService(ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{m}}).Objects["eks"].All() {
		if r, ok := o.(*gatewayv1.HTTPRoute); ok {
			routes = append(routes, r.Name)
			rules += len(r.Spec.Rules)
		}
	}
	require.Equal(t, []string{"helloworld.sample", "helloworld.sample.2", "helloworld.sample.3"}, routes)
	require.Equal(t, 40, rules)
}

func TestExportConditions(t *testing.T) {
	eks, gke, aks := exporter("eks", 1), exporter("gke", 1), exporter("aks", 1)
	external := exporter("external", 1)
	external.Service.Spec.Type = corev1.ServiceTypeExternalName
	gke.Service, gke.EastWest = nil, Address{}
	aks.EastWest = Address{}
	unread, private := exporter("unread", 1), exporter("private", 1)
	unread.Synced, private.Exported = false, false
	s := ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{aks, eks, external, gke, private, unread}}
	conditions := ExportConditions(s, PlanService(s))
	says := func(name string) string {
		var out []string
		for _, c := range conditions[name] {
			out = append(out, c.Type+"="+string(c.Status)+" "+c.Reason)
		}
		return strings.Join(out, ", ")
	}
	require.Equal(t, "Conflict=False NoConflicts, Ready=True Exported, Valid=True Valid", says("eks"))
	require.Equal(t, "Conflict=False NoConflicts, Ready=False Pending, Valid=True Valid", says("aks"))
	require.Equal(t, "Conflict=False NoConflicts, Ready=False Pending, Valid=False NoService", says("gke"))
	require.Equal(t, "Conflict=False NoConflicts, Ready=False Pending, Valid=False InvalidServiceType", says("external"))
	require.Empty(t, says("private"))
	require.Empty(t, says("unread"))
}

func TestWhoMayUseTheEastWestGateway(t *testing.T) {
	eks, gke := Member{Name: "eks", GatewayClassName: "istio", TrustDomain: "eks.example.com"}, Member{Name: "gke", GatewayClassName: "gke-mesh", TrustDomain: "cluster.local"}
	policy := func(gateways ...NamespacedName) *securityv1.AuthorizationPolicy {
		objects := PlanEastWest(EastWestSnapshot{Member: eks, Members: []Member{eks, gke, eks}, Gateways: gateways})
		require.Equal(t, []string{"AuthorizationPolicy isthmus-system/isthmus-east-west", "Gateway isthmus-system/isthmus-east-west",
			"EnvoyFilter isthmus-system/isthmus-east-west"}, kindsIn(objects), "the policy first: the gateway never stands open")
		return objects[0].(*securityv1.AuthorizationPolicy)
	}
	require.Empty(t, policy().Spec.Rules, "an ALLOW policy without a rule admits nobody")
	require.Equal(t, []string{"cluster.local/ns/sample/sa/public-gke-mesh", "eks.example.com/ns/sample/sa/public-istio"},
		policy(NamespacedName{"sample", "public"}).Spec.Rules[0].From[0].Source.Principals, "sorted, each once")
}

func TestServes(t *testing.T) {
	m := exporter("eks", 1)
	m.Service = serviceWith("http 80", "dns 53/UDP", "dns-tcp 54/TCP")
	require.True(t, m.serves(80))
	require.True(t, m.serves(54))
	require.False(t, m.serves(53))
	require.False(t, m.serves(81))
	m.Service = nil
	require.False(t, m.serves(80))
	m.Synced = false
	require.True(t, m.serves(80), "what has not been read is taken to be as it was")
}
