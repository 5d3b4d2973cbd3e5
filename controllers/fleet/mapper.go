// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// mapper knows the resources of the kinds that were resolved, and never asks the network: controller-runtime's
// own holds a lock while it does, so one hanging discovery would hold up every write.
type mapper struct {
	mu      sync.Mutex
	known   map[schema.GroupVersionKind]metav1.APIResource
	current atomic.Pointer[meta.DefaultRESTMapper]
}

func newMapper() *mapper {
	m := &mapper{known: map[schema.GroupVersionKind]metav1.APIResource{}}
	m.rebuild()
	return m
}

func (m *mapper) add(gvk schema.GroupVersionKind, resource metav1.APIResource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[gvk] = resource
	m.rebuild()
}

func (m *mapper) forget(gvk schema.GroupVersionKind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, gvk)
	m.rebuild()
}

func (m *mapper) rebuild() {
	next := meta.NewDefaultRESTMapper(nil)
	for gvk, resource := range m.known {
		scope := meta.RESTScopeRoot
		if resource.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		plural := gvk.GroupVersion().WithResource(resource.Name)
		next.AddSpecific(gvk, plural, gvk.GroupVersion().WithResource(resource.SingularName), scope)
	}
	m.current.Store(next)
}

func (m *mapper) knows(gvk schema.GroupVersionKind) bool {
	_, err := m.RESTMapping(gvk.GroupKind(), gvk.Version)
	return err == nil
}

// RESTMapping implements meta.RESTMapper.
func (m *mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	return m.current.Load().RESTMapping(gk, versions...)
}

// RESTMappings implements meta.RESTMapper.
func (m *mapper) RESTMappings(gk schema.GroupKind, versions ...string) ([]*meta.RESTMapping, error) {
	return m.current.Load().RESTMappings(gk, versions...)
}

// KindFor implements meta.RESTMapper.
func (m *mapper) KindFor(resource schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	return m.current.Load().KindFor(resource)
}

// KindsFor implements meta.RESTMapper.
func (m *mapper) KindsFor(resource schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	return m.current.Load().KindsFor(resource)
}

// ResourceFor implements meta.RESTMapper.
func (m *mapper) ResourceFor(input schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	return m.current.Load().ResourceFor(input)
}

// ResourcesFor implements meta.RESTMapper.
func (m *mapper) ResourcesFor(input schema.GroupVersionResource) ([]schema.GroupVersionResource, error) {
	return m.current.Load().ResourcesFor(input)
}

// ResourceSingularizer implements meta.RESTMapper.
func (m *mapper) ResourceSingularizer(resource string) (string, error) {
	return m.current.Load().ResourceSingularizer(resource)
}
