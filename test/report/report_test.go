// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const pkg = "isthmus.dev/isthmus/federation"

func run(test string) event  { return event{Action: "run", Package: pkg, Test: test} }
func pass(test string) event { return event{Action: "pass", Package: pkg, Test: test} }
func fail(test string) event { return event{Action: "fail", Package: pkg, Test: test} }

func said(test, line string) event {
	return event{Action: "output", Package: pkg, Test: test, Output: line}
}

func TestCount(t *testing.T) {
	tests := map[string]struct {
		events []event
		want   string
		says   []string
	}{
		"tests without subtests count": {
			events: []event{run("TestA"), pass("TestA"), run("TestB"), pass("TestB"), pass("")},
			want:   "2 passed, 0 failed",
		},
		"a test with subtests is its subtests": {
			events: []event{run("TestA"), run("TestA/x"), fail("TestA/x"), run("TestA/y"), pass("TestA/y"), fail("TestA"), fail("")},
			want:   "1 passed, 1 failed",
		},
		"a slash in a subtest's name makes no parent": {
			events: []event{run("TestA"), run("TestA/plan eks/shop"), pass("TestA/plan eks/shop"), pass("TestA"), pass("")},
			want:   "1 passed, 0 failed",
		},
		"what a failed test said is shown": {
			events: []event{run("TestA"), said("TestA", "=== RUN   TestA\n"), said("TestA", "    a_test.go:7: 3 is not 4\n"), fail("TestA"), fail("")},
			want:   "0 passed, 1 failed",
			says:   []string{"FAIL  federation", "a_test.go:7: 3 is not 4"},
		},
		"a skipped test is shown with its reason": {
			events: []event{
				run("TestA"), said("TestA", "    a_test.go:9: needs root\n"), said("TestA", "--- SKIP: TestA (0.00s)\n"),
				{Action: "skip", Package: pkg, Test: "TestA"}, pass(""),
			},
			want: "0 passed, 0 failed, 1 skipped",
			says: []string{"skipped federation.TestA: a_test.go:9: needs root"},
		},
		"a package that does not build is one failure": {
			events: []event{
				{Action: "build-output", ImportPath: pkg + " [build]", Output: "x.go:1: undefined: y\n"},
				{Action: "fail", Package: pkg, FailedBuild: pkg + " [build]"},
			},
			want: "0 passed, 1 failed",
			says: []string{"undefined: y"},
		},
		"a test that was cut off has failed": {
			events: []event{run("TestA"), pass("TestA"), run("TestB"), said("TestB", "panic: test timed out\n"), fail("")},
			want:   "1 passed, 1 failed",
			says:   []string{"panic: test timed out", "TestB did not end"},
		},
		"a package that fails after its tests passed is one failure": {
			events: []event{run("TestA"), pass("TestA"), said("", "leaked a process\n"), fail("")},
			want:   "1 passed, 1 failed",
			says:   []string{"leaked a process"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			counter := newCounter("unit", &out, false)
			for _, e := range test.events {
				counter.add(e)
			}
			require.Equal(t, test.want, counter.suite.counts())
			for _, words := range test.says {
				require.Contains(t, out.String(), words)
			}
			require.NotContains(t, out.String(), "=== RUN")
		})
	}
}

func TestACommandThatFailsNeverPasses(t *testing.T) {
	var out bytes.Buffer
	suite, err := goTest(false)("unit", []string{"sh", "-c", "echo no such flag; exit 2"}, &out)
	require.NoError(t, err)
	require.Equal(t, "0 passed, 1 failed", suite.counts())
	require.Contains(t, out.String(), "no such flag")

	suite, err = plainCommand("lint", []string{"false"}, &out)
	require.NoError(t, err)
	require.Equal(t, 1, suite.exitCode())

	_, err = plainCommand("lint", []string{"/nowhere/to/be/found"}, &out)
	require.Error(t, err)
}

func TestTotal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results")
	require.NoError(t, addResult(file, Suite{Name: "unit", Passed: 12, Skipped: 1, Seconds: 3}))
	require.NoError(t, addResult(file, Suite{Name: "e2e", Passed: 2, Failed: 1, Seconds: 60}))
	var out bytes.Buffer
	code, err := report([]string{"total", file}, &out)
	require.NoError(t, err)
	require.Equal(t, 1, code)
	require.Regexp(t, `e2e +2 +1 +0 +60\.0s`, out.String())
	require.Regexp(t, `\n14 passed, 1 failed, 1 skipped\n$`, out.String())
}

func TestARunWithoutTestsFails(t *testing.T) {
	var out bytes.Buffer
	require.Equal(t, 1, printTotal(&out, []Suite{{Name: "e2e", Skipped: 4}}))
	require.Contains(t, out.String(), "no test was executed")
	code, err := report([]string{"total", filepath.Join(t.TempDir(), "none")}, &out)
	require.Error(t, err)
	require.Equal(t, 2, code)
}
