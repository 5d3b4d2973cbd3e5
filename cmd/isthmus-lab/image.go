// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
)

func imageCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "The images of the lab's pods",
		Long: `An image of the lab is a program. A pod that names .../NAME:TAG, of any registry and with any tag, runs the program NAME,
over the files of this machine. A pod whose image is missing waits, and starts when it is added.`,
	}
	cmd.AddCommand(imageAddCommand(dir), imageListCommand(dir), imageRemoveCommand(dir))
	return cmd
}

func imageAddCommand(dir *string) *cobra.Command {
	var pkg, entrypoint string
	cmd := &cobra.Command{
		Use:   "add NAME (FILE | FOLDER --entrypoint PATH | --go PACKAGE[@VERSION])",
		Short: "Make a program, a folder or a Go package an image: pods run it from their next start on",
		Example: `  isthmus-lab image add mine ./mine
  isthmus-lab image add mine ./tree --entrypoint /opt/mine/bin/mine
  isthmus-lab image add mine --go ./cmd/mine
  isthmus-lab image add echo-basic --go sigs.k8s.io/gateway-api/conformance/echo-basic@v1.6.3`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			switch {
			case pkg != "" && len(args) == 2:
				return fmt.Errorf("say either a file or --go, not both")
			case pkg != "":
				return l.AddGoImage(cmd.Context(), args[0], pkg)
			case len(args) == 1:
				return fmt.Errorf("say what image %s is: a FILE, a FOLDER, or --go PACKAGE[@VERSION]", args[0])
			}
			return l.AddImage(args[0], args[1], entrypoint)
		},
	}
	cmd.Flags().StringVar(&pkg, "go", "", "a Go package main: of this checkout, or with @VERSION of a published module; built with CGO_ENABLED=0")
	cmd.Flags().StringVar(&entrypoint, "entrypoint", "", "the program's path in FOLDER, as the container sees it")
	return cmd
}

func imageListCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images that pods can name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			images, err := l.Images()
			if err != nil {
				return err
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(out, "IMAGE\tIS\tFROM")
			for _, image := range images {
				is, from := "program", "the lab"
				if image.Folder {
					is = "folder"
				}
				if image.Added {
					from = "image add"
				}
				fmt.Fprintf(out, "%s\t%s\t%s\n", image.Name, is, from)
			}
			return out.Flush()
		},
	}
}

func imageRemoveCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove an image that was added; pods that run it go on until they end",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.RemoveImage(args[0])
		},
	}
}
