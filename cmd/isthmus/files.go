// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/federation"
)

// plannedKind is a kind of which a plan can tell what its change would do.
type plannedKind struct {
	clusterScoped bool
	// put adds an object to the records, or replaces it there.
	put func(*federation.Records, *unstructured.Unstructured) error
}

// plannedKinds by kind and group.
var plannedKinds = map[string]plannedKind{
	"HTTPRoute.gateway.networking.k8s.io":      {put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Routes, u) }},
	"Gateway.gateway.networking.k8s.io":        {put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Gateways, u) }},
	"ReferenceGrant.gateway.networking.k8s.io": {put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Grants, u) }},
	"TrafficDistributionPolicy.isthmus.dev":    {put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Policies, u) }},
	"TrafficOverride.isthmus.dev": {clusterScoped: true,
		put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Overrides, u) }},
	"MemberCluster.isthmus.dev": {clusterScoped: true,
		put: func(r *federation.Records, u *unstructured.Unstructured) error { return put(&r.Members, u) }},
}

// put replaces the object of that name in a list, or adds it.
func put[T any, P interface {
	*T
	client.Object
}](list *[]T, u *unstructured.Unstructured) error {
	i := slices.IndexFunc(*list, func(have T) bool {
		return P(&have).GetNamespace() == u.GetNamespace() && P(&have).GetName() == u.GetName()
	})
	if asWritten := u.GetUID() == ""; asWritten && i >= 0 {
		// Its age and what was said of it are not a file's to say.
		have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&(*list)[i])
		if err != nil {
			return err
		}
		u.SetCreationTimestamp(P(&(*list)[i]).GetCreationTimestamp())
		u.Object["status"] = have["status"]
	}
	var object T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, &object, true); err != nil {
		return err
	}
	if i >= 0 {
		(*list)[i] = object
	} else {
		*list = append(*list, object)
	}
	return nil
}

// readFile reads the objects of a file; - is the standard input.
func readFile(name string, stdin io.Reader) ([]*unstructured.Unstructured, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name) //nolint:gosec // the person names it
	}
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(u.Object) == 0 {
			continue
		}
		if _, known := kindOf(u); !known || u.GetName() == "" {
			return nil, fmt.Errorf("%s: %s %s: a plan can tell of objects with a name and one of these kinds: %s", name, u.GetKind(), u.GetName(),
				strings.Join(slices.Sorted(maps.Keys(plannedKinds)), ", "))
		}
		out = append(out, u)
	}
}

func kindOf(u *unstructured.Unstructured) (plannedKind, bool) {
	gvk := u.GroupVersionKind()
	kind, known := plannedKinds[gvk.Kind+"."+gvk.Group]
	return kind, known
}

// try asks the API server what an object would become. It takes the place of the one that is there: whoever owns the file owns
// what it says no more, while a server-side apply in another name would leave that in.
func (h *hub) try(ctx context.Context, u *unstructured.Unstructured) error {
	have := &unstructured.Unstructured{}
	have.SetGroupVersionKind(u.GroupVersionKind())
	err := h.Get(ctx, client.ObjectKeyFromObject(u), have)
	if apierrors.IsNotFound(err) {
		return h.Create(ctx, u)
	}
	if err != nil {
		return err
	}
	u.SetResourceVersion(have.GetResourceVersion())
	return h.Update(ctx, u)
}

// applied are the records as they would be if objects were applied. The API server is asked what would come of each, so that
// defaults, validation and what is there already count; a person who may not write there is believed as written.
func (h *hub) applied(ctx context.Context, r federation.Records, objects []*unstructured.Unstructured) (federation.Records, []string, error) {
	r.Routes, r.Gateways, r.Grants = slices.Clone(r.Routes), slices.Clone(r.Gateways), slices.Clone(r.Grants)
	r.Policies, r.Overrides, r.Members = slices.Clone(r.Policies), slices.Clone(r.Overrides), slices.Clone(r.Members)
	var notes []string
	for _, u := range objects {
		kind, _ := kindOf(u)
		if !kind.clusterScoped && u.GetNamespace() == "" {
			u.SetNamespace(h.namespace)
		}
		name := u.GetKind() + " " + strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/")
		err := h.try(ctx, u)
		switch {
		case apierrors.IsForbidden(err):
			u.SetCreationTimestamp(metav1.NewTime(r.Now))
			notes = append(notes, name+" is taken as written: you may not apply it, so that nobody has checked it")
		case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
			return r, nil, fmt.Errorf("%s would be refused: %w", name, err)
		case apierrors.IsNotFound(err):
			return r, nil, fmt.Errorf("%s would be refused: there is no namespace %s in the hub: create it first", name, u.GetNamespace())
		case err != nil:
			return r, nil, h.explain(err, u.GetKind()+"s")
		}
		if err := kind.put(&r, u); err != nil {
			return r, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return r, notes, nil
}
