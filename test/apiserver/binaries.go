// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"isthmus.dev/isthmus/test/lab/tools"
)

// binaryDir returns the folder of etcd and kube-apiserver, which it builds where there is none.
func binaryDir() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, nil
	}
	return tools.EnvtestDir(context.Background(), os.Stderr)
}

// boundBinaries returns a folder of the same programs, bound to this process: when it ends in whatever way, by a test's
// timeout or a SIGKILL too, the kernel ends them. Without setpriv(1), as on other systems than Linux, they are as they are.
// The caller holds the lock.
func boundBinaries() (string, error) {
	dir, err := binaryDir()
	if err != nil || running.binaries != "" {
		return running.binaries, err
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		return dir, nil //nolint:nilerr // see above
	}
	if running.binaries, err = os.MkdirTemp("", "isthmus-apiserver-"); err != nil {
		return "", err
	}
	for name, variable := range map[string]string{"etcd": "TEST_ASSET_ETCD", "kube-apiserver": "TEST_ASSET_KUBE_APISERVER"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' --pdeathsig KILL '%s' \"$@\"\n", setpriv, filepath.Join(dir, name))
		file := filepath.Join(running.binaries, name)
		if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
			return "", err
		}
		// envtest prefers KUBEBUILDER_ASSETS to a folder that it is told, and this to both.
		if err := os.Setenv(variable, file); err != nil {
			return "", err
		}
	}
	return running.binaries, nil
}
