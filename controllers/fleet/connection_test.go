// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// tlsServer is an API server's front that answers as told.
func tlsServer(t *testing.T, handler http.HandlerFunc) *rest.Config {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, BearerToken: secretWord, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}}
}

func quick(o *Options) {
	o.ProbeTimeout, o.RequestTimeout = 100*time.Millisecond, 100*time.Millisecond
}

func TestWhatIsWrongWithAMemberIsSaid(t *testing.T) {
	answer := func(status int) *rest.Config {
		return tlsServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	}
	redirect := tlsServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed, with the token")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	})
	stranger := answer(http.StatusOK)
	stranger.CAData = nil
	for _, tc := range []struct {
		name, reason, says string
		config             *rest.Config
	}{
		{"refused credentials", v1alpha1.ReasonUnauthorized, "rotate the token in the Secret", answer(http.StatusUnauthorized)},
		{"forbidden", v1alpha1.ReasonForbidden, "bind Isthmus's account", answer(http.StatusForbidden)},
		{"a broken server", v1alpha1.ReasonUnreachable, "answered /version with 503", answer(http.StatusServiceUnavailable)},
		{"a redirect", v1alpha1.ReasonUnreachable, "answered /version with 302", redirect},
		{"nobody there", v1alpha1.ReasonUnreachable, "connection refused", closedPort(t)},
		{"no such name", v1alpha1.ReasonUnreachable, "cannot be resolved", &rest.Config{Host: "https://nowhere.invalid", BearerToken: "abc"}},
		{"another authority", v1alpha1.ReasonUnreachable, "not signed by the kubeconfig's certificate authority", stranger},
		{"no answer at all", v1alpha1.ReasonUnreachable, "no answer within 100ms", blackHole(t)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Only who never answers is waited for: a busy machine may take its time with a handshake.
			patient := func(o *Options) { o.ProbeTimeout, o.RequestTimeout = 10*time.Second, 10*time.Second }
			if tc.name == "no answer at all" {
				patient = quick
			}
			f := newFixture(t, patient)
			m := f.join("eks", tc.config)
			eventually(t, func() bool { return m.State().Phase == Lost }, func() any { return m.State() })
			require.Equal(t, tc.reason, m.State().Reason, m.State().Message)
			require.Contains(t, m.State().Message, tc.says)
			require.NotContains(t, m.State().Message, secretWord)
			require.False(t, m.State().Synced)
		})
	}
}

func closedPort(t *testing.T) *rest.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return &rest.Config{Host: "https://" + listener.Addr().String(), BearerToken: "abc"}
}

// blackHole accepts and never answers.
func blackHole(t *testing.T) *rest.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return &rest.Config{Host: "https://" + listener.Addr().String(), BearerToken: "abc"}
}

func TestNothingWaitsForAMemberThatHangs(t *testing.T) {
	f := newFixture(t)
	config := blackHole(t)
	start := time.Now()
	m := f.join("eks", config)
	owner := federation.Owner{Noun: "service", Name: "a"}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}}
	owner.Mark(&service.ObjectMeta)
	m.Submit(Desired{Owner: owner, Objects: nil})
	require.ErrorIs(t, m.Outcome(owner), ErrPending)
	require.ErrorIs(t, m.Outcome(federation.Owner{Name: "b"}), ErrNoWish)
	require.ErrorIs(t, m.Reader().List(t.Context(), &corev1.ServiceList{}), ErrNotSynced)
	require.Error(t, m.Reader().List(t.Context(), &corev1.PodList{}), "nobody asked for pods")
	require.NoError(t, f.Ensure("eks", kubeconfigFor(t, closedPort(t))))
	f.Remove("eks")
	require.Less(t, time.Since(start), time.Second)
	require.Empty(t, f.Members())
}

func TestAKubeconfigThatIsRefusedChangesNothing(t *testing.T) {
	f := newFixture(t)
	require.Error(t, f.Ensure("eks", []byte("{}")))
	_, known := f.Member("eks")
	require.False(t, known)
	before := f.join("eks", closedPort(t))
	require.Error(t, f.Ensure("eks", []byte("{}")))
	after, known := f.Member("eks")
	require.True(t, known)
	require.Same(t, before, after)
}

func TestAWishThatCannotBeSentSaysSo(t *testing.T) {
	f := newFixture(t)
	m := f.join("eks", closedPort(t))
	owner := federation.Owner{Noun: "service", Name: "a"}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}}
	for _, tc := range []struct {
		says   string
		change func()
		times  int
	}{
		{"does not carry the label", func() {}, 1},
		{"wished twice", func() { owner.Mark(&service.ObjectMeta) }, 2},
	} {
		tc.change()
		d := Desired{Owner: owner}
		for range tc.times {
			d.Objects = append(d.Objects, service.DeepCopy())
		}
		m.Submit(d)
		eventually(t, func() bool { err := m.Outcome(owner); return err != nil && tried(err) }, func() any { return m.Outcome(owner) })
		require.ErrorContains(t, m.Outcome(owner), tc.says)
	}
}

func TestKindsThatAMemberLacks(t *testing.T) {
	config := tlsServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			_, _ = w.Write([]byte(`{"gitVersion":"v1.36.3"}`))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	f := newFixture(t)
	m := f.join("eks", config)
	eventually(t, func() bool { return len(m.State().Missing) == len(testKinds()) && m.State().Phase == Connected }, func() any { return m.State() })
	state := m.State()
	require.False(t, state.Synced)
	require.Equal(t, "v1.36.3", state.Version)
	require.Equal(t, v1alpha1.ReasonMissingKinds, state.Reason)
	require.Equal(t, "the member does not serve DestinationRule.networking.istio.io, HTTPRoute.gateway.networking.k8s.io, Namespace, Service, ServiceEntry.networking.istio.io: install the CRDs there", state.Message)
	require.True(t, meta.IsNoMatchError(m.Reader().List(t.Context(), &corev1.ServiceList{})))
}
