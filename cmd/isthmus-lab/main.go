// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command isthmus-lab runs real clusters on one Linux machine, without containers: a hub and members
// with their own control planes, Istio and Envoy. It is what `make lab` calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab/node"
	"isthmus.dev/isthmus/test/lab/rootless"
)

func main() {
	// The entry of a container's process comes before everything else: it lives in namespaces of
	// its own and must start neither flags nor signal handlers.
	if len(os.Args) > 1 && os.Args[1] == "container-init" {
		node.ContainerMain()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == rootless.HoldCommand {
		rootless.Hold()
	}
	if err := rootless.Entered(); err != nil {
		fmt.Fprintln(os.Stderr, "isthmus-lab: "+err.Error())
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		var code exitError
		if !errors.As(err, &code) {
			fmt.Fprintln(os.Stderr, "isthmus-lab: "+err.Error())
			code = 1
		}
		stop()
		os.Exit(int(code)) //nolint:gocritic // stop has run
	}
}

// exitError ends this program like another one, which has said all there is to say.
type exitError int

func (c exitError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus-lab",
		Short:         "Real clusters on one Linux machine, without containers",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	dir := root.PersistentFlags().String("dir", "", "the lab's folder (default .lab in the checkout)")
	root.AddCommand(
		upCommand(dir), downCommand(dir), statusCommand(dir), logsCommand(dir), faultCommand(dir), imageCommand(dir),
		tourCommand(dir), execCommand(dir), shellCommand(dir), toolsCommand(), nodeAgentCommand(dir), linkRelayCommand(),
	)
	liveInPlace(root, dir)
	return root
}
