// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Probe is how the hub looks at a service in each cluster: through the cluster's own gateway and, when that fails,
// through the gateways of others. A service has one probe: that of the first of its routes that has one, by
// namespace (its own before others) and name. It has a say once it has succeeded in some cluster.
//
// +kubebuilder:validation:XValidation:rule="has(self.http) != has(self.grpc)",message="say how to probe: http or grpc, and not both"
// +kubebuilder:validation:XValidation:rule="duration(self.timeout) <= duration(self.interval)",message="timeout is longer than interval: make it at most as long"
type Probe struct {
	// HTTP makes a GET request.
	// +optional
	HTTP *HTTPProbe `json:"http,omitempty"`
	// GRPC calls grpc.health.v1.Health/Check and wants SERVING.
	// +optional
	GRPC *GRPCProbe `json:"grpc,omitempty"`
	// Port of the import, 1 to 65535; where it is not given, the port that the route's backendRef names.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// TLS is for Gateways that have only HTTPS listeners.
	// +optional
	TLS *ProbeTLS `json:"tls,omitempty"`
	// Interval between two looks at one cluster, 500ms to 5m. While the newest look contradicts what was last known, a
	// quarter of it.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('500ms') && duration(self) <= duration('5m')",message="interval is 500ms to 5m"
	Interval gatewayv1.Duration `json:"interval,omitempty"`
	// Timeout of one look, 100ms to 1m, and at most the interval.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="timeout is 100ms to 1m"
	Timeout gatewayv1.Duration `json:"timeout,omitempty"`
	// Rise is how many looks in a row have to succeed before the cluster is seen well again, 1 to 10.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Rise int32 `json:"rise,omitempty"`
	// Fall is how many looks in a row have to fail before the cluster is seen ill, 1 to 10.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Fall int32 `json:"fall,omitempty"`
	// HubsWordIsEnough lets traffic be moved when the hub's own looks fail and no other cluster can be asked. Without
	// it nothing moves then, since it may be the hub that is cut off.
	// +optional
	HubsWordIsEnough bool `json:"hubsWordIsEnough,omitempty"`
}

// HTTPProbe is a GET request. Redirects are not followed.
type HTTPProbe struct {
	// Path of the request, without query.
	// +optional
	// +kubebuilder:default="/"
	// +kubebuilder:validation:Pattern=`^/[^?#\s]*$`
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// Host that the service sees; where it is not given, the first of the route's host names that has no wildcard.
	// +optional
	Host *gatewayv1.PreciseHostname `json:"host,omitempty"`
	// Statuses that are a success, 100 to 599; where none is given, 200 to 299.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=100
	// +kubebuilder:validation:items:Maximum=599
	Statuses []int32 `json:"statuses,omitempty"`
}

// GRPCProbe is a call of grpc.health.v1.Health/Check.
type GRPCProbe struct {
	// Service that is asked for; empty for the server as a whole.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Service string `json:"service,omitempty"`
}

// ProbeTLS is how the certificate of a Gateway's HTTPS listener is verified.
type ProbeTLS struct {
	// CABundle is the authorities that may have signed it, in PEM; where it is not given, those of the hub's system.
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	CABundle string `json:"caBundle,omitempty"`
}
