// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

const importRef = `{group: multicluster.x-k8s.io, kind: ServiceImport, name: helloworld, port: 80}`

// hubRoute is route sample/r with rules in YAML.
func hubRoute(t *testing.T, rules string) *gatewayv1.HTTPRoute {
	t.Helper()
	route := fromYAML[gatewayv1.HTTPRoute](t, `{metadata: {namespace: sample, name: r, generation: 4}, spec: {rules: [`+rules+`]}}`)
	return &route
}

// exporter is a member that exports sample/helloworld with the given ready endpoints.
func exporter(name string, ready int) ServiceMember {
	return ServiceMember{Member: Member{Name: name, Synced: true, Reachable: true, EastWest: Address{"10.0.0.1", 15443}},
		Exported: true, Service: serviceWith("http 80"), ReadyEndpoints: ready, Open: true, Namespaces: []string{"sample"}}
}

// routeSnapshot of an accepted route to sample/helloworld, in which each exporter knows the hosts of the others.
func routeSnapshot(route *gatewayv1.HTTPRoute, exporters ...ServiceMember) RouteSnapshot {
	s := RouteSnapshot{Route: route, Services: map[ServiceKey]ServiceSnapshot{sampleKey: {Key: sampleKey, Members: exporters}},
		Parents: []Parent{{Ref: gatewayv1.ParentReference{Name: "g"}, Listeners: []gatewayv1.SectionName{"web"},
			Gateway: &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g"}}}}}
	for _, m := range exporters {
		member := RouteMember{Member: m.Member, HasNamespace: true}
		for _, other := range exporters {
			member.Hosts = append(member.Hosts, RemoteHost(sampleKey, other.Name))
		}
		s.Members = append(s.Members, member)
	}
	return s
}

// takenOver is the snapshot after every member holds its plan and, if confirmed, its controller has said so.
func takenOver(s RouteSnapshot, plan RoutePlan, confirmed bool) RouteSnapshot {
	next := s
	next.Members = nil
	for _, m := range s.Members {
		if planned := plan.Members[m.Name]; planned.Object != nil {
			m.Observed, m.Last = planned.Object.DeepCopy(), planned.Rules
			m.Observed.Generation = 1
			if confirmed {
				m.Observed.Status.Parents = []gatewayv1.RouteParentStatus{{Conditions: []metav1.Condition{
					{Type: string(gatewayv1.RouteConditionAccepted), Status: metav1.ConditionTrue, ObservedGeneration: 1}}}}
			}
		}
		next.Members = append(next.Members, m)
	}
	return next
}

// splitOf is a member's first rule as "cluster weight reason".
func splitOf(plan RoutePlan, member string) string {
	var out []string
	for _, b := range plan.Members[member].Rules[0].Backends {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %d %s", b.Cluster, b.Weight, b.Reason)))
	}
	return strings.Join(out, ", ")
}

func TestResolve(t *testing.T) {
	imp := func(ports ...mcsv1beta1.ServicePort) *Import {
		return &Import{Key: sampleKey, Spec: mcsv1beta1.ServiceImportSpec{Ports: ports}}
	}
	http, admin := mcsv1beta1.ServicePort{Port: 80, Protocol: corev1.ProtocolTCP}, mcsv1beta1.ServicePort{Port: 90}
	dns := mcsv1beta1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}
	tests := map[string]struct {
		from    string
		imp     *Import
		port    int32
		want    int32
		reason  gatewayv1.RouteConditionReason
		message string
	}{
		"by number":           {"sample", imp(http, admin), 90, 90, "", ""},
		"the only one":        {"sample", imp(http), 0, 80, "", ""},
		"the only TCP one":    {"sample", imp(dns, http), 0, 80, "", ""},
		"which?":              {"sample", imp(http, admin), 0, 0, gatewayv1.RouteReasonBackendNotFound, "it has 80, 90: name one"},
		"no such port":        {"sample", imp(http, admin), 8080, 0, gatewayv1.RouteReasonBackendNotFound, "no TCP port 8080: name one that it has (80, 90)"},
		"UDP":                 {"sample", imp(dns), 53, 0, gatewayv1.RouteReasonBackendNotFound, "has no TCP port, so no HTTPRoute can lead to it"},
		"nobody exports":      {"sample", nil, 80, 0, gatewayv1.RouteReasonBackendNotFound, "create a ServiceExport"},
		"not granted":         {"shop", imp(http), 80, 0, gatewayv1.RouteReasonRefNotPermitted, "create one there"},
		"whether it is there": {"shop", nil, 80, 0, gatewayv1.RouteReasonRefNotPermitted, "create one there"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := routePlanner{RouteSnapshot: RouteSnapshot{Route: &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: test.from}}},
				imports: map[ServiceKey]*Import{sampleKey: test.imp}}
			ref := gatewayv1.BackendObjectReference{}
			if test.port != 0 {
				ref.Port = &test.port
			}
			port, problem := s.resolve(sampleKey, ref)
			require.Equal(t, test.want, port)
			require.Equal(t, test.reason == "", problem == nil)
			if problem != nil {
				require.Equal(t, string(test.reason), problem.Reason)
				require.Contains(t, problem.Message, test.message)
			}
		})
	}
}

