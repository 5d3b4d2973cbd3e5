// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tour"
)

func tourCommand(dir *string) *cobra.Command {
	var o tour.Options
	list := false
	cmd := &cobra.Command{
		Use:   "tour",
		Short: "Walk through the lab: split, failover, failback and faults, with live figures",
		Long: `Walk through the lab in five minutes. A steady load runs; each scene shows the command that it runs, what to expect,
and live who answers, what fails, and what Isthmus decided and why.

Enter goes on; q or Ctrl-C ends the tour and puts back whatever it changed. In a pipe, or with --plain, it prints lines.
Where no lab runs it starts one, and leaves it running.`,
		Example: `  isthmus-lab tour                              everything, at your own pace
  isthmus-lab tour --auto                       unattended
  isthmus-lab tour --step failover,partition    only these; --list names all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if list {
				tour.Describe(cmd.OutOrStdout())
				return nil
			}
			if o.Lab, err = lab.Open(*dir); errors.Is(err, state.ErrNoLab) {
				fmt.Fprintln(cmd.OutOrStdout(), "No lab runs: starting one. The first time its programs are built, which takes minutes; else it is ready in less than one.")
				o.Lab, err = lab.Up(cmd.Context(), lab.Options{Dir: *dir, Out: cmd.OutOrStdout()})
			}
			if err != nil {
				return err
			}
			o.In, o.Out = os.Stdin, os.Stdout
			return tour.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Steps, "step", nil, "only these steps")
	f.BoolVar(&list, "list", false, "name the steps and end")
	f.BoolVar(&o.Auto, "auto", false, "go on unattended")
	f.DurationVar(&o.Pace, "pace", tour.DefaultPace, "with --auto: how long each scene is shown at least")
	f.BoolVar(&o.Plain, "plain", false, "print lines instead of a picture")
	f.IntVar(&o.Rate, "rate", 100, "requests a second")
	return cmd
}
