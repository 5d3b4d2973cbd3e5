// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// TestWhatIsSeenAtThreeInTheMorning: eks has lost a service, gke is out of the hub's reach and half drained, and old words lie about.
func TestWhatIsSeenAtThreeInTheMorning(t *testing.T) {
	for name, test := range map[string]struct {
		args, file string
		code       int
	}{
		"status-night":     {"status", "testdata/night.yaml", exitConcerns},
		"status-elsewhere": {"status -n elsewhere", "testdata/night.yaml", exitConcerns},
		"status-quiet":     {"status", "testdata/quiet.yaml", 0},
		"overrides":        {"overrides", "testdata/night.yaml", 0},
		"overrides-none":   {"overrides", "testdata/quiet.yaml", 0},
		"why":              {"why sample/helloworld", "testdata/night.yaml", 0},
		"overrides-yaml":   {"overrides -o yaml", "testdata/night.yaml", 0},
		"overrides-name":   {"overrides -o name", "testdata/night.yaml", 0},
		"status-json":      {"status -o json", "testdata/night.yaml", exitConcerns},
		"status-yaml":      {"status -o yaml", "testdata/quiet.yaml", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, code, message := run(hubInMemory(t, interceptor.Funcs{}, test.file), strings.Fields(test.args)...)
			require.Empty(t, message)
			require.Equal(t, test.code, code, got)
			requireGolden(t, name, got)
		})
	}
}

// TestStatusIsNotFooledByAControllerThatIsAway: without it everything looks as it last was.
func TestStatusIsNotFooledByAControllerThatIsAway(t *testing.T) {
	lease := func(change func(*coordinationv1.Lease) error) interceptor.Funcs {
		return interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if l, asked := o.(*coordinationv1.Lease); asked {
				return change(l)
			}
			return err
		}}
	}
	resource := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for said, test := range map[string]struct {
		change func(*coordinationv1.Lease) error
		code   int
	}{
		"! nobody has renewed its lease since 2026-01-01 02:00:00Z (60m ago)": {func(l *coordinationv1.Lease) error {
			l.Spec.RenewTime = &metav1.MicroTime{Time: threeInTheMorning.Add(-60 * 60e9)}
			return nil
		}, exitConcerns},
		"! nobody leads": {func(l *coordinationv1.Lease) error {
			l.Spec.HolderIdentity = nil
			return nil
		}, exitConcerns},
		"! it has no lease in isthmus-system": {func(*coordinationv1.Lease) error { return apierrors.NewNotFound(resource, "isthmus-hub") }, exitConcerns},
		"  not known, since its lease cannot be read (Forbidden)": {func(*coordinationv1.Lease) error {
			return apierrors.NewForbidden(resource, "isthmus-hub", errors.New("no"))
		}, 0},
	} {
		out, code, _ := run(hubInMemory(t, lease(test.change), "testdata/quiet.yaml"), "status")
		require.Contains(t, out, said)
		require.Equal(t, test.code, code, out)
	}
}

func TestLookingSaysWhatIsWrong(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"status eks":             {exitUsage, "status takes nothing"},
		"overrides eks":          {exitUsage, "overrides takes nothing"},
		"why":                    {exitUsage, "one NAMESPACE/ROUTE"},
		"why helloworld":         {exitUsage, "is not NAMESPACE/ROUTE"},
		"why sample/hello/world": {exitUsage, "is not NAMESPACE/ROUTE"},
		"why sample/x -n other":  {exitUsage, "give one of the two"},
		"why sample/hello":       {exitFailed, "there is no HTTPRoute sample/hello in the hub: namespace sample has helloworld"},
	} {
		out, code, message := run(hubInMemory(t, interceptor.Funcs{}), strings.Fields(args)...)
		require.Contains(t, message, want.said)
		require.Equal(t, want.code, code)
		require.Empty(t, out)
	}
	out, code, _ := run(hubInMemory(t, interceptor.Funcs{}), "why", "-n", "sample", "helloworld")
	require.Equal(t, 0, code)
	require.Contains(t, out, "Isthmus says nothing of it")
}
