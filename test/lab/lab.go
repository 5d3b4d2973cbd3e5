// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Lab is a lab on this machine.
type Lab struct {
	Dir   string
	out   io.Writer
	tools tools.Paths
	began time.Time
}

// Open returns the lab of a folder; state.ErrNoLab when there is none.
func Open(dir string) (*Lab, error) {
	o := Options{Dir: dir}
	if err := o.completeDir(); err != nil {
		return nil, err
	}
	if _, err := state.Load(o.Dir); err != nil {
		return nil, err
	}
	return &Lab{Dir: o.Dir, out: io.Discard}, nil
}

// State returns what is known of the lab right now.
func (l *Lab) State() (*state.Lab, error) { return state.Load(l.Dir) }

// RESTConfig returns an administrator's connection to a cluster.
func (l *Lab) RESTConfig(cluster string) (*rest.Config, error) {
	c, err := l.cluster(cluster)
	if err != nil {
		return nil, err
	}
	return clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
}

// GatewayURL returns the URL of the generated Gateway of the example in a member.
func (l *Lab) GatewayURL(cluster string) (string, error) {
	c, err := l.cluster(cluster)
	if err != nil {
		return "", err
	}
	if c.Gateway == "" {
		return "", fmt.Errorf("%s has no gateway in namespace %s yet: look at `kubectl --context %s get gateways -A`", cluster, exampleNamespace, cluster)
	}
	return "http://" + c.Gateway, nil
}

func (l *Lab) cluster(name string) (*state.Cluster, error) {
	lab, err := l.State()
	if err != nil {
		return nil, err
	}
	return lab.Cluster(name)
}

// controlPlane returns the control plane of a cluster.
func (l *Lab) controlPlane(lab *state.Lab, c state.Cluster) (controlplane.Cluster, error) {
	net, err := network.Plan(c.Name, c.Index)
	return controlplane.Cluster{
		Name: c.Name, Network: net, Tools: l.tools,
		Dir: filepath.Join(l.Dir, "run", c.Name), Shared: filepath.Join(l.Dir, "run", "shared"),
		Logs: l.logs(c.Name), PilotDebounce: lab.PilotDebounce,
	}, err
}

func (l *Lab) logs(cluster string) string { return filepath.Join(l.Dir, "logs", cluster) }

// ensureTools builds what this lab runs.
func (l *Lab) ensureTools(ctx context.Context, mesh bool) (err error) {
	sets := []tools.Set{tools.Etcd, tools.Kubernetes, tools.CRDs, tools.CoreDNS}
	if mesh {
		sets = append(sets, tools.Envoy, tools.Helm, tools.IstioCharts, tools.Istio)
	}
	l.tools, err = tools.Ensure(ctx, l.out, sets...)
	return err
}

// say tells progress, with the time since the beginning.
func (l *Lab) say(format string, args ...any) {
	_, _ = fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}
