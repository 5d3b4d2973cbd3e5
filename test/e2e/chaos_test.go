// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/chaos"
	"isthmus.dev/isthmus/test/labtest"
)

// The short form of `make chaos`: every request under load is accounted for.
func TestFaultsUnderLoad(t *testing.T) {
	for _, fault := range chaos.Short() {
		t.Run(fault.Name, func(t *testing.T) {
			r := fault.Run(t)
			t.Logf("lost: %s safe, %s not safe, %s apart; longest %s; %v", r.Safe, r.Unsafe, r.Apart, r.Stall, r.Losses)
			require.NoError(t, r.Check())
		})
	}
}

// An application's error is an answer, and a slow one is waited for: neither is asked for again. The application says
// which attempt it was asked by.
func TestAnAnswerIsAskedForOnce(t *testing.T) {
	base, err := labtest.Lab.GatewayURL("eks")
	require.NoError(t, err)
	client := &http.Client{Timeout: labtest.Patience}
	for _, query := range []string{"status=500", "status=503", "status=504", "delay=3s"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, base+"/?"+query, nil)
			require.NoError(t, err)
			req.Host = "echo.example.com"
			begun := time.Now()
			resp, err := client.Do(req)
			require.NoError(t, err)
			var saw struct{ Headers http.Header }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&saw), "%s %s: the application's own answer arrives", method, query)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, []string{"1"}, saw.Headers["X-Envoy-Attempt-Count"], "%s %s", method, query)
			require.Empty(t, saw.Headers["X-Isthmus-Backend"], "what gateways tell each other is not for applications")
			if query == "delay=3s" {
				require.GreaterOrEqual(t, time.Since(begun), 3*time.Second)
			}
		}
	}
}