func TestResolvedRefsNamesEveryProblemOnce(t *testing.T) {
	route := hubRoute(t, `{backendRefs: [`+importRef+`, {group: multicluster.x-k8s.io, kind: ServiceImport, name: gone, port: 1},
		{group: multicluster.x-k8s.io, kind: ServiceImport, name: gone, port: 1}]},
		{filters: [{type: RequestMirror, requestMirror: {backendRef: {group: multicluster.x-k8s.io, kind: ServiceImport, name: secret, namespace: other, port: 1}}}]}`)
	c := PlanRoute(routeSnapshot(route, exporter("eks", 1))).ResolvedRefs
	require.Equal(t, metav1.ConditionFalse, c.Status)
	require.Equal(t, string(gatewayv1.RouteReasonBackendNotFound), c.Reason, "the first problem decides")
	require.Equal(t, 1, strings.Count(c.Message, "sample/gone"))
	require.Contains(t, c.Message, "ServiceImport secret")
	require.Equal(t, int64(4), c.ObservedGeneration)
}

// Each row of the table above resolving.
func TestResolving(t *testing.T) {
	ref := remoteService(sampleKey, "gke", 80)
	observed := func(confirmed bool, refs ...gatewayv1.HTTPBackendRef) *gatewayv1.HTTPRoute {
		route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Generation: 2}}
		route.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: refs}}
		generation := int64(1)
		if confirmed {
			generation = 2
		}
		route.Status.Parents = []gatewayv1.RouteParentStatus{{Conditions: []metav1.Condition{{Type: "Accepted", ObservedGeneration: generation}}}}
		return route
	}
	at := func(object gatewayv1.BackendObjectReference, weight int32) gatewayv1.HTTPBackendRef {
		return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: object, Weight: &weight}}
	}
	home, gone := localService(sampleKey, 80, "sample"), gatewayv1.BackendObjectReference{Name: unresolvedHost(sampleKey)}
	user := gatewayv1.BackendObjectReference{Name: "other"}
	tests := map[string]struct {
		observed  *gatewayv1.HTTPRoute
		reason    string
		resolving bool
	}{
		"no route yet":                       {nil, "", false},
		"the import goes nowhere yet":        {observed(true, at(user, 1), at(gone, 1)), "", false},
		"not listed":                         {observed(true, at(home, 1)), "", true},
		"not listed, sent to another host":   {observed(true, at(remoteService(sampleKey, "aks", 80), 1)), "", true},
		"not listed, whatever was decided":   {observed(true, at(home, 1)), v1alpha1.WeightStandby, true},
		"takes traffic, not confirmed":       {observed(false, at(home, 1), at(ref, 1)), "", false},
		"at 0, confirmed":                    {observed(true, at(home, 1), at(ref, 0)), v1alpha1.WeightResolving, false},
		"at 0, not confirmed":                {observed(false, at(home, 1), at(ref, 0)), v1alpha1.WeightResolving, true},
		"at 0, not confirmed, never decided": {observed(false, at(home, 1), at(ref, 0)), "", true},
		"at 0, confirmed by an earlier one":  {observed(false, at(home, 1), at(ref, 0)), v1alpha1.WeightStandby, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			written := routePlanner{RouteSnapshot: RouteSnapshot{Route: &gatewayv1.HTTPRoute{}}}
			require.Equal(t, test.resolving, written.resolving(test.observed, sampleKey, ref, v1alpha1.PlannedBackend{Reason: test.reason}))
		})
	}
}

