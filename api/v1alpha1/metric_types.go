// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"math"
	"strconv"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Prometheus is where the metrics of a cluster are asked for: a Prometheus, or what speaks its HTTP API, such as Thanos.
type Prometheus struct {
	// URL before /api/v1, with http or https; a path is kept. Credentials belong in the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="an address that begins with http:// or https://"
	// +kubebuilder:validation:XValidation:rule="!self.contains('@') && !self.contains('?') && !self.contains('#')",message="no user, query or fragment: credentials belong in the Secret that secretRef names"
	URL string `json:"url"`
	// SecretRef names a Secret in the hub's namespace of Isthmus (isthmus-system) with any of the keys token, or username
	// and password, and ca.crt (PEM; the system's authorities where it is not given).
	// +optional
	SecretRef *SecretRef `json:"secretRef,omitempty"`
}

// SecretRef names a Secret in the hub's namespace of Isthmus.
type SecretRef struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Metric is a Prometheus query by whose value a service is seen well or ill in a cluster. It is asked of the cluster's own
// Prometheus (MemberCluster, spec.prometheus), else of that of the hub. It has a say once it was well in some cluster.
//
// +kubebuilder:validation:XValidation:rule="has(self.illAbove) || has(self.illBelow)",message="say from where on it is ill: illAbove, illBelow, or both"
// +kubebuilder:validation:XValidation:rule="!has(self.illAbove) || !has(self.illBelow) || double(self.illBelow) <= double(self.illAbove)",message="illBelow is greater than illAbove: no value would be well"
// +kubebuilder:validation:XValidation:rule="duration(self.timeout) <= duration(self.interval)",message="timeout is longer than interval: make it at most as long"
type Metric struct {
	// Name says in words what is measured, such as "error rate"; it is what messages call it.
	// +optional
	// +kubebuilder:default="metric"
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\s]+( [^\s]+)*$`
	Name string `json:"name,omitempty"`
	// Query in PromQL that gives one value: a scalar, or a vector of one sample. {{ namespace }} and {{ service }} stand
	// for those of the ServiceImport, {{ cluster }} for the name of the MemberCluster.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="the query is empty"
	// +kubebuilder:validation:XValidation:rule="self.matches('^([^{]|[{][^{]|[{][{] *(namespace|service|cluster) *[}][}])*$')",message="variables are {{ namespace }}, {{ service }} and {{ cluster }}; there is no other"
	Query string `json:"query"`
	// IllAbove is the greatest value that is well, such as "0.05".
	// +optional
	IllAbove *Decimal `json:"illAbove,omitempty"`
	// IllBelow is the least value that is well, such as "0.95".
	// +optional
	IllBelow *Decimal `json:"illBelow,omitempty"`
	// Interval between two queries for one cluster, 1s to 10m.
	// +optional
	// +kubebuilder:default="15s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="interval is 1s to 10m"
	Interval gatewayv1.Duration `json:"interval,omitempty"`
	// Timeout of one query, 100ms to 1m, and at most the interval.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="timeout is 100ms to 1m"
	Timeout gatewayv1.Duration `json:"timeout,omitempty"`
	// Rise is how many values in a row have to be well before the cluster is seen well again, 1 to 10.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Rise int32 `json:"rise,omitempty"`
	// Fall is how many values in a row have to be ill before the cluster is seen ill, 1 to 10. Where the query gives no
	// value so many times in a row, what was seen is forgotten.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Fall int32 `json:"fall,omitempty"`
}

// Decimal is a number as text, such as "0.05": a number of its own kind would be rounded by those who read and write it.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^-?[0-9]+(\.[0-9]+)?$`
type Decimal string

// Float is the number, and NaN, with which everything compares false, where it is none.
func (d Decimal) Float() float64 {
	f, err := strconv.ParseFloat(string(d), 64)
	if err != nil {
		return math.NaN()
	}
	return f
}
