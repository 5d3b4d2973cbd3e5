// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package e2e tells the main story in the lab: real clusters, real Istio, real requests, counted.
package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	istionetworkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/controllers"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// requests of a counted split; the standard deviation at 80 to 20 is 18 of them.
const requests = 2000

func TestMembersSayWhatTheyAre(t *testing.T) {
	places := map[string][2]string{"eks": {"eks", "us-east-1"}, "gke": {"gke", "europe-west1"}}
	for _, member := range labtest.Members {
		labtest.ExpectMember(t, member, v1alpha1.MemberConnected, metav1.ConditionTrue)
		labtest.ExpectMember(t, member, v1alpha1.MemberMeshReady, metav1.ConditionTrue)
		labtest.Eventually(t, func() error {
			var mc v1alpha1.MemberCluster
			err := labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKey{Name: member}, &mc)
			s := mc.Status
			if err == nil && (s.Provider != places[member][0] || s.Region != places[member][1] || s.KubernetesVersion == "" ||
				!strings.Contains(fmt.Sprint(s.ExportedServices), "sample/helloworld")) {
				err = fmt.Errorf("%s: %+v", member, s)
			}
			return err
		})
	}
}

func TestAnExportIsImportedEverywhere(t *testing.T) {
	for _, name := range append([]string{"hub"}, labtest.Members...) {
		labtest.Eventually(t, func() error {
			var imp mcsv1beta1.ServiceImport
			return labtest.Cluster(t, name).Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, &imp)
		})
	}
}

func TestTheSplitIsAsThePolicySays(t *testing.T) {
	labtest.SetPolicy(t, 80, 20)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	for _, member := range labtest.Members {
		r := labtest.Hello(t, member)
		settle(t, r)
		r.ExpectSplit(t, requests, "eks", 0.8)
	}
}

// settle waits until a gateway answers for both clusters and nothing fails: written is not yet in the proxy.
func settle(t *testing.T, r *labtest.Requester) {
	t.Helper()
	labtest.Eventually(t, func() error {
		if c := r.Count(200); c.Failures() > 0 || len(c.ByServer) != 2 {
			return fmt.Errorf("not settled: %s", c)
		}
		return nil
	})
}

func TestChangingThePolicyMovesTheTraffic(t *testing.T) {
	t.Cleanup(func() {
		labtest.SetPolicy(t, 80, 20)
		labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	})
	load := labtest.Hello(t, "eks").UnderLoad()
	labtest.SetPolicy(t, 0, 100)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(0, 100))
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "gke", 300)
	}
	labtest.SetPolicy(t, 100, 0)
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "eks", 300)
	}
	c := load()
	t.Logf("under load: %s", c)
	require.Zero(t, c.Failures(), "a change of weights costs no request: %s", c)
}

func TestScaledToZeroFailsOverAndReturns(t *testing.T) {
	t.Cleanup(func() { labtest.Scale(t, "eks", "helloworld", 2) })
	settle(t, labtest.Hello(t, "eks"))
	load := labtest.Hello(t, "gke").UnderLoad()
	labtest.Scale(t, "eks", "helloworld", 0)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(0, 100))
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectOnly(t, "gke", 300)
	}
	expectRouteCondition(t, v1alpha1.RouteTrafficShifted, metav1.ConditionTrue, v1alpha1.ReasonFailedOver)
	labtest.Scale(t, "eks", "helloworld", 2)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	for _, member := range labtest.Members {
		settle(t, labtest.Hello(t, member))
	}
	t.Logf("entering at gke, under load: %s", load())
	labtest.Hello(t, "gke").ExpectSplit(t, requests, "eks", 0.8)
}

func expectRouteCondition(t *testing.T, kind string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	labtest.Eventually(t, func() error {
		var r gatewayv1.HTTPRoute
		if err := labtest.Cluster(t, "hub").Get(context.Background(), client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, &r); err != nil {
			return err
		}
		for _, p := range r.Status.Parents {
			for _, c := range p.Conditions {
				if c.Type == kind && c.Status == status && c.Reason == reason {
					return nil
				}
			}
		}
		return fmt.Errorf("no %s=%s (%s): %+v", kind, status, reason, r.Status.Parents)
	})
}

// TestCrashedFailsOverAndReturns kills every helloworld of eks at once, as a bad build would, and watches the
// weights go and come back: the node agent restarts what died.
func TestCrashedFailsOverAndReturns(t *testing.T) {
	settle(t, labtest.Hello(t, "gke"))
	cfg, err := labtest.Lab.RESTConfig("gke")
	require.NoError(t, err)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: controllers.NewScheme()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), labtest.Patience)
	defer cancel()
	w, err := c.Watch(ctx, &gatewayv1.HTTPRouteList{}, client.InNamespace(labtest.Sample))
	require.NoError(t, err)
	defer w.Stop()
	crash(t, "eks", labtest.Sample+"/helloworld-")
	expectEvent(t, w, map[string]int32{"eks": 0, "gke": 10000})
	expectEvent(t, w, map[string]int32{"eks": 8000, "gke": 2000})
	settle(t, labtest.Hello(t, "gke"))
}

func crash(t *testing.T, member, prefix string) {
	t.Helper()
	l, err := labtest.Lab.State()
	require.NoError(t, err)
	killed := 0
	for _, p := range l.Processes {
		if p.Cluster == member && p.Component == state.Pod && strings.HasPrefix(p.Name, prefix) {
			require.NoError(t, syscall.Kill(p.PID, syscall.SIGKILL))
			killed++
		}
	}
	require.NotZero(t, killed, "no process of %s in %s", prefix, member)
}

