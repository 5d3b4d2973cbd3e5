// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// hubOf is the hub that a connection leads to, to look into and to prepare it.
func hubOf(t *testing.T, connect connection) *hub {
	t.Helper()
	h, err := connect(&access{}, mayOverride)
	require.NoError(t, err)
	return h
}

// there are the overrides of a hub by name.
func there(t *testing.T, connect connection) map[string]v1alpha1.TrafficOverrideSpec {
	t.Helper()
	var list v1alpha1.TrafficOverrideList
	require.NoError(t, hubOf(t, connect).List(t.Context(), &list))
	out := map[string]v1alpha1.TrafficOverrideSpec{}
	for _, o := range list.Items {
		out[o.Name] = o.Spec
	}
	return out
}

// TestWordsAreSaidAndEnded: each verb makes its override, says the same but once, and its counterpart takes it away.
func TestWordsAreSaidAndEnded(t *testing.T) {
	ref := []v1alpha1.ObjectReference{{Namespace: "sample", Name: "helloworld"}}
	for _, test := range []struct {
		say, end, name, said, ended, again string
		spec                               v1alpha1.TrafficOverrideSpec
	}{
		{"drain eks --grace 1m --force", "undrain eks", "drain-eks", "eks is being drained by TrafficOverride drain-eks (alice@example.com: why)",
			"Ended: TrafficOverride drain-eks", "There is no drain of eks",
			v1alpha1.TrafficOverrideSpec{Type: "Drain", Cluster: "eks", Force: true, GracePeriod: &metav1.Duration{Duration: time.Minute}}},
		{"drain eks/sample/helloworld", "undrain eks/sample/helloworld", "drain-eks.sample.helloworld", "sample/helloworld in eks is being drained",
			"Ended", "There is no drain of sample/helloworld in eks", v1alpha1.TrafficOverrideSpec{Type: "Drain", Cluster: "eks", Imports: ref}},
		{"freeze", "unfreeze", "freeze", "everything is frozen", "Ended", "There is no freeze of everything", v1alpha1.TrafficOverrideSpec{Type: "Freeze"}},
		{"hold sample/helloworld", "release -n sample helloworld", "hold-sample.helloworld", "HTTPRoute sample/helloworld is held", "Ended",
			"There is no hold of HTTPRoute sample/helloworld", v1alpha1.TrafficOverrideSpec{Type: "Hold", Routes: ref}},
	} {
		t.Run(test.say, func(t *testing.T) {
			connect := hubInMemory(t, interceptor.Funcs{})
			say := append(strings.Fields(test.say), "--reason", " why ", "--for", "2h")
			out, code, message := run(connect, say...)
			require.Empty(t, message)
			require.Equal(t, 0, code)
			require.Contains(t, out, test.said)
			require.Contains(t, out, "until 2026-01-01 05:00:00Z (in 120m)")
			want := test.spec
			want.Author, want.Reason, want.Expires = "alice@example.com", "why", there(t, connect)[test.name].Expires
			require.Equal(t, map[string]v1alpha1.TrafficOverrideSpec{test.name: want}, there(t, connect))
			require.True(t, want.Expires.Equal(&metav1.Time{Time: threeInTheMorning.Add(2 * time.Hour)}))

			out, code, message = run(connect, say...)
			require.Empty(t, message)
			require.Equal(t, 0, code)
			require.Contains(t, out, "already, by TrafficOverride "+test.name+" (alice@example.com: why)")
			require.Contains(t, out, "Nothing was changed; to end it: isthmus ")

			_, code, message = run(connect, append(say, "--for", "3h")...)
			require.Equal(t, exitFailed, code)
			require.Contains(t, message, "say it with --replace")
			out, code, message = run(connect, append(say, "--for", "3h", "--replace")...)
			require.Empty(t, message)
			require.Equal(t, 0, code)
			require.Contains(t, out, "until 2026-01-01 06:00:00Z")
			require.Len(t, there(t, connect), 1)

			before := there(t, connect)
			_, _, message = run(connect, append(strings.Fields(test.end), "--dry-run")...)
			require.Empty(t, message)
			require.Equal(t, before, there(t, connect), "tried only")
			for _, said := range []string{test.ended, test.again} {
				out, code, message = run(connect, strings.Fields(test.end)...)
				require.Empty(t, message)
				require.Equal(t, 0, code)
				require.Contains(t, out, said)
				require.Empty(t, there(t, connect))
			}
		})
	}
}

