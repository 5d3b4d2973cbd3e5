// SPDX-License-Identifier: Apache-2.0

//go:build chaos && linux

package chaos_test

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/chaos"
	"isthmus.dev/isthmus/test/labtest"
)

// page is where the results go; nowhere without it.
var page = flag.String("page", "", "write the results into this page")

func TestMain(m *testing.M) { labtest.Main(m) }

func TestChaos(t *testing.T) {
	var results []chaos.Result
	for _, fault := range chaos.All() {
		t.Run(fault.Name, func(t *testing.T) {
			r := fault.Run(t)
			results = append(results, r)
			t.Logf("lost: %s safe, %s not safe, %s apart; longest %s; written after %s, unaffected after %s; %d writes; %v",
				r.Safe, r.Unsafe, r.Apart, r.Stall, r.Written, r.Switched, r.Writes, r.Losses)
			require.NoError(t, r.Check())
		})
	}
	if *page != "" {
		require.Len(t, results, len(chaos.All()), "the page takes all or none")
		require.NoError(t, chaos.WriteTable(*page, results))
	}
}
