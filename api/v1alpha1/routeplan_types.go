// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RoutePlan says what was decided for one route in one member: every weight with its reason, and whether the
// member has programmed it. It is written by Isthmus alone, named "<kind>-<route>-<member>" and owned by the
// route. It has no spec, since it decides nothing; it also remembers the last good split.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=rp,categories=isthmus
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Route",type=string,JSONPath=`.status.route`
// +kubebuilder:printcolumn:name="Member",type=string,JSONPath=`.status.member`
// +kubebuilder:printcolumn:name="Split",type=string,JSONPath=`.status.summary`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RoutePlan struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status RoutePlanStatus `json:"status,omitempty"`
}

// RoutePlanList is a list of RoutePlans.
//
// +kubebuilder:object:root=true
type RoutePlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RoutePlan `json:"items"`
}

// RoutePlanStatus is the decision and how far it has come.
type RoutePlanStatus struct {
	// Route is "<kind>/<name>" of the hub route.
	// +optional
	Route string `json:"route,omitempty"`
	// Member is the name of the MemberCluster in which the route was planned.
	// +optional
	Member string `json:"member,omitempty"`
	// ObservedGeneration of the hub route that was planned.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Summary is the split in one line, such as "eks 80.00% gke 20.00%".
	// +optional
	Summary string `json:"summary,omitempty"`
	// Rules of the route in their order.
	// +optional
	// +listType=atomic
	Rules []PlannedRule `json:"rules,omitempty"`
	// Conditions: Written, Programmed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PlannedRule is the split of one rule.
type PlannedRule struct {
	// Name of the rule, or its index where it has none.
	Name string `json:"name"`
	// Policy that decided the distribution, namespace/name; empty where the default holds.
	// +optional
	Policy string `json:"policy,omitempty"`
	// Backends in the order in which they are written.
	// +optional
	// +listType=atomic
	Backends []PlannedBackend `json:"backends,omitempty"`
}

// PlannedBackend is the weight of one (import, cluster) and why.
type PlannedBackend struct {
	// Import is namespace/name of the ServiceImport; empty for a backend that is passed through as written.
	// +optional
	Import string `json:"import,omitempty"`
	// Port of the import.
	// +optional
	Port int32 `json:"port,omitempty"`
	// Cluster that serves this share.
	// +optional
	Cluster string `json:"cluster,omitempty"`
	// Weight as written in the member.
	Weight int32 `json:"weight"`
	// Verdict on the service in that cluster: Fit, Unfit or Unknown.
	// +optional
	Verdict string `json:"verdict,omitempty"`
	// Reason for the weight, one of the Weight… constants.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message says it in words.
	// +optional
	Message string `json:"message,omitempty"`
	// Health is what is remembered of a cluster that does not take its whole part, or did not until recently.
	// +optional
	Health *BackendHealth `json:"health,omitempty"`
}

// HealthPhase names where a cluster is between taking its whole part and taking none.
//
// +kubebuilder:validation:Enum=Starting;Out;Drained;Degraded;Holding;Returning;Full
type HealthPhase string

const (
	// HealthStarting has never taken its whole part: it takes what it can.
	HealthStarting HealthPhase = "Starting"
	// HealthOut takes nothing, because it is not fit.
	HealthOut HealthPhase = "Out"
	// HealthDrained takes nothing, because a person said so.
	HealthDrained HealthPhase = "Drained"
	// HealthDegraded takes a part of its part, because only a part of its endpoints is ready.
	HealthDegraded HealthPhase = "Degraded"
	// HealthHolding could take more than it does, and waits for its hold to end or for a person.
	HealthHolding HealthPhase = "Holding"
	// HealthReturning could take more than it does, and is given more step by step.
	HealthReturning HealthPhase = "Returning"
	// HealthFull takes its whole part, and has returned recently.
	HealthFull HealthPhase = "Full"
)

// BackendHealth is what is remembered, also over a restart, of a cluster that does not take its whole part.
type BackendHealth struct {
	// Phase is where the cluster is.
	Phase HealthPhase `json:"phase"`
	// Percent of its part that it may take, from 0 to 100.
	Percent int32 `json:"percent"`
	// Since is when it came to take that.
	Since metav1.MicroTime `json:"since"`
	// Well is since when it could take more, while Holding.
	// +optional
	Well *metav1.MicroTime `json:"well,omitempty"`
	// Returns is how often it has returned since it was last well for long: each doubles the next hold.
	// +optional
	Returns int32 `json:"returns,omitempty"`
	// ReadyPercent is the share of its endpoints that is ready, in steps of 10 %.
	// +optional
	ReadyPercent int32 `json:"readyPercent,omitempty"`
	// PeakEndpoints is the number of endpoints of which that is the share.
	// +optional
	PeakEndpoints int32 `json:"peakEndpoints,omitempty"`
}
