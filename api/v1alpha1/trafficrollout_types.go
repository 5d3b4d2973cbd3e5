// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TrafficRollout moves the requests of a route from one ServiceImport to another, in steps and cluster by cluster; or of one import
// from one cluster to another. It never changes the route: what it decides is laid over the route's split in
// each member, and stays in force until the route itself names the new side.
//
//	phase       | says
//	Pending     | it cannot begin: its message says what is missing; traffic is as the route says
//	Progressing | a step is being taken: its weights are being programmed, or measurements are made
//	Paused      | a step waits for its time, or for a person
//	Degraded    | it was aborted, or its deadline has passed; aborted, everything is at the old side
//	Healthy     | everything is at the new side
//
// Verbs are annotations with a value of your choice, each of which is acted on once for each new value:
// rollout.isthmus.dev/promote, promote-full, pause, resume, abort, retry and skip-analysis.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=tr,categories=isthmus
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Route",type=string,JSONPath=`.spec.route.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Wave",type=string,JSONPath=`.status.waveName`
// +kubebuilder:printcolumn:name="Step",type=integer,JSONPath=`.status.step`
// +kubebuilder:printcolumn:name="Weight",type=integer,JSONPath=`.status.weight`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficRollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TrafficRolloutSpec   `json:"spec"`
	Status TrafficRolloutStatus `json:"status,omitempty"`
}

// TrafficRolloutList is a list of TrafficRollouts.
//
// +kubebuilder:object:root=true
type TrafficRolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficRollout `json:"items"`
}

// TrafficRolloutSpec says what is moved, and how. A change of it begins anew, at the first step.
//
// +kubebuilder:validation:XValidation:rule="has(self.canary) != has(self.blueGreen)",message="say how to roll out: canary or blueGreen, and not both"
// +kubebuilder:validation:XValidation:rule="!has(self.waves) || !has(self.canary) || !has(self.canary.stable.cluster)",message="a move from one cluster to another has no waves"
type TrafficRolloutSpec struct {
	// Route is the HTTPRoute of the same namespace.
	Route RolloutRoute `json:"route"`

	// Canary moves a growing share.
	// +optional
	Canary *CanaryStrategy `json:"canary,omitempty"`

	// BlueGreen moves everything at once, when the new side has been looked at.
	// +optional
	BlueGreen *BlueGreenStrategy `json:"blueGreen,omitempty"`

	// Waves are the clusters that go together, one wave after the other; in each the steps are taken from the first to the
	// last. Without any, all clusters are one wave. A cluster that several select belongs to the first of them; one that none
	// selects stays with the old side.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Waves []RolloutWave `json:"waves,omitempty"`

	// ProgressDeadline is how long the rollout may go without any progress, pauses not counted, before it is said to be
	// Degraded: 1s to 24h, default 10m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="progressDeadline is 1s to 24h"
	ProgressDeadline *metav1.Duration `json:"progressDeadline,omitempty"`

	// ProgressDeadlineAbort aborts the rollout when the deadline passes.
	// +optional
	ProgressDeadlineAbort bool `json:"progressDeadlineAbort,omitempty"`
}

// RolloutRoute names a route.
type RolloutRoute struct {
	// Name of the HTTPRoute.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Rule restricts the rollout to the rule of this name; without it, every rule is meant that has the old side among its
	// backends.
	// +optional
	Rule *gatewayv1.SectionName `json:"rule,omitempty"`
}

// RolloutSide is one of the two sides of a rollout.
type RolloutSide struct {
	// Name of the ServiceImport, of the route's namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Cluster makes the side what this cluster serves of the import, for a move from one cluster to another: both sides have one then, and
	// the same import.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster,omitempty"`
}

// CanaryStrategy moves a share that grows step by step: of the requests that a cluster of the wave would serve, the
// step's share goes to its canary and the rest to its stable side.
//
// +kubebuilder:validation:XValidation:rule="has(self.stable.cluster) == has(self.canary.cluster)",message="either both sides have a cluster, or none"
// +kubebuilder:validation:XValidation:rule="has(self.stable.cluster) || self.stable.name != self.canary.name",message="stable and canary are the same: name two ServiceImports, or two clusters"
// +kubebuilder:validation:XValidation:rule="!has(self.stable.cluster) || !has(self.canary.cluster) || self.stable.name == self.canary.name && self.stable.cluster != self.canary.cluster",message="a move is between two clusters of one ServiceImport: give both sides the same name"
// +kubebuilder:validation:XValidation:rule="!has(self.stable.cluster) || !has(self.sticky) && !self.steps.exists(s, has(s.setHeaderRoute) || has(s.setMirror))",message="a move from one cluster to another has weights, pauses and analysis only"
type CanaryStrategy struct {
	// Stable is the old side.
	Stable RolloutSide `json:"stable"`

	// Canary is the new side.
	Canary RolloutSide `json:"canary"`

	// Steps are taken in their order; after the last one the wave goes to 100.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="!self.exists(s, has(s.setWeight) && s.setWeight == 100) || has(self[size(self)-1].setWeight) && self[size(self)-1].setWeight == 100 && self.filter(s, has(s.setWeight) && s.setWeight == 100).size() == 1",message="nothing follows a weight of 100: make it the last step"
	Steps []CanaryStep `json:"steps"`

	// Analysis that is made all the while, beside the steps.
	// +optional
	Analysis *RolloutAnalysis `json:"analysis,omitempty"`

	// Sticky keeps a client that was answered by the canary there, by a cookie.
	// +optional
	Sticky *RolloutSticky `json:"sticky,omitempty"`
}

