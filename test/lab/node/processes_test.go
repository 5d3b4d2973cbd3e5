// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/lab/state"
)

func TestAListThatCouldNotBePublishedIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		table := newProcessTable("eks")
		told, full := 0, 2
		go table.run(ctx, func([]state.Process) error {
			told++
			if told <= full {
				return errors.New("no space left on device")
			}
			return nil
		})
		table.touch()
		synctest.Wait()
		require.Equal(t, 1, told)
		time.Sleep(10 * proxyLook) // of the bubble's clock
		require.Equal(t, full+1, told, "until it is through, and no more then")
		cancel()
		synctest.Wait()
	})
}
