// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// KubeconfigError says why a kubeconfig was refused, and what to do. It never holds a credential.
type KubeconfigError struct {
	// Reason is v1alpha1.ReasonInvalidKubeconfig or v1alpha1.ReasonUnsafeKubeconfig.
	Reason  string
	Message string
}

func (e *KubeconfigError) Error() string { return e.Message }

func invalidKubeconfig(format string, args ...any) error {
	return &KubeconfigError{Reason: v1alpha1.ReasonInvalidKubeconfig, Message: "the kubeconfig " + fmt.Sprintf(format, args...)}
}

// ParseKubeconfig reads a kubeconfig as data: no program runs and no file is read, whatever it says. Only its
// current context counts. Anything that would run a program, read a file of the hub, send credentials in clear
// or to an unverified server, or act as somebody else, is refused in words (*KubeconfigError).
func ParseKubeconfig(data []byte) (*rest.Config, error) {
	cluster, user, err := currentContext(data)
	if err != nil {
		return nil, err
	}
	for _, check := range kubeconfigChecks {
		if message := check.refuses(cluster, user); message != "" {
			return nil, &KubeconfigError{Reason: check.reason, Message: "the kubeconfig " + message}
		}
	}
	return &rest.Config{
		Host:               cluster.Server,
		BearerToken:        user.Token,
		DisableCompression: cluster.DisableCompression,
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: cluster.TLSServerName,
			CAData:     cluster.CertificateAuthorityData,
			CertData:   user.ClientCertificateData,
			KeyData:    user.ClientKeyData,
		},
		UserAgent: "isthmus-hub",
	}, nil
}

// line finds the only part of a parser's message that cannot hold a credential.
var line = regexp.MustCompile(`line \d+`)

func currentContext(data []byte) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil, nil, invalidKubeconfig("is empty: put a kubeconfig into the Secret")
	}
	config, err := clientcmd.Load(data)
	if err != nil {
		where := line.FindString(err.Error())
		if where != "" {
			where = " (" + where + ")"
		}
		return nil, nil, invalidKubeconfig("is not valid YAML of kind Config%s: put one into the Secret that kubectl can use", where)
	}
	if config.CurrentContext == "" {
		return nil, nil, invalidKubeconfig("has no current-context: set it to the context to use")
	}
	context := config.Contexts[config.CurrentContext]
	if context == nil {
		return nil, nil, invalidKubeconfig("has no context %q, which current-context names: add it, or name another", config.CurrentContext)
	}
	cluster, user := config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo]
	if cluster == nil {
		return nil, nil, invalidKubeconfig("has no cluster %q, which the current context names: add it", context.Cluster)
	}
	if user == nil {
		return nil, nil, invalidKubeconfig("has no user %q, which the current context names: add it", context.AuthInfo)
	}
	return cluster, user, nil
}

const (
	credentialAdvice = "put a bearer token or client certificate into the kubeconfig as data"
	unsafe           = v1alpha1.ReasonUnsafeKubeconfig
	invalid          = v1alpha1.ReasonInvalidKubeconfig
)

// kubeconfigChecks are asked in this order; the first that has something to say refuses.
var kubeconfigChecks = []struct {
	reason  string
	refuses func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo) string
}{
	{unsafe, refuseExec},
	{unsafe, refuseAuthProvider},
	{unsafe, refuseFiles},
	{unsafe, refuseInsecureTLS},
	{unsafe, refuseProxy},
	{unsafe, refuseImpersonation},
	{unsafe, refuseBasicAuth},
	{unsafe, refusePlainHTTP},
	{invalid, refuseServer},
	{invalid, refuseAuthorityData},
	{invalid, refuseCredentials},
}

func refuseExec(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	if user.Exec == nil {
		return ""
	}
	return "runs a program (user.exec), which Isthmus never does: " + credentialAdvice
}

func refuseAuthProvider(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	if user.AuthProvider == nil {
		return ""
	}
	return "uses an auth-provider, which Isthmus never runs: " + credentialAdvice
}

func refuseFiles(cluster *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	for _, file := range []struct{ path, field, instead string }{
		{user.TokenFile, "user.tokenFile", "user.token"},
		{user.ClientCertificate, "user.client-certificate", "user.client-certificate-data"},
		{user.ClientKey, "user.client-key", "user.client-key-data"},
		{cluster.CertificateAuthority, "cluster.certificate-authority", "cluster.certificate-authority-data"},
	} {
		if file.path != "" {
			return fmt.Sprintf("names a file (%s), and Isthmus never reads files of the hub: put the contents into %s; kubectl config view --raw --flatten does it",
				file.field, file.instead)
		}
	}
	return ""
}

func refuseInsecureTLS(cluster *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) string {
	if !cluster.InsecureSkipTLSVerify {
		return ""
	}
	return "sets insecure-skip-tls-verify, which would hand the credentials to anybody: put the cluster's CA into cluster.certificate-authority-data"
}

func refuseProxy(cluster *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) string {
	if cluster.ProxyURL == "" {
		return ""
	}
	return "sets proxy-url: remove it, and give the hub a route to the API server, or HTTPS_PROXY in its Deployment"
}

func refuseImpersonation(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	if user.Impersonate == "" && user.ImpersonateUID == "" && len(user.ImpersonateGroups) == 0 && len(user.ImpersonateUserExtra) == 0 {
		return ""
	}
	return "impersonates (user.as…): remove that, and use the credentials of Isthmus's own account in the member"
}

func refuseBasicAuth(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	if user.Username == "" && user.Password == "" {
		return ""
	}
	return "uses a user name and password, which Kubernetes no longer accepts: " + credentialAdvice
}

func refusePlainHTTP(cluster *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) string {
	if !strings.HasPrefix(strings.ToLower(cluster.Server), "http://") {
		return ""
	}
	return "names a server without TLS (http://), which would send the credentials in clear: use https://"
}

// refuseServer never echoes the address: a URL can hold a password.
func refuseServer(cluster *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) string {
	server, err := url.Parse(cluster.Server)
	switch {
	case cluster.Server == "":
		return "names no server: set cluster.server to https://<address>"
	case err != nil || server.Scheme != "https" || server.Hostname() == "":
		return "has a cluster.server that is no https:// address: set it to https://<address>"
	case server.User != nil || server.RawQuery != "" || server.Fragment != "":
		return "has a cluster.server with more than an address and a path: remove user, query and fragment"
	}
	return ""
}

func refuseAuthorityData(cluster *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) string {
	if len(cluster.CertificateAuthorityData) == 0 || x509.NewCertPool().AppendCertsFromPEM(cluster.CertificateAuthorityData) {
		return ""
	}
	return "has a certificate-authority-data that is no PEM certificate: put the cluster's CA there, base64-encoded"
}

func refuseCredentials(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) string {
	hasCertificate := len(user.ClientCertificateData) > 0 || len(user.ClientKeyData) > 0
	if user.Token == "" && !hasCertificate {
		return "holds no credentials: " + credentialAdvice
	}
	if strings.ContainsFunc(user.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "has a token with blanks or line breaks in it: put the bare token there"
	}
	if !hasCertificate {
		return ""
	}
	if _, err := tls.X509KeyPair(user.ClientCertificateData, user.ClientKeyData); err != nil {
		return "has a client certificate and key that are no pair of PEM blocks: put both there, base64-encoded"
	}
	return ""
}
