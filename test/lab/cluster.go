// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"isthmus.dev/isthmus/test/lab/controlplane"
	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/process"
	"isthmus.dev/isthmus/test/lab/state"
)

// startup is how long a component may take until it is ready, on a machine that is busy.
const startup = 180 * time.Second

// startCluster brings up one cluster, from whatever is running of it.
func (l *Lab) startCluster(ctx context.Context, lab *state.Lab, c state.Cluster) error {
	if len(lab.FaultsOf(c.Name)) > 0 {
		return l.repairFaulty(lab, c)
	}
	cp, err := l.controlPlane(lab, c)
	if err != nil {
		return err
	}
	if err := l.ensureRunning(lab, c, state.Etcd, state.APIServer); err != nil {
		return err
	}
	if err := l.awaitAPIServer(ctx, c); err != nil {
		return err
	}
	if err := l.ensureRunning(lab, c, state.ControllerManager, state.NodeAgent, state.KubeProxy); err != nil {
		return err
	}
	l.say("%s: control plane ready", c.Name)
	mesh := lab.Mesh && c.Member
	if !lab.Ready {
		if err := l.install(ctx, cp, mesh); err != nil {
			return err
		}
	}
	if !mesh {
		return nil
	}
	if err := l.awaitIstiod(ctx, c); err != nil {
		return err
	}
	l.say("%s: mesh ready", c.Name)
	return nil
}

// repairFaulty starts what died of a cluster, but for what a fault struck. It waits for nothing: faults are there to keep things from
// being ready.
func (l *Lab) repairFaulty(lab *state.Lab, c state.Cluster) error {
	for _, component := range components {
		if struck(lab, c.Name, component) {
			l.say("%s: %s is left as it is: a fault struck it", c.Name, component)
			continue
		}
		if err := l.ensureRunning(lab, c, component); err != nil {
			return err
		}
	}
	return nil
}

// struck says whether a fault keeps a component of a cluster from working.
func struck(lab *state.Lab, cluster, component string) bool {
	name := component
	if component == state.NodeAgent {
		name = Node
		if lab.Faulty(cluster, "", state.NodeLoss) {
			return true
		}
	}
	return lab.Faulty(cluster, name, state.Killed, state.Stopped)
}

func (l *Lab) install(ctx context.Context, cp controlplane.Cluster, mesh bool) error {
	applier, err := l.applier(cp.Name)
	if err != nil {
		return err
	}
	if err := cp.InstallCRDs(ctx, applier); err != nil {
		return err
	}
	if err := cp.InstallDNS(ctx, applier); err != nil {
		return err
	}
	if mesh {
		return cp.InstallMesh(ctx, applier)
	}
	return nil
}

func (l *Lab) applier(cluster string) (*controlplane.Applier, error) {
	config, err := l.RESTConfig(cluster)
	if err != nil {
		return nil, err
	}
	return controlplane.NewApplier(config)
}

// spec returns how a component of a cluster is started.
func (l *Lab) spec(lab *state.Lab, c state.Cluster, component string) (process.Spec, error) {
	cp, err := l.controlPlane(lab, c)
	if err != nil {
		return process.Spec{}, err
	}
	switch component {
	case state.Etcd:
		return cp.Etcd(), nil
	case state.APIServer:
		return cp.APIServer(), nil
	case state.ControllerManager:
		return cp.ControllerManager(), nil
	case state.KubeProxy:
		name, _, _ := nodeIdentity(c)
		return cp.KubeProxy(name), nil
	case state.NodeAgent:
		return process.Spec{
			Cluster: c.Name, Component: component, NetNS: c.NetNS,
			Path: filepath.Join(l.binDir(), "isthmus-lab"),
			Args: []string{"node-agent", "--dir", l.Dir, "--cluster", c.Name},
			Dir:  filepath.Join(l.Dir, "run", c.Name, "node-agent-work"), Log: filepath.Join(l.logs(c.Name), component+".log"),
			Env: []string{"GOMAXPROCS=2"},
		}, nil
	}
	return process.Spec{}, fmt.Errorf("no component %q: there are %v", component, components)
}

