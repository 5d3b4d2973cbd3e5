// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package fleet

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet/faults"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/apiserver"
)

var (
	serviceEntryKind    = networking.SchemeGroupVersion.WithKind("ServiceEntry")
	destinationRuleKind = networking.SchemeGroupVersion.WithKind("DestinationRule")
	routeKind           = schema.GroupVersion(gatewayv1.GroupVersion).WithKind("HTTPRoute")
	allPruned           = []schema.GroupVersionKind{routeKind, serviceEntryKind, destinationRuleKind}
)

// story is one test's view of a real member: an admin's client, a namespace, and an owner.
type story struct {
	*fixture
	config *rest.Config
	admin  client.Client
	ns     string
	owner  federation.Owner
}

func newStory(t *testing.T, change ...func(*Options)) *story {
	t.Helper()
	config := apiserver.Start(t, 1)[0]
	s := &story{config: config}
	var err error
	s.admin, err = client.New(config, client.Options{Scheme: testScheme(t)})
	require.NoError(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "story-"}}
	require.NoError(t, s.admin.Create(t.Context(), namespace))
	s.ns = namespace.Name
	s.owner = federation.Owner{Noun: "httproute", Namespace: s.ns, Name: "cart"}
	s.fixture = newFixture(t, change...)
	return s
}

func (s *story) meta(name string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Namespace: s.ns, Name: name}
	s.owner.Mark(&meta)
	return meta
}

func (s *story) entry(name, host string) *networking.ServiceEntry {
	e := &networking.ServiceEntry{ObjectMeta: s.meta(name)}
	e.Spec.Hosts = []string{host}
	e.Spec.Resolution = networkingapi.ServiceEntry_STATIC
	e.Spec.Location = networkingapi.ServiceEntry_MESH_INTERNAL
	e.Spec.Ports = []*networkingapi.ServicePort{{Number: 5000, Name: "http", Protocol: "HTTP", TargetPort: 15443}}
	e.Spec.Endpoints = []*networkingapi.WorkloadEntry{{Address: "10.0.0.1", Labels: map[string]string{"isthmus.dev/cluster": "gke"}}}
	return e
}

func (s *story) route(name string, weights ...int32) *gatewayv1.HTTPRoute {
	r := &gatewayv1.HTTPRoute{ObjectMeta: s.meta(name)}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "public"}}
	rule := gatewayv1.HTTPRouteRule{}
	for _, weight := range weights {
		port := gatewayv1.PortNumber(5000)
		rule.BackendRefs = append(rule.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{
			Weight: &weight, BackendObjectReference: gatewayv1.BackendObjectReference{Name: "helloworld", Port: &port},
		}})
	}
	r.Spec.Rules = []gatewayv1.HTTPRouteRule{rule}
	return r
}

func (s *story) wish(objects ...client.Object) Desired {
	return Desired{Owner: s.owner, Objects: objects, Prune: allPruned}
}

func (s *story) get(obj client.Object) error {
	return s.admin.Get(context.Background(), client.ObjectKeyFromObject(obj), obj)
}

func (s *story) writes(member string) int { return len(s.client(member).Writes()) }

func TestAWishIsWrittenOnceAndInWhole(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	wish := s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20))
	m.Submit(wish)
	written(t, m, s.owner)

	route := s.route("cart")
	require.NoError(t, s.get(route))
	require.Equal(t, int32(80), *route.Spec.Rules[0].BackendRefs[0].Weight)
	require.Equal(t, "7", route.Annotations[v1alpha1.AnnotationEpoch])
	require.NotEmpty(t, route.Annotations[v1alpha1.AnnotationPlan])
	require.True(t, federation.IsOurs(route))
	require.Len(t, route.ManagedFields, 1)
	require.Equal(t, v1alpha1.FieldOwner, route.ManagedFields[0].Manager)
	require.Equal(t, metav1.ManagedFieldsOperationApply, route.ManagedFields[0].Operation)
	entry := s.entry("cart-gke", "")
	require.NoError(t, s.get(entry))
	require.Equal(t, []string{"cart.gke"}, entry.Spec.Hosts)
	require.Equal(t, 2, s.writes("eks"))

	for range 50 {
		m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20)))
	}
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 70, 30)))
	written(t, m, s.owner)
	require.Equal(t, 3, s.writes("eks"), "only the route changed")
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20)))
	written(t, m, s.owner)
	require.NoError(t, s.get(route))
	require.Equal(t, int32(80), *route.Spec.Rules[0].BackendRefs[0].Weight, "back again, whatever the cache shows")
}

