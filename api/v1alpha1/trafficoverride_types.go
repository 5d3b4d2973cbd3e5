// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrafficOverride is a person's word, which beats policies, health and whatever else decides by itself: drain a
// cluster, pin or hold routes, freeze everything. It says who and why, and may end by itself. Where several concern
// one rule of a route, this decides:
//
//	Freeze | Hold of the route | Drain of a cluster | Pin of the route | what holds
//	yes    | any               | any                | any              | the weights that were last decided
//	no     | yes               | any                | any              | the weights that were last decided
//	no     | no                | yes                | yes              | the pin's weights, without the drained cluster
//	no     | no                | yes                | no               | the policy's, without the drained cluster
//	no     | no                | no                 | yes              | the pin's weights, whatever health says
//	no     | no                | no                 | no               | the policy's weights
//
// Of two pins of one route the older holds, by creation time and then by name. A drain leaves a cluster where it is,
// for those backends which no other cluster is fit to serve, unless it is forced.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=to,categories=isthmus
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.cluster`
// +kubebuilder:printcolumn:name="InForce",type=string,JSONPath=`.status.conditions[?(@.type=="InForce")].reason`
// +kubebuilder:printcolumn:name="Drained",type=string,JSONPath=`.status.conditions[?(@.type=="Drained")].reason`
// +kubebuilder:printcolumn:name="Author",type=string,JSONPath=`.spec.author`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.spec.expires`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficOverride struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TrafficOverrideSpec   `json:"spec"`
	Status TrafficOverrideStatus `json:"status,omitempty"`
}

// TrafficOverrideList is a list of TrafficOverrides.
//
// +kubebuilder:object:root=true
type TrafficOverrideList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficOverride `json:"items"`
}

// OverrideType names what a TrafficOverride does.
//
// +kubebuilder:validation:Enum=Drain;Hold;Pin;Freeze;Failback
type OverrideType string

const (
	// OverrideDrain takes a cluster, or some services in it, out of every split while another cluster is fit. New
	// requests go elsewhere; those that are being served are left to end.
	OverrideDrain OverrideType = "Drain"
	// OverrideHold keeps the weights of some routes as they were last decided.
	OverrideHold OverrideType = "Hold"
	// OverridePin gives the clusters of some routes these weights, whatever policies and health say.
	OverridePin OverrideType = "Pin"
	// OverrideFreeze keeps the weights of every route, and the addresses of every Gateway, as they were last decided.
	OverrideFreeze OverrideType = "Freeze"
	// OverrideFailback lets a cluster return that had left before the override was made, at once, where its policy leaves
	// that to a person or still holds it. It returns step by step. What leaves later waits again.
	OverrideFailback OverrideType = "Failback"
)

// TrafficOverrideSpec is what a person says.
//
// +kubebuilder:validation:XValidation:rule="self.type in ['Drain', 'Failback'] ? has(self.cluster) : !has(self.cluster)",message="cluster belongs to the types Drain and Failback, and these need it: name the MemberCluster"
// +kubebuilder:validation:XValidation:rule="self.type in ['Drain', 'Failback'] || !has(self.imports)",message="imports belong to the types Drain and Failback"
// +kubebuilder:validation:XValidation:rule="self.type == 'Drain' || !has(self.force) || !self.force",message="force belongs to type Drain"
// +kubebuilder:validation:XValidation:rule="self.type in ['Hold', 'Pin'] ? has(self.routes) : !has(self.routes)",message="routes belong to the types Hold and Pin, and these need them; to hold every route, use type Freeze"
// +kubebuilder:validation:XValidation:rule="self.type == 'Pin' ? has(self.weights) : !has(self.weights)",message="weights belong to type Pin, and type Pin needs them"
// +kubebuilder:validation:XValidation:rule="!has(self.weights) || self.weights.all(w, !has(w.capacity))",message="a pin's weights are given whatever a cluster can carry: capacity belongs to a policy"
// +kubebuilder:validation:XValidation:rule="self.type == 'Drain' || !has(self.gracePeriod)",message="gracePeriod belongs to type Drain"
type TrafficOverrideSpec struct {
	// Type of the override.
	Type OverrideType `json:"type"`

	// Cluster is the MemberCluster to be drained, for type Drain, or to return, for type Failback.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster,omitempty"`

	// Imports restricts a drain or a failback to these services in the cluster; without it it is for all, and a drained
	// cluster's gateways leave the addresses of the hub's Gateways.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Imports []ObjectReference `json:"imports,omitempty"`

	// Force drains the cluster also where no other is fit: these requests then go to clusters that are not fit, or
	// answer 500 where there is no other at all.
	// +optional
	Force bool `json:"force,omitempty"`

	// GracePeriod is how long the requests that a drained cluster already has are given to end, after every member has
	// confirmed that nothing new is sent there; only then it is said to be Drained. 0s to 24h; default 30s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="gracePeriod is 0s to 24h"
	GracePeriod *metav1.Duration `json:"gracePeriod,omitempty"`

	// Routes are the HTTPRoutes in the hub that are held or pinned, for the types Hold and Pin.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Routes []ObjectReference `json:"routes,omitempty"`

	// Weights of the clusters, for type Pin. A cluster that is not named, or named with 0, gets nothing while one with
	// weight exports the backend. Where none of these exports it, the backend's policy goes on to decide.
	// +optional
	// +listType=map
	// +listMapKey=cluster
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.exists(w, w.weight > 0)",message="all weights are 0, which would serve nobody: give at least one cluster a weight above 0"
	Weights []ClusterWeight `json:"weights,omitempty"`

	// Author is who says it: a name that whoever is on call can ask.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`\S`
	Author string `json:"author"`

	// Reason is why, in words for whoever is on call.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`\S`
	Reason string `json:"reason"`

	// Expires is when it ends by itself. Without it, it holds until it is deleted.
	// +optional
	Expires *metav1.Time `json:"expires,omitempty"`
}

// ObjectReference names an object of the hub whose kind follows from the field.
type ObjectReference struct {
	// Namespace of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// TrafficOverrideStatus is what became of it.
type TrafficOverrideStatus struct {
	// Conditions: Accepted, InForce and, of a drain, Drained.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// EmptySince is since when no route sends anything new to the drained cluster, as confirmed by every member.
	// +optional
	EmptySince *metav1.Time `json:"emptySince,omitempty"`
}

// DrainGracePeriod is for how long requests in flight are waited for where a drain does not say.
const DrainGracePeriod = 30 * time.Second

// DrainGrace is for how long requests in flight are waited for.
func (s TrafficOverrideSpec) DrainGrace() time.Duration {
	if s.GracePeriod == nil {
		return DrainGracePeriod
	}
	return s.GracePeriod.Duration
}
