// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"isthmus.dev/isthmus/federation"
)

// answer is what `isthmus plan` has to say; its JSON is stable: fields are added and never renamed.
type answer struct {
	// Supposed is what was supposed, in words.
	Supposed []string `json:"supposed"`
	federation.Consequences
	// Notes are reasons to believe it less.
	Notes []string `json:"notes,omitempty"`
}

func (a *answer) table(out io.Writer) error {
	fmt.Fprintf(out, "Supposed: %s. Nothing was changed.\n", strings.Join(a.Supposed, "; "))
	if len(a.Splits)+len(a.Addresses) == 0 {
		fmt.Fprintln(out, "\nNo weight and no address would change.")
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	if len(a.Splits) > 0 {
		fmt.Fprintln(w, "\nROUTE\tRULE\tENTERED\tIMPORT\tCLUSTER\tNOW\tTHEN\tCARRIES\tWHY")
	}
	for _, split := range a.Splits {
		head := []string{split.Route, split.Rule, strings.Join(split.Entered, ",")}
		for _, b := range split.Backends {
			fmt.Fprintln(w, strings.Join(append(head, cmp.Or(b.Import, "as written"), cmp.Or(b.Cluster, "-"),
				percent(b.From), percent(b.To), carries(b), why(b)), "\t"))
			head = []string{"", "", ""}
		}
	}
	if len(a.Addresses) > 0 {
		fmt.Fprintln(w, "\nGATEWAY\tADDRESS\tMEMBER\tCHANGE")
	}
	for _, change := range a.Addresses {
		fmt.Fprintln(w, strings.Join([]string{change.Gateway, change.Address, cmp.Or(change.Member, "-"), change.Change}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(a.Concerns) > 0 {
		fmt.Fprintln(out, "\nCONCERNS")
	}
	for _, c := range a.Concerns {
		where := c.Kind + " " + c.Name
		if c.Where != "" {
			where += ", " + c.Where
		}
		fmt.Fprintf(out, "%s (%s)\n  %s\n", where, c.Reason, c.Message)
	}
	if len(a.Notes) > 0 {
		fmt.Fprintln(out, "\nNOTES")
	}
	for _, note := range a.Notes {
		fmt.Fprintln(out, "  "+note)
	}
	return nil
}

// percent of the rule's requests, of which a weight is a ten-thousandth.
func percent(weight int32) string {
	return fmt.Sprintf("%d.%02d%%", weight/(federation.TotalWeight/100), weight%(federation.TotalWeight/100))
}

// carries is the part of its import's requests that a cluster has to carry, and what it can.
func carries(b federation.BackendChange) string {
	switch {
	case b.To == 0:
		return "-"
	case b.CapacityPercent == nil:
		return fmt.Sprintf("%d%%", b.LoadPercent)
	}
	return fmt.Sprintf("%d%% of %d%%", b.LoadPercent, *b.CapacityPercent)
}

func why(b federation.BackendChange) string {
	if b.Message == "" {
		return b.Reason
	}
	return b.Reason + ": " + b.Message
}
