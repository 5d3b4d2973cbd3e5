// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// measures is a Prometheus that knows one number for each cluster, and lets only in who has its token.
type measures struct{ values sync.Map }

func (m *measures) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.FormValue("query")
	switch {
	case r.Header.Get("Authorization") != "Bearer right":
		w.WriteHeader(http.StatusUnauthorized)
	case strings.HasPrefix(query, "errors{"):
		cluster := strings.Split(query, `"`)[1]
		result := ""
		if value, known := m.values.Load(cluster); known {
			result = fmt.Sprintf(`{"metric":{},"value":[1,"%v"]}`, value)
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, result)
	default:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprint(w, `{"status":"error","errorType":"bad_data","error":"parse error: unexpected end of input"}`)
	}
}

// metered is a policy of the test's import with a metric, which lets clusters return at once.
func (a *app) metered(change func(*v1alpha1.Metric)) *v1alpha1.TrafficDistributionPolicy {
	above := v1alpha1.Decimal("0.05")
	metric := &v1alpha1.Metric{Name: "error rate", Query: `errors{cluster="{{ cluster }}"}`, IllAbove: &above,
		Interval: "1s", Timeout: "1s", Rise: 1, Fall: 2}
	if change != nil {
		change(metric)
	}
	p := a.probed(v1alpha1.Probe{})
	p.Spec.Defaults.Health = &v1alpha1.Health{Metric: metric}
	return p
}

// metricAnswered waits until a policy says so of its metric.
func (a *app) metricAnswered(p *v1alpha1.TrafficDistributionPolicy, status metav1.ConditionStatus, reason, message string) {
	a.t.Helper()
	eventually(a.t, func() error {
		if err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		for _, ancestor := range p.Status.Ancestors {
			c := meta.FindStatusCondition(ancestor.Conditions, v1alpha1.PolicyMetricAnswered)
			if c != nil && c.Status == status && c.Reason == reason && strings.Contains(c.Message, message) {
				return nil
			}
		}
		return fmt.Errorf("the policy says %+v", p.Status)
	})
}

// askAt makes members name a Prometheus for the time of the test.
func (a *app) askAt(p *v1alpha1.Prometheus) {
	a.t.Helper()
	set := func(ctx context.Context, p *v1alpha1.Prometheus) {
		for name := range a.set.members {
			eventually(a.t, func() error {
				m := &v1alpha1.MemberCluster{}
				if err := a.set.hub.Get(ctx, client.ObjectKey{Name: name}, m); err != nil {
					return err
				}
				m.Spec.Prometheus = p
				return a.set.hub.Update(ctx, m)
			})
		}
	}
	a.t.Cleanup(func() { set(context.Background(), nil) })
	set(a.t.Context(), p)
}

func TestAClusterWithAnIllMetricIsLeftAndJoinedAgain(t *testing.T) {
	a := newApp(t, theClusterset(t), "eks", "gke")
	a.policy(weight("eks", 80), weight("gke", 20))
	a.expectWeights("gke", split(80, 20))
	policy := a.metered(nil)
	require.NoError(t, a.set.hub.Create(t.Context(), policy))
	a.metricAnswered(policy, metav1.ConditionFalse, v1alpha1.ReasonNoPrometheus, a.namespace+"/helloworld in eks: no Prometheus is known")

	said := &measures{}
	server := httptest.NewServer(said)
	t.Cleanup(server.Close)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "prometheus"}, StringData: map[string]string{"token": "wrong"}}
	require.NoError(t, a.set.hub.Create(t.Context(), secret))
	t.Cleanup(func() { require.NoError(t, a.set.hub.Delete(context.Background(), secret)) })
	a.askAt(&v1alpha1.Prometheus{URL: server.URL, SecretRef: &v1alpha1.SecretRef{Name: secret.Name}})
	a.metricAnswered(policy, metav1.ConditionFalse, v1alpha1.ReasonQueryFailed, "answers 401: correct the url or the Secret")
	secret.StringData = map[string]string{"token": "right"}
	require.NoError(t, a.set.hub.Update(t.Context(), secret))
	a.metricAnswered(policy, metav1.ConditionTrue, v1alpha1.ReasonMetricAnswered, "with no value for "+a.namespace+"/helloworld in eks")

	said.values.Store("eks", 0.01)
	said.values.Store("gke", 0.02)
	a.routeCondition(v1alpha1.RouteProbed, metav1.ConditionTrue, v1alpha1.ReasonProbed)
	said.values.Store("eks", 0.31)
	for _, member := range []string{"eks", "gke"} {
		a.expectWeights(member, split(0, 100))
	}
	require.Contains(t, a.routeCondition(v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonFailedOver).Message,
		"its metric is ill: error rate 0.31, above 0.05, 2 times in a row, of Prometheus "+strings.TrimPrefix(server.URL, "http://"))

	said.values.Store("gke", 0.31)
	a.routeCondition(v1alpha1.RouteProbed, metav1.ConditionFalse, v1alpha1.ReasonGuardHolds)
	a.expectWeights("gke", split(0, 100))
	said.values.Store("gke", 0.01)
	// Nobody asks it for anything any more, so there is no rate of errors: it is let try.
	said.values.Delete("eks")
	a.expectWeights("gke", split(80, 20))

	require.NoError(t, a.set.hub.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
	policy.Spec.Defaults.Health.Metric.Query = "sum("
	require.NoError(t, a.set.hub.Update(t.Context(), policy))
	a.metricAnswered(policy, metav1.ConditionFalse, v1alpha1.ReasonQueryFailed, "refuses the query: parse error: unexpected end of input")
	a.expectWeights("gke", split(80, 20))
}

