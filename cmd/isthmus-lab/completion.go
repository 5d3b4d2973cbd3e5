// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"slices"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
)

// completeClusters offers the running lab's clusters for the first so many arguments (0: for all), each once.
func completeClusters(dir *string, arguments int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if arguments > 0 && len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, c := range clustersOf(*dir) {
			if !slices.Contains(args, c) {
				names = append(names, c)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeComponents offers a cluster first, then what a fault can strike in it.
func completeComponents(dir *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return clustersOf(*dir), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return append(lab.Targets(), podsOf(*dir, args[0])...), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func clustersOf(dir string) []string {
	l, err := lab.Open(dir)
	if err != nil {
		return nil // nothing runs: nothing to offer
	}
	running, err := l.State()
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range running.Clusters {
		names = append(names, c.Name)
	}
	return names
}

func podsOf(dir, cluster string) []string {
	l, err := lab.Open(dir)
	if err != nil {
		return nil
	}
	running, err := l.State()
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range running.Processes {
		if p.Cluster == cluster && p.Name != p.Component && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return names
}
