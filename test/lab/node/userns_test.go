// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUsersThatDoNotExistHereAreTheLabsOwn(t *testing.T) {
	everybody := parseIDMap([]byte("         0          0 4294967295\n"))
	myself := parseIDMap([]byte("         0       1000          1\n"))
	ranges := parseIDMap([]byte("0 1000 1\n1 100000 65536\n"))
	istio := userSpec{UID: 1337, GID: 1337}
	require.Equal(t, istio, istio.existing(everybody, everybody))
	require.Equal(t, istio, istio.existing(ranges, ranges))
	require.Equal(t, userSpec{UID: 0, GID: 1337}, istio.existing(myself, ranges))
	require.Equal(t, userSpec{}, istio.existing(myself, myself))
	require.False(t, ranges.has(65537))
	require.True(t, idMap(nil).has(7), "a kernel without user namespaces")
}
