// SPDX-License-Identifier: Apache-2.0

// Command report runs one suite of tests, keeps its output readable, counts it, and adds up the suites of a run.
//
//	report run [-v] [-results FILE] NAME -- go test -json …   a suite of Go tests
//	report run -plain [-results FILE] NAME -- make lint       a command that counts as one test
//	report total FILE                                         the table of all suites and the closing line
//
// Implementation considerations: `go test` says nothing about how many tests ran, and a run in which every test was
// skipped looks like one that passed. So the events of `go test -json` are counted: each test without subtests is
// one, a package that fails without a failing test (it does not build, it panics, it is killed) is one, and total
// refuses a run in which nothing was executed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

const usage = `usage: report run [-v] [-plain] [-results FILE] NAME -- COMMAND…
       report total FILE`

func main() {
	code, err := report(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	os.Exit(code)
}

// report returns the exit code: 0 where everything passed, 1 where something failed, 2 for a wrong call.
func report(args []string, out io.Writer) (int, error) {
	if len(args) > 1 && args[0] == "run" {
		return runSuite(args[1:], out)
	}
	if len(args) == 2 && args[0] == "total" {
		suites, err := readResults(args[1])
		if err != nil {
			return 2, err
		}
		return printTotal(out, suites), nil
	}
	return 2, errors.New(usage)
}

func runSuite(args []string, out io.Writer) (int, error) {
	flags := flag.NewFlagSet("report run", flag.ContinueOnError)
	verbose := flags.Bool("v", false, "show the output of every test as it comes")
	plain := flags.Bool("plain", false, "the command is no go test -json: it counts as one test")
	results := flags.String("results", "", "file to which the suite's counts are added")
	if err := flags.Parse(args); err != nil {
		return 2, err
	}
	rest := flags.Args()
	if len(rest) < 3 || rest[1] != "--" {
		return 2, errors.New(usage)
	}
	run := goTest(*verbose)
	if *plain {
		run = plainCommand
	}
	fmt.Fprintf(out, "== %s\n", rest[0])
	suite, err := run(rest[0], rest[2:], out)
	if err != nil {
		return 2, err
	}
	fmt.Fprintf(out, "== %s: %s in %.1fs\n\n", suite.Name, suite.counts(), suite.Seconds)
	if *results != "" {
		if err := addResult(*results, suite); err != nil {
			return 2, err
		}
	}
	return suite.exitCode(), nil
}
