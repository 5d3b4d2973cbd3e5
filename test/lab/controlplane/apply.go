// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// settle is how long an object may be refused because what it needs (its CRD, its namespace, a
// webhook) has been created only just before it.
const settle = 2 * time.Minute

const fieldManager = "isthmus-lab"

const crdKind = "CustomResourceDefinition"

// Applier applies manifests to one cluster, server-side, as the lab.
type Applier struct {
	client    dynamic.Interface
	discovery discovery.DiscoveryInterface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
}

// NewApplier connects to a cluster.
func NewApplier(config *rest.Config) (*Applier, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 200, 400
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Applier{client, disco, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}, nil
}

// ApplyFiles applies the objects of YAML files; a folder stands for the *.yaml in it.
func (a *Applier) ApplyFiles(ctx context.Context, paths ...string) error {
	var objects []*unstructured.Unstructured
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err != nil {
			return err
		} else if info.IsDir() {
			if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
				return err
			}
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			parsed, err := parse(data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			objects = append(objects, parsed...)
		}
	}
	return a.apply(ctx, objects)
}

// Apply applies the objects of a YAML stream.
func (a *Applier) Apply(ctx context.Context, manifest []byte) error {
	objects, err := parse(manifest)
	if err != nil {
		return err
	}
	return a.apply(ctx, objects)
}

// ApplyObjects applies objects given as plain values.
func (a *Applier) ApplyObjects(ctx context.Context, values ...map[string]any) error {
	var objects []*unstructured.Unstructured
	for _, v := range values {
		// By way of YAML, so that every number and list has the type that a manifest would give it.
		data, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		parsed, err := parse(data)
		if err != nil {
			return err
		}
		objects = append(objects, parsed...)
	}
	return a.apply(ctx, objects)
}

func parse(data []byte) ([]*unstructured.Unstructured, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var objects []*unstructured.Unstructured
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &o.Object); err != nil {
			return nil, err
		}
		if len(o.Object) == 0 {
			continue
		}
		if !o.IsList() {
			objects = append(objects, o)
			continue
		}
		err = o.EachListItem(func(item runtime.Object) error {
			objects = append(objects, item.(*unstructured.Unstructured)) // what a list of unstructured holds
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
}

// apply writes what others need first (namespaces and CRDs), each wave at once.
func (a *Applier) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	var first, rest []*unstructured.Unstructured
	for _, o := range objects {
		switch o.GetKind() {
		case "Namespace", crdKind:
			first = append(first, o)
		default:
			rest = append(rest, o)
		}
	}
	for _, wave := range [][]*unstructured.Unstructured{first, rest} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, o := range wave {
			g.Go(func() error { return a.applyOne(ctx, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Applier) applyOne(ctx context.Context, o *unstructured.Unstructured) error {
	err := a.settle(ctx, func(ctx context.Context) error { return a.write(ctx, o) })
	if err == nil && o.GetKind() == crdKind {
		err = a.settle(ctx, func(context.Context) error { return a.served(o) })
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"), err)
	}
	return nil
}

// settle tries until f succeeds, or fails for good.
func (a *Applier) settle(ctx context.Context, f func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, settle, true, func(ctx context.Context) (bool, error) {
		last = f(ctx)
		if !unsettled(last) {
			return true, last
		}
		if meta.IsNoMatchError(last) {
			a.mapper.Reset()
		}
		return false, nil
	})
	if err != nil && !errors.Is(err, last) {
		return errors.Join(last, err)
	}
	return err
}

func (a *Applier) write(ctx context.Context, o *unstructured.Unstructured) error {
	target, err := a.resource(o)
	if err != nil {
		return err
	}
	if o.GetKind() == crdKind {
		// The first time without the work of server-side apply, which a CRD's size makes seconds of.
		_, err := target.Create(ctx, o, metav1.CreateOptions{FieldManager: fieldManager})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	_, err = target.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

// errNotServed says that the API server does not serve a CRD's kind yet. Who asks for the kind
// before that is refused, and many clients wait long before they ask again.
var errNotServed = errors.New("the CRD's kind is not served")

// served asks discovery, which is small; a CRD itself can be half a megabyte.
func (a *Applier) served(crd *unstructured.Unstructured) error {
	group, plural, versions := servedAs(crd)
	for _, version := range versions {
		list, err := a.discovery.ServerResourcesForGroupVersion(group + "/" + version)
		if err != nil {
			return err
		}
		found := slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural })
		if !found {
			return errNotServed
		}
	}
	return nil
}

// servedAs returns what a CRD says of its kind; of its versions those that are served.
func servedAs(crd *unstructured.Unstructured) (group, plural string, versions []string) {
	group, _, _ = unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ = unstructured.NestedString(crd.Object, "spec", "names", "plural")
	all, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range all {
		version, ok := v.(map[string]any)
		if name, isString := version["name"].(string); ok && isString && version["served"] == true {
			versions = append(versions, name)
		}
	}
	return group, plural, versions
}

func (a *Applier) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	if gvk.Group == "apiextensions.k8s.io" && gvk.Kind == crdKind {
		// Known without discovery, which all the CRDs that follow would make stale.
		return a.client.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: "customresourcedefinitions"}), nil
	}
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return a.client.Resource(mapping.Resource), nil
	}
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return a.client.Resource(mapping.Resource).Namespace(namespace), nil
}

// unsettled says whether an error may go away by itself within a moment.
func unsettled(err error) bool {
	return errors.Is(err, errNotServed) || meta.IsNoMatchError(err) || apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsInternalError(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		discovery.IsGroupDiscoveryFailedError(err)
}
