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
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "List rollouts, and send them on or back",
		Long: `List the rollouts of the hub: where each stands, and what it waits for. Its verbs send one on, or back.

A verb is an annotation with a new value; GitOps tools leave it alone. One that has nothing to do says so by an Event of the rollout.`,
		Example: `  isthmus rollout
  isthmus rollout promote shop/cart-v2
  isthmus rollout abort -n shop cart-v2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("a rollout hears no %q: see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.tellOf(cmd, func(records federation.Records) error {
				return listRollouts(cmd.OutOrStdout(), records.Rollouts, a.namespace)
			}, "TrafficRollouts")
		},
	}
	for _, verb := range rolloutVerbs {
		cmd.AddCommand(&cobra.Command{
			Use: verb.name + " " + takesRollout, Short: verb.short,
			Args: func(cmd *cobra.Command, args []string) error {
				if len(args) != 1 {
					return usageError("say which rollout: one %s; see %s --help", takesRollout, cmd.CommandPath())
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				return sayToRollout(cmd, a, args[0], verb.annotation)
			},
		})
	}
	return cmd
}

func listRollouts(out io.Writer, rollouts []v1alpha1.TrafficRollout, namespace string) error {
	rollouts = slices.DeleteFunc(slices.Clone(rollouts), func(r v1alpha1.TrafficRollout) bool { return namespace != "" && r.Namespace != namespace })
	if len(rollouts) == 0 {
		fmt.Fprintln(out, "There is no rollout.")
		return nil
	}
	slices.SortFunc(rollouts, func(a, b v1alpha1.TrafficRollout) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ROLLOUT\tROUTE\tPHASE\tWAVE\tCLUSTERS\tMESSAGE")
	for i := range rollouts {
		r := &rollouts[i]
		var clusters []string
		for _, c := range r.Status.Clusters {
			clusters = append(clusters, fmt.Sprintf("%s %d%%", c.Cluster, c.Weight))
		}
		fmt.Fprintln(w, strings.Join([]string{r.Namespace + "/" + r.Name, r.Spec.Route.Name, cmp.Or(string(r.Status.Phase), "not looked at yet"),
			cmp.Or(r.Status.WaveName, "-"), cmp.Or(strings.Join(clusters, " "), "-"), oneLine(r.Status.Message)}, "\t"))
	}
	return w.Flush()
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
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no TrafficRollout %s: isthmus rollout lists those that there are", key)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not patch TrafficRollouts of %s: ask for the rights that docs/reference/cli.md lists: %w", key.Namespace, err)
	case err != nil:
		return h.explain(err, "TrafficRollouts")
	}
	_, verb, _ := strings.Cut(annotation, "/")
	fmt.Fprintf(out, "Said %s to TrafficRollout %s, which was %s. isthmus rollout tells where it stands now.\n", verb, key,
		cmp.Or(string(rollout.Status.Phase), "not looked at yet"))
	return nil
}
