// SPDX-License-Identifier: Apache-2.0

// Package tools builds the programs that the lab and the tests run but the product does not import:
// etcd, Kubernetes, Istio, Helm and Envoy. Each set is a Go module of its own beside this file (Envoy is a
// wheel from PyPI), so that nothing of it enters the product's go.mod.
//
// Implementation considerations: a set is built once for each state of its pins into a folder of the
// cache, outside the checkout, so that a fresh clone does not build again. It is built into a
// temporary folder and renamed when complete: an interrupted build leaves nothing half. A lock file
// a set keeps two callers from building the same at the same time.
package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Set is what is built together.
type Set string

// The sets.
const (
	Etcd       Set = "etcd"
	Kubernetes Set = "kubernetes"
	Istio      Set = "istio"
	Envoy      Set = "envoy"
	// IstioCharts are Istio's own charts, of the same module as Istio; Helm renders them.
	IstioCharts Set = "istio-charts"
	Helm        Set = "helm"
	CoreDNS     Set = "coredns"
	// ArgoRollouts is its controller with its CRDs, and a stand-in for its Gateway API plugin.
	ArgoRollouts Set = "argo-rollouts"
	// CRDs are those of the Gateway API and of MCS, from the product's own modules.
	CRDs Set = "crds"
)

// All returns every set of the lab, in the order in which they are wanted first.
func All() []Set { return []Set{Etcd, Kubernetes, CRDs, CoreDNS, Envoy, Helm, IstioCharts, Istio} }

// Paths are the folders of the sets that were asked for.
type Paths map[Set]string

// File returns a file of a set, by its slash-separated path in the set's folder.
func (p Paths) File(set Set, name string) string {
	return filepath.Join(p[set], filepath.FromSlash(name))
}

// builder is how a set comes into being: key names its pins, build fills the empty folder dir.
type builder struct {
	key   func(ctx context.Context) (string, error)
	build func(ctx context.Context, dir string) error
	about string // what it takes, for the progress lines
	// requires looks for what build needs of the machine, before anything is built: minutes of building must not end in
	// a program that is missing. It may be nil.
	requires func(ctx context.Context) error
	space    uint64 // bytes that build needs in the cache's file system, about
}

// job is one set at its place in the cache.
type job struct {
	builder
	set Set
	dir string
}

// Ensure builds those of the sets that the cache lacks and returns the folders of all. What it does
// and how long it takes is told to out. After it no network is needed.
func Ensure(ctx context.Context, out io.Writer, sets ...Set) (Paths, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if err := requireGo(); err != nil {
		return nil, err
	}
	jobs, err := plan(ctx, root, cache, sets)
	if err != nil {
		return nil, err
	}
	if err := requireAll(ctx, cache, jobs); err != nil {
		return nil, err
	}
	paths := Paths{}
	for _, j := range jobs {
		if err := ensure(ctx, out, j.set, j.builder, j.dir); err != nil {
			return nil, err
		}
		paths[j.set] = j.dir
	}
	return paths, nil
}

func plan(ctx context.Context, root, cache string, sets []Set) ([]job, error) {
	var jobs []job
	for _, set := range sets {
		b, err := builderOf(root, set)
		if err != nil {
			return nil, err
		}
		key, err := b.key(ctx)
		if err != nil {
			return nil, fmt.Errorf("pins of %s: %w", set, err)
		}
		jobs = append(jobs, job{b, set, filepath.Join(cache, "tools", string(set)+"-"+key)})
	}
	return jobs, nil
}

// requireAll looks for all that the sets which are not in the cache need.
func requireAll(ctx context.Context, cache string, jobs []job) error {
	var errs []error
	space := uint64(0)
	for _, j := range jobs {
		if _, err := os.Stat(j.dir); err == nil {
			continue
		}
		space += j.space
		if j.requires != nil {
			errs = append(errs, j.requires(ctx))
		}
	}
	return errors.Join(append(errs, RequireSpace(cache, space, "building the lab's tools"))...)
}

func builderOf(root string, set Set) (builder, error) {
	switch set {
	case Etcd, Kubernetes, Istio, IstioCharts, Helm, CoreDNS, ArgoRollouts:
		m := modules[set]
		return moduleBuilder(filepath.Join(root, "test", "lab", "tools", cmp.Or(m.dir, string(set))), m), nil
	case Envoy:
		return envoyBuilder(), nil
	case CRDs:
		return crdBuilder(root), nil
	}
	return builder{}, fmt.Errorf("no tool set %q: there are %v", set, All())
}

// ensure builds one set into dir unless it is there, under the set's lock.
func ensure(ctx context.Context, out io.Writer, set Set, b builder, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("tool cache: %w; set ISTHMUS_CACHE to a folder that can be written", err)
	}
	unlock, err := lock(ctx, out, set, filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil // somebody else built it meanwhile
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+string(set)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	done := progress(out, fmt.Sprintf("%s: %s", set, b.about))
	err = b.build(ctx, tmp)
	done(err)
	if err != nil {
		return fmt.Errorf("tool set %s: %w", set, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // programs for everybody
		return err
	}
	return os.Rename(tmp, dir)
}

// lock takes the set's lock and says so when somebody else holds it.
func lock(ctx context.Context, out io.Writer, set Set, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "."+string(set)+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	said := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if !said {
			_, _ = fmt.Fprintf(out, "%s: another process is building it, waiting\n", set)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// progress tells that something long began, that it goes on, and how long it took.
func progress(out io.Writer, what string) (done func(error)) {
	start := time.Now()
	elapsed := func() time.Duration { return time.Since(start).Round(time.Second) }
	_, _ = fmt.Fprintf(out, "%s\n", what)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(out, "%s … %s\n", what, elapsed())
			}
		}
	}()
	return func(err error) {
		close(stop)
		<-stopped
		if err == nil {
			_, _ = fmt.Fprintf(out, "%s: done in %s\n", what, elapsed())
		}
	}
}

// EnvtestDir returns one folder that holds etcd, kube-apiserver and kubectl, as controller-runtime's
// envtest wants them (Environment.BinaryAssetsDirectory), and builds what is missing.
func EnvtestDir(ctx context.Context, out io.Writer) (string, error) {
	paths, err := Ensure(ctx, out, Etcd, Kubernetes)
	if err != nil {
		return "", err
	}
	keys := []string{filepath.Base(paths[Etcd]), filepath.Base(paths[Kubernetes])}
	sort.Strings(keys)
	cache := filepath.Dir(paths[Etcd])
	dir := filepath.Join(cache, "envtest-"+hash(strings.Join(keys, "\n")))
	return dir, ensure(ctx, io.Discard, "envtest", builder{build: func(_ context.Context, tmp string) error {
		return errors.Join(
			os.Symlink(paths.File(Etcd, "etcd"), filepath.Join(tmp, "etcd")),
			os.Symlink(paths.File(Kubernetes, "kube-apiserver"), filepath.Join(tmp, "kube-apiserver")),
			os.Symlink(paths.File(Kubernetes, "kubectl"), filepath.Join(tmp, "kubectl")),
		)
	}}, dir)
}