func TestARestartWithNothingChangedWritesNothing(t *testing.T) {
	s := newStory(t)
	first := s.joinSynced("eks", s.config)
	wish := s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20))
	first.Submit(wish)
	written(t, first, s.owner)

	for name, change := range map[string]func(*Options){
		"a new epoch":       func(o *Options) { o.Epoch = func() int64 { return 8 } },
		"nothing is cached": func(o *Options) { o.Kinds = o.Kinds[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			again := newFixture(t, change)
			m := again.joinSynced("eks", s.config)
			m.Submit(Desired{Owner: wish.Owner, Objects: wish.Objects})
			written(t, m, s.owner)
			require.Empty(t, again.client("eks").Writes())
		})
	}
}

func TestWhatOthersChangeIsHealed(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20)))
	written(t, m, s.owner)

	t.Run("an edit", func(t *testing.T) {
		route := s.route("cart")
		require.NoError(t, s.get(route))
		*route.Spec.Rules[0].BackendRefs[0].Weight = 1
		require.NoError(t, s.admin.Update(t.Context(), route))
		eventually(t, func() bool {
			return s.get(route) == nil && *route.Spec.Rules[0].BackendRefs[0].Weight == 80
		}, func() any { return route.Spec })
	})
	t.Run("a deletion", func(t *testing.T) {
		require.NoError(t, s.admin.Delete(t.Context(), s.entry("cart-gke", "")))
		eventually(t, func() bool { return s.get(s.entry("cart-gke", "")) == nil }, func() any { return m.Outcome(s.owner) })
	})
	t.Run("an added label stays", func(t *testing.T) {
		const before = 4 // two to begin with, and one for each healing
		eventually(t, func() bool { return s.writes("eks") == before }, func() any { return s.client("eks").Writes() })
		route := s.route("cart")
		require.NoError(t, s.get(route))
		route.Labels["team"] = "shop"
		require.NoError(t, s.admin.Update(t.Context(), route))
		cached := s.route("cart")
		eventually(t, func() bool {
			return m.Reader().Get(t.Context(), client.ObjectKeyFromObject(route), cached) == nil && cached.Labels["team"] == "shop"
		}, func() any { return cached.Labels })
		m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20)))
		written(t, m, s.owner)
		require.Equal(t, before, s.writes("eks"))
	})
	require.NoError(t, m.Outcome(s.owner))
}

// A server-side apply leaves what others added, and the spec of what we write is ours as a whole.
func TestWhatOthersAddToASpecIsTakenOut(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 80, 20)))
	written(t, m, s.owner)
	for name, add := range map[string]func(*gatewayv1.HTTPRouteSpec){
		"host names that were added": func(spec *gatewayv1.HTTPRouteSpec) { spec.Hostnames = []gatewayv1.Hostname{"theirs.example.com"} },
		"a rule that was added":      func(spec *gatewayv1.HTTPRouteSpec) { spec.Rules = append(spec.Rules, spec.Rules[0]) },
		"a match that was added": func(spec *gatewayv1.HTTPRouteSpec) {
			spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Headers: []gatewayv1.HTTPHeaderMatch{{Name: "a", Value: "b"}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			route := s.route("cart")
			require.NoError(t, s.get(route))
			before := route.DeepCopy()
			add(&route.Spec)
			require.NoError(t, s.admin.Update(t.Context(), route, client.FieldOwner("users-tool")))
			eventually(t, func() bool { return s.get(route) == nil && reflect.DeepEqual(route.Spec, before.Spec) },
				func() any { return route.Spec })
			require.False(t, addedTo(route))
		})
	}
	t.Run("a port that was added to a list with keys", func(t *testing.T) {
		entry := s.entry("cart-gke", "")
		require.NoError(t, s.get(entry))
		entry.Spec.Ports = append(entry.Spec.Ports, &networkingapi.ServicePort{Number: 1, Name: "theirs", Protocol: "TCP"})
		require.NoError(t, s.admin.Update(t.Context(), entry, client.FieldOwner("users-tool")))
		eventually(t, func() bool { return s.get(entry) == nil && len(entry.Spec.Ports) == 1 }, func() any { return entry.Spec.Ports })
	})
}

