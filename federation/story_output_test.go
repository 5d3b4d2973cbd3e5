// SPDX-License-Identifier: Apache-2.0

package federation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func yamlUnmarshal(doc []byte, into any) error { return yaml.Unmarshal(doc, into) }

// tell plans the story and writes down what was asked for.
func (s *story) tell(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", s.head.About)
	show := s.head.Show
	if len(show) == 0 {
		show = []string{"plan"}
	}
	if len(s.steps) > 0 {
		return s.tellInTime(t, &out)
	}
	for round := range max(1, s.head.Rounds) {
		if s.head.Rounds > 0 {
			fmt.Fprintf(&out, "--- # round %d\n", round+1)
		}
		for i, what := range show {
			if i > 0 {
				out.WriteString("---\n")
			}
			s.show(t, what, &out)
		}
		s.settle(t)
	}
	return out.Bytes()
}

// tellInTime tells what is planned at the beginning and after each step, each member having taken over what was planned
// before.
func (s *story) tellInTime(t *testing.T, out *bytes.Buffer) []byte {
	t.Helper()
	for i := range len(s.steps) + 1 {
		if i > 0 {
			s.happen(t, s.steps[i-1])
			fmt.Fprintf(out, "--- # after %s: %s\n", s.now.Sub(storyTime), s.steps[i-1].What)
		}
		s.count()
		for _, r := range s.routes {
			snapshot := s.prepared(t, r)
			plan := federation.PlanRoute(snapshot)
			report := federation.ReportRoute(snapshot, plan, nil)
			for _, c := range report.Conditions {
				if c.Type == v1alpha1.RouteTrafficShifted {
					block(out, "route "+r.Namespace+"/"+r.Name, []string{conditionWords(c)})
				}
			}
			s.writePlans(out, report)
			if plan.WakeAfter > 0 {
				fmt.Fprintf(out, "again after: %s\n", plan.WakeAfter)
			}
		}
		s.settle(t)
		if slices.Contains(s.head.Show, "fallbacks") {
			s.writeFallbacks(out)
		}
	}
	return out.Bytes()
}

// writeFallbacks writes the clusters of each host in the order in which a member's proxies try them. Members for which that
// is the same are told of once.
func (s *story) writeFallbacks(out *bytes.Buffer) {
	services, told := s.services(), map[string]bool{}
	for _, key := range sortedKeys(services) {
		plan := federation.PlanService(services[key])
		for _, name := range slices.Sorted(maps.Keys(plan.Objects)) {
			for _, o := range plan.Objects[name].All() {
				entry, ok := o.(*networkingv1.ServiceEntry)
				if !ok {
					continue
				}
				var order []string
				for _, e := range entry.Spec.Endpoints {
					order = append(order, e.Labels["isthmus.dev/cluster"])
				}
				if line := entry.Name + ": " + strings.Join(order, ", then ") + "\n"; !told[line] {
					out.WriteString(line)
					told[line] = true
				}
			}
		}
	}
}

func (s *story) show(t *testing.T, what string, out *bytes.Buffer) {
	t.Helper()
	switch what {
	case "plan":
		for _, r := range s.routes {
			s.plan(t, r, out)
		}
	case "route":
		for _, r := range s.routes {
			plan := federation.PlanRoute(s.prepared(t, r))
			for _, name := range slices.Sorted(maps.Keys(plan.Members)) {
				writeObjects(t, out, name, []runtime.Object{plan.Members[name].Object})
			}
		}
	case "service":
		services := s.services()
		for _, key := range sortedKeys(services) {
			plan := federation.PlanService(services[key])
			for _, name := range slices.Sorted(maps.Keys(plan.Objects)) {
				writeObjects(t, out, name, plan.Objects[name].All())
			}
		}
	case "probe":
		for _, key := range sortedKeys(s.services()) {
			plan := s.probe(t, key)
			for _, name := range slices.Sorted(maps.Keys(plan.Objects)) {
				for _, o := range plan.Objects[name] {
					writeObjects(t, out, name, []runtime.Object{o})
				}
			}
		}
	case "probing":
		for _, key := range sortedKeys(s.services()) {
			writeProbing(out, key, s.probe(t, key))
		}
	case "eastwest":
		snapshot := federation.EastWestSnapshot{Member: s.members[0].member()}
		for _, m := range s.members {
			snapshot.Members = append(snapshot.Members, m.member())
		}
		for _, g := range s.gateways {
			snapshot.Gateways = append(snapshot.Gateways, federation.NamespacedName{Namespace: g.Namespace, Name: g.Name})
		}
		writeObjects(t, out, s.members[0].Name, federation.PlanEastWest(snapshot))
	case "gateway":
		for _, g := range s.gateways {
			plan := federation.PlanGateway(s.gateway(g))
			for _, name := range slices.Sorted(maps.Keys(plan.Objects)) {
				writeObjects(t, out, name, []runtime.Object{plan.Objects[name]})
			}
			writeGateway(out, plan.Status)
		}
	case "retries":
		for _, g := range s.gateways {
			plan := federation.PlanGateway(s.gateway(g))
			for _, name := range slices.Sorted(maps.Keys(plan.Retries)) {
				writeObjects(t, out, name, []runtime.Object{plan.Retries[name]})
			}
		}
	case "policies":
		for _, p := range s.policies {
			s.writePolicy(out, p)
		}
	case "overrides":
		for _, o := range s.words {
			var lines []string
			for _, c := range s.overrideStatus(t, o).Conditions {
				lines = append(lines, conditionWords(c))
			}
			block(out, "override "+o.Name, lines)
		}
	case "exports":
		services := s.services()
		for _, key := range sortedKeys(services) {
			writeExports(out, services[key])
		}
	case "what-if":
		s.suppose(t, out)
	default:
		t.Fatalf("a story cannot show %q", what)
	}
}

