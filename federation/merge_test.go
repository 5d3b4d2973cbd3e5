// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

var sampleKey = ServiceKey{Namespace: "sample", Name: "helloworld"}

// exportOf is an export made on a day of January 2026, with ports as "name number[/protocol]".
func exportOf(cluster string, day int, ports ...string) Export {
	return Export{Cluster: cluster, Created: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), Service: serviceWith(ports...)}
}

func serviceWith(ports ...string) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10", SessionAffinity: corev1.ServiceAffinityNone}}
	for _, text := range ports {
		var p corev1.ServicePort
		text, protocol, _ := strings.Cut(text, "/")
		_, _ = fmt.Sscanf(text, "%s %d", &p.Name, &p.Port)
		p.Protocol = corev1.Protocol(protocol)
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	return s
}

func (e Export) with(change func(*corev1.ServiceSpec)) Export {
	change(&e.Service.Spec)
	return e
}

func portsOf(imp *Import) string {
	var out []string
	for _, p := range imp.Spec.Ports {
		out = append(out, fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
	}
	return strings.Join(out, ", ")
}

func TestMergeExports(t *testing.T) {
	headless := func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }
	external := func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }
	sticky := func(seconds int32) func(s *corev1.ServiceSpec) {
		return func(s *corev1.ServiceSpec) {
			s.SessionAffinity = corev1.ServiceAffinityClientIP
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
	h2c := func(s *corev1.ServiceSpec) { app := "kubernetes.io/h2c"; s.Ports[0].AppProtocol = &app }
	tests := map[string]struct {
		exports   []Export
		clusters  string // empty where there is no import
		kind      mcsv1beta1.ServiceImportType
		ports     string
		conflicts string
	}{
		"none":                        {nil, "", "", "", ""},
		"no Service":                  {[]Export{{Cluster: "eks"}}, "", "", "", ""},
		"ExternalName":                {[]Export{exportOf("eks", 1, "http 80").with(external)}, "", "", "", ""},
		"one":                         {[]Export{exportOf("eks", 1, "http 80")}, "eks", "ClusterSetIP", "http 80/TCP", ""},
		"invalid ones do not count":   {[]Export{{Cluster: "aks"}, exportOf("eks", 2, "http 80")}, "eks", "ClusterSetIP", "http 80/TCP", ""},
		"two that agree":              {[]Export{exportOf("gke", 2, "http 80"), exportOf("eks", 1, "http 80")}, "eks gke", "ClusterSetIP", "http 80/TCP", ""},
		"ports are united and sorted": {[]Export{exportOf("eks", 1, "web 90", "http 80"), exportOf("gke", 2, "admin 85")}, "eks gke", "ClusterSetIP", "http 80/TCP, admin 85/TCP, web 90/TCP", ""},
		"one number, two protocols":   {[]Export{exportOf("eks", 1, "dns 53/UDP"), exportOf("gke", 2, "dns-tcp 53/TCP")}, "eks gke", "ClusterSetIP", "dns-tcp 53/TCP, dns 53/UDP", ""},
		"one name, two numbers":       {[]Export{exportOf("eks", 2, "http 80"), exportOf("gke", 1, "http 8080")}, "eks gke", "ClusterSetIP", "http 8080/TCP", "eks PortConflict"},
		"one number, two names":       {[]Export{exportOf("eks", 1, "http 80"), exportOf("gke", 2, "web 80")}, "eks gke", "ClusterSetIP", "http 80/TCP", "gke PortConflict"},
		"one port, two applications":  {[]Export{exportOf("eks", 1, "http 80").with(h2c), exportOf("gke", 2, "http 80")}, "eks gke", "ClusterSetIP", "http 80/TCP", "gke PortConflict"},
		"as old: the first cluster":   {[]Export{exportOf("gke", 1, "http 8080"), exportOf("eks", 1, "http 80")}, "eks gke", "ClusterSetIP", "http 80/TCP", "gke PortConflict"},
		"the oldest says the type":    {[]Export{exportOf("eks", 2, "http 80"), exportOf("gke", 1, "http 80").with(headless)}, "eks gke", "Headless", "http 80/TCP", "eks TypeConflict"},
		"affinity":                    {[]Export{exportOf("eks", 1, "http 80"), exportOf("gke", 2, "http 80").with(sticky(10))}, "eks gke", "ClusterSetIP", "http 80/TCP", "gke SessionAffinityConflict"},
		"the affinity's timeout":      {[]Export{exportOf("eks", 1, "http 80").with(sticky(10)), exportOf("gke", 2, "http 80").with(sticky(20))}, "eks gke", "ClusterSetIP", "http 80/TCP", "gke SessionAffinityConfigConflict"},
		"each conflict, oldest first": {[]Export{exportOf("aks", 3, "web 80").with(headless), exportOf("eks", 1, "http 80"), exportOf("gke", 2, "http 81")}, "aks eks gke", "ClusterSetIP", "http 80/TCP", "gke PortConflict, aks PortConflict, aks TypeConflict"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			imp := MergeExports(sampleKey, test.exports)
			if test.clusters == "" {
				require.Nil(t, imp)
				return
			}
			require.Equal(t, test.clusters, strings.Join(imp.Clusters, " "))
			require.Equal(t, test.kind, imp.Spec.Type)
			require.Equal(t, test.ports, portsOf(imp))
			var conflicts []string
			for _, c := range imp.Conflicts {
				conflicts = append(conflicts, c.Cluster+" "+string(c.Reason))
			}
			require.Equal(t, test.conflicts, strings.Join(conflicts, ", "))
		})
	}
}

