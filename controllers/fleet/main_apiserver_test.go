// SPDX-License-Identifier: Apache-2.0

//go:build apiserver

package fleet

import (
	"testing"

	"isthmus.dev/isthmus/test/apiserver"
)

func TestMain(m *testing.M) { apiserver.Main(m) }
