// SPDX-License-Identifier: Apache-2.0

// Package apiserver runs real API servers for tests: an etcd and a kube-apiserver each, with the CRDs of the
// Gateway API, of MCS, of Istio and of Isthmus. They start once in a test binary and are shared by its tests, so
// a test works in namespaces of its own.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

var running struct {
	sync.Mutex
	main    bool
	ended   bool
	servers []*envtest.Environment
	configs []*rest.Config
	// binaries is the folder of boundBinaries, once made.
	binaries string
	onStop   []func()
}

// OnStop has a function called before the API servers stop: an open watch keeps one from stopping for a minute.
func OnStop(f func()) {
	running.Lock()
	defer running.Unlock()
	running.onStop = append(running.onStop, f)
}

// Main is the TestMain of a package that uses Start: it runs the tests and leaves no process behind, also when it
// is interrupted.
func Main(m *testing.M) {
	running.main = true
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	// Who reads what the tests say may be gone before they are: that must not cut the cleaning up short.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		select {
		case <-interrupted:
		case <-orphaned():
		}
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(130)
	}()
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// orphaned is closed when whoever started this process has ended: `go test` does not tell its tests of a SIGTERM.
func orphaned() <-chan struct{} {
	gone, parent := make(chan struct{}), os.Getppid()
	go func() {
		defer close(gone)
		for os.Getppid() == parent {
			time.Sleep(time.Second)
		}
	}()
	return gone
}

// Start returns admin configs of n API servers, always the same ones first; those that do not run yet are started.
func Start(t testing.TB, n int) []*rest.Config {
	t.Helper()
	running.Lock()
	defer running.Unlock()
	if !running.main {
		t.Fatal("API servers need func TestMain(m *testing.M) { apiserver.Main(m) } in this package, which stops them")
	}
	if running.ended {
		t.Fatal("the test binary is ending")
	}
	if err := grow(n); err != nil {
		t.Fatalf("starting API servers: %v", err)
	}
	configs := make([]*rest.Config, n)
	for i := range configs {
		configs[i] = rest.CopyConfig(running.configs[i])
	}
	return configs
}

func grow(n int) error {
	missing := n - len(running.configs)
	if missing <= 0 {
		return nil
	}
	binaries, err := boundBinaries()
	if err != nil {
		return err
	}
	crds, err := crdPaths()
	if err != nil {
		return err
	}
	servers, configs := make([]*envtest.Environment, missing), make([]*rest.Config, missing)
	var group errgroup.Group
	for i := range missing {
		servers[i] = environment(binaries, crds)
		running.servers = append(running.servers, servers[i])
		group.Go(func() (err error) {
			configs[i], err = start(servers[i])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	running.configs = append(running.configs, configs...)
	return nil
}

// start starts a server from a thread that stays: what is bound to this process ends with the thread that started it.
func start(server *envtest.Environment) (config *rest.Config, err error) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		config, err = server.Start()
		close(done)
		select {}
	}()
	<-done
	return config, err
}

func environment(binaries string, crds []string) *envtest.Environment {
	return &envtest.Environment{
		BinaryAssetsDirectory: binaries,
		CRDDirectoryPaths:     crds,
		ErrorIfCRDPathMissing: true,
		// A busy machine takes many times as long as a quiet one, and ten seconds for the CRDs are the default.
		CRDInstallOptions:        envtest.CRDInstallOptions{MaxTime: 2 * time.Minute},
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
}

func stop() error {
	running.Lock()
	defer running.Unlock()
	running.ended = true
	for _, f := range running.onStop {
		f()
	}
	var errs []error
	for _, server := range running.servers {
		errs = append(errs, server.Stop())
	}
	running.servers, running.configs = nil, nil
	if running.binaries != "" {
		errs = append(errs, os.RemoveAll(running.binaries))
	}
	return errors.Join(errs...)
}

// crdPaths are those of the product's own modules, at the versions that it is built with.
func crdPaths() ([]string, error) {
	root, err := goCommand("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	paths := []string{filepath.Join(root, "config", "crd")}
	for _, module := range []struct{ path, crds string }{
		{"sigs.k8s.io/gateway-api", "config/crd/standard"},
		{"sigs.k8s.io/mcs-api", "config/crd"},
		{"istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"},
	} {
		dir, err := goCommand("list", "-m", "-f", "{{.Dir}}", module.path)
		if err != nil {
			return nil, err
		}
		paths = append(paths, filepath.Join(dir, filepath.FromSlash(module.crds)))
	}
	return paths, nil
}

func goCommand(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Configs are admin configs of all API servers that run, for what is shared by the tests of a package.
func Configs() []*rest.Config {
	running.Lock()
	defer running.Unlock()
	configs := make([]*rest.Config, len(running.configs))
	for i := range configs {
		configs[i] = rest.CopyConfig(running.configs[i])
	}
	return configs
}
