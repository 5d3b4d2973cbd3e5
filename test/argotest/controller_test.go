// SPDX-License-Identifier: Apache-2.0

//go:build argo && linux

package argotest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/test/lab/tools"
	"isthmus.dev/isthmus/test/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

var examples = filepath.Join("..", "..", "examples")

// TestAStockControllerDrivesTheHub tells the story of examples/argo-rollouts: a stock controller runs against eks, and its
// plugin writes into the hub, by no more rights than the example gives it. Requests at both gateways go on all the while, and none
// fails.
func TestAStockControllerDrivesTheHub(t *testing.T) {
	labtest.Interruptible(t)
	startController(t)
	Deploy(t, examples, "member/services.yaml", "member/rollout.yaml")
	t.Cleanup(func() { endRollout(t) })
	expectRollout(t, "Healthy", "")
	ExpectOnly(t, "v1")
	UnderLoad(t)

	patchRollout(t, false, `[{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "next"}]`)
	expectRollout(t, "Paused", "2")
	expectShare(t, 0.2)
	for _, member := range labtest.Members {
		labtest.VersionAt(t, member, Host).With("X-Version", "next").ExpectOnly(t, "next", 50)
	}
	patchRollout(t, true, `[{"op": "add", "path": "/status/abort", "value": true}]`)
	expectRollout(t, "Degraded", "0")
	ExpectOnly(t, "v1")

	patchRollout(t, true, `[{"op": "replace", "path": "/status/abort", "value": false}]`)
	expectRollout(t, "Paused", "2")
	promote(t)
	expectRollout(t, "Paused", "4")
	expectShare(t, 0.5)
	promote(t)
	expectRollout(t, "Healthy", "5")
	ExpectInForce(t)
	ExpectOnly(t, "next")
}

// startController runs the controller until the test ends.
func startController(t *testing.T) {
	t.Helper()
	paths, err := tools.Ensure(t.Context(), os.Stderr, tools.ArgoRollouts)
	require.NoError(t, err)
	crds, err := filepath.Glob(paths.File(tools.ArgoRollouts, "manifests/crds/*-crd.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, crds)
	t.Cleanup(func() { removeController(t, crds) })
	Apply(t, "eks", crds...)
	dir := t.TempDir()
	configure(t, dir, paths.File(tools.ArgoRollouts, "gatewayapi-plugin"))

	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.Command(paths.File(tools.ArgoRollouts, "rollouts-controller"), "--kubeconfig", filepath.Join(dir, "eks.yaml"),
		"--leader-elect=false", "--metricsPort=0", "--healthzPort=0")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "hub.yaml"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its plugin is of the same group
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = log.Close()
		if said, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("the controller said last:\n%s", said[max(0, len(said)-8000):])
		}
	})
}

// configure writes the example's configuration of the controller, and its two kubeconfigs.
func configure(t *testing.T, dir, plugin string) {
	t.Helper()
	require.NoError(t, client.IgnoreAlreadyExists(labtest.Cluster(t, "eks").Create(t.Context(), argoNamespace())))
	config, err := os.ReadFile(filepath.Join(examples, "argo-rollouts", "controller", "config.yaml"))
	require.NoError(t, err)
	ours := strings.Replace(string(config), "file:///plugins/gatewayapi-plugin", "file://"+plugin, 1)
	require.NotEqual(t, string(config), ours)
	file := filepath.Join(dir, "config.yaml")
	require.NoError(t, os.WriteFile(file, []byte(ours), 0o600))
	Apply(t, "eks", file)

	eks, err := labtest.Lab.RESTConfig("eks")
	require.NoError(t, err)
	writeKubeconfig(t, filepath.Join(dir, "eks.yaml"), eks, &clientcmdapi.AuthInfo{ClientCertificateData: eks.CertData, ClientKeyData: eks.KeyData, Token: eks.BearerToken})
	hub, err := labtest.Lab.RESTConfig("hub")
	require.NoError(t, err)
	Apply(t, "hub", filepath.Join(examples, "argo-rollouts", "hub", "rbac.yaml"))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "argo-rollouts"}}
	token := &authenticationv1.TokenRequest{}
	require.NoError(t, labtest.Cluster(t, "hub").SubResource("token").Create(t.Context(), account, token))
	writeKubeconfig(t, filepath.Join(dir, "hub.yaml"), hub, &clientcmdapi.AuthInfo{Token: token.Status.Token})
}

