// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

const istioNamespace = "istio-system"

// EnvoyBootstrap is the template of Envoy's bootstrap, which an image of the proxy carries; it lies
// in the Istio tool set.
const EnvoyBootstrap = "tools/packaging/common/envoy_bootstrap.json"

// Ports of istiod: where proxies get certificates and configuration, and where API servers ask it.
const (
	istiodPort        = 15012
	istiodWebhookPort = 15017
)

// IstiodHTTPPort is where istiod says whether it is ready.
const IstiodHTTPPort = 8080

func (c Cluster) istiodAddress() string {
	return fmt.Sprintf("%s:%d", c.Network.Node.Addr(), istiodPort)
}

func (c Cluster) caDir() string { return filepath.Join(c.Dir, "istio-ca") }

// PrepareMesh writes what istiod needs: an intermediate authority of the cluster under the one root
// of all clusters, so that their gateways trust one another.
func (c Cluster) PrepareMesh() error {
	root, err := loadAuthority(c.Shared, "mesh-root", nil)
	if err != nil {
		return err
	}
	if _, err := loadAuthority(c.caDir(), "intermediate", root); err != nil {
		return err
	}
	return c.writeIstioCA()
}

// writeIstioCA copies the authorities under the names that istiod looks for in ROOT_CA_DIR.
func (c Cluster) writeIstioCA() error {
	intermediate, err := os.ReadFile(filepath.Join(c.caDir(), "intermediate.crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(c.caDir(), "intermediate.key"))
	if err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(c.Shared, "mesh-root.crt"))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"ca-cert.pem": intermediate, "ca-key.pem": key, "root-cert.pem": root,
		"cert-chain.pem": slices.Concat(intermediate, root),
	} {
		if err := os.WriteFile(filepath.Join(c.caDir(), name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Istiod is the cluster's istiod. It deploys a proxy for every Gateway by itself, as on a cloud.
func (c Cluster) Istiod(kubeconfig string) process.Spec {
	s := c.spec(state.Istiod, c.Tools.File(tools.Istio, "pilot-discovery"),
		"discovery",
		"--kubeconfig="+kubeconfig, "--clusterID="+c.Name,
		fmt.Sprintf("--httpAddr=:%d", IstiodHTTPPort), "--grpcAddr=", fmt.Sprintf("--secureGRPCAddr=:%d", istiodPort),
		fmt.Sprintf("--httpsAddr=:%d", istiodWebhookPort), "--monitoringAddr=:15014", "--ctrlz_port=0", "--domain=cluster.local",
		"--keepaliveMaxServerConnectionAge=30m",
	)
	s.Env = append(s.Env,
		"POD_NAME=istiod-1", "POD_NAMESPACE="+istioNamespace, "CLUSTER_ID="+c.Name, "REVISION=default",
		"ISTIOD_CUSTOM_HOST="+c.Network.Node.Addr().String(), "ROOT_CA_DIR="+c.caDir(),
		"JWT_POLICY=third-party-jwt", "PILOT_CERT_PROVIDER=istiod",
		// These two put filters of Istio's own build into every listener: stock Envoy refuses them.
		"PILOT_ENABLE_ALPN_FILTER=false", "PILOT_ENABLE_METADATA_EXCHANGE=false",
		// There is never a second one; an election would delay each restart by a lease's time.
		"ENABLE_LEADER_ELECTION=false",
	)
	if c.PilotDebounce != "" {
		s.Env = append(s.Env, "PILOT_DEBOUNCE_AFTER="+c.PilotDebounce)
	}
	return s
}

// InstallCRDs applies the CRDs of the Gateway API and of MCS.
func (c Cluster) InstallCRDs(ctx context.Context, a *Applier) error {
	files, err := filepath.Glob(filepath.Join(c.Tools[tools.CRDs], "*", "*.yaml"))
	if err != nil {
		return err
	}
	return a.ApplyFiles(ctx, files...)
}

// InstallMesh applies what Istio's own charts install: its namespace, configuration, templates of
// the proxies, webhooks and rights.
func (c Cluster) InstallMesh(ctx context.Context, a *Applier) error {
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": istioNamespace, "labels": map[string]any{"topology.istio.io/network": c.Name}},
	})
	if err != nil {
		return err
	}
	for _, chart := range []string{baseChart, istiodChart} {
		rendered, err := c.render(ctx, chart, c.istioValues())
		if err != nil {
			return err
		}
		manifest = slices.Concat(manifest, []byte("---\n"), rendered)
	}
	return a.Apply(ctx, manifest)
}

// istioValues are the charts' values, as a person would write them for one of several clusters that
// share a root of trust and nothing else.
func (c Cluster) istioValues() map[string]any {
	webhooks := "https://" + net.JoinHostPort(c.Network.Node.Addr().String(), strconv.Itoa(istiodWebhookPort))
	return map[string]any{
		"global": map[string]any{
			"hub": "isthmus-lab", "tag": "lab",
			"multiCluster": map[string]any{"clusterName": c.Name}, "network": c.Name,
			"caAddress": c.istiodAddress(),
			// The Service istiod leads there.
			"remotePilotAddress": c.Network.Node.Addr().String(),
			// The program nft is there for kube-proxy already.
			"nativeNftables": true,
			"configCluster":  true,
		},
		"meshConfig": map[string]any{
			"enablePrometheusMerge": true,
			"defaultConfig":         map[string]any{"discoveryAddress": c.istiodAddress()},
		},
		// Its metrics are a filter of Istio's own build of Envoy.
		"telemetry": map[string]any{"enabled": false},
		// istiod runs beside the cluster, not in it.
		"istiodRemote": map[string]any{"enabled": true, "injectionURL": webhooks + "/inject"},
		"base":         map[string]any{"validationURL": webhooks + "/validate"},
	}
}