func TestRefusedRoutes(t *testing.T) {
	const set = `{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Isthmus-Backend, value: "a/b:1"}]}}`
	const ok = `{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}], remove: [z]}}`
	tests := map[string]struct{ rule, says string }{
		"sets the header":        {`{filters: [` + set + `]}`, "rule 0 changes the header x-isthmus-backend"},
		"adds the header":        {`{name: hello, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-isthmus-backend, value: a}]}}]}`, "rule hello changes"},
		"removes the header":     {`{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-isthmus-Backend]}}]}`, "rule 0 changes"},
		"sets it on a backend":   {`{backendRefs: [{name: b, port: 1, filters: [` + set + `]}]}`, "backend b of rule 0 changes the header"},
		"mirrors on a backend":   {`{backendRefs: [{name: b, port: 1, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: c, port: 1}}}]}]}`, "filter of type RequestMirror"},
		"header modifiers":       {`{filters: [` + ok + `], backendRefs: [{name: b, port: 1, filters: [` + ok + `, {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]}]}`, ""},
		"other filters of rules": {`{filters: [{type: URLRewrite, urlRewrite: {hostname: h}}]}`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			planned := PlanRoute(routeSnapshot(hubRoute(t, test.rule), exporter("eks", 1))).Members["eks"]
			require.Equal(t, test.says == "", planned.Object != nil)
			if test.says != "" {
				require.Equal(t, v1alpha1.ReasonUnsupported, planned.Refused.Reason)
				require.Contains(t, planned.Refused.Message, test.says)
			}
		})
	}
}

func TestMembersThatGetNoRoute(t *testing.T) {
	route := hubRoute(t, `{backendRefs: [`+importRef+`]}`)
	s := routeSnapshot(route, exporter("eks", 1), exporter("gke", 1))
	s.Members[0].HasNamespace = false
	s.Members[1].Synced = false
	plan := PlanRoute(s)
	require.Equal(t, v1alpha1.ReasonNamespaceMissing, plan.Members["eks"].Refused.Reason)
	require.Equal(t, v1alpha1.ReasonSyncing, plan.Members["gke"].Refused.Reason)

	deleted := route.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{}
	require.Equal(t, MemberRoute{}, PlanRoute(routeSnapshot(deleted, exporter("eks", 1))).Members["eks"], "to hold none")

	unattached := routeSnapshot(route, exporter("eks", 1))
	unattached.Parents[0].Listeners = nil
	require.Equal(t, MemberRoute{}, PlanRoute(unattached).Members["eks"], "to hold none")
}

func TestOnlyAcceptedParentsAreKept(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1))
	s.Parents = append(s.Parents, Parent{Ref: gatewayv1.ParentReference{Name: "refused"}, Gateway: s.Parents[0].Gateway})
	require.Equal(t, []gatewayv1.ParentReference{{Name: "g"}}, PlanRoute(s).Members["eks"].Object.Spec.ParentRefs)
}

func TestTheHubsRouteIsNotTouched(t *testing.T) {
	route := hubRoute(t, `{filters: [{type: RequestMirror, requestMirror: {backendRef: `+importRef+`}}],
		backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: helloworld, port: 80,
		  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}]}}]}]}`)
	before := route.DeepCopy()
	PlanRoute(routeSnapshot(route, exporter("eks", 1), exporter("gke", 1)))
	require.Equal(t, before, route)
}

func TestHostsThatAreNotKnownAreNotNamed(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	s.Members[0].Hosts = nil
	require.Equal(t, "eks 10000 Local", splitOf(PlanRoute(s), "eks"))

	s.Members[0].Name = "aks" // exports nothing and knows nobody
	plan := PlanRoute(s)
	require.Equal(t, "10000 BackendNotFound", splitOf(plan, "aks"))
	require.Equal(t, unresolvedHost(sampleKey), plan.Members["aks"].Object.Spec.Rules[0].BackendRefs[0].Name)
}

