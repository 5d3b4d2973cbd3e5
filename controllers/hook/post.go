// SPDX-License-Identifier: Apache-2.0

// Package hook posts to the addresses that people give Isthmus to call.
package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Timeout of one request.
const Timeout = 10 * time.Second

var (
	// ErrAddress tells that nothing was sent.
	ErrAddress = errors.New("its url is no address: correct it")
	// ErrMachine tells that nothing was sent, because the address belongs to the hub's machine and not to the network.
	ErrMachine = errors.New("its address is one of the hub's own machine, such as that of a cloud's metadata, and these are not asked: name another")
)

// Request to a web hook.
type Request struct {
	URL         string
	Body        []byte
	ContentType string
	// Authorization is that header's value, if any.
	Authorization string
	// Roots that vouch for its certificate; nil is the system's.
	Roots *x509.CertPool
	// OfTenant is whether the URL was written by somebody who need not have a say on the hub. Such a one does not reach what
	// only the hub's machine does.
	OfTenant bool
}

// Answer of a web hook, without its body.
type Answer struct {
	Code   int
	Status string
	Header http.Header
}

// Post sends one request. A redirect is an answer like any other: to follow it could carry the credentials elsewhere. An error
// other than ErrAddress and ErrMachine says that nobody answered; it may hold the address, which may be a secret.
func Post(ctx context.Context, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return Answer{}, ErrAddress
	}
	req.Header.Set("Content-Type", r.ContentType)
	req.Header.Set("User-Agent", "isthmus")
	if r.Authorization != "" {
		req.Header.Set("Authorization", r.Authorization)
	}
	// A transport for each request, without the credentials and trust of others: requests are rare, and a kept connection may be
	// dead when it is needed.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 1 << 16, TLSClientConfig: &tls.Config{RootCAs: r.Roots, MinVersion: tls.VersionTLS12}}
	if r.OfTenant {
		transport.DialContext = (&net.Dialer{Timeout: Timeout, Control: refuseMachine}).DialContext
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return Answer{Code: resp.StatusCode, Status: resp.Status, Header: resp.Header}, nil
}

// metadata is the address of Amazon's instance metadata over IPv6; that over IPv4, as others have it too, is link-local.
var metadata = netip.MustParseAddr("fd00:ec2::254")

// refuseMachine refuses to connect to addresses that belong to the machine: it is asked for each one that a name resolves to, so
// that no name leads there either.
func refuseMachine(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrAddress
	}
	ip := to.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip.WithZone("") == metadata {
		return ErrMachine
	}
	return nil
}
