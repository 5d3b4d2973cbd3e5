// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers/silence"
	"isthmus.dev/isthmus/federation"
)

// probeSettings is a probe with what is derived from it.
type probeSettings struct {
	spec   *v1alpha1.Probe
	timing federation.ProbeTiming
	// token without which no probe route is matched. It is never logged.
	token string
}

func newProbeSettings(probe *v1alpha1.Probe, token string) *probeSettings {
	if probe == nil {
		return nil
	}
	return &probeSettings{spec: probe, timing: federation.TimingOf(probe), token: token}
}

// lookOut makes one look over the network. Nothing of it is shared with the clients of API servers, and no connection is
// kept: what matters is whether a new request is served.
func lookOut(ctx context.Context, r lookRequest) federation.Look {
	ctx, cancel := context.WithTimeout(ctx, r.probe.timing.Timeout)
	defer cancel()
	if r.probe.spec.GRPC != nil {
		return lookGRPC(ctx, r)
	}
	return lookHTTP(ctx, r)
}

func (r lookRequest) tlsConfig() *tls.Config {
	config := &tls.Config{ServerName: r.Host, MinVersion: tls.VersionTLS12}
	if own := r.probe.spec.TLS; own != nil && own.CABundle != "" {
		// Without a certificate in it nothing is trusted, which the answer then says.
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(own.CABundle))
	}
	return config
}

func lookHTTP(ctx context.Context, r lookRequest) federation.Look {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: r.tlsConfig(), MaxResponseHeaderBytes: 1 << 16}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	target := url.URL{Scheme: "http", Host: r.Address, Path: r.Path}
	if r.TLS {
		target.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return federation.Look{Result: federation.LookVoid, Said: "no such address"}
	}
	req.Host = r.Host
	req.Header.Set(federation.ProbeHeader, r.probe.token)
	req.Header.Set("User-Agent", "isthmus-probe")
	resp, err := client.Do(req)
	if err != nil {
		return federation.Look{Result: federation.LookSilent, Said: silence.Why(ctx, err)}
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 1<<16)
	_ = resp.Body.Close()
	return r.read(answer{
		expected: federation.ExpectsStatus(r.probe.spec.HTTP, resp.StatusCode), said: strconv.Itoa(resp.StatusCode),
		mark: resp.Header.Get(federation.ProbeHeader), server: resp.Header.Get(federation.ServedByHeader)})
}

// lookGRPC calls the health service by the path that the probe's route matches.
func lookGRPC(ctx context.Context, r lookRequest) federation.Look {
	transport := insecure.NewCredentials()
	if r.TLS {
		transport = credentials.NewTLS(r.tlsConfig())
	}
	conn, err := grpc.NewClient("passthrough:///"+r.Address, grpc.WithTransportCredentials(transport), grpc.WithAuthority(r.Host),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithUserAgent("isthmus-probe"))
	if err != nil {
		return federation.Look{Result: federation.LookVoid, Said: "no such address"}
	}
	defer func() { _ = conn.Close() }()
	var header, trailer metadata.MD
	var health grpc_health_v1.HealthCheckResponse
	err = conn.Invoke(metadata.AppendToOutgoingContext(ctx, federation.ProbeHeader, r.probe.token), r.Path,
		&grpc_health_v1.HealthCheckRequest{Service: r.probe.spec.GRPC.Service}, &health, grpc.Header(&header), grpc.Trailer(&trailer))
	// An answer that is only an error carries its headers as trailers.
	said := metadata.Join(header, trailer)
	a := answer{expected: err == nil && health.Status == grpc_health_v1.HealthCheckResponse_SERVING, said: health.Status.String(),
		mark: first(said.Get(federation.ProbeHeader)), server: first(said.Get(federation.ServedByHeader))}
	if err != nil {
		a.said = "gRPC " + status.Code(err).String()
		if code := status.Code(err); a.mark == "" && (code == codes.Unavailable || code == codes.DeadlineExceeded) {
			return federation.Look{Result: federation.LookSilent, Said: silence.Why(ctx, err)}
		}
	}
	return r.read(a)
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// answer is what came back: whether it is the expected one, in a word, whose probe route it came by, and who gave it.
type answer struct {
	expected           bool
	said, mark, server string
}

// read judges an answer. It counts only when the cluster that was asked gave it: the proxies have others to fall back on.
func (r lookRequest) read(a answer) federation.Look {
	switch {
	case a.mark != r.Member:
		return federation.Look{Result: federation.LookVoid, Said: a.said + ", not by the probe's route"}
	case a.expected && a.server == r.Cluster:
		return federation.Look{Result: federation.LookOK, Said: a.said}
	case a.server != "" && a.server != r.Cluster:
		return federation.Look{Result: federation.LookFailed, Said: "answered by " + a.server + " instead, to which its proxy spills"}
	case a.expected:
		return federation.Look{Result: federation.LookFailed, Said: a.said + ", and not said by whom"}
	}
	return federation.Look{Result: federation.LookFailed, Said: a.said}
}
