// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// ServiceSnapshot is all that is known of one namespaced service over the clusterset.
type ServiceSnapshot struct {
	Key ServiceKey
	// Members sorted by name.
	Members []ServiceMember
	// Remembered is the import as the hub last recorded it: it speaks for members that have not been read yet.
	Remembered *RememberedImport
	// RouteNamespaces are namespaces other than the service's own whose routes may refer to the import.
	RouteNamespaces []string
	// Gateways of the hub to which routes that refer to the import attach, sorted.
	Gateways []NamespacedName
	// Overrides that are in force.
	Overrides Overrides
}

// RememberedImport is what the hub recorded of an import.
type RememberedImport struct {
	Spec     mcsv1beta1.ServiceImportSpec
	Clusters []string
}

// ServiceMember is a service in one member.
type ServiceMember struct {
	Member
	// Exported is whether the member has a ServiceExport, Created when that was made.
	Exported bool
	Created  time.Time
	// Service of that name, exported or not; nil where there is none.
	Service *corev1.Service
	// ReadyEndpoints of that Service, and what is remembered of them over time.
	ReadyEndpoints int
	Endpoints      Endpoints
	// Probe is what the probes say; nil where none is configured.
	Probe *ProbeSignal
	// Metric is what a metric says; nil where none is asked for.
	Metric *MetricSignal
	// Before is the verdict that was last acted on.
	Before Verdict
	// LeftOut is whether a route leaves it out, or makes it wait before it returns.
	LeftOut bool
	// Namespaces among the service's and RouteNamespaces that the member has.
	Namespaces []string
	// Former are namespaces whose routes may no longer refer to the import, or do not, and whose routes in the member
	// still name it. What they name stays until they do not.
	Former []FormerNamespace
	// Names are the clusters that some route in the member still names for this service, by NamedClusters.
	Names []string
	// Open is whether the member's east-west gateway lets the others in to the service.
	Open bool
	// Leaving is whether the member is being let go: it holds nothing any more but what others still need of it.
	Leaving bool
}

// FormerNamespace is a namespace with the clusters that its routes still name.
type FormerNamespace struct {
	Namespace string
	Names     []string
}

// Finding judges the service in this member.
func (m ServiceMember) Finding() Finding {
	return Judge(Signals{Seen: m.Synced, ReadyEndpoints: m.ReadyEndpoints, Reachable: m.Reachable, Probe: m.Probe, Metric: m.Metric, Before: m.Before})
}

// Suspects tells whether the service is out of a cluster on suspicion, or was and nothing says otherwise yet.
func (s ServiceSnapshot) Suspects(cluster string) bool {
	m, ok := s.member(cluster)
	verdict := m.Finding().Verdict
	return ok && (verdict == Suspected || verdict == Unknown && m.Before == Suspected)
}

// serves tells whether the member's own Service has a TCP port. An import unites the ports of all exports, so that a
// cluster may lack one; while the member has not been read, nothing says so.
func (m ServiceMember) serves(port int32) bool {
	if !m.Synced || m.Service == nil {
		return !m.Synced
	}
	return slices.ContainsFunc(m.Service.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Port == port && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP)
	})
}

func (s ServiceSnapshot) member(name string) (ServiceMember, bool) {
	i := slices.IndexFunc(s.Members, func(m ServiceMember) bool { return m.Name == name })
	if i < 0 {
		return ServiceMember{}, false
	}
	return s.Members[i], true
}

// Import merges the exports. A member that has not been read yet keeps the part that the hub remembers: what
// is not seen is not withdrawn. While there is such a member, the record also decides where it disagrees with the
// exports that are seen, since the oldest may be among those that are not.
func (s ServiceSnapshot) Import() *Import {
	var exports []Export
	for _, m := range s.Members {
		if m.Synced && m.Exported {
			exports = append(exports, Export{Cluster: m.Name, Created: m.Created, Service: m.Service})
		}
	}
	imp, unread := MergeExports(s.Key, exports), s.unread()
	if len(unread) == 0 {
		return imp
	}
	remembered := &Import{Key: s.Key, Spec: *s.Remembered.Spec.DeepCopy(), Clusters: unread}
	remembered.Spec.Ports = nil
	for _, p := range s.Remembered.Spec.Ports {
		remembered.addPort(p)
	}
	if imp != nil {
		for _, p := range imp.Spec.Ports {
			remembered.addPort(p)
		}
		remembered.Clusters, remembered.Conflicts = slices.Concat(unread, imp.Clusters), imp.Conflicts
	}
	slices.Sort(remembered.Clusters)
	remembered.sortPorts()
	return remembered
}

