// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
)

// threshold is the state of a probe: its value changes after as many equal results in a row as the
// probe's thresholds ask for.
type threshold struct {
	rise, fall int  // results in a row, at least 1
	value      bool // what the probe says now
	last       bool
	run        int // results equal to last, in a row
}

// newThreshold starts with the value that a container has before its first result.
func newThreshold(p *corev1.Probe, initial bool) *threshold {
	return &threshold{rise: max(int(p.SuccessThreshold), 1), fall: orDefault(p.FailureThreshold, 3), value: initial}
}

// observe takes a result and says whether the probe is settled by it: so many in a row that its
// value is known, whether it changed or not.
func (t *threshold) observe(ok bool) (settled bool) {
	if ok != t.last {
		t.last, t.run = ok, 0
	}
	t.run++
	need := t.fall
	if ok {
		need = t.rise
	}
	if t.run < need {
		return false
	}
	t.value = ok
	return true
}

func orDefault(value int32, otherwise int) int {
	if value <= 0 {
		return otherwise
	}
	return int(value)
}

// prober repeats one probe of one container.
type prober struct {
	spec  *corev1.Probe
	check func(context.Context) error // nil is success
	clock clock.WithTicker
	// delay is counted from here: the container's start.
	started time.Time
	initial bool
	// settled is told each result that is final, in order; failed each failure before it.
	settled func(ok bool)
	failed  func(error)
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	first := p.started.Add(time.Duration(p.spec.InitialDelaySeconds) * time.Second).Sub(p.clock.Now())
	if first > 0 && !wait(ctx, p.clock, first) {
		return
	}
	ticker := p.clock.NewTicker(seconds(p.spec.PeriodSeconds, 10))
	defer ticker.Stop()
	state := newThreshold(p.spec, p.initial)
	for {
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.failed(err)
		}
		if state.observe(err == nil) {
			p.settled(state.value)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func (p *prober) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.spec.TimeoutSeconds, 1))
	defer cancel()
	return p.check(ctx)
}

func seconds(value int32, otherwise int) time.Duration {
	return time.Duration(orDefault(value, otherwise)) * time.Second
}

// wait waits for d by the clock; false when ctx ended before.
func wait(ctx context.Context, c clock.Clock, d time.Duration) bool {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// maxRedirects of a probe, as kubelet has it.
const maxRedirects = 10

// sameHost follows redirects within a host; one to another may lead anywhere, and is the answer.
func sameHost(next *http.Request, via []*http.Request) error {
	if next.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// checkHTTP is an httpGet action: any status from 200 to 399 is success.
func checkHTTP(ctx context.Context, host string, port int, get *corev1.HTTPGetAction) error {
	if get.Host != "" {
		host = get.Host
	}
	target := url.URL{Scheme: strings.ToLower(string(get.Scheme)), Host: net.JoinHostPort(host, strconv.Itoa(port))}
	if target.Scheme == "" {
		target.Scheme = "http"
	}
	if path, err := url.Parse(get.Path); err == nil {
		target.Path, target.RawQuery = path.Path, path.RawQuery
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "kube-probe/isthmus-lab")
	}
	client := http.Client{
		// Each probe dials anew: a kept connection would hide a listener that is gone. The
		// certificate is not verified, as kubelet does not.
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: sameHost,
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with status %d", resp.StatusCode)
	}
	return nil
}

func checkTCP(ctx context.Context, host string, port int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

// checkGRPC asks the standard health service (grpc.health.v1).
func checkGRPC(ctx context.Context, host string, action *corev1.GRPCAction) error {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(host, strconv.Itoa(int(action.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	request := &healthpb.HealthCheckRequest{}
	if action.Service != nil {
		request.Service = *action.Service
	}
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		return err
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health is %s", answer.Status)
	}
	return nil
}

// portNumber resolves a port by number or by the name that the container gives it.
func portNumber(port intstr.IntOrString, c *corev1.Container) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(port.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, port.StrVal)
}

var errNoHandler = errors.New("the probe has no httpGet, tcpSocket, exec or grpc")
