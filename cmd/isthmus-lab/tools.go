// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab/tools"
)

func toolsCommand() *cobra.Command {
	var envtest bool
	cmd := &cobra.Command{
		Use:   "tools",
		Short: "Build what the lab and the tests run (once, into the cache)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if envtest {
				dir, err := tools.EnvtestDir(cmd.Context(), cmd.ErrOrStderr())
				if err == nil {
					_, _ = fmt.Fprintln(cmd.OutOrStdout(), dir)
				}
				return err
			}
			paths, err := tools.Ensure(cmd.Context(), cmd.ErrOrStderr(), tools.All()...)
			if err != nil {
				return err
			}
			for _, set := range tools.All() {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", set, paths[set])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&envtest, "envtest", false, "only what controller-runtime's envtest needs; prints the folder for KUBEBUILDER_ASSETS")
	return cmd
}
