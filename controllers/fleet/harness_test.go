// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/fleet/faults"
	"isthmus.dev/isthmus/federation"
)

var widgetKind = schema.GroupVersionKind{Group: "test.isthmus.dev", Version: "v1", Kind: "Widget"}

func testScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, networking.AddToScheme} {
		require.NoError(t, add(scheme))
	}
	return scheme
}

func metadataOf(gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(gvk)
	return obj
}

func testKinds() []Kind {
	ours := labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy})
	return []Kind{
		{Object: metadataOf(namespaceKind)},
		{Object: &corev1.Service{}},
		{Object: &gatewayv1.HTTPRoute{}},
		{Object: &networking.ServiceEntry{}, Selector: ours},
		{Object: &networking.DestinationRule{}, Selector: ours},
		{Object: metadataOf(widgetKind), Optional: true},
	}
}

// hastyClock lets what waits for minutes be seen in seconds.
type hastyClock struct{ clock.RealClock }

func (c hastyClock) NewTimer(d time.Duration) clock.Timer { return c.RealClock.NewTimer(d / 20) }

// event is one call of a handler.
type event struct {
	member   string
	old, new client.Object
}

// fixture is a running fleet, with what it said and what it sent.
type fixture struct {
	*Fleet
	t *testing.T

	mu       sync.Mutex
	events   []event
	outcomes map[federation.Owner]int
	clients  map[string]*faults.Client
}

func newFixture(t *testing.T, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, clients: map[string]*faults.Client{}, outcomes: map[federation.Owner]int{}}
	opts := Options{
		Scheme: testScheme(t), Kinds: testKinds(), Clock: hastyClock{}, Epoch: func() int64 { return 7 },
		WrapClient: func(member string, c client.Client) client.Client {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.clients[member] = faults.Wrap(c)
			return f.clients[member]
		},
		Handlers: Handlers{
			Object: func(member string, old, new client.Object) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.events = append(f.events, event{member, old, new})
			},
			Outcome: func(_ string, owner federation.Owner) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.outcomes[owner]++
			},
		},
	}
	for _, change := range change {
		change(&opts)
	}
	f.Fleet = New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return f
}

func (f *fixture) client(member string) *faults.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients[member]
}

// eventsOf counts what was heard of objects of a name.
func (f *fixture) eventsOf(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, e := range f.events {
		if e.new != nil && e.new.GetName() == name || e.old != nil && e.old.GetName() == name {
			n++
		}
	}
	return n
}

func (f *fixture) join(name string, config *rest.Config) Member {
	f.t.Helper()
	require.NoError(f.t, f.Ensure(name, kubeconfigFor(f.t, config)))
	m, ok := f.Member(name)
	require.True(f.t, ok)
	return m
}

func (f *fixture) joinSynced(name string, config *rest.Config) Member {
	f.t.Helper()
	m := f.join(name, config)
	eventually(f.t, func() bool { return m.State().Phase == Connected && m.State().Synced }, func() any { return m.State() })
	return m
}

func kubeconfigFor(t testing.TB, config *rest.Config) []byte {
	t.Helper()
	data, err := clientcmd.Write(clientcmdapi.Config{
		CurrentContext: "c",
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "c"}},
		Clusters: map[string]*clientcmdapi.Cluster{"c": {
			Server: config.Host, CertificateAuthorityData: config.CAData, TLSServerName: config.ServerName,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"c": {
			Token: config.BearerToken, ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
		}},
	})
	require.NoError(t, err)
	return data
}

// eventually waits for a condition; what it says last is printed if it never holds. It is patient: a busy machine
// under the race detector takes many times as long as a quiet one.
func eventually(t *testing.T, condition func() bool, last func() any) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("the condition never held; last seen: %+v", last())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// tried tells that a wish has been looked at: what it waits for is said around ErrPending then.
func tried(outcome error) bool { return outcome == nil || outcome.Error() != ErrPending.Error() }

// written waits until the newest wish of an owner is in the member.
func written(t *testing.T, m Member, owner federation.Owner) {
	t.Helper()
	eventually(t, func() bool { return m.Outcome(owner) == nil }, func() any { return m.Outcome(owner) })
}

// link is a TCP link to a server that can be cut, stalled and healed.
type link struct {
	address  string
	listener net.Listener

	mu      sync.Mutex
	target  string
	cut     bool
	stalled chan struct{}
	open    map[net.Conn]struct{}
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{address: listener.Addr().String(), listener: listener, target: target, open: map[net.Conn]struct{}{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.forward(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.Heal()
		l.Cut()
		wg.Wait()
	})
	return l
}

func (l *link) forward(near net.Conn) {
	if !l.track(near) {
		return
	}
	defer l.untrack(near)
	far, err := net.Dial("tcp", l.target)
	if err != nil || !l.track(far) {
		return
	}
	defer l.untrack(far)
	var wg sync.WaitGroup
	wg.Go(func() { l.pump(far, near) })
	l.pump(near, far)
	wg.Wait()
}

func (l *link) pump(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		stalled := l.stalled
		l.mu.Unlock()
		if stalled != nil {
			<-stalled
		}
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (l *link) track(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = conn.Close()
		return false
	}
	l.open[conn] = struct{}{}
	return true
}

func (l *link) untrack(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

// Cut closes what is open and what comes.
func (l *link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.open {
		_ = conn.Close()
	}
}

// Stall accepts connections and passes nothing on.
func (l *link) Stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = make(chan struct{})
}

// Heal ends both.
func (l *link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	if l.stalled != nil {
		close(l.stalled)
		l.stalled = nil
	}
}

// asError is errors.As, and false for nil.
func asError[T error](err error, target *T) bool { return err != nil && errors.As(err, target) }
