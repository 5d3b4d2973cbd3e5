// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/test/lab/shaper"
)

// linkRelayCommand is what the lab starts while a cluster's link is slow, narrow or lossy.
func linkRelayCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "link-relay",
		Short:  "Carry a cluster's frames (started by the lab itself)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const uplink, backbone = 3, 4 // as the lab hands them over
			// Blocking descriptors could not be closed while somebody reads.
			if err := errors.Join(unix.SetNonblock(uplink, true), unix.SetNonblock(backbone, true)); err != nil {
				return err
			}
			return shaper.Relay(cmd.Context(), os.NewFile(uplink, "the cluster's link"), os.NewFile(backbone, "the backbone"))
		},
	}
}
