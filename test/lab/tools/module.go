// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// module is a tool module: packages to build, and files to take from a module that it requires.
type module struct {
	dir      string   // its folder, where that is not named like the set
	packages []string // import paths
	ldflags  []string // beside -s -w
	from     string   // module of the files
	files    []string // files and folders of it
	about    string
}

// version is what Kubernetes' programs call themselves; without it they say v0.0.0, which clients
// that look at the server's version take for very old.
const version = "k8s.io/component-base/version."

var modules = map[Set]module{
	Etcd: {
		packages: []string{"go.etcd.io/etcd/server/v3"},
		about:    "building (about 20 s, once)",
	},
	Kubernetes: {
		packages: []string{
			"k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kube-controller-manager",
			"k8s.io/kubernetes/cmd/kube-proxy", "k8s.io/kubernetes/cmd/kubectl",
		},
		ldflags: []string{"-X", version + "gitVersion=v1.36.3", "-X", version + "gitMajor=1", "-X", version + "gitMinor=36"},
		about:   "building kube-apiserver, kube-controller-manager, kube-proxy and kubectl (minutes, once)",
	},
	Istio: {
		packages: []string{"istio.io/istio/pilot/cmd/pilot-agent", "istio.io/istio/pilot/cmd/pilot-discovery"},
		from:     "istio.io/istio",
		files:    []string{"tools/packaging/common/envoy_bootstrap.json"},
		about:    "building istiod and pilot-agent (minutes, once)",
	},
	// A set of its own beside Istio's programs: who tries another chart need not build those again.
	IstioCharts: {
		dir:   string(Istio),
		from:  "istio.io/istio",
		files: []string{"manifests/charts/base", "manifests/charts/istio-control/istio-discovery"},
		about: "copying Istio's charts",
	},
	CoreDNS: {
		packages: []string{"isthmus.dev/isthmus/test/lab/tools/coredns"},
		about:    "building CoreDNS (minutes, once)",
	},
	// Not among All: it is for one suite, and takes as long as Kubernetes to build.
	ArgoRollouts: {
		packages: []string{"github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
			"isthmus.dev/isthmus/test/lab/tools/argo-rollouts/gatewayapi-plugin"},
		from:  "github.com/argoproj/argo-rollouts",
		files: []string{"manifests/crds"},
		about: "building Argo Rollouts' controller (minutes, once)",
	},
	Helm: {
		packages: []string{"helm.sh/helm/v4/cmd/helm"},
		about:    "building helm (a minute, once)",
	},
}

// spacePerPackage is what a program takes with its modules and Go's build cache, in bytes, about.
const spacePerPackage = 1_200_000_000

func moduleBuilder(dir string, m module) builder {
	return builder{
		about: m.about,
		key:   func(ctx context.Context) (string, error) { return moduleKey(ctx, dir, m) },
		build: func(ctx context.Context, out string) error { return buildModule(ctx, dir, m, out) },
		space: uint64(len(m.packages)) * spacePerPackage,
	}
}

// moduleKey changes with everything that the result depends on.
func moduleKey(ctx context.Context, dir string, m module) (string, error) {
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	gosum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", err
	}
	sources, err := sourcesOf(dir)
	if err != nil {
		return "", err
	}
	goEnv, err := run(ctx, dir, "go", "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", err
	}
	return hash(strings.Join([]string{string(gomod), string(gosum), goEnv,
		strings.Join(m.packages, " "), ldflags(m), m.from, strings.Join(m.files, " ") + sources}, "\x00")), nil
}

// sourcesOf returns the Go files of a module that has any of its own.
func sourcesOf(dir string) (string, error) {
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		data, err := os.ReadFile(path)
		all.Write(data)
		return err
	})
	return all.String(), err
}

func ldflags(m module) string {
	return strings.Join(append([]string{"-s", "-w"}, m.ldflags...), " ")
}

func buildModule(ctx context.Context, dir string, m module, out string) error {
	if len(m.packages) > 0 {
		if err := buildPackages(ctx, dir, m, out); err != nil {
			return err
		}
	}
	if m.from == "" {
		return nil
	}
	source, err := moduleDir(ctx, dir, m.from)
	if err != nil {
		return err
	}
	return copyAll(source, out, m.files)
}

func buildPackages(ctx context.Context, dir string, m module, out string) error {
	args := []string{"build", "-trimpath", "-ldflags", ldflags(m), "-o", out + string(filepath.Separator)}
	if len(m.packages) == 1 {
		// A package at a module's root would be named after its folder, "v3" or "server".
		args[len(args)-1] = filepath.Join(out, filepath.Base(dir))
	}
	_, err := run(ctx, dir, "go", append(args, m.packages...)...)
	return err
}

// moduleDir returns the folder of a module that the module in dir requires.
func moduleDir(ctx context.Context, dir, path string) (string, error) {
	if _, err := run(ctx, dir, "go", "mod", "download", path); err != nil {
		return "", err
	}
	source, err := run(ctx, dir, "go", "list", "-m", "-f", "{{.Dir}}", path)
	return strings.TrimSpace(source), err
}

// crdModules are the product's own modules whose CRDs every cluster gets.
var crdModules = []struct{ path, crds, name string }{
	{"sigs.k8s.io/gateway-api", "config/crd/standard", "gateway-api"},
	{"sigs.k8s.io/mcs-api", "config/crd", "mcs-api"},
}

func crdBuilder(root string) builder {
	return builder{
		about: "copying the CRDs of the Gateway API and of MCS",
		key: func(ctx context.Context) (string, error) {
			args := []string{"list", "-m"}
			for _, m := range crdModules {
				args = append(args, m.path)
			}
			versions, err := run(ctx, root, "go", args...)
			return hash(versions), err
		},
		build: func(ctx context.Context, out string) error {
			for _, m := range crdModules {
				source, err := moduleDir(ctx, root, m.path)
				if err != nil {
					return err
				}
				if err := copyYAML(filepath.Join(source, filepath.FromSlash(m.crds)), filepath.Join(out, m.name)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func copyYAML(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no CRDs in %s", from)
	}
	for _, f := range files {
		if err := copyFile(f, filepath.Join(to, filepath.Base(f))); err != nil {
			return err
		}
	}
	return nil
}

// copyAll copies files and folders, by their paths below from, to the same paths below to.
func copyAll(from, to string, names []string) error {
	for _, name := range names {
		top := filepath.Join(from, filepath.FromSlash(name))
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			return copyFile(path, filepath.Join(to, rel))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644) // public files
}

// run executes a program and returns its output; what it said on both is in the error.
func run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	// A workspace file or flags of the caller's must not change what is built here.
	cmd.Env = append(slices.Clone(os.Environ()), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s (in %s): %w\n%s", program, strings.Join(args, " "), dir, err, tail(stderr.String(), 40))
	}
	return stdout.String(), nil
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func requireGo() error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the program `go` is missing: install Go 1.26 or newer (https://go.dev/dl, or `apt-get install golang-go` where that is new enough)")
	}
	return nil
}
