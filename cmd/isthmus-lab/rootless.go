// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/rootless"
	"isthmus.dev/isthmus/test/lab/state"
)

// place is where the lab of a folder lives when it is not the machine itself.
type place struct {
	dir    *string
	forced *bool
}

// liveInPlace makes every command that deals with a running lab do so where that lab is.
func liveInPlace(root *cobra.Command, dir *string) {
	p := place{dir: dir, forced: root.PersistentFlags().Bool("rootless", false, "with up and tour: do without root although this is root")}
	for _, c := range root.Commands() {
		switch c.Name() {
		case "tools", "node-agent", "link-relay", "help", "completion":
		default:
			p.wrap(c)
		}
	}
}

func (p place) wrap(c *cobra.Command) {
	for _, sub := range c.Commands() {
		p.wrap(sub)
	}
	here := c.RunE
	if here == nil {
		return
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		folder, err := lab.Folder(*p.dir)
		if err != nil {
			return here(cmd, args) // it will say so itself, if it needs one
		}
		h, err := rootless.Find(folder)
		switch {
		case err != nil:
			return err
		case h != nil && h.Inside():
			return here(cmd, args)
		case h != nil:
			return p.there(cmd, folder, h)
		case p.begins(cmd, folder):
			return p.begin(cmd, folder)
		case cmd.Name() == "down" && os.Geteuid() != 0 && !hasLab(folder):
			fmt.Fprintln(cmd.OutOrStdout(), "no lab runs in", folder)
			return nil
		}
		return here(cmd, args)
	}
}

// begins says whether a command is one for a new place: to start a lab without root, or to clear up after one whose
// holder was killed.
func (p place) begins(cmd *cobra.Command, folder string) bool {
	switch cmd.Name() {
	case "up", "tour":
		return (os.Geteuid() != 0 || *p.forced) && (cmd.Name() == "up" || !hasLab(folder))
	case "down":
		return rootless.Left(folder)
	}
	return false
}

func hasLab(folder string) bool {
	_, err := state.Load(folder)
	return !errors.Is(err, state.ErrNoLab)
}

// begin starts a place and runs the command there.
func (p place) begin(cmd *cobra.Command, folder string) error {
	// Before the tools are built: a kernel that allows no such place says so at once, and not after twenty minutes.
	h, err := rootless.Start(folder)
	if err != nil {
		return err
	}
	if cmd.Name() != "down" {
		noMesh, err := cmd.Flags().GetBool("no-mesh")
		if err := lab.Fetch(cmd.Context(), cmd.OutOrStdout(), err != nil || !noMesh); err != nil {
			return errors.Join(err, h.End(folder))
		}
	}
	if err := p.there(cmd, folder, h); err != nil {
		if !hasLab(folder) {
			err = errors.Join(err, h.End(folder)) // nothing came of it
		}
		return err
	}
	if cmd.Name() == "up" {
		fmt.Fprintln(cmd.OutOrStdout(), "\nThis lab runs without root:")
		for _, words := range rootless.Limits() {
			fmt.Fprintln(cmd.OutOrStdout(), "  - "+words)
		}
	}
	return nil
}

// there runs this very command inside the place.
func (p place) there(cmd *cobra.Command, folder string, h *rootless.Holder) error {
	code, err := h.Run(cmd.Context(), os.Args[1:])
	switch {
	case err != nil:
		return err
	case code != 0:
		return exitError(code)
	case cmd.Name() == "down":
		return h.End(folder)
	}
	return nil
}

func execCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "exec -- COMMAND [ARGUMENT…]",
		Short: "Run a command where the lab is, with its kubeconfig and its kubectl",
		Example: `  isthmus-lab exec -- kubectl --context eks get pods -A
  isthmus-lab exec -- curl -s -H 'Host: helloworld.example.com' http://10.233.2.1/hello`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return become(*dir, args) },
	}
}

func shellCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "shell",
		Short: "Open a shell where the lab is, with its kubeconfig and its kubectl",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return become(*dir, []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh")})
		},
	}
}

// become replaces this program by another one in the lab's environment.
func become(dir string, argv []string) error {
	l, err := lab.Open(dir)
	if err != nil {
		return err
	}
	env := l.Environment()
	program := argv[0]
	if own := filepath.Join(l.Dir, "bin", program); filepath.Base(program) == program && isProgram(own) {
		program = own
	} else if program, err = exec.LookPath(program); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", program, syscall.Exec(program, argv, env))
}

func isProgram(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