func writeKubeconfig(t *testing.T, file string, cfg *rest.Config, user *clientcmdapi.AuthInfo) {
	t.Helper()
	require.NoError(t, clientcmd.WriteToFile(clientcmdapi.Config{CurrentContext: "c",
		Contexts:  map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "c"}},
		Clusters:  map[string]*clientcmdapi.Cluster{"c": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"c": user}}, file))
}

func argoNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "argo-rollouts"}}
}

// removeController takes away its kinds and its namespace.
func removeController(t *testing.T, crds []string) {
	eks := labtest.Cluster(t, "eks")
	for _, file := range crds {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		crd := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal(data, &crd.Object))
		require.NoError(t, client.IgnoreNotFound(eks.Delete(context.Background(), crd)))
	}
	require.NoError(t, client.IgnoreNotFound(eks.Delete(context.Background(), argoNamespace())))
}

func theRollout() *unstructured.Unstructured {
	r := &unstructured.Unstructured{}
	r.SetGroupVersionKind(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Rollout"})
	r.SetNamespace(labtest.Sample)
	r.SetName(Route)
	return r
}

// expectRollout waits until the controller has seen the newest spec and the Rollout is in this phase, at this step where one is given.
func expectRollout(t *testing.T, phase, step string) {
	t.Helper()
	labtest.Eventually(t, func() error {
		r := theRollout()
		if err := labtest.Cluster(t, "eks").Get(context.Background(), client.ObjectKeyFromObject(r), r); err != nil {
			return err
		}
		is, _, _ := unstructured.NestedString(r.Object, "status", "phase")
		message, _, _ := unstructured.NestedString(r.Object, "status", "message")
		seen, _, _ := unstructured.NestedString(r.Object, "status", "observedGeneration")
		at, _, _ := unstructured.NestedInt64(r.Object, "status", "currentStepIndex")
		if is == phase && seen == fmt.Sprint(r.GetGeneration()) && (step == "" || step == fmt.Sprint(at)) {
			return nil
		}
		return fmt.Errorf("the Rollout is %s at step %d: %s; want %s at %s", is, at, message, phase, step)
	})
}

// patchRollout changes the Rollout, or its status, as kubectl argo rollouts does.
func patchRollout(t *testing.T, status bool, patch string) {
	t.Helper()
	eks, p := labtest.Cluster(t, "eks"), client.RawPatch("application/json-patch+json", []byte(patch))
	if status {
		require.NoError(t, eks.Status().Patch(t.Context(), theRollout(), p))
		return
	}
	require.NoError(t, eks.Patch(t.Context(), theRollout(), p))
}

func promote(t *testing.T) {
	t.Helper()
	patchRollout(t, true, `[{"op": "remove", "path": "/status/pauseConditions"}]`)
}

// expectShare waits until the route's weights are in force and counts who answers at each gateway.
func expectShare(t *testing.T, next float64) {
	t.Helper()
	ExpectInForce(t)
	for _, member := range labtest.Members {
		labtest.VersionAt(t, member, Host).ExpectSplit(t, 2000, "next", next)
	}
}

// endRollout deletes the Rollout and waits until its pods are gone.
func endRollout(t *testing.T) {
	eks, ctx := labtest.Cluster(t, "eks"), context.Background()
	require.NoError(t, client.IgnoreNotFound(eks.Delete(ctx, theRollout())))
	labtest.Eventually(t, func() error {
		var pods corev1.PodList
		err := eks.List(ctx, &pods, client.InNamespace(labtest.Sample), client.MatchingLabels{"app": Route})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods of the Rollout are left", len(pods.Items))
		}
		return err
	})
}
