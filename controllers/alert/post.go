// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"isthmus.dev/isthmus/controllers/hook"
)

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
// Its errors do not hold the address.
func post(ctx context.Context, t target, body []byte, contentType string) error {
	answer, err := hook.Post(ctx, hook.Request{URL: t.url.String(), Body: body, ContentType: contentType,
		Authorization: t.authorization, Roots: t.roots})
	switch {
	case errors.Is(err, hook.ErrAddress):
		return errors.Join(errRefused, err)
	case err != nil:
		return withoutAddress(err)
	}
	return judge(answer)
}

func judge(answer hook.Answer) error {
	switch code := answer.Code; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code >= 500:
		seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
		if err != nil || seconds < 0 {
			seconds = 0
		}
		return laterError{answer.Status, min(time.Duration(seconds)*time.Second, lastPause)}
	}
	return fmt.Errorf("%w: the web hook answers %s: correct the Secret", errRefused, answer.Status)
}

// withoutAddress is an error without the URL, which net/http puts before it.
func withoutAddress(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return fmt.Errorf("the web hook cannot be reached: %w", wrapped.Err)
	}
	return fmt.Errorf("the web hook cannot be reached: %w", err)
}
