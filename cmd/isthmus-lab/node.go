// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
)

// nodeAgentCommand is what the lab starts in each cluster's network namespace.
func nodeAgentCommand(dir *string) *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:    "node-agent",
		Short:  "Run the node of a cluster (started by the lab itself)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.RunNode(cmd.Context(), *dir, cluster)
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster's name")
	_ = cmd.MarkFlagRequired("cluster")
	return cmd
}
