// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func (r *rig) unknownImage(t *testing.T) {
	r.create(t, podOf("unknown", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "example.com/late:v1" }))
	r.await(t, "unknown", "waiting for its image", waitingFor("ErrImagePull"))
	pod := r.await(t, "unknown", "backing off", waitingFor("ImagePullBackOff"))
	message := pod.Status.ContainerStatuses[0].State.Waiting.Message
	require.Contains(t, message, filepath.Join(r.dir, "images"))
	require.Contains(t, message, "isthmus-lab image add late FILE")
	require.Equal(t, corev1.PodPending, pod.Status.Phase)
	r.awaitEvent(t, "unknown", "isthmus-lab image add late FILE")
	require.NoError(t, os.Link(filepath.Join(r.dir, "images", "helloworld"), filepath.Join(r.dir, "images", "late")))
	r.awaitReady(t, "unknown")
}

// notStarted runs what cannot be run.
func (r *rig) notStarted(t *testing.T) {
	program, err := os.ReadFile(filepath.Join(r.dir, "images", "helloworld"))
	require.NoError(t, err)
	const machine = 18 // where an ELF file says it
	program[machine] = byte(elf.EM_S390)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "images", "foreign"), program, 0o755))
	for name, c := range map[string]struct {
		change  func(*corev1.Container)
		message string
	}{
		"no-such-command": {func(c *corev1.Container) { c.Command = []string{"no-such-command"} }, "executable file not found in the container's PATH"},
		"no-such-file":    {func(c *corev1.Container) { c.Command = []string{"/no/such/file"} }, "/no/such/file: no such file or directory"},
		"no-program":      {func(c *corev1.Container) { c.Command = []string{"/etc/passwd"} }, "/etc/passwd is not executable"},
		"no-folder":       {func(c *corev1.Container) { c.WorkingDir = "/etc/passwd" }, "/etc/passwd"},
		"foreign":         {func(c *corev1.Container) { c.Image = "foreign" }, "exec format error: /usr/local/bin/foreign is built for s390x and this machine is "},
	} {
		r.create(t, podOf(name, func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = nil
			c.change(&p.Spec.Containers[0])
		}))
		pod := r.await(t, name, "not started", func(p *corev1.Pod) bool {
			return waitingFor("CrashLoopBackOff")(p) && p.Status.ContainerStatuses[0].LastTerminationState.Terminated != nil
		})
		end := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
		require.Equal(t, "StartError", end.Reason, name)
		require.EqualValues(t, 128, end.ExitCode, name)
		require.Contains(t, end.Message, c.message, name)
	}
	r.create(t, podOf("never-started", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Command = []string{"no-such-command"}
	}))
	r.await(t, "never-started", "Failed", phaseIs(corev1.PodFailed))
}

// crashLoop is a program that ends at once: its last words are in the status.
func (r *rig) crashLoop(t *testing.T) {
	r.create(t, podOf("crashes", shell("echo no configuration at /etc/app.yaml >&2; exit 4")))
	pod := r.await(t, "crashes", "crashing", func(p *corev1.Pod) bool {
		return waitingFor("CrashLoopBackOff")(p) && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	end := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
	require.EqualValues(t, 4, end.ExitCode)
	require.Equal(t, "no configuration at /etc/app.yaml\n", end.Message)
	require.Contains(t, pod.Status.ContainerStatuses[0].State.Waiting.Message, "restarting failed container main")
	r.awaitEvent(t, "crashes", "Back-off restarting")
	require.Equal(t, "no configuration at /etc/app.yaml\n", r.say(t, "logs", "crashes"), "the log of the life before")
}

// missingObjects start as soon as what they need is there.
func (r *rig) missingObjects(t *testing.T) {
	r.create(t, podOf("no-env", func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "late-env"}}}}
	}))
	r.create(t, podOf("no-volume", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "late-secret"}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}))
	pod := r.await(t, "no-env", "waiting for its ConfigMap", waitingFor("CreateContainerConfigError"))
	require.Contains(t, pod.Status.ContainerStatuses[0].State.Waiting.Message, `"late-env" not found`)
	r.await(t, "no-volume", "waiting for its Secret", waitingFor("ContainerCreating"))
	r.awaitEvent(t, "no-volume", `FailedMount: volume "v": secrets "late-secret" not found`)
	_, err := r.client.CoreV1().ConfigMaps(testNS).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "late-env"}, Data: map[string]string{"A": "b"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = r.client.CoreV1().Secrets(testNS).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late-secret"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	r.awaitReady(t, "no-env")
	r.awaitReady(t, "no-volume")
}

// fullDisk is a pod's folder in which nothing can be made: a file system of a single inode.
func (r *rig) fullDisk(t *testing.T) {
	pod := r.create(t, podOf("full", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.InitContainers = []corev1.Container{{
			Name: "first", Image: "helloworld", Command: []string{"/bin/sh", "-c", "while [ ! -e /v/go ]; do sleep 0.05; done"},
			VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}},
		}}
	}))
	r.await(t, "full", "initializing", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	dir := filepath.Join(r.dir, "state", "pods", string(pod.UID))
	require.NoError(t, unix.Mount("tmpfs", filepath.Join(dir, "containers"), "tmpfs", 0, "nr_inodes=1"))
	mounted := true
	unmount := func() {
		if mounted {
			require.NoError(t, unix.Unmount(filepath.Join(dir, "containers"), unix.MNT_DETACH))
		}
		mounted = false
	}
	defer unmount()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "volumes", "v", "go"), nil, 0o644))
	full := r.await(t, "full", "without room", waitingFor("CreateContainerError"))
	require.Contains(t, full.Status.ContainerStatuses[0].State.Waiting.Message, "no space left on device; make room on the disk that holds "+filepath.Dir(dir))
	r.awaitEvent(t, "full", "make room on the disk")
	unmount()
	r.awaitReady(t, "full")
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
