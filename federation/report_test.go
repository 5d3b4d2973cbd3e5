// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestReportRoute(t *testing.T) {
	planned := func() (RouteSnapshot, RoutePlan) {
		s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1), exporter("gke", 1))
		plan := PlanRoute(s)
		return takenOver(s, plan, true), plan
	}
	tests := map[string]struct {
		change            func(*RouteSnapshot, *RoutePlan)
		outcome           *metav1.Condition
		written, observed string // reason of eks's Written and Programmed
		programmed        string // status and reason of the route
	}{
		"everything is there": {func(*RouteSnapshot, *RoutePlan) {}, nil, "Written", "Programmed", "True Programmed"},
		"not written":         {func(*RouteSnapshot, *RoutePlan) {}, &metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonForeignObject, Message: "m"}, "ForeignObject", "ForeignObject", "False ForeignObject"},
		"merely lost":         {func(*RouteSnapshot, *RoutePlan) {}, &metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonUnreachable, Message: "m"}, "Unreachable", "Unreachable", "Unknown Unreachable"},
		"lost, and another refuses": {func(s *RouteSnapshot, _ *RoutePlan) {
			s.Members[1].Observed.Status.Parents[0].Conditions[0].Status = metav1.ConditionFalse
		}, &metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonUnreachable, Message: "m"}, "Unreachable", "Unreachable", "False MemberRefused"},
		"not looked at": {func(s *RouteSnapshot, _ *RoutePlan) { s.Members[0].Observed.Generation++ }, nil,
			"Written", "Pending", "False Pending"},
		"nothing observed":            {func(s *RouteSnapshot, _ *RoutePlan) { s.Members[0].Observed = nil }, nil, "Written", "Pending", "False Pending"},
		"what was observed is older":  {func(s *RouteSnapshot, _ *RoutePlan) { *s.Members[0].Observed.Spec.Rules[0].BackendRefs[0].Weight = 1 }, nil, "Written", "Pending", "False Pending"},
		"another backend is observed": {func(s *RouteSnapshot, _ *RoutePlan) { s.Members[0].Observed.Spec.Rules[0].BackendRefs[0].Name = "x" }, nil, "Written", "Pending", "False Pending"},
		"another match is observed": {func(s *RouteSnapshot, _ *RoutePlan) {
			s.Members[0].Observed.Annotations = map[string]string{v1alpha1.AnnotationPlan: "of the route before"}
		}, nil, "Written", "Pending", "False Pending"},
		"refused by the member": {func(s *RouteSnapshot, _ *RoutePlan) {
			s.Members[0].Observed.Status.Parents[0].Conditions[0].Status = metav1.ConditionFalse
		}, nil, "Written", "MemberRefused", "False MemberRefused"},
		"a reference that the member lacks": {func(s *RouteSnapshot, _ *RoutePlan) {
			p := &s.Members[0].Observed.Status.Parents[0]
			p.Conditions = append(p.Conditions, metav1.Condition{Type: "ResolvedRefs", Status: metav1.ConditionFalse, Reason: "BackendNotFound"})
		}, nil, "Written", "MemberRefused", "False MemberRefused"},
		"a person is needed before a moment is": {func(s *RouteSnapshot, _ *RoutePlan) {
			s.Members[0].Observed = nil
			s.Members[1].Observed.Status.Parents[0].Conditions[0].Status = metav1.ConditionFalse
		}, nil, "Written", "Pending", "False MemberRefused"},
		"refused by the plan": {func(s *RouteSnapshot, p *RoutePlan) {
			s.Members[0].HasNamespace = false
			*p = PlanRoute(*s)
		}, nil, "NamespaceMissing", "NamespaceMissing", "False NamespaceMissing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, plan := planned()
			test.change(&s, &plan)
			report := ReportRoute(s, plan, map[string]Outcome{"eks": {Problem: test.outcome}})
			status := report.Plans["eks"]
			require.Equal(t, "HTTPRoute/r", status.Route)
			require.Equal(t, int64(4), status.ObservedGeneration)
			require.Equal(t, "eks 100.00%", status.Summary, "what is in force stays told, also where nothing is written")
			require.Equal(t, test.written, findCondition(status.Conditions, v1alpha1.PlanWritten).Reason)
			require.Equal(t, test.observed, findCondition(status.Conditions, v1alpha1.PlanProgrammed).Reason)
			c := findCondition(report.Conditions, v1alpha1.RouteProgrammed)
			require.Equal(t, test.programmed, string(c.Status)+" "+c.Reason)
			for _, c := range append(status.Conditions, report.Conditions...) {
				require.Equal(t, int64(4), c.ObservedGeneration)
				require.NotEmpty(t, c.Message)
			}
		})
	}
}

func TestAMemberIsNamedOnce(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1))
	say := func(problem *metav1.Condition) string {
		c := findCondition(ReportRoute(s, PlanRoute(s), map[string]Outcome{"eks": {Problem: problem}}).Conditions, v1alpha1.RouteProgrammed)
		return c.Message
	}
	require.Equal(t, "eks: HTTPRoute sample/r: refused", say(&metav1.Condition{Status: metav1.ConditionFalse, Message: "member eks: HTTPRoute sample/r: refused"}))
	s.Members[0].HasNamespace = false
	require.Equal(t, "eks: the member has no namespace sample: create it there, and the route follows", say(nil))
}

