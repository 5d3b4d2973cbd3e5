// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the kinds that Isthmus adds to the hub: only what the Gateway API and the
// Multi-Cluster Services API have no word for.
//
// Implementation considerations: a value that a schema or a CEL rule can refuse is refused at admission, so
// that the controllers only meet what is well formed; what depends on other objects (an unknown cluster, a
// target that is not there) becomes a condition, because those objects come and go.
//
// +kubebuilder:object:generate=true
// +groupName=isthmus.dev
package v1alpha1
