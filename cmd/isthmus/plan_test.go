// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// threeInTheMorning is the time on every hub in memory.
var threeInTheMorning = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)

// hubInMemory holds what testdata/hub.yaml says, behind a client that answers as funcs say. Of an object that further files
// say too the last word counts.
func hubInMemory(t *testing.T, funcs interceptor.Funcs, files ...string) connection {
	t.Helper()
	var objects []client.Object
	for _, file := range append([]string{"testdata/hub.yaml"}, files...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, doc := range strings.Split(string(text), "\n---\n") {
			u := &unstructured.Unstructured{}
			require.NoError(t, yaml.Unmarshal([]byte(doc), &u.Object))
			if u.GetKind() == "ServiceImport" {
				federation.ServiceOwner(federation.ServiceKey{Namespace: u.GetNamespace(), Name: u.GetName()}).Mark(u)
			}
			objects = slices.DeleteFunc(objects, func(o client.Object) bool {
				return o.GetObjectKind().GroupVersionKind() == u.GroupVersionKind() && client.ObjectKeyFromObject(o) == client.ObjectKeyFromObject(u)
			})
			objects = append(objects, u)
		}
	}
	if funcs.Create == nil {
		funcs.Create = knows("alice@example.com")
	}
	c := fake.NewClientBuilder().WithScheme(newScheme()).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
	return func(_ *access, may rights) (*hub, error) {
		h := &hub{Client: c, where: "https://hub", namespace: "sample", now: func() time.Time { return threeInTheMorning }}
		if may == mayRead {
			h.Client = client.NewDryRunClient(c)
		}
		return h, nil
	}
}

// knows answers who asks, as an API server does.
func knows(user string) func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
	return func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if review, asked := o.(*authenticationv1.SelfSubjectReview); asked {
			review.Status.UserInfo.Username = user
			return nil
		}
		return c.Create(ctx, o, opts...)
	}
}

// run calls the command as a shell would, and says what it printed and how it ended.
func run(connect connection, args ...string) (stdout string, code int, message string) {
	cmd := command("isthmus", connect)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	var own exitError
	switch {
	case errors.As(err, &own):
		code, message = own.code, err.Error()
	case err != nil:
		code, message = exitFailed, err.Error()
	}
	return out.String(), code, message
}

// requireGolden compares what was printed with testdata/<name>.out.
func requireGolden(t *testing.T, name, got string) {
	t.Helper()
	golden := filepath.Join("testdata", name+".out")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "if it is right, run go test ./cmd/isthmus -update")
}

func TestPlanTells(t *testing.T) {
	for name, test := range map[string]struct {
		args string
		code int
	}{
		"lose-service":  {"plan --lose eks/sample/helloworld", exitConcerns},
		"lose-cluster":  {"plan --lose eks", exitConcerns},
		"drain":         {"plan --drain gke", 0},
		"drain-service": {"plan --drain gke/sample/helloworld -o yaml", 0},
		"file":          {"plan -f testdata/all-gke.yaml -o json", 0},
		"elsewhere":     {"plan --lose eks -n elsewhere", 0},
		"one-route":     {"plan --drain eks --force --route sample/helloworld", exitConcerns},
	} {
		t.Run(name, func(t *testing.T) {
			got, code, message := run(hubInMemory(t, interceptor.Funcs{}), strings.Fields(test.args)...)
			require.Empty(t, message)
			require.Equal(t, test.code, code, got)
			requireGolden(t, name, got)
		})
	}
}

func TestPlanSaysWhatIsWrong(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"plan":                              {exitUsage, "say what is supposed"},
		"plan eks":                          {exitUsage, "is no flag"},
		"plan --loose eks":                  {exitUsage, "unknown flag: --loose"},
		"plan --lose eks -o xml":            {exitUsage, "use table, json or yaml"},
		"plan --lose eks --force":           {exitUsage, "--force belongs to --drain"},
		"plan --lose eks --route r":         {exitUsage, "give NAMESPACE/NAME"},
		"plan --lose eks --route a/r -n b":  {exitUsage, "give one of the two"},
		"plan --lose eks --max-suspected 0": {exitUsage, "from 1 to 100"},
		"plan --lose eks/helloworld":        {exitUsage, "neither CLUSTER nor CLUSTER/NAMESPACE/SERVICE"},
		"plan --lose aks":                   {exitFailed, "there is no MemberCluster aks: the hub has eks, gke"},
		"plan --drain eks/sample/hello":     {exitFailed, "no cluster exports sample/hello: eks exports sample/helloworld"},
		"plan --drain eks/sample/echo":      {exitFailed, "eks does not export sample/echo: gke does"},
		"plan -f testdata/none.yaml":        {exitFailed, "no such file"},
		"plan -f testdata/hub.yaml":         {exitFailed, "a plan can tell of objects with a name and one of these kinds"},
		"promote":                           {exitUsage, `there is no command "promote"`},
	} {
		t.Run(args, func(t *testing.T) {
			out, code, message := run(hubInMemory(t, interceptor.Funcs{}), strings.Fields(args)...)
			require.Contains(t, message, want.said)
			require.Equal(t, want.code, code)
			require.Empty(t, out)
		})
	}
}

