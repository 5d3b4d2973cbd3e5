// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/labtest"
)

const (
	pods = "pods"
	// echoBasic is the version of the Gateway API that go.mod pins.
	echoBasic = "sigs.k8s.io/gateway-api/conformance/echo-basic@v1.6.3"
)

// TestAnUpstreamProgramRunsUnchanged deploys a program whose image is not there, adds the image as the pod's own status
// says, and asks the pods.
func TestAnUpstreamProgramRunsUnchanged(t *testing.T) {
	_ = labtest.Lab.RemoveImage("echo-basic") // of a run before
	apply(t, "gke", "pods.yaml", pods)
	gke := labtest.Cluster(t, "gke")
	labtest.Eventually(t, func() error {
		var list corev1.PodList
		if err := gke.List(context.Background(), &list, client.InNamespace(pods)); err != nil {
			return err
		}
		for _, p := range list.Items {
			for _, c := range p.Status.ContainerStatuses {
				if w := c.State.Waiting; w != nil && strings.Contains(w.Message, "isthmus-lab image add echo-basic") {
					return nil
				}
			}
		}
		return fmt.Errorf("no pod of %d says how its image is added", len(list.Items))
	})
	require.NoError(t, labtest.Lab.AddGoImage(t.Context(), "echo-basic", echoBasic))
	t.Cleanup(func() { require.NoError(t, labtest.Lab.RemoveImage("echo-basic")) })
	pod := readyPod(t, gke, pods, "echo")
	body, err := get(labtest.FromPod(t, "gke", pods+"/"+pod.Name), fmt.Sprintf("http://%s:3000/some/path", pod.Status.PodIP), "example.com")
	require.NoError(t, err)
	require.Contains(t, body, `"path": "/some/path"`)
	require.Contains(t, body, `"pod": "`+pod.Name+`"`)
}
