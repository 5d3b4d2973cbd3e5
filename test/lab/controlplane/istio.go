// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// The namespace of istiod, and where its parts lie in the Istio tool set.
const (
	istioNamespace = "istio-system"
	chart          = "manifests/charts/istio-control/istio-discovery/"
	istioCRDs      = "manifests/charts/base/files/crd-all.gen.yaml"
	// EnvoyBootstrap is the template of Envoy's bootstrap, which an image of the proxy carries.
	EnvoyBootstrap = "tools/packaging/common/envoy_bootstrap.json"
)

// istiodPort is where proxies get certificates and configuration.
const istiodPort = 15012

// IstiodHTTPPort is where istiod says whether it is ready.
const IstiodHTTPPort = 8080

func (c Cluster) istiodAddress() string {
	return fmt.Sprintf("%s:%d", c.Network.Node.Addr(), istiodPort)
}

func (c Cluster) caDir() string { return filepath.Join(c.Dir, "istio-ca") }

// PrepareMesh writes what istiod needs: an intermediate authority of the cluster under the one root
// of all clusters, so that their gateways trust one another, and the mesh's configuration.
func (c Cluster) PrepareMesh() error {
	root, err := loadAuthority(c.Shared, "mesh-root", nil)
	if err != nil {
		return err
	}
	if _, err := loadAuthority(c.caDir(), "intermediate", root); err != nil {
		return err
	}
	if err := c.writeIstioCA(); err != nil {
		return err
	}
	mesh, err := yaml.Marshal(map[string]any{
		"trustDomain":           "cluster.local",
		"rootNamespace":         istioNamespace,
		"enablePrometheusMerge": true,
		"defaultConfig":         map[string]any{"discoveryAddress": c.istiodAddress()},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(c.meshConfig(), mesh, 0o644) // nothing secret
}

func (c Cluster) meshConfig() string { return filepath.Join(c.Dir, "mesh.yaml") }

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
		"--kubeconfig="+kubeconfig, "--clusterID="+c.Name, "--meshConfig="+c.meshConfig(),
		fmt.Sprintf("--httpAddr=:%d", IstiodHTTPPort), "--grpcAddr=", fmt.Sprintf("--secureGRPCAddr=:%d", istiodPort),
		"--httpsAddr=:15017", "--monitoringAddr=:15014", "--ctrlz_port=0", "--domain=cluster.local",
		"--keepaliveMaxServerConnectionAge=30m",
	)
	s.Env = append(s.Env,
		"POD_NAME=istiod-1", "POD_NAMESPACE="+istioNamespace, "CLUSTER_ID="+c.Name, "REVISION=default",
		"ISTIOD_CUSTOM_HOST="+c.Network.Node.Addr().String(), "ROOT_CA_DIR="+c.caDir(),
		"JWT_POLICY=third-party-jwt", "PILOT_CERT_PROVIDER=istiod",
		// These two put filters of Istio's own build into every listener: stock Envoy refuses them.
		"PILOT_ENABLE_ALPN_FILTER=false", "PILOT_ENABLE_METADATA_EXCHANGE=false",
		"PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER=true", "INJECT_ENABLED=true",
		"INJECTION_WEBHOOK_CONFIG_NAME=", "VALIDATION_WEBHOOK_CONFIG_NAME=",
		// There is never a second one; an election would delay each restart by a lease's time.
		"ENABLE_LEADER_ELECTION=false",
	)
	if c.PilotDebounce != "" {
		s.Env = append(s.Env, "PILOT_DEBOUNCE_AFTER="+c.PilotDebounce)
	}
	return s
}

// InstallCRDs applies the CRDs of the Gateway API and of MCS and, with mesh, those of Istio.
func (c Cluster) InstallCRDs(ctx context.Context, a *Applier, mesh bool) error {
	files, err := filepath.Glob(filepath.Join(c.Tools[tools.CRDs], "*", "*.yaml"))
	if err != nil {
		return err
	}
	if mesh {
		files = append(files, c.Tools.File(tools.Istio, istioCRDs))
	}
	return a.ApplyFiles(ctx, files...)
}

// InstallMesh applies what istiod expects to find: its namespace and the templates of the proxies
// that it deploys.
func (c Cluster) InstallMesh(ctx context.Context, a *Applier) error {
	injector, err := c.injector()
	if err != nil {
		return fmt.Errorf("templates of Istio's gateways: %w", err)
	}
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": istioNamespace}}
	return a.ApplyObjects(ctx, namespace, injector)
}

// injector builds the ConfigMap istio-sidecar-injector as the chart's template
// istiod-injector-configmap.yaml does, without Helm: the templates in files/ are rendered by istiod.
func (c Cluster) injector() (map[string]any, error) {
	config := map[string]any{
		"policy": "enabled", "defaultTemplates": []string{"sidecar"},
		"alwaysInjectSelector": []any{}, "neverInjectSelector": []any{}, "injectedAnnotations": map[string]any{},
		"template": "{{ Template_Version_And_Istio_Version_Mismatched_Check_Installation }}",
	}
	templates := map[string]any{}
	for name, file := range map[string]string{
		"sidecar": "injection-template.yaml", "gateway": "gateway-injection-template.yaml",
		"grpc-simple": "grpc-simple.yaml", "grpc-agent": "grpc-agent.yaml",
		"waypoint": "waypoint.yaml", "kube-gateway": "kube-gateway.yaml",
	} {
		data, err := os.ReadFile(c.Tools.File(tools.Istio, chart+"files/"+file))
		if err != nil {
			return nil, err
		}
		templates[name] = strings.TrimSpace(string(data))
	}
	config["templates"] = templates
	configYAML, err := yaml.Marshal(config)
	if err != nil {
		return nil, err
	}
	values, err := c.injectorValues()
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": "istio-sidecar-injector", "namespace": istioNamespace,
			"labels": map[string]any{"istio.io/rev": "default"},
		},
		"data": map[string]any{"config": string(configYAML), "values": values},
	}, nil
}

// injectorValues picks from the chart's default values what the templates use, with the lab's own.
func (c Cluster) injectorValues() (string, error) {
	data, err := os.ReadFile(c.Tools.File(tools.Istio, chart+"values.yaml"))
	if err != nil {
		return "", err
	}
	var file struct {
		Values map[string]any `json:"_internal_defaults_do_not_set"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return "", err
	}
	all := file.Values
	global, ok := all["global"].(map[string]any)
	if !ok {
		return "", fmt.Errorf("%svalues.yaml has no global values: has the chart changed?", chart)
	}
	global["hub"], global["tag"] = "isthmus-lab", "lab"
	global["caAddress"] = c.istiodAddress()
	global["multiCluster"] = map[string]any{"clusterName": c.Name}
	picked := map[string]any{
		"global": global, "sidecarInjectorWebhook": all["sidecarInjectorWebhook"], "revision": "",
		"pilot": map[string]any{"cni": all["cni"], "env": all["env"]}, "gateways": all["gateways"],
	}
	values, err := json.MarshalIndent(picked, "", "  ")
	return string(values), err
}
