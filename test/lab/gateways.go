// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/test/lab/state"
)

// intentClass is the class of a hub's own Gateways, whose addresses are those of the members' gateways.
const intentClass = "isthmus"

// eastWestPort is the port by which the gateways of other clusters come in.
const eastWestPort = 15443

// trackGateways keeps the addresses of a cluster's gateways in lab.json until ctx ends. A cluster
// without the Gateway API, or whose API server is away, is asked again later.
func trackGateways(ctx context.Context, dir, cluster, kubeconfig string) {
	for ctx.Err() == nil {
		_ = watchGateways(ctx, dir, cluster, kubeconfig) // whatever it was, the next round starts anew
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func watchGateways(ctx context.Context, dir, cluster, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	gateways, err := gatewayClient(config)
	if err != nil {
		return err
	}
	events, err := gateways.Watch(ctx, &gatewayv1.GatewayList{})
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return errors.New("the watch was refused")
		}
		// A list is short, and needs no copy of the watch's history to be right.
		list := &gatewayv1.GatewayList{}
		if err := gateways.List(ctx, list); err != nil {
			return err
		}
		if err := recordGateways(dir, cluster, list.Items); err != nil {
			return err
		}
	}
	return nil
}

func gatewayClient(config *rest.Config) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	if err := gatewayv1.Install(scheme); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

func recordGateways(dir, cluster string, gateways []gatewayv1.Gateway) error {
	public, eastWest := gatewayAddresses(gateways)
	lab, err := state.Load(dir)
	if err != nil {
		return err
	}
	c, err := lab.Cluster(cluster)
	if err != nil || c.Gateway == public && c.EastWestGateway == eastWest {
		return err
	}
	return state.UpdateExisting(dir, func(l *state.Lab) error {
		c, err := l.Cluster(cluster)
		if err != nil {
			return err
		}
		c.Gateway, c.EastWestGateway = public, eastWest
		return nil
	})
}

// gatewayAddresses picks the example's public gateway (an HTTP listener in its namespace; the first
// by name) and the east-west gateway (a listener on its port) as IP:port.
func gatewayAddresses(gateways []gatewayv1.Gateway) (public, eastWest string) {
	first := ""
	for _, g := range gateways {
		address, ok := gatewayIP(g)
		if !ok || g.Spec.GatewayClassName == intentClass {
			continue
		}
		for _, listener := range g.Spec.Listeners {
			at := netip.AddrPortFrom(address, uint16(listener.Port)).String() // the schema keeps ports in range
			switch {
			case listener.Port == eastWestPort:
				eastWest = at
			case g.Namespace == exampleNamespace && listener.Protocol == gatewayv1.HTTPProtocolType &&
				(first == "" || strings.Compare(g.Name, first) < 0):
				public, first = at, g.Name
			}
		}
	}
	return public, eastWest
}

func gatewayIP(g gatewayv1.Gateway) (netip.Addr, bool) {
	for _, a := range g.Status.Addresses {
		if a.Type == nil || *a.Type == gatewayv1.IPAddressType {
			if ip, err := netip.ParseAddr(a.Value); err == nil {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}