// TestAnExpiredWordGivesWay to the same said again, and can be cleared away.
func TestAnExpiredWordGivesWay(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{}, "testdata/night.yaml")
	out, code, message := run(connect, "freeze", "--reason", "again")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	require.Contains(t, out, "until it is ended")
	require.Equal(t, v1alpha1.TrafficOverrideSpec{Type: "Freeze", Author: "alice@example.com", Reason: "again"}, there(t, connect)["freeze"])
	out, _, _ = run(connect, "overrides")
	require.NotContains(t, out, "8d ago", "it is said now, and not when the other was")

	connect = hubInMemory(t, interceptor.Funcs{}, "testdata/night.yaml")
	out, code, message = run(connect, "unfreeze")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	require.Contains(t, out, "TrafficOverride freeze (carol@example.com: holidays) had ended by itself 5d3h ago, and is deleted")
}

// TestAFailbackIsSaidAnew, since it counts from when it was created, and is left to expire.
func TestAFailbackIsSaidAnew(t *testing.T) {
	var deleted []string
	connect := hubInMemory(t, interceptor.Funcs{Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
		deleted = append(deleted, o.GetName())
		return c.Delete(ctx, o, opts...)
	}})
	for range 2 {
		out, code, message := run(connect, "failback", "eks")
		require.Empty(t, message)
		require.Equal(t, 0, code)
		require.Contains(t, out, "eks may return by TrafficOverride failback-eks (alice@example.com: it may return), until 2026-01-01 04:00:00Z")
	}
	require.Equal(t, []string{"failback-eks"}, deleted)
	require.Len(t, there(t, connect), 1)
}

// TestAWordSaidOtherwiseIsLeftAlone: upgrade-gke was applied by other means.
func TestAWordSaidOtherwiseIsLeftAlone(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{}, "testdata/night.yaml")
	before := there(t, connect)
	for _, test := range []struct {
		args string
		code int
		said string
	}{
		{"drain gke --reason x --for 1h", 0, "already, by TrafficOverride upgrade-gke (bob@example.com: Kubernetes 1.37), until 2026-01-01 05:30:00Z (in 150m). " +
			"Nothing was changed; to end it: kubectl delete trafficoverride upgrade-gke"},
		{"drain gke --reason x --for 1h --force --replace", exitFailed, "change it there: kubectl edit trafficoverride upgrade-gke"},
		{"undrain gke", exitConcerns, "gke still is being drained, by TrafficOverride upgrade-gke"},
		{"undrain gke/sample/echo", exitConcerns, "sample/echo in gke still is being drained, by TrafficOverride upgrade-gke"},
	} {
		out, code, message := run(connect, strings.Fields(test.args)...)
		require.Contains(t, out+message, test.said)
		require.Equal(t, test.code, code)
		require.Equal(t, before, there(t, connect))
	}
	wrong := &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: "drain-eks"}, Spec: v1alpha1.TrafficOverrideSpec{Type: "Freeze", Author: "dave", Reason: "joke",
		Expires: &metav1.Time{Time: threeInTheMorning}}}
	require.NoError(t, hubOf(t, connect).Create(t.Context(), wrong))
	_, code, message := run(connect, "drain", "eks", "--reason", "x")
	require.Equal(t, exitFailed, code)
	require.Contains(t, message, "TrafficOverride drain-eks is there and says something else (dave: joke), a Freeze of everything")
}

