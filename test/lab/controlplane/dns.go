// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	_ "embed"
)

//go:embed addons/coredns.yaml
var coreDNS []byte

// InstallDNS applies the cluster's DNS server, which is a Deployment as in any cluster. It answers for clusterset.local
// too, so that the CRDs of MCS have to be there.
func (c Cluster) InstallDNS(ctx context.Context, a *Applier) error {
	return a.Apply(ctx, bytes.ReplaceAll(coreDNS, []byte("CLUSTER_DNS"), []byte(c.Network.DNS().String())))
}