func TestPlanSaysWhyTheHubCannotBeRead(t *testing.T) {
	resource := schema.GroupResource{Group: "isthmus.dev", Resource: "memberclusters"}
	for said, err := range map[string]error{
		"you may not read the MemberClusters of the hub":           apierrors.NewForbidden(resource, "", errors.New("no")),
		"does not accept your credentials":                         apierrors.NewUnauthorized("no"),
		"has no MemberClusters: is it the hub?":                    &meta.NoKindMatchError{},
		"did not answer in time":                                   context.DeadlineExceeded,
		"cannot be reached: connection refused; the members serve": &url.Error{Op: "Get", URL: "https://hub", Err: errors.New("connection refused")},
	} {
		connect := hubInMemory(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if strings.Contains(list.GetObjectKind().GroupVersionKind().Kind+typeName(list), "MemberCluster") {
				return err
			}
			return c.List(ctx, list, opts...)
		}})
		_, code, message := run(connect, "plan", "--lose", "eks")
		require.Contains(t, message, said)
		require.Equal(t, exitFailed, code)
	}
}

func typeName(o runtime.Object) string {
	kinds, _, _ := newScheme().ObjectKinds(o)
	return kinds[0].Kind
}

// TestAFileThatNobodyMayApply is believed as it is written, and that is said.
func TestAFileThatNobodyMayApply(t *testing.T) {
	forbid := interceptor.Funcs{Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
		return apierrors.NewForbidden(schema.GroupResource{}, "split", errors.New("no"))
	}}
	out, code, message := run(hubInMemory(t, forbid), "plan", "-f", "testdata/all-gke.yaml")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	require.Contains(t, out, "TrafficDistributionPolicy sample/split is taken as written")
	require.Contains(t, out, "20.00%   100.00%")
}

// TestPlanSaysWhatIsUnderway: eks has just come back, and gke still has all of it.
func TestPlanSaysWhatIsUnderway(t *testing.T) {
	out, code, message := run(hubInMemory(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		err := c.List(ctx, list, opts...)
		if plans, ok := list.(*v1alpha1.RoutePlanList); ok {
			for i := range plans.Items {
				backends := plans.Items[i].Status.Rules[0].Backends
				backends[0].Weight, backends[1].Weight, backends[0].Reason = 0, 10000, v1alpha1.WeightHolding
				backends[0].Health = &v1alpha1.BackendHealth{Phase: v1alpha1.HealthHolding, Well: &metav1.MicroTime{}}
			}
		}
		return err
	}}), "plan", "--drain", "gke")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	require.Contains(t, out, "on their way to what is shown as now, which is where they come to rest by themselves: sample/helloworld")
	require.Contains(t, out, "80.00%   100.00%", "as it is once eks is back")
}

func TestNothingIsSentThatTheCommandMayNot(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.RequestURI())
	}))
	defer server.Close()
	send := func(may rights, requests ...string) []string {
		seen = nil
		c := http.Client{Transport: guarded{http.DefaultTransport, may}}
		for _, request := range requests {
			method, path, _ := strings.Cut(request, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
			require.NoError(t, err)
			if resp, err := c.Do(req); err == nil {
				require.NoError(t, resp.Body.Close())
			} else {
				require.ErrorContains(t, err, "this command does not change that")
			}
		}
		return seen
	}
	one := overridesPath + "/drain-eks"
	always := []string{"GET /a", "HEAD /a", "PATCH /a?dryRun=All", "POST " + whoAmI}
	overrides := []string{"POST " + overridesPath, "PUT " + one, "DELETE " + one, "DELETE /proxy" + one}
	never := []string{"POST /a", "PUT /a", "PATCH /a?dryRun=", "DELETE /a", "PATCH /a?dryRun=All&dryRun=x", "PUT " + one + "/status", "DELETE " + one + "/",
		"POST /apis/isthmus.dev/v1alpha1/trafficoverridesx", "DELETE " + whoAmI}
	rollout := "/apis/isthmus.dev/v1alpha1/namespaces/shop/trafficrollouts/v2"
	rollouts := []string{"PATCH " + rollout}
	never = append(never, "DELETE "+rollout, "PUT "+rollout, "PATCH "+rollout+"/status", "PATCH /apis/isthmus.dev/v1alpha1/namespaces/shop/trafficrollouts/")
	require.Equal(t, slices.Concat(always, rollouts), send(mayRollout, slices.Concat(always, overrides, rollouts, never)...))
	require.Equal(t, always, send(mayOverride, slices.Concat(always, rollouts, never)...))
	require.Equal(t, always, send(mayRead, slices.Concat(always, overrides, never)...))
	require.Equal(t, slices.Concat(always, overrides), send(mayOverride, slices.Concat(always, overrides, never)...))
}
