// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// lookAt is a request to the gateway of eks, of whom gke or itself is to answer.
func lookAt(address, cluster string, probe *v1alpha1.Probe) lookRequest {
	return lookRequest{probe: newProbeSettings(probe, "secret"), ProbeRequest: federation.ProbeRequest{
		Member: "eks", Cluster: cluster, Address: address, Host: "example.com", Path: "/.isthmus/probe/sample/helloworld/" + cluster}}
}

// long is what a slow machine needs.
const long gatewayv1.Duration = "1m"

func httpProbe() *v1alpha1.Probe {
	return &v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/healthz"}, Interval: long, Timeout: long}
}

// gatewayOf answers as the probe route of eks does, stamped by who serves.
func gatewayOf(status int, servedBy string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(federation.ProbeHeader) != "secret" || r.Host != "example.com" || !strings.HasPrefix(r.URL.Path, "/.isthmus/probe/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set(federation.ProbeHeader, "eks")
		w.Header().Set(federation.ServedByHeader, servedBy)
		w.WriteHeader(status)
	}
}

func TestLookByHTTP(t *testing.T) {
	tests := map[string]struct {
		handler http.HandlerFunc
		cluster string
		want    federation.Look
	}{
		"served at home":                  {gatewayOf(200, "eks"), "eks", federation.Look{Result: federation.LookOK, Said: "200"}},
		"served by the other":             {gatewayOf(204, "gke"), "gke", federation.Look{Result: federation.LookOK, Said: "204"}},
		"an error":                        {gatewayOf(500, "eks"), "eks", federation.Look{Result: federation.LookFailed, Said: "500"}},
		"a redirect is not followed":      {gatewayOf(302, "eks"), "eks", federation.Look{Result: federation.LookFailed, Said: "302"}},
		"the proxy went elsewhere":        {gatewayOf(200, "eks"), "gke", federation.Look{Result: federation.LookFailed, Said: "answered by eks instead, to which its proxy spills"}},
		"not said by whom":                {gatewayOf(200, ""), "eks", federation.Look{Result: federation.LookFailed, Said: "200, and not said by whom"}},
		"an error of the gateway itself":  {gatewayOf(503, ""), "gke", federation.Look{Result: federation.LookFailed, Said: "503"}},
		"the probe's route is not there":  {http.NotFound, "eks", federation.Look{Result: federation.LookVoid, Said: "404, not by the probe's route"}},
		"any page, as a public route has": {func(http.ResponseWriter, *http.Request) {}, "eks", federation.Look{Result: federation.LookVoid, Said: "200, not by the probe's route"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			t.Cleanup(server.Close)
			require.Equal(t, test.want, lookOut(t.Context(), lookAt(server.Listener.Addr().String(), test.cluster, httpProbe())))
		})
	}
}

func TestLookExpectsTheStatusesThatItIsTold(t *testing.T) {
	server := httptest.NewServer(gatewayOf(401, "eks"))
	t.Cleanup(server.Close)
	probe := httpProbe()
	probe.HTTP.Statuses = []int32{401}
	require.Equal(t, federation.LookOK, lookOut(t.Context(), lookAt(server.Listener.Addr().String(), "eks", probe)).Result)
}

func TestLookOverTLSTrustsOnlyWhomItIsTold(t *testing.T) {
	server := httptest.NewUnstartedServer(gatewayOf(200, "eks"))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	probe := httpProbe()
	r := lookAt(server.Listener.Addr().String(), "eks", probe)
	r.TLS = true
	require.Equal(t, federation.Look{Result: federation.LookSilent, Said: "its certificate is not trusted"}, lookOut(t.Context(), r))
	probe.TLS = &v1alpha1.ProbeTLS{CABundle: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}
	require.Equal(t, federation.Look{Result: federation.LookOK, Said: "200"}, lookOut(t.Context(), r))
}

func TestSilenceIsSaidInAWordOrTwo(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	short := &v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{}, Timeout: "100ms"}
	require.Equal(t, federation.Look{Result: federation.LookSilent, Said: "timeout"}, lookOut(t.Context(), lookAt(listener.Addr().String(), "eks", short)))
	closed := httptest.NewServer(nil)
	address := closed.Listener.Addr().String()
	closed.Close()
	for name, probe := range map[string]*v1alpha1.Probe{"http": httpProbe(), "grpc": {GRPC: &v1alpha1.GRPCProbe{}, Interval: long, Timeout: long}} {
		look := lookOut(t.Context(), lookAt(address, "eks", probe))
		require.Equal(t, federation.LookSilent, look.Result, name)
		require.NotContains(t, look.Said, address)
	}
}

// healthServer answers any method, as a gateway does that rewrites the path, with a status and the stamps.
func healthServer(t *testing.T, answer grpc_health_v1.HealthCheckResponse_ServingStatus, marked bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		in, _ := metadata.FromIncomingContext(stream.Context())
		method, _ := grpc.MethodFromServerStream(stream)
		var request grpc_health_v1.HealthCheckRequest
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		if first(in.Get(federation.ProbeHeader)) != "secret" || !strings.HasPrefix(method, "/.isthmus/probe/") || request.Service != "hello" || !marked {
			return status.Error(codes.Unimplemented, "no such method")
		}
		if err := stream.SetHeader(metadata.Pairs(federation.ProbeHeader, "eks", federation.ServedByHeader, "eks")); err != nil {
			return err
		}
		if answer == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
			return status.Error(codes.NotFound, "unknown service")
		}
		return stream.SendMsg(&grpc_health_v1.HealthCheckResponse{Status: answer})
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

func TestLookByGRPC(t *testing.T) {
	probe := &v1alpha1.Probe{GRPC: &v1alpha1.GRPCProbe{Service: "hello"}, Interval: long, Timeout: long}
	tests := map[string]struct {
		answer grpc_health_v1.HealthCheckResponse_ServingStatus
		marked bool
		want   federation.Look
	}{
		"serving":                         {grpc_health_v1.HealthCheckResponse_SERVING, true, federation.Look{Result: federation.LookOK, Said: "SERVING"}},
		"not serving":                     {grpc_health_v1.HealthCheckResponse_NOT_SERVING, true, federation.Look{Result: federation.LookFailed, Said: "NOT_SERVING"}},
		"a service that it does not know": {grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, true, federation.Look{Result: federation.LookFailed, Said: "gRPC NotFound"}},
		"the probe's route is not there":  {grpc_health_v1.HealthCheckResponse_SERVING, false, federation.Look{Result: federation.LookVoid, Said: "gRPC Unimplemented, not by the probe's route"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, lookOut(t.Context(), lookAt(healthServer(t, test.answer, test.marked), "eks", probe)))
		})
	}
}

func TestATokenIsOfItsServiceAndSaysNothingOfTheSecret(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	one, other := tokenOf(secret, federation.ServiceKey{Namespace: "a", Name: "b"}), tokenOf(secret, federation.ServiceKey{Namespace: "a", Name: "c"})
	require.NotEqual(t, one, other)
	require.Len(t, one, 64)
	require.NotEqual(t, one, tokenOf([]byte("another"), federation.ServiceKey{Namespace: "a", Name: "b"}))
}
