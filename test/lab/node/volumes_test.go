// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

func testVolumes(t *testing.T, o *fakeObjects) (*volumes, *clocktesting.FakeClock) {
	t.Helper()
	clock := clocktesting.NewFakeClock(time.Unix(1_000_000, 0))
	o.now = clock.Now
	return newVolumes(t.TempDir(), o, clock, func() *environment { return testEnvironment(o) }), clock
}

func podWith(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Volumes: volumes}}
}

func configMapVolume(name string, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}}}
}

func content(t *testing.T, v *volumes, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(v.path("v"), name))
	require.NoError(t, err)
	return string(data)
}

func TestVolumeIsReplacedAtOnceAndOnlyWhenItChanged(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"cm": {"a": "1", "b": "2"}}}
	v, _ := testVolumes(t, o)
	pod := podWith(configMapVolume("cm"))
	require.NoError(t, v.sync(t.Context(), pod))
	require.Equal(t, "1", content(t, v, "a"))
	data := filepath.Join(v.path("v"), "..data")
	first, err := os.Readlink(data)
	require.NoError(t, err)

	require.NoError(t, v.sync(t.Context(), pod))
	same, _ := os.Readlink(data)
	require.Equal(t, first, same, "nothing changed, nothing is written")

	o.configMaps["cm"] = map[string]string{"a": "one", "c": "3"}
	require.NoError(t, v.sync(t.Context(), pod))
	require.Equal(t, "one", content(t, v, "a"))
	require.Equal(t, "3", content(t, v, "c"))
	entries, err := os.ReadDir(v.path("v"))
	require.NoError(t, err)
	require.Len(t, entries, 4, "the new content's folder, ..data, a and c")
}

func TestItemsPickKeysAndModes(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"cm": {"a": "1", "b": "2"}}}
	v, _ := testVolumes(t, o)
	require.NoError(t, v.sync(t.Context(), podWith(configMapVolume("cm", corev1.KeyToPath{Key: "a", Path: "deep/er/a", Mode: ptr.To(int32(0o400))}))))
	info, err := os.Stat(filepath.Join(v.path("v"), "deep/er/a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o400), info.Mode())
	require.NoFileExists(t, filepath.Join(v.path("v"), "b"))
}

func TestVolumesSayWhatIsMissing(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"cm": {}}}
	v, _ := testVolumes(t, o)
	require.EqualError(t, v.sync(t.Context(), podWith(configMapVolume("none"))), `volume "v": configmaps "none" not found`)
	require.EqualError(t, v.sync(t.Context(), podWith(configMapVolume("cm", corev1.KeyToPath{Key: "a", Path: "a"}))),
		`volume "v": no key "a" in ConfigMap cm`)
	o.configMaps["cm"]["a"] = "1"
	require.EqualError(t, v.sync(t.Context(), podWith(configMapVolume("cm", corev1.KeyToPath{Key: "a", Path: "../a"}))),
		`volume "v": path "../a" leaves the volume`)
	require.ErrorContains(t, v.sync(t.Context(), podWith(corev1.Volume{Name: "v"})), "emptyDir, configMap, secret")
}

func TestOptionalVolumeIsEmptyUntilItsObjectComes(t *testing.T) {
	o := &fakeObjects{secrets: map[string]map[string][]byte{}}
	v, _ := testVolumes(t, o)
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: "late", Optional: ptr.To(true)}}})
	require.NoError(t, v.sync(t.Context(), pod))
	require.DirExists(t, v.path("v"))
	o.secrets["late"] = map[string][]byte{"k": []byte("here")}
	require.NoError(t, v.sync(t.Context(), pod))
	require.Equal(t, "here", content(t, v, "k"))
}

func TestTokenIsRenewedAtFourFifthsOfItsLife(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"ca": {"ca.crt": "root"}}}
	v, clock := testVolumes(t, o)
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "istio-ca", ExpirationSeconds: ptr.To(int64(1000))}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "ca"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		}}}})
	sync := func() string {
		require.NoError(t, v.sync(t.Context(), pod))
		return content(t, v, "token")
	}
	require.Equal(t, "istio-ca-1", sync())
	require.Equal(t, "root", content(t, v, "ca.crt"))
	require.Equal(t, "ns", content(t, v, "namespace"))
	clock.Step(799 * time.Second)
	require.Equal(t, "istio-ca-1", sync())
	clock.Step(2 * time.Second)
	o.tokenErr = errors.New("the API server is away")
	require.Equal(t, "istio-ca-1", sync(), "the old token stays while there is no new one")
	o.tokenErr = nil
	require.Equal(t, "istio-ca-2", sync())
}

func TestEmptyDirIsKept(t *testing.T) {
	v, _ := testVolumes(t, &fakeObjects{})
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	require.NoError(t, v.sync(t.Context(), pod))
	info, err := os.Stat(v.path("v"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o777), info.Mode().Perm())
	require.NoError(t, os.WriteFile(filepath.Join(v.path("v"), "mine"), nil, 0o600))
	require.NoError(t, v.sync(t.Context(), pod))
	require.FileExists(t, filepath.Join(v.path("v"), "mine"))
}

func TestAVolumeThatCannotBeWrittenLeavesNothing(t *testing.T) {
	o := &fakeObjects{configMaps: map[string]map[string]string{"cm": {"a": "1"}}}
	v, _ := testVolumes(t, o)
	both := podWith(configMapVolume("cm", corev1.KeyToPath{Key: "a", Path: "a"}, corev1.KeyToPath{Key: "a", Path: "a/b"}))
	require.Error(t, v.sync(t.Context(), both), "a file and a folder of one name")
	left, err := os.ReadDir(v.path("v"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestARecentAnswerIsOneThatSaysSomething(t *testing.T) {
	var r recent[string]
	now := time.Unix(1_000_000, 0)
	reads := 0
	read := func(answer string, err error) func() (string, error) {
		return func() (string, error) { reads++; return answer, err }
	}
	_, err := r.get("key", now, read("", context.Canceled))
	require.ErrorIs(t, err, context.Canceled)
	answer, err := r.get("key", now, read("yes", nil))
	require.NoError(t, err, "another's question that was cut off is no answer")
	require.Equal(t, "yes", answer)
	answer, _ = r.get("key", now.Add(refreshEvery/2-1), read("later", nil))
	require.Equal(t, "yes", answer)
	require.Equal(t, 2, reads)
	answer, _ = r.get("key", now.Add(refreshEvery/2), read("later", nil))
	require.Equal(t, "later", answer)
}
