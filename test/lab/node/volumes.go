// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// tokenSeconds is the life of a projected token that does not say its own (as in core/v1).
const tokenSeconds = 3600

// volumes are the volumes of one pod, folders below dir.
type volumes struct {
	dir     string
	objects objects
	clock   clock.PassiveClock
	// fields resolves the downward API as the pod is now.
	fields func() *environment

	mu      sync.Mutex
	source  objects                  // of the synchronisation that runs
	written map[string]payload       // by volume, what was written last
	tokens  map[string]*pendingToken // by volume/path
}

// payload is the content of a volume that is made from objects, by relative path.
type payload map[string]file

type file struct {
	data []byte
	mode os.FileMode
}

type pendingToken struct {
	value string
	renew time.Time
}

func newVolumes(dir string, o objects, c clock.PassiveClock, fields func() *environment) *volumes {
	return &volumes{dir: dir, objects: o, clock: c, fields: fields,
		written: map[string]payload{}, tokens: map[string]*pendingToken{}}
}

func (v *volumes) path(name string) string { return filepath.Join(v.dir, name) }

// sync makes every volume of the pod and brings those made from objects up to date. It writes
// nothing when nothing changed.
func (v *volumes) sync(ctx context.Context, pod *corev1.Pod) error {
	return v.syncFrom(ctx, pod, v.objects)
}

// syncFrom is sync with objects of another source.
func (v *volumes) syncFrom(ctx context.Context, pod *corev1.Pod, source objects) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.source = source
	var errs []error
	for i := range pod.Spec.Volumes {
		if err := v.syncOne(ctx, pod, &pod.Spec.Volumes[i]); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", pod.Spec.Volumes[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *volumes) syncOne(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) error {
	dir := v.path(volume.Name)
	switch {
	case volume.EmptyDir != nil:
		return makeEmptyDir(dir, fsGroup(pod))
	case volume.HostPath != nil:
		return makeHostPath(volume.HostPath)
	}
	content, err := v.render(ctx, pod, volume)
	if err != nil {
		return err
	}
	if old, ok := v.written[volume.Name]; ok && maps.EqualFunc(old, content, equalFile) {
		return nil
	}
	if err := writePayload(dir, content, fsGroup(pod)); err != nil {
		return err
	}
	v.written[volume.Name] = content
	return nil
}

func equalFile(a, b file) bool { return a.mode == b.mode && bytes.Equal(a.data, b.data) }

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	group := pod.Spec.SecurityContext.FSGroup
	if group != nil && !groupMap().has(int(*group)) {
		return nil // nobody here could be in it
	}
	return group
}

// makeEmptyDir makes a folder that every user may write, as kubelet does.
func makeEmptyDir(dir string, group *int64) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if group != nil {
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

// makeHostPath makes what a hostPath volume asks to be made, and says what it misses.
func makeHostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(v.Path, 0o755)
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	info, err := os.Stat(v.Path)
	if err == nil && (kind == corev1.HostPathDirectory && !info.IsDir() || kind == corev1.HostPathFile && !info.Mode().IsRegular()) {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, kind)
	}
	return err
}

