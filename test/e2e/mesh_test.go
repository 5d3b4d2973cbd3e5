// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	istiosecurityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

// TestSidecarsSpeakMutualTLS labels a namespace, as users do, and asks its strict server from inside and outside the mesh.
func TestSidecarsSpeakMutualTLS(t *testing.T) {
	apply(t, "eks", "meshed.yaml", "meshed", "unmeshed")
	eks := labtest.Cluster(t, "eks")
	server := readyPod(t, eks, "meshed", "server")
	readyPod(t, eks, "meshed", "caller")
	readyPod(t, eks, "unmeshed", "caller")
	require.Equal(t, []string{"istio-init", "istio-proxy"}, initContainers(server), "the sidecar is injected")

	// Pod addresses are asked, and the Host header names the Service: that is what a sidecar routes by.
	url := "http://" + server.Status.PodIP + ":8080/"
	inside, outside := labtest.FromPod(t, "eks", "meshed/caller-"), labtest.FromPod(t, "eks", "unmeshed/caller-")
	labtest.Eventually(t, func() error {
		answer, err := get(inside, url, "server.meshed.svc.cluster.local:8080")
		if err == nil && !strings.Contains(answer, "URI=spiffe://cluster.local/ns/meshed/sa/caller") {
			err = fmt.Errorf("the server did not see the caller's identity: %s", answer)
		}
		return err
	})
	labtest.Eventually(t, func() error {
		if answer, err := get(outside, url, "server.meshed"); err == nil {
			return fmt.Errorf("a caller without a certificate was served: %s", answer)
		}
		return nil
	})
	_, err := get(inside, url, "server.meshed.svc.cluster.local:8080")
	require.NoError(t, err, "the caller in the mesh is served while the other is refused")
}

// TestAMeshedBackendIsServedFromEverywhere gives gke's helloworld a sidecar that takes nothing but mutual TLS: the
// public gateway beside it and the east-west gateway behind the other cluster's both have to speak it.
func TestAMeshedBackendIsServedFromEverywhere(t *testing.T) {
	gke := labtest.Cluster(t, "gke")
	t.Cleanup(func() {
		require.NoError(t, client.IgnoreNotFound(gke.Delete(context.Background(), strictHelloworld())))
		labelNamespace(t, gke, `null`)
		labtest.Restart(t, "gke", "helloworld")
		for _, member := range labtest.Members {
			settle(t, labtest.Hello(t, member))
		}
	})
	labelNamespace(t, gke, `"enabled"`)
	labtest.Restart(t, "gke", "helloworld")
	require.Contains(t, initContainers(readyPod(t, gke, labtest.Sample, "helloworld")), "istio-proxy")
	require.NoError(t, gke.Create(context.Background(), strictHelloworld()))
	for _, member := range labtest.Members {
		r := labtest.Hello(t, member)
		settle(t, r)
		r.ExpectSplit(t, requests, "eks", 0.8)
	}
}

// TestLosingIstiodCostsNoRequest freezes istiod and then crashes it: proxies go on with what they have.
func TestLosingIstiodCostsNoRequest(t *testing.T) {
	r := labtest.Hello(t, "gke")
	settle(t, r)
	t.Cleanup(func() { require.NoError(t, labtest.Lab.Start(context.Background(), "gke", state.Istiod)) })
	require.NoError(t, labtest.Lab.Stop("gke", state.Istiod))
	r.ExpectSplit(t, requests, "eks", 0.8)
	before := labtest.Process(t, "gke", state.Istiod, controlplane.IstioNamespace+"/")
	require.NoError(t, labtest.Lab.Kill("gke", state.Istiod))
	r.ExpectSplit(t, requests, "eks", 0.8)
	require.NoError(t, labtest.Lab.Start(context.Background(), "gke", state.Istiod))
	require.NotEqual(t, before, labtest.Process(t, "gke", state.Istiod, controlplane.IstioNamespace+"/"), "another life of it")
}

// TestInvalidIstioConfigurationIsRefused asks what no schema of a CRD knows: istiod's own webhook has to say no.
func TestInvalidIstioConfigurationIsRefused(t *testing.T) {
	eks := labtest.Cluster(t, "eks")
	invalid := &istionetworkingv1.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "invalid"},
		Spec:       networkingv1alpha3.VirtualService{Hosts: []string{"helloworld"}, Http: []*networkingv1alpha3.HTTPRoute{{Name: "leads nowhere"}}},
	}
	labtest.Eventually(t, func() error { // fails open until istiod has seen its own webhook answer
		err := eks.Create(context.Background(), invalid.DeepCopy(), client.DryRunAll)
		if err == nil {
			return fmt.Errorf("a VirtualService without any destination was accepted")
		}
		return nil
	})
	err := eks.Create(context.Background(), invalid, client.DryRunAll)
	require.ErrorContains(t, err, `admission webhook "validation.istio.io" denied the request`)
}