// TestADryRunTellsWhatPlanDoes and leaves nothing behind.
func TestADryRunTellsWhatPlanDoes(t *testing.T) {
	connect := hubInMemory(t, interceptor.Funcs{})
	planned, _, _ := run(connect, "plan", "--drain", "gke")
	out, code, message := run(connect, "drain", "gke", "--reason", "x", "--dry-run")
	require.Empty(t, message)
	require.Equal(t, 0, code)
	_, planned, _ = strings.Cut(planned, "\n")
	supposed, told, _ := strings.Cut(out, "\n")
	require.Equal(t, "Supposed: gke is being drained. Nothing was changed.", supposed)
	same := func(s string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(s, "(this plan)", "drain-gke")), " ")
	}
	require.Contains(t, told, "drained by TrafficOverride drain-gke")
	require.Equal(t, same(planned), same(told))
	require.Empty(t, there(t, connect))

	forbid := func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
		if review, asked := o.(*authenticationv1.SelfSubjectReview); asked {
			review.Status.UserInfo.Username = "bob"
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{Resource: "trafficoverrides"}, o.GetName(), errors.New("no"))
	}
	connect = hubInMemory(t, interceptor.Funcs{Create: forbid})
	out, _, message = run(connect, "drain", "gke", "--reason", "x", "--dry-run")
	require.Empty(t, message)
	require.Contains(t, out, "you may not create a TrafficOverride")
	_, code, message = run(connect, "drain", "gke", "--reason", "x")
	require.Equal(t, exitFailed, code)
	require.Contains(t, message, "you may not create TrafficOverride drain-gke in the hub: ask for the rights")
}

func TestSayingSaysWhatIsWrong(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"drain --reason x":                       {exitUsage, "say what to drain: one CLUSTER[/NAMESPACE/SERVICE]"},
		"drain eks gke --reason x":               {exitUsage, "say what to drain"},
		"drain eks":                              {exitUsage, "say why by --reason"},
		"drain eks --reason x --for 0s":          {exitUsage, "give a second or more"},
		"drain eks --reason x --for=-1h":         {exitUsage, "give a second or more"},
		"drain eks --reason x --grace 25h":       {exitUsage, "give 0s to 24h"},
		"drain eks --reason x --wait --dry-run":  {exitUsage, "nothing to --wait for"},
		"drain eks --reason x --wait --grace 5m": {exitUsage, "wait longer"},
		"drain eks/helloworld --reason x":        {exitUsage, "neither CLUSTER nor CLUSTER/NAMESPACE/SERVICE"},
		"drain aks --reason x":                   {exitFailed, "there is no MemberCluster aks: the hub has eks, gke"},
		"drain eks/sample/echo --reason x":       {exitFailed, "eks does not export sample/echo: gke does"},
		"undrain aks":                            {exitFailed, "there is no MemberCluster aks"},
		"undrain":                                {exitUsage, "say what to undrain"},
		"freeze eks --reason x":                  {exitUsage, "freeze takes nothing"},
		"freeze --reason x --force":              {exitUsage, "unknown flag: --force"},
		"hold helloworld --reason x":             {exitUsage, "is not NAMESPACE/ROUTE"},
		"hold sample/hello --reason x":           {exitFailed, "namespace sample has helloworld"},
		"release sample/hello":                   {exitFailed, "there is no HTTPRoute sample/hello"},
		"failback aks":                           {exitFailed, "there is no MemberCluster aks"},
		"failback eks --replace":                 {exitUsage, "unknown flag: --replace"},
	} {
		connect := hubInMemory(t, interceptor.Funcs{})
		_, code, message := run(connect, strings.Fields(args)...)
		require.Contains(t, message, want.said)
		require.Equal(t, want.code, code, args)
		require.Empty(t, there(t, connect))
	}
}

// TestTheAuthorIsWhoTheAPIServerKnows, else the kubeconfig's user, and never nobody.
func TestTheAuthorIsWhoTheAPIServerKnows(t *testing.T) {
	silent := func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "selfsubjectreviews"}, "")
	}
	broken := func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return context.DeadlineExceeded
	}
	for _, test := range []struct {
		create     func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error
		user       string
		author, no string
	}{
		{knows("alice@example.com"), "admin", "alice@example.com", ""},
		{silent, "admin", "admin", ""},
		{knows(""), "admin", "admin", ""},
		{silent, "", "", "use a kubeconfig with a named user"},
		{broken, "admin", "", "did not answer in time"},
	} {
		h := hubOf(t, hubInMemory(t, interceptor.Funcs{Create: test.create}))
		h.user = test.user
		author, err := h.author(t.Context())
		require.Equal(t, test.author, author)
		if test.no != "" {
			require.ErrorContains(t, err, test.no)
		}
	}
}