func TestWhatIsNoLongerWishedIsDeletedAfterTheRestWasWritten(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	m.Submit(s.wish(s.entry("old", "old.gke"), s.route("cart", 80, 20)))
	written(t, m, s.owner)
	other := s.entry("other", "other.gke")
	federation.Owner{Noun: "service", Name: "other"}.Mark(&other.ObjectMeta)
	require.NoError(t, s.admin.Create(t.Context(), other))
	foreign := s.entry("foreign", "foreign.gke")
	foreign.Labels = map[string]string{v1alpha1.LabelOwner: s.owner.Label()}
	require.NoError(t, s.admin.Create(t.Context(), foreign))

	s.client("eks").Forget()
	s.client("eks").Inject(faults.Rule{Verb: faults.Apply, Name: "new", Times: 1, Err: faults.ErrUnavailable})
	m.Submit(s.wish(s.entry("new", "new.gke"), s.route("cart", 80, 20)))
	written(t, m, s.owner)
	var order []string
	for _, call := range s.client("eks").Writes() {
		order = append(order, string(call.Verb)+" "+call.Name)
	}
	require.Equal(t, []string{"apply new", "apply new", "delete old"}, order)

	m.Submit(s.wish())
	written(t, m, s.owner)
	require.True(t, apierrors.IsNotFound(s.get(s.entry("new", ""))))
	require.True(t, apierrors.IsNotFound(s.get(s.route("cart"))))
	require.NoError(t, s.get(s.entry("other", "")), "another owner's")
	require.NoError(t, s.get(s.entry("foreign", "")), "not ours")
}

func TestFinalizersKeepAWithdrawalPending(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	held := s.route("cart", 1)
	held.Finalizers = []string{"test.isthmus.dev/hold"}
	m.Submit(s.wish(held))
	written(t, m, s.owner)
	m.Submit(s.wish())
	eventually(t, func() bool {
		return s.get(held) == nil && held.DeletionTimestamp != nil && m.Outcome(s.owner) != nil &&
			strings.Contains(m.Outcome(s.owner).Error(), "finalizers")
	}, func() any { return m.Outcome(s.owner) })
	require.ErrorIs(t, m.Outcome(s.owner), ErrPending)
	held.Finalizers = nil
	require.NoError(t, s.admin.Update(t.Context(), held))
	written(t, m, s.owner)
}

func TestForeignObjectsAreNeverTouched(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	for _, tc := range []struct {
		name            string
		theirs, desired client.Object
		says            string
	}{
		{"in a cache of all", unmarked(s.route("all", 1)), s.route("all", 80), "was not written by Isthmus (managed by users-tool)"},
		{"that the selected cache cannot show", unmarked(s.entry("selected", "a.b")), s.entry("selected", "c.d"), "was not written by Isthmus (managed by users-tool)"},
		{"of another owner", marked(s.route("owned", 1), federation.Owner{Noun: "gateway", Namespace: "shop", Name: "web"}), s.route("owned", 80), "belongs to gateway/shop/web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, s.admin.Create(t.Context(), tc.theirs, client.FieldOwner("users-tool")))
			m.Submit(Desired{Owner: s.owner, Objects: []client.Object{tc.desired}})
			var foreign *ForeignError
			eventually(t, func() bool { return asError(m.Outcome(s.owner), &foreign) }, func() any { return m.Outcome(s.owner) })
			require.Contains(t, foreign.Error(), tc.says)
			version := tc.theirs.GetResourceVersion()
			require.NoError(t, s.get(tc.theirs))
			require.Equal(t, version, tc.theirs.GetResourceVersion())
			require.NoError(t, s.admin.Delete(t.Context(), tc.theirs))
			written(t, m, s.owner)
		})
	}
}

