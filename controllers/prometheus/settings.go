// SPDX-License-Identifier: Apache-2.0

// Package prometheus asks a Prometheus, or what speaks its HTTP API, for one value.
//
//	MemberCluster spec.prometheus ─┐
//	                               ├─> Directory.Of(cluster) ─> Client.Value(query) ─> a number, ErrNoValue, or why not
//	isthmus-hub --prometheus-url ──┘
//
// # Implementation considerations
//
// Answers are judged elsewhere: that a value is missing, and that nobody answers, are different things, and neither is good or
// bad. Errors hold no address, no credentials and nothing of a body but Prometheus's own message, since they end up in status.
// Redirects are not followed, which could carry the credentials elsewhere.
package prometheus

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Keys of a Prometheus's Secret, all of which are optional.
const (
	keyToken    = "token"    // bearer token
	keyUsername = "username" // basic authentication, with
	keyPassword = "password"
	keyCA       = "ca.crt" // PEM; default: the system's authorities
)

// settings of a client.
type settings struct {
	url                       *url.URL
	token, username, password string
	roots                     *x509.CertPool
}

// Validate says what is wrong with the address of a Prometheus, such as one that was given by a flag.
func Validate(p v1alpha1.Prometheus) error {
	_, err := parseURL(p.URL)
	return err
}

// parseURL never repeats what it was given: it may hold a password in spite of all.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "":
		return nil, errors.New("its url has to be an address that begins with https:// or http://")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("its url must not hold a user, a query or a fragment: credentials belong in the Secret")
	}
	return u, nil
}

// settingsOf a Prometheus; secret is nil where it names none.
func settingsOf(p v1alpha1.Prometheus, secret *corev1.Secret) (settings, error) {
	u, err := parseURL(p.URL)
	if err != nil || secret == nil {
		return settings{url: u}, err
	}
	text := func(key string) string { return strings.TrimSpace(string(secret.Data[key])) }
	s := settings{url: u, token: text(keyToken), username: text(keyUsername), password: text(keyPassword)}
	wrong := func(format string, args ...any) (settings, error) {
		return settings{}, fmt.Errorf("its Secret %s/%s: %s", secret.Namespace, secret.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case s.token != "" && (s.username != "" || s.password != ""):
		return wrong("it has a %s and a %s: leave one of them out", keyToken, keyUsername)
	case s.password != "" && s.username == "":
		return wrong("it has a %s and no %s", keyPassword, keyUsername)
	case !httpguts.ValidHeaderFieldValue(s.token):
		return wrong("key %s holds what no header can carry, such as a line break", keyToken)
	}
	if pem, given := secret.Data[keyCA]; given {
		if s.roots = x509.NewCertPool(); !s.roots.AppendCertsFromPEM(pem) {
			return wrong("key %s holds no PEM certificate", keyCA)
		}
	}
	return s, nil
}
