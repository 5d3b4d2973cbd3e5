// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Records is what the hub's own objects say: what people declared, and what the controller last recorded of the members.
// Whoever may read the hub can plan from it without a way into any member.
type Records struct {
	Members    []v1alpha1.MemberCluster
	Classes    []gatewayv1.GatewayClass
	Gateways   []gatewayv1.Gateway
	Routes     []gatewayv1.HTTPRoute
	Grants     []gatewayv1.ReferenceGrant
	Imports    []mcsv1beta1.ServiceImport
	Policies   []v1alpha1.TrafficDistributionPolicy
	Overrides  []v1alpha1.TrafficOverride
	Rollouts   []v1alpha1.TrafficRollout
	Plans      []v1alpha1.RoutePlan
	Namespaces []corev1.Namespace
	// Now decides which overrides are in force, and how far a cluster is on its way back.
	Now time.Time
}

// Situation makes of the records the snapshots that a hub would plan from. What is recorded only in members is taken to
// be as the settled plan needs it: every exporter with an east-west address is known to the others, and every member
// holds what was last planned for it.
func (r Records) Situation(guard Guard) Situation {
	b := recordBook{Records: r, overrides: r.inForce(), members: r.members(), services: map[ServiceKey]ServiceSnapshot{}}
	s := Situation{Probes: map[ServiceKey]ProbePlan{}, Guard: guard}
	for i := range r.Routes {
		s.Routes = append(s.Routes, b.route(&r.Routes[i]))
	}
	for i := range r.Gateways {
		if b.Ours(&r.Gateways[i]) {
			s.Gateways = append(s.Gateways, b.gateway(&r.Gateways[i]))
		}
	}
	for _, key := range keysOf(b.services) {
		if plan := b.probe(key, s.Routes); plan.Probe != nil {
			s.Probes[key] = plan
		}
	}
	return s
}