// unread are the members that are remembered to export the service and have not been read yet.
func (s ServiceSnapshot) unread() []string {
	if s.Remembered == nil {
		return nil
	}
	var names []string
	for _, m := range s.Members {
		if !m.Synced && slices.Contains(s.Remembered.Clusters, m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// ServicePlan is what makes an import reachable.
type ServicePlan struct {
	// Import is nil when nobody exports the service.
	Import *Import
	// HubImport is the ServiceImport in the hub; nil when it is to be withdrawn.
	HubImport *mcsv1beta1.ServiceImport
	// Objects by member. A member without an entry has not been read: what it holds stays as it is. An empty entry
	// withdraws all.
	Objects map[string]Sequences
	// Waiting says, by member, what keeps an export from being reached from elsewhere.
	Waiting map[string]string
}

// Sequences are objects that rest on those before them in the same sequence, and on nothing in another: one that
// cannot be written holds up only what follows it there.
type Sequences [][]runtime.Object

// All objects, in an order in which they can be written.
func (s Sequences) All() []runtime.Object { return slices.Concat(s...) }

// ServiceOwner owns what is written for a service.
func ServiceOwner(key ServiceKey) Owner {
	return Owner{Noun: "service", Namespace: key.Namespace, Name: key.Name}
}

// PlanService decides what each member holds for a service.
//
//	in every member that has the namespace     ServiceImport
//	in a member that exports it                a route on the east-west gateway, and the grant for it
//	in a namespace with routes, for each       ServiceEntry and DestinationRule: the other cluster's
//	  other cluster that exports it              gateway first, the rest behind it
//	  … and for its own share                    the same, and a home host (home.go)
//	in the namespace of a Gateway of such routes  EnvoyFilter for that home host
//
// A cluster is made known to the others once its own gateway lets them in: else its share would find nobody there.
// What a route still names stays until it no longer does: removing it first would cost its share in errors.
func PlanService(s ServiceSnapshot) ServicePlan {
	s.Members = sortedBy(s.Members, func(m ServiceMember) string { return m.Name })
	plan := ServicePlan{Import: s.Import(), Objects: map[string]Sequences{}, Waiting: map[string]string{}}
	if plan.Import != nil {
		plan.HubImport = serviceImport(plan.Import)
		ServiceOwner(s.Key).Mark(plan.HubImport)
	}
	for _, m := range s.Members {
		if !m.Synced {
			continue
		}
		objects := s.objectsFor(m, plan.Import)
		for _, o := range objects.All() {
			if marked, ok := o.(metav1.Object); ok {
				ServiceOwner(s.Key).Mark(marked)
			}
		}
		plan.Objects[m.Name] = objects
		if why := s.unreached(m, plan.Import); why != "" {
			plan.Waiting[m.Name] = fmt.Sprintf("the other members cannot reach %s in %s: %s", s.Key, m.Name, why)
		}
	}
	return plan
}

// unreached says what keeps the others from a service that a member exports; empty when nothing does.
func (s ServiceSnapshot) unreached(m ServiceMember, imp *Import) string {
	switch {
	case !m.Exported:
		return ""
	case m.EastWest.IsZero():
		return "its east-west gateway has no address yet"
	case !m.Open && len(s.servingObjects(m, imp)) > 0:
		return fmt.Sprintf("its east-west gateway has not accepted HTTPRoute %s/%s yet", v1alpha1.SystemNamespace, EastWestRouteName(s.Key))
	}
	return ""
}

// lets tells whether the others may be sent to a member. What has not been read is left as it is.
func (m ServiceMember) lets() bool { return m.Open || !m.Synced }

func (s ServiceSnapshot) objectsFor(m ServiceMember, imp *Import) Sequences {
	var objects Sequences
	if serving := s.servingObjects(m, imp); len(serving) > 0 {
		objects = append(objects, serving)
	}
	if m.Leaving {
		// The others are moved away first: taking this with the rest would cost their share in errors.
		return objects
	}
	if slices.Contains(m.Names, m.Name) || len(m.Namespaces) > 0 && s.hasHome(m, imp) {
		for _, filter := range s.homeFilters(m, imp) {
			objects = append(objects, []runtime.Object{filter})
		}
	}
	for _, namespace := range m.Namespaces {
		objects = append(objects, s.sendingObjects(m, usage{namespace: namespace, names: m.Names}, imp)...)
	}
	for _, former := range m.Former {
		objects = append(objects, s.sendingObjects(m, usage{namespace: former.Namespace, names: former.Names, former: true}, imp)...)
	}
	// Last, because no request depends on it.
	if imp != nil && slices.Contains(m.Namespaces, s.Key.Namespace) {
		objects = append(objects, []runtime.Object{serviceImport(imp)})
	}
	return objects
}

func serviceImport(imp *Import) *mcsv1beta1.ServiceImport {
	out := &mcsv1beta1.ServiceImport{
		TypeMeta:   metav1.TypeMeta{APIVersion: mcsv1beta1.GroupVersion.String(), Kind: "ServiceImport"},
		ObjectMeta: metav1.ObjectMeta{Namespace: imp.Key.Namespace, Name: imp.Key.Name},
		Spec:       *imp.Spec.DeepCopy(),
	}
	if out.Spec.Ports == nil {
		// The field is required, also of a headless Service that has no ports.
		out.Spec.Ports = []mcsv1beta1.ServicePort{}
	}
	return out
}

// servingObjects let the other members in: a route on the east-west gateway that is 100 % local, so that no
// loop is possible.
func (s ServiceSnapshot) servingObjects(m ServiceMember, imp *Import) []runtime.Object {
	exports := imp != nil && slices.Contains(imp.Clusters, m.Name)
	if m.Service == nil || (!exports && !s.namedAnywhere(m.Name)) {
		return nil
	}
	var rules []gatewayv1.HTTPRouteRule
	for _, p := range m.Service.Spec.Ports {
		if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
			rules = append(rules, eastWestRule(s.Key, p.Port, m.Name))
		}
	}
	if len(rules) == 0 {
		return nil
	}
	objects := []runtime.Object{serviceGrant(s.Key, v1alpha1.SystemNamespace)}
	part := 0
	// A route holds 16 rules.
	for chunk := range slices.Chunk(rules, 16) {
		part++
		objects = append(objects, eastWestRoute(s.Key, part, chunk))
	}
	return objects
}

// namedAnywhere tells whether a route in any member still names the service of a cluster.
func (s ServiceSnapshot) namedAnywhere(cluster string) bool {
	return slices.ContainsFunc(s.Members, func(m ServiceMember) bool { return slices.Contains(m.Names, cluster) })
}

func eastWestRule(key ServiceKey, port int32, cluster string) gatewayv1.HTTPRouteRule {
	exact, namespace := gatewayv1.HeaderMatchExact, gatewayv1.Namespace(key.Namespace)
	return gatewayv1.HTTPRouteRule{
		Matches: []gatewayv1.HTTPRouteMatch{{Headers: []gatewayv1.HTTPHeaderMatch{{
			Type: &exact, Name: BackendHeader, Value: backendValue(key, port)}}}},
		Filters: []gatewayv1.HTTPRouteFilter{
			{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
				RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{BackendHeader}}},
			{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier,
				ResponseHeaderModifier: &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{
					{Name: ServedByHeader, Value: cluster}}}},
		},
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{
				Namespace: &namespace, Name: gatewayv1.ObjectName(key.Name), Port: &port}}}},
	}
}

