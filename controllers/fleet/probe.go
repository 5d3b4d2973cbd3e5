// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/version"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// probeTrouble says why a probe failed.
type probeTrouble struct {
	reason, message string
}

// probeLoop asks for /version again and again: cheap, allowed to everybody who is authenticated, and the same
// answer tells the version.
func (m *member) probeLoop(conn *connection) {
	for conn.ctx.Err() == nil {
		var info version.Info
		status, err := conn.getJSON(conn.ctx, conn.probe, "/version", &info)
		if conn.ctx.Err() != nil {
			return
		}
		if m.probed(conn, info.GitVersion, status, err) {
			return // the member has returned, and a new connection probes from here on
		}
		m.sleep(conn.ctx, jitter(m.opts.ProbeInterval, 0.2))
	}
}

// probed takes a probe's result in, and tells whether it ended the connection that asked.
func (m *member) probed(conn *connection, version string, status int, err error) (replaced bool) {
	m.mu.Lock()
	if m.conn != conn {
		m.mu.Unlock()
		return true
	}
	before := m.phase
	if err == nil {
		m.failures, m.version = 0, version
		m.enter(Connected)
	} else {
		m.failures++
		m.trouble = explainProbe(conn.config.Host, status, err, m.opts.ProbeTimeout)
		if m.failures >= m.opts.LostAfter {
			m.enter(Lost)
		}
	}
	trouble := m.trouble
	m.mu.Unlock()
	if err != nil {
		m.opts.Log.V(1).Info("probe failed", "member", m.name, "reason", trouble.reason, "why", trouble.message)
	}
	m.changed()
	if before != Lost || err != nil {
		return false
	}
	// Informers that met a dead API server wait up to 30 s between tries, and a connection that was cut may
	// look alive: start anew rather than wait. What was read keeps serving meanwhile.
	replaced, err = m.connect(conn, conn.config)
	if err != nil {
		m.opts.Log.Error(err, "connecting anew failed", "member", m.name)
	}
	return replaced
}

func (m *member) enter(phase Phase) {
	if m.phase != phase {
		m.phase, m.since = phase, m.opts.Clock.Now()
	}
}

// explainProbe says what is wrong and what to do. Ephemeral ports and times are left out, since the same trouble
// has to give the same words each time.
func explainProbe(host string, status int, err error, timeout time.Duration) probeTrouble {
	switch status {
	case http.StatusUnauthorized:
		return probeTrouble{v1alpha1.ReasonUnauthorized,
			"the API server refuses the credentials (401): rotate the token in the Secret"}
	case http.StatusForbidden:
		return probeTrouble{v1alpha1.ReasonForbidden,
			"the API server forbids GET /version (403): bind Isthmus's account in the member to its role"}
	case 0:
		return probeTrouble{v1alpha1.ReasonUnreachable,
			fmt.Sprintf("%s: %s: check the address in the kubeconfig, the network and the API server", host, explainNetwork(err, timeout))}
	}
	return probeTrouble{v1alpha1.ReasonUnreachable,
		fmt.Sprintf("%s answered /version with %d: check the address in the kubeconfig and the API server", host, status)}
}

func explainNetwork(err error, timeout time.Duration) string {
	var (
		dns         *net.DNSError
		certificate x509.CertificateInvalidError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		operation   *net.OpError
		timedOut    net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, errNoAnswer), errors.As(err, &timedOut) && timedOut.Timeout():
		return fmt.Sprintf("no answer within %s", timeout)
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return "its certificate has expired or is not valid yet"
	case errors.As(err, &authority):
		return "its certificate is not signed by the kubeconfig's certificate authority"
	case errors.As(err, &hostname):
		return "its certificate is for another name"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was closed"
	case errors.As(err, &operation):
		return operation.Err.Error()
	}
	return oneLine(err)
}

// sleep waits by the fleet's clock.
func (m *member) sleep(ctx context.Context, d time.Duration) {
	timer := m.opts.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}

// jitter spreads a duration by the given share to both sides, so that members are not asked in step.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}
