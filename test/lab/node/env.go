// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/fieldpath"
	kubectlresource "k8s.io/kubectl/pkg/util/resource"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment makes the environment of the containers of one pod.
type environment struct {
	pod         *corev1.Pod // as the API server has it now
	podIP       string
	nodeIP      string
	allocatable corev1.ResourceList // what a limit is where none is set
	objects     objects
	base        []corev1.EnvVar // what the node sets; a container's own variables win
}

// list returns the variables of c as KEY=value: the node's, then envFrom, then env in their order.
// A later variable replaces an earlier one of its name, and $(NAME) sees what came before it.
func (e *environment) list(ctx context.Context, c *corev1.Container) ([]string, error) {
	vars := &orderedVars{values: map[string]string{}}
	for _, v := range e.base {
		vars.set(v.Name, v.Value)
	}
	for _, from := range c.EnvFrom {
		if err := e.addFrom(ctx, vars, from); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		value, ok, err := e.value(ctx, vars, c, v)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
		if ok {
			vars.set(v.Name, value)
		}
	}
	return vars.list(), nil
}

func (e *environment) addFrom(ctx context.Context, vars *orderedVars, from corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := optionalObject(from.ConfigMapRef.Optional, func() (*corev1.ConfigMap, error) {
			return e.objects.ConfigMap(ctx, e.pod.Namespace, from.ConfigMapRef.Name)
		})
		if err != nil {
			return err
		}
		if cm != nil {
			data = cm.Data
		}
	case from.SecretRef != nil:
		secret, err := optionalObject(from.SecretRef.Optional, func() (*corev1.Secret, error) {
			return e.objects.Secret(ctx, e.pod.Namespace, from.SecretRef.Name)
		})
		if err != nil {
			return err
		}
		if secret != nil {
			for key, value := range secret.Data {
				data[key] = string(value)
			}
		}
	}
	for _, key := range sortedKeys(data) {
		vars.set(from.Prefix+key, data[key])
	}
	return nil
}

// value returns the value of one variable; false for an optional one whose source is not there.
func (e *environment) value(ctx context.Context, vars *orderedVars, c *corev1.Container, v corev1.EnvVar) (string, bool, error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return expand(v.Value, vars.values), true, nil
	case from.FieldRef != nil:
		value, err := fieldValue(e.pod, from.FieldRef.FieldPath, e.podIP, e.nodeIP)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resourceValue(e.pod, c, from.ResourceFieldRef, e.allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := optionalObject(ref.Optional, func() (*corev1.ConfigMap, error) {
			return e.objects.ConfigMap(ctx, e.pod.Namespace, ref.Name)
		})
		if err != nil || cm == nil {
			return "", false, err
		}
		value, ok := cm.Data[ref.Key]
		return value, ok, missingKey(ok, ref.Optional, ref.Key, "ConfigMap", ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := optionalObject(ref.Optional, func() (*corev1.Secret, error) {
			return e.objects.Secret(ctx, e.pod.Namespace, ref.Name)
		})
		if err != nil || secret == nil {
			return "", false, err
		}
		value, ok := secret.Data[ref.Key]
		return string(value), ok, missingKey(ok, ref.Optional, ref.Key, "Secret", ref.Name)
	}
	return "", false, errors.New("the lab's node knows fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef only")
}

func missingKey(found bool, optional *bool, key, kind, name string) error {
	if found || (optional != nil && *optional) {
		return nil
	}
	return fmt.Errorf("no key %q in %s %s", key, kind, name)
}

// fieldValue is the downward API's fieldRef: kubectl's helper knows the metadata, the node knows
// the rest.
func fieldValue(pod *corev1.Pod, path, podIP, nodeIP string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return nodeIP, nil
	case "status.podIP", "status.podIPs":
		return podIP, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// resourceValue is the downward API's resourceFieldRef. Limits that a container does not set are
// the node's allocatable ones, as kubelet has it.
func resourceValue(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		c = findContainer(&pod.Spec, ref.ContainerName)
		if c == nil {
			return "", fmt.Errorf("no container %q in the pod", ref.ContainerName)
		}
	}
	if c == nil {
		return "", errors.New("resourceFieldRef in a volume needs a containerName")
	}
	c = c.DeepCopy()
	if c.Resources.Limits == nil {
		c.Resources.Limits = corev1.ResourceList{}
	}
	for name, quantity := range allocatable {
		if _, set := c.Resources.Limits[name]; !set {
			c.Resources.Limits[name] = quantity
		}
	}
	ref = ref.DeepCopy()
	if ref.Divisor.IsZero() {
		ref.Divisor = resource.MustParse("1")
	}
	return kubectlresource.ExtractContainerResourceValue(ref, c)
}

func findContainer(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// baseEnv is what the node sets in every container.
func baseEnv(c Config, hostname string) []corev1.EnvVar {
	port := strconv.Itoa(int(c.APIServer.Port()))
	return []corev1.EnvVar{
		{Name: "PATH", Value: defaultPath},
		{Name: "HOSTNAME", Value: hostname},
		{Name: "KUBERNETES_SERVICE_HOST", Value: c.APIServer.Addr().String()},
		{Name: "KUBERNETES_SERVICE_PORT", Value: port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: port},
		{Name: "ISTHMUS_LAB_CLUSTER", Value: c.Cluster},
	}
}

// orderedVars keeps variables in the order of their first appearance.
type orderedVars struct {
	names  []string
	values map[string]string
}

func (o *orderedVars) set(name, value string) {
	if _, known := o.values[name]; !known {
		o.names = append(o.names, name)
	}
	o.values[name] = value
}

func (o *orderedVars) list() []string {
	out := make([]string, 0, len(o.names))
	for _, name := range o.names {
		out = append(out, name+"="+o.values[name])
	}
	return out
}

// expand replaces $(NAME) by its value. $$ is a $ that starts no reference; an unknown name stays as
// it is written. (The rules of the core/v1 documentation; no published module has them.)
func expand(in string, vars map[string]string) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(in, '$')
		if at < 0 || at+1 == len(in) {
			return out.String() + in
		}
		out.WriteString(in[:at])
		in = in[at:]
		end := strings.IndexByte(in, ')')
		switch {
		case in[1] == '$':
			out.WriteByte('$')
			in = in[2:]
		case in[1] == '(' && end > 0:
			if value, ok := vars[in[2:end]]; ok {
				out.WriteString(value)
			} else {
				out.WriteString(in[:end+1])
			}
			in = in[end+1:]
		default:
			out.WriteByte('$')
			in = in[1:]
		}
	}
}

func expandAll(in []string, env []string) []string {
	vars := make(map[string]string, len(env))
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		vars[key] = value
	}
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, expand(s, vars))
	}
	return out
}