// Doubts are reasons to believe a plan from these records less, in words, sorted.
func (r Records) Doubts() []string {
	var out []string
	for _, mc := range r.Members {
		connected, synced := findCondition(mc.Status.Conditions, v1alpha1.MemberConnected), findCondition(mc.Status.Conditions, v1alpha1.MemberSynced)
		switch {
		case connected == nil:
			out = append(out, mc.Name+": the hub has said nothing of it yet")
		case connected.Reason == v1alpha1.ReasonDuplicateCluster:
		case connected.Status != metav1.ConditionTrue:
			out = append(out, mc.Name+" is taken as last known: "+connected.Message)
		case synced == nil || synced.Status != metav1.ConditionTrue:
			out = append(out, mc.Name+": its contents have not been read, so what it holds stays as it is")
		}
	}
	for _, p := range r.Plans {
		if c := findCondition(p.Status.Conditions, v1alpha1.PlanWritten); c != nil && c.Status == metav1.ConditionFalse {
			_, route, _ := strings.Cut(p.Status.Route, "/")
			out = append(out, fmt.Sprintf("%s/%s in %s is not as planned: %s", p.Namespace, route, p.Status.Member, withoutMember(c.Message, p.Status.Member)))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r Records) inForce() Overrides {
	all := make([]*v1alpha1.TrafficOverride, 0, len(r.Overrides))
	for i := range r.Overrides {
		all = append(all, &r.Overrides[i])
	}
	return OverridesInForce(all, r.Now)
}

// members sorted by name, each cluster once, and none that is leaving.
func (r Records) members() []Member {
	var out []Member
	for i := range r.Members {
		mc := &r.Members[i]
		connected := findCondition(mc.Status.Conditions, v1alpha1.MemberConnected)
		if mc.DeletionTimestamp != nil || connected != nil && connected.Reason == v1alpha1.ReasonDuplicateCluster {
			continue
		}
		m := Member{Name: mc.Name, Region: cmp.Or(mc.Spec.Region, mc.Status.Region), Zone: cmp.Or(mc.Spec.Zone, mc.Status.Zone),
			GatewayClassName: mc.Spec.GatewayClassName, TrustDomain: mc.Spec.TrustDomain, EastWest: ParseAddress(mc.Status.EastWestAddress),
			Reachable: conditionTrue(mc.Status.Conditions, v1alpha1.MemberConnected), Synced: conditionTrue(mc.Status.Conditions, v1alpha1.MemberSynced)}
		if given := mc.Spec.EastWest; given != nil {
			m.EastWest = Address{given.Address, given.Port}
		}
		out = append(out, m)
	}
	return sortedBy(out, func(m Member) string { return m.Name })
}

// recordBook is the records with what is made of them once.
type recordBook struct {
	Records
	overrides Overrides
	members   []Member
	services  map[ServiceKey]ServiceSnapshot
}

// Ours tells whether a Gateway is of a class of Isthmus's. One whose class is gone is served by those members that hold it.
func (r Records) Ours(g *gatewayv1.Gateway) bool {
	for _, class := range r.Classes {
		if class.Name == string(g.Spec.GatewayClassName) {
			return class.Spec.ControllerName == v1alpha1.ControllerName
		}
	}
	return slices.ContainsFunc(r.Members, func(mc v1alpha1.MemberCluster) bool { return len(addressesIn(&mc, g)) > 0 })
}

// addressesIn are the addresses of a hub Gateway in a member.
func addressesIn(mc *v1alpha1.MemberCluster, g *gatewayv1.Gateway) []string {
	for _, held := range mc.Status.Gateways {
		if held.Namespace == g.Namespace && held.Name == g.Name {
			return held.Addresses
		}
	}
	return nil
}

func (b recordBook) gateway(g *gatewayv1.Gateway) GatewaySnapshot {
	s := GatewaySnapshot{Gateway: g, Overrides: b.overrides}
	for _, m := range b.members {
		s.Members = append(s.Members, GatewayMember{Member: m, HasNamespace: true, Observed: b.held(g, m.Name)})
	}
	return s
}

// held is the Gateway of a member, as far as it is recorded; nil where none is.
func (b recordBook) held(g *gatewayv1.Gateway, member string) *gatewayv1.Gateway {
	i := slices.IndexFunc(b.Members, func(mc v1alpha1.MemberCluster) bool { return mc.Name == member })
	addresses := addressesIn(&b.Members[i], g)
	if len(addresses) == 0 {
		return nil
	}
	out := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}, Status: gatewayv1.GatewayStatus{
		Conditions: []metav1.Condition{condition(gatewayv1.GatewayConditionProgrammed, metav1.ConditionTrue, gatewayv1.GatewayReasonProgrammed, "")}}}
	for _, a := range addresses {
		kind := gatewayv1.HostnameAddressType
		if (Address{Host: a}).IsIP() {
			kind = gatewayv1.IPAddressType
		}
		out.Status.Addresses = append(out.Status.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
	}
	return out
}

func (b recordBook) route(route *gatewayv1.HTTPRoute) RouteSnapshot {
	s := RouteSnapshot{Route: route, Overrides: b.overrides, Now: b.Now, Services: map[ServiceKey]ServiceSnapshot{}, Parents: b.parents(route)}
	for i := range b.Rollouts {
		if b.Rollouts[i].Namespace == route.Namespace {
			s.Rollouts = append(s.Rollouts, &b.Rollouts[i])
		}
	}
	namespaces := []string{route.Namespace}
	for _, p := range s.Parents {
		namespaces = append(namespaces, p.Gateway.Namespace)
	}
	for _, key := range s.Imports() {
		s.Services[key] = b.service(key)
		namespaces = append(namespaces, key.Namespace)
	}
	for i := range b.Policies {
		if slices.Contains(namespaces, b.Policies[i].Namespace) {
			s.Policies = append(s.Policies, &b.Policies[i])
		}
	}
	for i := range b.Grants {
		if slices.Contains(namespaces, b.Grants[i].Namespace) {
			s.Grants = append(s.Grants, &b.Grants[i])
		}
	}
	for _, m := range b.members {
		s.Members = append(s.Members, b.routeMember(m, route, s.Services))
	}
	return s
}

func (b recordBook) parents(route *gatewayv1.HTTPRoute) []Parent {
	labels := map[string]string{}
	for _, ns := range b.Namespaces {
		if ns.Name == route.Namespace {
			labels = ns.Labels
		}
	}
	var out []Parent
	for _, ref := range route.Spec.ParentRefs {
		for i := range b.Gateways {
			g := &b.Gateways[i]
			if deref(ref.Kind) != "" && *ref.Kind != "Gateway" || string(ref.Name) != g.Name ||
				cmp.Or(string(deref(ref.Namespace)), route.Namespace) != g.Namespace || g.DeletionTimestamp != nil || !b.Ours(g) {
				continue
			}
			out = append(out, Attach(route, ref, g, labels))
		}
	}
	return out
}

func (b recordBook) routeMember(m Member, route *gatewayv1.HTTPRoute, services map[ServiceKey]ServiceSnapshot) RouteMember {
	rm := RouteMember{Member: m, HasNamespace: true}
	for _, p := range b.Plans {
		if p.Namespace == route.Namespace && p.Status.Route == "HTTPRoute/"+route.Name && p.Status.Member == m.Name {
			rm.Last = p.Status.Rules
			written := findCondition(p.Status.Conditions, v1alpha1.PlanWritten)
			rm.HasNamespace = written == nil || written.Reason != v1alpha1.ReasonNamespaceMissing
		}
	}
	for _, key := range keysOf(services) {
		rm.Granted = append(rm.Granted, key)
		for _, other := range services[key].Members {
			if other.Exported && !other.EastWest.IsZero() {
				rm.Hosts = append(rm.Hosts, RemoteHost(key, other.Name))
			}
		}
	}
	slices.Sort(rm.Hosts)
	return rm
}

// service as the hub's ServiceImport has it, with what the plans remember of it.
func (b recordBook) service(key ServiceKey) ServiceSnapshot {
	if s, made := b.services[key]; made {
		return s
	}
	s := ServiceSnapshot{Key: key, Overrides: b.overrides}
	for i := range b.Imports {
		if si := &b.Imports[i]; si.Namespace == key.Namespace && si.Name == key.Name && IsOurs(si) {
			s.Remembered = &RememberedImport{Spec: si.Spec}
			for _, c := range si.Status.Clusters {
				s.Remembered.Clusters = append(s.Remembered.Clusters, c.Cluster)
			}
		}
	}
	for _, m := range b.members {
		sm := ServiceMember{Member: m}
		if s.Remembered != nil && slices.Contains(s.Remembered.Clusters, m.Name) {
			sm = b.exporter(m, key, s.Remembered.Spec)
		}
		s.Members = append(s.Members, sm)
	}
	b.services[key] = s
	return s
}

// exporter is a cluster that exports a service, in the health that the plans record. Of what no plan speaks, nothing bad
// is known.
func (b recordBook) exporter(m Member, key ServiceKey, spec mcsv1beta1.ServiceImportSpec) ServiceMember {
	recorded, ports := b.recorded(key, m.Name)
	sm := ServiceMember{Member: m, Exported: true, Open: true, Service: serviceOf(spec, ports),
		ReadyEndpoints: 1, Endpoints: Endpoints{ReadyPercent: 100, Peak: 1, Seen: true}, Before: ActedOn(recorded)}
	if seen := EndpointsOf(recorded); seen.Seen {
		sm.Endpoints = seen
	}
	switch sm.Before {
	case Unfit:
		sm.ReadyEndpoints, sm.Endpoints.ReadyPercent = 0, 0
	case Suspected:
		sm.Probe = &ProbeSignal{} // it stays out until its probes say otherwise
	case Fit, Unknown:
	}
	return sm
}

// recorded is what the plans say of a service in a cluster: of several, the worst verdict; and under which ports it is listed.
func (b recordBook) recorded(key ServiceKey, cluster string) (worst v1alpha1.PlannedBackend, ports []int32) {
	rank := map[Verdict]int{Fit: 1, Unfit: 2, Suspected: 3}
	for _, p := range b.Plans {
		for _, rule := range p.Status.Rules {
			for _, backend := range rule.Backends {
				if backend.Import != key.String() || backend.Cluster != cluster {
					continue
				}
				ports = append(ports, backend.Port)
				if rank[ActedOn(backend)] > rank[ActedOn(worst)] || worst.Cluster == "" {
					worst = backend
				}
			}
		}
	}
	return worst, ports
}

// serviceOf is the Service behind an import: with those of its ports by which routes list it, or with all.
func serviceOf(spec mcsv1beta1.ServiceImportSpec, listed []int32) *corev1.Service {
	out := &corev1.Service{Spec: corev1.ServiceSpec{SessionAffinity: spec.SessionAffinity, ClusterIP: "0.0.0.0"}}
	if spec.Type == mcsv1beta1.Headless {
		out.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range spec.Ports {
		if len(listed) == 0 || slices.Contains(listed, p.Port) {
			out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: p.Port, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
		}
	}
	return out
}

// probe is how a service is probed, as far as the records tell.
func (b recordBook) probe(key ServiceKey, routes []RouteSnapshot) ProbePlan {
	s := ProbeSnapshot{Key: key, Gateways: map[NamespacedName]map[string]*gatewayv1.Gateway{}}
	for _, r := range routes {
		if _, refers := r.Services[key]; refers && ProbeConfigured(r.Policies) {
			s.Routes = append(s.Routes, r)
		}
	}
	if len(s.Routes) == 0 {
		return ProbePlan{}
	}
	for i := range b.Gateways {
		g := &b.Gateways[i]
		held := map[string]*gatewayv1.Gateway{}
		for _, m := range b.members {
			if observed := b.held(g, m.Name); observed != nil {
				held[m.Name] = observed
			}
		}
		s.Gateways[NamespacedName{g.Namespace, g.Name}] = held
	}
	return PlanProbe(s)
}
