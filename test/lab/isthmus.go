// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Names that config/ gives.
const (
	isthmusNamespace      = "isthmus-system"
	isthmusServiceAccount = "isthmus-hub"
)

// tokenLife is how long the hub's tokens for the members last: a lab may be left running for a while.
const tokenLife = 30 * 24 * time.Hour

// installIsthmus installs Isthmus in the hub and joins the members, by the same files and the same
// steps as on any cluster.
func (l *Lab) installIsthmus(ctx context.Context, lab *state.Lab) error {
	hub, err := l.applier(hubName)
	if err != nil {
		return err
	}
	if err := l.applyKustomization(ctx, hub, filepath.Join(lab.Root, "config", "default")); err != nil {
		return fmt.Errorf("install Isthmus in the hub: %w", err)
	}
	err = eachCluster(ctx, lab.Members(), func(ctx context.Context, member state.Cluster) error {
		if err := l.join(ctx, lab, hub, member); err != nil {
			return fmt.Errorf("join member %s: %w", member.Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.say("hub: Isthmus installed, members joined")
	return nil
}

// join gives the hub a member's kubeconfig and tells it of the member.
func (l *Lab) join(ctx context.Context, lab *state.Lab, hub *controlplane.Applier, member state.Cluster) error {
	applier, err := l.applier(member.Name)
	if err != nil {
		return err
	}
	if err := l.applyKustomization(ctx, applier, filepath.Join(lab.Root, "config", "member")); err != nil {
		return err
	}
	kubeconfig, err := l.memberKubeconfig(ctx, lab, member)
	if err != nil {
		return err
	}
	secret := member.Name + "-kubeconfig"
	return hub.ApplyObjects(ctx,
		map[string]any{
			"apiVersion": "v1", "kind": "Secret",
			"metadata":   map[string]any{"name": secret, "namespace": isthmusNamespace},
			"stringData": map[string]any{"kubeconfig": string(kubeconfig)},
		},
		map[string]any{
			"apiVersion": "isthmus.dev/v1alpha1", "kind": "MemberCluster",
			"metadata": map[string]any{"name": member.Name},
			"spec":     map[string]any{"kubeconfig": map[string]any{"secretRef": map[string]any{"name": secret}}},
		},
	)
}

// memberKubeconfig returns a kubeconfig of the hub's own account in the member, all inline.
func (l *Lab) memberKubeconfig(ctx context.Context, lab *state.Lab, member state.Cluster) ([]byte, error) {
	config, err := l.RESTConfig(member.Name)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	seconds := int64(tokenLife.Seconds())
	token, err := client.CoreV1().ServiceAccounts(isthmusNamespace).CreateToken(ctx, isthmusServiceAccount,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of %s/%s: %w", isthmusNamespace, isthmusServiceAccount, err)
	}
	cp, err := l.controlPlane(lab, member)
	if err != nil {
		return nil, err
	}
	ca, err := cp.CA()
	if err != nil {
		return nil, err
	}
	return clientcmd.Write(*controlplane.Kubeconfig(member.Name, member.APIServer, ca, &clientcmdapi.AuthInfo{Token: token.Status.Token}))
}

// applyKustomization renders a folder with the lab's kubectl and applies the result.
func (l *Lab) applyKustomization(ctx context.Context, to *controlplane.Applier, dir string) error {
	cmd := exec.CommandContext(ctx, l.tools.File(tools.Kubernetes, "kubectl"), "kustomize", dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kustomize %s: %w\n%s", dir, err, stderr.String())
	}
	return to.Apply(ctx, stdout.Bytes())
}