func TestMetricsThatAdmissionRefuses(t *testing.T) {
	a := newApp(t, theClusterset(t))
	number := func(d v1alpha1.Decimal) *v1alpha1.Decimal { return &d }
	for want, change := range map[string]func(*v1alpha1.Metric){
		"say from where on it is ill":       func(m *v1alpha1.Metric) { m.IllAbove = nil },
		"illBelow is greater than illAbove": func(m *v1alpha1.Metric) { m.IllBelow = number("0.06") },
		"metric.illAbove":                   func(m *v1alpha1.Metric) { m.IllAbove = number("many") },
		"metric.illBelow":                   func(m *v1alpha1.Metric) { m.IllBelow = number("1e3") },
		"the query is empty":                func(m *v1alpha1.Metric) { m.Query = " \n" },
		"there is no other":                 func(m *v1alpha1.Metric) { m.Query = `x{pod="{{ pod }}"}` },
		"interval is 1s to 10m":             func(m *v1alpha1.Metric) { m.Interval, m.Timeout = "500ms", "500ms" },
		"timeout is longer than interval":   func(m *v1alpha1.Metric) { m.Interval, m.Timeout = "2s", "3s" },
		"health.metric.fall":                func(m *v1alpha1.Metric) { m.Fall = 11 },
		"health.metric.name":                func(m *v1alpha1.Metric) { m.Name = " rate" },
	} {
		err := a.set.hub.Create(t.Context(), a.metered(change), client.DryRunAll)
		require.True(t, apierrors.IsInvalid(err), "%s: %v", want, err)
		require.Contains(t, err.Error(), want)
	}
	for name, change := range map[string]func(*v1alpha1.Metric){
		"defaults": func(m *v1alpha1.Metric) { *m = v1alpha1.Metric{Query: "up", IllBelow: number("1")} },
		"labels and lines": func(m *v1alpha1.Metric) {
			m.Query = "sum(rate(x{a=\"{{service}}\",b=~\"{.*}\"}[1m]))\n/ {{ namespace }}"
		},
		"both bounds": func(m *v1alpha1.Metric) { m.IllBelow = number("-0.5") },
	} {
		require.NoError(t, a.set.hub.Create(t.Context(), a.metered(change), client.DryRunAll), name)
	}
	for want, p := range map[string]v1alpha1.Prometheus{
		"begins with http:// or https://": {URL: "ftp://prometheus"},
		"an address that begins":          {URL: "prometheus:9090"},
		"no user, query or fragment":      {URL: "http://me:pass@prometheus"},
		"spec.prometheus.secretRef.name":  {URL: "http://prometheus", SecretRef: &v1alpha1.SecretRef{}},
	} {
		m := memberObject("refused", "refused")
		m.Spec.Prometheus = &p
		err := a.set.hub.Create(t.Context(), m, client.DryRunAll)
		require.True(t, apierrors.IsInvalid(err), "%s: %v", want, err)
		require.Contains(t, err.Error(), want)
	}
}
