// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func (w word) endCommand(a *access) *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{Use: strings.TrimSpace(w.end + " " + w.takes), Short: w.endShort, Args: w.args, ValidArgsFunction: w.complete(a),
		Long: w.endShort + `: delete the TrafficOverride that isthmus ` + w.say + ` made. Policies and health decide again at once.

One that was made otherwise is named, with the command that deletes it, and left alone: it may be under the care of another tool.`}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return w.runEnd(cmd, a, dryRun, strings.Join(args, ""))
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would move, and change nothing")
	return cmd
}

func (w word) runEnd(cmd *cobra.Command, a *access, dryRun bool, name string) error {
	spec, err := w.spelled(a, name)
	if err != nil {
		return err
	}
	may, reads := mayOverride, w.reads
	if dryRun {
		may, reads = mayRead, nil
	}
	return a.onRecords(cmd, may, reads, func(ctx context.Context, h *hub, records federation.Records) error {
		out := cmd.OutOrStdout()
		ended, err := w.ended(ctx, out, h, spec, dryRun)
		if err != nil {
			return err
		}
		left := records
		left.Overrides = slices.DeleteFunc(slices.Clone(records.Overrides), func(o v1alpha1.TrafficOverride) bool { return ended && o.Name == overrideName(spec) })
		if dryRun && ended {
			return foretell(out, records, left.Overrides, "TrafficOverride "+overrideName(spec)+" is ended", w.remaining(spec, left))
		}
		return w.sayRemaining(out, name, spec, ended, left)
	})
}

// ended deletes the override of that name, and tells whether there was one.
func (w word) ended(ctx context.Context, out io.Writer, h *hub, spec v1alpha1.TrafficOverrideSpec, dryRun bool) (bool, error) {
	o := &v1alpha1.TrafficOverride{}
	err := h.Get(ctx, client.ObjectKey{Name: overrideName(spec)}, o)
	if apierrors.IsNotFound(err) || err == nil && !sameAbout(o.Spec, spec) {
		return false, nil
	}
	if err != nil {
		return false, h.explain(err, "TrafficOverrides")
	}
	if err := h.remove(ctx, o); err != nil {
		return false, err
	}
	switch {
	case dryRun:
	case federation.Expired(o, h.now()):
		fmt.Fprintf(out, "TrafficOverride %s %s had ended by itself %s, and is deleted.\n", o.Name, signed(o.Spec), ago(*o.Spec.Expires, h.now()))
	default:
		fmt.Fprintf(out, "Ended: TrafficOverride %s %s.\n", o.Name, signed(o.Spec))
	}
	return true, nil
}

// remaining are the overrides in force that still do it, with what ends each.
func (w word) remaining(spec v1alpha1.TrafficOverrideSpec, records federation.Records) []string {
	var out []string
	for _, o := range overridesInForce(records) {
		if does(o.Spec, spec) {
			out = append(out, fmt.Sprintf("%s still %s, by TrafficOverride %s %s, %s; to end that: %s", about(spec), w.did, o.Name, signed(o.Spec),
				until(o.Spec, records.Now), howToEnd(o)))
		}
	}
	return out
}

// does tells whether an override does, perhaps among other things, what a spec of this command's says.
func does(o, spec v1alpha1.TrafficOverrideSpec) bool {
	of := func(refs []v1alpha1.ObjectReference) func(v1alpha1.ObjectReference) bool {
		return func(ref v1alpha1.ObjectReference) bool { return slices.Contains(refs, ref) }
	}
	switch {
	case o.Type == v1alpha1.OverrideFreeze && spec.Type == v1alpha1.OverrideHold:
		return true
	case o.Type != spec.Type || o.Cluster != spec.Cluster:
		return false
	case spec.Type == v1alpha1.OverrideDrain:
		return len(o.Imports) == 0 || slices.ContainsFunc(spec.Imports, of(o.Imports))
	}
	return len(spec.Routes) == 0 || slices.ContainsFunc(spec.Routes, of(o.Routes))
}

func (w word) sayRemaining(out io.Writer, name string, spec v1alpha1.TrafficOverrideSpec, ended bool, left federation.Records) error {
	remaining := w.remaining(spec, left)
	if len(remaining) == 0 && !ended {
		if err := w.there(name, spec, left); err != nil {
			return err
		}
		fmt.Fprintf(out, "There is no %s of %s: nothing was changed.\n", w.say, about(spec))
	}
	for _, line := range remaining {
		fmt.Fprintln(out, line)
	}
	if len(remaining) > 0 {
		return exitError{errors.New(""), exitConcerns}
	}
	return nil
}
