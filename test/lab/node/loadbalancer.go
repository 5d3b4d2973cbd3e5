// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// balancer is the cloud's part in a Service of type LoadBalancer: it gives the Service an address, which is routed to
// the node. kube-proxy serves it there.
type balancer struct {
	agent    *agent
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
	services corelisters.ServiceLister
	held     map[types.NamespacedName]netip.Addr // addresses of Services; run's alone
}

func newBalancer(a *agent) *balancer {
	return &balancer{
		agent: a, held: map[types.NamespacedName]netip.Addr{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 5*time.Second)),
	}
}

// run gives addresses until ctx ends.
func (b *balancer) run(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(b.agent.client, 0)
	services := factory.Core().V1().Services()
	b.services = services.Lister()
	_, _ = services.Informer().AddEventHandler(onChange(func(o metav1.Object) {
		b.queue.Add(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
	}))
	factory.StartWithContext(ctx)
	context.AfterFunc(ctx, b.queue.ShutDown)
	if !cache.WaitForCacheSync(ctx.Done(), services.Informer().HasSynced) {
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

// adopt keeps the addresses that Services have from an earlier life, before any is given anew. The eldest Service wins
// where two claim one.
func (b *balancer) adopt() {
	all, _ := b.services.List(labels.Everything())
	slices.SortFunc(all, func(a, b *corev1.Service) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, s := range all {
		ip := statusAddress(s)
		if b.serves(s) && b.agent.LoadBalancerCIDR.Contains(ip) && !b.inUse(ip) {
			b.held[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = ip
		}
	}
}

// serves says whether a Service is the lab's to give an address: one with a class belongs to the controller of that
// class, as on any cloud.
func (b *balancer) serves(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

// addressesOf yields the addresses of a range, without its own and the broadcast one.
func addressesOf(cidr netip.Prefix) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for ip := cidr.Masked().Addr().Next(); cidr.Contains(ip.Next()) && yield(ip); ip = ip.Next() {
		}
	}
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

// sync brings one Service's address and status up to date.
func (b *balancer) sync(ctx context.Context, key types.NamespacedName) error {
	service, err := b.services.Services(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil || !b.serves(service) {
		delete(b.held, key) // the API server has taken it from the status of a Service that is of another type now
		return nil
	}
	ip, err := b.allocate(key)
	if err != nil {
		b.agent.events.Event(service, corev1.EventTypeWarning, "NoLoadBalancerAddress", err.Error())
		return err
	}
	if in := service.Status.LoadBalancer.Ingress; len(in) == 1 && in[0].IP == ip.String() {
		return nil
	}
	next := service.DeepCopy()
	next.Status.LoadBalancer = corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: ip.String()}}}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = b.agent.client.CoreV1().Services(key.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

// allocate returns the Service's address, the lowest free one when it has none.
func (b *balancer) allocate(key types.NamespacedName) (netip.Addr, error) {
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
