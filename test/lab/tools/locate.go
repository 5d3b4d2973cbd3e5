// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const productModule = "isthmus.dev/isthmus"

// Root returns the checkout of Isthmus that the current folder is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.Contains("\n"+string(data), "\nmodule "+productModule+"\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of Isthmus: the lab is built from its sources; change into the checkout", dir)
		}
	}
}

// CacheDir returns the folder of everything that is built once: $ISTHMUS_CACHE, else
// $XDG_CACHE_HOME/isthmus, else ~/.cache/isthmus.
func CacheDir() (string, error) {
	if dir := os.Getenv("ISTHMUS_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Abs(filepath.Join(dir, "isthmus"))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("no home folder for the cache: set ISTHMUS_CACHE to a folder that can be written")
	}
	return filepath.Join(home, ".cache", "isthmus"), nil
}

// hash shortens pins to a folder's name.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
