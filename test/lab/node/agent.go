// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package node is the lab's stand-in for kubelet, the scheduler and the cloud's load balancer: one
// agent a cluster registers a Node, takes every Pod that has none, runs the Pods' containers as
// processes and gives Services of type LoadBalancer an address.
//
//	watch ─> pod (a goroutine each) ─> container (a goroutine each) ─> container-init ─> the program
//	                 └─> status writer (a goroutine each) ─> API server
//
// # Implementation considerations
//
// A pod is a network namespace `isl-p-…`. A container is a mount, pid, UTS and IPC namespace in it,
// whose root is an overlay over the host's own, so that an image is hardly more than an executable.
// Nothing is kept in memory that a later life of the agent would need: it kills what it finds of an
// earlier one, by the network namespaces, and starts the pods again.
//
// No goroutine that decides waits for the API server: the status writers do, one a pod. A server
// that is lost stops nothing that runs.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/test/lab/state"
)

const (
	fieldManager = "isthmus-lab-node"
	// requestTimeout bounds each request: a server that is stopped, not dead, answers nothing.
	requestTimeout = 10 * time.Second
)

// Config says which node of which cluster an agent is.
type Config struct {
	Cluster, NodeName, NodeIP string
	Region, Zone, ProviderID  string
	Labels                    map[string]string // the node's besides those that every node has
	Kubeconfig                string            // path of an administrator's kubeconfig
	PodCIDR, LoadBalancerCIDR netip.Prefix
	PodBridge                 string         // bridge of the pods, in the agent's network namespace
	ImageDirs                 []string       // searched in order
	StateDir                  string         // pods' files and logs; the agent's alone
	APIServer                 netip.AddrPort // of the Service kubernetes, as pods get it in their environment
	DNS                       netip.Addr     // the cluster's DNS server
	Serving                   *Serving       // nil serves no API of the node
	// OnProcesses gets all pod processes of the node whenever the set changes; calls do not overlap. After an error it
	// gets them again a second later.
	OnProcesses func([]state.Process) error
}

// agent is the node.
type agent struct {
	Config
	ctx         context.Context // the agent's life
	client      kubernetes.Interface
	objects     objects // as they are now
	recent      objects // as they were a moment ago: for refreshing what many pods have
	events      record.EventRecorder
	clock       clock.WithTicker
	log         *slog.Logger
	allocatable corev1.ResourceList
	addresses   *addressPool
	processes   *processTable
	balancer    *balancer

	mu   sync.Mutex
	pods map[types.UID]*pod
	wg   sync.WaitGroup // pods that run
}

// Run is the node's life. The caller is root, in the cluster's network namespace, and calls
// ContainerMain when its first argument is "container-init". When ctx ends, Run stops all pods (5
// seconds of grace) and returns.
func Run(ctx context.Context, c Config) error {
	a, stopEvents, err := newAgent(ctx, c)
	if err != nil {
		return err
	}
	defer stopEvents()
	if err := a.removeLeftovers(); err != nil {
		return fmt.Errorf("remove what an earlier node agent left: %w", err)
	}
	if err := a.register(ctx); err != nil {
		return err
	}
	var services sync.WaitGroup
	if a.Serving != nil {
		listener, err := a.listen()
		if err != nil {
			return fmt.Errorf("the node's API: %w", err)
		}
		services.Go(func() { a.serve(ctx, listener) })
	}
	for _, service := range []func(context.Context){a.keepAlive, a.renewLease, a.bind, a.balancer.run, a.watchPods} {
		services.Go(func() { service(ctx) })
	}
	services.Go(func() { a.processes.run(ctx, a.OnProcesses) })
	<-ctx.Done()
	services.Wait()
	a.stopPods()
	return nil
}

