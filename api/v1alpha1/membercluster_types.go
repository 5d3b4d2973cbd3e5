// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MemberCluster says how to reach one cluster of the clusterset. Its name is the cluster's name everywhere:
// in policies, in host names and in status.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=mc,categories=isthmus
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Connected",type=string,JSONPath=`.status.conditions[?(@.type=="Connected")].status`
// +kubebuilder:printcolumn:name="Mesh",type=string,JSONPath=`.status.conditions[?(@.type=="MeshReady")].status`
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.status.provider`
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.status.region`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.kubernetesVersion`
// +kubebuilder:printcolumn:name="Exports",type=integer,JSONPath=`.status.exportedServiceCount`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="a member cluster's name is a part of host names: use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
type MemberCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MemberClusterSpec   `json:"spec"`
	Status MemberClusterStatus `json:"status,omitempty"`
}

// MemberClusterList is a list of MemberClusters.
//
// +kubebuilder:object:root=true
type MemberClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MemberCluster `json:"items"`
}

// MemberClusterSpec is what the platform team says of a member.
type MemberClusterSpec struct {
	// Kubeconfig is the way into the cluster.
	Kubeconfig KubeconfigSource `json:"kubeconfig"`

	// Region overrides the region that is discovered from the label topology.kubernetes.io/region of the
	// member's Nodes.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region,omitempty"`

	// Zone overrides the zone that is discovered from the label topology.kubernetes.io/zone, which is only
	// taken where all Nodes agree.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Zone string `json:"zone,omitempty"`

	// GatewayClassName is the class of the Gateways that are generated in the member.
	// +optional
	// +kubebuilder:default=istio
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	GatewayClassName string `json:"gatewayClassName,omitempty"`

	// TrustDomain of the member's mesh. All members of a clusterset share a root of trust; their trust domains
	// may differ.
	// +optional
	// +kubebuilder:default=cluster.local
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	TrustDomain string `json:"trustDomain,omitempty"`

	// EastWest says where the other members reach this one. It is discovered from the generated east-west
	// Gateway's status where it is not given.
	// +optional
	EastWest *EastWestSpec `json:"eastWest,omitempty"`

	// Prometheus is where metrics of this cluster are asked for. Where it is not given, it is that of the hub
	// (isthmus-hub --prometheus-url).
	// +optional
	Prometheus *Prometheus `json:"prometheus,omitempty"`
}

// KubeconfigSource names a kubeconfig. It is read as data: it never runs a program and never reads a file.
type KubeconfigSource struct {
	// SecretRef names a Secret in the hub's namespace of Isthmus (isthmus-system).
	SecretRef SecretKeyRef `json:"secretRef"`
}

// SecretKeyRef names one key of a Secret.
type SecretKeyRef struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Key within the Secret's data.
	// +optional
	// +kubebuilder:default=kubeconfig
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// EastWestSpec is the address of a member's east-west gateway as the other members see it.
type EastWestSpec struct {
	// Address is an IP address or a host name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$`
	Address string `json:"address"`
	// Port of the federation listener as the other members see it.
	// +optional
	// +kubebuilder:default=15443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// MemberClusterStatus is what was found out about a member.
type MemberClusterStatus struct {
	// Conditions: Connected, Synced, MeshReady.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// ClusterUID is the UID of the namespace kube-system, by which a cluster is known again under another name.
	// +optional
	ClusterUID string `json:"clusterUID,omitempty"`
	// KubernetesVersion of the API server, such as v1.36.3.
	// +optional
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// Provider is eks, gke, aks, kind or unknown, from the provider IDs of the member's Nodes.
	// +optional
	Provider string `json:"provider,omitempty"`
	// Region in force: given, or discovered.
	// +optional
	Region string `json:"region,omitempty"`
	// Zone in force: given, or discovered where all Nodes agree.
	// +optional
	Zone string `json:"zone,omitempty"`
	// EastWestAddress in force, host:port.
	// +optional
	EastWestAddress string `json:"eastWestAddress,omitempty"`
	// Gateways are the first hundred of the hub's Gateways that are programmed in the member, with the addresses that it
	// gave them, sorted.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	Gateways []MemberGateway `json:"gateways,omitempty"`
	// ExportedServiceCount is the number of valid exports in the member.
	// +optional
	ExportedServiceCount int32 `json:"exportedServiceCount,omitempty"`
	// ExportedServices are the first hundred of them, namespace/name, sorted.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +listType=set
	ExportedServices []string `json:"exportedServices,omitempty"`
}

// MemberGateway is a Gateway of the hub in a member.
type MemberGateway struct {
	// Namespace of the Gateway.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// Name of the Gateway.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Addresses at which the member's gateway is reached, as its status says: at most 16.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Addresses []string `json:"addresses"`
}