// TestEachGatewayHasAProxyOfItsOwn makes a Gateway and looks for what istiod deploys for it.
func TestEachGatewayHasAProxyOfItsOwn(t *testing.T) {
	apply(t, "eks", "gateway.yaml", "edge")
	eks := labtest.Cluster(t, "eks")
	pod := readyPod(t, eks, "edge", "second-istio")
	var service corev1.Service
	require.NoError(t, eks.Get(context.Background(), client.ObjectKey{Namespace: "edge", Name: "second-istio"}, &service))
	require.Equal(t, corev1.ServiceTypeLoadBalancer, service.Spec.Type)
	require.Len(t, service.Status.LoadBalancer.Ingress, 1)
	answer := &http.Client{Timeout: labtest.Patience}
	labtest.Eventually(t, func() error {
		response, err := answer.Get("http://" + service.Status.LoadBalancer.Ingress[0].IP + "/")
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusNotFound || response.Header.Get("server") != "istio-envoy" {
			return fmt.Errorf("%s by %q: no Envoy without routes", response.Status, response.Header.Get("server"))
		}
		return nil
	})
	gateway := labtest.Process(t, "eks", state.Proxy, "edge/"+pod.Name)
	require.NotEqual(t, labtest.Process(t, "eks", state.Proxy, "sample/"), gateway)
}

// apply applies a file of testdata to a cluster, and deletes its namespaces when the test ends.
func apply(t *testing.T, cluster, file string, namespaces ...string) {
	t.Helper()
	cfg, err := labtest.Lab.RESTConfig(cluster)
	require.NoError(t, err)
	a, err := controlplane.NewApplier(cfg)
	require.NoError(t, err)
	c := labtest.Cluster(t, cluster)
	t.Cleanup(func() {
		for _, name := range namespaces {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			require.NoError(t, client.IgnoreNotFound(c.Delete(context.Background(), ns)))
		}
		for _, name := range namespaces {
			labtest.Eventually(t, func() error {
				if err := c.Get(context.Background(), client.ObjectKey{Name: name}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
					return fmt.Errorf("namespace %s is still there: %w", name, err)
				}
				return nil
			})
		}
	})
	require.NoError(t, a.ApplyFiles(context.Background(), filepath.Join("testdata", file)))
}

// readyPod waits until a Deployment is as it should be, and returns its first pod.
func readyPod(t *testing.T, c client.Client, namespace, deployment string) (pod corev1.Pod) {
	t.Helper()
	labtest.Eventually(t, func() error {
		var d appsv1.Deployment
		if err := c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: deployment}, &d); err != nil {
			return err
		}
		var pods corev1.PodList
		if err := c.List(context.Background(), &pods, client.InNamespace(namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
			return err
		}
		if len(pods.Items) != int(*d.Spec.Replicas) || d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.ObservedGeneration != d.Generation {
			return fmt.Errorf("%s/%s: %d pods, %+v", namespace, deployment, len(pods.Items), d.Status)
		}
		pod = pods.Items[0]
		return nil
	})
	return pod
}

func initContainers(pod corev1.Pod) []string {
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	return names
}

// get returns the body of a 200.
func get(c *http.Client, url, host string) (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	request.Host = host
	response, err := c.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// strictHelloworld refuses callers of helloworld that have no certificate.
func strictHelloworld() *istiosecurityv1.PeerAuthentication {
	p := &istiosecurityv1.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Namespace: labtest.Sample, Name: "helloworld"}}
	p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": "helloworld"}}
	p.Spec.Mtls = &securityv1.PeerAuthentication_MutualTLS{Mode: securityv1.PeerAuthentication_MutualTLS_STRICT}
	return p
}

// labelNamespace sets the label that asks for sidecars in the example's namespace; value is JSON.
func labelNamespace(t *testing.T, c client.Client, value string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: labtest.Sample}}
	patch := fmt.Sprintf(`{"metadata":{"labels":{"istio-injection":%s}}}`, value)
	require.NoError(t, c.Patch(context.Background(), ns, client.RawPatch(types.MergePatchType, []byte(patch))))
}