// EastWestRouteName is the name of the first of the routes that let the other members in to a service.
func EastWestRouteName(key ServiceKey) string { return key.Name + "." + key.Namespace }

// LetsIn tells whether a route of that name is the service's own, and accepted by the member's controller.
func LetsIn(route *gatewayv1.HTTPRoute, key ServiceKey) bool {
	owner, ours := ParseOwner(route)
	return ours && owner == ServiceOwner(key) && slices.ContainsFunc(route.Status.Parents, func(p gatewayv1.RouteParentStatus) bool {
		return conditionTrue(p.Conditions, string(gatewayv1.RouteConditionAccepted))
	})
}

func eastWestRoute(key ServiceKey, part int, rules []gatewayv1.HTTPRouteRule) *gatewayv1.HTTPRoute {
	name, section := EastWestRouteName(key), gatewayv1.SectionName(eastWestListener)
	if part > 1 {
		name = fmt.Sprintf("%s.%d", name, part)
	}
	return &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"},
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{
				{Name: EastWestGatewayName, SectionName: &section}}},
			Rules: rules,
		},
	}
}

// GrantName is the name of the ReferenceGrant, in the service's namespace, that lets routes of a namespace refer to it.
func GrantName(key ServiceKey, from string) string { return key.Name + "." + from }

