// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	cloudevent "github.com/cloudevents/sdk-go/v2/event"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// pager is a web hook that keeps what it is told.
type pager struct {
	mu   sync.Mutex
	told []cloudevent.Event
}

func (p *pager) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var e cloudevent.Event
	if json.NewDecoder(r.Body).Decode(&e) == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told = append(p.told, e)
	}
}

// heard is the data of the first message for a reason about an object.
func (p *pager) heard(t *testing.T, reason, subject string) federation.Alert {
	t.Helper()
	var a federation.Alert
	eventually(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := slices.IndexFunc(p.told, func(e cloudevent.Event) bool { return e.Type() == "dev.isthmus."+reason && e.Subject() == subject })
		if i < 0 {
			return fmt.Errorf("not told of %s of %s, but of %v", reason, subject, p.told)
		}
		return p.told[i].DataAs(&a)
	})
	return a
}

func TestWhoIsOnCallIsTold(t *testing.T) {
	set := theClusterset(t)
	hook := &pager{}
	server := httptest.NewServer(hook)
	t.Cleanup(server.Close)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "pager",
		Labels: map[string]string{v1alpha1.LabelAlertWebhook: ""}}, Data: map[string][]byte{"url": []byte("no address")}}
	require.NoError(t, set.hub.Create(t.Context(), secret))
	a := newApp(t, set, "eks", "gke")
	invalid := a.event(v1alpha1.SystemNamespace, "pager", v1alpha1.ReasonWebhookInvalid)
	require.Contains(t, invalid.Note, "key url has to be an address")

	secret.Data["url"] = []byte(server.URL + "/T0KEN")
	require.NoError(t, set.hub.Update(t.Context(), secret))
	hook.heard(t, v1alpha1.ReasonWebhookReady, "Secret/isthmus-system/pager")

	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectSummary("eks", "eks 80.00% gke 20.00%")
	a.endpoints("gke", 0)
	subject := "HTTPRoute/" + a.namespace + "/" + a.route().Name
	over := hook.heard(t, v1alpha1.ReasonFailedOver, subject)
	require.Equal(t, federation.SeverityWarning, over.Severity)
	require.Contains(t, over.Moved, federation.Move{Member: "eks", Before: "eks 80.00% gke 20.00%", After: "eks 100.00%"})
	require.True(t, slices.ContainsFunc(over.Seen, func(o federation.Observation) bool {
		return o.Cluster == "gke" && strings.Contains(o.Message, "no endpoint is ready")
	}), "%+v", over.Seen)

	a.endpoints("eks", 0)
	hook.heard(t, v1alpha1.ReasonNoFitCluster, subject)
	a.endpoints("gke", 1)
	a.endpoints("eks", 1)
	hook.heard(t, v1alpha1.ShiftFailedBack, subject)
	require.NoError(t, set.hub.Delete(t.Context(), secret))
}