// CanaryStep is one step, and exactly one thing.
//
// +kubebuilder:validation:XValidation:rule="[has(self.setWeight), has(self.pause), has(self.analysis), has(self.setHeaderRoute), has(self.setMirror)].filter(x, x).size() == 1",message="a step is exactly one of setWeight, pause, analysis, setHeaderRoute and setMirror"
type CanaryStep struct {
	// SetWeight gives the canary this share, in percent, 0 to 100. The step ends when every member has programmed it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	SetWeight *int32 `json:"setWeight,omitempty"`

	// Pause waits.
	// +optional
	Pause *RolloutPause `json:"pause,omitempty"`

	// Analysis measures, and goes on when that succeeded.
	// +optional
	Analysis *RolloutAnalysis `json:"analysis,omitempty"`

	// SetHeaderRoute sends the requests that match to the canary, whatever its weight.
	// +optional
	SetHeaderRoute *RolloutHeaderRoute `json:"setHeaderRoute,omitempty"`

	// SetMirror sends a copy of requests to the canary; its answers are dropped.
	// +optional
	SetMirror *RolloutMirror `json:"setMirror,omitempty"`
}

// RolloutPause waits for a time, or for a person.
type RolloutPause struct {
	// Duration of the pause, 0s to 720h, such as 10m. Without it, the pause lasts until somebody promotes.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('720h')",message="duration is 0s to 720h"
	Duration *gatewayv1.Duration `json:"duration,omitempty"`
}

// RolloutHeaderRoute sends requests with certain headers to the canary.
type RolloutHeaderRoute struct {
	// Match are the headers, all of which have to match (Gateway API, HTTPHeaderMatch). None ends the header route of an
	// earlier step.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Match []gatewayv1.HTTPHeaderMatch `json:"match,omitempty"`
}

// RolloutMirror sends copies of requests.
type RolloutMirror struct {
	// Percent of the requests, 0 to 100; 0 ends the mirror of an earlier step.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`
}

