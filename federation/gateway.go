// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// maxAddresses is what a Gateway's status holds (Gateway API, GatewayStatus.addresses).
const maxAddresses = 16

// GatewaySnapshot is all that the plan of one hub Gateway depends on.
type GatewaySnapshot struct {
	Gateway *gatewayv1.Gateway
	// Members sorted by name.
	Members []GatewayMember
	// Attached counts the routes that attach to each listener.
	Attached map[gatewayv1.SectionName]int32
	// ClassMissing is whether its GatewayClass is gone.
	ClassMissing bool
	// Overrides that are in force.
	Overrides Overrides
	// ProbesAwaited is whether it is not known yet what is probed, and so who is suspected.
	ProbesAwaited bool
}

// GatewayMember is one member as the Gateway sees it.
type GatewayMember struct {
	Member
	// HasNamespace is whether the member has the Gateway's namespace.
	HasNamespace bool
	// Observed is the Gateway that the member holds now; nil where it holds none.
	Observed *gatewayv1.Gateway
	// Problem is why the newest plan is not in the member; empty when it is.
	Problem string
	// Suspected is whether all that is probed there through this Gateway is suspected.
	Suspected bool
}

// GatewayPlan is what was decided for a hub Gateway.
type GatewayPlan struct {
	// Objects by member; nil where the member is to hold none.
	Objects map[string]*gatewayv1.Gateway
	// Retries of each of Objects, by member; nil where the member has nothing to say them with.
	Retries map[string]*networkingv1alpha3.EnvoyFilter
	// Status of the hub Gateway.
	Status gatewayv1.GatewayStatus
}

// GatewayOwner owns what is written for a hub Gateway.
func GatewayOwner(namespace, name string) Owner {
	return Owner{Noun: "gateway", Namespace: namespace, Name: name}
}

// PlanGateway makes the Gateway of each member, with the class of that member and the listeners as written, and
// the hub Gateway's status from what the members say of theirs.
func PlanGateway(s GatewaySnapshot) GatewayPlan {
	s.Members = sortedBy(s.Members, func(m GatewayMember) string { return m.Name })
	plan := GatewayPlan{Objects: map[string]*gatewayv1.Gateway{}, Retries: map[string]*networkingv1alpha3.EnvoyFilter{}}
	// A Gateway without listeners would be refused.
	wanted := s.Gateway.DeletionTimestamp == nil && slices.ContainsFunc(s.Gateway.Spec.Listeners, supportedProtocol)
	for _, m := range s.Members {
		if wanted && (m.HasNamespace || !m.Synced) {
			plan.Objects[m.Name] = memberGateway(s.Gateway, m.Member)
			if !m.NoEnvoyFilter {
				plan.Retries[m.Name] = memberRetries(s.Gateway)
			}
		}
	}
	plan.Status = s.status()
	return plan
}

func memberGateway(hub *gatewayv1.Gateway, m Member) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Namespace: hub.Namespace, Name: hub.Name},
	}
	g.Spec.GatewayClassName = gatewayv1.ObjectName(m.GatewayClassName)
	for _, l := range hub.Spec.Listeners {
		if supportedProtocol(l) {
			g.Spec.Listeners = append(g.Spec.Listeners, *l.DeepCopy())
		}
	}
	g.Spec.Infrastructure = hub.Spec.Infrastructure.DeepCopy()
	// Else a demand for client certificates would be dropped without a word.
	g.Spec.TLS = hub.Spec.TLS.DeepCopy()
	GatewayOwner(hub.Namespace, hub.Name).Mark(&g.ObjectMeta)
	return g
}

func memberRetries(hub *gatewayv1.Gateway) *networkingv1alpha3.EnvoyFilter {
	retries := gatewayRetries(NamespacedName{hub.Namespace, hub.Name})
	GatewayOwner(hub.Namespace, hub.Name).Mark(&retries.ObjectMeta)
	return retries
}

func supportedProtocol(l gatewayv1.Listener) bool {
	return l.Protocol == gatewayv1.HTTPProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType
}

func (s GatewaySnapshot) status() gatewayv1.GatewayStatus {
	status := gatewayv1.GatewayStatus{Addresses: s.addresses()}
	programmed := s.programmed(len(status.Addresses) > 0)
	if len(status.Addresses) == 0 && slices.ContainsFunc(s.Members, func(m GatewayMember) bool { return m.Observed != nil }) {
		// Whoever reads them would send clients nowhere, and a gateway of which nothing good is said may well serve.
		status.Addresses = s.Gateway.Status.Addresses
	}
	valid := 0
	for _, l := range s.Gateway.Spec.Listeners {
		ls := s.listenerStatus(l, programmed)
		if supportedProtocol(l) {
			valid++
		}
		status.Listeners = append(status.Listeners, ls)
	}
	accepted := condition(gatewayv1.GatewayConditionAccepted, metav1.ConditionTrue, gatewayv1.GatewayReasonAccepted,
		"every listener is valid")
	switch {
	case valid == 0:
		accepted = condition(gatewayv1.GatewayConditionAccepted, metav1.ConditionFalse, gatewayv1.GatewayReasonListenersNotValid,
			"no listener has protocol HTTP or HTTPS")
	case valid < len(s.Gateway.Spec.Listeners):
		accepted = condition(gatewayv1.GatewayConditionAccepted, metav1.ConditionTrue, gatewayv1.GatewayReasonListenersNotValid,
			"some listeners are not valid: see their conditions")
	}
	if len(s.Gateway.Spec.Addresses) > 0 {
		accepted.Message += "; spec.addresses is not used, since each member gives its gateway an address of its own: remove it"
	}
	if s.ClassMissing {
		accepted = condition(gatewayv1.GatewayConditionAccepted, metav1.ConditionUnknown, v1alpha1.ReasonClassNotFound, fmt.Sprintf(
			"there is no GatewayClass %s any more, and the members serve this Gateway as before: create the class again, or delete the Gateway",
			s.Gateway.Spec.GatewayClassName))
	}
	status.Conditions = []metav1.Condition{accepted, programmed}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = s.Gateway.Generation
	}
	return status
}

