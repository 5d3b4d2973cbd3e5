// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServerPort is where every node answers, kubelet's port.
const ServerPort = 10250

// streamIdle ends a stream on which nothing moves, kubelet's default.
const streamIdle = 4 * time.Hour

// Serving is how the node's own API is reached, which is kubelet's: logs, exec, attach and
// port-forward, for the API server and for whoever has a certificate of the cluster and the right.
type Serving struct {
	CertFile, KeyFile string // the node's certificate, for its address
	ClientCAFile      string // the authority of those who may ask
}

// listen opens the node's port.
func (a *agent) listen() (net.Listener, error) {
	cert, err := tls.LoadX509KeyPair(a.Serving.CertFile, a.Serving.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	authority, err := os.ReadFile(a.Serving.ClientCAFile)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", a.Serving.ClientCAFile)
	}
	return tls.Listen("tcp", net.JoinHostPort(a.NodeIP, strconv.Itoa(ServerPort)), &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
		// Given and not required: whoever comes without is told so in words.
		ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven,
	})
}

// serve answers at the node's port until ctx ends.
func (a *agent) serve(ctx context.Context, listener net.Listener) {
	server := &http.Server{
		Handler: a.authorized(a.routes()), ReadHeaderTimeout: requestTimeout,
		// Strangers that hang up are none of the agent's business.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		a.log.Error("the node's API ended", "error", err)
	}
}

// routes are kubelet's paths.
func (a *agent) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "ok") })
	mux.HandleFunc("GET /pods", a.servePods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLogs)
	for _, method := range []string{"GET ", "POST "} {
		for _, uid := range []string{"", "/{uid}"} {
			mux.HandleFunc(method+"/exec/{namespace}/{pod}"+uid+"/{container}", a.serveExec)
			mux.HandleFunc(method+"/attach/{namespace}/{pod}"+uid+"/{container}", a.serveAttach)
			mux.HandleFunc(method+"/portForward/{namespace}/{pod}"+uid, a.servePortForward)
		}
	}
	return mux
}

// authorized admits whoever the cluster's authority knows and the API server lets at this node's
// proxy, as kubelet does with webhook authorization.
func (a *agent) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "Unauthorized: come with a client certificate of the cluster's authority", http.StatusUnauthorized)
			return
		}
		who := r.TLS.PeerCertificates[0].Subject
		verb := "get"
		if r.Method == http.MethodPost {
			verb = "create"
		}
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.CommonName, Groups: append(who.Organization, "system:authenticated"),
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Version: "v1", Resource: "nodes", Subresource: "proxy", Name: a.NodeName,
			},
		}}
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		review, err := a.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		cancel()
		switch {
		case err != nil:
			http.Error(w, "the API server does not say whether this is allowed: "+err.Error(), http.StatusInternalServerError)
		case !review.Status.Allowed:
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource=proxy)", who.CommonName, verb), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (a *agent) servePods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	for _, p := range a.podList() {
		p.mu.Lock()
		list.Items = append(list.Items, *p.latest.DeepCopy())
		p.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// serveLogs answers with the log of one container.
func (a *agent) serveLogs(w http.ResponseWriter, r *http.Request) {
	p, c, err := a.find(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	options, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request, err := c.logRequest(options)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := flushWriter{w, http.NewResponseController(w)}
	request.Stdout, request.Stderr = out, out
	switch stream := options.Stream; {
	case stream != nil && *stream == corev1.LogStreamStdout:
		request.Stderr = nil
	case stream != nil && *stream == corev1.LogStreamStderr:
		request.Stdout = nil
	}
	w.Header().Set("Content-Type", "text/plain")
	_ = out.control.Flush() // an empty log that is followed has to begin
	if err := ReadLog(r.Context(), request); err != nil {
		a.log.Warn("a log was not read", "pod", p.name(), "container", c.spec.Name, "error", err)
	}
}

// flushWriter sends each piece at once.
type flushWriter struct {
	io.Writer
	control *http.ResponseController
}

func (w flushWriter) Write(data []byte) (int, error) {
	n, err := w.Writer.Write(data)
	if err == nil {
		err = w.control.Flush()
	}
	return n, err
}
