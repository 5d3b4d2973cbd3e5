// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// secretWord stands in every credential of the table: no message may repeat it.
const secretWord = "s3cr3t"

func kubeconfigOf(cluster, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {%s}}]
users: [{name: u, user: {%s}}]
`, cluster, user)
}

func TestParseKubeconfigRefuses(t *testing.T) {
	const server, token = "server: 'https://10.0.0.1:6443'", "token: s3cr3t"
	cert, key := selfSigned(t)
	for _, tc := range []struct{ name, config, reason, says string }{
		{"nothing", "", invalid, "is empty"},
		{"broken YAML", "a: [s3cr3t", invalid, "not valid YAML"},
		{"a scalar", "s3cr3t", invalid, "not valid YAML"},
		{"another kind", "apiVersion: v1\nkind: Secret\ndata: {a: s3cr3t}", invalid, "not valid YAML"},
		{"bad base64", kubeconfigOf(server, "client-key-data: '%%s3cr3t'"), invalid, "not valid YAML"},
		{"no current context", "apiVersion: v1\nkind: Config\n", invalid, "has no current-context: set it"},
		{"unknown context", "apiVersion: v1\nkind: Config\ncurrent-context: gone", invalid, `no context "gone"`},
		{"unknown cluster", "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: x, user: z}}]", invalid, `no cluster "x"`},
		{"unknown user", "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: x, user: z}}]\nclusters: [{name: x, cluster: {server: 'https://a'}}]", invalid, `no user "z"`},
		{"exec", kubeconfigOf(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: s3cr3t, args: [s3cr3t]}"), unsafe, "put a bearer token or client certificate into the kubeconfig"},
		{"exec beside a token", kubeconfigOf(server, token+", exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}"), unsafe, "runs a program"},
		{"auth provider", kubeconfigOf(server, "auth-provider: {name: gcp, config: {access-token: s3cr3t}}"), unsafe, "auth-provider"},
		{"token file", kubeconfigOf(server, "tokenFile: /var/s3cr3t"), unsafe, "user.tokenFile"},
		{"certificate file", kubeconfigOf(server, "client-certificate: /var/s3cr3t"), unsafe, "user.client-certificate"},
		{"key file", kubeconfigOf(server, "client-key: /var/s3cr3t"), unsafe, "user.client-key"},
		{"CA file", kubeconfigOf(server+", certificate-authority: /var/s3cr3t", token), unsafe, "certificate-authority-data"},
		{"unverified TLS", kubeconfigOf(server+", insecure-skip-tls-verify: true", token), unsafe, "insecure-skip-tls-verify"},
		{"proxy", kubeconfigOf(server+", proxy-url: 'http://u:s3cr3t@p:1'", token), unsafe, "proxy-url"},
		{"as", kubeconfigOf(server, token+", as: root"), unsafe, "impersonates"},
		{"as-uid", kubeconfigOf(server, token+", as-uid: '0'"), unsafe, "impersonates"},
		{"as-groups", kubeconfigOf(server, token+", as-groups: ['system:masters']"), unsafe, "impersonates"},
		{"as-user-extra", kubeconfigOf(server, token+", as-user-extra: {a: [b]}"), unsafe, "impersonates"},
		{"user name", kubeconfigOf(server, "username: root"), unsafe, "user name and password"},
		{"password", kubeconfigOf(server, "password: s3cr3t"), unsafe, "user name and password"},
		{"plain HTTP", kubeconfigOf("server: 'HTTP://10.0.0.1'", token), unsafe, "use https://"},
		{"no server", kubeconfigOf("tls-server-name: a", token), invalid, "names no server"},
		{"no scheme", kubeconfigOf("server: '10.0.0.1:6443'", token), invalid, "no https:// address"},
		{"another scheme", kubeconfigOf("server: 'unix:///run/a'", token), invalid, "no https:// address"},
		{"no host", kubeconfigOf("server: 'https:///a'", token), invalid, "no https:// address"},
		{"password in the server", kubeconfigOf("server: 'https://u:s3cr3t@10.0.0.1'", token), invalid, "remove user"},
		{"query in the server", kubeconfigOf("server: 'https://10.0.0.1?a=s3cr3t'", token), invalid, "remove user, query"},
		{"no credentials", kubeconfigOf(server, ""), invalid, "holds no credentials"},
		{"token of two lines", kubeconfigOf(server, `token: "s3cr3t\nX: y"`), invalid, "blanks or line breaks"},
		{"CA that is no PEM", kubeconfigOf(server+", certificate-authority-data: czNjcjN0", token), invalid, "certificate-authority-data"},
		{"certificate without key", kubeconfigOf(server, "client-certificate-data: "+cert), invalid, "no pair of PEM"},
		{"key without certificate", kubeconfigOf(server, "client-key-data: "+key), invalid, "no pair of PEM"},
		{"certificate that is no PEM", kubeconfigOf(server, "client-certificate-data: czNjcjN0, client-key-data: "+key), invalid, "no pair of PEM"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config, err := ParseKubeconfig([]byte(tc.config))
			require.Nil(t, config)
			var refusal *KubeconfigError
			require.True(t, errors.As(err, &refusal), "got %v", err)
			require.Equal(t, tc.reason, refusal.Reason, refusal.Message)
			require.Contains(t, refusal.Message, tc.says)
			require.NotContains(t, refusal.Message, secretWord)
			require.NotContains(t, refusal.Message, "\n")
		})
	}
}

func TestParseKubeconfigTakesDataOnly(t *testing.T) {
	cert, key := selfSigned(t)
	config, err := ParseKubeconfig([]byte(kubeconfigOf(
		"server: 'https://10.0.0.1:6443/k8s/a', tls-server-name: api, certificate-authority-data: "+cert,
		"token: abc, client-certificate-data: "+cert+", client-key-data: "+key)))
	require.NoError(t, err)
	require.Equal(t, "https://10.0.0.1:6443/k8s/a", config.Host)
	require.Equal(t, "abc", config.BearerToken)
	require.Equal(t, "api", config.ServerName)
	require.NotEmpty(t, config.CAData)
	require.NotEmpty(t, config.CertData)
	require.NotEmpty(t, config.KeyData)
	require.Nil(t, config.ExecProvider)
}

// An unused user cannot do harm: only the current context is ever read.
func TestParseKubeconfigIgnoresOtherContexts(t *testing.T) {
	config := strings.Replace(kubeconfigOf("server: 'https://a'", "token: abc"), "users: [",
		"users: [{name: other, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}}}, ", 1)
	_, err := ParseKubeconfig([]byte(config))
	require.NoError(t, err)
}

func FuzzParseKubeconfig(f *testing.F) {
	f.Add([]byte(kubeconfigOf("server: 'https://a'", "token: abc")))
	f.Add([]byte(kubeconfigOf("server: 'https://a', proxy-url: 'http://p'", "exec: {command: sh}")))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := ParseKubeconfig(data)
		var refusal *KubeconfigError
		if err != nil {
			require.True(t, errors.As(err, &refusal))
			return
		}
		require.Nil(t, config.ExecProvider)
		require.Nil(t, config.AuthProvider)
		require.Empty(t, config.BearerTokenFile+config.CAFile+config.CertFile+config.KeyFile)
		require.False(t, config.Insecure)
		require.True(t, strings.HasPrefix(strings.ToLower(config.Host), "https://"))
	})
}

// selfSigned makes a certificate and its key, PEM in base64.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "isthmus"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}
