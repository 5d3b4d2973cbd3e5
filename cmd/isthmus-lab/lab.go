// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
)

func upCommand(dir *string) *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the lab, or what died of it, and wait until it is ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Dir, o.Out = *dir, cmd.OutOrStdout()
			l, err := lab.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			running, err := l.State()
			if err != nil {
				return err
			}
			l.Next(cmd.OutOrStdout(), running)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Members, "members", []string{"eks", "gke"}, "names of the member clusters; eks…, gke… and aks… look like those providers'")
	f.BoolVar(&o.HubMember, "hub-member", false, "make the hub a member, too")
	f.BoolVar(&o.NoHub, "no-hub", false, "no hub cluster, no Isthmus")
	f.BoolVar(&o.NoMesh, "no-mesh", false, "no Istio in the members")
	f.BoolVar(&o.NoExample, "no-example", false, "leave out examples/split")
	f.DurationVar(&o.PilotDebounce, "pilot-debounce", 0, "how long istiod waits for more changes before it pushes one (default istiod's own, 100ms)")
	return cmd
}

func downCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the lab and remove everything of it but its logs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Down(cmd.Context(), *dir, cmd.OutOrStdout())
		},
	}
}

func statusCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what it costs and what to look at next",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if errors.Is(err, state.ErrNoLab) {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), err)
				return nil
			}
			if err != nil {
				return err
			}
			healthy, err := l.Status(cmd.Context(), cmd.OutOrStdout())
			if err == nil && !healthy {
				err = errors.New("the lab is not well")
			}
			return err
		},
	}
}

func logsCommand(dir *string) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs CLUSTER COMPONENT",
		Short: "Show the log of a component, or of a pod by namespace/name",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.Log(cmd.Context(), lab.LogRequest{
				Cluster: args[0], Component: args[1], Follow: follow, Out: cmd.OutOrStdout(),
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the log grows")
	return cmd
}
