// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RolloutAnalysis is a set of metrics, all of which have to succeed. The names of the fields, and what they do, are those of
// Argo Rollouts' AnalysisTemplate.
type RolloutAnalysis struct {
	// Metrics to be measured.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Metrics []RolloutMetric `json:"metrics"`
}

// RolloutMetric is measured a number of times.
//
//	measurement  | when
//	Successful   | the success condition holds, and the failure condition does not
//	Failed       | the failure condition holds; or there is none, and the success condition does not hold
//	Inconclusive | neither holds; or there is no data; or the canary has had no traffic
//	Error        | there is no answer, or none that can be judged
//
// +kubebuilder:validation:XValidation:rule="has(self.successCondition) || has(self.failureCondition) || has(self.provider.webhook)",message="say what is good or bad: successCondition or failureCondition"
type RolloutMetric struct {
	// Name of the metric.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Provider that is asked.
	Provider MetricProvider `json:"provider"`

	// SuccessCondition is an expression over `result`, such as `result[0] >= 0.95`.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	SuccessCondition string `json:"successCondition,omitempty"`

	// FailureCondition is an expression over `result`.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	FailureCondition string `json:"failureCondition,omitempty"`

	// InitialDelay before the first measurement, up to 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="initialDelay is 0s to 24h"
	InitialDelay *metav1.Duration `json:"initialDelay,omitempty"`

	// Interval between two measurements, 1s to 24h; default 10s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="interval is 1s to 24h"
	Interval *metav1.Duration `json:"interval,omitempty"`

	// Count of measurements, 1 to 1000; default 1. Beside the steps, measurements go on until the last step whatever the count.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Count int32 `json:"count,omitempty"`

	// FailureLimit is how many measurements may fail; one more fails the metric, and aborts the rollout.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FailureLimit int32 `json:"failureLimit,omitempty"`

	// InconclusiveLimit is how many measurements may be inconclusive; one more pauses the rollout for a person to decide.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InconclusiveLimit int32 `json:"inconclusiveLimit,omitempty"`

	// ConsecutiveErrorLimit is how many measurements in a row may end in an error, default 4; one more pauses the rollout
	// for a person to decide.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=0
	ConsecutiveErrorLimit *int32 `json:"consecutiveErrorLimit,omitempty"`
}

// MetricProvider is who is asked, exactly one.
//
// +kubebuilder:validation:XValidation:rule="has(self.prometheus) != has(self.webhook)",message="a metric has exactly one provider: prometheus or webhook"
type MetricProvider struct {
	// Prometheus is asked a query.
	// +optional
	Prometheus *PrometheusMetric `json:"prometheus,omitempty"`

	// Webhook is posted to, and answers what it thinks.
	// +optional
	Webhook *WebhookMetric `json:"webhook,omitempty"`
}

// PrometheusMetric is a query.
type PrometheusMetric struct {
	// Query in PromQL that gives one value or a vector. {{wave}}, {{cluster}}, {{namespace}}, {{stable}} and {{canary}} are
	// filled in.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query"`

	// PerCluster asks once for each cluster of the wave, of the cluster's own Prometheus where it has one; each has to succeed.
	// +optional
	PerCluster bool `json:"perCluster,omitempty"`
}

// WebhookMetric is an HTTP endpoint that is sent where the rollout stands, as JSON, and answers with 200 to 299 for a success, with 4xx
// for a failure. Anything else is an error, and so are 401, 403, 404, 405, 407, 408, 410, 421, 425 and 429: nobody read the question.
type WebhookMetric struct {
	// URL of the endpoint.
	// +kubebuilder:validation:Pattern=`^https?://`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
}

// MeasurementPhase is what a measurement came to.
type MeasurementPhase string

const (
	// MeasurementSuccessful is a success.
	MeasurementSuccessful MeasurementPhase = "Successful"
	// MeasurementFailed is a failure.
	MeasurementFailed MeasurementPhase = "Failed"
	// MeasurementInconclusive is neither.
	MeasurementInconclusive MeasurementPhase = "Inconclusive"
	// MeasurementError could not be made.
	MeasurementError MeasurementPhase = "Error"
)

// MetricStatus is what a metric has come to.
type MetricStatus struct {
	// Name of the metric, and Cluster of which it was measured; empty for all.
	Name string `json:"name"`
	// Wave and Step to which it belongs; the step is -1 of an analysis that is made beside the steps.
	Wave int32 `json:"wave"`
	Step int32 `json:"step"`
	// +optional
	Cluster string `json:"cluster,omitempty"`
	// Phase of the metric; empty while it is under way.
	// +optional
	Phase MeasurementPhase `json:"phase,omitempty"`
	// Counts of measurements by what they came to.
	// +optional
	Successful int32 `json:"successful,omitempty"`
	// +optional
	Failed int32 `json:"failed,omitempty"`
	// +optional
	Inconclusive int32 `json:"inconclusive,omitempty"`
	// +optional
	ConsecutiveErrors int32 `json:"consecutiveErrors,omitempty"`
	// Last are the newest measurements, at most five, the newest last.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5
	Last []Measurement `json:"last,omitempty"`
}

// Measurement is one.
type Measurement struct {
	// Phase is what it came to.
	Phase MeasurementPhase `json:"phase"`
	// Value that was measured.
	// +optional
	Value string `json:"value,omitempty"`
	// Message says more where it is not a success.
	// +optional
	Message string `json:"message,omitempty"`
	// Time of the measurement.
	Time metav1.MicroTime `json:"time"`
}
