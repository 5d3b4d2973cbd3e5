// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	apiv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"isthmus.dev/isthmus/controllers/silence"
)

const (
	// maxAnswer bounds an answer in bytes: one value takes a few hundred, and a query that forgot to sum may take any number.
	maxAnswer = 1 << 20
	// maxConnections to one Prometheus.
	maxConnections = 16
	// maxSaid bounds what is repeated of Prometheus's own message, in bytes.
	maxSaid = 400
)

// ErrNoValue is an answer with no sample in it: nothing matched, or it is too old.
var ErrNoValue = errors.New("the query gives no value")

// Client asks one Prometheus. It may be used by several at once.
type Client struct {
	host  string
	api   apiv1.API
	close func()
}

func newClient(s settings) (*Client, error) {
	// A transport of its own: with the default one, credentials and trust would be those of others as well.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxConnsPerHost: maxConnections,
		MaxIdleConnsPerHost: maxConnections, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 1 << 16,
		TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}}
	client, err := api.NewClient(api.Config{Address: s.url.String(), Client: &http.Client{Transport: guarded{s, transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}})
	if err != nil {
		return nil, err
	}
	return &Client{host: s.url.Host, api: apiv1.NewAPI(client), close: transport.CloseIdleConnections}, nil
}

// String is the host that is asked.
func (c *Client) String() string { return c.host }

// guarded adds the credentials to a request, and a bound to its answer.
type guarded struct {
	settings settings
	next     http.RoundTripper
}

func (g guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", "isthmus")
	switch {
	case g.settings.token != "":
		req.Header.Set("Authorization", "Bearer "+g.settings.token)
	case g.settings.username != "":
		req.SetBasicAuth(g.settings.username, g.settings.password)
	}
	resp, err := g.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// Value of a query now: a scalar, or a vector of one sample. The error is ErrNoValue where the answer holds none, and else says
// in words that stay the same why there is no answer, or what is wrong with the query.
func (c *Client) Value(ctx context.Context, query string, timeout time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, _, err := c.api.Query(ctx, query, time.Time{}, apiv1.WithTimeout(timeout))
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	switch v := value.(type) {
	case *model.Scalar:
		return float64(v.Value), nil
	case model.Vector:
		switch {
		case len(v) == 0:
			return 0, ErrNoValue
		case len(v) > 1:
			return 0, errors.New("the query gives more than one value: make it one, such as by sum()")
		case v[0].Histogram != nil:
			return 0, errors.New("the query gives a histogram: make it a number, such as by histogram_quantile()")
		}
		return float64(v[0].Value), nil
	}
	return 0, fmt.Errorf("the query gives a %s: make it a scalar or a vector of one value", value.Type())
}

// explain is an error in words for people.
func (c *Client) explain(ctx context.Context, err error) error {
	var answered *apiv1.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("the answer of Prometheus %s is longer than %d KiB: make the query give one value, such as by sum()", c.host, maxAnswer>>10)
	case !errors.As(err, &answered) && unheard(ctx, err):
		return fmt.Errorf("its Prometheus %s cannot be reached: %s", c.host, silence.Why(ctx, err))
	case answered == nil:
		return fmt.Errorf("the answer of Prometheus %s cannot be read: make the query give a scalar or a vector of one value", c.host)
	case answered.Type == apiv1.ErrBadResponse && !strings.HasPrefix(answered.Msg, "bad response code"):
		return fmt.Errorf("what answers at %s is no Prometheus: correct the url", c.host)
	case answered.Type == apiv1.ErrBadResponse, answered.Type == apiv1.ErrClient:
		return fmt.Errorf("its Prometheus %s answers %s: correct the url or the Secret; redirects are not followed", c.host, status(answered.Msg))
	case answered.Type == apiv1.ErrServer:
		return fmt.Errorf("its Prometheus %s answers %s", c.host, status(answered.Msg))
	}
	said := strings.ToValidUTF8(strings.Join(strings.Fields(answered.Msg), " "), "")
	return fmt.Errorf("its Prometheus %s refuses the query: %s", c.host, strings.ToValidUTF8(said[:min(len(said), maxSaid)], ""))
}

// unheard tells whether an error is the network's, and not that of reading what was heard.
func unheard(ctx context.Context, err error) bool {
	var inRequest *url.Error
	var inAnswer net.Error
	return ctx.Err() != nil || errors.As(err, &inRequest) || errors.As(err, &inAnswer) || errors.Is(err, io.ErrUnexpectedEOF)
}

// status is the number at the end of the library's message.
func status(message string) string {
	return message[strings.LastIndex(message, " ")+1:]
}