func writeProbing(out *bytes.Buffer, key federation.ServiceKey, plan federation.ProbePlan) {
	lines := []string{"not probed"}
	if plan.Probe != nil {
		lines = []string{fmt.Sprintf("by %s, over HTTPRoute %s/%s and Gateway %s/%s", plan.Policy, plan.Route.Namespace, plan.Route.Name,
			plan.Gateway.Namespace, plan.Gateway.Name)}
	}
	for _, target := range plan.Targets {
		direct := "nobody: it has no gateway with an address"
		if target.Direct != nil {
			direct = fmt.Sprintf("%s as %s %s", target.Direct.Address, target.Direct.Host, target.Direct.Path)
		}
		lines = append(lines, target.Cluster+" at "+direct)
		for _, peer := range target.Peers {
			lines = append(lines, fmt.Sprintf("  through %s at %s %s", peer.Member, peer.Address, peer.Path))
		}
	}
	block(out, "probing "+key.String(), lines)
}

func sortedKeys(services map[federation.ServiceKey]federation.ServiceSnapshot) []federation.ServiceKey {
	return slices.SortedFunc(maps.Keys(services), func(a, b federation.ServiceKey) int { return strings.Compare(a.String(), b.String()) })
}

// prepared is the snapshot of a route in which members that hold something hold it.
func (s *story) prepared(t *testing.T, route *gatewayv1.HTTPRoute) federation.RouteSnapshot {
	t.Helper()
	for _, m := range s.members {
		m.adoptHeld(t, route)
	}
	return s.route(route)
}

// block writes a title and its lines as a literal block, which YAML neither wraps nor quotes.
func block(out *bytes.Buffer, title string, lines []string) {
	fmt.Fprintf(out, "%s: |\n", title)
	for _, line := range lines {
		fmt.Fprintf(out, "  %s\n", line)
	}
}

func (s *story) plan(t *testing.T, route *gatewayv1.HTTPRoute, out *bytes.Buffer) {
	t.Helper()
	snapshot := s.prepared(t, route)
	plan := federation.PlanRoute(snapshot)
	report := federation.ReportRoute(snapshot, plan, nil)
	var lines []string
	for _, p := range snapshot.Parents {
		lines = append(lines, conditionWords(p.Accepted))
	}
	for _, c := range report.Conditions {
		if c.Type != v1alpha1.RouteProgrammed {
			lines = append(lines, conditionWords(c))
		}
	}
	block(out, "route "+route.Namespace+"/"+route.Name, lines)
	s.writePlans(out, report)
}

func (s *story) writePlans(out *bytes.Buffer, report federation.RouteReport) {
	// Members for which the same was decided are told of once.
	var told []string
	same := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(report.Plans)) {
		text := strings.Join(planLines(report.Plans[name]), "\n  ")
		if len(same[text]) == 0 {
			told = append(told, text)
		}
		same[text] = append(same[text], name)
	}
	for _, text := range told {
		if len(s.head.Only) == 0 || slices.Contains(s.head.Only, same[text][0]) {
			block(out, strings.Join(same[text], ", "), []string{text})
		}
	}
}