func newAgent(ctx context.Context, c Config) (*agent, func(), error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.QPS = -1 // one node, a local server: waiting for a turn would only blur what tests measure
	config.UserAgent = fieldManager
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(config, c.Cluster))
	if err != nil {
		return nil, nil, err
	}
	if c.StateDir, err = realDir(c.StateDir); err != nil {
		return nil, nil, err
	}
	// Volumes hold secrets: other users of the machine stay out.
	if err := os.MkdirAll(filepath.Join(c.StateDir, "pods"), 0o700); err != nil {
		return nil, nil, err
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	a := &agent{
		Config: c, ctx: ctx, client: client, objects: apiObjects{client}, recent: newRecentObjects(apiObjects{client}, clock.RealClock{}), clock: clock.RealClock{},
		events:      broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: fieldManager, Host: c.NodeName}),
		log:         slog.Default().With("cluster", c.Cluster),
		allocatable: capacity(), addresses: newAddressPool(c.PodCIDR), processes: newProcessTable(c.Cluster),
		pods: map[types.UID]*pod{},
	}
	a.balancer = newBalancer(a)
	return a, broadcaster.Shutdown, nil
}

// realDir makes a folder and returns its path without links: a container sees the host's files below
// another root, where a link leads elsewhere.
func realDir(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func (a *agent) podsDir() string { return filepath.Join(a.StateDir, "pods") }

// watchPods runs the pods of this node until ctx ends.
func (a *agent) watchPods(ctx context.Context) {
	informer := a.podInformer(fields.OneTermEqualSelector("spec.nodeName", a.NodeName))
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.podSeen(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { a.podSeen(o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if p, ok := o.(*corev1.Pod); ok {
				a.podGone(p.UID)
			}
		},
	})
	informer.RunWithContext(ctx)
}

// podInformer watches the pods that a field selector selects.
func (a *agent) podInformer(selector fields.Selector) cache.SharedIndexInformer {
	return informers.NewSharedInformerFactoryWithOptions(a.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = selector.String() }),
	).Core().V1().Pods().Informer()
}

func (a *agent) podSeen(seen *corev1.Pod) {
	a.mu.Lock()
	p, known := a.pods[seen.UID]
	if !known {
		p = newPod(a, seen)
		a.pods[seen.UID] = p
	}
	a.mu.Unlock()
	p.update(seen)
	if !known {
		a.wg.Go(func() {
			p.run()
			a.pruneLogs()
		})
	}
}

func (a *agent) podGone(uid types.UID) {
	a.mu.Lock()
	p := a.pods[uid]
	delete(a.pods, uid)
	a.mu.Unlock()
	if p != nil {
		p.removed()
	}
}

// podList returns the node's pods.
func (a *agent) podList() []*pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.pods))
}

// knows says whether a pod of that uid is the node's.
func (a *agent) knows(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[types.UID(uid)] != nil
}

// stopPods ends all pods and waits for them.
func (a *agent) stopPods() {
	a.mu.Lock()
	for _, p := range a.pods {
		p.end(errShutdown)
	}
	a.mu.Unlock()
	a.wg.Wait()
	if a.OnProcesses != nil {
		if err := a.OnProcesses(nil); err != nil {
			a.log.Warn("the list of pods is not up to date", "error", err)
		}
	}
}

var errNoAddress = errors.New("the pods' address range is used up")

// addressPool gives out the addresses of a range, each again as late as possible: a client that still
// talks to a pod that is gone must not meet another.
type addressPool struct {
	mu    sync.Mutex
	cidr  netip.Prefix
	next  netip.Addr
	inUse map[netip.Addr]bool
}

func newAddressPool(cidr netip.Prefix) *addressPool {
	return &addressPool{cidr: cidr.Masked(), inUse: map[netip.Addr]bool{}, next: firstAddress(cidr)}
}

// firstAddress skips the range's own address and the gateway.
func firstAddress(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next().Next() }

func (p *addressPool) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for start, wrapped := p.next, false; ; {
		ip := p.next
		p.next = ip.Next()
		if !p.cidr.Contains(p.next.Next()) { // the last address is the broadcast
			p.next, wrapped = firstAddress(p.cidr), true
		}
		if !p.inUse[ip] {
			p.inUse[ip] = true
			return ip, nil
		}
		if wrapped && p.next == start {
			return netip.Addr{}, errNoAddress
		}
	}
}

func (p *addressPool) release(ip netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inUse, ip)
}
