// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"isthmus.dev/isthmus/test/lab/network"
	"isthmus.dev/isthmus/test/lab/state"
	"isthmus.dev/isthmus/test/lab/tools"
)

// Up starts the lab and returns when everything in it is ready. Where the same lab runs already, it
// starts again what died and changes nothing else.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := preflight(o.Dir); err != nil {
		return nil, err
	}
	root, err := tools.Root()
	if err != nil {
		return nil, err
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	unlock, err := onlyOne(o.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l := &Lab{Dir: o.Dir, out: o.Out, began: time.Now()}
	asked, err := o.plan(root)
	if err != nil {
		return nil, err
	}
	lab, err := l.resume(ctx, asked)
	if err != nil {
		return nil, err
	}
	if err := l.ensureTools(ctx, lab.Mesh); err != nil {
		return nil, err
	}
	if err := l.up(ctx, lab, o); err != nil {
		return l, l.explain(err)
	}
	return l, nil
}

// explain says what became of a start that failed, and whether a full disk may be why: what dies of that seldom says so.
func (l *Lab) explain(err error) error {
	const hardlyAny = 50_000_000
	if full := tools.RequireSpace(l.Dir, hardlyAny, "the lab"); full != nil {
		err = fmt.Errorf("the disk is full: %w\n%w", full, err)
	}
	return fmt.Errorf("%w\nwhat has started still runs, its logs are in %s; `isthmus-lab up` tries again, `isthmus-lab down` ends it",
		err, filepath.Join(l.Dir, "logs"))
}

// onlyOne refuses two starts or ends of the same lab at the same time.
func onlyOne(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".up.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another `isthmus-lab up` or `down` works in %s: wait for it", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// resume returns the lab to bring up: the running one when it is the one asked for, else the new one
// on a machine without leftovers. A start that was cut off is begun anew: what it was about to write is half there.
func (l *Lab) resume(ctx context.Context, asked *state.Lab) (*state.Lab, error) {
	running, err := l.State()
	if err == nil && ended(running) == "" {
		if differs := sameLab(running, asked); differs != "" {
			return nil, fmt.Errorf("another lab runs in %s (%s): `isthmus-lab down` first", l.Dir, differs)
		}
		return running, nil
	}
	if err == nil {
		l.say("beginning anew: %s", ended(running))
	} else if !errors.Is(err, state.ErrNoLab) {
		return nil, err
	}
	if err := l.clear(ctx); err != nil {
		return nil, fmt.Errorf("clear what an earlier lab left: %w", err)
	}
	// The logs of the lab before would be taken for this one's.
	if err := os.RemoveAll(filepath.Join(l.Dir, "logs")); err != nil {
		return nil, err
	}
	if err := requireRoom(l.Dir, len(asked.Clusters)); err != nil {
		return nil, err
	}
	if err := mark(l.Dir); err != nil {
		return nil, err
	}
	return asked, state.Update(l.Dir, func(s *state.Lab) error { *s = *asked; return nil })
}

func (l *Lab) up(ctx context.Context, lab *state.Lab, o Options) error {
	if lab.Ready {
		l.say("the lab is running: looking for what died")
		if err := l.startClusters(ctx, lab); err != nil {
			return err
		}
		return l.awaitReady(ctx, lab)
	}
	hub := !o.NoHub
	l.say("building the images of the lab's pods")
	if err := l.buildImages(ctx, lab.Root, hub, lab.Mesh); err != nil {
		return err
	}
	if err := l.startClusters(ctx, lab); err != nil {
		return err
	}
	if hub {
		if err := l.installIsthmus(ctx, lab); err != nil {
			return err
		}
	}
	if !o.NoExample {
		if err := l.applyExample(ctx, lab); err != nil {
			return err
		}
	}
	if err := l.awaitReady(ctx, lab); err != nil {
		return err
	}
	return state.UpdateExisting(l.Dir, func(s *state.Lab) error { s.Ready = true; return nil })
}

// startClusters brings up the network and all clusters, side by side.
func (l *Lab) startClusters(ctx context.Context, lab *state.Lab) error {
	var nets []network.Cluster
	for _, c := range lab.Clusters {
		net, err := network.Plan(c.Name, c.Index)
		if err != nil {
			return err
		}
		nets = append(nets, net)
	}
	if err := network.Up(nets); err != nil {
		return err
	}
	if err := l.repairLinks(ctx, lab); err != nil {
		return err
	}
	if err := l.prepareClusters(lab); err != nil {
		return err
	}
	err := eachCluster(ctx, lab.Clusters, func(ctx context.Context, c state.Cluster) error {
		if err := l.startCluster(ctx, lab, c); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.repairClocks()
}

// eachCluster works on several clusters at once, but not on twenty: they would all be slow together,
// until the first of them is given up.
func eachCluster(ctx context.Context, clusters []state.Cluster, work func(context.Context, state.Cluster) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(3, runtime.NumCPU()))
	for _, c := range clusters {
		g.Go(func() error { return work(ctx, c) })
	}
	return g.Wait()
}

// prepareClusters writes keys and configuration. One after the other: the mesh's root is shared.
func (l *Lab) prepareClusters(lab *state.Lab) error {
	for _, c := range lab.Clusters {
		cp, err := l.controlPlane(lab, c)
		if err != nil {
			return err
		}
		if err := cp.Prepare(c.Kubeconfig); err != nil {
			return fmt.Errorf("keys of %s: %w", c.Name, err)
		}
		if lab.Mesh && c.Member {
			if err := cp.PrepareMesh(); err != nil {
				return fmt.Errorf("mesh keys of %s: %w", c.Name, err)
			}
		}
	}
	return l.writeKubeconfig(lab)
}

// writeKubeconfig joins the clusters' kubeconfigs to one with a context each.
func (l *Lab) writeKubeconfig(lab *state.Lab) error {
	all := clientcmdapi.NewConfig()
	for _, c := range lab.Clusters {
		one, err := clientcmd.LoadFromFile(c.Kubeconfig)
		if err != nil {
			return err
		}
		all.Clusters[c.Name] = one.Clusters[c.Name]
		all.AuthInfos[c.Name] = one.AuthInfos[c.Name]
		all.Contexts[c.Name] = one.Contexts[c.Name]
	}
	all.CurrentContext = lab.Clusters[0].Name
	return clientcmd.WriteToFile(*all, filepath.Join(l.Dir, "kubeconfig"))
}
