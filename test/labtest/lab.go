// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package labtest is what tests and benchmarks in the lab share: one lab a run, clients of its clusters, and
// requests that are counted.
package labtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
)

const (
	// Patience is how long a test waits for what must come; it says nothing of how quick it is.
	Patience = 2 * time.Minute
	// Sample is the namespace of the example that the lab deploys.
	Sample = "sample"
)

var (
	// Lab is the lab of this run, from Main on.
	Lab *lab.Lab
	// Members of the example.
	Members = []string{"eks", "gke"}
	// interrupted ends when the run is, and mending is held by tests that then have something to mend.
	interrupted = context.Background()
	mending     sync.RWMutex
)

// Main is the TestMain of a package that works in the lab. It uses the lab that runs, or starts one and ends it, also when it is interrupted.
func Main(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	if Lab, err = lab.Open(""); errors.Is(err, state.ErrNoLab) {
		Lab, err = lab.Up(ctx, lab.Options{Out: os.Stderr})
		// Down also when Up was cut off halfway, with a context of its own: the interrupt has ended the other.
		defer func() {
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), Patience)
			defer cancel()
			err = errors.Join(err, lab.Down(down, "", os.Stderr))
		}()
	}
	if err != nil {
		return 1, err
	}
	interrupted = ctx
	done, mended := make(chan int, 1), make(chan struct{})
	go func() { done <- m.Run() }()
	select {
	case code = <-done:
		return code, nil
	case <-ctx.Done():
	}
	go func() { mending.Lock(); close(mended) }()
	select {
	case <-mended:
	case <-time.After(Patience):
	}
	return 130, nil
}

// Interruptible returns a context that ends when the run is interrupted. A test that has asked for it is to fail then, and
// its cleanups are waited for; one that asks for it later is skipped.
func Interruptible(t testing.TB) context.Context {
	t.Helper()
	if interrupted.Err() != nil {
		t.Skip("interrupted")
	}
	mending.RLock()
	t.Cleanup(mending.RUnlock)
	return interrupted
}

// clients by cluster: making one asks the API server for all that it serves, which would be measured too.
var clients sync.Map

// Cluster is an administrator's client of one cluster.
func Cluster(t testing.TB, name string) client.Client {
	t.Helper()
	if c, ok := clients.Load(name); ok {
		return c.(client.Client)
	}
	cfg, err := Lab.RESTConfig(name)
	require.NoError(t, err)
	cfg.Timeout = 10 * time.Second
	c, err := client.New(cfg, client.Options{Scheme: controllers.NewScheme()})
	require.NoError(t, err)
	clients.Store(name, c)
	return c
}

// Eventually waits until check has nothing to complain of, and says its last complaint otherwise.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			require.NoError(t, err, "still after %s", Patience)
		case <-tick.C:
		}
	}
}

// Weights of a generated route's first rule, by the cluster that each backend stands for, in ten thousandths.
func Weights(ctx context.Context, c client.Client, member, route string) (map[string]int32, error) {
	var r gatewayv1.HTTPRoute
	if err := c.Get(ctx, client.ObjectKey{Namespace: Sample, Name: route}, &r); err != nil {
		return nil, err
	}
	return WeightsOf(&r, member), nil
}

// ExpectWeights waits for exact weights in every member.
func ExpectWeights(t testing.TB, route string, want map[string]map[string]int32) {
	t.Helper()
	for _, member := range Members {
		ExpectWeightsIn(t, member, route, want[member])
	}
}

// ExpectWeightsIn waits for exact weights in one member.
func ExpectWeightsIn(t testing.TB, member, route string, want map[string]int32) {
	t.Helper()
	c := Cluster(t, member)
	Eventually(t, func() error {
		have, err := Weights(context.Background(), c, member, route)
		if err == nil && fmt.Sprint(have) != fmt.Sprint(want) {
			err = fmt.Errorf("%s: weights are %v, want %v", member, have, want)
		}
		return err
	})
}

// Everywhere is the same split at every member's gateway.
func Everywhere(eks, gke int32) map[string]map[string]int32 {
	split := map[string]int32{"eks": eks * 100, "gke": gke * 100}
	return map[string]map[string]int32{"eks": split, "gke": split}
}

// SetReplicas of a Deployment of the example.
func SetReplicas(t testing.TB, member, deployment string, replicas int32) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: Sample, Name: deployment}}
	require.NoError(t, Cluster(t, member).Patch(context.Background(), d, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))))
}

// Scale sets the replicas of a Deployment of the example and waits until its ready ones are as many.
func Scale(t testing.TB, member, deployment string, replicas int32) {
	t.Helper()
	SetReplicas(t, member, deployment, replicas)
	Eventually(t, func() error {
		d := &appsv1.Deployment{}
		if err := Cluster(t, member).Get(context.Background(), client.ObjectKey{Namespace: Sample, Name: deployment}, d); err != nil {
			return err
		}
		if d.Status.ObservedGeneration < d.Generation || d.Status.ReadyReplicas != replicas {
			return fmt.Errorf("%s: %s has %d ready replicas, want %d", member, deployment, d.Status.ReadyReplicas, replicas)
		}
		return nil
	})
}

// Restart replaces the pods of a Deployment of the example, as `kubectl rollout restart` does, and waits until all are new.
func Restart(t testing.TB, member, deployment string) {
	t.Helper()
	c := Cluster(t, member)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: Sample, Name: deployment}}
	require.NoError(t, c.Patch(context.Background(), d, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano)))))
	Eventually(t, func() error {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if s := d.Status; s.ObservedGeneration < d.Generation || s.UpdatedReplicas != *d.Spec.Replicas || s.Replicas != s.UpdatedReplicas || s.AvailableReplicas != s.Replicas {
			return fmt.Errorf("%s: %s is not all new: %+v", member, deployment, s)
		}
		return nil
	})
}

// SetPolicy gives the example's policy other weights.
func SetPolicy(t testing.TB, eks, gke int32) {
	t.Helper()
	p := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: Sample, Name: "helloworld"}}
	require.NoError(t, Cluster(t, "hub").Patch(context.Background(), p, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"spec":{"defaults":{"distribution":{"weights":[{"cluster":"eks","weight":%d},{"cluster":"gke","weight":%d}]}}}}`, eks, gke))))
}

// ExpectMember waits for a condition of a MemberCluster.
func ExpectMember(t testing.TB, name, kind string, status metav1.ConditionStatus) {
	t.Helper()
	hub := Cluster(t, "hub")
	Eventually(t, func() error {
		var mc v1alpha1.MemberCluster
		if err := hub.Get(context.Background(), client.ObjectKey{Name: name}, &mc); err != nil {
			return err
		}
		for _, c := range mc.Status.Conditions {
			if c.Type == kind && c.Status == status {
				return nil
			}
		}
		return fmt.Errorf("%s is not %s=%s: %+v", name, kind, status, mc.Status.Conditions)
	})
}

// Objects of a list.
func Objects(t testing.TB, list client.ObjectList) []client.Object {
	t.Helper()
	items, err := meta.ExtractList(list)
	require.NoError(t, err)
	out := make([]client.Object, 0, len(items))
	for _, item := range items {
		out = append(out, item.(client.Object))
	}
	return out
}