// serviceGrant lets routes of a namespace refer to the Service, and to nothing else.
func serviceGrant(key ServiceKey, from string) *gatewayv1.ReferenceGrant {
	name := gatewayv1.ObjectName(key.Name)
	return &gatewayv1.ReferenceGrant{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "ReferenceGrant"},
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: GrantName(key, from)},
		Spec: gatewayv1.ReferenceGrantSpec{
			From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute",
				Namespace: gatewayv1.Namespace(from)}},
			To: []gatewayv1.ReferenceGrantTo{{Kind: "Service", Name: &name}},
		},
	}
}

// usage is what the routes of a namespace name of a service; those of a former one get no more than that.
type usage struct {
	namespace string
	names     []string
	former    bool
}

// sendingObjects let routes of one namespace in a member reach the service at home and in the other clusters.
func (s ServiceSnapshot) sendingObjects(m ServiceMember, use usage, imp *Import) Sequences {
	var objects Sequences
	if imp == nil {
		imp = &Import{Key: s.Key}
	}
	// The grant for isthmus-system is among servingObjects.
	elsewhere := use.namespace != s.Key.Namespace && use.namespace != v1alpha1.SystemNamespace && m.Service != nil
	namesOwn := slices.Contains(use.names, namedHere) || slices.Contains(use.names, m.Name)
	if elsewhere && (namesOwn || !use.former && slices.Contains(imp.Clusters, m.Name)) {
		objects = append(objects, []runtime.Object{serviceGrant(s.Key, use.namespace)})
	}
	for _, other := range s.Members {
		named := slices.Contains(use.names, other.Name)
		if other.Name == m.Name && (named || !use.former && s.hasHome(m, imp)) {
			objects = append(objects, s.homeObjects(m, use.namespace, imp))
		}
		if other.Name == m.Name || (!named && (use.former || other.EastWest.IsZero() || !other.lets() || !slices.Contains(imp.Clusters, other.Name))) {
			continue
		}
		backend := remoteBackend{key: s.Key, cluster: other.Member, fallbacks: s.fallbacks(other, imp),
			ports: s.remotePorts(imp, other)}
		if len(backend.ports) > 0 && len(backend.reachable()) > 0 {
			// The entry last: by it the host is known and given weight, and without the rule its requests would go in clear.
			objects = append(objects, []runtime.Object{backend.destinationRule(use.namespace), backend.serviceEntry(use.namespace)})
		}
	}
	return objects
}

// remotePorts are the TCP ports of the import, or of the Service where the import has just gone.
func (s ServiceSnapshot) remotePorts(imp *Import, other ServiceMember) []mcsv1beta1.ServicePort {
	ports := imp.Spec.Ports
	if len(ports) == 0 && other.Service != nil {
		last := Import{Key: s.Key}
		last.unitePorts(Export{Cluster: other.Name, Service: other.Service})
		ports = last.Spec.Ports
	}
	return tcpPorts(ports)
}

