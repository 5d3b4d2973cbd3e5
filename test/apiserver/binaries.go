// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"os"

	"isthmus.dev/isthmus/test/lab/tools"
)

// binaryDir is where etcd, kube-apiserver and kubectl are: KUBEBUILDER_ASSETS, or what the lab builds.
func binaryDir() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, nil
	}
	return tools.EnvtestDir(context.Background(), os.Stderr)
}
