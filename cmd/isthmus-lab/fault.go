// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
)

func faultCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Break something, and mend it",
		Long: `Break something in the lab, and mend it. Faults combine, stay until they are healed (also over "isthmus-lab up"), and
are listed by "isthmus-lab status". Giving the same fault again changes its measure.`,
		Example: `  isthmus-lab fault partition gke              # gke from everything
  isthmus-lab fault partition eks gke          # only the two from one another
  isthmus-lab fault latency gke 200ms --jitter 20ms
  isthmus-lab fault loss eks 10% --to gke
  isthmus-lab fault kill eks apiserver         # dead until "fault start eks apiserver"
  isthmus-lab fault node-loss gke              # as a power cut
  isthmus-lab fault clock hub hub +90s         # only its wall clock
  isthmus-lab fault heal                       # everything`,
		Args: cobra.NoArgs, // so that what is no fault is an error, not the help
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(partitionCommand(dir), latencyCommand(dir), lossCommand(dir), bandwidthCommand(dir),
		nodeLossCommand(dir), clockCommand(dir), healCommand(dir))
	cmd.AddCommand(componentCommands(dir)...)
	return cmd
}

// withLab runs f on the lab of dir, and says what f has done.
func withLab(dir *string, f func(context.Context, *lab.Lab, []string) (string, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		l, err := lab.Open(*dir)
		if err != nil {
			return err
		}
		said, err := f(cmd.Context(), l, args)
		if err == nil {
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), said)
		}
		return err
	}
}

func healWith(clusters ...string) string {
	return "mend it with: isthmus-lab fault heal " + strings.Join(clusters, " ")
}

func partitionCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "partition CLUSTER [OTHER...]",
		Short: "Cut a cluster off from everything else, or only from some others",
		Long: `Cut a cluster off from everything else (its link goes down), or only from the others that are named (what they send one another
is dropped). Nothing is answered, as on a network that is gone; inside the cluster everything goes on.`,
		Example: `  isthmus-lab fault partition gke
  isthmus-lab fault partition eks hub      # the hub loses the member; the members still see one another`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeClusters(dir, 0),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			from := "everything"
			if len(a) > 1 {
				from = strings.Join(a[1:], ", ")
			}
			return fmt.Sprintf("%s is cut off from %s; %s", a[0], from, healWith(a[0])), l.Partition(ctx, a[0], a[1:]...)
		}),
	}
}

// toFlag narrows a fault of a link to what passes between two clusters.
func toFlag(cmd *cobra.Command, dir, to *string) *cobra.Command {
	cmd.Flags().StringVar(to, "to", "", "only on the way to and from this other cluster")
	_ = cmd.RegisterFlagCompletionFunc("to", completeClusters(dir, 0))
	return cmd
}

func towards(to string) string {
	if to == "" {
		return "everything"
	}
	return to
}

func latencyCommand(dir *string) *cobra.Command {
	var to string
	var jitter time.Duration
	cmd := &cobra.Command{
		Use:   "latency CLUSTER DURATION",
		Short: "Make each round trip to and from a cluster longer",
		Example: `  isthmus-lab fault latency gke 200ms
  isthmus-lab fault latency gke 80ms --jitter 10ms --to eks`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeClusters(dir, 1),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			latency, err := time.ParseDuration(a[1])
			if err != nil {
				return "", fmt.Errorf("latency %q: write it such as 200ms or 1.5s", a[1])
			}
			return fmt.Sprintf("each round trip between %s and %s takes %s longer; %s", a[0], towards(to), latency, healWith(a[0])),
				l.Latency(ctx, a[0], to, latency, jitter)
		}),
	}
	cmd.Flags().DurationVar(&jitter, "jitter", 0, "vary the latency by up to so much, both ways")
	return toFlag(cmd, dir, &to)
}

func lossCommand(dir *string) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:               "loss CLUSTER PERCENT",
		Short:             "Lose a share of the packets to and from a cluster",
		Example:           `  isthmus-lab fault loss eks 10% --to gke`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeClusters(dir, 1),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			share, err := lab.ParseShare(a[1])
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("of the packets between %s and %s, %s are lost each way; %s", a[0], towards(to), a[1], healWith(a[0])),
				l.Loss(ctx, a[0], to, share)
		}),
	}
	return toFlag(cmd, dir, &to)
}

func bandwidthCommand(dir *string) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:               "bandwidth CLUSTER RATE",
		Short:             "Narrow the link of a cluster",
		Example:           `  isthmus-lab fault bandwidth gke 1mbit`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeClusters(dir, 1),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			rate, err := lab.ParseRate(a[1])
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("between %s and %s pass %s a second each way; %s", a[0], towards(to), a[1], healWith(a[0])),
				l.Bandwidth(ctx, a[0], to, rate)
		}),
	}
	return toFlag(cmd, dir, &to)
}

func nodeLossCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "node-loss CLUSTER",
		Short: "Take a cluster's machine away, as a power cut would",
		Long: `Take a cluster's machine away, as a power cut would: the node agent and all pods are gone at once, and nothing that is
sent to them is answered. The control plane stays, as a cloud's does: it calls the Node NotReady after its grace period.`,
		Example:           `  isthmus-lab fault node-loss gke`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeClusters(dir, 1),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			return fmt.Sprintf("the node of %s is gone; bring it back with: isthmus-lab fault heal %s", a[0], a[0]), l.LoseNode(ctx, a[0])
		}),
	}
}

func clockCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clock CLUSTER COMPONENT OFFSET",
		Short: "Move the wall clock of one component",
		Long: `Move the wall clock of one component's processes by whole seconds, forward or back: what it stamps, and how it takes certificates,
tokens and leases. Its timers and timeouts go on as they are, as on a machine whose clock is wrong. It works on amd64, on programs
that read the time by the kernel's vDSO, as Go's and C's do. What is started anew has the machine's clock again, until
"isthmus-lab up".`,
		Example: `  isthmus-lab fault clock hub hub +90s
  isthmus-lab fault clock eks apiserver -1h`,
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: completeComponents(dir),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			offset, err := time.ParseDuration(a[2])
			if err != nil {
				return "", fmt.Errorf("offset %q: write it such as +90s or -1h", a[2])
			}
			return fmt.Sprintf("the clock of %s in %s is off by %s; %s", a[1], a[0], a[2], healWith(a[0])), l.MoveClock(ctx, a[0], a[1], offset)
		}),
	}
	cmd.Flags().SetInterspersed(false) // so that -1h is an offset, not a flag
	return cmd
}

func healCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "heal [CLUSTER...]",
		Short: "Undo all faults, or those of some clusters",
		Long:  `Undo all faults, or those of some clusters: links are whole again, what was dead is started, what was frozen goes on.`,
		Example: `  isthmus-lab fault heal
  isthmus-lab fault heal gke`,
		ValidArgsFunction: completeClusters(dir, 0),
		RunE: withLab(dir, func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
			what := "no fault is left"
			if len(a) > 0 {
				what += " on " + strings.Join(a, ", ")
			}
			return what, l.Heal(ctx, a...)
		}),
	}
}

// componentCommands strike one component of a cluster.
func componentCommands(dir *string) []*cobra.Command {
	names := "COMPONENT is one of " + strings.Join(lab.Targets(), ", ") + "; a pod by NAMESPACE/NAME, or the pods of a Deployment by the same."
	command := func(use, short, long string, run func(context.Context, *lab.Lab, []string) (string, error)) *cobra.Command {
		return &cobra.Command{
			Use: use + " CLUSTER COMPONENT", Short: short, Long: long + "\n\n" + names,
			Example: fmt.Sprintf("  isthmus-lab fault %s eks apiserver\n  isthmus-lab fault %s gke sample/helloworld", use, use),
			Args:    cobra.ExactArgs(2), ValidArgsFunction: completeComponents(dir), RunE: withLab(dir, run),
		}
	}
	again := func(a []string) string { return "isthmus-lab fault start " + strings.Join(a, " ") }
	return []*cobra.Command{
		command("kill", "Crash a component (SIGKILL)",
			"Crash a component (SIGKILL). It stays dead until \"fault start\" or \"fault heal\"; but a pod, the node starts again.",
			func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
				what := "is dead; start it by: " + again(a)
				if lab.IsPods(a[1]) {
					what = "was killed; its node starts it again"
				}
				return fmt.Sprintf("%s of %s %s", a[1], a[0], what),
					l.Inject(ctx, state.Fault{Kind: state.Killed, Cluster: a[0], Component: a[1]})
			}),
		command("stop", "Freeze a component (SIGSTOP)",
			"Freeze a component (SIGSTOP): its connections stay open and nobody answers, until \"fault start\" or \"fault heal\".",
			func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
				return fmt.Sprintf("%s of %s is frozen; let it go on by: %s", a[1], a[0], again(a)),
					l.Inject(ctx, state.Fault{Kind: state.Stopped, Cluster: a[0], Component: a[1]})
			}),
		command("start", "Start a component that is dead, let go on one that is frozen",
			"Start a component that is dead, or let one go on that is frozen, and wait until it is ready.",
			func(ctx context.Context, l *lab.Lab, a []string) (string, error) {
				return fmt.Sprintf("%s of %s runs", a[1], a[0]), l.Start(ctx, a[0], a[1])
			}),
	}
}
