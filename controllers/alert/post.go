// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// requestTimeout of one attempt.
const requestTimeout = 10 * time.Second

var (
	// errGone: the web hook is no more.
	errGone = errors.New("the web hook's Secret is gone")
	// errRefused: another attempt would be refused as well.
	errRefused = errors.New("refused")
)

// laterError is an answer that asks for another attempt, after a while where it says so.
type laterError struct {
	status string
	after  time.Duration
}

func (e laterError) Error() string { return "the web hook answers " + e.status }

// poster makes one attempt to deliver a body.
type poster func(ctx context.Context, t target, body []byte, contentType string) error

// post delivers a body by HTTP. 2xx is delivered; 408, 425, 429 and 5xx are to be repeated, what else is answered is final.
// It follows no redirect, which could carry the credentials elsewhere. Its errors do not hold the address.
func post(ctx context.Context, t target, body []byte, contentType string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(body))
	if err != nil {
		return errors.Join(errRefused, withoutAddress(err))
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "isthmus")
	if t.authorization != "" {
		req.Header.Set("Authorization", t.authorization)
	}
	// A transport for each attempt: alerts are rare, and a kept connection may be dead when it is needed.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return withoutAddress(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return judge(resp)
}

func judge(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code >= 500:
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || seconds < 0 {
			seconds = 0
		}
		return laterError{resp.Status, min(time.Duration(seconds)*time.Second, lastPause)}
	}
	return fmt.Errorf("%w: the web hook answers %s: correct the Secret", errRefused, resp.Status)
}

// withoutAddress is an error without the URL, which net/http puts before it.
func withoutAddress(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return fmt.Errorf("the web hook cannot be reached: %w", wrapped.Err)
	}
	return fmt.Errorf("the web hook cannot be reached: %w", err)
}
