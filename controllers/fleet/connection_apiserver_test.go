// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package fleet

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// behind gives a member whose API server is reached by a link that can fail.
func behind(t *testing.T, config *rest.Config) (*link, *rest.Config) {
	t.Helper()
	server, err := url.Parse("https://" + strings.TrimPrefix(config.Host, "https://"))
	require.NoError(t, err)
	l := newLink(t, server.Host)
	linked := rest.CopyConfig(config)
	linked.Host = "https://" + l.address
	return l, linked
}

func (s *story) service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: s.meta(name), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func TestALostMemberKeepsItsCachesAndItsWishes(t *testing.T) {
	for name, fail := range map[string]func(*link){"cut off": (*link).Cut, "black-holed": (*link).Stall} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, func(o *Options) { o.ProbeTimeout = 200 * time.Millisecond })
			l, config := behind(t, s.config)
			m := s.joinSynced("eks", config)
			other := s.joinSynced("gke", s.config)
			service := s.service("known")
			require.NoError(t, s.admin.Create(t.Context(), service))
			known := client.ObjectKeyFromObject(service)
			eventually(t, func() bool { return m.Reader().Get(t.Context(), known, service) == nil }, func() any { return m.State() })

			fail(l)
			eventually(t, func() bool { return m.State().Phase == Lost }, func() any { return m.State() })
			require.Equal(t, v1alpha1.ReasonUnreachable, m.State().Reason)
			require.NoError(t, m.Reader().Get(t.Context(), known, service), "the last known contents")
			m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
			require.ErrorIs(t, m.Outcome(s.owner), ErrPending)
			start := time.Now()
			elsewhere := s.owner
			s.owner.Name = "elsewhere"
			other.Submit(s.wish(s.entry("elsewhere", "b.gke")))
			written(t, other, s.owner)
			require.Less(t, time.Since(start), 5*time.Second, "another member's write")
			s.owner = elsewhere
			require.ErrorIs(t, m.Outcome(s.owner), ErrPending)
			events := s.eventsOf("known")
			require.NoError(t, s.admin.Delete(t.Context(), s.service("known")))

			l.Heal()
			written(t, m, s.owner)
			require.Equal(t, Connected, m.State().Phase)
			eventually(t, func() bool { return m.Reader().Get(t.Context(), known, service) != nil }, func() any { return m.State() })
			eventually(t, func() bool { return s.eventsOf("known") > events }, func() any { return s.eventsOf("known") })
		})
	}
}

// A rotated credential is a new connection, of which nobody hears.
func TestARotatedCredentialChangesNothingElse(t *testing.T) {
	s := newStory(t)
	l, config := behind(t, s.config)
	service := s.service("known")
	require.NoError(t, s.admin.Create(t.Context(), service))
	m := s.joinSynced("eks", config)
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
	written(t, m, s.owner)
	eventually(t, func() bool { return s.eventsOf("known") > 0 && s.eventsOf("cart-gke") > 0 }, func() any { return nil })
	heard, first, since := s.eventsOf("known"), s.client("eks"), m.State().Since

	l.Cut() // the old credentials, and with them what they are used for, are of no use any more
	require.NoError(t, s.Ensure("eks", kubeconfigFor(t, s.config)))
	require.NoError(t, m.Reader().Get(t.Context(), client.ObjectKeyFromObject(service), service))
	require.True(t, m.State().Synced)
	require.NotSame(t, first, s.client("eks"))
	require.NoError(t, s.admin.Create(t.Context(), s.service("after")))
	eventually(t, func() bool { return s.eventsOf("after") > 0 }, func() any { return m.State() })
	require.Equal(t, heard, s.eventsOf("known"), "no event for what did not change")
	require.Equal(t, since, m.State().Since)
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
	written(t, m, s.owner)
	require.Empty(t, s.client("eks").Writes())
}

