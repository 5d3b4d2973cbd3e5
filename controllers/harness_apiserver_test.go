// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet"
	"isthmus.dev/isthmus/controllers/fleet/faults"
	"isthmus.dev/isthmus/federation"
	"isthmus.dev/isthmus/test/apiserver"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	apiserver.Main(m)
}

// patience is how long a test waits for what must come; it says nothing of how quick it is.
const patience = 2 * time.Minute

// clusterset is a hub and two members on real API servers, with the controllers running and, in each member, a
// stand-in for istiod that accepts what it sees.
type clusterset struct {
	hub     client.Client
	hubCfg  *rest.Config
	members map[string]*memberCluster
	// ill are the services that probes see ill, as "namespace/cluster".
	ill  sync.Map
	stop func()
}

// memberCluster is one member, behind a proxy that can be cut.
type memberCluster struct {
	client.Client
	name   string
	proxy  *tcpProxy
	faults *atomic.Pointer[faults.Client]
	stop   func()
}

var shared = sync.OnceValues(newClusterset)

// theClusterset is shared by the tests of this package, which work in namespaces of their own.
func theClusterset(t *testing.T) *clusterset {
	t.Helper()
	apiserver.Start(t, 3)
	set, err := shared()
	require.NoError(t, err)
	return set
}

func newClusterset() (*clusterset, error) {
	configs := apiserver.Configs()
	set := &clusterset{hubCfg: configs[0], members: map[string]*memberCluster{}}
	var err error
	if set.hub, err = client.New(configs[0], client.Options{Scheme: NewScheme()}); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := createAll(ctx, set.hub, namespace(systemNamespace), &gatewayv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "isthmus"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName}}); err != nil {
		return nil, err
	}
	for i, name := range []string{"eks", "gke"} {
		if err := set.addMember(ctx, name, configs[i+1]); err != nil {
			return nil, err
		}
	}
	if err := set.start(); err != nil {
		return nil, err
	}
	apiserver.OnStop(func() {
		set.stop()
		for _, m := range set.members {
			m.stop()
		}
	})
	return set, nil
}

func (s *clusterset) addMember(ctx context.Context, name string, cfg *rest.Config) error {
	m := &memberCluster{name: name, faults: &atomic.Pointer[faults.Client]{}}
	var err error
	if m.Client, err = client.New(cfg, client.Options{Scheme: NewScheme()}); err != nil {
		return err
	}
	if m.proxy, err = newTCPProxy(strings.Trim(strings.TrimPrefix(cfg.Host, "https://"), "/")); err != nil {
		return err
	}
	place := map[string][3]string{"eks": {"aws:///us-east-1a/i-1", "us-east-1", "us-east-1a"},
		"gke": {"gce://project/europe-west1-b/node", "europe-west1", "europe-west1-b"}}[name]
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: map[string]string{
		corev1.LabelTopologyRegion: place[1], corev1.LabelTopologyZone: place[2]}}, Spec: corev1.NodeSpec{ProviderID: place[0]}}
	if err := createAll(ctx, m.Client, namespace(systemNamespace), node); err != nil {
		return err
	}
	s.members[name] = m
	if m.stop, err = fakeIstiod(cfg, name); err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: name},
		Data: map[string][]byte{"kubeconfig": kubeconfig(cfg, m.proxy.address())}}
	return createAll(ctx, s.hub, secret, memberObject(name, name))
}

func memberObject(name, secret string) *v1alpha1.MemberCluster {
	return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{
		Kubeconfig: v1alpha1.KubeconfigSource{SecretRef: v1alpha1.SecretKeyRef{Name: secret}}}}
}

