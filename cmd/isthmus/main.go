// SPDX-License-Identifier: Apache-2.0

// Command isthmus is for the people who run a clusterset. Under the name kubectl-isthmus it is a plugin of kubectl.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, which scripts may rely on.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitConcerns = 3
)

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func usageError(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitUsage}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(filepath.Base(os.Args[0]), (*access).connect).ExecuteContext(ctx); err != nil {
		code := exitFailed
		var own exitError
		if errors.As(err, &own) {
			code = own.code
		}
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "isthmus: "+text)
		}
		stop()
		os.Exit(code) //nolint:gocritic // stop has run
	}
}

// command is the whole of it, under the name by which it was called. The hub is reached as connect says.
func command(name string, connect connection) *cobra.Command {
	root := &cobra.Command{
		Use:   "isthmus",
		Short: "Look at, ask about, and overrule the traffic between the clusters of a clusterset",
		Long: `Look at, ask about, and overrule the traffic between the clusters of a clusterset.

It talks to the hub alone, as the kubeconfig says; it needs no way into any member.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("there is no command %q: see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	if strings.HasPrefix(name, "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl isthmus"}
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w: see %s --help", err, cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	access := addAccessFlags(root.PersistentFlags(), connect)
	root.AddCommand(statusCommand(access), whyCommand(access), planCommand(access), overridesCommand(access), rolloutCommand(access))
	for _, w := range words {
		root.AddCommand(w.sayCommand(access))
		if w.end != "" {
			root.AddCommand(w.endCommand(access))
		}
	}
	return root
}