// components of a cluster that are processes of their own, in the order of their start.
var components = []string{state.Etcd, state.APIServer, state.ControllerManager, state.NodeAgent, state.KubeProxy}

// ensureRunning starts components unless they run, in this order, and records them. What was frozen by hand goes on.
func (l *Lab) ensureRunning(lab *state.Lab, c state.Cluster, components ...string) error {
	for _, component := range components {
		recorded, err := l.State()
		if err != nil {
			return err
		}
		alive := slices.DeleteFunc(recorded.Find(c.Name, component), func(p state.Process) bool { return !p.Alive() })
		if len(alive) > 0 {
			if err := signal(syscall.SIGCONT, alive); err != nil {
				return err
			}
			continue
		}
		if err := l.start(lab, c, component); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) start(lab *state.Lab, c state.Cluster, component string) error {
	spec, err := l.spec(lab, c, component)
	if err != nil {
		return err
	}
	p, err := process.Start(spec)
	if err != nil {
		return err
	}
	if lab.Ready {
		l.say("%s: %s was dead, started again", c.Name, component)
	}
	return l.record(p)
}

// record puts a process that was just started on the lab's list. One that cannot be listed (a full disk, a lab that is being
// taken down) is ended again: the next command would start another beside it.
func (l *Lab) record(p state.Process) error {
	err := state.UpdateExisting(l.Dir, func(s *state.Lab) error { s.SetProcess(p); return nil })
	if err != nil {
		err = errors.Join(err, process.Signal(p, syscall.SIGKILL))
	}
	return err
}

// awaitAPIServer asks from inside the cluster's network: a fault may have cut it off from here.
func (l *Lab) awaitAPIServer(ctx context.Context, c state.Cluster) error {
	probe := probeBy(dialerIn(c.NetNS))
	return l.await(ctx, c.Name, state.APIServer, func(ctx context.Context) error {
		return get(ctx, probe, c.APIServer+"/readyz", "")
	})
}

// awaitIstiod waits until istiod serves, which is a pod of the cluster.
func (l *Lab) awaitIstiod(ctx context.Context, c state.Cluster) error {
	config, err := l.RESTConfig(c.Name)
	if err != nil {
		return err
	}
	config.Dial = dialerIn(c.NetNS)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	err = poll(ctx, func() error {
		d, err := client.AppsV1().Deployments(controlplane.IstioNamespace).Get(ctx, controlplane.Istiod, metav1.GetOptions{})
		if err == nil && len(unavailable([]appsv1.Deployment{*d})) > 0 {
			err = errors.New("it has no ready pod")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("istiod is not ready: %w; look at `isthmus-lab logs %s istiod` and `kubectl --context %s -n %s describe pods`",
			err, c.Name, c.Name, controlplane.IstioNamespace)
	}
	return nil
}

// await tries until ready succeeds. It gives up when the component's process is dead.
func (l *Lab) await(ctx context.Context, cluster, component string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	log := filepath.Join(l.logs(cluster), component+".log")
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		lab, stateErr := l.State()
		if stateErr != nil {
			return stateErr
		}
		for _, p := range lab.Find(cluster, component) {
			if !p.Alive() {
				return fmt.Errorf("%s died while it started; its last words are in %s", component, log)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w); look into %s", component, ctx.Err(), err, log)
		case <-tick.C:
		}
	}
}

// dialer connects as net.Dialer's DialContext does.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// dialerIn connects from a network namespace, to addresses: names are not resolved there.
func dialerIn(netns string) dialer {
	return func(ctx context.Context, protocol, address string) (conn net.Conn, err error) {
		err = network.Do(netns, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, protocol, address)
			return err
		})
		return conn, err
	}
}

// probeBy asks the lab's own servers. Their certificates are of authorities that only kubeconfigs
// know, and nothing is said or believed beyond "ready".
func probeBy(dial dialer) *http.Client {
	return &http.Client{
		Timeout: 3 * time.Second,
		Transport: &http.Transport{
			DialContext:       dial,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // see above
			DisableKeepAlives: true,
		},
	}
}

// get succeeds when url answers 200 to a request for host (empty: as in url).
func get(ctx context.Context, probe *http.Client, url, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	resp, err := probe.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
