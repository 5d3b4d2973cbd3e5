// SPDX-License-Identifier: Apache-2.0

//go:build e2e && linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/test/lab"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/labtest"
)

// Each fault is made, seen by what it does, made again, and healed; then the links are as before.
func TestFaultsAreFeltAndHealed(t *testing.T) {
	ctx := context.Background()
	l := labtest.Lab
	for _, f := range []struct {
		name  string
		make  func() error
		felt  func() error
		lasts bool
	}{
		{"a cluster cut off", func() error { return l.Partition(ctx, "gke") },
			func() error { return all(unreachable("", "gke"), reachable("", "eks")) }, true},
		{"two clusters cut from one another", func() error { return l.Partition(ctx, "eks", "gke") },
			func() error {
				return all(unreachable("eks", "gke"), unreachable("gke", "eks"), reachable("", "gke"), reachable("hub", "gke"))
			}, true},
		{"latency to one other", func() error { return l.Latency(ctx, "gke", "hub", time.Second, 0) },
			func() error {
				return all(slower(time.Second, "hub", "gke"), quicker(time.Second, "eks", "gke"))
			}, true},
		{"loss of everything", func() error { return l.Loss(ctx, "eks", "", 1) },
			func() error { return all(unreachable("", "eks"), reachable("", "gke")) }, true},
		{"a narrow link", func() error { return l.Bandwidth(ctx, "eks", "", 100_000_000) },
			func() error { return all(reachable("", "eks"), relayed("eks")) }, true},
		{"a frozen API server", func() error { return l.Stop("eks", state.APIServer) },
			func() error { return silent("eks") }, true},
		{"a dead controller manager", func() error { return l.Kill("gke", state.ControllerManager) },
			func() error { return dead("gke", state.ControllerManager) }, true},
		{"a wrong clock", func() error { return l.MoveClock(ctx, "gke", state.APIServer, time.Hour) },
			func() error { return off("gke", time.Hour) }, true},
		{"a killed pod", func() error { return l.Kill("gke", "sample/echoserver") },
			func() error { return nil }, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Cleanup(func() { require.NoError(t, l.Heal(ctx)) })
			require.NoError(t, f.make())
			labtest.Eventually(t, f.felt)
			if f.lasts {
				listed(t, 1)
			}
			require.NoError(t, l.Heal(ctx))
			listed(t, 0)
			whole(t)
		})
	}
}

// What one component needs to be ready is another's fault, in the order in which it is worst.
func TestStackedFaultsAreHealedAtOnce(t *testing.T) {
	ctx := context.Background()
	l := labtest.Lab
	t.Cleanup(func() { require.NoError(t, l.Heal(ctx)) })
	require.NoError(t, l.Stop("gke", state.Istiod))
	require.NoError(t, l.Kill("gke", state.APIServer))
	require.NoError(t, l.Kill("gke", state.Etcd))
	require.NoError(t, l.Start(ctx, "gke", state.APIServer), "it runs, and cannot be ready yet")
	require.NoError(t, l.Heal(ctx))
	listed(t, 0)
	whole(t)
}

func TestALostNodeComesBack(t *testing.T) {
	ctx := context.Background()
	l := labtest.Lab
	t.Cleanup(func() { require.NoError(t, l.Heal(ctx)) })
	require.NoError(t, l.LoseNode(ctx, "gke"))
	require.ErrorContains(t, l.LoseNode(ctx, "gke"), "is lost already")
	require.NoError(t, reachable("", "gke"), "the control plane is the cloud's")
	url, err := l.GatewayURL("gke")
	require.NoError(t, err)
	_, err = net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), time.Second)
	require.ErrorContains(t, err, "timeout", "a machine that is gone does not refuse")
	require.NoError(t, l.Heal(ctx, "gke"))
	gke := labtest.Cluster(t, "gke")
	labtest.Eventually(t, func() error {
		var d appsv1.Deployment
		if err := gke.Get(ctx, client.ObjectKey{Namespace: labtest.Sample, Name: "helloworld"}, &d); err != nil {
			return err
		}
		if d.Status.AvailableReplicas != d.Status.Replicas {
			return fmt.Errorf("%d of %d are available", d.Status.AvailableReplicas, d.Status.Replicas)
		}
		return nil
	})
	labtest.Eventually(t, func() error {
		if c := labtest.Hello(t, "gke").Count(20); c.Failures() > 0 {
			return errors.New(c.String())
		}
		return nil
	})
	whole(t)
}

