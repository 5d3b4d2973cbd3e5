// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/test/lab/tools"
)

// Istio's charts, by their folders in the tool set.
const (
	baseChart   = "manifests/charts/base"
	istiodChart = "manifests/charts/istio-control/istio-discovery"
)

// releases are the names under which Istio's documentation installs the charts.
var releases = map[string]string{baseChart: "istio-base", istiodChart: Istiod}

// render returns what `helm install` would apply to the namespace of Istio. It asks no
// cluster and no network.
func (c Cluster) render(ctx context.Context, chart string, values map[string]any) ([]byte, error) {
	input, err := yaml.Marshal(values)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.Tools.File(tools.Helm, "helm"), "template", releases[chart], c.Tools.File(tools.IstioCharts, chart),
		"--namespace="+IstioNamespace, "--values=-")
	// Whoever has a Helm of their own keeps its settings, and they change nothing here.
	home := filepath.Join(c.Dir, "helm")
	cmd.Env = []string{"HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_CACHE_HOME=" + home, "HELM_DATA_HOME=" + home}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("render Istio's chart %s: %w\n%s", filepath.Base(chart), err, stderr.String())
	}
	return stdout.Bytes(), nil
}
