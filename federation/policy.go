// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Target is something that a policy can be attached to.
type Target struct {
	Kind, Namespace, Name, Section string
}

// String is Kind namespace/name, with the section behind a slash.
func (t Target) String() string {
	s := t.Kind + " " + t.Namespace + "/" + t.Name
	if t.Section != "" {
		s += "/" + t.Section
	}
	return s
}

// TargetsOf lists what a policy is attached to.
func TargetsOf(p *v1alpha1.TrafficDistributionPolicy) []Target {
	targets := make([]Target, 0, len(p.Spec.TargetRefs))
	for _, ref := range p.Spec.TargetRefs {
		targets = append(targets, Target{string(ref.Kind), p.Namespace, string(ref.Name), string(deref(ref.SectionName))})
	}
	return targets
}

// older orders policies by the Gateway API's rule for conflicts: creation time, then namespace/name.
func older(a, b *v1alpha1.TrafficDistributionPolicy) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name))
}

// policyAt is the policy in force at one target: the oldest of those attached to it (GEP-713), or nil.
func policyAt(t Target, policies []*v1alpha1.TrafficDistributionPolicy) *v1alpha1.TrafficDistributionPolicy {
	var found *v1alpha1.TrafficDistributionPolicy
	for _, p := range policies {
		if p.DeletionTimestamp == nil && slices.Contains(TargetsOf(p), t) && (found == nil || older(p, found) < 0) {
			found = p
		}
	}
	return found
}

// Effective is what is in force, and which policy says it, namespace/name; empty for the default.
type Effective struct {
	Distribution v1alpha1.Distribution
	Policy       string
	Health       v1alpha1.Health
	HealthPolicy string
	Failback     v1alpha1.Failback
}

// EffectivePolicy finds what holds along a path of targets, given from the highest (Gateway) to the lowest
// (ServiceImport): the highest override, else the lowest default, else Local (GEP-2649). Distribution, health
// and failback are looked for apart, since a policy may say one of them alone.
func EffectivePolicy(path []Target, policies []*v1alpha1.TrafficDistributionPolicy) Effective {
	result := Effective{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionLocal}}
	if d, policy := effective(path, policies, func(d *v1alpha1.TrafficDistribution) bool { return d.Distribution.Type != "" }); d != nil {
		result.Distribution, result.Policy = d.Distribution, policy
	}
	if d, policy := effective(path, policies, func(d *v1alpha1.TrafficDistribution) bool { return d.Health != nil }); d != nil {
		result.Health, result.HealthPolicy = *d.Health, policy
	}
	if d, _ := effective(path, policies, func(d *v1alpha1.TrafficDistribution) bool { return d.Failback != nil }); d != nil {
		result.Failback = *d.Failback
	}
	return result
}

// effective is the highest override that says something, else the lowest default that does, and its policy.
func effective(path []Target, policies []*v1alpha1.TrafficDistributionPolicy,
	says func(*v1alpha1.TrafficDistribution) bool) (found *v1alpha1.TrafficDistribution, policy string) {
	for _, t := range path {
		p := policyAt(t, policies)
		switch {
		case p == nil:
		case p.Spec.Overrides != nil && says(p.Spec.Overrides):
			return p.Spec.Overrides, p.Namespace + "/" + p.Name
		case p.Spec.Defaults != nil && says(p.Spec.Defaults):
			found, policy = p.Spec.Defaults, p.Namespace+"/"+p.Name
		}
	}
	return found, policy
}

// PolicySnapshot is what the status of one policy depends on.
type PolicySnapshot struct {
	Policy *v1alpha1.TrafficDistributionPolicy
	// Others are the other policies of its namespace.
	Others []*v1alpha1.TrafficDistributionPolicy
	// Exists tells which of its targets exist.
	Exists map[Target]bool
	// OtherClass are those Gateways among its targets that another controller serves, with their class.
	OtherClass map[Target]string
	// Members are the names of all MemberClusters.
	Members []string
	// Metrics are the queries of the policy's metric, sorted by import and cluster.
	Metrics []MetricUse
}

