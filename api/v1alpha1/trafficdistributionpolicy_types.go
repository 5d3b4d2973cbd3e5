// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TrafficDistributionPolicy says how the requests of its targets are spread over the clusters that export
// their backends. It is a policy attachment (GEP-713) with defaults and overrides (GEP-2649): of the
// overrides the one attached highest wins (Gateway, listener, route, rule, ServiceImport), of the defaults the
// one attached lowest.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=tdp,categories=isthmus
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficDistributionPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TrafficDistributionPolicySpec `json:"spec"`
	Status gatewayv1.PolicyStatus        `json:"status,omitempty"`
}

// TrafficDistributionPolicyList is a list of TrafficDistributionPolicies.
//
// +kubebuilder:object:root=true
type TrafficDistributionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficDistributionPolicy `json:"items"`
}

// TrafficDistributionPolicySpec is the targets and what is said of them.
//
// +kubebuilder:validation:XValidation:rule="has(self.defaults) || has(self.overrides)",message="say something in defaults or in overrides"
type TrafficDistributionPolicySpec struct {
	// TargetRefs are objects of the policy's own namespace: a Gateway or one of its listeners (sectionName), an
	// HTTPRoute or one of its named rules (sectionName), a ServiceImport.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, (t.group == 'gateway.networking.k8s.io' && t.kind in ['Gateway', 'HTTPRoute']) || (t.group == 'multicluster.x-k8s.io' && t.kind == 'ServiceImport'))",message="a target is a Gateway or an HTTPRoute of gateway.networking.k8s.io, or a ServiceImport of multicluster.x-k8s.io"
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.kind != 'ServiceImport' || !has(t.sectionName))",message="a ServiceImport has no sections: leave sectionName out"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.group == b.group && a.kind == b.kind && a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",message="each target may be named once"
	TargetRefs []gatewayv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// Defaults hold where nothing more specific says otherwise.
	// +optional
	Defaults *TrafficDistribution `json:"defaults,omitempty"`

	// Overrides hold whatever is said below the target.
	// +optional
	Overrides *TrafficDistribution `json:"overrides,omitempty"`
}

// TrafficDistribution is what a policy can say. What it leaves out is said by the other policies along the way.
//
// +kubebuilder:validation:MinProperties=1
type TrafficDistribution struct {
	// Distribution over the clusters that export a backend.
	// +optional
	Distribution Distribution `json:"distribution,omitzero"`
	// Health is how it is found out whether a cluster serves.
	// +optional
	Health *Health `json:"health,omitempty"`
	// Failback is how a cluster returns that did not take its whole part.
	// +optional
	Failback *Failback `json:"failback,omitempty"`
}

// Health is how it is found out whether a cluster serves, and for how much of its part.
type Health struct {
	// MinReadyPercent is the share of its endpoints that have to be ready for a cluster to take its whole part. Below it
	// takes less in proportion, and the others take the rest. It is compared in steps of 10 %. Default 70.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MinReadyPercent *int32 `json:"minReadyPercent,omitempty"`
	// Probe looks at the service in each cluster from outside. Without it, endpoints alone decide.
	// +optional
	Probe *Probe `json:"probe,omitempty"`
	// Metric asks a Prometheus about the service in each cluster.
	// +optional
	Metric *Metric `json:"metric,omitempty"`
}

// FailbackMode names who lets a cluster return.
//
// +kubebuilder:validation:Enum=Automatic;Manual
type FailbackMode string

const (
	// FailbackAutomatic lets a cluster return by itself, after a hold and step by step.
	FailbackAutomatic FailbackMode = "Automatic"
	// FailbackManual leaves a cluster that was out where it is until a person says so, by a TrafficOverride of type
	// Failback, or until no other cluster is fit.
	FailbackManual FailbackMode = "Manual"
)

