// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// patience is more than any answer takes here.
const patience = time.Minute

// answering is a Prometheus that gives every query the same answer.
func answering(t *testing.T, status int, body string) *httptest.Server {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func clientOf(t *testing.T, p v1alpha1.Prometheus, secret map[string][]byte) *Client {
	t.Helper()
	var s *corev1.Secret
	if secret != nil {
		s = &corev1.Secret{Data: secret}
	}
	settings, err := settingsOf(p, s)
	require.NoError(t, err)
	c, err := newClient(settings)
	require.NoError(t, err)
	t.Cleanup(c.close)
	return c
}

func success(kind, result string) string {
	return `{"status":"success","data":{"resultType":"` + kind + `","result":` + result + `}}`
}

func TestValueOfAQuery(t *testing.T) {
	tests := map[string]struct {
		status int
		body   string
		want   float64
		err    string
	}{
		"a vector of one":   {200, success("vector", `[{"metric":{},"value":[1,"0.31"]}]`), 0.31, ""},
		"a scalar":          {200, success("scalar", `[1,"5"]`), 5, ""},
		"nothing":           {200, success("vector", `[]`), 0, "the query gives no value"},
		"two samples":       {200, success("vector", `[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"2"]}]`), 0, "more than one value: make it one, such as by sum()"},
		"a string":          {200, success("string", `[1,"x"]`), 0, "cannot be read: make the query give a scalar or a vector of one value"},
		"a range":           {200, success("matrix", `[]`), 0, "the query gives a matrix: make it a scalar or a vector of one value"},
		"bad PromQL":        {400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unexpected end of input"}`, 0, `refuses the query: invalid parameter "query": 1:5: parse error: unexpected end of input`},
		"cannot be run":     {422, `{"status":"error","errorType":"execution","error":"found duplicate\n series"}`, 0, "refuses the query: found duplicate series"},
		"no credentials":    {401, "who are you?", 0, "answers 401: correct the url or the Secret"},
		"another page":      {200, "<html>", 0, "is no Prometheus: correct the url"},
		"overloaded":        {503, "", 0, "answers 503"},
		"an endless answer": {200, `{"status":"success","data":"` + strings.Repeat("x", maxAnswer) + `"}`, 0, "is longer than 1024 KiB"},
		"a long message":    {400, `{"status":"error","errorType":"bad_data","error":"` + strings.Repeat("ä", maxSaid) + `"}`, 0, "refuses the query: ää"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := clientOf(t, v1alpha1.Prometheus{URL: answering(t, test.status, test.body).URL}, nil)
			got, err := c.Value(t.Context(), "up", patience)
			if test.err == "" {
				require.NoError(t, err)
				require.InDelta(t, test.want, got, 0)
				return
			}
			require.ErrorContains(t, err, test.err)
			require.Less(t, len(err.Error()), maxSaid+100)
		})
	}
}

func TestAQueryIsSentToTheAddressWithTheCredentials(t *testing.T) {
	for name, test := range map[string]struct {
		secret map[string][]byte
		want   string
	}{
		"none":  {nil, ""},
		"token": {map[string][]byte{"token": []byte("t0p-secret\n")}, "Bearer t0p-secret"},
		"basic": {map[string][]byte{"username": []byte("isthmus"), "password": []byte("t0p-secret")}, "Basic aXN0aG11czp0MHAtc2VjcmV0"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/thanos/api/v1/query" || r.FormValue("query") != `up{cluster="eks"}` || r.Header.Get("Authorization") != test.want {
					http.NotFound(w, r)
					return
				}
				_, _ = io.WriteString(w, success("scalar", `[1,"1"]`))
			})
			got, err := clientOf(t, v1alpha1.Prometheus{URL: server.URL + "/thanos/"}, test.secret).Value(t.Context(), `up{cluster="eks"}`, patience)
			require.NoError(t, err)
			require.InDelta(t, 1, got, 0)
		})
	}
}

// A redirect could carry the credentials to whoever it names.
func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("followed") })
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	_, err := clientOf(t, v1alpha1.Prometheus{URL: server.URL}, map[string][]byte{"token": []byte("t0p-secret")}).Value(t.Context(), "up", patience)
	require.ErrorContains(t, err, "answers 307")
	require.NotContains(t, err.Error(), "secret")
}

