// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Etcd is the cluster's store. It listens on the loopback of the cluster's own namespace, which
// neither the host nor a pod shares.
func (c Cluster) Etcd() process.Spec {
	return c.spec(state.Etcd, c.Tools.File(tools.Etcd, "etcd"),
		"--name=lab",
		"--data-dir="+filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=lab=http://127.0.0.1:2380",
		// A lab's data need not survive a power cut, and three of them share one disk.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
}

// APIServer is the cluster's kube-apiserver. RBAC is on: what Isthmus may do is part of the product.
func (c Cluster) APIServer() process.Spec {
	node := c.Network.Node.Addr().String()
	s := c.spec(state.APIServer, c.Tools.File(tools.Kubernetes, "kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+node,
		fmt.Sprintf("--secure-port=%d", Port),
		"--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"),
		"--client-ca-file="+c.pki("ca.crt"),
		"--service-account-issuer="+Issuer,
		"--service-account-key-file="+c.pki("sa.pub"), "--service-account-signing-key-file="+c.pki("sa.key"),
		"--api-audiences="+Issuer+",istio-ca",
		"--service-cluster-ip-range="+c.Network.Services.String(),
		"--authorization-mode=Node,RBAC",
		// Logs, exec and port-forward go through the API server to the node.
		"--kubelet-client-certificate="+c.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+c.pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority="+c.pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--allow-privileged=true",
		"--kubelet-preferred-address-types=InternalIP",
		"--event-ttl=15m",
		"--profiling=false",
	)
	// A third of its time while CRDs arrive is garbage collection; memory is less scarce than time.
	s.Env = append(s.Env, "GOGC=200")
	return s
}

// controllers are those that anything in the lab needs, or that users of a plain cluster expect.
var controllers = []string{
	"clusterrole-aggregation-controller", "cronjob-controller", "daemonset-controller", "deployment-controller",
	"disruption-controller", "endpointslice-controller", "garbage-collector-controller", "job-controller",
	"namespace-controller", "node-lifecycle-controller", "pod-garbage-collector-controller",
	"replicaset-controller", "root-ca-certificate-publisher-controller", "serviceaccount-controller",
	"serviceaccount-token-controller", "statefulset-controller", "taint-eviction-controller",
}

// ControllerManager is the cluster's kube-controller-manager.
func (c Cluster) ControllerManager() process.Spec {
	return c.spec(state.ControllerManager, c.Tools.File(tools.Kubernetes, "kube-controller-manager"),
		"--kubeconfig="+c.pki("controller-manager.kubeconfig"),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--controllers="+strings.Join(controllers, ","),
		"--service-account-private-key-file="+c.pki("sa.key"),
		"--root-ca-file="+c.pki("ca.crt"),
		// The defaults, 20 and 30, would be the lab's own slowness where Isthmus is measured.
		"--kube-api-qps=200", "--kube-api-burst=400",
		"--profiling=false",
	)
}

// KubeProxy serves the cluster's Services at the node of that name: it writes nftables rules by the program nft. The
// rules stay, and go on serving, while it is away.
func (c Cluster) KubeProxy(node string) process.Spec {
	return c.spec(state.KubeProxy, c.Tools.File(tools.Kubernetes, "kube-proxy"),
		"--kubeconfig="+c.pki("kube-proxy.kubeconfig"),
		"--proxy-mode=nftables",
		"--hostname-override="+node,
		// What comes from a pod of the cluster keeps its address on the way to a Service.
		"--detect-local-mode=ClusterCIDR", "--cluster-cidr="+c.Network.Pods.String(),
		// The default, a second, would be the lab's own slowness after two changes in a row. (The flag's name is older
		// than the mode.)
		"--iptables-min-sync-period=100ms",
		// Limits of the whole machine, which are not the lab's to change.
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s",
	)
}

func (c Cluster) spec(component, path string, args ...string) process.Spec {
	return process.Spec{
		Cluster: c.Name, Component: component, NetNS: c.Network.NetNS, Path: path, Args: args,
		Dir: filepath.Join(c.Dir, component+"-work"), Log: filepath.Join(c.Logs, component+".log"),
		// Two cores are enough for each, whatever the machine has.
		Env: []string{"GOMAXPROCS=2"},
	}
}
