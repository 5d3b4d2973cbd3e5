// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func whyCommand(a *access) *cobra.Command {
	return &cobra.Command{
		Use:   "why NAMESPACE/ROUTE",
		Short: "Say why a route's traffic goes where it goes",
		Long: `Say why a route's traffic goes where it goes: its conditions, and for each member that requests may enter the share
of each cluster, with the verdict on the service there, the reason of the share, and since when it is so where that is recorded; and the
rollout that changes the split, if any: how far it is, and by which words it goes on or back.`,
		Example: `  isthmus why shop/cart
  isthmus why -n shop cart`,
		ValidArgsFunction: a.complete(routeNames, "HTTPRoutes"),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("say which HTTPRoute: one NAMESPACE/ROUTE; see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := spelledRoute(a, args[0])
			if err != nil {
				return err
			}
			return a.tellOf(cmd, func(records federation.Records) error { return tellWhy(cmd.OutOrStdout(), key, records) }, "HTTPRoutes", "RoutePlans",
				"TrafficRollouts")
		},
	}
}

func tellWhy(out io.Writer, key federation.ServiceKey, records federation.Records) error {
	i := slices.IndexFunc(records.Routes, func(r gatewayv1.HTTPRoute) bool { return r.Namespace == key.Namespace && r.Name == key.Name })
	if i < 0 {
		return noRoute(v1alpha1.ObjectReference{Namespace: key.Namespace, Name: key.Name}, records)
	}
	conditions := routeConditions(&records.Routes[i])
	if len(conditions) == 0 {
		fmt.Fprintf(out, "HTTPRoute %s: Isthmus says nothing of it. Does it name a Gateway of class isthmus in its parentRefs, and does the hub's controller run?\n", key)
		return nil
	}
	fmt.Fprintf(out, "HTTPRoute %s\n\n", key)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CONDITION\tSTATUS\tREASON\tSINCE\tMESSAGE")
	for _, c := range conditions {
		fmt.Fprintln(w, conditionRow(c, records.Now))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rolloutsOf(key, records) {
		tellRollout(out, r, records.Now)
	}
	views := viewsOf(key, records.Plans)
	if len(views) == 0 {
		fmt.Fprintln(w, "\nNothing has been decided for any member yet.")
		return w.Flush()
	}
	fmt.Fprintln(w, "\nENTERED\tRULE\tPOLICY\tIMPORT\tCLUSTER\tSHARE\tVERDICT\tSINCE\tWHY")
	for _, v := range views {
		v.print(w, records.Now)
	}
	v := unconfirmed(key, records)
	if len(v) > 0 {
		fmt.Fprintln(w, "\nMEMBER\tCONDITION\tSTATUS\tREASON\tSINCE\tMESSAGE")
	}
	for _, row := range v {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

// rolloutsOf are the rollouts of a route that have not ended.
func rolloutsOf(route federation.ServiceKey, records federation.Records) []*v1alpha1.TrafficRollout {
	var out []*v1alpha1.TrafficRollout
	for i := range records.Rollouts {
		if r := &records.Rollouts[i]; r.Namespace == route.Namespace && r.Spec.Route.Name == route.Name && !r.Status.Retired {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.TrafficRollout) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// tellRollout says what a rollout does to its route's split, what it waits for, and how it goes on or back.
func tellRollout(out io.Writer, r *v1alpha1.TrafficRollout, now time.Time) {
	name := r.Namespace + "/" + r.Name
	fmt.Fprintf(out, "\nTrafficRollout %s (%s) is %s", name, moves(r.Spec), phaseOf(r))
	if at := sinceOf(r); !at.IsZero() {
		fmt.Fprintf(out, " since %s", since(at, now))
	}
	fmt.Fprintln(out)
	for _, line := range []string{position(r), r.Status.Message, sayable(r)} {
		if line != "" {
			fmt.Fprintln(out, "  "+oneLine(line))
		}
	}
}

func conditionRow(c metav1.Condition, now time.Time) string {
	return strings.Join([]string{c.Type, string(c.Status), c.Reason, since(c.LastTransitionTime, now), oneLine(c.Message)}, "\t")
}

// since is a time with its distance; "-" where it is not known.
func since(at metav1.Time, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return clock(at) + " (" + ago(at, now) + ")"
}

// routeConditions are those that Isthmus says of a route, each once whichever of its Gateways it is said for.
func routeConditions(route *gatewayv1.HTTPRoute) []metav1.Condition {
	var out []metav1.Condition
	for _, parent := range route.Status.Parents {
		if parent.ControllerName != v1alpha1.ControllerName {
			continue
		}
		for _, c := range parent.Conditions {
			if !slices.ContainsFunc(out, func(o metav1.Condition) bool {
				return o.Type == c.Type && o.Status == c.Status && o.Reason == c.Reason && o.Message == c.Message
			}) {
				out = append(out, c)
			}
		}
	}
	return out
}

// view is what was decided alike for some members.
type view struct {
	entered []string
	rules   []v1alpha1.PlannedRule
}

// viewsOf are a route's plans, by member, those that are alike together.
func viewsOf(key federation.ServiceKey, plans []v1alpha1.RoutePlan) []view {
	var out []view
	byText := map[string]int{}
	for _, plan := range plansOf(key, plans) {
		text, err := json.Marshal(plan.Status.Rules)
		if i, alike := byText[string(text)]; alike && err == nil {
			out[i].entered = append(out[i].entered, plan.Status.Member)
			continue
		}
		byText[string(text)] = len(out)
		out = append(out, view{[]string{plan.Status.Member}, plan.Status.Rules})
	}
	return out
}

// plansOf are those of one HTTPRoute, by member.
func plansOf(key federation.ServiceKey, plans []v1alpha1.RoutePlan) []v1alpha1.RoutePlan {
	var out []v1alpha1.RoutePlan
	for _, plan := range plans {
		if plan.Namespace == key.Namespace && plan.Status.Route == "HTTPRoute/"+key.Name {
			out = append(out, plan)
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.RoutePlan) int { return strings.Compare(a.Status.Member, b.Status.Member) })
	return out
}

func (v view) print(w io.Writer, now time.Time) {
	entered := strings.Join(v.entered, ",")
	for _, rule := range v.rules {
		head := []string{entered, rule.Name, cmp.Or(rule.Policy, "-")}
		for _, b := range rule.Backends {
			at := metav1.Time{}
			if b.Health != nil {
				at.Time = b.Health.Since.Time
			}
			words := b.Reason
			if b.Message != "" {
				words += ": " + oneLine(b.Message)
			}
			fmt.Fprintln(w, strings.Join(append(head, cmp.Or(b.Import, "as written"), cmp.Or(b.Cluster, "-"), percent(b.Weight),
				cmp.Or(b.Verdict, "-"), since(at, now), words), "\t"))
			head = []string{"", "", ""}
		}
	}
}

// unconfirmed are the conditions of a route's plans that are not as they should be: a split that a member does not hold yet.
func unconfirmed(key federation.ServiceKey, records federation.Records) []string {
	var out []string
	for _, plan := range plansOf(key, records.Plans) {
		for _, c := range plan.Status.Conditions {
			if c.Status != metav1.ConditionTrue {
				out = append(out, plan.Status.Member+"\t"+conditionRow(c, records.Now))
			}
		}
	}
	return out
}
