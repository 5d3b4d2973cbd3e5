// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnAddressIsReadAsItIsWritten(t *testing.T) {
	for _, a := range []Address{{"10.0.0.1", 15443}, {"gateway.example.com", 1}, {"fd00::1", 65535}, {"fe80::1%eth0", 443}, {}} {
		require.Equal(t, a, ParseAddress(a.String()))
	}
	for _, s := range []string{"", "10.0.0.1", "fd00::1:443", "[fd00::1]", "[10.0.0.1]:443", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:-1", "10.0.0.1:https", ":443", "[[::1]]:443"} {
		require.Zero(t, ParseAddress(s), s)
	}
}
