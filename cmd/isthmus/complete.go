// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/federation"
)

// complete offers names out of what the hub says, for a command's only argument. A shell that waits is told nothing of errors.
func (a *access) complete(names func(federation.Records) []string, only ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var offered []cobra.Completion
		_ = a.onHub(cmd, mayRead, func(ctx context.Context, h *hub) error {
			records, err := h.records(ctx, io.Discard, only...)
			if err != nil {
				return err
			}
			for _, name := range names(records) {
				if namespace, bare, whole := strings.Cut(name, "/"); whole && a.namespace != "" {
					if namespace != a.namespace {
						continue
					}
					name = bare
				}
				if strings.HasPrefix(name, begun) {
					offered = append(offered, name)
				}
			}
			return nil
		})
		slices.Sort(offered)
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// complete offers what a word may be about.
func (w word) complete(a *access) cobra.CompletionFunc {
	switch w.takes {
	case takesCluster:
		return a.complete(memberNames, "MemberClusters")
	case takesRoute:
		return a.complete(routeNames, "HTTPRoutes")
	}
	return cobra.NoFileCompletions
}

func rolloutNames(records federation.Records) []string {
	var out []string
	for i := range records.Rollouts {
		out = append(out, records.Rollouts[i].Namespace+"/"+records.Rollouts[i].Name)
	}
	return out
}

// routeNames are those that Isthmus serves.
func routeNames(records federation.Records) []string {
	var out []string
	for i := range records.Routes {
		if len(routeConditions(&records.Routes[i])) > 0 {
			out = append(out, records.Routes[i].Namespace+"/"+records.Routes[i].Name)
		}
	}
	return out
}

func memberNames(records federation.Records) []string {
	var out []string
	for i := range records.Members {
		out = append(out, records.Members[i].Name)
	}
	return out
}
