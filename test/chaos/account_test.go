// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/labtest"
)

// Every request is counted once, where it belongs.
func TestEveryRequestIsAccountedFor(t *testing.T) {
	begun := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	mended := begun.Add(10 * time.Second)
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	lost := errors.New("status 503")
	only := labtest.Everywhere(100, 0)
	f := Fault{Name: "gke cut off", Lost: "gke", Dead: "gke", Weights: only}
	r := f.account(begun, mended, []change{{at(0.2), "eks", only["eks"]}, {at(0.3), "gke", only["gke"]}, {at(12), "eks", nil}}, []request{
		{entered: "eks", safe: true, begun: at(-1), took: time.Millisecond, server: "gke"},
		{entered: "eks", safe: true, begun: at(0.1), took: 1500 * time.Millisecond, server: "eks"},
		{entered: "eks", begun: at(0.5), took: time.Second, err: lost},
		{entered: "eks", safe: true, begun: at(2), took: time.Millisecond, server: "eks"},
		{entered: "eks", safe: true, begun: at(9.9), took: 300 * time.Millisecond, server: "gke"},
		{entered: "gke", safe: true, begun: at(1), took: 20 * time.Second, err: lost},
	})
	require.Equal(t, Count{Sent: 4}, r.Safe)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.Unsafe)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.AtDead)
	require.Equal(t, 1500*time.Millisecond, r.Stall, "those at the dead gateway do not count")
	require.Equal(t, 300*time.Millisecond, r.Written, "the last route")
	require.Equal(t, 500*time.Millisecond, r.Switched, "what the cluster answered once it was back is no trouble")
	require.Equal(t, 3, r.Writes)
	require.NoError(t, r.Check(), "what is not safe to repeat may be lost")

	r.Still = true
	require.ErrorContains(t, r.Check(), "none was to change")
	r.Still, r.Safe.Lost = false, 1
	require.ErrorContains(t, r.Check(), "1 of 4")
}

// The table takes the place of the one before, and nothing else of the page changes.
func TestTheTableIsWrittenInItsPlace(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("before\n"+tableBegins+"\nold\n"+tableEnds+"\nafter\n"), 0o600))
	results := []Result{{Fault: Fault{Name: "hub killed"}, Safe: Count{Sent: 7}, Stall: 1300 * time.Millisecond, Switched: 40 * time.Millisecond}}
	for range 2 {
		require.NoError(t, WriteTable(page, results))
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		require.Equal(t, "before\n"+tableBegins+"\n\n"+table(results)+"\n"+tableEnds+"\nafter\n", string(content))
	}
	require.Contains(t, table(results), "| hub killed | 0 of 7 | 0 of 0 | - | 1.3 s | - | 40 ms | 0 |")
	require.NoError(t, os.WriteFile(page, []byte("no table"), 0o600))
	require.ErrorContains(t, WriteTable(page, results), "are not there")
}
