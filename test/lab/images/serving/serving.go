// SPDX-License-Identifier: Apache-2.0

// Package serving is what the lab's images have in common: a server that ends as a pod's should.
package serving

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Server answers with Handler.
type Server struct {
	Handler http.Handler
	// Ending is called first when the server is to end; for LameDuck after that it answers as before, so that
	// readiness can fail and nobody sends more.
	Ending   func()
	LameDuck time.Duration
	// DrainTimeout bounds the wait for requests in flight, within the usual grace period of 30 s.
	DrainTimeout time.Duration
}

// Serve answers until ctx ends; then no connection is taken, and requests in flight are finished.
func (s Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s.Handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	if s.Ending != nil {
		s.Ending()
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(s.LameDuck):
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
