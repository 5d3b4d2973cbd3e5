// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// sayFlags are how something is said.
type sayFlags struct {
	reason           string
	lasts            time.Duration
	replace, dryRun  bool
	force, wait      bool
	grace, timeout   time.Duration
	forGiven, graced bool
}

func (w word) sayCommand(a *access) *cobra.Command {
	var f sayFlags
	cmd := &cobra.Command{Use: strings.TrimSpace(w.say + " " + w.takes), Short: w.short, Long: w.long, Args: w.args, ValidArgsFunction: w.complete(a)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.forGiven, f.graced = cmd.Flags().Changed("for"), cmd.Flags().Changed("grace")
		if err := f.check(); err != nil {
			return err
		}
		return w.runSay(cmd, a, f, strings.Join(args, ""))
	}
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", w.reason, "why, in words for whoever is on call")
	flags.DurationVar(&f.lasts, "for", w.lasts, "let it end by itself after this time, such as 2h (default: it holds until it is ended)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "tell what would move, and change nothing")
	if w.kind != v1alpha1.OverrideFailback {
		flags.BoolVar(&f.replace, "replace", false, "take the place of what "+w.say+" said before, also where that was somebody else")
	}
	if w.kind == v1alpha1.OverrideDrain {
		flags.BoolVar(&f.force, "force", false, "drain also what no other cluster can serve: these requests fail")
		flags.DurationVar(&f.grace, "grace", v1alpha1.DrainGracePeriod, "how long requests in flight are given to end, 0s to 24h")
		flags.BoolVar(&f.wait, "wait", false, "wait until nothing is sent there any more and the grace period is over, and say how far it is")
		flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to --wait")
		cmd.Example = `  isthmus drain eks --reason 'Kubernetes 1.37' --dry-run          # what would move
  isthmus drain eks --reason 'Kubernetes 1.37' --for 4h --wait    # returns once eks is empty
  isthmus drain eks/shop/cart --reason 'cart is slow there'       # one service`
	}
	return cmd
}

// args refuses a verb without its object, and more than one.
func (w word) args(cmd *cobra.Command, args []string) error {
	switch {
	case w.takes == "" && len(args) > 0:
		return usageError("%s takes nothing, and so not %q: see %s --help", cmd.Name(), args[0], cmd.CommandPath())
	case w.takes != "" && len(args) != 1:
		return usageError("say what to %s: one %s", cmd.Name(), w.takes)
	}
	return nil
}

func (f sayFlags) check() error {
	switch {
	case strings.TrimSpace(f.reason) == "":
		return usageError("say why by --reason: whoever is on call will ask")
	case f.forGiven && f.lasts < time.Second:
		return usageError("--for is %s: give a second or more, such as 2h", f.lasts)
	case f.grace < 0 || f.grace > 24*time.Hour:
		return usageError("--grace is %s: give 0s to 24h", f.grace)
	case f.wait && f.dryRun:
		return usageError("--dry-run drains nothing, so there is nothing to --wait for")
	case f.wait && f.timeout <= f.grace:
		return usageError("--timeout %s is over before --grace %s is: wait longer", f.timeout, f.grace)
	}
	return nil
}

// fill puts into a spec what the flags say.
func (f sayFlags) fill(spec *v1alpha1.TrafficOverrideSpec, author string, now time.Time) {
	spec.Author, spec.Reason, spec.Force = author, strings.TrimSpace(f.reason), f.force
	if f.lasts > 0 {
		spec.Expires = &metav1.Time{Time: now.Add(f.lasts).Truncate(time.Second)}
	}
	if f.graced {
		spec.GracePeriod = &metav1.Duration{Duration: f.grace}
	}
}

func (w word) runSay(cmd *cobra.Command, a *access, f sayFlags, name string) error {
	spec, err := w.spelled(a, name)
	if err != nil {
		return err
	}
	may, reads := mayOverride, w.reads
	if f.dryRun {
		may, reads = mayRead, nil
	}
	return a.onRecords(cmd, may, reads, func(ctx context.Context, h *hub, records federation.Records) error {
		if err := w.there(name, spec, records); err != nil {
			return err
		}
		author, err := h.author(ctx)
		if err != nil {
			return err
		}
		f.fill(&spec, author, h.now())
		o := &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Name: overrideName(spec)}, Spec: spec}
		if f.dryRun {
			return w.trySay(ctx, cmd.OutOrStdout(), h, records, o)
		}
		said, err := w.put(ctx, cmd.OutOrStdout(), h, records, o, f.replace)
		if err != nil || !f.wait {
			return err
		}
		return h.awaitDrained(cmd.Context(), cmd.OutOrStdout(), said, f.timeout)
	})
}

// author is who asks, as the API server knows them, since a kubeconfig may name anybody.
func (h *hub) author(ctx context.Context) (string, error) {
	review := &authenticationv1.SelfSubjectReview{}
	err := h.Create(ctx, review)
	if name := review.Status.UserInfo.Username; err == nil && name != "" {
		return name, nil
	}
	// Before Kubernetes 1.28 there is no such question, and it may be forbidden.
	silent := err == nil || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
	switch {
	case silent && h.user != "":
		return h.user, nil
	case silent:
		return "", fmt.Errorf("neither the hub (%s) nor the kubeconfig says who you are, which an override has to: use a kubeconfig with a named user", h.where)
	}
	return "", h.explain(err, "SelfSubjectReviews")
}

