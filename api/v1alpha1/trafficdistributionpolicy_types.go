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
}

// Health is how it is found out whether a cluster serves.
type Health struct {
	// Probe looks at the service in each cluster from outside. Without it, endpoints alone decide.
	// +optional
	Probe *Probe `json:"probe,omitempty"`
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
}