func TestAForeignObjectHoldsUpOnlyWhatRestsOnIt(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	m.Submit(s.wish(s.entry("old", "old.gke")))
	written(t, m, s.owner)
	theirs := unmarked(s.entry("theirs", "theirs.gke"))
	require.NoError(t, s.admin.Create(t.Context(), theirs))
	wish := s.wish(s.entry("theirs", "a.gke"), s.entry("rests-on-it", "b.gke"))
	wish.Beside = [][]client.Object{{s.entry("beside", "c.gke")}, {s.entry("far-beside", "d.gke")}}
	m.Submit(wish)
	var foreign *ForeignError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &foreign) }, func() any { return m.Outcome(s.owner) })
	require.Equal(t, "theirs", foreign.Name)
	require.NoError(t, s.get(s.entry("beside", "")))
	require.NoError(t, s.get(s.entry("far-beside", "")))
	require.True(t, apierrors.IsNotFound(s.get(s.entry("rests-on-it", ""))))
	require.NoError(t, s.get(s.entry("old", "")), "nothing is deleted before all that is wished was written")
	require.NoError(t, s.admin.Delete(t.Context(), theirs))
	written(t, m, s.owner)
	require.NoError(t, s.get(s.entry("rests-on-it", "")))
	require.True(t, apierrors.IsNotFound(s.get(s.entry("old", ""))))
}

// Somebody creates an object of that name between our look and our write.
func TestACreationThatLostTheRaceTouchesNothing(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	hold := make(chan struct{})
	s.client("eks").Inject(faults.Rule{Verb: faults.Apply, Name: "raced", Times: 1, Hold: hold})
	m.Submit(s.wish(s.entry("raced", "ours.gke")))
	eventually(t, func() bool { return len(s.client("eks").Calls()) > 0 }, func() any { return s.client("eks").Calls() })
	theirs := unmarked(s.entry("raced", "theirs.gke"))
	require.NoError(t, s.admin.Create(t.Context(), theirs))
	close(hold)
	var foreign *ForeignError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &foreign) }, func() any { return m.Outcome(s.owner) })
	version := theirs.GetResourceVersion()
	require.NoError(t, s.get(theirs))
	require.Equal(t, version, theirs.GetResourceVersion())
}

func TestAMissingNamespaceIsWaitedForAndNotCreated(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	s.ns += "-later"
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
	var missing *NamespaceMissingError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &missing) }, func() any { return m.Outcome(s.owner) })
	require.Equal(t, s.ns, missing.Namespace)
	require.Empty(t, s.client("eks").Writes())
	require.NoError(t, s.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}))
	written(t, m, s.owner)

	t.Run("which is being deleted", func(t *testing.T) { // nothing here finishes the deletion of a namespace
		require.NoError(t, s.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}))
		m.Submit(s.wish(s.entry("cart-gke", "cart.gke"), s.route("cart", 1)))
		eventually(t, func() bool { return asError(m.Outcome(s.owner), &missing) }, func() any { return m.Outcome(s.owner) })
		require.True(t, missing.Terminating)
	})
}

func TestTheAPIServerNamesAMissingNamespaceWhereNamespacesAreNotCached(t *testing.T) {
	s := newStory(t, func(o *Options) { o.Kinds = o.Kinds[1:] })
	m := s.joinSynced("eks", s.config)
	s.ns += "-never"
	m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
	var missing *NamespaceMissingError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &missing) }, func() any { return m.Outcome(s.owner) })
}

func TestAFieldThatTheMembersCRDLacksIsNamed(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	route := s.route("cart", 1)
	route.Spec.Rules[0].Retry = &gatewayv1.HTTPRouteRetry{Codes: []gatewayv1.HTTPRouteRetryStatusCode{503}}
	m.Submit(s.wish(route))
	var unsupported *UnsupportedError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &unsupported) }, func() any { return m.Outcome(s.owner) })
	require.Contains(t, unsupported.Field, "retry")
	require.Contains(t, unsupported.Error(), "member eks: HTTPRoute")
	require.True(t, apierrors.IsNotFound(s.get(s.route("cart"))))
}

func TestARefusalIsSaidOnOneLine(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	m.Submit(s.wish(s.route("cart", -1)))
	var refused *RefusedError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &refused) }, func() any { return m.Outcome(s.owner) })
	require.NotContains(t, refused.Error(), "\n")
	require.Contains(t, refused.Error(), "weight")
}

