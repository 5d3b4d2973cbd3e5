// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"isthmus.dev/isthmus/test/lab/network"
)

// balancer is the cloud's load balancer: an address for each Service of type LoadBalancer, led to
// its ready pods.
//
//	client ─> node ─ route <address>/32 via the pods ─> pod, which has the address on its loopback
//	   ^──────────────────────── answers directly ──────────┘
//
// No address is translated on the way, so that a proxy sees who connects; the price is that port and
// target port have to be equal, which holds for Istio's gateways.
type balancer struct {
	agent    *agent
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister

	mu    sync.Mutex
	held  map[types.NamespacedName]netip.Addr // addresses of Services
	given map[netip.Addr][]string             // address to the pod namespaces that have it
}

func newBalancer(a *agent) *balancer {
	return &balancer{
		agent: a, held: map[types.NamespacedName]netip.Addr{}, given: map[netip.Addr][]string{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 5*time.Second)),
	}
}

// run balances until ctx ends.
func (b *balancer) run(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(b.agent.client, 0)
	services, endpoints := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	b.services, b.slices = services.Lister(), endpoints.Lister()
	_, _ = services.Informer().AddEventHandler(onChange(func(o metav1.Object) { b.enqueue(o.GetNamespace(), o.GetName()) }))
	_, _ = endpoints.Informer().AddEventHandler(onChange(func(o metav1.Object) {
		b.enqueue(o.GetNamespace(), o.GetLabels()[discoveryv1.LabelServiceName])
	}))
	factory.StartWithContext(ctx)
	context.AfterFunc(ctx, b.queue.ShutDown)
	if !cache.WaitForCacheSync(ctx.Done(), services.Informer().HasSynced, endpoints.Informer().HasSynced) {
		return
	}
	b.adopt()
	for {
		key, shutdown := b.queue.Get()
		if shutdown {
			return
		}
		if err := b.sync(ctx, key); err != nil && ctx.Err() == nil {
			b.agent.log.Warn("a load balancer is not up to date", "service", key.String(), "error", err)
			b.queue.AddRateLimited(key)
		} else {
			b.queue.Forget(key)
		}
		b.queue.Done(key)
	}
}

// onChange calls f for each object that came, changed or went.
func onChange(f func(metav1.Object)) cache.ResourceEventHandler {
	call := func(o any) {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if object, ok := o.(metav1.Object); ok {
			f(object)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: call, UpdateFunc: func(_, o any) { call(o) }, DeleteFunc: call}
}

func (b *balancer) enqueue(namespace, name string) {
	if name != "" {
		b.queue.Add(types.NamespacedName{Namespace: namespace, Name: name})
	}
}

// adopt keeps the addresses that Services have from an earlier life, before any is given anew, and
// removes the routes of all others. The eldest Service wins where two claim one.
func (b *balancer) adopt() {
	all, _ := b.services.List(labels.Everything())
	slices.SortFunc(all, func(a, b *corev1.Service) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range all {
		ip := statusAddress(s)
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer && b.agent.LoadBalancerCIDR.Contains(ip) && !b.inUse(ip) {
			b.held[keyOf(s)] = ip
		}
	}
	for ip := range addressesOf(b.agent.LoadBalancerCIDR) {
		if !b.inUse(ip) {
			if err := network.UnrouteLoadBalancer(ip); err != nil {
				b.agent.log.Warn("an old route was not removed", "address", ip, "error", err)
			}
		}
	}
}

// addressesOf yields the addresses of a range, without its own and the broadcast one.
func addressesOf(cidr netip.Prefix) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for ip := cidr.Masked().Addr().Next(); cidr.Contains(ip.Next()) && yield(ip); ip = ip.Next() {
		}
	}
}

func keyOf(s *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

func statusAddress(s *corev1.Service) netip.Addr {
	if len(s.Status.LoadBalancer.Ingress) == 0 {
		return netip.Addr{}
	}
	ip, _ := netip.ParseAddr(s.Status.LoadBalancer.Ingress[0].IP)
	return ip
}

func (b *balancer) inUse(ip netip.Addr) bool {
	for _, held := range b.held {
		if held == ip {
			return true
		}
	}
	return false
}

// sync brings one Service's address, status, route and pods up to date.
func (b *balancer) sync(ctx context.Context, key types.NamespacedName) error {
	service, err := b.services.Services(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil || service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil {
		return errors.Join(b.release(key), b.clearStatus(ctx, service, err == nil))
	}
	ip, err := b.allocate(key)
	if err != nil {
		b.agent.events.Event(service, corev1.EventTypeWarning, "NoLoadBalancerAddress", err.Error())
		return err
	}
	slicesOf, err := b.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: key.Name}))
	if err != nil {
		return err
	}
	b.warnOfPorts(service, slicesOf)
	// The way in comes first, then the address is told.
	err = b.lead(ip, slicesOf)
	return errors.Join(err, b.writeStatus(ctx, service, ip.String()))
}

