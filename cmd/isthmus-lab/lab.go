// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
)

func upCommand(dir *string) *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the lab, or what died of it, and wait until it is ready",
		Long: `Start the lab, or what died of it, and wait until it is ready. What was broken by "isthmus-lab fault" stays broken. A start
that was cut off is begun anew.`,
		Example: `  isthmus-lab up                                     # a hub, eks and gke, with Istio, Isthmus and the example
  isthmus-lab up --members eks-blue,eks-green,aks,onprem
  isthmus-lab up --members eks,gke --hub-member      # the hub carries traffic, too
  isthmus-lab up --members a,b,c --no-mesh --no-hub  # plain clusters`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Dir, o.Out = *dir, cmd.OutOrStdout()
			if len(o.Members) == 0 {
				return errors.New("--members names no cluster: name one or more, or leave it out for eks and gke")
			}
			l, err := lab.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			report, err := l.Report(cmd.Context())
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintln(cmd.OutOrStdout())
			if err := report.Write(cmd.OutOrStdout(), false); err != nil {
				return err
			}
			report.Next(cmd.OutOrStdout())
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
		Long: `End the lab and remove everything of it but its logs: processes, namespaces, links, mounts and rules, whatever state it is in,
also after a crash. Where no lab runs, it does nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Down(cmd.Context(), *dir, cmd.OutOrStdout())
		},
	}
}

func statusCommand(dir *string) *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what is broken, what it costs and what to look at next",
		Long: `Show what runs, what is broken, what it costs and what to look at next. It fails when something is dead or stopped, whether
by a fault or by itself.`,
		Example: `  isthmus-lab status
  isthmus-lab status --all                                         # every process, its pid and its log
  isthmus-lab status -o json | jq -r '.clusters[].gateway // empty'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output %q: there is json, and the screen without -o", output)
			}
			l, err := lab.Open(*dir)
			if errors.Is(err, state.ErrNoLab) && output == "" {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), err)
				return nil
			}
			if err != nil {
				return err
			}
			report, err := l.Report(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), report, output == "json", all)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: everything, for programs")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "every process on a line of its own")
	return cmd
}

func show(out io.Writer, r lab.Report, asJSON, all bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	if err := r.Write(out, all); err != nil {
		return err
	}
	r.Next(out)
	if !r.Healthy {
		return errors.New("not everything runs")
	}
	return nil
}

func logsCommand(dir *string) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs CLUSTER COMPONENT",
		Short: "Show the log of a component, or of a pod by namespace/name",
		Example: `  isthmus-lab logs eks istiod
  isthmus-lab logs -f hub hub         # Isthmus itself`,
		ValidArgsFunction: completeComponents(dir),
		Args:              cobra.ExactArgs(2),
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
