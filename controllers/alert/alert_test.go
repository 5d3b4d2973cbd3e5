// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func webhook(name string, data ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name,
		Labels: map[string]string{v1alpha1.LabelAlertWebhook: ""}}, Data: map[string][]byte{"url": []byte("https://" + name + ".example.com/T0KEN")}}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}

func shifted(member, before, after string) federation.Alert {
	return federation.RouteAlerts("sample", "shop", []federation.Shift{{Member: member, Reason: v1alpha1.ReasonFailedOver, Before: before, After: after,
		Seen: []federation.Observation{{Import: "sample/shop", Cluster: "gke", Verdict: "Unfit", Reason: "Unfit", Message: "no endpoint is ready"}}}})[0]
}

// desk is a Sender whose posts are answered by a function, in virtual time.
type desk struct {
	*Sender
	hub    client.Client
	events *events.FakeRecorder
	all    []string // "<target> <summary>"
}

// newDesk has to be called in a bubble of synctest.
func newDesk(t *testing.T, answer func(target string, attempt int) error, secrets ...*corev1.Secret) *desk {
	t.Helper()
	hub := fake.NewClientBuilder()
	for _, s := range secrets {
		hub = hub.WithObjects(s)
	}
	d := &desk{hub: hub.Build(), events: events.NewFakeRecorder(100)}
	d.Sender = New(Options{Secrets: d.hub, Events: d.events, Registerer: prometheus.NewRegistry(), Log: logr.Discard()})
	attempts := map[string]int{}
	d.post = func(_ context.Context, target target, body []byte, _ string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		attempts[target.name]++
		var e event.Event
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		if err := answer(target.name, attempts[target.name]); err != nil {
			return err
		}
		var a federation.Alert
		if err := e.DataAs(&a); err != nil {
			return err
		}
		d.all = append(d.all, target.name+" "+a.Summary)
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Start(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return d
}

// posts are the messages that were taken.
func (d *desk) posts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

func taken(string, int) error { return nil }

func TestMembersOfOneMomentAreOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, taken, webhook("a"))
		d.Raise(shifted("eks", "x", "y"))
		time.Sleep(gatherFor / 2)
		d.Raise(shifted("gke", "x", "y"))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"a HTTPRoute sample/shop: FailedOver: requests that enter eks: y, before: x; requests that enter gke: y, before: x " +
			"(sample/shop in gke: no endpoint is ready)"}, d.posts())
	})
}

func TestADeadWebhookDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(target string, attempt int) error {
			if target == "dead" && attempt < 5 {
				return laterError{"503 Service Unavailable", 0}
			}
			return nil
		}, webhook("dead"), webhook("well"))
		d.Raise(shifted("eks", "x", "y"))
		time.Sleep(2 * gatherFor)
		synctest.Wait()
		require.Len(t, d.posts(), 1)
		require.True(t, strings.HasPrefix(d.posts()[0], "well "))
		require.Contains(t, <-d.events.Events, "WebhookFailed")
		time.Sleep(15 * time.Second) // 1 + 2 + 4 + 8
		synctest.Wait()
		require.Len(t, d.posts(), 2)
		require.Contains(t, <-d.events.Events, "WebhookDelivered")
		require.Empty(t, d.events.Events, "once for each turn, not for each attempt")
		require.InDelta(t, 1, testutil.ToFloat64(d.metrics.results.WithLabelValues("dead", resultDelivered)), 0)
	})
}

func TestWhatIsRefusedIsNotRepeatedAndHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(_ string, attempt int) error {
			if attempt == 1 {
				return fmt.Errorf("%w: 403", errRefused)
			}
			return nil
		}, webhook("a"))
		d.Raise(shifted("eks", "x", "y"))
		time.Sleep(2 * gatherFor)
		d.Raise(shifted("eks", "y", "z"))
		time.Sleep(2 * gatherFor)
		synctest.Wait()
		require.Len(t, d.posts(), 1)
		require.Contains(t, d.posts()[0], "z, before: y")
		require.InDelta(t, 1, testutil.ToFloat64(d.metrics.results.WithLabelValues("a", resultRefused)), 0)
	})
}

func TestOnlySoManyWaitAndTheNewestStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		d := newDesk(t, func(string, int) error {
			if !up {
				return errors.New("down")
			}
			return nil
		}, webhook("a"))
		for i := range maxWaiting + 5 {
			d.Raise(shifted("eks", "x", fmt.Sprint(i)))
			time.Sleep(2 * gatherFor)
		}
		synctest.Wait()
		d.mu.Lock()
		up = true
		d.mu.Unlock()
		time.Sleep(2 * lastPause)
		synctest.Wait()
		require.Len(t, d.posts(), maxWaiting)
		require.Contains(t, d.posts()[maxWaiting-1], fmt.Sprintf("requests that enter eks: %d,", maxWaiting+4))
		require.InDelta(t, 5, testutil.ToFloat64(d.metrics.results.WithLabelValues("a", resultDropped)), 0)
	})
}

func TestWhatIsTooOldIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(string, int) error { return errors.New("down") }, webhook("a"))
		d.Raise(shifted("eks", "x", "y"))
		time.Sleep(maxAge + 2*lastPause)
		synctest.Wait()
		require.InDelta(t, 1, testutil.ToFloat64(d.metrics.results.WithLabelValues("a", resultDropped)), 0)
		require.InDelta(t, 0, testutil.ToFloat64(d.metrics.waiting.WithLabelValues("a")), 0)
	})
}

func TestADeletedWebhookEndsItsLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := webhook("a")
		d := newDesk(t, func(string, int) error { return errors.New("down") }, secret)
		d.Raise(shifted("eks", "x", "y"))
		time.Sleep(2 * gatherFor)
		require.NoError(t, d.hub.Delete(t.Context(), secret))
		time.Sleep(2 * lastPause)
		synctest.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		require.Empty(t, d.lines)
	})
}

func TestAWebhookIsToldOnlyWhatItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := webhook("new", "reasons", "Drained")
		d := newDesk(t, taken, ready, webhook("some", "reasons", "FailedBack, FailedOver"))
		d.Raise(shifted("eks", "x", "y"))
		d.Ready(ready)
		time.Sleep(2 * gatherFor)
		synctest.Wait()
		require.Len(t, d.posts(), 2)
		require.ElementsMatch(t, []string{"some", "new"}, []string{strings.Fields(d.posts()[0])[0], strings.Fields(d.posts()[1])[0]})
	})
}

func TestWhatIsWrongWithAWebhook(t *testing.T) {
	for name, test := range map[string]struct {
		secret *corev1.Secret
		says   string
	}{
		"no address":       {webhook("a", "url", ""), "key url has to be an address"},
		"another protocol": {webhook("a", "url", "ftp://S3CRET.example.com"), "https:// or http://"},
		"no host":          {webhook("a", "url", "https:///S3CRET"), "https:// or http://"},
		"a user":           {webhook("a", "url", "https://u:S3CRET@example.com"), "under authorization"},
		"unreadable":       {webhook("a", "url", "https://S3CRET\x7f"), "https:// or http://"},
		"a format":         {webhook("a", "format", "xml"), "cloudevents or slack"},
		"a reason":         {webhook("a", "reasons", "Boredom"), `there is no "Boredom": use DrainBlocked, Drained,`},
		"a key":            {webhook("a", "uri", "S3CRET"), `key "uri" is not known: use url, format,`},
		"a certificate":    {webhook("a", "ca.crt", "S3CRET"), "no PEM certificate"},
		"a header":         {webhook("a", "authorization", "Bearer S3CRET\r\nX: y"), "no header can carry"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Validate(test.secret)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "S3CRET")
		})
	}
	require.NoError(t, Validate(webhook("a", "format", "slack", "authorization", "Bearer x", "reasons", "FailedOver,Drained\n", "source", "/hub/eu")))
}

func TestMessages(t *testing.T) {
	r := raised{shifted("eks", "eks 80.00% <gke> 20.00%", "eks 100.00%"), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ""}
	body, kind, err := message(target{format: CloudEvents, source: "/isthmus"}, r)
	require.NoError(t, err)
	require.Equal(t, "application/cloudevents+json", kind)
	var e event.Event
	require.NoError(t, json.Unmarshal(body, &e))
	require.NoError(t, e.Validate())
	require.Equal(t, []string{"dev.isthmus.FailedOver", "HTTPRoute/sample/shop", "2026-01-02T03:04:05Z", "warning"},
		[]string{e.Type(), e.Subject(), e.Time().Format(time.RFC3339), e.Extensions()["severity"].(string)})
	again, _, err := message(target{format: CloudEvents, source: "/isthmus"}, r)
	require.NoError(t, err)
	require.Equal(t, string(body), string(again), "a repeated delivery is known by its id")

	body, kind, err = message(target{format: Slack}, r)
	require.NoError(t, err)
	require.Equal(t, "application/json", kind)
	var slack map[string]string
	require.NoError(t, json.Unmarshal(body, &slack))
	require.Equal(t, ":rotating_light: *FailedOver* HTTPRoute sample/shop (2026-01-02T03:04:05Z)\n"+
		"• requests that enter eks: *eks 100.00%*, before: eks 80.00% &lt;gke&gt; 20.00%\n> sample/shop in gke: no endpoint is ready", slack["text"])

	long := r
	long.Summary, long.Moved, long.Seen = strings.Repeat("ü", 2*maxSlackText), nil, nil
	require.Len(t, []rune(slackText(long)), maxSlackText)
}

func TestPost(t *testing.T) {
	var got *http.Request
	status, later := http.StatusOK, ""
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Retry-After", later)
		w.Header().Set("Location", "https://elsewhere.example.com/")
		w.WriteHeader(status)
	}))
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	to := func(url string) target {
		hook, err := targetOf(webhook("a", "url", url, "ca.crt", string(ca), "authorization", "Bearer S3CRET"))
		require.NoError(t, err)
		return hook
	}
	send := func() error { return post(t.Context(), to(server.URL+"/T0KEN"), []byte("{}"), "application/json") }

	require.NoError(t, send())
	require.Equal(t, []string{"Bearer S3CRET", "application/json", "/T0KEN"}, []string{got.Header.Get("Authorization"), got.Header.Get("Content-Type"), got.URL.Path})
	for _, code := range []int{408, 425, 429, 500, 503} {
		status, later = code, "7"
		again := laterError{}
		require.ErrorAs(t, send(), &again, code)
		require.Equal(t, 7*time.Second, again.after)
	}
	for _, code := range []int{301, 307, 400, 401, 403, 404, 410} {
		status = code
		require.ErrorIs(t, send(), errRefused, code)
	}
	server.Close()
	err := send()
	require.ErrorContains(t, err, "the web hook cannot be reached")
	require.NotContains(t, err.Error(), "T0KEN")
	require.NotContains(t, err.Error(), "S3CRET")
}