func TestARevokedCredentialIsSaidAndARotatedOneHeals(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	broken := &rest.Config{Host: s.config.Host, BearerToken: "revoked", TLSClientConfig: rest.TLSClientConfig{CAData: s.config.CAData}}
	require.NoError(t, s.Ensure("eks", kubeconfigFor(t, broken)))
	eventually(t, func() bool { return m.State().Phase == Lost }, func() any { return m.State() })
	require.Equal(t, v1alpha1.ReasonUnauthorized, m.State().Reason)
	require.True(t, m.State().Synced)
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
	require.NoError(t, s.Ensure("eks", kubeconfigFor(t, s.config)))
	written(t, m, s.owner)
}

// Nothing is deleted on behalf of a member that has not been read in whole.
func TestNothingIsDeletedBeforeAllIsRead(t *testing.T) {
	s := newStory(t)
	limited := s.accountThatMay(t,
		rbacv1.PolicyRule{APIGroups: []string{"networking.istio.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces", "services"}, Verbs: []string{"*"}})
	old := s.entry("old", "old.gke")
	require.NoError(t, s.admin.Create(t.Context(), old))
	m := s.join("eks", limited)
	eventually(t, func() bool {
		return strings.Contains(m.State().Message, "HTTPRoute.gateway.networking.k8s.io (forbidden")
	}, func() any { return m.State() })
	require.Equal(t, Connected, m.State().Phase)
	require.False(t, m.State().Synced)
	m.Submit(Desired{Owner: s.owner, Objects: []client.Object{s.entry("new", "new.gke")}, Prune: allPruned[1:]})
	eventually(t, func() bool {
		err := m.Outcome(s.owner)
		return s.get(s.entry("new", "")) == nil && err != nil && strings.Contains(err.Error(), "before anything is deleted")
	}, func() any { return m.Outcome(s.owner) })
	require.ErrorIs(t, m.Outcome(s.owner), ErrPending)
	require.NoError(t, s.get(old))

	s.allow(t, rbacv1.PolicyRule{APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}})
	written(t, m, s.owner)
	require.Error(t, s.get(old))
}

// accountThatMay makes an account in the member, and a config with its token.
func (s *story) accountThatMay(t *testing.T, rules ...rbacv1.PolicyRule) *rest.Config {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "limited"}}
	require.NoError(t, s.admin.Create(t.Context(), account))
	s.allow(t, rules...)
	token := &authenticationv1.TokenRequest{}
	require.NoError(t, s.admin.SubResource("token").Create(t.Context(), account, token))
	return &rest.Config{Host: s.config.Host, BearerToken: token.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: s.config.CAData}}
}

func (s *story) allow(t *testing.T, rules ...rbacv1.PolicyRule) {
	t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "limited-"}, Rules: rules}
	require.NoError(t, s.admin.Create(t.Context(), role))
	require.NoError(t, s.admin.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.ns, Name: "limited"}},
	}))
}

// A reconciler that submits on each outcome has to come to rest.
func TestSubmittingOnEachOutcomeComesToRest(t *testing.T) {
	var f *story
	submitted := make(chan struct{}, 1000)
	f = newStory(t, func(o *Options) {
		inner := o.Handlers.Outcome
		o.Handlers.Outcome = func(member string, owner federation.Owner) {
			inner(member, owner)
			if m, ok := f.Member(member); ok {
				m.Submit(f.wish(f.entry("cart-gke", "cart.gke")))
				submitted <- struct{}{}
			}
		}
	})
	m := f.joinSynced("eks", f.config)
	m.Submit(f.wish(f.entry("cart-gke", "cart.gke")))
	written(t, m, f.owner)
	<-submitted
	f.owner.Name = "last" // goes through the same queue, after what the handler submitted
	require.NoError(t, f.admin.Create(t.Context(), f.service("marker")))
	eventually(t, func() bool { return f.eventsOf("marker") > 0 }, func() any { return nil })
	require.LessOrEqual(t, len(submitted), 1)
	require.Equal(t, 1, f.writes("eks"))
}
