// SPDX-License-Identifier: Apache-2.0

// Package silence says in a word or two why nobody answered. Errors of the network carry addresses and ports that differ each
// time, and what is said in a status must not.
package silence

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Why there was no answer, given the error and the context of the request.
func Why(ctx context.Context, err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		lookup   *net.DNSError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid):
		return "its certificate is not trusted"
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout(), status.Code(err) == codes.DeadlineExceeded:
		return "timeout"
	case errors.As(err, &lookup):
		return "its name is not known"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	}
	return "no answer"
}