func planLines(status v1alpha1.RoutePlanStatus) []string {
	var lines []string
	for _, c := range status.Conditions {
		if c.Type == v1alpha1.PlanWritten && c.Status != metav1.ConditionTrue {
			lines = append(lines, conditionWords(c))
		}
	}
	if status.Summary != "" {
		lines = append(lines, status.Summary)
	}
	for _, r := range status.Rules {
		if r.Policy == "" {
			lines = append(lines, "rule "+r.Name)
		} else {
			lines = append(lines, "rule "+r.Name+" by "+r.Policy)
		}
		for _, b := range r.Backends {
			lines = append(lines, backendWords(b))
		}
	}
	return lines
}

func backendWords(b v1alpha1.PlannedBackend) string {
	who := b.Cluster + " " + b.Import + ":" + fmt.Sprint(b.Port)
	if b.Import == "" {
		who = "as written"
	}
	why := strings.Join(strings.Fields(b.Reason+" "+b.Verdict), " ")
	if b.Message != "" {
		why += ": " + b.Message
	}
	return strings.TrimRight(fmt.Sprintf("%5d %s  %s", b.Weight, strings.TrimSpace(who), why), " ")
}

func writeGateway(out *bytes.Buffer, status gatewayv1.GatewayStatus) {
	var lines []string
	for _, a := range status.Addresses {
		lines = append(lines, "address "+a.Value)
	}
	for _, c := range status.Conditions {
		lines = append(lines, conditionWords(c))
	}
	block(out, "gateway", lines)
	for _, l := range status.Listeners {
		lines = []string{fmt.Sprintf("%d routes", l.AttachedRoutes)}
		for _, c := range l.Conditions {
			lines = append(lines, conditionWords(c))
		}
		block(out, "listener "+string(l.Name), lines)
	}
}

func (s *story) writePolicy(out *bytes.Buffer, p *v1alpha1.TrafficDistributionPolicy) {
	var lines []string
	for i, a := range s.policyStatus(p) {
		lines = append(lines, federation.TargetsOf(p)[i].String())
		for _, c := range a.Conditions {
			lines = append(lines, "  "+conditionWords(c))
		}
	}
	block(out, "policy "+p.Namespace+"/"+p.Name, lines)
}

func writeExports(out *bytes.Buffer, snapshot federation.ServiceSnapshot) {
	plan := federation.PlanService(snapshot)
	lines := []string{"no import"}
	if imp := plan.Import; imp != nil {
		lines = []string{fmt.Sprintf("%s from %s, sessionAffinity %s", imp.Spec.Type, strings.Join(imp.Clusters, " "), imp.Spec.SessionAffinity)}
		for _, p := range imp.Spec.Ports {
			lines = append(lines, fmt.Sprintf("port %q %d/%s", p.Name, p.Port, p.Protocol))
		}
	}
	block(out, "service "+snapshot.Key.String(), lines)
	conditions := federation.ExportConditions(snapshot, plan)
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		lines = nil
		for _, c := range conditions[name] {
			lines = append(lines, conditionWords(c))
		}
		block(out, "export in "+name, lines)
	}
}

// settle lets each member take over its plan and confirm it.
func (s *story) settle(t *testing.T) {
	t.Helper()
	for _, r := range s.routes {
		plan := federation.PlanRoute(s.prepared(t, r))
		for _, m := range s.members {
			takeOver(m, plan.Members[m.Name])
		}
	}
}

func takeOver(m *storyMember, planned federation.MemberRoute) {
	if planned.Object == nil {
		return
	}
	m.observed, m.last = planned.Object.DeepCopy(), planned.Rules
	m.observed.Generation = 1
	confirm(m.observed)
}

func entryHosts(o runtime.Object, namespace string) []string {
	entry, ok := o.(*networkingv1.ServiceEntry)
	if !ok || entry.Namespace != namespace {
		return nil
	}
	return entry.Spec.Hosts
}

func writeYAML(t *testing.T, out *bytes.Buffer, value any) {
	t.Helper()
	text, err := yaml.Marshal(value)
	require.NoError(t, err)
	out.Write(text)
}

// writeObjects writes rendered objects without their marks, which are the same everywhere.
func writeObjects(t *testing.T, out *bytes.Buffer, member string, objects []runtime.Object) {
	t.Helper()
	for _, o := range objects {
		raw, err := json.Marshal(o)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(raw, &fields))
		if fields == nil {
			continue
		}
		delete(fields, "status")
		if meta, ok := fields["metadata"].(map[string]any); ok {
			for _, mark := range []string{"labels", "annotations", "creationTimestamp"} {
				delete(meta, mark)
			}
		}
		fmt.Fprintf(out, "--- # in %s\n", member)
		writeYAML(t, out, fields)
	}
}