func TestAMissingKindIsWaitedFor(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	require.Equal(t, []string{"Widget.test.isthmus.dev"}, m.State().Missing)
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(widgetKind)
	meta := s.meta("w")
	widget.SetNamespace(s.ns)
	widget.SetName("w")
	widget.SetLabels(meta.Labels)
	widget.SetAnnotations(meta.Annotations)
	m.Submit(Desired{Owner: s.owner, Objects: []client.Object{widget}, Prune: []schema.GroupVersionKind{widgetKind}})
	var unsupported *UnsupportedError
	eventually(t, func() bool { return asError(m.Outcome(s.owner), &unsupported) }, func() any { return m.Outcome(s.owner) })
	require.Empty(t, unsupported.Field)
	require.Empty(t, s.client("eks").Writes())

	crd := widgetCRD()
	require.NoError(t, apiextensions.AddToScheme(s.admin.Scheme()))
	require.NoError(t, s.admin.Create(t.Context(), crd))
	written(t, m, s.owner)
	require.Empty(t, m.State().Missing)
	require.NoError(t, s.get(widget))
	m.Submit(Desired{Owner: s.owner, Prune: []schema.GroupVersionKind{widgetKind}})
	written(t, m, s.owner)
	require.True(t, apierrors.IsNotFound(s.get(widget)))

	require.NoError(t, s.admin.Delete(t.Context(), crd))
	eventually(t, func() bool { return len(m.State().Missing) == 1 }, func() any { return m.State() })
	require.True(t, m.State().Synced)
}

func widgetCRD() *apiextensions.CustomResourceDefinition {
	preserve := true
	return &apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.test.isthmus.dev"},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: "test.isthmus.dev", Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Kind: "Widget", ListKind: "WidgetList", Plural: "widgets", Singular: "widget"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}
}

func TestFaultsAreRetriedWithoutWritingTwice(t *testing.T) {
	for name, rule := range map[string]faults.Rule{
		"the write landed and its answer was lost": {Verb: faults.Apply, Times: 1, Err: faults.ErrTimeout, AfterWrite: true},
		"the read before was not answered":         {Verb: faults.Get, Times: 2, Err: faults.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			m := s.joinSynced("eks", s.config)
			s.client("eks").Inject(rule)
			m.Submit(s.wish(s.entry("cart-gke", "cart.gke")))
			written(t, m, s.owner)
			require.Equal(t, 1, s.writes("eks"))
		})
	}
	for name, rule := range map[string]faults.Rule{
		"etcd was away":  {Verb: faults.Apply, Times: 3, Err: faults.ErrUnavailable},
		"too late":       {Verb: faults.Apply, Times: 1, Err: faults.ErrConflict},
		"second of four": {Verb: faults.Apply, Skip: 1, Times: 1, Err: faults.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			m := s.joinSynced("eks", s.config)
			s.client("eks").Inject(rule)
			m.Submit(s.wish(s.entry("a", "a.gke"), s.entry("b", "b.gke"), s.entry("c", "c.gke"), s.route("cart", 1)))
			written(t, m, s.owner)
			require.Equal(t, 4+rule.Times, s.writes("eks"))
		})
	}
}

// A queue of its own for each owner: one that hangs holds up a worker, not the member.
func TestOneHangingWriteDelaysNoOther(t *testing.T) {
	s := newStory(t)
	m := s.joinSynced("eks", s.config)
	hold := make(chan struct{})
	defer close(hold)
	s.client("eks").Inject(faults.Rule{Verb: faults.Apply, Name: "hangs", Hold: hold})
	m.Submit(s.wish(s.entry("hangs", "a.gke")))
	s.owner.Name = "other"
	m.Submit(s.wish(s.entry("passes", "b.gke")))
	written(t, m, s.owner)
}

func unmarked[T client.Object](obj T) T {
	obj.SetLabels(nil)
	obj.SetAnnotations(nil)
	return obj
}

func marked(route *gatewayv1.HTTPRoute, owner federation.Owner) *gatewayv1.HTTPRoute {
	owner.Mark(&route.ObjectMeta)
	return route
}
