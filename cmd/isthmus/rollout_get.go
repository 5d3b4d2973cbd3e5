// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

func getCommand(a *access) *cobra.Command {
	var (
		as    *output
		watch bool
	)
	cmd := &cobra.Command{
		Use:   "get " + takesRollout,
		Short: "Show one rollout: its waves and steps, what it measured, what it waits for, and which words would do something",
		Long: `Show one rollout: its waves and steps, what it measured, what it waits for, and which words would do something.

  ✔ done   ▶ under way   ‖ waits   ✖ aborted, late, or cannot begin   · to come

With --watch it is shown until it is complete, which ends with 0, or aborted, which ends with 3. Where the output is no terminal, a line is
written whenever it has come further.`,
		Example: `  isthmus rollout get shop/cart-v2
  isthmus rollout get -n shop cart-v2 --watch
  isthmus rollout get shop/cart-v2 -o json | jq .status.clusters`,
		Args: oneRollout, ValidArgsFunction: a.complete(rolloutNames, "TrafficRollouts"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := as.check(); err != nil {
				return err
			}
			key, err := spelledName(a, args[0], takesRollout)
			switch {
			case err != nil:
				return err
			case watch && as.form != asTable:
				return usageError("--watch shows a rollout as it goes: leave --output away")
			case watch:
				return watchRollout(cmd, a, key)
			}
			return a.onHub(cmd, mayRead, func(ctx context.Context, h *hub) error {
				r, err := h.rollout(ctx, key)
				if err != nil {
					return err
				}
				return as.printObject(cmd.OutOrStdout(), r, func(out io.Writer) error { return showRollout(out, r, h.now(), isColourful(out)) })
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it until it is complete or aborted")
	as = addOutputFlag(cmd, asJSON, asYAML, asName)
	return cmd
}

// rollout reads one, and says what to do where that cannot be.
func (h *hub) rollout(ctx context.Context, key federation.ServiceKey) (*v1alpha1.TrafficRollout, error) {
	r := &v1alpha1.TrafficRollout{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	return r, h.rolloutError(h.Get(ctx, client.ObjectKeyFromObject(r), r), key)
}

func (h *hub) rolloutError(err error, key federation.ServiceKey) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no TrafficRollout %s: isthmus rollout lists those that there are", key)
	}
	return h.explain(err, "TrafficRollouts")
}

// isTerminal tells whether a picture can be drawn over another.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
}

// isColourful tells whether colours are seen, and wanted: https://no-color.org.
func isColourful(out io.Writer) bool { return isTerminal(out) && os.Getenv("NO_COLOR") == "" }

const (
	clearScreen = "\x1b[2J"
	// home takes the cursor to where the last picture began, and clears what stands below.
	home = "\x1b[H\x1b[J"
)

// watchRollout shows a rollout until it is complete or aborted.
func watchRollout(cmd *cobra.Command, a *access, key federation.ServiceKey) error {
	h, err := a.dial(a, mayRead)
	if err != nil {
		return err
	}
	seen := watched{out: cmd.OutOrStdout(), picture: isTerminal(cmd.OutOrStdout())}
	err = wait.PollUntilContextCancel(cmd.Context(), lookEvery, true, func(ctx context.Context) (bool, error) {
		r, err := h.lookAt(ctx, a, key)
		switch {
		case apierrors.IsNotFound(err) && seen.last != "":
			return false, fmt.Errorf("TrafficRollout %s was deleted while it was watched", key)
		case apierrors.IsNotFound(err) || apierrors.IsForbidden(err):
			return false, h.rolloutError(err, key)
		case err != nil:
			// A hub that restarts is no reason to give up: members go on as they are.
			return false, seen.say(h.explain(err, "TrafficRollouts").Error() + "; trying again")
		}
		if err := seen.show(h, r); err != nil {
			return false, err
		}
		if r.Status.Aborted != "" {
			return false, exitError{errors.New(""), exitConcerns}
		}
		return r.Status.Phase == v1alpha1.RolloutHealthy && r.Status.ObservedGeneration == r.Generation, nil
	})
	if errors.Is(err, context.Canceled) {
		return nil // by the person who watches
	}
	return err
}

// lookAt reads a rollout within the time that the hub may take.
func (h *hub) lookAt(ctx context.Context, a *access, key federation.ServiceKey) (*v1alpha1.TrafficRollout, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	r := &v1alpha1.TrafficRollout{}
	return r, h.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, r)
}

// watched is what a person has seen last.
type watched struct {
	out     io.Writer
	picture bool
	last    string
}

// show draws the rollout anew, or writes a line; neither where nothing has changed.
func (s *watched) show(h *hub, r *v1alpha1.TrafficRollout) error {
	if !s.picture {
		return s.say(fmt.Sprintf("%s, %s: %s", phaseOf(r), position(r), r.Status.Message))
	}
	var text bytes.Buffer
	if err := showRollout(&text, r, h.now(), isColourful(s.out)); err != nil {
		return err
	}
	if s.last == text.String() {
		return nil
	}
	before := home
	if s.last == "" {
		before = clearScreen + home
	}
	s.last = text.String()
	_, err := io.WriteString(s.out, before+s.last)
	return err
}

func (s *watched) say(line string) error {
	if line == s.last {
		return nil
	}
	s.last = line
	_, err := fmt.Fprintln(s.out, oneLine(line))
	return err
}
