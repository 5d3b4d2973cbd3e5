// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/test/labtest"
)

// change is a route that was written with other weights than before.
type change struct {
	at      time.Time
	member  string
	weights map[string]int32
}

// weightWatch follows the weights of the generated route in every member. A member's API server may go meanwhile: what
// it wrote is then seen when it is back.
type weightWatch struct {
	mu      sync.Mutex
	last    map[string]map[string]int32
	changes []change
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func watchWeights(t testing.TB) *weightWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &weightWatch{cancel: cancel, last: map[string]map[string]int32{}}
	for _, member := range labtest.Members {
		cfg, err := labtest.Lab.RESTConfig(member)
		require.NoError(t, err)
		c, err := client.NewWithWatch(cfg, client.Options{Scheme: controllers.NewScheme()})
		require.NoError(t, err)
		first, err := labtest.Weights(ctx, c, member, "helloworld")
		require.NoError(t, err)
		w.last[member] = first
		w.done.Go(func() { w.follow(ctx, c, member) })
	}
	return w
}

func (w *weightWatch) follow(ctx context.Context, c client.WithWatch, member string) {
	for ctx.Err() == nil {
		events, err := c.Watch(ctx, &gatewayv1.HTTPRouteList{}, client.InNamespace(labtest.Sample))
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for e := range events.ResultChan() {
			if route, ok := e.Object.(*gatewayv1.HTTPRoute); ok && route.Name == "helloworld" {
				w.saw(member, labtest.WeightsOf(route, member))
			}
		}
		events.Stop()
	}
}

func (w *weightWatch) saw(member string, weights map[string]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.last[member]) == fmt.Sprint(weights) {
		return
	}
	w.last[member] = weights
	w.changes = append(w.changes, change{time.Now(), member, weights})
}

// expect complains where a member's route has other weights.
func (w *weightWatch) expect(member string, want map[string]int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.last[member]) != fmt.Sprint(want) {
		return fmt.Errorf("%s: weights are %v, want %v", member, w.last[member], want)
	}
	return nil
}

// stop returns every change, in the order in which they were seen.
func (w *weightWatch) stop() []change {
	w.cancel()
	w.done.Wait()
	return w.changes
}
