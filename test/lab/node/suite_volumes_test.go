// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func (r *rig) volumes(t *testing.T) {
	ctx := t.Context()
	core := r.client.CoreV1()
	_, err := core.ConfigMaps(testNS).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"color": "blue", "file": "content"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = core.Secrets(testNS).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "hidden"}, StringData: map[string]string{"key": "opensesame"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = core.ServiceAccounts(testNS).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "who"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	r.create(t, podOf("volumes", shell(`
echo "env=$COLOR,$KEY,$IP,$CPU,$ARG"
echo "config=$(cat /etc/config/file) secret=$(cat /var/run/secrets/hidden/key) sub=$(cat /opt/one)"
echo "labels=$(grep app= /etc/podinfo/labels)"
echo "scratch=$(touch /scratch/a && ls /scratch) tmp=$(ls /tmp | wc -l) ro=$(touch /etc/config/x 2>&1 | grep -c 'ead-only')"
echo "token=$(cat /var/run/secrets/tokens/token)"
echo end; exec sleep 1000`), func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "who"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
			{Name: "hidden", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "hidden", DefaultMode: ptr.To(int32(0o400))}}},
			{Name: "absent", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent", Optional: ptr.To(true)}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To(int64(600))}}}}}},
		}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{
			{Name: "scratch", MountPath: "/scratch"}, {Name: "config", MountPath: "/etc/config", ReadOnly: true},
			{Name: "hidden", MountPath: "/var/run/secrets/hidden"}, {Name: "absent", MountPath: "/absent"},
			{Name: "info", MountPath: "/etc/podinfo"}, {Name: "tokens", MountPath: "/var/run/secrets/tokens"},
			{Name: "config", MountPath: "/opt/one", SubPath: "file"},
		}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
		c.Env = []corev1.EnvVar{
			{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "hidden"}, Key: "key"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "ARG", Value: "$(COLOR)-$(NONE)-$$(COLOR)"},
		}
	}))
	pod := r.awaitReady(t, "volumes")
	require.Eventually(t, func() bool { return strings.Contains(r.log(t, "volumes", "main"), "\nend\n") }, patience, 10*time.Millisecond)
	lines := strings.Split(r.log(t, "volumes", "main"), "\n")
	require.Equal(t, "env=blue,opensesame,"+pod.Status.PodIP+",2,blue-$(NONE)-$(COLOR)", lines[0])
	require.Equal(t, "config=content secret=opensesame sub=content", lines[1])
	require.Equal(t, `labels=app="volumes"`, lines[2])
	require.Equal(t, "scratch=a tmp=0 ro=1", lines[3])
	review, err := r.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: strings.TrimPrefix(lines[4], "token=")}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.True(t, review.Status.Authenticated, review.Status.Error)
	require.Equal(t, "system:serviceaccount:default:who", review.Status.User.Username)
}

// volumesFollow changes what volumes are made from.
func (r *rig) volumesFollow(t *testing.T) {
	maps := r.client.CoreV1().ConfigMaps(testNS)
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "following"}, Data: map[string]string{"color": "blue", "gone": "soon"}}
	_, err := maps.Create(t.Context(), settings, metav1.CreateOptions{})
	require.NoError(t, err)
	r.create(t, podOf("following", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "following"}}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "stage", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['stage']"}}}}}},
		}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config"}, {Name: "info", MountPath: "/etc/info"}}
	}))
	r.awaitReady(t, "following")
	root := fmt.Sprintf("/proc/%d/root", r.process(t, "following").PID)
	is := func(file, want string) func() bool {
		return func() bool {
			data, err := os.ReadFile(root + file)
			return err == nil && string(data) == want
		}
	}
	require.True(t, is("/etc/config/color", "blue")())
	settings.Data = map[string]string{"color": "green"}
	_, err = maps.Update(t.Context(), settings, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = r.client.CoreV1().Pods(testNS).Patch(t.Context(), "following", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"stage":"two"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	require.Eventually(t, is("/etc/info/stage", "two"), patience, 20*time.Millisecond, "the label does not arrive")
	require.Eventually(t, is("/etc/config/color", "green"), 2*refreshEvery+patience, 100*time.Millisecond, "the ConfigMap does not arrive")
	require.NoFileExists(t, root+"/etc/config/gone")
}

func (r *rig) hostPath(t *testing.T) {
	at := filepath.Join(r.dir, "host")
	kinds := map[string]corev1.HostPathType{"made": corev1.HostPathDirectoryOrCreate, "missing": corev1.HostPathDirectory}
	for name, kind := range kinds {
		r.create(t, podOf("host-"+name, shell("echo seen > /host/file; exec sleep 1000"), func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
				Path: filepath.Join(at, name), Type: &kind}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
		}))
	}
	r.awaitReady(t, "host-made")
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(filepath.Join(at, "made", "file"))
		return err == nil && string(data) == "seen\n"
	}, patience, 20*time.Millisecond)
	r.awaitEvent(t, "host-missing", filepath.Join(at, "missing")+": no such file or directory")
}