func expectEvent(t *testing.T, w watch.Interface, want map[string]int32) {
	t.Helper()
	for e := range w.ResultChan() {
		if r, ok := e.Object.(*gatewayv1.HTTPRoute); ok && r.Name == "helloworld" && fmt.Sprint(labtest.WeightsOf(r, "gke")) == fmt.Sprint(want) {
			return
		}
	}
	t.Fatalf("gke's route never had the weights %v", want)
}

func TestWithoutAPolicyRequestsStayAndFailOver(t *testing.T) {
	t.Cleanup(func() { labtest.Scale(t, "eks", "echoserver", 1) })
	for _, member := range labtest.Members {
		labtest.Echo(t, member).ExpectOnly(t, member, 200)
	}
	labtest.Scale(t, "eks", "echoserver", 0)
	for _, member := range labtest.Members {
		labtest.Echo(t, member).ExpectOnly(t, "gke", 200)
	}
	labtest.Scale(t, "eks", "echoserver", 1)
	for _, member := range labtest.Members {
		labtest.Echo(t, member).ExpectOnly(t, member, 200)
	}
}

func TestKillingAnAPIServerMovesNothing(t *testing.T) {
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	before := contents(t, "gke")
	require.NoError(t, labtest.Lab.Kill("eks", "apiserver"))
	t.Cleanup(func() {
		require.NoError(t, labtest.Lab.Start(context.Background(), "eks", "apiserver"))
		labtest.ExpectMember(t, "eks", v1alpha1.MemberConnected, metav1.ConditionTrue)
	})
	load := labtest.Hello(t, "gke").UnderLoad()
	labtest.ExpectMember(t, "eks", v1alpha1.MemberConnected, metav1.ConditionFalse)
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectSplit(t, requests, "eks", 0.8)
	}
	require.Equal(t, before, contents(t, "gke"), "something was written in gke")
	require.Zero(t, load().Failures())
}

// contents are the resource versions of all that Isthmus wrote in a member, without the status that others write:
// the generation changes only with a spec.
func contents(t *testing.T, member string) map[string]string {
	t.Helper()
	out := map[string]string{}
	ours := client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}
	for _, list := range []client.ObjectList{&gatewayv1.GatewayList{}, &gatewayv1.HTTPRouteList{}, &gatewayv1.ReferenceGrantList{},
		&istionetworkingv1.ServiceEntryList{}, &istionetworkingv1.DestinationRuleList{}, &mcsv1beta1.ServiceImportList{}} {
		require.NoError(t, labtest.Cluster(t, member).List(context.Background(), list, ours))
		for _, o := range labtest.Objects(t, list) {
			out[fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())] = fmt.Sprint(o.GetGeneration(), writtenBy(o))
		}
	}
	require.NotEmpty(t, out)
	return out
}

// writtenBy is when Isthmus last wrote an object, by its own entry in the managed fields.
func writtenBy(o client.Object) string {
	for _, f := range o.GetManagedFields() {
		if f.Manager == v1alpha1.FieldOwner && f.Subresource == "" {
			return f.Time.UTC().Format(time.RFC3339)
		}
	}
	return "never"
}

func TestStoppingTheHubChangesNothing(t *testing.T) {
	hub := labtest.Cluster(t, "hub")
	before := map[string]map[string]string{}
	for _, member := range labtest.Members {
		before[member] = contents(t, member)
	}
	t.Cleanup(func() { scaleHub(t, hub, 1) })
	scaleHub(t, hub, 0)
	for _, member := range labtest.Members {
		labtest.Hello(t, member).ExpectSplit(t, requests, "eks", 0.8)
		require.Equal(t, before[member], contents(t, member), "stopping the hub changed something in %s", member)
	}
	scaleHub(t, hub, 1)
	for _, member := range labtest.Members {
		labtest.ExpectMember(t, member, v1alpha1.MemberSynced, metav1.ConditionTrue)
	}
	// A change that has to pass through all of it shows that the new leader works; it wrote that and nothing else.
	labtest.SetPolicy(t, 70, 30)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(70, 30))
	labtest.SetPolicy(t, 80, 20)
	labtest.ExpectWeights(t, "helloworld", labtest.Everywhere(80, 20))
	for _, member := range labtest.Members {
		after := contents(t, member)
		changed := fmt.Sprintf("%T %s/%s", &gatewayv1.HTTPRoute{}, labtest.Sample, "helloworld")
		delete(after, changed)
		delete(before[member], changed)
		require.Equal(t, before[member], after, "starting the hub wrote in %s", member)
	}
}

func scaleHub(t *testing.T, hub client.Client, replicas int32) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "isthmus-hub"}}
	require.NoError(t, hub.Patch(context.Background(), d, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))))
	labtest.Eventually(t, func() error {
		var pods corev1.PodList
		if err := hub.List(context.Background(), &pods, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
			return err
		}
		if err := hub.Get(context.Background(), client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if len(pods.Items) != int(replicas) || d.Status.ReadyReplicas != replicas {
			return fmt.Errorf("%d pods of the hub, %d ready, want %d", len(pods.Items), d.Status.ReadyReplicas, replicas)
		}
		return nil
	})
}
