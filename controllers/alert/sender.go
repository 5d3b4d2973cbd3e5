// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

const (
	// gatherFor is how long alerts for one reason about one object are joined: those of several members come moments apart.
	gatherFor = time.Second
	// maxWaiting alerts wait for one web hook; the oldest are given up first.
	maxWaiting = 100
	// maxAge is how long an alert is worth delivering.
	maxAge = time.Hour
)

// Options of a Sender.
type Options struct {
	// Secrets reads the web hooks: the Secrets of Isthmus's own namespace that carry v1alpha1.LabelAlertWebhook.
	Secrets client.Reader
	// Events says on a web hook's Secret whether messages arrive.
	Events     events.EventRecorder
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Sender delivers alerts to every web hook, while it leads.
type Sender struct {
	Options
	metrics *metrics
	post    poster

	mu      sync.Mutex
	pending map[key]raised
	lines   map[string]*line
	flush   chan struct{}
	working sync.WaitGroup
}

type key struct {
	object federation.AlertObject
	reason string
	// only is the one web hook that is meant, empty for all.
	only string
}

// New makes a Sender, which delivers once it is started.
func New(o Options) *Sender {
	return &Sender{Options: o, metrics: newMetrics(o.Registerer), post: post, pending: map[key]raised{}, lines: map[string]*line{},
		flush: make(chan struct{}, 1)}
}

// Raise takes an alert, and never waits.
func (s *Sender) Raise(a federation.Alert) { s.raise(key{a.Object, a.Reason, ""}, a) }

// Ready tells a web hook, and no other, that it will be told.
func (s *Sender) Ready(secret *corev1.Secret) {
	object := federation.AlertObject{Kind: "Secret", Namespace: secret.Namespace, Name: secret.Name}
	s.raise(key{object, v1alpha1.ReasonWebhookReady, secret.Name}, federation.Alert{Reason: v1alpha1.ReasonWebhookReady, Severity: federation.SeverityInfo,
		Object: object, Summary: object.String() + ": this web hook is told from now on"})
}

func (s *Sender) raise(k key, a federation.Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, waits := s.pending[k]; waits {
		s.pending[k] = raised{before.Merge(a), before.at, k.only}
		return
	}
	s.pending[k] = raised{a, time.Now(), k.only}
	select {
	case s.flush <- struct{}{}:
	default:
	}
}

// NeedLeaderElection is true: what the leader does is told by the leader.
func (s *Sender) NeedLeaderElection() bool { return true }

// Start delivers until the context ends. It returns when nothing of it runs any more.
func (s *Sender) Start(ctx context.Context) error {
	defer s.working.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.flush:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gatherFor):
		}
		s.send(ctx, s.take())
	}
}

// take empties what is pending, the oldest first.
func (s *Sender) take() []raised {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.SortedFunc(maps.Values(s.pending), func(a, b raised) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.Reason+a.Object.String(), b.Reason+b.Object.String())
	})
	clear(s.pending)
	return out
}

// send puts alerts into the lines of the web hooks that want them.
func (s *Sender) send(ctx context.Context, alerts []raised) {
	var list corev1.SecretList
	if err := s.Secrets.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace), client.HasLabels{v1alpha1.LabelAlertWebhook}); err != nil {
		s.Log.Error(err, "cannot read the web hooks, so nobody is told", "alerts", len(alerts))
		return
	}
	for i := range list.Items {
		if t, err := targetOf(&list.Items[i]); err == nil {
			for _, a := range alerts {
				if t.wants(a) {
					s.enqueue(ctx, t.name, a)
				}
			}
		}
	}
}
