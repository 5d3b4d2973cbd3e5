// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// frame is one picture of the tour; its lines are a function of it and of the terminal's size.
type frame struct {
	step, steps int
	subject     string // of the step
	scene       scene
	output      string // of the command
	failed      error  // why the command failed
	figures     Figures
	seen        Observation
	rate        int
	elapsed     time.Duration // since the scene began
	decided     time.Duration // when the hub had decided, after the scene began; negative: not yet, or nothing to decide
	came        bool          // what is expected
	hint        string
}

// style of a piece of text; a terminal without colours ignores it.
type style string

// Styles, as the parameters of a terminal's SGR sequence (ECMA-48).
const (
	plain   style = ""
	bold    style = "1"
	dim     style = "2"
	first   style = "36" // cyan
	second  style = "33" // yellow
	third   style = "35" // magenta
	good    style = "32"
	bad     style = "31"
	heading style = "1;7"
)

type span struct {
	style style
	text  string
}

type line []span

func text(s style, format string, args ...any) line {
	return line{{s, fmt.Sprintf(format, args...)}}
}

// cut shortens a line to so many columns. Everything that is drawn is one column wide.
func (l line) cut(width int) line {
	var out line
	for _, s := range l {
		n := utf8.RuneCountInString(s.text)
		if n > width {
			s.text = string([]rune(s.text)[:max(0, width)])
		}
		out = append(out, s)
		if width -= n; width <= 0 {
			break
		}
	}
	return out
}

// String is the line with or without colours, and without blanks at its end.
func (l line) String(colours bool) string {
	var b strings.Builder
	for _, s := range l {
		if colours && s.style != plain && strings.TrimSpace(s.text) != "" {
			fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", s.style, s.text)
		} else {
			b.WriteString(s.text)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// row is a line on the screen. One that joins goes on where the row before ended at the terminal's edge, so that both
// are copied as one line.
type row struct {
	line
	joins bool
}

// size of a terminal in columns and lines.
type size struct{ width, height int }

// rows draws the frame. What does not fit is left out, the least important first: what to expect, then what the
// command said, then the last lines. The way out is always shown.
func (f frame) rows(s size) []row {
	body := append(f.figureLines(s.width), f.hubLines(s.width)...)
	var rows []row
	for _, extra := range [][]line{append(f.said(s.width), f.expectation(s.width)...), f.said(s.width), nil} {
		rows = f.head(s.width)
		for _, l := range append(append(extra, line{}), body...) {
			rows = append(rows, row{line: l})
		}
		if len(rows)+1 <= s.height {
			rows = append(rows, row{})
			break
		}
	}
	rows = append(rows[:max(0, min(len(rows), s.height-1))], row{line: f.hintLine()})
	for i := range rows {
		rows[i].line = rows[i].cut(s.width)
	}
	return rows
}

// head says where in the tour this is, and what is done.
func (f frame) head(width int) []row {
	rows := []row{
		{line: text(heading, "%-*s", width, fmt.Sprintf(" Isthmus %d/%d  %s", f.step, f.steps, f.subject))},
		{line: text(bold, " %s", f.scene.title)},
	}
	command := []rune("   $ " + f.scene.do.String())
	for i := 0; i < len(command); i += width {
		rows = append(rows, row{line: text(plain, "%s", string(command[i:min(len(command), i+width)])), joins: i > 0})
	}
	return rows
}

func (f frame) expectation(width int) []line {
	lines := []line{{}}
	for _, part := range wrap(f.scene.expect, min(width, 96)-2) {
		lines = append(lines, text(plain, " %s", part))
	}
	return lines
}

// linesOfOutput bounds what a command may say.
const linesOfOutput = 5

func (f frame) said(width int) []line {
	var lines []line
	if f.failed != nil {
		for _, part := range wrap(f.failed.Error(), width-6) {
			lines = append(lines, text(bad, "     %s", part))
		}
		return lines
	}
	for _, part := range strings.Split(strings.TrimSpace(f.output), "\n") {
		if part = strings.TrimRight(part, " "); part != "" && len(lines) < linesOfOutput {
			lines = append(lines, text(dim, "     %s", part))
		}
	}
	return lines
}

// wrap breaks text between words into lines of at most width columns; a longer word is broken anywhere.
func wrap(s string, width int) []string {
	width = max(width, 10)
	var lines []string
	current := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case current == "":
			current = word
		case utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) <= width:
			current += " " + word
		default:
			lines, current = append(lines, current), word
		}
		for runes := []rune(current); len(runes) > width; runes = []rune(current) {
			lines, current = append(lines, string(runes[:width])), string(runes[width:])
		}
	}
	return append(lines, current)
}

func (f frame) hintLine() line {
	s := good
	if !f.came {
		s = second
	}
	return line{{bold, " " + f.hint}, {dim, fmt.Sprintf("   %s  ", clock(f.elapsed))}, {s, f.outcome()}}
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
