// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Port of every API server.
const Port = network.APIServerPort

// Issuer of every cluster's service account tokens, and the default audience.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// Cluster is the control plane of one cluster.
type Cluster struct {
	Name    string
	Network network.Cluster
	Tools   tools.Paths
	Dir     string // files of this cluster
	Shared  string // files of all clusters: the mesh's root of trust
	Logs    string // folder of the logs
	// PilotDebounce is istiod's PILOT_DEBOUNCE_AFTER; empty leaves istiod's own.
	PilotDebounce string
}

// URL of the cluster's API server.
func (c Cluster) URL() string { return fmt.Sprintf("https://%s:%d", c.Network.Node.Addr(), Port) }

func (c Cluster) pki(name string) string { return filepath.Join(c.Dir, "pki", name) }

// Prepare writes the cluster's keys, certificates and kubeconfigs; the administrator's goes to
// kubeconfig. What is there already is kept.
func (c Cluster) Prepare(kubeconfig string) error {
	dir := c.pki("")
	ca, err := loadAuthority(dir, "ca", nil)
	if err != nil {
		return err
	}
	identities := map[string]identity{
		"apiserver": {name: "kube-apiserver", hosts: []string{
			c.Network.Node.Addr().String(), c.Network.APIServer().String(), "127.0.0.1", "localhost",
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		}},
		"admin": {name: "isthmus-lab:admin", groups: []string{"system:masters"}},
		// The API server as the client of the node's own API, and that API.
		"apiserver-kubelet-client": {name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		"kubelet":                  {name: "system:node:" + c.Name, groups: []string{"system:nodes"}, hosts: []string{c.Network.Node.Addr().String()}},
		"controller-manager":       {name: "system:kube-controller-manager", groups: []string{"system:masters"}},
		"kube-proxy":               {name: "system:kube-proxy"},
	}
	for name, id := range identities {
		if err := ca.ensureCertificate(dir, name, id); err != nil {
			return err
		}
	}
	if err := ensureServiceAccountKey(dir); err != nil {
		return err
	}
	if err := c.writeKubeconfig("admin", kubeconfig); err != nil {
		return err
	}
	for _, component := range []string{"controller-manager", "kube-proxy"} {
		if err := c.writeKubeconfig(component, c.pki(component+".kubeconfig")); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a kubeconfig that holds everything inline.
func (c Cluster) writeKubeconfig(user, file string) error {
	ca, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(c.pki(user + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.pki(user + ".key"))
	if err != nil {
		return err
	}
	config := Kubeconfig(c.Name, c.URL(), ca, &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return clientcmd.WriteToFile(*config, file)
}

// Kubeconfig returns a kubeconfig with one context, named like the cluster.
func Kubeconfig(name, server string, ca []byte, user *clientcmdapi.AuthInfo) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[name] = user
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return config
}

// NodeFiles are the certificate of the node's own API, its key, and the authority of its clients.
func (c Cluster) NodeFiles() (cert, key, clientCA string) {
	return c.pki("kubelet.crt"), c.pki("kubelet.key"), c.pki("ca.crt")
}

// CA returns the certificate of the cluster's authority, PEM.
func (c Cluster) CA() ([]byte, error) { return os.ReadFile(c.pki("ca.crt")) }