// start runs the controllers, as cmd/isthmus-hub does.
func (s *clusterset) start() error {
	skip := true
	mgr, err := ctrl.NewManager(s.hubCfg, ctrl.Options{Scheme: NewScheme(), Cache: HubCache(),
		Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = Setup(ctx, mgr, Options{Registerer: prometheus.NewRegistry(), look: s.look, Fleet: fleet.Options{
		ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 10 * time.Second, Epoch: func() int64 { return 7 },
		WrapClient: func(member string, c client.Client) client.Client {
			wrapped := faults.Wrap(c)
			if m := s.members[member]; m != nil {
				m.faults.Store(wrapped)
			}
			return wrapped
		}}})
	if err != nil {
		cancel()
		return err
	}
	s.stop = run(ctx, cancel, mgr)
	return nil
}

// look is what the gateways answer to probes, of which there are none here.
func (s *clusterset) look(_ context.Context, r lookRequest) federation.Look {
	if _, ill := s.ill.Load(strings.Split(r.Path, "/")[3] + "/" + r.Cluster); ill {
		return federation.Look{Result: federation.LookFailed, Said: "500"}
	}
	return federation.Look{Result: federation.LookOK, Said: "200"}
}

// run starts a manager and returns what ends it and waits for it. Managers outlive the tests, so one that fails
// says so on stderr.
func run(ctx context.Context, cancel context.CancelFunc, mgr ctrl.Manager) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "a manager ended:", err)
		}
	}()
	return func() { cancel(); <-done }
}

// fakeIstiod programs every Gateway and accepts every route of a member, as istiod does in its statuses.
func fakeIstiod(cfg *rest.Config, member string) (func(), error) {
	skip := true
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{Scheme: NewScheme(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skip}})
	if err != nil {
		return nil, err
	}
	f := &istiod{Client: mgr.GetClient(), address: map[string]string{"eks": "192.0.2.1", "gke": "192.0.2.2"}[member]}
	err = errors.Join(
		ctrl.NewControllerManagedBy(mgr).Named("gateways").For(&gatewayv1.Gateway{}).Complete(reconcileFunc(f.gateway)),
		ctrl.NewControllerManagedBy(mgr).Named("routes").For(&gatewayv1.HTTPRoute{}).Complete(reconcileFunc(f.route)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return run(ctx, cancel, mgr), nil
}

type reconcileFunc func(context.Context, ctrl.Request) error

func (f reconcileFunc) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	return ctrl.Result{}, f(ctx, r)
}

type istiod struct {
	client.Client
	address string
}

func (f *istiod) gateway(ctx context.Context, r ctrl.Request) error {
	var g gatewayv1.Gateway
	if err := f.Get(ctx, r.NamespacedName, &g); err != nil {
		return client.IgnoreNotFound(err)
	}
	kind := gatewayv1.IPAddressType
	changed := g.DeepCopy()
	changed.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &kind, Value: f.address}}
	changed.Status.Conditions = mergeConditions(g.Status.Conditions,
		metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", ObservedGeneration: g.Generation},
		metav1.Condition{Type: "Programmed", Status: metav1.ConditionTrue, Reason: "Programmed", ObservedGeneration: g.Generation})
	return patchStatus(ctx, f.Client, &g, changed)
}

func (f *istiod) route(ctx context.Context, r ctrl.Request) error {
	var route gatewayv1.HTTPRoute
	if err := f.Get(ctx, r.NamespacedName, &route); err != nil {
		return client.IgnoreNotFound(err)
	}
	changed := route.DeepCopy()
	var have []metav1.Condition
	if len(route.Status.Parents) > 0 {
		have = route.Status.Parents[0].Conditions
	}
	changed.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: route.Spec.ParentRefs[0], ControllerName: "istio.io/gateway-controller",
		Conditions: mergeConditions(have,
			metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", ObservedGeneration: route.Generation},
			metav1.Condition{Type: "ResolvedRefs", Status: metav1.ConditionTrue, Reason: "ResolvedRefs", ObservedGeneration: route.Generation})}}
	return patchStatus(ctx, f.Client, &route, changed)
}

// kubeconfig in the form that people put into a Secret.
func kubeconfig(cfg *rest.Config, address string) []byte {
	return writeKubeconfig(cfg, address, &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData})
}

