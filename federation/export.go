// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// ServiceKey is a namespaced service name. By namespace sameness it means the same service in every cluster.
type ServiceKey struct {
	Namespace, Name string
}

// ParseServiceKey reads what String says.
func ParseServiceKey(s string) ServiceKey {
	namespace, name, _ := strings.Cut(s, "/")
	return ServiceKey{namespace, name}
}

// String is namespace/name.
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Name }

// compareKeys orders services as their names are read.
func compareKeys(a, b ServiceKey) int { return strings.Compare(a.String(), b.String()) }

// keysOf are the keys of a map by service, sorted.
func keysOf[T any](m map[ServiceKey]T) []ServiceKey {
	return slices.SortedFunc(maps.Keys(m), compareKeys)
}

// Export is one ServiceExport together with the Service that it exports.
type Export struct {
	// Cluster that exports.
	Cluster string
	// Created is when the ServiceExport was created: of exports that disagree the oldest wins (KEP-1645,
	// "Constraints and Conflict Resolution").
	Created time.Time
	// Service is nil while there is no Service of that name.
	Service *corev1.Service
}

// Refusal says why an export contributes nothing.
type Refusal struct {
	Reason  mcsv1beta1.ServiceExportConditionReason
	Message string
}

// Refuse tells why an export is not valid, or nil when it is.
func (e Export) Refuse() *Refusal {
	switch {
	case e.Service == nil:
		return &Refusal{mcsv1beta1.ServiceExportReasonNoService,
			"there is no Service of this name: create it, or delete the ServiceExport"}
	case e.Service.Spec.Type == corev1.ServiceTypeExternalName:
		return &Refusal{mcsv1beta1.ServiceExportReasonInvalidServiceType,
			"a Service of type ExternalName has no endpoints to export"}
	}
	return nil
}

// Import is what the valid exports of one service amount to.
type Import struct {
	Key  ServiceKey
	Spec mcsv1beta1.ServiceImportSpec
	// Clusters that export it validly, sorted.
	Clusters []string
	// Conflicts lists in what the exports disagree with the oldest one, oldest export first.
	Conflicts []Conflict
}

// Conflict is one property in which an export disagrees with an older one.
type Conflict struct {
	Cluster string
	Reason  mcsv1beta1.ServiceExportConditionReason
	Message string
}

// MergeExports makes the import that a set of exports forms, or nil when no export is valid. Ports are united;
// where two exports disagree on a property the oldest export decides, ties going to the cluster that sorts
// first (KEP-1645).
func MergeExports(key ServiceKey, exports []Export) *Import {
	valid := slices.DeleteFunc(slices.Clone(exports), func(e Export) bool { return e.Refuse() != nil })
	if len(valid) == 0 {
		return nil
	}
	slices.SortFunc(valid, func(a, b Export) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Cluster, b.Cluster))
	})
	oldest := valid[0]
	imp := &Import{Key: key, Spec: mcsv1beta1.ServiceImportSpec{
		Type:                  importType(oldest.Service),
		SessionAffinity:       oldest.Service.Spec.SessionAffinity,
		SessionAffinityConfig: oldest.Service.Spec.SessionAffinityConfig.DeepCopy(),
	}}
	for _, e := range valid {
		imp.Clusters = append(imp.Clusters, e.Cluster)
		imp.unitePorts(e)
		imp.compareProperties(e, oldest)
	}
	slices.Sort(imp.Clusters)
	imp.sortPorts()
	return imp
}

func importType(s *corev1.Service) mcsv1beta1.ServiceImportType {
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		return mcsv1beta1.Headless
	}
	return mcsv1beta1.ClusterSetIP
}

// unitePorts adds the ports of an export that the import lacks. Exports come oldest first, so what is already
// there decides.
func (i *Import) unitePorts(e Export) {
	for _, p := range e.Service.Spec.Ports {
		port := mcsv1beta1.ServicePort{Name: p.Name, Protocol: p.Protocol, AppProtocol: p.AppProtocol, Port: p.Port}
		if have := i.addPort(port); have != nil {
			i.conflict(e.Cluster, mcsv1beta1.ServiceExportReasonPortConflict,
				fmt.Sprintf("port %s differs from %s of an older export", portWords(port), portWords(*have)))
		}
	}
}

// addPort adds a port unless one of that name or number is there. It returns that one where the two disagree.
func (i *Import) addPort(port mcsv1beta1.ServicePort) *mcsv1beta1.ServicePort {
	port.Protocol = cmp.Or(port.Protocol, corev1.ProtocolTCP)
	at := slices.IndexFunc(i.Spec.Ports, func(have mcsv1beta1.ServicePort) bool {
		return have.Name == port.Name || (have.Port == port.Port && have.Protocol == port.Protocol)
	})
	if at < 0 {
		i.Spec.Ports = append(i.Spec.Ports, port)
		return nil
	}
	if have := &i.Spec.Ports[at]; have.Name != port.Name || have.Port != port.Port || have.Protocol != port.Protocol ||
		deref(have.AppProtocol) != deref(port.AppProtocol) {
		return have
	}
	return nil
}

func portWords(p mcsv1beta1.ServicePort) string {
	words := fmt.Sprintf("%q %d/%s", p.Name, p.Port, cmp.Or(p.Protocol, corev1.ProtocolTCP))
	if p.AppProtocol != nil {
		words += " " + *p.AppProtocol
	}
	return words
}

func (i *Import) sortPorts() {
	slices.SortFunc(i.Spec.Ports, func(a, b mcsv1beta1.ServicePort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Protocol), string(b.Protocol)), strings.Compare(a.Name, b.Name))
	})
}

func (i *Import) compareProperties(e, oldest Export) {
	if importType(e.Service) != i.Spec.Type {
		i.conflict(e.Cluster, mcsv1beta1.ServiceExportReasonTypeConflict, fmt.Sprintf("type %s differs from %s of the older export in %s",
			importType(e.Service), i.Spec.Type, oldest.Cluster))
	}
	if e.Service.Spec.SessionAffinity != oldest.Service.Spec.SessionAffinity {
		i.conflict(e.Cluster, mcsv1beta1.ServiceExportReasonSessionAffinityConflict, fmt.Sprintf("sessionAffinity %s differs from %s of the older export in %s",
			e.Service.Spec.SessionAffinity, oldest.Service.Spec.SessionAffinity, oldest.Cluster))
	} else if has, had := affinitySeconds(e.Service), affinitySeconds(oldest.Service); has != had {
		i.conflict(e.Cluster, mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict, fmt.Sprintf("the session affinity's timeout of %ds differs from %ds of the older export in %s",
			has, had, oldest.Cluster))
	}
}

// affinitySeconds is the timeout of a Service's session affinity, 0 where there is none.
func affinitySeconds(s *corev1.Service) int32 {
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		return deref(c.ClientIP.TimeoutSeconds)
	}
	return 0
}

func (i *Import) conflict(cluster string, reason mcsv1beta1.ServiceExportConditionReason, message string) {
	i.Conflicts = append(i.Conflicts, Conflict{cluster, reason, message})
}

// deref is the value of a pointer, or the zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