// Failback is how a cluster returns that did not take its whole part, because of its health or of a drain that has ended.
// Leaving is never delayed, and neither is returning where no other cluster is fit.
//
// +kubebuilder:validation:XValidation:rule="!has(self.hold) || !has(self.maxHold) || duration(self.hold) <= duration(self.maxHold)",message="maxHold is shorter than hold: the hold doubles up to maxHold"
type Failback struct {
	// Mode is Automatic, or Manual. Default Automatic.
	// +optional
	Mode FailbackMode `json:"mode,omitempty"`

	// MinReadyPercent is the share of its endpoints that have to be ready before a cluster that was out returns at all.
	// It is compared in steps of 10 %. Default 50.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MinReadyPercent *int32 `json:"minReadyPercent,omitempty"`

	// Hold is how long a cluster has to be well before it returns, such as 15s, which is the default; at most 24h. 0s lets
	// it return at once, and does not double. It doubles with each return since the cluster was last well for MaxHold.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="at most 24h"
	Hold *gatewayv1.Duration `json:"hold,omitempty"`

	// MaxHold is the longest hold, and how long a cluster has to take its whole part for its former returns to be
	// forgotten. Default 10m, or Hold where that is longer; at most 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="at most 24h"
	MaxHold *gatewayv1.Duration `json:"maxHold,omitempty"`

	// Ramp is how the part of a returning cluster grows.
	// +optional
	Ramp *FailbackRamp `json:"ramp,omitempty"`
}

// FailbackRamp is how the part of a returning cluster grows.
type FailbackRamp struct {
	// Steps are percentages of its part, rising, the last 100. Default 25, 50, 100; [100] returns all of it at once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=100
	// +kubebuilder:validation:XValidation:rule="self.isSorted() && self[size(self) - 1] == 100",message="the steps rise, and the last is 100"
	Steps []int32 `json:"steps,omitempty"`

	// Interval between two steps, such as 5s, which is the default; at most 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="at most 24h"
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
}

// DistributionType names a way to spread requests over clusters.
//
// +kubebuilder:validation:Enum=Local;Weighted;Priority
type DistributionType string

const (
	// DistributionLocal serves a request in the cluster that it entered while that cluster is fit, else in the
	// same zone, else in the same region, else anywhere fit. It holds where no policy says otherwise.
	DistributionLocal DistributionType = "Local"
	// DistributionWeighted spreads requests by the given weights, re-normalised over the fit clusters.
	DistributionWeighted DistributionType = "Weighted"
	// DistributionPriority serves requests in the first tier of clusters in which one is fit.
	DistributionPriority DistributionType = "Priority"
)

// Distribution is how requests are spread over clusters.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'Weighted' ? has(self.weights) : !has(self.weights)",message="weights belong to type Weighted, and type Weighted needs them"
// +kubebuilder:validation:XValidation:rule="self.type == 'Priority' ? has(self.tiers) : !has(self.tiers)",message="tiers belong to type Priority, and type Priority needs them"
type Distribution struct {
	// Type of the distribution.
	Type DistributionType `json:"type"`
	// Weights of the clusters, for type Weighted. A cluster that is not named gets no share while a named one
	// is fit, and serves as a last resort.
	// +optional
	// +listType=map
	// +listMapKey=cluster
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.exists(w, w.weight > 0)",message="all weights are 0, which would serve nobody: give at least one cluster a weight above 0"
	Weights []ClusterWeight `json:"weights,omitempty"`
	// Tiers of clusters, for type Priority: the first in which a cluster is fit serves everything, by its weights. A
	// cluster that is in none serves as a last resort.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.clusters.all(c, self.exists_one(u, u.clusters.exists(d, d.cluster == c.cluster))))",message="a cluster is in two tiers: name it in one"
	Tiers []DistributionTier `json:"tiers,omitempty"`
}

// DistributionTier is a set of clusters that serve before those of the next tier do.
type DistributionTier struct {
	// Clusters of the tier, and how they share its requests.
	// +listType=map
	// +listMapKey=cluster
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.exists(w, w.weight > 0)",message="all weights of the tier are 0, which would serve nobody: give at least one cluster a weight above 0"
	Clusters []ClusterWeight `json:"clusters"`
}

// ClusterWeight is the share of one cluster.
type ClusterWeight struct {
	// Cluster is the name of a MemberCluster.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster"`
	// Weight relative to the sum of the weights. 0 keeps the cluster as a last resort.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Weight int32 `json:"weight"`

	// Capacity is how much of all requests of a backend the cluster can carry, in percent. What it cannot is given to the
	// others of its tier, in proportion to their weights, then to the next tier. Where all are full, the requests are
	// spread in proportion to what each takes, and a condition says who is over. Without it, it can carry all.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self > 0",message="a cluster of capacity 0 could serve nobody: give it weight 0 to keep it as a last resort, or leave it out"
	// +kubebuilder:validation:Maximum=100
	Capacity *int32 `json:"capacity,omitempty"`
}
