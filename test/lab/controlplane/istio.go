// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"os"
	"path/filepath"

	"isthmus.dev/isthmus/test/lab/tools"
)

// Where Istio's charts install istiod: the namespace and the Deployment's name.
const (
	IstioNamespace = "istio-system"
	Istiod         = "istiod"
)

// EnvoyBootstrap is the template of Envoy's bootstrap, which an image of the proxy carries; it lies
// in the Istio tool set.
const EnvoyBootstrap = "tools/packaging/common/envoy_bootstrap.json"

// PrepareMesh makes the cluster's intermediate authority under the one root of all clusters, so that
// their gateways trust one another.
func (c Cluster) PrepareMesh() error {
	root, err := loadAuthority(c.Shared, "mesh-root", nil)
	if err != nil {
		return err
	}
	_, err = loadAuthority(c.caDir(), "intermediate", root)
	return err
}

// meshAuthority is the Secret in which Istio looks for an authority of the user's own.
func (c Cluster) meshAuthority() (map[string]any, error) {
	data := map[string]any{}
	for name, files := range map[string][]string{
		"ca-cert.pem": {c.caFile("crt")}, "ca-key.pem": {c.caFile("key")}, "root-cert.pem": {c.rootFile()},
		"cert-chain.pem": {c.caFile("crt"), c.rootFile()},
	} {
		var content []byte
		for _, file := range files {
			part, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			content = append(content, part...)
		}
		data[name] = string(content)
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "cacerts", "namespace": IstioNamespace},
		"stringData": data,
	}, nil
}

func (c Cluster) caDir() string             { return filepath.Join(c.Dir, "istio-ca") }
func (c Cluster) caFile(kind string) string { return filepath.Join(c.caDir(), "intermediate."+kind) }
func (c Cluster) rootFile() string          { return filepath.Join(c.Shared, "mesh-root.crt") }

// InstallCRDs applies the CRDs of the Gateway API and of MCS.
func (c Cluster) InstallCRDs(ctx context.Context, a *Applier) error {
	files, err := filepath.Glob(filepath.Join(c.Tools[tools.CRDs], "*", "*.yaml"))
	if err != nil {
		return err
	}
	return a.ApplyFiles(ctx, files...)
}

// InstallMesh applies what Istio's own charts install, with the cluster's authority.
func (c Cluster) InstallMesh(ctx context.Context, a *Applier) error {
	namespace := map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": IstioNamespace, "labels": map[string]any{"topology.istio.io/network": c.Name}},
	}
	authority, err := c.meshAuthority()
	if err != nil {
		return err
	}
	if err := a.ApplyObjects(ctx, namespace, authority); err != nil {
		return err
	}
	for _, chart := range []string{baseChart, istiodChart} {
		manifest, err := c.render(ctx, chart, c.istioValues())
		if err != nil {
			return err
		}
		if err := a.Apply(ctx, manifest); err != nil {
			return err
		}
	}
	return nil
}

// istioValues are the charts' values, as a person would write them for one of several clusters that
// share a root of trust and nothing else.
func (c Cluster) istioValues() map[string]any {
	env := map[string]any{
		// These two put filters of Istio's own build into every listener: stock Envoy refuses them.
		"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false",
		// There is never a second one; an election would delay each restart by a lease's time.
		"ENABLE_LEADER_ELECTION": "false",
	}
	if c.PilotDebounce != "" {
		env["PILOT_DEBOUNCE_AFTER"] = c.PilotDebounce
	}
	return map[string]any{
		"global": map[string]any{
			"hub": "isthmus-lab", "tag": "lab",
			"multiCluster": map[string]any{"clusterName": c.Name}, "network": c.Name,
			// The program nft is there for kube-proxy already.
			"nativeNftables": true,
		},
		"meshConfig": map[string]any{
			"enablePrometheusMerge": true,
			// Envoy's own count of the requests to each service, which Istio leaves out unless it is asked.
			"defaultConfig": map[string]any{"proxyStatsMatcher": map[string]any{"inclusionRegexps": []any{`cluster\.outbound.*upstream_rq.*`}}},
		},
		// istio_requests_total is of a filter of Istio's own build of Envoy.
		"telemetry": map[string]any{"enabled": false},
		"env":       env,
		// Nothing in the lab measures pods.
		"autoscaleEnabled": false,
		// The chart asks for what a large mesh needs; two cores are enough, whatever the machine has.
		"resources": map[string]any{
			"requests": map[string]any{"cpu": "10m", "memory": "128Mi"},
			"limits":   map[string]any{"cpu": "2"},
		},
	}
}
