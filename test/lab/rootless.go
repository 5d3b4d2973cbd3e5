// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"isthmus.dev/isthmus/test/lab/tools"
)

// Folder returns the folder of the lab that dir names; empty is .lab in the checkout.
func Folder(dir string) (string, error) {
	o := Options{Dir: dir}
	err := o.completeDir()
	return o.Dir, err
}

// Fetch builds and downloads all that Up needs of the network, so that Up can run where there is none.
func Fetch(ctx context.Context, out io.Writer, mesh bool) error {
	root, err := tools.Root()
	if err != nil {
		return err
	}
	l := &Lab{out: out}
	if err := l.ensureTools(ctx, mesh); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download")
	cmd.Dir = root
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("download the modules of Isthmus: %w\n%s", err, said.String())
	}
	return nil
}

// Environment is this program's, with the lab's kubeconfig and programs.
func (l *Lab) Environment() []string {
	return append(os.Environ(), "KUBECONFIG="+filepath.Join(l.Dir, "kubeconfig"), "PATH="+l.binDir()+":"+os.Getenv("PATH"))
}
