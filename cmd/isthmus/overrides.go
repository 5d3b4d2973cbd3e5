// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func overridesCommand(a *access) *cobra.Command {
	var as *output
	cmd := &cobra.Command{
		Use:   "overrides",
		Short: "List what people have said: who, why, until when, and whether it is in force",
		Long: `List what people have said: who, why, until when, and whether it is in force.

These are all TrafficOverrides of the hub, made by this command or otherwise; also those that have expired, which do nothing.`,
		Example: `  isthmus overrides
  isthmus overrides -o yaml       # whole, for a script or a change ticket`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := as.check(); err != nil {
				return err
			}
			return a.tellOf(cmd, func(records federation.Records) error {
				slices.SortFunc(records.Overrides, func(a, b v1alpha1.TrafficOverride) int {
					return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
				})
				return as.printObjects(cmd.OutOrStdout(), pointersTo(records.Overrides), func(out io.Writer) error {
					return listOverrides(out, records.Overrides, records.Now)
				})
			}, "TrafficOverrides")
		},
	}
	as = addOutputFlag(cmd, asJSON, asYAML, asName)
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("%s takes nothing, and so not %q: see %s --help", cmd.Name(), args[0], cmd.CommandPath())
	}
	return nil
}

func listOverrides(out io.Writer, overrides []v1alpha1.TrafficOverride, now time.Time) error {
	if len(overrides) == 0 {
		fmt.Fprintln(out, "Nobody overrides anything: policies and health decide.")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "TYPE\tWHAT\tAUTHOR\tREASON\tSAID\tEXPIRES\tIN FORCE\tNAME")
	var notes []string
	for i := range overrides {
		o := &overrides[i]
		state, note := standing(o, now)
		fmt.Fprintln(w, strings.Join([]string{string(o.Spec.Type), about(o.Spec), o.Spec.Author, oneLine(o.Spec.Reason), cmp.Or(ago(o.CreationTimestamp, now), "-"),
			expiry(o.Spec.Expires, now), state, o.Name}, "\t"))
		if note != "" {
			notes = append(notes, o.Name+": "+note)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(notes) > 0 {
		fmt.Fprintln(out, "\n"+strings.Join(notes, "\n"))
	}
	return nil
}

// standing is whether an override is in force, in a word or two, and what is worth to be known of it.
func standing(o *v1alpha1.TrafficOverride, now time.Time) (state, note string) {
	inForce, drained := newest(o, v1alpha1.OverrideInForce), newest(o, v1alpha1.OverrideDrained)
	switch {
	case federation.Expired(o, now):
		return "no: " + v1alpha1.ReasonExpired, "it does nothing any more; to clear it away: " + howToEnd(o)
	case inForce == nil:
		return "not looked at yet", ""
	case inForce.Status != metav1.ConditionTrue:
		return "no: " + inForce.Reason, inForce.Message
	case drained == nil:
		return "yes", notAccepted(o)
	case drained.Status == metav1.ConditionTrue:
		return "yes, Drained", notAccepted(o)
	}
	return "yes, " + drained.Reason, cmp.Or(notAccepted(o), drained.Message)
}

// notAccepted is what an override names and is not there.
func notAccepted(o *v1alpha1.TrafficOverride) string {
	if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted); c != nil && c.Status == metav1.ConditionFalse {
		return c.Message
	}
	return ""
}

// oneLine keeps a person's words in their place of a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
