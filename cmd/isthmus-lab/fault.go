// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
)

func faultCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "fault", Short: "Break something, and mend it"}
	targets := strings.Join(lab.Targets(), "|")
	strike := func(use, short string, run func(context.Context, *lab.Lab, []string) error, arguments int) {
		cmd.AddCommand(&cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(arguments),
			RunE: func(cmd *cobra.Command, args []string) error {
				l, err := lab.Open(*dir)
				if err != nil {
					return err
				}
				return run(cmd.Context(), l, args)
			},
		})
	}
	strike("kill CLUSTER "+targets, "Crash a component (SIGKILL)",
		func(_ context.Context, l *lab.Lab, a []string) error { return l.Kill(a[0], a[1]) }, 2)
	strike("stop CLUSTER "+targets, "End a component in peace; gateways and Isthmus are frozen instead",
		func(_ context.Context, l *lab.Lab, a []string) error { return l.Stop(a[0], a[1]) }, 2)
	strike("start CLUSTER "+targets, "Start a component that is dead or frozen",
		func(ctx context.Context, l *lab.Lab, a []string) error { return l.Start(ctx, a[0], a[1]) }, 2)
	strike("partition CLUSTER", "Cut a cluster off from everything else",
		func(_ context.Context, l *lab.Lab, a []string) error { return l.Partition(a[0]) }, 1)
	strike("heal CLUSTER", "Join a cluster that was cut off",
		func(_ context.Context, l *lab.Lab, a []string) error { return l.Heal(a[0]) }, 1)
	return cmd
}
