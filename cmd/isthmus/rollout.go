// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// rolloutVerbs are the words that a TrafficRollout hears.
var rolloutVerbs = []struct{ name, annotation, short string }{
	{"promote", v1alpha1.VerbPromote, "End the pause that a rollout is in, and no other"},
	{"promote-full", v1alpha1.VerbPromoteFull, "Go to the end, without any further pause or analysis"},
	{"pause", v1alpha1.VerbPause, "Stop before the next step"},
	{"resume", v1alpha1.VerbResume, "Go on after a pause"},
	{"abort", v1alpha1.VerbAbort, "Bring everything back to the old side, at once"},
	{"retry", v1alpha1.VerbRetry, "Begin anew after an abort, or measure again where an analysis came to no verdict"},
	{"skip-analysis", v1alpha1.VerbSkipAnalysis, "End the analysis that is under way as if it had succeeded"},
}

const takesRollout = "NAMESPACE/ROLLOUT"

func rolloutCommand(a *access) *cobra.Command {
	list := listCommand(a)
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "List rollouts, look at one, and send it on or back",
		Long: `List the rollouts of the hub: where each stands, and what it waits for. Its verbs send one on, or back.

A verb is an annotation with a new value; GitOps tools leave it alone. One that has nothing to do says so by an Event of the rollout.`,
		Example: `  isthmus rollout                               # list all
  isthmus rollout get shop/cart-v2              # its waves and steps, and what it waits for
  isthmus rollout get shop/cart-v2 --watch      # until it is complete, or aborted
  isthmus rollout promote shop/cart-v2
  isthmus rollout abort -n shop cart-v2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("a rollout hears no %q: see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return list.RunE(cmd, args) },
	}
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, getCommand(a))
	for _, verb := range rolloutVerbs {
		cmd.AddCommand(&cobra.Command{
			Use: verb.name + " " + takesRollout, Short: verb.short, Args: oneRollout,
			Example: "  isthmus rollout " + verb.name + " shop/cart-v2\n  isthmus rollout " + verb.name + " -n shop cart-v2", ValidArgsFunction: a.complete(rolloutNames, "TrafficRollouts"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return sayToRollout(cmd, a, args[0], verb.annotation)
			},
		})
	}
	return cmd
}

// oneRollout refuses a verb without its rollout, and more than one.
func oneRollout(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("say which rollout: one %s; see %s --help", takesRollout, cmd.CommandPath())
	}
	return nil
}

func listCommand(a *access) *cobra.Command {
	var as *output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rollouts of the hub: where each stands, and what it waits for",
		Example: `  isthmus rollout list -n shop
  isthmus rollout list -o name`,
		Args: noArgs,
	}
	cmd.RunE = func(told *cobra.Command, _ []string) error {
		if err := as.check(); err != nil {
			return err
		}
		return a.tellOf(told, func(records federation.Records) error {
			rollouts := slices.DeleteFunc(records.Rollouts, func(r v1alpha1.TrafficRollout) bool { return a.namespace != "" && r.Namespace != a.namespace })
			slices.SortFunc(rollouts, func(a, b v1alpha1.TrafficRollout) int {
				return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
			})
			return as.printObjects(told.OutOrStdout(), pointersTo(rollouts), func(out io.Writer) error {
				return listRollouts(out, rollouts, records.Now)
			})
		}, "TrafficRollouts")
	}
	as = addOutputFlag(cmd, asJSON, asYAML, asName)
	return cmd
}

func listRollouts(out io.Writer, rollouts []v1alpha1.TrafficRollout, now time.Time) error {
	if len(rollouts) == 0 {
		fmt.Fprintln(out, "There is no rollout.")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ROLLOUT\tROUTE\tPHASE\tSINCE\tAT\tCLUSTERS\tMESSAGE")
	for i := range rollouts {
		r := &rollouts[i]
		fmt.Fprintln(w, strings.Join([]string{r.Namespace + "/" + r.Name, r.Spec.Route.Name, phaseOf(r), cmp.Or(ago(sinceOf(r), now), "-"),
			cmp.Or(whereabouts(r), "-"), cmp.Or(weightsOf(r), "-"), oneLine(r.Status.Message)}, "\t"))
	}
	return w.Flush()
}

// phaseOf is the phase in a word; of a rollout that went back, that.
func phaseOf(r *v1alpha1.TrafficRollout) string {
	if r.Status.Aborted != "" {
		return v1alpha1.ReasonAborted
	}
	return cmp.Or(string(r.Status.Phase), "not looked at yet")
}

func sinceOf(r *v1alpha1.TrafficRollout) metav1.Time {
	return metav1.Time{Time: federation.RolloutSince(r.Status)}
}

// whereabouts are the wave and the step that are under way; empty where none is.
func whereabouts(r *v1alpha1.TrafficRollout) string {
	waves := federation.OutlookOf(r).Waves
	for i, wave := range waves {
		if wave.Progress != federation.RolloutUnderWay {
			continue
		}
		where := "wave " + wave.Name
		if len(waves) > 1 {
			where += fmt.Sprintf(" (%d of %d)", i+1, len(waves))
		}
		step := slices.IndexFunc(wave.Steps, func(s federation.StepOutlook) bool { return s.Progress == federation.RolloutUnderWay })
		if step < 0 {
			return where + ", its hold"
		}
		return where + fmt.Sprintf(", step %d of %d", step+1, len(wave.Steps))
	}
	return ""
}

// position is whereabouts with the clusters' weights.
func position(r *v1alpha1.TrafficRollout) string {
	return strings.Trim(whereabouts(r)+": "+weightsOf(r), ": ")
}

// weightsOf is how much of what each cluster serves is at the new side.
func weightsOf(r *v1alpha1.TrafficRollout) string {
	var clusters []string
	for _, c := range r.Status.Clusters {
		clusters = append(clusters, fmt.Sprintf("%s %d%%", c.Cluster, c.Weight))
	}
	return strings.Join(clusters, " ")
}

func sayToRollout(cmd *cobra.Command, a *access, name, annotation string) error {
	key, err := spelledName(a, name, takesRollout)
	if err != nil {
		return err
	}
	return a.onHub(cmd, mayRollout, func(ctx context.Context, h *hub) error {
		return h.sayToRollout(ctx, cmd.OutOrStdout(), key, annotation)
	})
}

func (h *hub) sayToRollout(ctx context.Context, out io.Writer, key federation.ServiceKey, annotation string) error {
	rollout := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: h.now().UTC().Format(time.RFC3339Nano)}}})
	if err != nil {
		return err
	}
	err = h.Patch(ctx, rollout, client.RawPatch(types.MergePatchType, patch), client.FieldOwner("isthmus-cli"))
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not patch TrafficRollouts of %s: ask for the rights that docs/reference/cli.md lists: %w", key.Namespace, err)
	case err != nil:
		return h.rolloutError(err, key)
	}
	_, verb, _ := strings.Cut(annotation, "/")
	fmt.Fprintf(out, "Said %s to TrafficRollout %s, which was %s. isthmus rollout get %s tells where it stands now.\n", verb, key, phaseOf(rollout), key)
	return nil
}
