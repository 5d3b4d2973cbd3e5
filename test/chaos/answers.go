// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"math"
	"time"

	"isthmus.dev/isthmus/test/labtest"
)

// Answers are those that a cluster gives because it was made to. They are no losses: no proxy is to keep them from a
// client, and no cluster is to be left for them.
type Answers struct {
	By string
	// Status, where it is not 200.
	Status labtest.StatusError
	// After is how long they take, at least.
	After time.Duration
	// Share of all requests, 0 to 1, that are to be answered so.
	Share float64
}

// gave tells whether a request was answered so.
func (a *Answers) gave(r request) bool {
	var status labtest.StatusError
	return a != nil && r.server == a.By && r.took >= a.After && (r.err == nil || errors.As(r.err, &status)) && status == a.Status
}

// check compares with the binomial: five standard deviations are passed by chance once in two million runs. A cluster that
// is left for a while gives fewer answers.
func (a *Answers) check(given Count) error {
	if a == nil {
		return nil
	}
	n := float64(given.Sent)
	if far := math.Abs(float64(given.Lost) - n*a.Share); far > 5*math.Sqrt(n*a.Share*(1-a.Share)) {
		return fmt.Errorf("%s of the requests were answered by %s as it was made to, and %.0f%% were to be", given, a.By, 100*a.Share)
	}
	return nil
}