func TestReportRouteWithoutMembersOrParents(t *testing.T) {
	s := routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`))
	c := findCondition(ReportRoute(s, PlanRoute(s), nil).Conditions, v1alpha1.RouteProgrammed)
	require.Equal(t, v1alpha1.ReasonNoMembers, c.Reason)

	s = routeSnapshot(hubRoute(t, `{backendRefs: [`+importRef+`]}`), exporter("eks", 1))
	s.Parents[0].Listeners = nil
	report := ReportRoute(s, PlanRoute(s), nil)
	require.Empty(t, report.Plans)
	c = findCondition(report.Conditions, v1alpha1.RouteProgrammed)
	require.Equal(t, "False NotAccepted", string(c.Status)+" "+c.Reason)
}

func TestTrafficShifted(t *testing.T) {
	tests := map[string]struct {
		refs     string
		eks, gke int
		status   metav1.ConditionStatus
		reason   string
	}{
		"all fit":                      {importRef, 1, 1, metav1.ConditionFalse, v1alpha1.ReasonAsIntended},
		"one unfit":                    {importRef, 0, 1, metav1.ConditionTrue, v1alpha1.ReasonFailedOver},
		"nobody fit":                   {importRef, 0, 0, metav1.ConditionTrue, v1alpha1.ReasonNoFitCluster},
		"a backend that gets nothing":  {`{group: multicluster.x-k8s.io, kind: ServiceImport, name: helloworld, port: 80, weight: 0}, {name: x, port: 1}`, 0, 0, metav1.ConditionFalse, v1alpha1.ReasonAsIntended},
		"of which one would be needed": {`{group: multicluster.x-k8s.io, kind: ServiceImport, name: helloworld, port: 80, weight: 0}, {name: x, port: 1}`, 0, 1, metav1.ConditionFalse, v1alpha1.ReasonAsIntended},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := routeSnapshot(hubRoute(t, `{backendRefs: [`+test.refs+`]}`), exporter("eks", test.eks), exporter("gke", test.gke))
			c := findCondition(ReportRoute(s, PlanRoute(s), nil).Conditions, v1alpha1.RouteTrafficShifted)
			require.Equal(t, test.status, c.Status)
			require.Equal(t, test.reason, c.Reason)
		})
	}
}

func TestGatewayStatus(t *testing.T) {
	kind := gatewayv1.IPAddressType
	programmed := func(addresses ...string) *gatewayv1.Gateway {
		g := &gatewayv1.Gateway{}
		g.Status.Conditions = []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionTrue}}
		for _, a := range addresses {
			g.Status.Addresses = append(g.Status.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
		}
		return g
	}
	pending := &gatewayv1.Gateway{Status: gatewayv1.GatewayStatus{Conditions: []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionFalse, Message: "no quota"}}}}
	member := func(name string, observed *gatewayv1.Gateway) GatewayMember {
		return GatewayMember{Member: Member{Name: name, Synced: true, Reachable: true}, HasNamespace: true, Observed: observed}
	}
	many := make([]string, 20)
	for i := range many {
		many[i] = Address{"10.0.0.1", int32(i)}.String()
	}
	unread, homeless, broken, lost := member("gke", nil), member("gke", nil), member("gke", nil), member("gke", programmed("10.0.0.2"))
	unread.Synced, unread.HasNamespace, homeless.HasNamespace, broken.Problem, lost.Reachable = false, false, false, "forbidden", false
	tests := map[string]struct {
		members   []GatewayMember
		listeners string
		before    []string
		addresses []string
		accepted  string
		condition string
		message   string
	}{
		"no members":           {nil, "HTTP", nil, nil, "True Accepted", "False Pending", "join one"},
		"served everywhere":    {[]GatewayMember{member("eks", programmed("10.0.0.1")), member("gke", programmed("10.0.0.2"))}, "HTTP", nil, []string{"10.0.0.1", "10.0.0.2"}, "True Accepted", "True Programmed", "served by every member"},
		"API server lost":      {[]GatewayMember{member("eks", programmed("10.0.0.1")), lost}, "HTTP", nil, []string{"10.0.0.1", "10.0.0.2"}, "True Accepted", "True Programmed", "served by every member"},
		"one address for two":  {[]GatewayMember{member("eks", programmed("10.0.0.1")), member("gke", programmed("10.0.0.1"))}, "HTTP", nil, []string{"10.0.0.1"}, "True Accepted", "True Programmed", "served by every member"},
		"at most sixteen":      {[]GatewayMember{member("eks", programmed(many...))}, "HTTP", nil, many[:16], "True Accepted", "True Programmed", "served by every member"},
		"not written yet":      {[]GatewayMember{member("eks", programmed("10.0.0.1")), member("gke", nil)}, "HTTP", nil, []string{"10.0.0.1"}, "True Accepted", "True Programmed", "gke: not written yet"},
		"one pending":          {[]GatewayMember{member("eks", pending)}, "HTTP", nil, nil, "True Accepted", "False AddressNotAssigned", "not programmed yet: no quota"},
		"without address":      {[]GatewayMember{member("eks", programmed())}, "HTTP", nil, nil, "True Accepted", "False AddressNotAssigned", "no address yet"},
		"namespace missing":    {[]GatewayMember{homeless}, "HTTP", nil, nil, "True Accepted", "False AddressNotAssigned", "no namespace sample: create it there"},
		"a problem":            {[]GatewayMember{broken}, "HTTP", nil, nil, "True Accepted", "False AddressNotAssigned", "gke: forbidden"},
		"not read, known":      {[]GatewayMember{member("eks", programmed("10.0.0.1")), unread}, "HTTP", []string{"10.0.0.2", "10.0.0.1"}, []string{"10.0.0.2", "10.0.0.1"}, "True Accepted", "True Programmed", "gke: its contents have not been read yet"},
		"all read: what is":    {[]GatewayMember{member("eks", programmed("10.0.0.1"))}, "HTTP", []string{"10.0.0.9"}, []string{"10.0.0.1"}, "True Accepted", "True Programmed", "served by every member"},
		"none serves any more": {[]GatewayMember{member("eks", pending)}, "HTTP", []string{"10.0.0.9"}, []string{"10.0.0.9"}, "True Accepted", "False AddressNotAssigned", "no member serves it yet"},
		"the last member left": {nil, "HTTP", []string{"10.0.0.9"}, nil, "True Accepted", "False Pending", "join one"},
		"no listener is valid": {[]GatewayMember{member("eks", nil)}, "UDP", nil, nil, "False ListenersNotValid", "False Invalid", "no listener has protocol HTTP or HTTPS, so no member is given it"},
		"in any order":         {[]GatewayMember{member("gke", programmed("10.0.0.2")), member("eks", programmed("10.0.0.1"))}, "HTTP", nil, []string{"10.0.0.1", "10.0.0.2"}, "True Accepted", "True Programmed", "served by every member"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			hub := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "sample", Name: "g", Generation: 2}}
			hub.Spec.Listeners = []gatewayv1.Listener{{Name: "a", Port: 80, Protocol: gatewayv1.ProtocolType(test.listeners)}}
			for _, a := range test.before {
				hub.Status.Addresses = append(hub.Status.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
			}
			plan := PlanGateway(GatewaySnapshot{Gateway: hub, Members: test.members, Attached: map[gatewayv1.SectionName]int32{"a": 3}})
			var addresses []string
			for _, a := range plan.Status.Addresses {
				addresses = append(addresses, a.Value)
			}
			require.Equal(t, test.addresses, addresses)
			accepted, c := plan.Status.Conditions[0], plan.Status.Conditions[1]
			require.Equal(t, test.accepted, string(accepted.Status)+" "+accepted.Reason)
			require.Equal(t, test.condition, string(c.Status)+" "+c.Reason)
			require.Contains(t, c.Message, test.message)
			require.Equal(t, int32(3), plan.Status.Listeners[0].AttachedRoutes)
			for _, m := range test.members {
				wanted := test.listeners == "HTTP" && (m.HasNamespace || !m.Synced)
				require.Equal(t, wanted, plan.Objects[m.Name] != nil, "what is not seen is not withdrawn, and a Gateway has a listener")
			}
		})
	}
}

func TestListenerStatus(t *testing.T) {
	hub := &gatewayv1.Gateway{Spec: fromYAML[gatewayv1.GatewaySpec](t, `{gatewayClassName: c, listeners: [
		{name: ok, port: 80, protocol: HTTP}, {name: bytes, port: 81, protocol: TCP},
		{name: grpc, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]}`)}
	tests := []struct {
		accepted, programmed, resolved string
		kinds                          int
	}{
		{"True Accepted", "False Pending", "True ResolvedRefs", 1},
		{"False UnsupportedProtocol", "False Invalid", "True ResolvedRefs", 0},
		{"True Accepted", "False Pending", "False InvalidRouteKinds", 0},
	}
	status := PlanGateway(GatewaySnapshot{Gateway: hub}).Status
	require.Equal(t, "True ListenersNotValid", string(status.Conditions[0].Status)+" "+status.Conditions[0].Reason)
	for i, test := range tests {
		l := status.Listeners[i]
		require.Len(t, l.SupportedKinds, test.kinds)
		require.NotNil(t, l.SupportedKinds)
		var got []string
		for _, c := range l.Conditions {
			got = append(got, string(c.Status)+" "+c.Reason)
		}
		require.Equal(t, []string{test.accepted, test.programmed, test.resolved}, got, "%s", l.Name)
	}
}

func TestDeletingAGatewayIsPlanningForNothing(t *testing.T) {
	hub := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}}
	hub.Spec.Listeners = []gatewayv1.Listener{{Name: "a", Port: 80, Protocol: "HTTP"}}
	plan := PlanGateway(GatewaySnapshot{Gateway: hub, Members: []GatewayMember{{Member: Member{Name: "eks", Synced: true}, HasNamespace: true}}})
	require.Empty(t, plan.Objects)
}
