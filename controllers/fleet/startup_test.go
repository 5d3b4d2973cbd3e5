// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

var widgetOwner = federation.Owner{Noun: "service", Namespace: "shop", Name: "hasty"}

// widgetServer is an API server with one object, a Widget, which can forget its CRDs. It takes what is written, and
// tells nobody.
type widgetServer struct {
	mu sync.Mutex
	// forgetful is for how many more times it is asked for the kind until it knows it again.
	forgetful int
	asked     int
	watches   []context.CancelFunc
	deleted   []string
}

// restart cuts its watches, and answers 404 so many times when it is asked for the kind.
func (s *widgetServer) restart(forgetful int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetful, s.asked = forgetful, 0
	for _, cut := range s.watches {
		cut()
	}
	s.watches = nil
}

func (s *widgetServer) askedTimes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *widgetServer) knows(discovery bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !discovery {
		return s.forgetful == 0
	}
	s.asked++
	if s.forgetful > 0 {
		s.forgetful--
		return false
	}
	return true
}

func (s *widgetServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	discovery := strings.HasSuffix(r.URL.Path, "/v1")
	switch {
	case r.URL.Path == "/version":
		_, _ = fmt.Fprint(w, `{"gitVersion":"v1.36.3"}`)
	case !s.knows(discovery):
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case discovery:
		_, _ = fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"test.isthmus.dev/v1",
			"resources":[{"name":"widgets","singularName":"widget","namespaced":true,"kind":"Widget","verbs":["list","watch"]}]}`)
	case r.URL.Query().Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case isWatch(r):
		ctx, cut := context.WithCancel(r.Context())
		s.mu.Lock()
		s.watches = append(s.watches, cut)
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		<-ctx.Done()
	case r.Method == http.MethodPatch:
		_, _ = fmt.Fprintf(w, `{"kind":"Widget","apiVersion":"test.isthmus.dev/v1","metadata":{"namespace":"shop","name":"%s","uid":"2",
			"resourceVersion":"6","labels":{"%s":"%s","%s":"%s"}}}`, path.Base(r.URL.Path),
			v1alpha1.LabelManagedBy, v1alpha1.ManagedBy, v1alpha1.LabelOwner, widgetOwner.Label())
	case r.Method == http.MethodDelete:
		s.mu.Lock()
		s.deleted = append(s.deleted, path.Base(r.URL.Path))
		s.mu.Unlock()
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	case path.Base(r.URL.Path) != "widgets":
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	default:
		_, _ = fmt.Fprint(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"5"},
			"items":[{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"namespace":"shop","name":"known","uid":"1","resourceVersion":"4"}}]}`)
	}
}

func TestAnAPIServerThatHasNotFoundItsCRDsYetIsNotBelieved(t *testing.T) {
	server := &widgetServer{}
	config := tlsServer(t, server.ServeHTTP)
	f := newFixture(t, func(o *Options) { o.Kinds = []Kind{{Object: metadataOf(widgetKind), Optional: true}} })
	m := f.joinSynced("eks", config)
	eventually(t, func() bool { return f.eventsOf("known") == 1 }, func() any { return m.State() })

	server.restart(missingDoubts - 1)
	eventually(t, func() bool { return server.askedTimes() >= missingDoubts && m.State().Synced }, func() any { return m.State() })
	require.Empty(t, m.State().Missing)
	require.Equal(t, 1, f.eventsOf("known"), "nothing went")

	server.restart(1 << 20)
	eventually(t, func() bool { return slices.Contains(m.State().Missing, "Widget.test.isthmus.dev") }, func() any { return m.State() })
	eventually(t, func() bool { return f.eventsOf("known") == 2 }, func() any { return f.eventsOf("known") })
}

// The watch of this server never shows what was created.
func TestWhatNoCacheHasShownYetIsWithdrawn(t *testing.T) {
	server := &widgetServer{}
	config := tlsServer(t, server.ServeHTTP)
	f := newFixture(t, func(o *Options) { o.Kinds = []Kind{{Object: metadataOf(widgetKind)}} })
	m := f.joinSynced("eks", config)
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(widgetKind)
	widget.SetNamespace("shop")
	widget.SetName("hasty")
	widgetOwner.Mark(widget)
	m.Submit(Desired{Owner: widgetOwner, Objects: []client.Object{widget}, Prune: []schema.GroupVersionKind{widgetKind}})
	written(t, m, widgetOwner)

	m.Submit(Desired{Owner: widgetOwner, Prune: []schema.GroupVersionKind{widgetKind}})
	written(t, m, widgetOwner)
	server.mu.Lock()
	defer server.mu.Unlock()
	require.Equal(t, []string{"hasty"}, server.deleted)
}

// The leader's epoch is known only once the fleet is started.
func TestNothingIsWrittenBeforeTheStart(t *testing.T) {
	var probes atomic.Int32
	config := tlsServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			probes.Add(1)
			_, _ = w.Write([]byte(`{"gitVersion":"v1.36.3"}`))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	f := New(Options{Scheme: testScheme(t), Kinds: testKinds(), ProbeInterval: 10 * time.Millisecond})
	require.NoError(t, f.Ensure("eks", kubeconfigFor(t, config)))
	m, _ := f.Member("eks")
	owner := federation.Owner{Noun: "service", Name: "a"}
	eventually(t, func() bool { return m.State().Phase == Connected && len(m.State().Missing) > 0 }, func() any { return m.State() })
	m.Submit(Desired{Owner: owner, Objects: nil})
	seen := probes.Load()
	eventually(t, func() bool { return probes.Load() > seen+3 }, func() any { return m.State() })
	require.ErrorIs(t, m.Outcome(owner), ErrPending)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Start(ctx) }()
	eventually(t, func() bool { return m.Outcome(owner) == nil }, func() any { return m.Outcome(owner) })
	cancel()
	require.NoError(t, <-done)
}