func TestWhoeverDoesNotAnswerIsGivenUp(t *testing.T) {
	waiting := make(chan struct{})
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-waiting:
		}
	})
	t.Cleanup(func() { close(waiting) })
	_, err := clientOf(t, v1alpha1.Prometheus{URL: server.URL}, nil).Value(t.Context(), "up", 50*time.Millisecond)
	require.ErrorContains(t, err, "cannot be reached: timeout")

	server = serve(t, nil)
	server.Close()
	_, err = clientOf(t, v1alpha1.Prometheus{URL: server.URL}, nil).Value(t.Context(), "up", patience)
	require.ErrorContains(t, err, "cannot be reached: connection refused")
}

func TestOnlyTheGivenAuthorityIsTrusted(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, success("scalar", `[1,"1"]`))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, err := clientOf(t, v1alpha1.Prometheus{URL: server.URL}, nil).Value(t.Context(), "up", patience)
	require.ErrorContains(t, err, "its certificate is not trusted")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	_, err = clientOf(t, v1alpha1.Prometheus{URL: server.URL}, map[string][]byte{"ca.crt": ca}).Value(t.Context(), "up", patience)
	require.NoError(t, err)
}

func TestSettingsThatAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		url    string
		secret map[string][]byte
		want   string
	}{
		"no address":      {"prometheus", nil, "begins with https:// or http://"},
		"another scheme":  {"file:///etc/passwd", nil, "begins with https:// or http://"},
		"a user":          {"http://me:pass@prometheus", nil, "must not hold a user"},
		"a query":         {"http://prometheus?x=pass", nil, "must not hold a user, a query"},
		"two credentials": {"http://prometheus", map[string][]byte{"token": []byte("pass"), "username": []byte("me")}, "leave one of them out"},
		"only a password": {"http://prometheus", map[string][]byte{"password": []byte("pass")}, "no username"},
		"a broken token":  {"http://prometheus", map[string][]byte{"token": []byte("pa\nss")}, "no header can carry"},
		"no certificate":  {"http://prometheus", map[string][]byte{"ca.crt": []byte("pass")}, "holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := settingsOf(v1alpha1.Prometheus{URL: test.url}, &corev1.Secret{Data: test.secret})
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "pass\"", "what is secret is repeated")
			require.NotContains(t, err.Error(), "me:pass")
		})
	}
}

func TestTheDirectoryFollowsMembersAndSecrets(t *testing.T) {
	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	require.NoError(t, corev1.AddToScheme(scheme))
	own := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "eks"}}
	own.Spec.Prometheus = &v1alpha1.Prometheus{URL: "http://eks.example.com", SecretRef: &v1alpha1.SecretRef{Name: "eks-prometheus"}}
	none := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "gke"}}
	hub := fake.NewClientBuilder().WithScheme(scheme).WithObjects(own, none).Build()
	d := NewDirectory(hub, nil)

	_, err := d.Of(t.Context(), "gke")
	require.ErrorIs(t, err, ErrNone)
	_, err = d.Of(t.Context(), "aks")
	require.EqualError(t, err, "MemberCluster aks cannot be read: NotFound")
	_, err = d.Of(t.Context(), "eks")
	require.ErrorContains(t, err, "isthmus-system/eks-prometheus does not exist: create it")

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "eks-prometheus"}, Data: map[string][]byte{"token": []byte("a")}}
	require.NoError(t, hub.Create(t.Context(), secret))
	first, err := d.Of(t.Context(), "eks")
	require.NoError(t, err)
	require.Equal(t, "eks.example.com", first.String())
	again, err := d.Of(t.Context(), "eks")
	require.NoError(t, err)
	require.Same(t, first, again, "a client is made for each query")
	require.NoError(t, hub.Patch(t.Context(), secret, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"token":"Yg=="}}`))))
	again, err = d.Of(t.Context(), "eks")
	require.NoError(t, err)
	require.NotSame(t, first, again, "another token is not used")

	fallback, err := NewDirectory(hub, &v1alpha1.Prometheus{URL: "http://thanos:10902/x"}).Of(t.Context(), "gke")
	require.NoError(t, err)
	require.Equal(t, "thanos:10902", fallback.String())
}