func TestFaultsStayWhereTheLabIsRepaired(t *testing.T) {
	ctx := context.Background()
	l := labtest.Lab
	t.Cleanup(func() { require.NoError(t, l.Heal(ctx)) })
	require.NoError(t, l.Partition(ctx, "gke"))
	require.NoError(t, l.Kill("eks", state.ControllerManager))
	_, err := lab.Up(ctx, lab.Options{Dir: l.Dir, Out: os.Stderr})
	require.NoError(t, err)
	require.NoError(t, unreachable("", "gke"))
	require.NoError(t, dead("eks", state.ControllerManager))
}

func all(errs ...error) error { return errors.Join(errs...) }

// connect opens a connection to a cluster's API server, from another's node or from the host (""), and says how long it took.
func connect(from, to string) (time.Duration, error) {
	now, err := labtest.Lab.State()
	if err != nil {
		return 0, err
	}
	c, err := now.Cluster(to)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	dial := func() error {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(c.APIServer, "https://"), 5*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if from == "" {
		err = dial()
	} else {
		err = network.Do(network.Prefix+from, dial)
	}
	return time.Since(began), err
}

func reachable(from, to string) error {
	_, err := connect(from, to)
	return err
}

func unreachable(from, to string) error {
	if reachable(from, to) == nil {
		return fmt.Errorf("%q still reaches %s", from, to)
	}
	return nil
}

func slower(than time.Duration, from, to string) error {
	took, err := connect(from, to)
	if err == nil && took < than {
		err = fmt.Errorf("from %q to %s took only %s", from, to, took)
	}
	return err
}

func quicker(than time.Duration, from, to string) error {
	took, err := connect(from, to)
	if err == nil && took >= than {
		err = fmt.Errorf("from %q to %s took %s", from, to, took)
	}
	return err
}

// relayed says that a process carries a cluster's frames.
func relayed(cluster string) error {
	if dead(cluster, state.Link) == nil {
		return fmt.Errorf("no relay runs for %s", cluster)
	}
	return nil
}

// silent says that an API server takes connections and does not answer.
func silent(cluster string) error {
	if err := reachable("", cluster); err != nil {
		return err
	}
	if _, err := date(cluster); err == nil {
		return fmt.Errorf("%s still answers", cluster)
	}
	return nil
}

// off says that an API server's wall clock is so much before the machine's.
func off(cluster string, by time.Duration) error {
	there, err := date(cluster)
	if err != nil {
		return err
	}
	if d := there.Sub(time.Now().Add(by)).Abs(); d > time.Minute {
		return fmt.Errorf("it is %s in %s", there, cluster)
	}
	return nil
}

// date is the time at which an API server says that it answers.
func date(cluster string) (time.Time, error) {
	now, err := labtest.Lab.State()
	if err != nil {
		return time.Time{}, err
	}
	c, err := now.Cluster(cluster)
	if err != nil {
		return time.Time{}, err
	}
	insecure := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // only the date is read
	resp, err := insecure.Get(c.APIServer + "/readyz")
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	return http.ParseTime(resp.Header.Get("Date"))
}

func dead(cluster, component string) error {
	now, err := labtest.Lab.State()
	if err != nil {
		return err
	}
	for _, p := range now.Find(cluster, component) {
		if p.Alive() {
			return fmt.Errorf("%s of %s is alive", component, cluster)
		}
	}
	return nil
}

// listed reads the file as a tool does that knows only its contract.
func listed(t *testing.T, faults int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(labtest.Lab.Dir, "lab.json"))
	require.NoError(t, err)
	var file struct {
		Faults []map[string]any `json:"faults"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	require.Len(t, file.Faults, faults)
}

// whole says that every cluster is reached by every other, and that nothing of a fault is left but the lab's own links.
func whole(t *testing.T) {
	t.Helper()
	names := []string{"", "hub", "eks", "gke"}
	for _, from := range names {
		for _, to := range names[1:] {
			if from != to {
				labtest.Eventually(t, func() error { return reachable(from, to) })
			}
		}
	}
	links, err := network.Links()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{network.Backbone, "isl-hub", "isl-eks", "isl-gke"}, links)
	for _, c := range names[1:] {
		labtest.Eventually(t, func() error { _, err := date(c); return err })
	}
}
