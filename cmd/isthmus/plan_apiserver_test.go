// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/apiserver"
)

func TestMain(m *testing.M) { apiserver.Main(m) }

// TestPlanOnARealHub: the file goes through the API server's own checks, and nothing there is changed by it.
func TestPlanOnARealHub(t *testing.T) {
	apiserver.Start(t, 1)
	cfg := apiserver.Configs()[0]
	kubeconfig := filepath.Join(t.TempDir(), "hub.yaml")
	require.NoError(t, clientcmd.WriteToFile(clientcmdapi.Config{CurrentContext: "hub",
		Clusters:  map[string]*clientcmdapi.Cluster{"hub": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"me": {ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}},
		Contexts:  map[string]*clientcmdapi.Context{"hub": {Cluster: "hub", AuthInfo: "me", Namespace: "sample"}}}, kubeconfig))
	c, err := client.New(cfg, client.Options{Scheme: newScheme()})
	require.NoError(t, err)
	objects := createHub(t, c)
	versions := func() (out []string) {
		for _, o := range objects {
			require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(o), o))
			out = append(out, o.GetKind()+"/"+o.GetName()+" "+o.GetResourceVersion())
		}
		return out
	}
	before := versions()

	out, code, message := run((*access).connect, "plan", "--kubeconfig", kubeconfig, "-f", "testdata/all-gke.yaml")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	require.Contains(t, out, "20.00%   100.00%")
	require.Equal(t, before, versions(), "nothing is written")

	text, err := os.ReadFile("testdata/all-gke.yaml")
	require.NoError(t, err)
	for _, wrong := range []string{"weight: -1", "wait: 1"} {
		refused := filepath.Join(t.TempDir(), "refused.yaml")
		require.NoError(t, os.WriteFile(refused, []byte(strings.Replace(string(text), "weight: 1", wrong, 1)), 0o600))
		_, code, message = run((*access).connect, "plan", "--kubeconfig", kubeconfig, "-f", refused)
		require.Equal(t, exitFailed, code)
		require.Contains(t, message, "TrafficDistributionPolicy sample/split would be refused")
	}
	t.Run("verbs", func(t *testing.T) { verbsOnARealHub(t, c, kubeconfig) })
	t.Run("rollouts", func(t *testing.T) { rolloutsOnARealHub(t, c, kubeconfig) })
}

// rolloutsOnARealHub: one is shown before any controller has looked at it, written as it could be applied, and told something.
func rolloutsOnARealHub(t *testing.T, c client.Client, kubeconfig string) {
	text, err := os.ReadFile("../../examples/canary/canary.yaml")
	require.NoError(t, err)
	r := &v1alpha1.TrafficRollout{}
	require.NoError(t, yaml.Unmarshal(text, r))
	require.NoError(t, c.Create(t.Context(), r))
	t.Cleanup(func() { _ = c.Delete(context.Background(), r) })
	for look, said := range map[string]string{
		"rollout": "not looked at yet", "rollout get sample/helloworld": "· header route X-Version: next", "rollout list -o name": "trafficrollout.isthmus.dev/helloworld\n",
		"status": "sample/helloworld", "why sample/helloworld": "sample/helloworld",
	} {
		out, _, message := run((*access).connect, append(strings.Fields(look), "--kubeconfig", kubeconfig)...)
		require.Empty(t, message)
		require.Contains(t, out, said)
	}
	out, _, message := run((*access).connect, "rollout", "get", "sample/helloworld", "-o", "yaml", "--kubeconfig", kubeconfig)
	require.Empty(t, message)
	written := &v1alpha1.TrafficRollout{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(out), written))
	require.Equal(t, r.Spec, written.Spec)
	require.Equal(t, "TrafficRollout", written.Kind)

	_, _, message = run((*access).connect, "rollout", "promote", "sample/helloworld", "--kubeconfig", kubeconfig)
	require.Empty(t, message)
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(r), r))
	require.NotEmpty(t, r.Annotations[v1alpha1.VerbPromote])
}

// verbsOnARealHub: what the API server's own rules and answers make of each verb.
func verbsOnARealHub(t *testing.T, c client.Client, kubeconfig string) {
	isthmus := func(args ...string) (out string, code int, message string) {
		return run((*access).connect, append(args, "--kubeconfig", kubeconfig)...)
	}
	overrides := func() []v1alpha1.TrafficOverride {
		var list v1alpha1.TrafficOverrideList
		require.NoError(t, c.List(t.Context(), &list))
		return list.Items
	}
	t.Cleanup(func() { _ = c.DeleteAllOf(context.Background(), &v1alpha1.TrafficOverride{}) })

	_, _, message := isthmus("drain", "gke", "--reason", "a test", "--dry-run")
	require.Empty(t, message)
	require.Empty(t, overrides(), "tried only")

	for _, test := range []struct{ say, end string }{
		{"drain gke --grace 1m", "undrain gke"}, {"drain gke/sample/helloworld --force", "undrain gke/sample/helloworld"},
		{"freeze", "unfreeze"}, {"hold sample/helloworld", "release sample/helloworld"},
	} {
		say := append(strings.Fields(test.say), "--reason", "a test", "--for")
		for _, lasts := range [][]string{{"2h"}, {"1h"}, {"3h", "--replace"}} {
			_, code, message := isthmus(append(say, lasts...)...)
			require.Empty(t, message)
			require.Equal(t, 0, code)
			require.Len(t, overrides(), 1, "the same word is said but once")
		}
		said := overrides()[0].Spec
		require.Equal(t, "a test", said.Reason)
		require.NotEmpty(t, said.Author)
		require.NotEqual(t, "me", said.Author, "the API server knows better than the kubeconfig")
		_, code, message := isthmus(strings.Fields(test.end)...)
		require.Empty(t, message)
		require.Equal(t, 0, code)
		require.Empty(t, overrides())
	}

	for range 2 {
		before := overrides()
		_, _, message := isthmus("failback", "gke")
		require.Empty(t, message)
		require.Len(t, overrides(), 1)
		require.NotEqual(t, before, overrides(), "it counts from when it is created")
	}
	for _, look := range []string{"status", "overrides", "why sample/helloworld"} {
		out, _, message := isthmus(strings.Fields(look)...)
		require.Empty(t, message)
		require.NotEmpty(t, out)
	}
}

// createHub writes testdata/hub.yaml with its statuses.
func createHub(t *testing.T, c client.Client) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile("testdata/hub.yaml")
	require.NoError(t, err)
	var out []*unstructured.Unstructured
	for _, doc := range strings.Split(string(text), "\n---\n") {
		u := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(doc), &u.Object))
		if u.GetKind() == "ServiceImport" {
			federation.ServiceOwner(federation.ServiceKey{Namespace: u.GetNamespace(), Name: u.GetName()}).Mark(u)
		}
		status, said := u.Object["status"]
		require.NoError(t, c.Create(t.Context(), u), "%s %s", u.GetKind(), u.GetName())
		if said {
			u.Object["status"] = status
			require.NoError(t, c.Status().Update(t.Context(), u), "%s %s", u.GetKind(), u.GetName())
		}
		out = append(out, u)
	}
	return out
}