// render makes the content of a volume from its sources.
func (v *volumes) render(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) (payload, error) {
	out := payload{}
	switch {
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		return out, v.addConfigMap(ctx, out, pod.Namespace, s.Name, keys{s.Items, s.Optional, s.DefaultMode})
	case volume.Secret != nil:
		s := volume.Secret
		return out, v.addSecret(ctx, out, pod.Namespace, s.SecretName, keys{s.Items, s.Optional, s.DefaultMode})
	case volume.DownwardAPI != nil:
		return out, v.addDownward(out, volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode)
	case volume.Projected != nil:
		for i := range volume.Projected.Sources {
			if err := v.addProjection(ctx, out, pod, volume, &volume.Projected.Sources[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, errors.New("the lab's node has emptyDir, configMap, secret, downwardAPI, projected and hostPath volumes only")
}

func (v *volumes) addProjection(ctx context.Context, out payload, pod *corev1.Pod, volume *corev1.Volume, p *corev1.VolumeProjection) error {
	mode := volume.Projected.DefaultMode
	switch {
	case p.ConfigMap != nil:
		return v.addConfigMap(ctx, out, pod.Namespace, p.ConfigMap.Name, keys{p.ConfigMap.Items, p.ConfigMap.Optional, mode})
	case p.Secret != nil:
		return v.addSecret(ctx, out, pod.Namespace, p.Secret.Name, keys{p.Secret.Items, p.Secret.Optional, mode})
	case p.DownwardAPI != nil:
		return v.addDownward(out, p.DownwardAPI.Items, mode)
	case p.ServiceAccountToken != nil:
		token, err := v.token(ctx, pod, volume.Name, p.ServiceAccountToken)
		if err != nil {
			return err
		}
		return out.add(p.ServiceAccountToken.Path, []byte(token), nil, mode)
	}
	return errors.New("the lab's node projects serviceAccountToken, configMap, secret and downwardAPI only")
}

func (v *volumes) addConfigMap(ctx context.Context, out payload, namespace, name string, pick keys) error {
	cm, err := optionalObject(pick.optional, func() (*corev1.ConfigMap, error) { return v.source.ConfigMap(ctx, namespace, name) })
	if err != nil || cm == nil {
		return err
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, value := range cm.Data {
		data[key] = []byte(value)
	}
	return out.addKeys(data, pick, "ConfigMap "+name)
}

func (v *volumes) addSecret(ctx context.Context, out payload, namespace, name string, pick keys) error {
	secret, err := optionalObject(pick.optional, func() (*corev1.Secret, error) { return v.source.Secret(ctx, namespace, name) })
	if err != nil || secret == nil {
		return err
	}
	return out.addKeys(secret.Data, pick, "Secret "+name)
}

func (v *volumes) addDownward(out payload, items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	env := v.fields()
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = fieldValue(env.pod, item.FieldRef.FieldPath, env.podIP, env.nodeIP)
		case item.ResourceFieldRef != nil:
			value, err = resourceValue(env.pod, nil, item.ResourceFieldRef, env.allocatable)
		}
		if err != nil {
			return err
		}
		if err := out.add(item.Path, []byte(value), item.Mode, mode); err != nil {
			return err
		}
	}
	return nil
}

// token returns a valid token and renews it at 80 % of its life. While the API server is away the
// old one stays: its remaining fifth may outlast the trouble, and no token helps nobody.
func (v *volumes) token(ctx context.Context, pod *corev1.Pod, volume string, p *corev1.ServiceAccountTokenProjection) (string, error) {
	key := volume + "/" + p.Path
	known := v.tokens[key]
	now := v.clock.Now()
	if known != nil && now.Before(known.renew) {
		return known.value, nil
	}
	seconds := int64(tokenSeconds)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	status, err := v.source.Token(ctx, pod, p.Audience, seconds)
	if err != nil {
		if known != nil {
			return known.value, nil
		}
		return "", err
	}
	life := status.ExpirationTimestamp.Sub(now)
	v.tokens[key] = &pendingToken{value: status.Token, renew: now.Add(life * 8 / 10)}
	return status.Token, nil
}

// keys says which keys of an object become files, and how.
type keys struct {
	items    []corev1.KeyToPath // nil is all
	optional *bool
	mode     *int32
}

func (p payload) addKeys(data map[string][]byte, pick keys, from string) error {
	if pick.items == nil {
		for key, value := range data {
			if err := p.add(key, value, nil, pick.mode); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range pick.items {
		value, ok := data[item.Key]
		if !ok {
			if pick.optional != nil && *pick.optional {
				continue
			}
			return fmt.Errorf("no key %q in %s", item.Key, from)
		}
		if err := p.add(item.Path, value, item.Mode, pick.mode); err != nil {
			return err
		}
	}
	return nil
}

func (p payload) add(name string, data []byte, mode, otherwise *int32) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("path %q leaves the volume", name)
	}
	f := file{data: data, mode: 0o644}
	if otherwise != nil {
		f.mode = os.FileMode(*otherwise) & os.ModePerm
	}
	if mode != nil {
		f.mode = os.FileMode(*mode) & os.ModePerm
	}
	p[path.Clean(name)] = f
	return nil
}

// writePayload replaces the content of dir at once, as kubelet does: the files lie in a hidden
// folder, `..data` links to it, and the names that programs open link through `..data`. A reader
// sees the old content or the new one, never a mixture.
func writePayload(dir string, content payload, group *int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	hidden, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	if err := writeContent(hidden, content, group); err != nil {
		return errors.Join(err, os.RemoveAll(hidden)) // it is tried again, and half a copy each time would fill the disk
	}
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	if err := replaceLink(data, filepath.Base(hidden)); err != nil {
		return err
	}
	if err := linkNames(dir, content); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func writeContent(dir string, content payload, group *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, name := range sortedKeys(content) {
		if err := writeFile(filepath.Join(dir, name), content[name], group); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(name string, f file, group *int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, f.data, 0o600); err != nil {
		return err
	}
	mode := f.mode
	if group != nil {
		if err := os.Chown(name, -1, int(*group)); err != nil {
			return err
		}
		mode |= 0o040
	}
	return os.Chmod(name, mode)
}

// linkNames makes the visible names and removes those whose content is gone.
func linkNames(dir string, content payload) error {
	want := map[string]bool{}
	for name := range content {
		first, _, _ := strings.Cut(name, "/")
		want[first] = true
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range have {
		if !strings.HasPrefix(entry.Name(), "..") && !want[entry.Name()] {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for _, name := range sortedKeys(want) {
		if err := replaceLink(filepath.Join(dir, name), filepath.Join("..data", name)); err != nil {
			return err
		}
	}
	return nil
}

func replaceLink(name, target string) error {
	if now, err := os.Readlink(name); err == nil && now == target {
		return nil
	}
	next := filepath.Join(filepath.Dir(name), "..next")
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	return os.Rename(next, name)
}
