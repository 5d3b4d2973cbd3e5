// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"isthmus.dev/isthmus/test/lab/state"
)

func TestThePlanOfTheDefaultLab(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	require.NoError(t, o.complete())
	lab, err := o.plan("/checkout")
	require.NoError(t, err)
	var seen []string
	for _, c := range lab.Clusters {
		seen = append(seen, strings.Join([]string{c.Name, c.Role, c.Provider, c.Zone, c.NodeIP}, " "))
	}
	require.Equal(t, []string{
		"hub hub   10.231.0.11",
		"eks member eks us-east-1a 10.231.0.12",
		"gke member gke europe-west1-b 10.231.0.13",
	}, seen)
}

func TestMembersOfOneProviderLieInDifferentRegions(t *testing.T) {
	o := Options{Dir: t.TempDir(), Members: []string{"eks-blue", "onprem", "eks-green"}, NoHub: true}
	require.NoError(t, o.complete())
	lab, err := o.plan("")
	require.NoError(t, err)
	require.Equal(t, "us-east-1", lab.Clusters[0].Region)
	require.Empty(t, lab.Clusters[1].Provider)
	require.Equal(t, "us-west-2", lab.Clusters[2].Region)
}

func TestOptionsAreRefusedInWords(t *testing.T) {
	for say, o := range map[string]Options{
		"is named twice": {Members: []string{"eks", "eks"}},
		"the hub's name": {Members: []string{"hub"}},
		"the lab's own":  {Members: []string{"test-a"}},
		"lower-case":     {Members: []string{"EKS"}},
		"is negative":    {PilotDebounce: -time.Second},
	} {
		o.Dir = t.TempDir()
		require.ErrorContains(t, o.complete(), say)
	}
}

func TestAnotherLabIsToldFromTheSame(t *testing.T) {
	plan := func(o Options) *state.Lab {
		o.Dir = t.TempDir()
		require.NoError(t, o.complete())
		lab, err := o.plan("")
		require.NoError(t, err)
		return lab
	}
	same := plan(Options{})
	require.Empty(t, sameLab(same, plan(Options{})))
	require.Contains(t, sameLab(same, plan(Options{Members: []string{"eks"}})), "clusters")
	require.Contains(t, sameLab(same, plan(Options{NoMesh: true})), "mesh")
	require.Contains(t, sameLab(same, plan(Options{PilotDebounce: time.Millisecond})), "debounce")
}

func TestNodesAreNamedAsTheCloudWould(t *testing.T) {
	name, id := nodeIdentity(state.Cluster{Provider: "eks", NodeIP: "10.231.0.12", Zone: "us-east-1a", Index: 2})
	require.Equal(t, "ip-10-231-0-12.ec2.internal", name)
	require.Equal(t, "aws:///us-east-1a/i-00000000000000002", id)
	name, id = nodeIdentity(state.Cluster{Name: "gke", Provider: "gke", Zone: "europe-west1-b"})
	require.Equal(t, "gce://isthmus-lab/europe-west1-b/"+name, id)
	_, id = nodeIdentity(state.Cluster{Name: "hub"})
	require.Empty(t, id)
}

func TestMountPointsBelowTheLabOnlyTheInnermostFirst(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:30 / /w/.lab/run/a rw - overlay overlay rw
31 30 0:31 / /w/.lab/run/a/b\040c rw - tmpfs tmpfs rw
32 22 0:32 / /w/.labor rw - tmpfs tmpfs rw
`
	points, err := mountPoints(strings.NewReader(mountinfo), "/w/.lab")
	require.NoError(t, err)
	require.Equal(t, []string{"/w/.lab/run/a/b c", "/w/.lab/run/a"}, points)
}

func TestGatewayAddresses(t *testing.T) {
	gateway := func(namespace, name, ip string, port gatewayv1.PortNumber) gatewayv1.Gateway {
		g := gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		g.Spec.Listeners = []gatewayv1.Listener{{Port: port, Protocol: gatewayv1.HTTPProtocolType}}
		if ip != "" {
			g.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Value: ip}}
		}
		return g
	}
	public, eastWest := gatewayAddresses([]gatewayv1.Gateway{
		gateway("isthmus-system", "east-west", "10.233.2.1", eastWestPort),
		gateway("sample", "z", "10.233.2.4", 80),
		gateway("sample", "public", "10.233.2.2", 80),
		gateway("sample", "early", "", 80),
		gateway("other", "a", "10.233.2.3", 80),
	})
	require.Equal(t, "10.233.2.2:80", public)
	require.Equal(t, "10.233.2.1:15443", eastWest)
	public, eastWest = gatewayAddresses(nil)
	require.Empty(t, public+eastWest)
}

func TestUnavailableNamesTheDeploymentsThatWait(t *testing.T) {
	none := int32(0)
	list := []appsv1.Deployment{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "ready"}, Status: appsv1.DeploymentStatus{AvailableReplicas: 1, UpdatedReplicas: 1}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "waiting"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "scaled-down"}, Spec: appsv1.DeploymentSpec{Replicas: &none}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "unseen", Generation: 2}, Status: appsv1.DeploymentStatus{AvailableReplicas: 1, UpdatedReplicas: 1, ObservedGeneration: 1}},
	}
	require.Equal(t, []string{"a/waiting (0 of 1)", "a/unseen (1 of 1)"}, unavailable(list))
}

func TestFaultTargetsAreKnownByName(t *testing.T) {
	for _, target := range Targets() {
		_, err := componentOf(target)
		require.NoError(t, err)
	}
	_, err := componentOf("database")
	require.ErrorContains(t, err, "apiserver")
}

func TestOpenWithoutALabSaysWhatToDo(t *testing.T) {
	_, err := Open(t.TempDir())
	require.ErrorIs(t, err, state.ErrNoLab)
}

func TestAddImageTakesOnlyPrograms(t *testing.T) {
	l := &Lab{Dir: t.TempDir()}
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, nil, 0o600))
	require.ErrorContains(t, l.AddImage("mine", text), "no executable")
	require.ErrorContains(t, l.AddImage("a/b", "/bin/sh"), "without registry")
	require.NoError(t, l.AddImage("mine", "/bin/sh"))
	require.NoError(t, l.AddImage("mine", "/bin/sh"), "again")
	require.FileExists(t, filepath.Join(l.imageDir(), "mine"))
}
