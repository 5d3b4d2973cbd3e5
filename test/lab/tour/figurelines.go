// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// figureLines draw the requests: a row for each cluster that answers, one for what failed.
func (f frame) figureLines(width int) []line {
	bar, story := graphWidths(width)
	top := fmt.Sprintf(" %-9s %9s %7s", "served by", "now", "share")
	if bar > 0 {
		top += fmt.Sprintf("  %-*s", bar, "")
	}
	if story > 0 {
		top += fmt.Sprintf("  last %d s", story*int(slot)/int(time.Second))
	}
	lines := []line{text(dim, "%s", top)}
	for i, row := range f.figures.Clusters {
		lines = append(lines, f.rowLine(row, clusterStyle(i), bar, story))
	}
	waiting := dim
	if f.figures.Waiting > f.rate/10 {
		waiting = bad
	}
	lines = append(lines, f.rowLine(f.figures.Failed, bad, bar, story), text(waiting, " %-9s %7d", "no answer", f.figures.Waiting))
	return append(lines, f.totalLines()...)
}

// graphWidths says how many columns the two graphs get.
func graphWidths(width int) (bar, story int) {
	switch {
	case width >= 96:
		return 24, 40
	case width >= 76:
		return 20, 24
	case width >= 52:
		return 20, 0
	}
	return 0, 0
}

func clusterStyle(i int) style { return []style{first, second, third}[i%3] }

func (f frame) rowLine(row Row, s style, bar, story int) line {
	if row.Rate == 0 {
		s = dim
	}
	l := text(s, " %-9s %7.0f/s %5.0f %%", row.Name, row.Rate, 100*row.Share)
	if bar > 0 {
		full := int(math.Round(row.Share * float64(bar)))
		if row.Rate > 0 {
			full = max(full, 1) // a little is not nothing
		}
		l = append(l, span{s, "  " + strings.Repeat("█", full)}, span{dim, strings.Repeat("·", bar-full)})
	}
	if story > 0 {
		l = append(l, span{s, "  " + sparkline(row.Story, story, float64(f.rate))})
	}
	return l
}

// sparkline draws the last rates, the newest at the right, against the whole load. Nothing is a blank.
func sparkline(rates []float64, width int, full float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	out := []rune(strings.Repeat(" ", max(0, width-len(rates))))
	for _, rate := range rates[max(0, len(rates)-width):] {
		if rate == 0 {
			out = append(out, ' ')
			continue
		}
		out = append(out, levels[min(len(levels)-1, int(rate/full*float64(len(levels))))])
	}
	return string(out)
}

func (f frame) totalLines() []line {
	t := f.figures.Since
	l := text(plain, " since then %d requests, ", t.Requests)
	if t.Failed == 0 {
		l = append(l, span{good, "none failed"})
	} else {
		l = append(l, span{bad, fmt.Sprintf("%d failed", t.Failed)})
	}
	return []line{append(l, span{plain, fmt.Sprintf(", slowest %s", took(t.Slowest))}), text(bad, " %s", t.causes())}
}

// causes says why requests failed, and for how long; empty when none did.
func (t Totals) causes() string {
	var causes []string
	for _, name := range t.failureNames() {
		causes = append(causes, fmt.Sprintf("%d × %s", t.Failures[name], name))
	}
	if t.Failed > 1 {
		causes = append(causes, "all within "+took(t.Failing))
	}
	return strings.Join(causes, ", ")
}

func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// hubLines tell what the hub decided, and why.
func (f frame) hubLines(width int) []line {
	lines := []line{text(dim, " %-9s  weights in its route, by the RoutePlan", "enters at")}
	for _, p := range f.seen.Plans {
		lines = append(lines, f.planLine(p))
	}
	if len(f.seen.Plans) == 0 {
		lines = append(lines, text(dim, " no RoutePlan yet"))
	}
	lines = append(lines, f.reasonLines()...)
	said := func(s style, words string) {
		for _, part := range wrap(words, min(width, 96)-2) {
			lines = append(lines, text(s, " %s", part))
		}
	}
	if f.seen.Shifted != "" {
		said(second, "the route says "+f.seen.Shifted)
	}
	for _, m := range f.seen.Members {
		if !m.Connected {
			said(bad, fmt.Sprintf("member %s is not connected (%s)", m.Name, m.Reason))
		}
	}
	if !f.seen.HubRuns {
		said(bad, "no controller is ready in the hub")
	}
	if f.seen.Stale != "" {
		said(bad, "the hub does not answer: "+f.seen.Stale)
	}
	return lines
}

func (f frame) planLine(p Plan) line {
	l := text(plain, " %-9s ", p.Member)
	for _, w := range p.Weights {
		l = append(l, span{f.styleOf(w.Cluster), fmt.Sprintf(" %s %3.0f %%  ", w.Cluster, w.Percent)})
	}
	if !p.Programmed {
		l = append(l, span{dim, "not programmed yet"})
	}
	return l
}

// reasonLines say once what all plans say alike.
func (f frame) reasonLines() []line {
	var lines []line
	said := map[string]bool{}
	for _, p := range f.seen.Plans {
		for _, w := range p.Weights {
			why := fmt.Sprintf("%s: %s", w.Reason, w.Message)
			if key := w.Cluster + why; !said[key] {
				said[key] = true
				lines = append(lines, line{{dim, " why "}, {f.styleOf(w.Cluster), fmt.Sprintf("%-6s ", w.Cluster)}, {dim, why}})
			}
		}
	}
	return lines
}

func (f frame) styleOf(cluster string) style {
	for i, row := range f.figures.Clusters {
		if row.Name == cluster {
			return clusterStyle(i)
		}
	}
	return plain
}

// short is the frame in one line, for a pipe or a log.
func (f frame) short() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s ", clock(f.elapsed))
	for _, row := range append(f.figures.Clusters[:len(f.figures.Clusters):len(f.figures.Clusters)], f.figures.Failed) {
		fmt.Fprintf(&b, " %s %.0f/s (%.0f %%)", row.Name, row.Rate, 100*row.Share)
	}
	for _, p := range f.seen.Plans {
		fmt.Fprintf(&b, "  weights in %s:", p.Member)
		for _, w := range p.Weights {
			fmt.Fprintf(&b, " %s %.0f (%s)", w.Cluster, w.Percent, w.Reason)
		}
	}
	for _, m := range f.seen.Members {
		if !m.Connected {
			fmt.Fprintf(&b, "  %s not connected (%s)", m.Name, m.Reason)
		}
	}
	if !f.seen.HubRuns {
		b.WriteString("  no controller")
	}
	return b.String()
}
