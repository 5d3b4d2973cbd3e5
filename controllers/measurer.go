// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/hook"
	"isthmus.dev/isthmus/controllers/prometheus"
	"isthmus.dev/isthmus/controllers/silence"
	"isthmus.dev/isthmus/federation"
)

const (
	// measureTimeout bounds one question to a Prometheus.
	measureTimeout = 10 * time.Second
	// measuredAtOnce bounds the measurements under way, of all rollouts.
	measuredAtOnce = 32
)

// measurer makes the measurements of rollouts, beside the reconciler, which waits for none. What was measured is handed over once:
// a hub that dies in between measures again.
type measurer struct {
	value valueFunc
	// changed hears of a rollout for which something was measured. It must not block.
	changed func(namespace, name string)
	slots   chan struct{}

	mu       sync.Mutex
	since    time.Time
	ctx      context.Context
	running  map[measureKey]bool
	measured map[types.NamespacedName][]federation.Measured
	// early are the rollouts of which something was due before measurements could be made.
	early map[types.NamespacedName]bool
}

// measureKey is a measurement that is made once at a time.
type measureKey struct {
	rollout       types.NamespacedName
	name, cluster string
	step          int32
}

func newMeasurer(value valueFunc, changed func(namespace, name string)) *measurer {
	return &measurer{value: value, changed: changed, slots: make(chan struct{}, measuredAtOnce),
		running: map[measureKey]bool{}, measured: map[types.NamespacedName][]federation.Measured{}, early: map[types.NamespacedName]bool{}}
}

// NeedLeaderElection is true: a hub that does not lead has nothing to decide.
func (m *measurer) NeedLeaderElection() bool { return true }

// Start lets measurements be made until the context ends.
func (m *measurer) Start(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	early := m.early
	m.early = nil
	m.mu.Unlock()
	for name := range early {
		m.changed(name.Namespace, name.Name)
	}
	<-ctx.Done()
	return nil
}

// leads is since when this hub has led; the zero time while it does not.
func (m *measurer) leads() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since
}

// start begins what is due and not under way.
func (m *measurer) start(rollout *v1alpha1.TrafficRollout, due []federation.DueMeasurement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := types.NamespacedName{Namespace: rollout.Namespace, Name: rollout.Name}
	if m.ctx == nil && len(due) > 0 {
		m.early[name] = true
		return
	}
	for _, d := range due {
		key := measureKey{name, d.Metric.Name, d.Cluster, d.Step}
		if m.running[key] || m.has(key) {
			continue
		}
		m.running[key] = true
		go m.run(m.ctx, key, d, standing(rollout, d))
	}
}

// has tells whether a measurement waits to be taken in. It needs mu.
func (m *measurer) has(key measureKey) bool {
	for _, have := range m.measured[key.rollout] {
		if have.Name == key.name && have.Cluster == key.cluster && have.Step == key.step {
			return true
		}
	}
	return false
}

func (m *measurer) run(ctx context.Context, key measureKey, due federation.DueMeasurement, body []byte) {
	out := federation.Measured{Name: key.name, Cluster: key.cluster, Step: key.step, Time: time.Now()}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return
	}
	if webhook := due.Metric.Provider.Webhook; webhook != nil {
		out.Passed, out.Error = askHook(ctx, webhook.URL, body)
		out.Answered = out.Error == ""
	} else {
		value, _, err := m.value(ctx, due.Cluster, due.Query, measureTimeout)
		switch {
		case err == nil:
			out.Value = &value
		case !errors.Is(err, prometheus.ErrNoValue):
			out.Error = err.Error()
		}
	}
	m.mu.Lock()
	delete(m.running, key)
	m.measured[key.rollout] = append(m.measured[key.rollout], out)
	m.mu.Unlock()
	if ctx.Err() == nil {
		m.changed(key.rollout.Namespace, key.rollout.Name)
	}
}

// look is what was measured for a rollout and has not been taken in.
func (m *measurer) look(rollout types.NamespacedName) []federation.Measured {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.measured[rollout]
}

// taken forgets the first n measurements of a rollout: its status has them.
func (m *measurer) taken(rollout types.NamespacedName, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.measured[rollout] = m.measured[rollout][n:]; len(m.measured[rollout]) == 0 {
		delete(m.measured, rollout)
	}
}

// standing is where a rollout stands, as a web hook is told.
func standing(r *v1alpha1.TrafficRollout, due federation.DueMeasurement) []byte {
	body, _ := json.Marshal(map[string]any{"namespace": r.Namespace, "name": r.Name, "route": r.Spec.Route.Name, "metric": due.Metric.Name,
		"wave": due.Wave, "step": r.Status.Step, "weight": r.Status.Weight, "phase": r.Status.Phase})
	return body
}

// askHook posts to a web hook, and reads whether it says yes, or why it says nothing.
func askHook(ctx context.Context, url string, body []byte) (passed bool, problem string) {
	answer, err := hook.Post(ctx, hook.Request{URL: url, Body: body, ContentType: "application/json", OfTenant: true})
	switch {
	case errors.Is(err, hook.ErrAddress):
		return false, hook.ErrAddress.Error()
	case errors.Is(err, hook.ErrMachine):
		return false, hook.ErrMachine.Error()
	case err != nil:
		return false, "the web hook cannot be reached: " + silence.Why(ctx, err)
	case answer.Code >= 200 && answer.Code <= 299:
		return true, ""
	case answer.Code >= 400 && answer.Code <= 499 && !slices.Contains(noVerdict, answer.Code):
		return false, ""
	}
	return false, fmt.Sprintf("the web hook answers %d, which is no verdict: 200 to 299 is yes; 412, 422 and the like are no", answer.Code)
}

// noVerdict are answers of 4xx that say that the question did not arrive, and nothing of the rollout.
var noVerdict = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
	http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusGone, http.StatusMisdirectedRequest, http.StatusTooEarly,
	http.StatusTooManyRequests}