// fallbacks are where the proxy may go by itself: only clusters that serve and are not drained, or a hiccup would
// spill into one that was emptied. The nearest to the failed cluster come first.
func (s ServiceSnapshot) fallbacks(of ServiceMember, imp *Import) []Member {
	var serving []Member
	for _, m := range s.Members {
		if m.Name != of.Name && m.lets() && slices.Contains(imp.Clusters, m.Name) && s.takesSpill(m) {
			serving = append(serving, m.Member)
		}
	}
	slices.SortStableFunc(serving, func(a, b Member) int { return distance(of.Member, a) - distance(of.Member, b) })
	return serving
}

// takesSpill tells whether proxies may go to a cluster by themselves. That follows what routes decided, and so it is written as
// seldom as weights are, however a cluster flaps; one that waits to return is not sent by proxies what the hub keeps from it.
//
//	drained | routes    | one of them    | verdict | may
//	yes     | any       | any            | any     | no
//	no      | decided   | leaves it out  | any     | no
//	no      | decided   | none does      | any     | yes, from the first step of its return
//	no      | none yet  |                | serving | yes
//	no      | there are none             | any     | yes: nobody asks, and each change would be a write in every member
func (s ServiceSnapshot) takesSpill(m ServiceMember) bool {
	switch {
	case s.Overrides.drain(m.Name, s.Key) != nil:
		return false
	case m.Before != "":
		return !m.LeftOut
	}
	return len(s.Gateways) == 0 || m.Finding().Serving(m.Before)
}

// distance orders clusters by how far they are: 0 same zone, 1 same region, 2 elsewhere or not known.
func distance(a, b Member) int {
	switch {
	case a.Zone != "" && a.Zone == b.Zone && a.Region == b.Region:
		return 0
	case a.Region != "" && a.Region == b.Region:
		return 1
	}
	return 2
}

// ExportConditions are Valid, Ready and Conflict of each member's ServiceExport, with KEP-1645's reasons.
func ExportConditions(s ServiceSnapshot, plan ServicePlan) map[string][]metav1.Condition {
	out := map[string][]metav1.Condition{}
	for _, m := range s.Members {
		if m.Synced && m.Exported {
			out[m.Name] = exportConditions(m, plan)
		}
	}
	return out
}

func exportConditions(m ServiceMember, plan ServicePlan) []metav1.Condition {
	valid := condition(mcsv1beta1.ServiceExportConditionValid, metav1.ConditionTrue, mcsv1beta1.ServiceExportReasonValid,
		"the Service can be exported")
	ready := condition(mcsv1beta1.ServiceExportConditionReady, metav1.ConditionTrue, mcsv1beta1.ServiceExportReasonExported,
		"the service is part of the import in the clusterset")
	conflict := condition(mcsv1beta1.ServiceExportConditionConflict, metav1.ConditionFalse,
		mcsv1beta1.ServiceExportReasonNoConflicts, "all exports of this service agree")
	if refusal := (Export{Cluster: m.Name, Service: m.Service}).Refuse(); refusal != nil {
		valid = condition(valid.Type, metav1.ConditionFalse, refusal.Reason, refusal.Message)
		ready = condition(ready.Type, metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonPending, refusal.Message)
	} else if waiting := plan.Waiting[m.Name]; waiting != "" {
		ready = condition(ready.Type, metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonPending, waiting)
	}
	if plan.Import != nil && len(plan.Import.Conflicts) > 0 {
		var who []string
		for _, c := range plan.Import.Conflicts {
			who = append(who, c.Cluster+": "+c.Message)
		}
		conflict = condition(conflict.Type, metav1.ConditionTrue, plan.Import.Conflicts[0].Reason,
			"the oldest export decides; "+strings.Join(who, "; "))
	}
	return []metav1.Condition{conflict, ready, valid}
}

func condition[T, R ~string](kind T, status metav1.ConditionStatus, reason R, message string) metav1.Condition {
	return metav1.Condition{Type: string(kind), Status: status, Reason: string(reason), Message: message}
}