// The hub wrote gke's route and died before it had recorded the plan; now it has not read eks.
func TestAServiceOfAnotherNamespaceWaitsForItsGrant(t *testing.T) {
	far := ServiceKey{"elsewhere", "far"}
	const ref = `{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: elsewhere, name: far, port: 80}`
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+ref+`], filters: [{type: RequestMirror, requestMirror: {backendRef: `+ref+`}}]}`),
		exporter("eks", 1), exporter("gke", 1))
	s.Services[far] = ServiceSnapshot{Key: far, Members: s.Services[sampleKey].Members}
	s.Grants = []*gatewayv1.ReferenceGrant{{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere"}, Spec: gatewayv1.ReferenceGrantSpec{
		From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "sample"}},
		To:   []gatewayv1.ReferenceGrantTo{{Group: mcsv1beta1.GroupName, Kind: "ServiceImport"}}}}}
	s.Members[0].Hosts = []string{RemoteHost(far, "gke")}
	for granted, want := range map[bool]string{false: "gke", true: "eks"} {
		s.Members[0].Granted = nil
		if granted {
			s.Members[0].Granted = []ServiceKey{far}
		}
		plan := PlanRoute(s).Members["eks"]
		require.Equal(t, want+" 100.00%", summarize(plan.Rules), "the local cluster first, once its Service may be named")
		require.Len(t, plan.Object.Spec.Rules[0].Filters, map[bool]int{false: 0, true: 1}[granted], "the same holds for a mirror")
	}
}

func TestTheRouteRemembersWhatNoPlanDoes(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
	s.Policies = []*v1alpha1.TrafficDistributionPolicy{policyOn("p", "override", "HTTPRoute r")}
	s.Policies[0].Spec.Overrides.Distribution = weighted("eks", 80, "gke", 20)
	s = takenOver(s, PlanRoute(s), true)
	s.Members[1].Last = []v1alpha1.PlannedRule{{Name: "0", Backends: []v1alpha1.PlannedBackend{
		{Import: "sample/helloworld", Port: 80, Cluster: "gke", Weight: 10000, Verdict: string(Fit)}}}}
	unread := exporter("eks", 0)
	unread.Synced, unread.Exported, unread.Service = false, false, nil
	s.Services[sampleKey] = ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{unread, exporter("gke", 1)},
		Remembered: &RememberedImport{Spec: s.Services[sampleKey].Import().Spec, Clusters: []string{"eks", "gke"}}}
	require.Equal(t, "eks 8000 Policy, gke 2000 Policy", splitOf(PlanRoute(s), "gke"))
}

// A withdrawn cluster is found again by what was decided, also where the reference itself names no port.
func TestWithdrawn(t *testing.T) {
	for _, ref := range []string{importRef, strings.Replace(importRef, ", port: 80", "", 1)} {
		s := routeSnapshot(hubRoute(t, `{backendRefs: [`+ref+`]}`), exporter("eks", 1), exporter("gke", 1))
		s.Policies = []*v1alpha1.TrafficDistributionPolicy{policyOn("gke", "override", "HTTPRoute r")}
		s.Policies[0].Spec.Overrides.Distribution = weighted("eks", 1, "gke", 1)
		s = takenOver(s, PlanRoute(s), true)
		withdraw := func(name string) RouteSnapshot {
			gone := s
			gone.Services = map[ServiceKey]ServiceSnapshot{sampleKey: {Key: sampleKey}}
			for _, m := range s.Services[sampleKey].Members {
				m.Exported = m.Name != name
				gone.Services[sampleKey] = ServiceSnapshot{Key: sampleKey, Members: append(gone.Services[sampleKey].Members, m)}
			}
			return gone
		}
		gone := withdraw("gke")
		plan := PlanRoute(gone)
		require.Equal(t, "eks 10000 Policy, gke 0 Withdrawn", splitOf(plan, "eks"), "at 0 first")
		require.Equal(t, "eks 10000 Policy, gke 0 Withdrawn", splitOf(plan, "gke"), "and at home too")
		unconfirmed := takenOver(gone, plan, false)
		require.Equal(t, "eks 10000 Policy, gke 0 Withdrawn", splitOf(PlanRoute(unconfirmed), "eks"), "until it is confirmed")
		require.Equal(t, "eks 10000 Policy", splitOf(PlanRoute(takenOver(gone, plan, true)), "eks"), "and then removed")

		leaving := gone
		leaving.Members = gone.Members[:1]
		require.Equal(t, "eks 10000 Policy, gke 0 Withdrawn", splitOf(PlanRoute(leaving), "eks"), "also where the member itself leaves")

		lost := gone
		lost.Members = []RouteMember{gone.Members[0]}
		lost.Members[0].Hosts = nil
		require.Equal(t, "eks 10000 Policy", splitOf(PlanRoute(lost), "eks"), "a host that is gone is not named")
	}
}

