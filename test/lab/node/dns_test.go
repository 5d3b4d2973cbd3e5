// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// dnsPod is a pod of which only the names matter.
func dnsPod(spec corev1.PodSpec) *pod {
	return &pod{
		agent: &agent{Config: Config{DNS: netip.MustParseAddr("10.234.2.10")}}, ip: netip.MustParseAddr("10.232.2.7"),
		spec: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop"}, Spec: spec},
	}
}

func TestResolvConfFollowsTheDNSPolicy(t *testing.T) {
	host := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(host, []byte("# by hand\nsearch old.example\nsearch corp.example\nnameserver 192.0.2.1\noptions timeout:2 rotate\n"), 0o600))
	own := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.9"}, Searches: []string{"extra.example", "svc.cluster.local"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("2")}, {Name: "edns0"}},
	}
	cluster := "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.234.2.10\noptions ndots:5\n"
	for name, c := range map[string]struct {
		policy corev1.DNSPolicy
		config *corev1.PodDNSConfig
		want   string
	}{
		"the cluster's":     {corev1.DNSClusterFirst, nil, cluster},
		"host network's":    {corev1.DNSClusterFirstWithHostNet, nil, cluster},
		"the node's":        {corev1.DNSDefault, nil, "search corp.example\nnameserver 192.0.2.1\noptions timeout:2 rotate\n"},
		"none but its own":  {corev1.DNSNone, own, "search extra.example svc.cluster.local\nnameserver 192.0.2.9\noptions ndots:2 edns0\n"},
		"with its own":      {corev1.DNSClusterFirst, own, "search shop.svc.cluster.local svc.cluster.local cluster.local extra.example\nnameserver 10.234.2.10\nnameserver 192.0.2.9\noptions ndots:2 edns0\n"},
		"nothing to say it": {corev1.DNSNone, nil, ""},
	} {
		got, err := dnsPod(corev1.PodSpec{DNSPolicy: c.policy, DNSConfig: c.config}).resolvConf(host)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
	got, err := dnsPod(corev1.PodSpec{DNSPolicy: corev1.DNSDefault}).resolvConf(filepath.Join(t.TempDir(), "none"))
	require.NoError(t, err, "a host without the file")
	require.Empty(t, got)
}

func TestHostNamesOfAPod(t *testing.T) {
	plain := dnsPod(corev1.PodSpec{HostAliases: []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a", "b"}}}})
	require.Equal(t, "web-0", plain.hostname())
	require.Contains(t, plain.hosts(), "\n10.232.2.7\tweb-0\n192.0.2.1\ta\tb\n")

	member := dnsPod(corev1.PodSpec{Hostname: "first", Subdomain: "web", SetHostnameAsFQDN: ptr.To(true)})
	require.Equal(t, "first.web.shop.svc.cluster.local", member.hostname())
	require.Contains(t, member.hosts(), "\n10.232.2.7\tfirst.web.shop.svc.cluster.local\tfirst\n")
	member.spec.Spec.SetHostnameAsFQDN = nil
	require.Equal(t, "first", member.hostname())

	long := dnsPod(corev1.PodSpec{})
	long.spec.Name = "a-name-of-more-than-sixty-three-characters-whose-cut-ends-in-a--dash"
	require.Equal(t, "a-name-of-more-than-sixty-three-characters-whose-cut-ends-in-a", long.hostname())
}
