// SPDX-License-Identifier: Apache-2.0

// Package config is what is installed; its tests keep it in step with the code, and with a real API server.
package config

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/controllers"
)

// writtenInMembers are the kinds that Isthmus writes there, beside those of which it keeps only its own.
var writtenInMembers = []string{"gateways", "httproutes", "serviceimports"}

func TestTheHubMayDoInAMemberWhatItDoesAndNoMore(t *testing.T) {
	granted := map[schema.GroupResource][]string{}
	for _, rule := range memberRole(t).Rules {
		for _, resource := range rule.Resources {
			granted[schema.GroupResource{Group: rule.APIGroups[0], Resource: resource}] = rule.Verbs
		}
	}
	scheme := controllers.NewScheme()
	for _, kind := range controllers.MemberKinds() {
		gvk, err := apiutil.GVKForObject(kind.Object, scheme)
		require.NoError(t, err)
		resource := schema.GroupResource{Group: gvk.Group, Resource: plural(gvk.Kind)}
		verbs := []string{"get", "list", "watch"}
		if kind.Selector != nil || slices.Contains(writtenInMembers, resource.Resource) {
			verbs = append(verbs, "create", "patch", "delete")
		}
		require.ElementsMatch(t, verbs, granted[resource], "%s: config/rbac/member/clusterrole.yaml", resource)
		delete(granted, resource)
	}
	// One status is written besides; nothing else is granted.
	exports := schema.GroupResource{Group: "multicluster.x-k8s.io", Resource: "serviceexports/status"}
	require.Equal(t, map[schema.GroupResource][]string{exports: {"patch"}}, granted)
}

func memberRole(t *testing.T) rbacv1.ClusterRole {
	t.Helper()
	data, err := os.ReadFile("rbac/member/clusterrole.yaml")
	require.NoError(t, err)
	var role rbacv1.ClusterRole
	require.NoError(t, yaml.Unmarshal(firstDocument(data), &role))
	require.Equal(t, "ClusterRole", role.Kind)
	return role
}

func firstDocument(data []byte) []byte {
	first, _, _ := bytes.Cut(data, []byte("\n---\n"))
	return first
}

// plural is the resource of a kind, as API groups name theirs.
func plural(kind string) string {
	name := strings.ToLower(kind)
	if stem, ok := strings.CutSuffix(name, "y"); ok && !strings.HasSuffix(stem, "a") {
		return stem + "ies"
	}
	return name + "s"
}
