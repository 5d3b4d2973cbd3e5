// SPDX-License-Identifier: Apache-2.0

// Package alert tells people by web hook what the controllers did: failover, failback, drain, freeze.
//
//	Raise ─> pending (one object and reason, joined for a second) ─> a line for each web hook ─> POST, repeated
//
// # Implementation considerations
//
// A web hook is a Secret, since its address is one: whoever knows the address of a chat's hook can write there. It never
// appears in a log, an Event or an error. Raise never waits, and a hook that does not answer holds up neither the
// controllers nor another hook. A line is kept in memory: what waits when the leader ends is lost, while Events and
// metrics have said it as well.
package alert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// Keys of a web hook's Secret.
const (
	keyURL           = "url"           // https://… or http://…; required
	keyFormat        = "format"        // cloudevents (default) or slack
	keyAuthorization = "authorization" // value of the header Authorization
	keyCA            = "ca.crt"        // PEM; default: the system's roots
	keyReasons       = "reasons"       // which alerts, separated by commas; default: all
	keySource        = "source"        // source of the CloudEvents; default /isthmus
)

var targetKeys = []string{keyURL, keyFormat, keyAuthorization, keyCA, keyReasons, keySource}

// Format is the form of a message.
type Format string

// Formats of a message.
const (
	CloudEvents Format = "cloudevents"
	Slack       Format = "slack"
)

// target is where a web hook's messages go.
type target struct {
	name          string
	url           *url.URL
	format        Format
	authorization string
	roots         *x509.CertPool
	reasons       []string
	source        string
}

// wants tells whether the hook is told of an alert.
func (t target) wants(r raised) bool {
	if r.only != "" {
		return r.only == t.name
	}
	return len(t.reasons) == 0 || slices.Contains(t.reasons, r.Reason)
}

// Validate says what is wrong with a web hook's Secret, without saying what is in it.
func Validate(secret *corev1.Secret) error {
	_, err := targetOf(secret)
	return err
}

func targetOf(secret *corev1.Secret) (target, error) {
	text := func(key string) string { return strings.TrimSpace(string(secret.Data[key])) }
	t := target{name: secret.Name, format: Format(text(keyFormat)), authorization: text(keyAuthorization), source: text(keySource)}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		if !slices.Contains(targetKeys, key) {
			problems = append(problems, fmt.Errorf("key %q is not known: use %s", key, strings.Join(targetKeys, ", ")))
		}
	}
	if t.format == "" {
		t.format = CloudEvents
	}
	if t.format != CloudEvents && t.format != Slack {
		problems = append(problems, fmt.Errorf("key %s has to be %s or %s", keyFormat, CloudEvents, Slack))
	}
	if t.source == "" {
		t.source = "/isthmus"
	}
	if _, err := url.Parse(t.source); err != nil {
		problems = append(problems, fmt.Errorf("key %s is no URI reference", keySource))
	}
	if !httpguts.ValidHeaderFieldValue(t.authorization) {
		problems = append(problems, fmt.Errorf("key %s holds what no header can carry, such as a line break", keyAuthorization))
	}
	var err error
	if t.url, err = parseURL(text(keyURL)); err != nil {
		problems = append(problems, err)
	}
	if pem, given := secret.Data[keyCA]; given {
		if t.roots = x509.NewCertPool(); !t.roots.AppendCertsFromPEM(pem) {
			problems = append(problems, fmt.Errorf("key %s holds no PEM certificate", keyCA))
		}
	}
	if t.reasons, err = parseReasons(text(keyReasons)); err != nil {
		problems = append(problems, err)
	}
	return t, errors.Join(problems...)
}

// parseURL never repeats what it was given.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" {
		return nil, fmt.Errorf("key %s has to be an address that begins with https:// or http://", keyURL)
	}
	if u.User != nil {
		return nil, fmt.Errorf("key %s must not hold a user: put the credentials under %s", keyURL, keyAuthorization)
	}
	return u, nil
}

func parseReasons(text string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if _, known := federation.AlertReasons[part]; !known {
			return nil, fmt.Errorf("key %s: there is no %q: use %s", keyReasons, part,
				strings.Join(slices.Sorted(maps.Keys(federation.AlertReasons)), ", "))
		}
		out = append(out, part)
	}
	return out, nil
}

// IsWebhook tells whether a Secret is one: the label counts, whatever its value.
func IsWebhook(secret client.Object) bool {
	_, labelled := secret.GetLabels()[v1alpha1.LabelAlertWebhook]
	return labelled && secret.GetNamespace() == v1alpha1.SystemNamespace
}
