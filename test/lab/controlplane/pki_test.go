// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"

	"isthmus.dev/isthmus/test/lab/network"
)

func testCluster(t *testing.T, name string, shared string) Cluster {
	t.Helper()
	net, err := network.Plan(name, 2)
	require.NoError(t, err)
	dir := t.TempDir()
	return Cluster{Name: name, Network: net, Dir: dir, Shared: shared, Logs: dir}
}

func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	der, err := readPEM(file)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func TestTheAPIServersCertificateCoversWhatPodsAndPeopleDial(t *testing.T) {
	c := testCluster(t, "eks", t.TempDir())
	require.NoError(t, c.Prepare(filepath.Join(c.Dir, "kubeconfig")))
	roots := x509.NewCertPool()
	roots.AddCert(readCertificate(t, c.pki("ca.crt")))
	cert := readCertificate(t, c.pki("apiserver.crt"))
	for _, host := range []string{"10.231.0.12", "127.0.0.1", "10.234.2.1", "kubernetes.default.svc"} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
		require.NoError(t, err, host)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.231.0.13"})
	require.Error(t, err, "another cluster's address")
}

func TestPrepareAgainKeepsTheKeys(t *testing.T) {
	c := testCluster(t, "eks", t.TempDir())
	file := filepath.Join(c.Dir, "kubeconfig")
	require.NoError(t, c.Prepare(file))
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, c.Prepare(file))
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func TestTheKubeconfigHoldsEverythingInline(t *testing.T) {
	c := testCluster(t, "eks", t.TempDir())
	file := filepath.Join(c.Dir, "kubeconfig")
	require.NoError(t, c.Prepare(file))
	config, err := clientcmd.LoadFromFile(file)
	require.NoError(t, err)
	require.Equal(t, "eks", config.CurrentContext)
	require.Equal(t, "https://10.231.0.12:6443", config.Clusters["eks"].Server)
	require.NotEmpty(t, config.Clusters["eks"].CertificateAuthorityData)
	require.NotEmpty(t, config.AuthInfos["eks"].ClientKeyData)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Zero(t, info.Mode()&0o077, "readable by its owner only")
}

func TestTheMeshesOfAllClustersShareOneRoot(t *testing.T) {
	shared := t.TempDir()
	roots := x509.NewCertPool()
	serials := map[string]bool{}
	for i, name := range []string{"eks", "gke"} {
		c := testCluster(t, name, shared)
		require.NoError(t, c.PrepareMesh())
		root := readCertificate(t, c.rootFile())
		if i == 0 {
			roots.AddCert(root)
		}
		cert := readCertificate(t, c.caFile("crt"))
		serials[cert.SerialNumber.String()] = true
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		require.NoError(t, err, name)
		require.True(t, cert.IsCA)
	}
	require.Len(t, serials, 2, "an intermediate of its own each")
}

func TestIstioGetsTheWholeChain(t *testing.T) {
	c := testCluster(t, "eks", t.TempDir())
	require.NoError(t, c.PrepareMesh())
	secret, err := c.meshAuthority()
	require.NoError(t, err)
	data, ok := secret["stringData"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, fmt.Sprint(data["ca-cert.pem"], data["root-cert.pem"]), data["cert-chain.pem"], "the intermediate first")
}