func TestWhatIsNotSeenIsNotWithdrawn(t *testing.T) {
	member := func(name string, synced bool, e *Export) ServiceMember {
		m := ServiceMember{Member: Member{Name: name, Synced: synced, Reachable: true}}
		if e != nil {
			m.Exported, m.Created, m.Service = true, e.Created, e.Service
		}
		return m
	}
	young, other := exportOf("gke", 5, "http 81", "admin 9"), exportOf("gke", 5)
	remembered := &RememberedImport{Clusters: []string{"eks", "gke"}, Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.Headless,
		Ports: []mcsv1beta1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "dns", Port: 53, Protocol: "UDP"}}}}
	tests := map[string]struct {
		members  []ServiceMember
		memory   *RememberedImport
		clusters string
		kind     mcsv1beta1.ServiceImportType
		ports    string
	}{
		"nobody has been read":                       {[]ServiceMember{member("eks", false, nil), member("gke", false, nil)}, remembered, "eks gke", "Headless", "dns 53/UDP, http 80/TCP"},
		"the record decides over what is seen":       {[]ServiceMember{member("eks", false, nil), member("gke", true, &young)}, remembered, "eks gke", "Headless", "admin 9/TCP, dns 53/UDP, http 80/TCP"},
		"read, and it exports no more":               {[]ServiceMember{member("eks", false, nil), member("gke", true, nil)}, remembered, "eks", "Headless", "dns 53/UDP, http 80/TCP"},
		"all read: the record says nothing":          {[]ServiceMember{member("eks", true, nil), member("gke", true, &young)}, remembered, "gke", "ClusterSetIP", "admin 9/TCP, http 81/TCP"},
		"all read, nobody exports":                   {[]ServiceMember{member("eks", true, nil), member("gke", true, nil)}, remembered, "", "", ""},
		"an unread member that never exported":       {[]ServiceMember{member("aks", false, nil), member("gke", true, &young)}, remembered, "gke", "ClusterSetIP", "admin 9/TCP, http 81/TCP"},
		"no record, and what is cached of an unread": {[]ServiceMember{member("eks", false, &young), member("gke", true, &other)}, nil, "gke", "ClusterSetIP", ""},
		"a member that has left":                     {[]ServiceMember{member("gke", true, &other)}, remembered, "gke", "ClusterSetIP", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			imp := ServiceSnapshot{Key: sampleKey, Members: test.members, Remembered: test.memory}.Import()
			if test.clusters == "" {
				require.Nil(t, imp)
				return
			}
			require.Equal(t, test.clusters, strings.Join(imp.Clusters, " "))
			require.Equal(t, test.kind, imp.Spec.Type)
			require.Equal(t, test.ports, portsOf(imp))
		})
	}
	require.Equal(t, []string{"eks", "gke"}, remembered.Clusters, "the record is read, not written")
	require.Len(t, remembered.Spec.Ports, 2)
}