// addresses are where clients come in: the programmed gateways of all members, at most 16. A member whose API
// server is lost keeps its address as last known, and while a member has not been read, every address that was there
// stays: what is not seen is not withdrawn. The last ones stay too while
// some member holds a gateway: see status. The gateways of drained and of suspected members are left out while there is
// another. A freeze keeps all as they are; a hub that has just started adds none until it knows what is probed.
func (s GatewaySnapshot) addresses() []gatewayv1.GatewayStatusAddress {
	var out []gatewayv1.GatewayStatusAddress
	if s.Overrides.freeze() != nil && len(s.Gateway.Status.Addresses) > 0 {
		return s.Gateway.Status.Addresses
	}
	if slices.ContainsFunc(s.Members, func(m GatewayMember) bool { return !m.Synced }) {
		out = slices.Clone(s.Gateway.Status.Addresses)
	}
	for _, m := range s.Members {
		if m.Observed == nil || !conditionTrue(m.Observed.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)) {
			continue
		}
		for _, a := range m.Observed.Status.Addresses {
			if !slices.ContainsFunc(out, func(have gatewayv1.GatewayStatusAddress) bool { return have.Value == a.Value }) {
				out = append(out, *a.DeepCopy())
			}
		}
	}
	// First the drained ones: that is a person's word.
	out = s.without(out, func(m GatewayMember) bool { return s.Overrides.drainsAll(m.Name) })
	out = s.without(out, func(m GatewayMember) bool { return m.Suspected || s.ProbesAwaited && !s.listed(m) })
	return out[:min(len(out), maxAddresses)]
}

// without leaves out the addresses of some members, unless no other is left.
func (s GatewaySnapshot) without(addresses []gatewayv1.GatewayStatusAddress, unwanted func(GatewayMember) bool) []gatewayv1.GatewayStatusAddress {
	of := func(a gatewayv1.GatewayStatusAddress) bool {
		return slices.ContainsFunc(s.Members, func(m GatewayMember) bool {
			return m.Observed != nil && unwanted(m) &&
				slices.ContainsFunc(m.Observed.Status.Addresses, func(own gatewayv1.GatewayStatusAddress) bool { return own.Value == a.Value })
		})
	}
	if left := slices.DeleteFunc(slices.Clone(addresses), of); len(left) > 0 {
		return left
	}
	return addresses
}

// listed tells whether a member's address was given out when addresses were last decided; true where none was.
func (s GatewaySnapshot) listed(m GatewayMember) bool {
	given := s.Gateway.Status.Addresses
	return len(given) == 0 || m.Observed != nil && slices.ContainsFunc(given, func(have gatewayv1.GatewayStatusAddress) bool {
		return slices.ContainsFunc(m.Observed.Status.Addresses, func(own gatewayv1.GatewayStatusAddress) bool { return own.Value == have.Value })
	})
}

func (s GatewaySnapshot) programmed(served bool) metav1.Condition {
	var waiting []string
	for _, m := range s.Members {
		if why := m.waitsFor(s.Gateway.Namespace); why != "" {
			waiting = append(waiting, m.Name+": "+why)
		}
	}
	kind := gatewayv1.GatewayConditionProgrammed
	switch {
	case !slices.ContainsFunc(s.Gateway.Spec.Listeners, supportedProtocol):
		return condition(kind, metav1.ConditionFalse, gatewayv1.GatewayReasonInvalid,
			"no listener has protocol HTTP or HTTPS, so no member is given it: add one")
	case len(s.Members) == 0:
		return condition(kind, metav1.ConditionFalse, gatewayv1.GatewayReasonPending,
			"there is no MemberCluster: join one")
	case !served:
		return condition(kind, metav1.ConditionFalse, gatewayv1.GatewayReasonAddressNotAssigned,
			"no member serves it yet: "+strings.Join(waiting, "; "))
	case len(waiting) > 0:
		return condition(kind, metav1.ConditionTrue, gatewayv1.GatewayReasonProgrammed,
			"served, but not by every member: "+strings.Join(waiting, "; "))
	}
	return condition(kind, metav1.ConditionTrue, gatewayv1.GatewayReasonProgrammed, "served by every member")
}