func TestAUsersServiceOfTheSameNameIsNoImport(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`, {name: helloworld, namespace: elsewhere, port: 80}]}`), exporter("eks", 1), exporter("gke", 1))
	s = takenOver(s, PlanRoute(s), true)
	gone := exporter("eks", 1)
	gone.Exported = false
	s.Services[sampleKey] = ServiceSnapshot{Key: sampleKey, Members: []ServiceMember{gone, exporter("gke", 1)}}
	for range 2 {
		s = takenOver(s, PlanRoute(s), true)
	}
	require.Equal(t, "gke 5000 Anywhere, 5000", splitOf(PlanRoute(s), "eks"))
}

// Eighteen clusters, sixteen places: whoever is about to serve stays listed, or it would never be resolved.
func TestAnUnlistedClusterCanStillTakeOver(t *testing.T) {
	var exporters []ServiceMember
	for i := range 18 {
		exporters = append(exporters, exporter(fmt.Sprintf("c%02d", i), 1))
	}
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporters...)
	settle := func() string {
		for range 3 {
			s = takenOver(s, PlanRoute(s), true)
		}
		return splitOf(PlanRoute(s), "c00")
	}
	require.NotContains(t, settle(), "c17")
	for i := range 17 {
		exporters[i].ReadyEndpoints = 0
	}
	s.Services[sampleKey] = ServiceSnapshot{Key: sampleKey, Members: exporters}
	require.Contains(t, settle(), "c17 10000 Anywhere")
	require.Len(t, PlanRoute(s).Members["c00"].Object.Spec.Rules[0].BackendRefs, maxBackendRefs)
}

func TestFitSlots(t *testing.T) {
	slots := func(weights []int32, spare []int) []slot {
		out := make([]slot, maxBackendRefs-2, 2*maxBackendRefs)
		for i := range out {
			out[i].planned.Weight = 1
		}
		for i := range weights {
			out = append(out, slot{planned: v1alpha1.PlannedBackend{Weight: weights[i], Cluster: fmt.Sprint(i)}, spare: spare[i]})
		}
		return out
	}
	tests := map[string]struct {
		weights []int32
		spare   []int
		kept    string
	}{
		"all fit":                     {[]int32{0, 0}, []int{4, 4}, "01"},
		"the last of the farthest":    {[]int32{0, 0, 0}, []int{4, 4, 2}, "02"},
		"farthest first":              {[]int32{0, 0, 0, 0}, []int{3, 2, 4, 1}, "13"},
		"what serves stays":           {[]int32{1, 0, 1}, []int{4, 1, 4}, "02"},
		"what is awaited stays":       {[]int32{0, 0, 0}, []int{0, 1, 0}, "02"},
		"nothing that could be spent": {[]int32{1, 0, 1}, []int{4, 0, 4}, "012"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			kept := ""
			for _, e := range fitSlots(slots(test.weights, test.spare)) {
				kept += e.planned.Cluster
			}
			require.Equal(t, test.kept, kept)
		})
	}
}

// Two backendRefs to one import hold their common split, and not the one of the last.
func TestHoldSumsUpBackendRefsOfOneImport(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`, `+strings.Replace(importRef, "port: 80", "port: 80, weight: 0", 1)+`]}`),
		exporter("eks", 0), exporter("gke", 0))
	s.Members[0].Last = []v1alpha1.PlannedRule{{Name: "0", Backends: []v1alpha1.PlannedBackend{
		{Import: "sample/helloworld", Port: 80, Cluster: "eks", Weight: 4000}, {Import: "sample/helloworld", Port: 80, Cluster: "gke", Weight: 6000},
		{Import: "sample/helloworld", Port: 80, Cluster: "eks"}, {Import: "sample/helloworld", Port: 80, Cluster: "gke"}}}}
	require.Equal(t, "eks 4000 Held, gke 6000 Held, eks 0 Unfit, gke 0 Unfit", splitOf(PlanRoute(s), "eks"))
}
