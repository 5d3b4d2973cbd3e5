// SPDX-License-Identifier: Apache-2.0

//go:build linux && !amd64

package clock

import (
	"errors"
	"runtime"
)

func patch([]byte, int64) ([]change, error) {
	return nil, errors.New("a process's clock can be moved on amd64 only, not on " + runtime.GOARCH)
}
