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

func TestTwentyMembersOfOneProviderLieInAsManyPlacesAsThereAre(t *testing.T) {
	for _, p := range providers {
		zones, regions := map[string]int{}, map[string]int{}
		for n := range 12 {
			at := p.place(n)
			zones[at.zone]++
			regions[at.region]++
		}
		require.Len(t, zones, 12, p.name)
		require.Len(t, regions, 4, p.name)
		require.Equal(t, p.place(0), p.place(12), "then from the beginning")
	}
}

func TestAHubMayBeAMember(t *testing.T) {
	o := Options{Dir: t.TempDir(), HubMember: true}
	require.NoError(t, o.complete())
	lab, err := o.plan("")
	require.NoError(t, err)
	require.Equal(t, state.RoleHub, lab.Clusters[0].Role)
	require.Len(t, lab.Members(), 3)
}

func TestOptionsAreRefusedInWords(t *testing.T) {
	for say, o := range map[string]Options{
		"is named twice": {Members: []string{"eks", "eks"}},
		"the hub's name": {Members: []string{"hub"}},
		"the lab's own":  {Members: []string{"test-a"}},
		"lower-case":     {Members: []string{"EKS"}},
		"is negative":    {PilotDebounce: -time.Second},
		"leave out one":  {NoHub: true, HubMember: true},
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
	require.Contains(t, sameLab(same, plan(Options{HubMember: true})), "a member, too")
	require.Contains(t, sameLab(same, plan(Options{NoMesh: true})), "mesh")
	require.Contains(t, sameLab(same, plan(Options{PilotDebounce: time.Millisecond})), "debounce")
}

func TestNodesAreNamedAsTheCloudWould(t *testing.T) {
	node := func(cluster string) (name, id string, labels map[string]string) {
		o := Options{Dir: t.TempDir(), Members: []string{cluster}}
		require.NoError(t, o.complete())
		lab, err := o.plan("")
		require.NoError(t, err)
		return nodeIdentity(lab.Members()[0])
	}
	name, id, labels := node("eks")
	require.Equal(t, "ip-10-231-0-12.ec2.internal", name)
	require.Regexp(t, `^aws:///us-east-1a/i-[0-9a-f]{17}$`, id)
	require.Equal(t, "default", labels["eks.amazonaws.com/nodegroup"])
	name, id, labels = node("gke-blue")
	require.Equal(t, "gce://isthmus-lab/europe-west1-b/"+name, id)
	require.Equal(t, "default-pool", labels["cloud.google.com/gke-nodepool"])
	name, id, labels = node("aks")
	require.Regexp(t, `^aks-nodepool1-[0-9a-f]{8}-vmss000000$`, name)
	require.Regexp(t, `^azure:///subscriptions/[-0-9]{36}/resourceGroups/mc_isthmus-lab_aks_eastus/providers/Microsoft.Compute/`+
		`virtualMachineScaleSets/aks-nodepool1-[0-9a-f]{8}-vmss/virtualMachines/0$`, id)
	require.Equal(t, "Standard_D4s_v5", labels[instanceType])
	name, id, labels = node("onprem")
	require.Equal(t, "onprem-node", name)
	require.Empty(t, id)
	require.Empty(t, labels)
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
	intent := gateway("sample", "a", "10.233.3.1", 80)
	intent.Spec.GatewayClassName = intentClass
	public, eastWest := gatewayAddresses([]gatewayv1.Gateway{
		intent,
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
		_, err := targetOf(target)
		require.NoError(t, err)
	}
	_, err := targetOf("database")
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
	require.ErrorContains(t, l.AddImage("mine", text, ""), "not executable")
	require.ErrorContains(t, l.AddImage("a/b:v1", "/bin/sh", ""), `run the image "b"`)
	require.ErrorContains(t, l.AddImage("Mine", "/bin/sh", ""), "lower-case")
	require.ErrorContains(t, l.AddImage("mine", "/bin", ""), "--entrypoint")
	require.NoError(t, os.WriteFile(text, []byte("just words"), 0o700))
	require.NoError(t, os.Chmod(text, 0o700))
	require.ErrorContains(t, l.AddImage("mine", text, ""), "exec format error")
	require.NoError(t, l.AddImage("mine", "/bin/sh", ""))
	require.NoError(t, l.AddImage("mine", "/bin/sh", ""), "again")
	require.FileExists(t, filepath.Join(l.addedImages(), "mine"))
}

func TestImagesAreListedAndRemoved(t *testing.T) {
	l := &Lab{Dir: t.TempDir()}
	require.NoError(t, os.MkdirAll(filepath.Join(l.imageDir(), "proxyv2"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(l.imageDir(), "helloworld"), nil, 0o755))
	tree := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "opt/x"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "opt/x/run"), []byte("#!/bin/sh\n"), 0o755))
	require.ErrorContains(t, l.AddImage("tree", tree, "/opt/x/walk"), "entrypoint")
	require.NoError(t, l.AddImage("tree", tree, "/opt/x/run"))
	require.NoError(t, l.AddImage("helloworld", "/bin/sh", ""), "another in the place of the lab's own")
	images, err := l.Images()
	require.NoError(t, err)
	require.Equal(t, []Image{{Name: "helloworld", Added: true}, {Name: "proxyv2", Folder: true}, {Name: "tree", Folder: true, Added: true}}, images)
	program, err := filepath.EvalSymlinks(filepath.Join(l.addedImages(), "tree", "entrypoint"))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(program, "tree/root/opt/x/run"))

	require.NoError(t, l.RemoveImage("helloworld"))
	require.ErrorContains(t, l.RemoveImage("helloworld"), "the lab's own")
	require.ErrorContains(t, l.RemoveImage("nothing"), "added were tree")
	require.ErrorContains(t, l.RemoveImage("../images"), "no image")
}

func TestWhoFollowsOneOfSeveralLogsIsToldHow(t *testing.T) {
	one := func(component, name, log string) state.Process {
		return state.Process{Cluster: "eks", Component: component, Name: name, Log: log}
	}
	l := recorded(t, func(s *state.Lab) {
		s.Clusters = []state.Cluster{{Name: "eks", Index: 2}}
		s.Processes = []state.Process{
			one(state.Proxy, "sample/a", "1"), one(state.Pod, "sample/a", "2"), one(state.Proxy, "sample/b", "3"),
		}
	})
	err := l.Log(t.Context(), LogRequest{Cluster: "eks", Component: state.Proxy, Follow: true})
	require.ErrorContains(t, err, "name one of sample/a, sample/b")
	err = l.Log(t.Context(), LogRequest{Cluster: "eks", Component: "sample/a", Follow: true})
	require.ErrorContains(t, err, "kubectl --context eks -n sample logs -f a -c CONTAINER")
}
