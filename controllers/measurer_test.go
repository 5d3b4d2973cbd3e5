// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/federation"
)

var rolloutV2 = &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "v2"},
	Spec: v1alpha1.TrafficRolloutSpec{Route: v1alpha1.RolloutRoute{Name: "web"}}}

func queryDue(name, query string) federation.DueMeasurement {
	return federation.DueMeasurement{Metric: v1alpha1.RolloutMetric{Name: name,
		Provider: v1alpha1.MetricProvider{Prometheus: &v1alpha1.PrometheusMetric{Query: query}}}, Query: query}
}

func TestAMeasurementIsMadeOnceAndHandedOverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, woken atomic.Int64
		answer := func(ctx context.Context, _, query string, _ time.Duration) (float64, string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			switch query {
			case "nothing":
				return 0, "", prometheus.ErrNoValue
			case "away":
				return 0, "", errors.New("connection refused")
			}
			return 0.5, "p", nil
		}
		m := newMeasurer(answer, func(namespace, name string) { woken.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Start(ctx) }()
		synctest.Wait()
		key := client.ObjectKeyFromObject(rolloutV2)
		m.start(rolloutV2, []federation.DueMeasurement{queryDue("a", "rate")})
		m.start(rolloutV2, []federation.DueMeasurement{queryDue("a", "rate")})
		require.Empty(t, m.look(key))
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 1, asked.Load(), "it is under way already")
		m.start(rolloutV2, []federation.DueMeasurement{queryDue("a", "rate"), queryDue("b", "nothing"), queryDue("c", "away")})
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 3, asked.Load(), "what was measured of a has not been taken in yet")
		require.EqualValues(t, 3, woken.Load())
		measured := m.look(key)
		require.Len(t, measured, 3)
		for _, one := range measured {
			switch one.Name {
			case "a":
				require.InDelta(t, 0.5, *one.Value, 0)
			case "b":
				require.Nil(t, one.Value)
				require.Empty(t, one.Error)
			case "c":
				require.Equal(t, "connection refused", one.Error)
			}
		}
		m.taken(key, 3)
		require.Empty(t, m.look(key))
		require.Empty(t, m.measured)
		cancel()
		require.NoError(t, <-ended)
		synctest.Wait()
	})
}

func TestWhatIsDueTooEarlyIsHeardOfAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var woken atomic.Int64
		m := newMeasurer(nil, func(namespace, name string) { woken.Add(1) })
		m.start(rolloutV2, nil)
		m.start(rolloutV2, []federation.DueMeasurement{queryDue("a", "rate")})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Start(ctx) }()
		synctest.Wait()
		require.EqualValues(t, 1, woken.Load())
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestWhatAWebHookSays(t *testing.T) {
	told := map[string]any{}
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&told)
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	body := standing(rolloutV2, federation.DueMeasurement{Metric: v1alpha1.RolloutMetric{Name: "smoke"}, Wave: "all"})
	for code, want := range map[int]struct {
		passed  bool
		problem string
	}{200: {true, ""}, 204: {true, ""}, 412: {false, ""}, 404: {false, "answers 404"}, 429: {false, "answers 429"}, 307: {false, "answers 307"}, 500: {false, "answers 500"}} {
		status = code
		passed, problem := askHook(t.Context(), server.URL, body)
		require.Equal(t, want.passed, passed, code)
		require.Contains(t, problem, want.problem)
		require.Equal(t, want.problem == "", problem == "", problem)
	}
	require.Equal(t, "smoke", told["metric"])
	require.Equal(t, "web", told["route"])
	server.Close()
	_, problem := askHook(t.Context(), server.URL, body)
	require.Equal(t, "the web hook cannot be reached: connection refused", problem)
}