// RolloutSticky pins clients to the canary.
type RolloutSticky struct {
	// Cookie is the name of the cookie that the canary's answers set.
	// +optional
	// +kubebuilder:default="isthmus-canary"
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.-]{1,64}$`
	Cookie string `json:"cookie,omitempty"`
}

// BlueGreenStrategy moves everything at once. The new side can be looked at before, by a header or under a host name of its own.
//
// +kubebuilder:validation:XValidation:rule="self.active.name != self.preview.name",message="active and preview are the same: name two ServiceImports"
// +kubebuilder:validation:XValidation:rule="!has(self.active.cluster) && !has(self.preview.cluster)",message="blueGreen is between two ServiceImports: leave cluster out"
type BlueGreenStrategy struct {
	// Active is the old side.
	Active RolloutSide `json:"active"`

	// Preview is the new side.
	Preview RolloutSide `json:"preview"`

	// PreviewMatch are headers that lead to the preview before it is active.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	PreviewMatch []gatewayv1.HTTPHeaderMatch `json:"previewMatch,omitempty"`

	// PreviewHostname is a host name of its own under which the preview is reached until the rollout is over: the whole route, with the
	// preview in the place of the active side, and nothing of it under any other host name. A listener to which the route attaches has
	// to take the host name, and no other route may serve it.
	// +optional
	PreviewHostname gatewayv1.PreciseHostname `json:"previewHostname,omitempty"`

	// PrePromotionAnalysis has to succeed before the switch.
	// +optional
	PrePromotionAnalysis *RolloutAnalysis `json:"prePromotionAnalysis,omitempty"`

	// AutoPromotion switches without a person's word.
	// +optional
	AutoPromotion bool `json:"autoPromotion,omitempty"`

	// PostPromotionAnalysis is made after the switch; when it fails, everything goes back.
	// +optional
	PostPromotionAnalysis *RolloutAnalysis `json:"postPromotionAnalysis,omitempty"`

	// KeepWarm is how long the old side has to stay as it is after the switch, so that an abort is a rollback: 0s to 720h,
	// default 30s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('720h')",message="keepWarm is 0s to 720h"
	KeepWarm *metav1.Duration `json:"keepWarm,omitempty"`
}

// RolloutWave is a set of clusters that go together.
//
// +kubebuilder:validation:XValidation:rule="has(self.clusters) != has(self.clusterSelector)",message="a wave has either clusters or a clusterSelector"
type RolloutWave struct {
	// Name of the wave.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Clusters are MemberClusters by name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Clusters []string `json:"clusters,omitempty"`

	// ClusterSelector selects MemberClusters by their labels.
	// +optional
	ClusterSelector *metav1.LabelSelector `json:"clusterSelector,omitempty"`

	// Hold is how long the wave has to be well at 100 before the next one starts: 0s to 720h, default 0s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('720h')",message="hold is 0s to 720h"
	Hold *metav1.Duration `json:"hold,omitempty"`
}

// RolloutPhase is where a rollout stands.
type RolloutPhase string

const (
	// RolloutPending cannot begin.
	RolloutPending RolloutPhase = "Pending"
	// RolloutProgressing takes a step.
	RolloutProgressing RolloutPhase = "Progressing"
	// RolloutPaused waits for a time or a person.
	RolloutPaused RolloutPhase = "Paused"
	// RolloutDegraded was aborted, or its deadline has passed.
	RolloutDegraded RolloutPhase = "Degraded"
	// RolloutHealthy is complete.
	RolloutHealthy RolloutPhase = "Healthy"
)

// TrafficRolloutStatus is where the rollout stands. It is also all that is remembered of it: a hub that restarts goes on
// from here.
type TrafficRolloutStatus struct {
	// ObservedGeneration is the newest generation of the spec that was seen.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Laid is what the weights are of: a spec that cannot run changes neither.
	// +optional
	Laid *RolloutLaid `json:"laid,omitempty"`

	// Phase of the rollout.
	// +optional
	Phase RolloutPhase `json:"phase,omitempty"`

	// Message says why, and what to do next.
	// +optional
	Message string `json:"message,omitempty"`

	// Wave is the index of the wave that is under way; the number of waves when all are done.
	// +optional
	Wave int32 `json:"wave,omitempty"`

	// WaveName is its name.
	// +optional
	WaveName string `json:"waveName,omitempty"`

	// Step is the index of the step of the wave that is under way; the number of steps when all are done.
	// +optional
	Step int32 `json:"step,omitempty"`

	// Weight of the canary in the wave that is under way, in percent.
	// +optional
	Weight int32 `json:"weight,omitempty"`

	// StepStarted is when the step began.
	// +optional
	StepStarted *metav1.MicroTime `json:"stepStarted,omitempty"`

	// AnalysisStarted is since when the wave that is under way can be measured beside its steps: since it began, and since requests
	// reach the new side by it.
	// +optional
	AnalysisStarted *metav1.MicroTime `json:"analysisStarted,omitempty"`

	// Progressed is when the rollout last made progress, or last began to be allowed to.
	// +optional
	Progressed *metav1.MicroTime `json:"progressed,omitempty"`

	// Paused is whether a person paused it.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// Promoted is how far a person has promoted it.
	// +optional
	Promoted RolloutPromotion `json:"promoted,omitempty"`

	// Aborted is why everything is at the old side; empty where it is not.
	// +optional
	Aborted string `json:"aborted,omitempty"`

	// Clusters and how much of what each serves goes to the new side, sorted by name.
	// +optional
	// +listType=map
	// +listMapKey=cluster
	Clusters []RolloutCluster `json:"clusters,omitempty"`

	// Retired is whether the route itself names the new side: nothing is laid over it any more, and the rollout can be deleted.
	// +optional
	Retired bool `json:"retired,omitempty"`

	// HeaderRoute that is in force.
	// +optional
	// +listType=atomic
	HeaderRoute []gatewayv1.HTTPHeaderMatch `json:"headerRoute,omitempty"`

	// PreviewHostname is the host name under which the new side is reached by itself.
	// +optional
	PreviewHostname gatewayv1.PreciseHostname `json:"previewHostname,omitempty"`

	// Mirror is the percentage of requests that are copied to the new side.
	// +optional
	Mirror int32 `json:"mirror,omitempty"`

	// Handled are the values of verbs that have been acted on.
	// +optional
	Handled map[string]string `json:"handled,omitempty"`

	// Analysis that is under way, or was made last.
	// +optional
	// +listType=atomic
	Analysis []MetricStatus `json:"analysis,omitempty"`

	// Conditions: Accepted, Progressing, Completed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RolloutPromotion is a person's word to go on.
//
// +kubebuilder:validation:Enum="";Step;Full
type RolloutPromotion string

const (
	// PromotedStep ends the step that is under way.
	PromotedStep RolloutPromotion = "Step"
	// PromotedFull skips everything up to the end.
	PromotedFull RolloutPromotion = "Full"
)

// RolloutLaid is the spec that was begun last.
type RolloutLaid struct {
	// Generation of that spec.
	Generation int64 `json:"generation"`
	// From is its old side.
	From RolloutSide `json:"from"`
	// To is its new side.
	To RolloutSide `json:"to"`
}

// RolloutCluster is how far a cluster is.
type RolloutCluster struct {
	// Cluster is the MemberCluster.
	Cluster string `json:"cluster"`
	// Wave to which it belongs.
	Wave string `json:"wave"`
	// Weight is the percentage of what it serves that goes to the new side.
	Weight int32 `json:"weight"`
	// Message says what is waited for; empty where nothing is.
	// +optional
	Message string `json:"message,omitempty"`
}
