// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATenantsHookDoesNotReachTheMachine(t *testing.T) {
	for _, url := range []string{"http://169.254.169.254/latest/api/token", "http://[fe80::1%25lo]/", "http://[fd00:ec2::254]/",
		"http://[::ffff:169.254.169.254]/", "http://0.0.0.0:1/", "http://224.0.0.1/"} {
		_, err := Post(t.Context(), Request{URL: url, OfTenant: true})
		require.ErrorIs(t, err, ErrMachine, url)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	t.Cleanup(server.Close)
	answer, err := Post(t.Context(), Request{URL: server.URL, OfTenant: true})
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, answer.Code)
}