// allocate returns the Service's address, the lowest free one when it has none.
func (b *balancer) allocate(key types.NamespacedName) (netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ip, ok := b.held[key]; ok {
		return ip, nil
	}
	for ip := range addressesOf(b.agent.LoadBalancerCIDR) {
		if !b.inUse(ip) {
			b.held[key] = ip
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the load balancers' range %s is used up: delete a Service of type LoadBalancer", b.agent.LoadBalancerCIDR)
}

// lead routes an address to the pods that take its traffic, and gives those and the ones that are
// ending the address: what they still serve must be answered from it.
func (b *balancer) lead(ip netip.Addr, list []*discoveryv1.EndpointSlice) error {
	take, members := targets(list)
	var have []string
	var errs []error
	for _, pod := range members {
		ns := b.agent.namespaceOf(pod)
		if ns == "" {
			take = slices.DeleteFunc(take, func(a netip.Addr) bool { return a == pod })
			continue
		}
		if err := network.AddLoadBalancerAddress(ns, ip); err != nil {
			take = slices.DeleteFunc(take, func(a netip.Addr) bool { return a == pod })
			errs = append(errs, err)
			continue
		}
		have = append(have, ns)
	}
	errs = append(errs, network.RouteLoadBalancer(ip, take))
	for _, ns := range b.give(ip, have) {
		if network.Exists(ns) {
			errs = append(errs, network.RemoveLoadBalancerAddress(ns, ip))
		}
	}
	return errors.Join(errs...)
}

// give records which pods have an address and returns those that have to lose it.
func (b *balancer) give(ip netip.Addr, have []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := slices.DeleteFunc(slices.Clone(b.given[ip]), func(ns string) bool { return slices.Contains(have, ns) })
	b.given[ip] = have
	if len(have) == 0 {
		delete(b.given, ip)
	}
	return lost
}

// targets returns the pods that take new connections (the ready ones, or, when none is, those that
// still serve while they end, as kube-proxy has it) and all pods behind the Service, both in order.
func targets(list []*discoveryv1.EndpointSlice) (take, members []netip.Addr) {
	var ending []netip.Addr
	for _, s := range list {
		for _, e := range s.Endpoints {
			for _, text := range e.Addresses {
				ip, err := netip.ParseAddr(text)
				if err != nil || !ip.Is4() {
					continue
				}
				members = append(members, ip)
				switch c := e.Conditions; {
				case c.Ready == nil || *c.Ready:
					take = append(take, ip)
				case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
					ending = append(ending, ip)
				}
			}
		}
	}
	if len(take) == 0 {
		take = ending
	}
	return sortedSet(take), sortedSet(members)
}

func sortedSet(list []netip.Addr) []netip.Addr {
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// release takes a Service's address back.
func (b *balancer) release(key types.NamespacedName) error {
	b.mu.Lock()
	ip, ok := b.held[key]
	delete(b.held, key)
	b.mu.Unlock()
	if !ok {
		return nil
	}
	errs := []error{network.UnrouteLoadBalancer(ip)}
	for _, ns := range b.give(ip, nil) {
		if network.Exists(ns) {
			errs = append(errs, network.RemoveLoadBalancerAddress(ns, ip))
		}
	}
	return errors.Join(errs...)
}

// forget says that a pod's namespace is going, and its addresses with it.
func (b *balancer) forget(ns string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ip, have := range b.given {
		b.given[ip] = slices.DeleteFunc(slices.Clone(have), func(one string) bool { return one == ns })
	}
}

func (b *balancer) writeStatus(ctx context.Context, service *corev1.Service, ip string) error {
	in := service.Status.LoadBalancer.Ingress
	if len(in) == 1 && in[0].IP == ip {
		return nil
	}
	next := service.DeepCopy()
	next.Status.LoadBalancer = corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: ip}}}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := b.agent.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

// clearStatus takes the address from a Service that stopped being a load balancer.
func (b *balancer) clearStatus(ctx context.Context, service *corev1.Service, exists bool) error {
	if !exists || service.DeletionTimestamp != nil || !b.agent.LoadBalancerCIDR.Contains(statusAddress(service)) {
		return nil
	}
	next := service.DeepCopy()
	next.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := b.agent.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

// warnOfPorts says in an Event which ports cannot work, since no address or port is translated.
func (b *balancer) warnOfPorts(service *corev1.Service, list []*discoveryv1.EndpointSlice) {
	for _, s := range list {
		for _, target := range s.Ports {
			for _, port := range service.Spec.Ports {
				if target.Name != nil && *target.Name == port.Name && target.Port != nil && *target.Port != port.Port {
					b.agent.events.Event(service, corev1.EventTypeWarning, "PortNotTranslated", fmt.Sprintf(
						"the lab's load balancer does not translate ports: port %d leads nowhere, make it equal to its target port %d",
						port.Port, *target.Port))
				}
			}
		}
	}
}

// namespaceOf returns the network namespace of the pod at an address; empty when it is none of ours.
func (a *agent) namespaceOf(ip netip.Addr) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pods {
		if p.address() == ip {
			return p.netns
		}
	}
	return ""
}
