// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func (r *rig) unknownImage(t *testing.T) {
	r.create(t, podOf("unknown", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "example.com/nothing:v1" }))
	pod := r.await(t, "unknown", "waiting for its image", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "ErrImagePull"
	})
	message := pod.Status.ContainerStatuses[0].State.Waiting.Message
	require.Contains(t, message, filepath.Join(r.dir, "images"))
	require.Contains(t, message, "isthmus-lab image add nothing FILE")
	require.Equal(t, corev1.PodPending, pod.Status.Phase)
}

// imageFolder runs an image with files of its own, from its own path.
func (r *rig) imageFolder(t *testing.T) {
	at := filepath.Join(r.dir, "images", "tree")
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(at, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(at, name), []byte(text), 0o755))
	}
	write("root/opt/tree/bin/run", "#!/bin/sh\necho \"$0 $(cat /var/lib/tree/data) $1\"\n")
	write("root/var/lib/tree/data", "leaves")
	require.NoError(t, os.Symlink("root/opt/tree/bin/run", filepath.Join(at, "entrypoint")))
	r.create(t, podOf("tree", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		c := &p.Spec.Containers[0]
		c.Image, c.Args, c.ReadinessProbe = "example.com/tree:v1", []string{"green"}, nil
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(1337)), ReadOnlyRootFilesystem: ptr.To(true)}
	}))
	r.await(t, "tree", "Succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	require.Equal(t, "/opt/tree/bin/run leaves green\n", r.log(t, "tree", "main"))
}
