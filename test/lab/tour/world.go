// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/test/lab"
)

// labWorld is the lab.
type labWorld struct {
	lab      *lab.Lab
	root     string // the checkout
	hub      client.Client
	entry    client.Client    // of the cluster at which the load enters
	at       client.ObjectKey // of the route, its policy and its Deployment
	recorder *recorder

	mu   sync.Mutex
	seen Observation
}

// newClient returns a client that does not wait long: what it reads is drawn a few times a second.
func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(gatewayv1.Install(scheme))
	utilruntime.Must(appsv1.AddToScheme(scheme))
	config = rest.CopyConfig(config)
	config.Timeout = patienceOfClient
	return client.New(config, client.Options{Scheme: scheme})
}

// Do runs the command in a process group of its own: Ctrl-C at a terminal is for the tour, which then puts back what
// the command did.
func (w *labWorld) Do(ctx context.Context, c command) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.lab.Dir, "bin", c[0]), c[1:]...)
	cmd.Dir = w.root
	cmd.Env = w.lab.Environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", c[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (w *labWorld) Mark() { w.recorder.Mark(time.Now()) }

func (w *labWorld) Look() (Figures, Observation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recorder.Figures(time.Now()), w.seen
}

// observe keeps the observation current until ctx ends.
func (w *labWorld) observe(ctx context.Context) {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		// A question that is asked is let to its end, which is near: client-go would complain aloud.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceOfClient)
		seen, err := w.ask(asking)
		cancel()
		w.mu.Lock()
		if err == nil {
			w.seen = seen
		} else {
			w.seen.Stale = err.Error()
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask reads what the hub says.
func (w *labWorld) ask(ctx context.Context) (Observation, error) {
	var (
		plans      v1alpha1.RoutePlanList
		members    v1alpha1.MemberClusterList
		route      gatewayv1.HTTPRoute
		controller appsv1.Deployment
	)
	err := errors.Join(
		w.hub.List(ctx, &plans, client.InNamespace(w.at.Namespace)),
		w.hub.List(ctx, &members),
		w.hub.Get(ctx, w.at, &route),
		w.hub.Get(ctx, controllerKey, &controller),
	)
	if err != nil {
		return Observation{}, err
	}
	o := Observation{Shifted: shiftOf(route), HubRuns: controller.Status.ReadyReplicas > 0}
	for _, rp := range plans.Items {
		if rp.Status.Route == "HTTPRoute/"+w.at.Name {
			o.Plans = append(o.Plans, planOf(rp))
		}
	}
	for _, mc := range members.Items {
		o.Members = append(o.Members, memberOf(mc))
	}
	slices.SortFunc(o.Plans, func(a, b Plan) int { return strings.Compare(a.Member, b.Member) })
	slices.SortFunc(o.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return o, nil
}