func (m GatewayMember) waitsFor(namespace string) string {
	switch {
	case !m.Synced:
		return "its contents have not been read yet"
	case !m.HasNamespace:
		return fmt.Sprintf("no namespace %s: create it there", namespace)
	case m.Problem != "":
		return withoutMember(m.Problem, m.Name)
	case m.Observed == nil:
		return "not written yet"
	}
	if why := GatewayWaitsFor(m.Observed); why != "" {
		return "its gateway " + why
	}
	return ""
}

// GatewayWaitsFor says what keeps a member's Gateway from serving; empty when nothing does.
func GatewayWaitsFor(g *gatewayv1.Gateway) string {
	switch {
	case !conditionTrue(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)):
		return "is not programmed yet: " + conditionMessage(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
	case len(g.Status.Addresses) == 0:
		return "has no address yet"
	}
	return ""
}

func (s GatewaySnapshot) listenerStatus(l gatewayv1.Listener, gateway metav1.Condition) gatewayv1.ListenerStatus {
	group := gatewayv1.Group(gatewayv1.GroupName)
	accepted := condition(gatewayv1.ListenerConditionAccepted, metav1.ConditionTrue, gatewayv1.ListenerReasonAccepted,
		"the listener is valid")
	resolved := condition(gatewayv1.ListenerConditionResolvedRefs, metav1.ConditionTrue, gatewayv1.ListenerReasonResolvedRefs,
		"every reference resolves")
	programmed := condition(gatewayv1.ListenerConditionProgrammed, gateway.Status, gatewayv1.ListenerReasonProgrammed,
		gateway.Message)
	if gateway.Status != metav1.ConditionTrue {
		programmed.Reason = string(gatewayv1.ListenerReasonPending)
	}
	status := gatewayv1.ListenerStatus{Name: l.Name, AttachedRoutes: s.Attached[l.Name],
		SupportedKinds: []gatewayv1.RouteGroupKind{{Group: &group, Kind: "HTTPRoute"}}}
	switch {
	case !supportedProtocol(l):
		accepted.Status, accepted.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonUnsupportedProtocol)
		accepted.Message = fmt.Sprintf("protocol %s is not supported: use HTTP or HTTPS", l.Protocol)
		programmed.Status, programmed.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonInvalid)
		programmed.Message = accepted.Message
		status.SupportedKinds = []gatewayv1.RouteGroupKind{}
	case !carriesHTTP(l):
		resolved.Status, resolved.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonInvalidRouteKinds)
		resolved.Message = "of the kinds in allowedRoutes only HTTPRoute is supported"
		status.SupportedKinds = []gatewayv1.RouteGroupKind{}
	default:
		s.addMembersWord(l.Name, &accepted, &programmed, &resolved)
	}
	status.Conditions = []metav1.Condition{accepted, programmed, resolved}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = s.Gateway.Generation
	}
	return status
}

// addMembersWord takes into a listener's conditions what members find wrong with it, such as a certificate that is
// not there. One member that serves it is enough to be programmed, since the Gateway is then served.
func (s GatewaySnapshot) addMembersWord(listener gatewayv1.SectionName, conditions ...*metav1.Condition) {
	for _, c := range conditions {
		var no []string
		serving, reason := 0, ""
		for _, m := range s.Members {
			said := m.listenerCondition(listener, c.Type)
			switch {
			case said == nil:
			case said.Status == metav1.ConditionTrue:
				serving++
			case said.Status == metav1.ConditionFalse:
				no, reason = append(no, m.Name+": "+said.Message), cmp.Or(reason, said.Reason)
			}
		}
		if len(no) == 0 || c.Status == metav1.ConditionFalse {
			continue
		}
		c.Message = "not in every member: " + strings.Join(no, "; ")
		if serving == 0 || c.Type != string(gatewayv1.ListenerConditionProgrammed) {
			c.Status, c.Reason = metav1.ConditionFalse, reason
		}
	}
}

// listenerCondition is what the member's own controller says of a listener of the newest Gateway; nil where it says
// nothing.
func (m GatewayMember) listenerCondition(listener gatewayv1.SectionName, kind string) *metav1.Condition {
	if m.Observed == nil {
		return nil
	}
	for _, l := range m.Observed.Status.Listeners {
		if c := findCondition(l.Conditions, kind); l.Name == listener && c != nil && c.ObservedGeneration == m.Observed.Generation {
			return c
		}
	}
	return nil
}

func findCondition(conditions []metav1.Condition, kind string) *metav1.Condition {
	i := slices.IndexFunc(conditions, func(c metav1.Condition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &conditions[i]
}

func conditionTrue(conditions []metav1.Condition, kind string) bool {
	c := findCondition(conditions, kind)
	return c != nil && c.Status == metav1.ConditionTrue
}

func conditionMessage(conditions []metav1.Condition, kind string) string {
	if c := findCondition(conditions, kind); c != nil && c.Message != "" {
		return c.Message
	}
	return "nothing has been said yet"
}
