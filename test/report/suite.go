// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// Suite is what one suite came to.
type Suite struct {
	Name    string  `json:"name"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Seconds float64 `json:"seconds"`
}

func (s Suite) counts() string {
	text := fmt.Sprintf("%d passed, %d failed", s.Passed, s.Failed)
	if s.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped", s.Skipped)
	}
	return text
}

func (s Suite) exitCode() int {
	if s.Failed > 0 {
		return 1
	}
	return 0
}

// addResult appends a suite to the results of a run, one JSON object a line.
func addResult(file string, suite Suite) error {
	line, err := json.Marshal(suite)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func readResults(file string) ([]Suite, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("no suite has run: %w", err)
	}
	var suites []Suite
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var suite Suite
		err := decoder.Decode(&suite)
		if err == io.EOF {
			return suites, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		suites = append(suites, suite)
	}
}

// printTotal prints each suite with its time and closes with the sum, alone on the last line.
func printTotal(out io.Writer, suites []Suite) int {
	total := Suite{Name: "total"}
	for _, s := range suites {
		total.Passed += s.Passed
		total.Failed += s.Failed
		total.Skipped += s.Skipped
		total.Seconds += s.Seconds
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "suite\tpassed\tfailed\tskipped\ttime\t")
	for _, s := range append(suites, total) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%.1fs\t\n", s.Name, s.Passed, s.Failed, s.Skipped, s.Seconds)
	}
	_ = table.Flush()
	if total.Passed+total.Failed == 0 {
		total.Failed = 1
		fmt.Fprintln(out, "no test was executed, which is a failure")
	}
	fmt.Fprintf(out, "\n%s\n", total.counts())
	return total.exitCode()
}
