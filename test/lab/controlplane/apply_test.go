// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseTakesStreamsListsAndEmptyDocuments(t *testing.T) {
	objects, err := parse([]byte(`
# only a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: a}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: a}}
---
`))
	require.NoError(t, err)
	var names []string
	for _, o := range objects {
		names = append(names, o.GetName())
	}
	require.Equal(t, []string{"a", "b", "c"}, names)
}

func TestServedAs(t *testing.T) {
	objects, err := parse([]byte(`
kind: CustomResourceDefinition
spec:
  group: isthmus.dev
  names: {plural: routeplans}
  versions: [{name: v1alpha1, served: true}, {name: v1alpha0, served: false}]
`))
	require.NoError(t, err)
	group, plural, versions := servedAs(objects[0])
	require.Equal(t, "isthmus.dev", group)
	require.Equal(t, "routeplans", plural)
	require.Equal(t, []string{"v1alpha1"}, versions)
}
