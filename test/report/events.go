// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build-output or build-fail event
	FailedBuild string
	Test        string
	Elapsed     float64 // seconds
	Output      string
}

// test is what is remembered of a test until its package ends.
type test struct {
	action  string // pass, fail, skip; empty while it runs
	output  strings.Builder
	subtest bool // it has subtests, so that it does not count itself
}

// counter turns events into counts and readable output.
type counter struct {
	out     io.Writer
	verbose bool
	suite   Suite
	tests   map[string]map[string]*test // by package and test
	loose   map[string]*strings.Builder // a package's output outside of its tests, and a build's
}

func newCounter(name string, out io.Writer, verbose bool) *counter {
	return &counter{
		out: out, verbose: verbose, suite: Suite{Name: name},
		tests: map[string]map[string]*test{}, loose: map[string]*strings.Builder{},
	}
}

func (c *counter) add(e event) {
	switch {
	case e.Action == "build-output":
		c.looseOutput(e.ImportPath).WriteString(e.Output)
	case e.Action == "output":
		c.output(e)
	case e.Test != "":
		c.testEvent(e)
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		c.packageEnd(e)
	}
}

// chatter is what `go test` says of itself between the lines of the tests.
var chatter = regexp.MustCompile(`^(=== (RUN|PAUSE|CONT|NAME|ATTR) |PASS\n|FAIL\n|(ok|FAIL|\?) +\t|FAIL\t|coverage: |exit status )`)

func (c *counter) output(e event) {
	if chatter.MatchString(e.Output) {
		return
	}
	if c.verbose {
		fmt.Fprint(c.out, e.Output)
	}
	if e.Test == "" {
		c.looseOutput(e.Package).WriteString(e.Output)
		return
	}
	c.test(e).output.WriteString(e.Output)
}

func (c *counter) testEvent(e event) {
	t := c.test(e)
	switch e.Action {
	case "run":
		// A subtest's name begins with its parent's and a slash, and may hold more of them.
		for i := strings.LastIndex(e.Test, "/"); i > 0; i = strings.LastIndex(e.Test[:i], "/") {
			if parent := c.tests[e.Package][e.Test[:i]]; parent != nil {
				parent.subtest = true
				break
			}
		}
	case "pass", "fail", "skip":
		t.action = e.Action
	}
}

// packageEnd counts a package's tests and prints its line, and what failed or was skipped.
func (c *counter) packageEnd(e event) {
	tests := c.tests[e.Package]
	names := make([]string, 0, len(tests))
	for name := range tests {
		names = append(names, name)
	}
	slices.Sort(names)
	before := c.suite
	var notes strings.Builder
	for _, name := range names {
		c.count(e.Package, name, tests[name], &notes)
	}
	if e.Action == "fail" && c.suite.Failed == before.Failed {
		c.suite.Failed++
		fmt.Fprintf(&notes, "--- FAIL: %s, outside of a test\n%s", e.Package, c.packageOutput(e))
	}
	passed, failed := c.suite.Passed-before.Passed, c.suite.Failed-before.Failed
	if passed+failed > 0 || notes.Len() > 0 {
		verdict := map[bool]string{true: "ok  ", false: "FAIL"}[failed == 0]
		fmt.Fprintf(c.out, "%s  %-56s %4d passed %3d failed  %6.1fs\n", verdict, shortPackage(e.Package), passed, failed, e.Elapsed)
		fmt.Fprint(c.out, notes.String())
	}
	delete(c.tests, e.Package)
	delete(c.loose, e.Package)
}

func (c *counter) count(pkg, name string, t *test, notes *strings.Builder) {
	switch {
	case t.action == "fail" || t.action == "": // one that never ended was cut off: a panic, a timeout
		if !t.subtest {
			c.suite.Failed++
		}
		if !c.verbose {
			notes.WriteString(t.output.String())
		}
		if t.action == "" {
			fmt.Fprintf(notes, "--- FAIL: %s did not end\n", name)
		}
	case t.subtest:
	case t.action == "skip":
		c.suite.Skipped++
		fmt.Fprintf(notes, "      skipped %s.%s: %s\n", shortPackage(pkg), name, lastLine(t.output.String()))
	default:
		c.suite.Passed++
	}
}

// packageOutput is why a package failed outside of its tests.
func (c *counter) packageOutput(e event) string {
	text := ""
	if e.FailedBuild != "" {
		text = c.looseOutput(e.FailedBuild).String()
	}
	if c.verbose {
		return text // the rest has been shown
	}
	return text + c.looseOutput(e.Package).String()
}

func (c *counter) test(e event) *test {
	if c.tests[e.Package] == nil {
		c.tests[e.Package] = map[string]*test{}
	}
	if c.tests[e.Package][e.Test] == nil {
		c.tests[e.Package][e.Test] = &test{}
	}
	return c.tests[e.Package][e.Test]
}

func (c *counter) looseOutput(name string) *strings.Builder {
	if c.loose[name] == nil {
		c.loose[name] = &strings.Builder{}
	}
	return c.loose[name]
}

func shortPackage(name string) string { return strings.TrimPrefix(name, "isthmus.dev/isthmus/") }

// lastLine is the reason of a skipped test: the last line that is not the test's own end.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--- SKIP") {
			return line
		}
	}
	return "it does not say why"
}
