// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func (r *rig) security(t *testing.T) {
	r.create(t, podOf("security", shell(`
echo "id=$(id -u):$(id -g):$(id -G)"
echo "root=$(touch /file 2>&1 | grep -c 'ead-only') port=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) pid=$$$$"
echo "caps=$(grep CapBnd /proc/self/status | tr -d '\t') nnp=$(grep NoNewPrivs /proc/self/status | tr -d '\t')"
echo "hosts=$(grep -c security /etc/hosts) host=$(hostname)"
echo out >> /dev/stdout
echo end; exec sleep 1000`), func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{
			FSGroup: ptr.To(int64(2000)),
			Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
		}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			RunAsUser: ptr.To(int64(1337)), RunAsGroup: ptr.To(int64(1338)), RunAsNonRoot: ptr.To(true),
			ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	}))
	r.awaitReady(t, "security")
	require.Eventually(t, func() bool { return strings.Contains(r.log(t, "security", "main"), "end\n") }, patience, 10*time.Millisecond)
	require.Equal(t, `id=1337:1338:1338 2000
root=1 port=0 pid=1
caps=CapBnd:0000000000000000 nnp=NoNewPrivs:1
hosts=1 host=security
out
end
`, r.log(t, "security", "main"))
}
