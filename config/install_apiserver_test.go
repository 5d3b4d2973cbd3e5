// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package config

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"isthmus.dev/isthmus/test/apiserver"
	"isthmus.dev/isthmus/test/lab/tools"
)

func TestMain(m *testing.M) { apiserver.Main(m) }

// What is installed and shown is accepted by a real API server, with every field known to it; and the
// accounts may do what they are for, and not what they are not for.
func TestWhatIsInstalledIsAccepted(t *testing.T) {
	servers := apiserver.Start(t, 2)
	hub, member := servers[0], servers[1]
	apply(t, hub, "default")
	apply(t, hub, "../examples/split/hub/namespace.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-weighted.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-local.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-priority.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-probe.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-metric.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-failback.yaml")
	apply(t, hub, "samples/trafficdistributionpolicy-probe.yaml")
	apply(t, hub, "samples/trafficoverride-failback.yaml")
	apply(t, hub, "samples/trafficoverride-drain.yaml")
	apply(t, hub, "samples/trafficoverride-pin.yaml")
	apply(t, hub, "samples/trafficrollout-canary.yaml")
	apply(t, hub, "samples/membercluster.yaml")
	apply(t, hub, "../examples/split/hub")
	apply(t, hub, "../examples/external-dns/hub")
	apply(t, hub, "../examples/metric/policy.yaml")
	for _, rollout := range []string{"canary", "header-route", "mirror", "sticky", "analysis", "move", "waves", "blue-green"} {
		apply(t, hub, "../examples/canary/"+rollout+".yaml")
	}
	apply(t, member, "member")
	apply(t, member, "../examples/split/members/eks")
	apply(t, member, "../examples/canary/members")
	apply(t, member, "../examples/canary/prometheus")

	may := func(server *rest.Config, verb, group, resource, namespace string) bool {
		name, sub, _ := strings.Cut(resource, "/")
		return allowed(t, server, authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: name, Subresource: sub, Namespace: namespace})
	}
	require.True(t, may(hub, "list", "", "secrets", "isthmus-system"))
	require.False(t, may(hub, "list", "", "secrets", "sample"))
	require.True(t, may(hub, "patch", "gateway.networking.k8s.io", "httproutes/status", "sample"))
	require.False(t, may(hub, "patch", "gateway.networking.k8s.io", "httproutes", "sample"))
	require.True(t, may(member, "patch", "gateway.networking.k8s.io", "httproutes", "sample"))
	require.True(t, may(member, "create", "", "configmaps", "isthmus-system"))
	require.False(t, may(member, "create", "", "configmaps", "sample"))
	require.False(t, may(member, "list", "", "secrets", "isthmus-system"))
	require.False(t, may(member, "list", "", "pods", "sample"))
	require.False(t, may(member, "create", "", "namespaces", ""))
}

// apply is kubectl apply of a file or a kustomization.
func apply(t *testing.T, server *rest.Config, path string) {
	t.Helper()
	flag := "-f"
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		flag = "-k"
	}
	cmd := exec.CommandContext(t.Context(), kubectl(t), "--kubeconfig", kubeconfig(t, server),
		"apply", "--server-side", "--force-conflicts", "--validate=strict", flag, path)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", path, out)
}

func allowed(t *testing.T, server *rest.Config, what authorizationv1.ResourceAttributes) bool {
	t.Helper()
	client, err := kubernetes.NewForConfig(server)
	require.NoError(t, err)
	review, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:isthmus-system:isthmus-hub", ResourceAttributes: &what},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return review.Status.Allowed
}

func kubectl(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		var err error
		dir, err = tools.EnvtestDir(context.Background(), os.Stderr)
		require.NoError(t, err)
	}
	return filepath.Join(dir, "kubectl")
}

func kubeconfig(t *testing.T, server *rest.Config) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "test",
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "test"}},
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: server.Host, CertificateAuthorityData: server.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"test": {ClientCertificateData: server.CertData, ClientKeyData: server.KeyData, Token: server.BearerToken}},
	}, file))
	return file
}
