// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"isthmus.dev/isthmus/test/lab/network"
)

// dial connects to a port on the pod's loopback, from inside its namespace, as kubelet does: a
// program that listens on 127.0.0.1 only is reached, too.
func (p *pod) dial(ctx context.Context, port int32) (conn *net.TCPConn, err error) {
	err = network.Do(p.netns, func() error {
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			if err == nil {
				conn = c.(*net.TCPConn)
				return nil
			}
			errs = append(errs, err)
		}
		return errs[0]
	})
	if err != nil {
		return nil, fmt.Errorf("port %d of pod %s: %w", port, p.name(), err)
	}
	return conn, nil
}

// forward carries one connection to a port of the pod until either side has ended it.
func (p *pod) forward(ctx context.Context, port int32, stream io.ReadWriteCloser) error {
	conn, err := p.dial(ctx, port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	unwatch := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unwatch()
	answered := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		answered <- err
	}()
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.CloseWrite()
	}()
	if err := <-answered; err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
