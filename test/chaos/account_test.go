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
	at, lost := clock(), errors.New("status 503")
	begun, mended := at(0), at(10)
	only := labtest.Everywhere(100, 0)
	f := Fault{Name: "gke cut off", Lost: "gke", Dead: "gke", Weights: only}
	r := f.account([]round{{begun, at(1), mended, at(15)}}, []change{{at(0.2), "eks", only["eks"]}, {at(0.3), "gke", only["gke"]}, {at(12), "eks", labtest.Everywhere(80, 20)["eks"]}}, []request{
		{entered: "eks", safe: true, begun: at(-1), took: time.Millisecond, server: "gke"},
		{entered: "eks", safe: true, begun: at(0.1), took: 1500 * time.Millisecond, server: "eks"},
		{entered: "eks", begun: at(0.5), took: time.Second, err: lost},
		{entered: "eks", safe: true, begun: at(2), took: time.Millisecond, server: "eks"},
		{entered: "eks", safe: true, begun: at(9.9), took: 300 * time.Millisecond, server: "gke"},
		{entered: "gke", safe: true, begun: at(1), took: 20 * time.Second, err: lost},
	})
	require.Equal(t, Count{Sent: 4}, r.Safe)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.Unsafe)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.Apart)
	require.Equal(t, 1500*time.Millisecond, r.Stall, "those at the dead gateway do not count")
	require.Equal(t, 300*time.Millisecond, r.Written, "the last route")
	require.Equal(t, 500*time.Millisecond, r.Switched, "what the cluster answered once it was back is no trouble")
	require.Equal(t, 3, r.Writes)
	require.Equal(t, []string{"1 at eks: status 503, after 0.5 to 0.5 s", "1 at gke: status 503, after 1.0 to 1.0 s"}, r.Losses)
	require.NoError(t, r.Check(), "what is not safe to repeat may be lost")

	r.Still = true
	require.ErrorContains(t, r.Check(), "none was to change")
	r.Still, r.Safe.Lost = false, 1
	require.ErrorContains(t, r.Check(), "1 of 4")
	r.Loses = true
	require.NoError(t, r.Check())
}

// While nobody can serve, what is lost is counted apart, and only until all is well again.
func TestWhatNobodyCouldServeIsCountedApart(t *testing.T) {
	at, lost := clock(), errors.New("status 503")
	f := Fault{Nobody: true, Bound: func(d time.Duration) int { return int(d.Seconds()) }}
	r := f.account([]round{{at(0), at(1), at(10), at(15)}}, []change{{at(1), "eks", map[string]int32{"eks": 0}}}, []request{
		{entered: "eks", safe: true, begun: at(-1), server: "gke"},
		{entered: "eks", safe: true, begun: at(3), err: lost},
		{entered: "gke", begun: at(11), err: lost},
		{entered: "gke", safe: true, begun: at(16), err: lost},
	})
	require.Equal(t, Count{Sent: 2, Lost: 2}, r.Apart)
	require.Equal(t, Count{Sent: 2, Lost: 1}, r.Safe)
	require.Equal(t, time.Second, r.Switched, "after it was mended")
	require.ErrorContains(t, r.Check(), "in which nobody had any weight")
	r.Empty = 0
	require.ErrorContains(t, r.Check(), "at most 0 were to be")
	r.Took = time.Second
	require.ErrorContains(t, r.Check(), "1 of 2 of the requests")
	require.NotContains(t, r.Check().Error(), "at most")

	f = Fault{Gap: true}
	r = f.account([]round{{at(0), at(1), at(10), at(15)}}, nil, []request{
		{entered: "eks", safe: true, begun: at(3), err: lost},
		{entered: "eks", safe: true, begun: at(4)},
		{entered: "eks", safe: true, begun: at(11), err: lost},
	})
	require.Equal(t, Count{Sent: 2, Lost: 1}, r.Apart)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.Safe)
	require.Equal(t, 3*time.Second, r.Switched)
}

// An answer that a cluster was made to give is none that was lost; and enough of them arrive, or somebody keeps them back.
func TestAnswersThatWereMade(t *testing.T) {
	at := clock()
	f := Fault{Answers: &Answers{By: "gke", Status: 500, Share: 0.2}}
	var all []request
	for i := range 200 {
		q := request{entered: "eks", safe: true, begun: at(1 + float64(i)/100), server: "eks"}
		if i%5 == 0 {
			q.server, q.err = "gke", labtest.StatusError(500)
		}
		all = append(all, q)
	}
	all = append(all, request{entered: "eks", begun: at(1), server: "eks", err: labtest.StatusError(500)})
	rounds := []round{{at(0), at(1), at(10), at(15)}}
	r := f.account(rounds, nil, all)
	require.Equal(t, Count{Sent: 201, Lost: 40}, r.Given)
	require.Equal(t, Count{Sent: 1, Lost: 1}, r.Unsafe, "eks was not made to")
	require.Zero(t, r.Safe.Lost)
	require.NoError(t, r.Check())
	for i := range 150 {
		all[i].server, all[i].err = "eks", nil
	}
	require.ErrorContains(t, f.account(rounds, nil, all).Check(), "10 of 201 of the requests were answered by gke")

	f = Fault{Answers: &Answers{By: "gke", After: 2 * time.Second, Share: 1}}
	r = f.account(rounds, nil, []request{
		{entered: "eks", begun: at(2), took: 3 * time.Second, server: "gke"},
		{entered: "eks", begun: at(2), took: 4 * time.Second, server: "eks"},
	})
	require.Equal(t, Count{Sent: 2, Lost: 1}, r.Given)
	require.Equal(t, 4*time.Second, r.Stall, "that of eks")
}

// A fault that is repeated is as slow as its slowest round, and has sent what it was to send.
func TestRoundsAreAccountedForTogether(t *testing.T) {
	at, only := clock(), labtest.Everywhere(100, 0)
	f := Fault{Lost: "gke", Weights: only, Requests: 3}
	r := f.account([]round{{at(0), at(1), at(2), at(3)}, {at(10), at(11), at(12), at(13)}},
		[]change{{at(0.5), "eks", only["eks"]}, {at(10.7), "eks", only["eks"]}, {at(12.5), "eks", only["eks"]}},
		[]request{{entered: "eks", begun: at(0.1), server: "gke"}, {entered: "eks", begun: at(10.4), server: "gke"}})
	require.Equal(t, 700*time.Millisecond, r.Written.Round(time.Millisecond))
	require.Equal(t, 400*time.Millisecond, r.Switched.Round(time.Millisecond))
	require.ErrorContains(t, r.Check(), "2 requests were sent")
}

// clock is seconds after a night's beginning.
func clock() func(float64) time.Time {
	begun := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	return func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
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
