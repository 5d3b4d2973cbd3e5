// SPDX-License-Identifier: Apache-2.0

//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// The table stands between these lines of the page.
const (
	tableBegins = "<!-- make chaos writes what follows -->"
	tableEnds   = "<!-- and ends here -->"
)

// WriteTable puts the results into a page, in the place of those of the last time.
func WriteTable(page string, results []Result) error {
	content, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s: the lines %q and %q, between which the table stands, are not there", page, tableBegins, tableEnds)
	}
	var out bytes.Buffer
	out.WriteString(before + tableBegins + "\n\n" + table(results) + "\n" + tableEnds + after)
	return os.WriteFile(page, out.Bytes(), 0o644)
}

func table(results []Result) string {
	lines := []string{
		"| fault | lost, safe to repeat | lost, not safe | lost for want of anybody | longest stall | weights written | requests unaffected | writes |",
		"| --- | --- | --- | --- | --- | --- | --- | --- |",
	}
	for _, r := range results {
		apart := "-"
		if r.Dead != "" || r.Nobody || r.Gap {
			apart = r.Apart.String()
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s | %d |", r.Name, r.Safe, r.Unsafe, apart, inWords(r.Stall),
			inWords(r.Written), inWords(r.Switched), r.Writes))
	}
	return strings.Join(lines, "\n") + "\n"
}

func inWords(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
