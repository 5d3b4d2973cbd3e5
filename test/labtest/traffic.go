// SPDX-License-Identifier: Apache-2.0

//go:build linux

package labtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Tally is who answered how often, and what failed.
type Tally struct {
	mu sync.Mutex
	// ByServer counts answers by the cluster that gave them.
	ByServer map[string]int
	failed   map[string]int
	// answered are those of the failed that were answered by a server all the same, by that.
	answered map[string]int
	total    int
}

func newTally() *Tally {
	return &Tally{ByServer: map[string]int{}, failed: map[string]int{}, answered: map[string]int{}}
}

func (c *Tally) add(server string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	if err != nil {
		c.failed[err.Error()]++
		c.answered[server]++
		return
	}
	c.ByServer[server]++
}

// Failures is how many requests got no good answer.
func (c *Tally) Failures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.failed {
		n += k
	}
	return n
}

// AnsweredBadly is how many requests a server answered itself, with an error.
func (c *Tally) AnsweredBadly(server string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered[server]
}

// String is the whole tally in a line.
func (c *Tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d requests, answered by %v, failed %v", c.total, c.ByServer, c.failed)
}

// Requester sends requests for one host at one member's gateway.
type Requester struct {
	client     http.Client
	method     string
	header     http.Header
	url, host  string
	serverName *regexp.Regexp
}

var (
	helloVersion = regexp.MustCompile(`version: ([a-z0-9]+)`)
	helloServer  = regexp.MustCompile(`cluster: ([a-z0-9-]+)`)
	echoServer   = regexp.MustCompile(`"cluster": ?"([a-z0-9-]+)"`)
)

// Hello requests the example's helloworld, which a policy splits.
func Hello(t testing.TB, member string) *Requester {
	return newRequester(t, member, "/hello", "helloworld.example.com", helloServer)
}

// Version requests the example's helloworld, and tells answers apart by the version that gave them.
func Version(t testing.TB, member string) *Requester {
	return newRequester(t, member, "/hello", "helloworld.example.com", helloVersion)
}

// VersionAt requests helloworld under another host name, and tells answers apart by the version that gave them.
func VersionAt(t testing.TB, member, host string) *Requester {
	return newRequester(t, member, "/hello", host, helloVersion)
}

// Echo requests the example's echoserver, for which there is no policy.
func Echo(t testing.TB, member string) *Requester {
	return newRequester(t, member, "/", "echo.example.com", echoServer)
}

func newRequester(t testing.TB, member, path, host string, server *regexp.Regexp) *Requester {
	t.Helper()
	var base string
	Eventually(t, func() (err error) { base, err = Lab.GatewayURL(member); return err })
	return &Requester{method: http.MethodGet, url: base + path, host: host, serverName: server,
		client: http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
}

// By sends requests of another method than GET.
func (r *Requester) By(method string) *Requester {
	r.method = method
	return r
}

// With sends a header with each request.
func (r *Requester) With(name, value string) *Requester {
	r.header = http.Header{name: {value}}
	return r
}

// KeepingCookies sends back what cookies answers set, as a browser does.
func (r *Requester) KeepingCookies(t testing.TB) *Requester {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	r.client.Jar = jar
	return r
}

// StatusError is an answer that is not 200.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// Send makes one request and says which cluster answered, also where that was with a StatusError.
func (r *Requester) Send(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, nil)
	if err != nil {
		return "", err
	}
	req.Host = r.host
	maps.Copy(req.Header, r.header)
	resp, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Isthmus-") {
			return "", fmt.Errorf("the answer carries the header %s, which only gateways are to see", name)
		}
	}
	server := ""
	if match := r.serverName.FindSubmatch(body); match != nil {
		server = string(match[1])
	}
	if resp.StatusCode != http.StatusOK || server == "" {
		return server, StatusError(resp.StatusCode)
	}
	return server, nil
}

// Count sends n requests over eight connections.
func (r *Requester) Count(n int) *Tally {
	c := newTally()
	var wg sync.WaitGroup
	work := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for range work {
				c.add(r.Send(context.Background()))
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	return c
}

// UnderLoad sends requests, one after the other on each of four connections, until the returned function is called.
func (r *Requester) UnderLoad() (stop func() *Tally) {
	ctx, cancel := context.WithCancel(context.Background())
	c := newTally()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					c.add(r.Send(context.WithoutCancel(ctx)))
				}
			}
		})
	}
	return func() *Tally { cancel(); wg.Wait(); return c }
}

// ExpectOnly waits until so many requests in a row are all answered by one cluster.
func (r *Requester) ExpectOnly(t testing.TB, server string, inARow int) {
	t.Helper()
	Eventually(t, func() error {
		if c := r.Count(inARow); c.ByServer[server] != inARow {
			return fmt.Errorf("not all by %s: %s", server, c)
		}
		return nil
	})
}

// ExpectSplit counts n requests and compares with the binomial: none fails, and the share of one cluster is within
// five standard deviations, which chance passes once in two million runs.
func (r *Requester) ExpectSplit(t testing.TB, n int, server string, share float64) {
	t.Helper()
	c := r.Count(n)
	z := (float64(c.ByServer[server]) - float64(n)*share) / math.Sqrt(float64(n)*share*(1-share))
	t.Logf("%s: %s, z = %.2f", r.url, c, z)
	require.Zero(t, c.Failures(), c)
	require.LessOrEqual(t, math.Abs(z), 5.0, c)
}

// WeightsOf reads a generated route's first rule.
func WeightsOf(r *gatewayv1.HTTPRoute, member string) map[string]int32 {
	out := map[string]int32{}
	for _, b := range r.Spec.Rules[0].BackendRefs {
		out[ServerOf(b, member)] += *b.Weight
	}
	return out
}

// ServerOf is the cluster that stands behind a backend of a member's generated route: its host name says it, and a plain
// Service is the cluster itself.
func ServerOf(b gatewayv1.HTTPBackendRef, member string) string {
	if b.Kind != nil && *b.Kind == "Hostname" {
		return strings.Split(string(b.Name), ".")[2]
	}
	return member
}

// HelloAt requests helloworld under another host name.
func HelloAt(t testing.TB, member, host string) *Requester {
	return newRequester(t, member, "/hello", host, helloServer)
}