func kubeconfigWithToken(cfg *rest.Config, token string) []byte {
	return writeKubeconfig(cfg, strings.Trim(strings.TrimPrefix(cfg.Host, "https://"), "/"), &clientcmdapi.AuthInfo{Token: token})
}

func writeKubeconfig(cfg *rest.Config, address string, user *clientcmdapi.AuthInfo) []byte {
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: "https://" + address, CertificateAuthorityData: cfg.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": user},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x"})
	if err != nil {
		panic(err)
	}
	return data
}

// tcpProxy stands between the hub and a member, and can be cut as a network is.
type tcpProxy struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	cut      bool
	open     map[net.Conn]struct{}
}

func newTCPProxy(target string) (*tcpProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &tcpProxy{listener: l, target: target, open: map[net.Conn]struct{}{}}
	go p.serve()
	return p, nil
}

func (p *tcpProxy) address() string { return p.listener.Addr().String() }

func (p *tcpProxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(in, out) {
			_ = in.Close()
			continue
		}
		go p.pipe(in, out)
		go p.pipe(out, in)
	}
}

func (p *tcpProxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.cut {
			_ = c.Close()
			continue
		}
		p.open[c] = struct{}{}
	}
	return !p.cut
}

func (p *tcpProxy) pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, to)
	delete(p.open, from)
}

// setCut cuts the link, with all that is open on it, or mends it.
func (p *tcpProxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for c := range p.open {
		if cut {
			_ = c.Close()
		}
	}
}

func createAll(ctx context.Context, c client.Client, objects ...client.Object) error {
	for _, o := range objects {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// eventually waits until check has nothing to complain of, and says its last complaint otherwise.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			require.NoError(t, err, "still after %s", patience)
		case <-tick.C:
		}
	}
}

// app is a namespace with a helloworld service in both members, a Gateway and a route in the hub.
type app struct {
	t         *testing.T
	set       *clusterset
	namespace string
}

// newApp makes the namespace everywhere and exports the service from the given members.
func newApp(t *testing.T, set *clusterset, exporters ...string) *app {
	t.Helper()
	a := &app{t: t, set: set, namespace: strings.ToLower(strings.ReplaceAll(t.Name(), "_", "-"))}
	if len(a.namespace) > 60 {
		a.namespace = a.namespace[:60]
	}
	ctx := t.Context()
	require.NoError(t, createAll(ctx, set.hub, namespace(a.namespace)))
	for _, m := range set.members {
		require.NoError(t, createAll(ctx, m, namespace(a.namespace)))
	}
	for _, name := range exporters {
		a.export(name)
		a.endpoints(name, 2)
	}
	require.NoError(t, createAll(ctx, set.hub, a.gateway(), a.route()))
	return a
}

func (a *app) export(member string) { a.t.Helper(); a.exportOf("helloworld", member) }

func (a *app) exportOf(service, member string) {
	a.t.Helper()
	require.NoError(a.t, createAll(a.t.Context(), a.set.members[member],
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: service}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": service},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 5000, TargetPort: intstr.FromInt32(5000)}}}},
		&mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: service}}))
}

// endpoints writes the slice that kube-controller-manager would, with so many ready endpoints.
func (a *app) endpoints(member string, ready int) {
	a.t.Helper()
	a.partly(member, ready, ready)
}

// partly writes the slice with so many endpoints, of which so many are ready.
func (a *app) partly(member string, ready, wanted int) {
	a.t.Helper()
	a.partlyOf("helloworld", member, ready, wanted)
}

func (a *app) partlyOf(service, member string, ready, wanted int) {
	a.t.Helper()
	port := int32(5000)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: service + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: service}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Port: &port}}}
	c := a.set.members[member]
	key := client.ObjectKeyFromObject(slice)
	err := c.Get(a.t.Context(), key, slice)
	slice.Endpoints = nil
	for i := range wanted {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", i+1)},
			Conditions: discoveryv1.EndpointConditions{Ready: new(i < ready)}})
	}
	if err == nil {
		require.NoError(a.t, c.Update(a.t.Context(), slice))
		return
	}
	require.NoError(a.t, createAll(a.t.Context(), c, slice))
}

