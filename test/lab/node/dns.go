// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// clusterDomain is the zone of a cluster's own names.
const clusterDomain = "cluster.local"

// etcFiles are the files in /etc that every container gets from its pod, as kubelet writes them.
func (p *pod) etcFiles() (map[string]string, error) {
	resolv, err := p.resolvConf("/etc/resolv.conf")
	return map[string]string{"/etc/hosts": p.hosts(), "/etc/resolv.conf": resolv}, err
}

// subdomain is the pod's domain in the cluster; empty where it has none.
func (p *pod) subdomain() string {
	if p.spec.Spec.Subdomain == "" {
		return ""
	}
	return fmt.Sprintf("%s.%s.svc.%s", p.spec.Spec.Subdomain, p.spec.Namespace, clusterDomain)
}

// hostname is the pod's host name, qualified where the pod asks for that.
func (p *pod) hostname() string {
	if qualified := p.spec.Spec.SetHostnameAsFQDN; qualified != nil && *qualified && p.subdomain() != "" {
		return p.shortName() + "." + p.subdomain()
	}
	return p.shortName()
}

func (p *pod) shortName() string {
	name := p.spec.Name
	if p.spec.Spec.Hostname != "" {
		name = p.spec.Spec.Hostname
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// hosts is the content of /etc/hosts.
func (p *pod) hosts() string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	name := p.shortName()
	if domain := p.subdomain(); domain != "" {
		name += "." + domain + "\t" + name
	}
	fmt.Fprintf(&b, "%s\t%s\n", p.address(), name)
	for _, alias := range p.spec.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return b.String()
}

// resolver is what a resolv.conf says.
type resolver struct{ servers, search, options []string }

// resolvConf makes the pod's resolv.conf by its DNS policy; host is the node's own, for the policy Default. Unlike
// kubelet's, that of a pod with the cluster's DNS leaves out the host's search domains: the lab has no way to where
// they are, and each would cost a question a name.
func (p *pod) resolvConf(host string) (string, error) {
	var r resolver
	switch p.spec.Spec.DNSPolicy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		data, err := os.ReadFile(host)
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		r = parseResolver(string(data))
	default: // ClusterFirst, and ClusterFirstWithHostNet, as no pod here has the host's network
		r = clusterResolver(p.agent.DNS, p.spec.Namespace)
	}
	r.add(p.spec.Spec.DNSConfig)
	return r.String(), nil
}

func clusterResolver(server netip.Addr, namespace string) resolver {
	return resolver{
		servers: []string{server.String()},
		search:  []string{namespace + ".svc." + clusterDomain, "svc." + clusterDomain, clusterDomain},
		options: []string{"ndots:5"},
	}
}

func parseResolver(text string) resolver {
	var r resolver
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.servers = append(r.servers, fields[1])
		case "search": // the last one counts, as resolv.conf(5) has it
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}

// add merges a pod's own settings: servers and search domains come after those of the policy, an option replaces one of
// its name.
func (r *resolver) add(own *corev1.PodDNSConfig) {
	if own == nil {
		return
	}
	r.servers = distinct(append(r.servers, own.Nameservers...))
	r.search = distinct(append(r.search, own.Searches...))
	for _, o := range own.Options {
		r.options = slices.DeleteFunc(r.options, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == o.Name
		})
		if o.Value != nil && *o.Value != "" {
			o.Name += ":" + *o.Value
		}
		r.options = append(r.options, o.Name)
	}
}

func distinct(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// String writes the settings in the order and form of kubelet's.
func (r resolver) String() string {
	var b strings.Builder
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	for _, s := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.String()
}