func TestTheUserIsThatOfTheChosenContext(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	require.NoError(t, clientcmd.WriteToFile(clientcmdapi.Config{CurrentContext: "hub",
		Clusters:  map[string]*clientcmdapi.Cluster{"hub": {Server: "https://hub"}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"alice": {Token: "a"}, "admin": {Token: "b"}},
		Contexts:  map[string]*clientcmdapi.Context{"hub": {Cluster: "hub", AuthInfo: "alice"}, "other": {Cluster: "hub", AuthInfo: "admin"}}}, kubeconfig))
	for chosen, user := range map[string]string{"": "alice", "other": "admin"} {
		h, err := (&access{kubeconfig: kubeconfig, context: chosen}).connect(mayOverride)
		require.NoError(t, err)
		require.Equal(t, user, h.user)
	}
}

func TestOverrideNamesAreValidAndTellApart(t *testing.T) {
	long := strings.Repeat("a", 250)
	hold := func(name string) string {
		return overrideName(v1alpha1.TrafficOverrideSpec{Type: "Hold", Routes: []v1alpha1.ObjectReference{{Namespace: "shop", Name: name}}})
	}
	require.Equal(t, "hold-shop.cart.v2", hold("cart.v2"))
	require.LessOrEqual(t, len(hold(long)), 253)
	require.NotEqual(t, hold(long), hold(long+"b"))
}

// TestWaitingForADrain says each step once, and does not wait for what will not come.
func TestWaitingForADrain(t *testing.T) {
	condition := func(kind, status, reason, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: message}
	}
	inForce := condition("InForce", "True", "InForce", "in force")
	var steps []func(*v1alpha1.TrafficOverride) error
	has := func(conditions ...metav1.Condition) func(*v1alpha1.TrafficOverride) error {
		return func(o *v1alpha1.TrafficOverride) error {
			o.Status.Conditions = conditions
			return nil
		}
	}
	fails := func(err error) func(*v1alpha1.TrafficOverride) error {
		return func(*v1alpha1.TrafficOverride) error { return err }
	}
	connect := hubInMemory(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		err := c.Get(ctx, key, o, opts...)
		if drain, asked := o.(*v1alpha1.TrafficOverride); asked && err == nil && len(steps) > 0 {
			step := steps[0]
			if len(steps) > 1 {
				steps = steps[1:]
			}
			return step(drain)
		}
		return err
	}})
	draining := has(inForce, condition("Drained", "False", "Draining", "eks is still sent requests by HTTPRoute sample/helloworld in gke"))
	drain := []string{"drain", "eks", "--reason", "x", "--grace", "0s", "--wait", "--timeout", "1m"}

	steps = []func(*v1alpha1.TrafficOverride) error{has(), fails(context.DeadlineExceeded), draining, draining,
		has(inForce, condition("Drained", "True", "Drained", "nothing is sent to eks"))}
	out, code, message := run(connect, drain...)
	require.Empty(t, message)
	require.Equal(t, 0, code)
	_, told, _ := strings.Cut(out, "isthmus overrides; to end it: isthmus undrain eks\n")
	require.Equal(t, "waiting for the hub's controller to look at it\n"+
		"the hub (https://hub) did not answer in time: try again, give it longer by --request-timeout, or name another --context; trying again\n"+
		"Draining: eks is still sent requests by HTTPRoute sample/helloworld in gke\n"+
		"Drained: nothing is sent to eks\n", told)

	for said, step := range map[string]func(*v1alpha1.TrafficOverride) error{
		"is not in force (Conflicted): TrafficOverride freeze freezes everything": has(
			condition("InForce", "False", "Conflicted", "TrafficOverride freeze freezes everything"), condition("Drained", "False", "NotInForce", "")),
		"was deleted while it was waited for": fails(apierrors.NewNotFound(schema.GroupResource{Resource: "trafficoverrides"}, "drain-eks")),
	} {
		steps = []func(*v1alpha1.TrafficOverride) error{step}
		_, code, message = run(connect, drain...)
		require.Equal(t, exitFailed, code)
		require.Contains(t, message, said)
	}
	steps = []func(*v1alpha1.TrafficOverride) error{draining}
	out, code, message = run(connect, append(drain, "--timeout", "1ms")...)
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, message, "TrafficOverride drain-eks is not Drained yet, and stays in force")
}
