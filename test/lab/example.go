// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"isthmus.dev/isthmus/test/lab/state"
)

// The example that every lab shows.
const (
	exampleNamespace = "sample"
	exampleHost      = "helloworld.example.com"
	examplePath      = "/hello"
)

// readiness is how long Deployments and Gateways may take, on a machine that is busy.
const readiness = 3 * time.Minute

// applyExample applies examples/split: its part for members to each member, its part for the hub to
// the hub.
func (l *Lab) applyExample(ctx context.Context, lab *state.Lab) error {
	example := filepath.Join(lab.Root, "examples", "split")
	err := eachCluster(ctx, lab.Clusters, func(ctx context.Context, c state.Cluster) error {
		applier, err := l.applier(c.Name)
		if err != nil {
			return err
		}
		var dirs []string
		if c.Role == state.RoleHub {
			dirs = append(dirs, filepath.Join(example, "hub"))
		}
		if c.Member {
			dirs = append(dirs, exampleFor(filepath.Join(example, "members"), c.Name))
		}
		for _, dir := range dirs {
			if err := l.applyKustomization(ctx, applier, dir); err != nil {
				return fmt.Errorf("example in %s: %w", c.Name, err)
			}
		}
		return nil
	})
	if err == nil {
		l.say("example applied")
	}
	return err
}

// exampleFor returns the folder for a member: its own where there is one, else the common one.
func exampleFor(members, name string) string {
	own := filepath.Join(members, name)
	if _, err := os.Stat(filepath.Join(own, "kustomization.yaml")); err == nil {
		return own
	}
	return members
}

// awaitReady waits until every Deployment in every cluster is available and, with hub and mesh, the
// example answers at each member's gateway.
func (l *Lab) awaitReady(ctx context.Context, lab *state.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, readiness)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	_, err := lab.Cluster(hubName)
	gateways := err == nil && lab.Mesh
	if len(lab.Faults) > 0 {
		l.say("not waiting for clusters with faults: %s", faultsOf(lab.Faults))
		gateways = false // each may serve by any other
	}
	for _, c := range lab.Clusters {
		if len(lab.FaultsOf(c.Name)) > 0 {
			continue
		}
		g.Go(func() error {
			if err := l.awaitDeployments(ctx, c.Name); err != nil {
				return err
			}
			// A hub that is a member keeps its own Gateways and routes, which are intent: none is generated beside them.
			if gateways && c.Role == state.RoleMember {
				return l.awaitGateway(ctx, c.Name)
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *Lab) awaitDeployments(ctx context.Context, cluster string) error {
	config, err := l.RESTConfig(cluster)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	err = poll(ctx, func() error {
		list, err := client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if waiting := unavailable(list.Items); len(waiting) > 0 {
			return fmt.Errorf("not available: %s", strings.Join(waiting, ", "))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("deployments of %s: %w; look at `kubectl --kubeconfig %s get pods -A` and into %s", cluster, err,
			filepath.Join(l.Dir, "kubeconfigs", cluster+".yaml"), l.logs(cluster))
	}
	l.say("%s: deployments available", cluster)
	return nil
}

func unavailable(deployments []appsv1.Deployment) []string {
	var waiting []string
	for _, d := range deployments {
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		if d.Status.ObservedGeneration < d.Generation || d.Status.AvailableReplicas < want || d.Status.UpdatedReplicas < want {
			waiting = append(waiting, fmt.Sprintf("%s/%s (%d of %d)", d.Namespace, d.Name, d.Status.AvailableReplicas, want))
		}
	}
	return waiting
}

func (l *Lab) awaitGateway(ctx context.Context, cluster string) error {
	probe := probeBy((&net.Dialer{}).DialContext)
	err := poll(ctx, func() error {
		url, err := l.GatewayURL(cluster)
		if err != nil {
			return err
		}
		return get(ctx, probe, url+examplePath, exampleHost)
	})
	if err != nil {
		return fmt.Errorf("gateway of %s: %w", cluster, err)
	}
	l.say("%s: the example answers at its gateway", cluster)
	return nil
}

// poll tries until f succeeds or ctx ends; then the last error counts.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
