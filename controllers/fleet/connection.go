// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// connection is one set of credentials in use. It is never changed: a new kubeconfig, or a member that returned,
// makes a new one, so that nothing of a broken one lingers.
type connection struct {
	// config is for what is made with http: rate, address, no credentials are read from it any more.
	config *rest.Config
	http   *http.Client
	// probe has a transport of its own: it must not queue behind a list, and notices a dead link by itself.
	probe  *http.Client
	live   client.Client
	mapper *mapper
	ctx    context.Context
	cancel context.CancelFunc
}

func newConnection(ctx context.Context, member string, config *rest.Config, opts Options) (*connection, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = opts.QPS, opts.Burst
	// One limiter for the member: each REST client would otherwise have one of its own.
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(opts.QPS, opts.Burst)
	transport, err := newTransport(config)
	if err != nil {
		return nil, err
	}
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: opts.ProbeTimeout}
	transport.ForceAttemptHTTP2 = true
	probe, err := newTransport(config)
	if err != nil {
		return nil, err
	}
	// HTTP/1.1: a probe that is given up takes its connection with it, so the next one dials.
	probe.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	c := &connection{config: config, mapper: newMapper()}
	if c.http, err = newHTTPClient(config, transport, opts.RequestTimeout); err != nil {
		return nil, err
	}
	if c.probe, err = newHTTPClient(config, probe, opts.ProbeTimeout); err != nil {
		return nil, err
	}
	c.live, err = client.New(config, client.Options{HTTPClient: c.http, Scheme: opts.Scheme, Mapper: c.mapper})
	if err != nil {
		return nil, err
	}
	c.live = opts.WrapClient(member, c.live)
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c, nil
}

// newTransport makes a transport that is shared with nobody: client-go would share one between equal configs, and
// one stalled connection would then stall the probe that is to notice it.
func newTransport(config *rest.Config) (*http.Transport, error) {
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("TLS settings: %w", err)
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 3 * time.Second,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  config.DisableCompression,
	}, nil
}

func newHTTPClient(config *rest.Config, transport *http.Transport, timeout time.Duration) (*http.Client, error) {
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, fmt.Errorf("HTTP client: %w", err)
	}
	return &http.Client{
		Transport: &timeLimit{next: wrapped, idle: transport, limit: timeout},
		// The token would be sent along to wherever a redirect points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// errNoAnswer is a request's end by its time limit.
var errNoAnswer = errors.New("no answer in time")

// timeLimit gives each request its time: the whole of a write, the answer's beginning for a watch, and six times
// the limit for the body of a read, since a list may be long and the link slow. http.Client.Timeout would end
// watches too.
type timeLimit struct {
	next  http.RoundTripper
	idle  *http.Transport
	limit time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *timeLimit) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(t.limit, func() { cancel(errNoAnswer) })
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = fmt.Errorf("%w (%s)", errNoAnswer, t.limit)
		}
		cancel(nil)
		return nil, err
	}
	switch {
	case isWatch(req):
		timer.Stop()
	case req.Method == http.MethodGet:
		timer.Reset(5 * t.limit)
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, done: func() { timer.Stop(); cancel(nil) }}
	return resp, nil
}

// CloseIdleConnections lets http.Client close what a stopped connection leaves behind.
func (t *timeLimit) CloseIdleConnections() { t.idle.CloseIdleConnections() }

func isWatch(req *http.Request) bool {
	watch := req.URL.Query().Get("watch")
	return watch == "true" || watch == "1"
}

// limitedBody frees a request's timer once its answer was read.
type limitedBody struct {
	io.ReadCloser
	done func()
}

// Close implements io.Closer.
func (b *limitedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// close ends what was made with the connection but the informers that still serve.
func (c *connection) close() {
	c.cancel()
	c.probe.CloseIdleConnections()
}

// errKindMissing says that the member does not serve a kind.
var errKindMissing = errors.New("the member does not serve this kind")

// resolve asks the member for a kind's resource, and remembers it for the live client.
func (c *connection) resolve(ctx context.Context, gvk schema.GroupVersionKind) error {
	var list metav1.APIResourceList
	path := "/apis/" + gvk.GroupVersion().String()
	if gvk.Group == "" {
		path = "/api/" + gvk.Version
	}
	switch status, err := c.getJSON(ctx, c.http, path, &list); {
	case status == http.StatusNotFound:
		c.mapper.forget(gvk)
		return errKindMissing
	case err != nil:
		return err
	}
	for _, resource := range list.APIResources {
		if resource.Kind == gvk.Kind && !strings.Contains(resource.Name, "/") {
			c.mapper.add(gvk, resource)
			return nil
		}
	}
	c.mapper.forget(gvk)
	return errKindMissing
}

// maxDocument bounds what is read of a discovery document or a version.
const maxDocument = 4 << 20

// getJSON reads one small document. The status is 0 when there was no answer.
func (c *connection) getJSON(ctx context.Context, with *http.Client, path string, into any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.config.Host, "/")+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := with.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("the server answered %s", http.StatusText(resp.StatusCode))
	}
	return resp.StatusCode, json.Unmarshal(body, into)
}
