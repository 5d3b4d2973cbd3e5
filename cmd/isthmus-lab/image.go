// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
)

func imageCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "The images of the lab's pods"}
	cmd.AddCommand(&cobra.Command{
		Use:   "add NAME FILE",
		Short: "Make an executable an image: pods with the image NAME (any registry, any tag) run it from their next start on",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.AddImage(args[0], args[1])
		},
	})
	return cmd
}