// PolicyStatus is the ancestors of a policy's status: one entry a target, with Accepted, ClustersResolved and, where the
// policy has a metric, MetricAnswered.
func PolicyStatus(s PolicySnapshot) []gatewayv1.PolicyAncestorStatus {
	shared := []metav1.Condition{clustersResolved(s)}
	if c := metricAnswered(s); c.Type != "" {
		shared = append(shared, c)
	}
	var out []gatewayv1.PolicyAncestorStatus
	for i, t := range TargetsOf(s.Policy) {
		ref := s.Policy.Spec.TargetRefs[i]
		group, kind := ref.Group, ref.Kind
		ns := gatewayv1.Namespace(s.Policy.Namespace)
		out = append(out, gatewayv1.PolicyAncestorStatus{
			AncestorRef: gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: ref.Name,
				SectionName: ref.SectionName},
			ControllerName: v1alpha1.ControllerName,
			Conditions:     append([]metav1.Condition{policyAccepted(s, t)}, shared...),
		})
	}
	return out
}

func policyAccepted(s PolicySnapshot, t Target) metav1.Condition {
	c := metav1.Condition{Type: string(gatewayv1.PolicyConditionAccepted), Status: metav1.ConditionFalse,
		ObservedGeneration: s.Policy.Generation}
	winner := policyAt(t, append([]*v1alpha1.TrafficDistributionPolicy{s.Policy}, s.Others...))
	switch {
	case s.OtherClass[t] != "":
		c.Reason = string(gatewayv1.PolicyReasonInvalid)
		c.Message = fmt.Sprintf("%s is of GatewayClass %s, which is not a class of controller %s: change one of the two, or correct targetRefs",
			t, s.OtherClass[t], v1alpha1.ControllerName)
	case !s.Exists[t]:
		c.Reason = string(gatewayv1.PolicyReasonTargetNotFound)
		c.Message = fmt.Sprintf("%s does not exist: create it, or correct targetRefs", t)
	case winner != nil && winner.Name != s.Policy.Name:
		c.Reason = string(gatewayv1.PolicyReasonConflicted)
		c.Message = fmt.Sprintf("the older policy %s/%s is attached to %s: delete one of the two", winner.Namespace,
			winner.Name, t)
	default:
		c.Status = metav1.ConditionTrue
		c.Reason = string(gatewayv1.PolicyReasonAccepted)
		c.Message = "attached to " + t.String()
	}
	return c
}

func clustersResolved(s PolicySnapshot) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.PolicyClustersResolved, Status: metav1.ConditionTrue,
		Reason: v1alpha1.ReasonClustersResolved, Message: "every cluster that is named is a member",
		ObservedGeneration: s.Policy.Generation}
	var unknown, left []string
	for _, d := range []*v1alpha1.TrafficDistribution{s.Policy.Spec.Defaults, s.Policy.Spec.Overrides} {
		if d == nil {
			continue
		}
		named := clustersOf(d.Distribution)
		for _, cluster := range named {
			if !slices.Contains(s.Members, cluster) && !slices.Contains(unknown, cluster) {
				unknown = append(unknown, cluster)
			}
		}
		for _, member := range s.Members {
			if d.Distribution.Type == v1alpha1.DistributionPriority && !slices.Contains(named, member) && !slices.Contains(left, member) {
				left = append(left, member)
			}
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonUnknownCluster
		c.Message = fmt.Sprintf("no MemberCluster is named %s: correct the name or join the cluster; until then its share goes to the others",
			strings.Join(unknown, ", "))
	}
	if len(left) > 0 {
		slices.Sort(left)
		c.Message += "; in no tier, and so a last resort: " + strings.Join(left, ", ")
	}
	return c
}

// HasListener tells whether a Gateway has a listener of that name.
func HasListener(g *gatewayv1.Gateway, name string) bool {
	return slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool { return string(l.Name) == name })
}

// HasRule tells whether a route has a rule of that name.
func HasRule(r *gatewayv1.HTTPRoute, name string) bool {
	return slices.ContainsFunc(r.Spec.Rules, func(rule gatewayv1.HTTPRouteRule) bool { return string(deref(rule.Name)) == name })
}
