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

func TestEstablished(t *testing.T) {
	for want, status := range map[bool]string{true: "True", false: "False"} {
		objects, err := parse([]byte(`{kind: CustomResourceDefinition, status: {conditions: [{type: Established, status: "` + status + `"}]}}`))
		require.NoError(t, err)
		require.Equal(t, want, established(objects[0]))
	}
	objects, err := parse([]byte(`{kind: CustomResourceDefinition}`))
	require.NoError(t, err)
	require.False(t, established(objects[0]))
}
