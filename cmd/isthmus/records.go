// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// slow is after how long a person is told what they wait for.
const slow = time.Second

// records reads what the hub says: all, or only lists of these names. Who waits is told so on a terminal's other stream.
func (h *hub) records(ctx context.Context, tell io.Writer, only ...string) (federation.Records, error) {
	waiting := time.AfterFunc(slow, func() { fmt.Fprintf(tell, "reading the hub (%s) …\n", h.where) })
	defer waiting.Stop()
	var (
		members    v1alpha1.MemberClusterList
		plans      v1alpha1.RoutePlanList
		policies   v1alpha1.TrafficDistributionPolicyList
		overrides  v1alpha1.TrafficOverrideList
		rollouts   v1alpha1.TrafficRolloutList
		classes    gatewayv1.GatewayClassList
		gateways   gatewayv1.GatewayList
		routes     gatewayv1.HTTPRouteList
		grants     gatewayv1.ReferenceGrantList
		imports    mcsv1beta1.ServiceImportList
		namespaces corev1.NamespaceList
	)
	group, ctx := errgroup.WithContext(ctx)
	for _, read := range []struct {
		what string
		list client.ObjectList
	}{
		{"MemberClusters", &members}, {"RoutePlans", &plans}, {"TrafficDistributionPolicies", &policies}, {"TrafficOverrides", &overrides},
		{"TrafficRollouts", &rollouts}, {"GatewayClasses", &classes}, {"Gateways", &gateways}, {"HTTPRoutes", &routes}, {"ReferenceGrants", &grants},
		{"ServiceImports", &imports}, {"Namespaces", &namespaces},
	} {
		if len(only) > 0 && !slices.Contains(only, read.what) {
			continue
		}
		group.Go(func() error {
			if err := h.List(ctx, read.list); err != nil {
				return h.explain(err, read.what)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return federation.Records{}, err
	}
	return federation.Records{Members: members.Items, Classes: classes.Items, Gateways: gateways.Items, Routes: routes.Items,
		Grants: grants.Items, Imports: imports.Items, Policies: policies.Items, Overrides: overrides.Items, Rollouts: rollouts.Items,
		Plans: plans.Items, Namespaces: namespaces.Items, Now: h.now()}, nil
}