// trySay tells what would come of it, as isthmus plan does.
func (w word) trySay(ctx context.Context, out io.Writer, h *hub, records federation.Records, o *v1alpha1.TrafficOverride) error {
	var notes []string
	if same := inForce(o.Spec, records); same != nil {
		notes = append(notes, fmt.Sprintf("%s %s already, by TrafficOverride %s %s", about(o.Spec), w.did, same.Name, signed(same.Spec)))
	}
	tried := o.DeepCopy()
	switch err := h.Create(ctx, tried); {
	case apierrors.IsForbidden(err):
		notes = append(notes, "you may not create a TrafficOverride, so that nobody has checked it")
	case err != nil && !apierrors.IsAlreadyExists(err):
		return h.refused(err, "create", o.Name)
	}
	o.CreationTimestamp = metav1.NewTime(records.Now)
	others := slices.DeleteFunc(slices.Clone(records.Overrides), func(have v1alpha1.TrafficOverride) bool { return have.Name == o.Name })
	return foretell(out, records, append(others, *o), about(o.Spec)+" "+w.did, notes)
}

// foretell tells what would move if these were the overrides.
func foretell(out io.Writer, records federation.Records, overrides []v1alpha1.TrafficOverride, supposed string, notes []string) error {
	changed, guard := records, federation.Guard{MaxSuspected: federation.DefaultMaxSuspected}
	changed.Overrides = overrides
	is, would := records.Situation(guard), changed.Situation(guard)
	told := &answer{Supposed: []string{supposed}, Consequences: federation.WhatIf(is, would),
		Notes: slices.Concat(notes, records.Doubts(), underway(is))}
	return told.tell(out, &output{form: asTable})
}

// inForce is the oldest override in force that says the same of the same; nil where none does.
func inForce(spec v1alpha1.TrafficOverrideSpec, records federation.Records) *v1alpha1.TrafficOverride {
	for _, have := range overridesInForce(records) {
		if sameAbout(have.Spec, spec) {
			return have
		}
	}
	return nil
}

func overridesInForce(records federation.Records) federation.Overrides {
	var all []*v1alpha1.TrafficOverride
	for i := range records.Overrides {
		all = append(all, &records.Overrides[i])
	}
	return federation.OverridesInForce(all, records.Now)
}

// put writes an override, in this order:
//
//	the same is said already, as strongly and as long  nothing is written
//	the same is said already, and not to be replaced   refused
//	something else has its name                        refused
//	it is replaced                                     updated, so that there is no moment without it
//	it has expired, or is a failback                   deleted and created, since a failback counts from its creation
//
// It returns the name of the override that says it.
func (w word) put(ctx context.Context, out io.Writer, h *hub, records federation.Records, o *v1alpha1.TrafficOverride, replace bool) (string, error) {
	same := inForce(o.Spec, records)
	if same != nil && w.kind != v1alpha1.OverrideFailback && (!replace || same.Name != o.Name) {
		said := fmt.Sprintf("%s %s already, by TrafficOverride %s %s, %s", about(o.Spec), w.did, same.Name, signed(same.Spec), until(same.Spec, records.Now))
		switch {
		case covers(same.Spec, o.Spec):
			fmt.Fprintf(out, "%s. Nothing was changed; to end it: %s\n", said, howToEnd(same))
			return same.Name, nil
		case same.Name != o.Name:
			return "", fmt.Errorf("%s: what you say is more than that; change it there: kubectl edit trafficoverride %s", said, same.Name)
		}
		return "", fmt.Errorf("%s: what you say is more than that; to put it in its place, say it with --replace", said)
	}
	if err := h.write(ctx, o, records.Now); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "%s %s by TrafficOverride %s %s, %s.\n", about(o.Spec), w.did, o.Name, signed(o.Spec), until(o.Spec, records.Now))
	end := ""
	if w.end != "" {
		end = "; to end it: " + howToEnd(o)
	}
	fmt.Fprintf(out, "What the hub's controller makes of it: isthmus overrides%s\n", end)
	return o.Name, nil
}

func (h *hub) write(ctx context.Context, o *v1alpha1.TrafficOverride, now time.Time) error {
	have := &v1alpha1.TrafficOverride{}
	switch err := h.Get(ctx, client.ObjectKeyFromObject(o), have); {
	case apierrors.IsNotFound(err):
		return h.refused(h.Create(ctx, o), "create", o.Name)
	case err != nil:
		return h.explain(err, "TrafficOverrides")
	case !sameAbout(have.Spec, o.Spec):
		return fmt.Errorf("TrafficOverride %s is there and says something else %s, a %s of %s: give that another name, or delete it", o.Name, signed(have.Spec),
			have.Spec.Type, about(have.Spec))
	case federation.Expired(have, now) || o.Spec.Type == v1alpha1.OverrideFailback:
		if err := h.remove(ctx, have); err != nil {
			return err
		}
		return h.refused(h.Create(ctx, o), "create", o.Name)
	}
	o.ObjectMeta = have.ObjectMeta
	return h.refused(h.Update(ctx, o), "update", o.Name)
}

// remove deletes what was looked at, and nothing that has come in its place.
func (h *hub) remove(ctx context.Context, o *v1alpha1.TrafficOverride) error {
	err := h.Delete(ctx, o, client.Preconditions{UID: &o.UID})
	return h.refused(client.IgnoreNotFound(err), "delete", o.Name)
}

// refused says why an override could not be written, and what to do; nil where it could.
func (h *hub) refused(err error, verb, name string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not %s TrafficOverride %s in the hub: ask for the rights that docs/reference/cli.md lists: %w", verb, name, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("the hub refuses TrafficOverride %s: %w", name, err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("somebody else has just written TrafficOverride %s: look at it by isthmus overrides, and try again: %w", name, err)
	}
	return h.explain(err, "TrafficOverrides")
}