func (a *app) gateway() *gatewayv1.Gateway {
	return &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "public"}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: "isthmus", Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}}}}
}

func (a *app) route() *gatewayv1.HTTPRoute {
	group, kind, port := gatewayv1.Group(mcsv1beta1.GroupName), gatewayv1.Kind("ServiceImport"), int32(5000)
	return &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "helloworld"}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "public"}}},
		Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: "helloworld", Port: &port}}}}}}}}
}

// policy makes or changes the route's policy.
func (a *app) policy(weights ...v1alpha1.ClusterWeight) {
	a.t.Helper()
	spec := v1alpha1.TrafficDistributionPolicySpec{
		TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
			Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: "helloworld"}}},
		Defaults: &v1alpha1.TrafficDistribution{Distribution: v1alpha1.Distribution{Type: v1alpha1.DistributionWeighted, Weights: weights}}}
	// Again on a conflict: the controllers write the status of the same object.
	eventually(a.t, func() error {
		p := &v1alpha1.TrafficDistributionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "split"}}
		err := a.set.hub.Get(a.t.Context(), client.ObjectKeyFromObject(p), p)
		p.Spec = spec
		if apierrors.IsNotFound(err) {
			return a.set.hub.Create(a.t.Context(), p)
		}
		return errors.Join(err, a.set.hub.Update(a.t.Context(), p))
	})
}

// weights reads the generated route of a member: the weight of each cluster, by the backend that stands for it.
func (a *app) weights(member string) (map[string]int32, error) {
	var route gatewayv1.HTTPRoute
	if err := a.set.members[member].Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &route); err != nil {
		return nil, err
	}
	weights := map[string]int32{}
	for _, b := range route.Spec.Rules[0].BackendRefs {
		cluster := member
		if b.Kind != nil && *b.Kind == "Hostname" {
			cluster = strings.Split(string(b.Name), ".")[2]
		}
		weights[cluster] += *b.Weight
	}
	return weights, nil
}

// expectWeights waits until a member's route has exactly these.
func (a *app) expectWeights(member string, want map[string]int32) {
	a.t.Helper()
	eventually(a.t, func() error {
		have, err := a.weights(member)
		if err == nil && fmt.Sprint(have) != fmt.Sprint(want) {
			err = fmt.Errorf("%s has weights %v, want %v", member, have, want)
		}
		return err
	})
}

// routeCondition waits for a condition of the hub route and returns it.
func (a *app) routeCondition(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	a.t.Helper()
	var found metav1.Condition
	eventually(a.t, func() error {
		var route gatewayv1.HTTPRoute
		if err := a.set.hub.Get(a.t.Context(), client.ObjectKey{Namespace: a.namespace, Name: "helloworld"}, &route); err != nil {
			return err
		}
		for _, p := range route.Status.Parents {
			for _, c := range p.Conditions {
				if c.Type == kind && c.Status == status && c.Reason == reason {
					found = c
					return nil
				}
			}
		}
		return fmt.Errorf("the route has no condition %s=%s (%s): %+v", kind, status, reason, route.Status.Parents)
	})
	return found
}

// plan waits for a condition of a member's RoutePlan.
func (a *app) planCondition(member, kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	a.t.Helper()
	var found metav1.Condition
	eventually(a.t, func() error {
		var plan v1alpha1.RoutePlan
		key := client.ObjectKey{Namespace: a.namespace, Name: federation.RoutePlanName("httproute", "helloworld", member)}
		if err := a.set.hub.Get(a.t.Context(), key, &plan); err != nil {
			return err
		}
		for _, c := range plan.Status.Conditions {
			if c.Type == kind && c.Status == status && c.Reason == reason {
				found = c
				return nil
			}
		}
		return fmt.Errorf("the RoutePlan of %s has no condition %s=%s (%s): %+v", member, kind, status, reason, plan.Status)
	})
	return found
}
