// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

const networks = "networks"

// TestNamesAndServicesSeenFromAPod runs a pod that looks around by the host's own getent and curl, and reads what it said.
func TestNamesAndServicesSeenFromAPod(t *testing.T) {
	apply(t, "eks", "networks.yaml", networks)
	eks := labtest.Cluster(t, "eks")
	server := readyPod(t, eks, networks, "server")
	said := ""
	labtest.Eventually(t, func() error {
		var pods corev1.PodList
		if err := eks.List(context.Background(), &pods, client.InNamespace(networks), client.MatchingLabels{"job-name": "explorer"}); err != nil {
			return err
		}
		for _, p := range pods.Items {
			if len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Terminated != nil {
				said = p.Status.ContainerStatuses[0].State.Terminated.Message
			}
			if p.Status.Phase == corev1.PodSucceeded {
				return nil
			}
		}
		return fmt.Errorf("no explorer has come back; the last one said:\n%s", said)
	})
	require.Equal(t, strings.Join([]string{
		"search networks.svc.cluster.local svc.cluster.local cluster.local",
		"nameserver 10.234.2.10",
		"options ndots:5",
		"explorer.trip.networks.svc.cluster.local\texplorer",
		"kubernetes.default 10.234.2.1",
		"kube-dns.kube-system.svc 10.234.2.10",
		"elsewhere.networks.svc.clusterset.local 192.0.2.7",
		"outside.example.com ",
		"headless " + server.Status.PodIP,
		"kubernetes 10.234.2.1:443 ok",
		"istiod 400",
		"",
	}, "\n"), said)
}

// TestServicesAreReachedFromWhereACloudLetsThem asks one server by each of its addresses, from the machine, from its own cluster and
// from another.
func TestServicesAreReachedFromWhereACloudLetsThem(t *testing.T) {
	apply(t, "eks", "networks.yaml", networks)
	eks := labtest.Cluster(t, "eks")
	server := readyPod(t, eks, networks, "server")
	node := server.Status.HostIP
	clusterIP := service(t, eks, "server").Spec.ClusterIP
	nodePort := net.JoinHostPort(node, strconv.Itoa(int(service(t, eks, "nodeport").Spec.Ports[0].NodePort)))
	balanced, local, empty := balancerAddress(t, eks, "balanced"), balancerAddress(t, eks, "local"), balancerAddress(t, eks, "empty")

	host := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	inside := labtest.FromPod(t, "eks", "sample/echoserver-")
	other := labtest.FromPod(t, "gke", "sample/echoserver-")
	other.Timeout = 2 * time.Second

	for address, from := range map[string][]*http.Client{
		balanced:                      {host, inside, other},
		local + ":8000":               {host, inside, other},
		nodePort:                      {host, inside},
		clusterIP:                     {inside},
		server.Status.PodIP + ":8080": {inside},
	} {
		for _, c := range from {
			labtest.Eventually(t, func() error { _, err := clientSeen(c, address); return err })
		}
	}
	for _, address := range []string{nodePort, clusterIP, server.Status.PodIP + ":8080", node + ":10256", node + ":15012"} {
		_, err := clientSeen(other, address)
		require.Error(t, err, "%s is reached from another cluster", address)
	}
	for _, address := range []string{empty, balanced + ":81"} {
		_, err := clientSeen(host, address)
		require.ErrorContains(t, err, "connection refused", "%s has nothing behind it: that has to be said at once", address)
	}

	// Whom the server sees: with the policy Local the client itself, else the node.
	machine := network.HostAddress().Addr().String()
	seen, err := clientSeen(host, local+":8000")
	require.NoError(t, err)
	require.Equal(t, machine, seen)
	seen, err = clientSeen(host, balanced)
	require.NoError(t, err)
	require.NotEqual(t, machine, seen)
	seen, err = clientSeen(inside, clusterIP)
	require.NoError(t, err)
	require.Equal(t, readyPod(t, eks, labtest.Sample, "echoserver").Status.PodIP, seen, "within the cluster nobody is disguised")
}

// TestServicesOutliveKubeProxy kills it: what it wrote goes on, and what is new is served when it is back.
func TestServicesOutliveKubeProxy(t *testing.T) {
	apply(t, "eks", "networks.yaml", networks)
	eks := labtest.Cluster(t, "eks")
	readyPod(t, eks, networks, "server")
	balanced := balancerAddress(t, eks, "balanced")
	host := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answers := func(address string) func() error {
		return func() error { _, err := clientSeen(host, address); return err }
	}
	labtest.Eventually(t, answers(balanced))
	t.Cleanup(func() { require.NoError(t, labtest.Lab.Start(context.Background(), "eks", state.KubeProxy)) })
	require.NoError(t, labtest.Lab.Kill("eks", state.KubeProxy))
	late := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: networks, Name: "late"}}
	late.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "server"},
		Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("web")}}}
	require.NoError(t, eks.Create(context.Background(), late))
	address := balancerAddress(t, eks, "late")
	require.NoError(t, answers(balanced)())
	require.Error(t, answers(address)())
	require.NoError(t, labtest.Lab.Start(context.Background(), "eks", state.KubeProxy))
	labtest.Eventually(t, answers(address))
}

func service(t *testing.T, c client.Client, name string) (s corev1.Service) {
	t.Helper()
	require.NoError(t, c.Get(context.Background(), client.ObjectKey{Namespace: networks, Name: name}, &s))
	return s
}

// balancerAddress waits for the address of a Service of type LoadBalancer.
func balancerAddress(t *testing.T, c client.Client, name string) (address string) {
	t.Helper()
	labtest.Eventually(t, func() error {
		ingress := service(t, c, name).Status.LoadBalancer.Ingress
		if len(ingress) != 1 || ingress[0].IP == "" {
			return fmt.Errorf("service %s has no address: %+v", name, ingress)
		}
		address = ingress[0].IP
		return nil
	})
	return address
}

// clientSeen asks an echoserver which address the request came from.
func clientSeen(c *http.Client, address string) (string, error) {
	body, err := get(c, "http://"+address+"/", "")
	if err != nil {
		return "", err
	}
	var echo struct{ Client string }
	return echo.Client, json.Unmarshal([]byte(body), &echo)
}
