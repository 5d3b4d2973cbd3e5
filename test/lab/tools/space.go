// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RequireSpace says what to do where a folder's file system has less than so many bytes free. The folder need not be there yet.
func RequireSpace(dir string, bytes uint64, what string) error {
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", at, err)
	}
	free := fs.Bavail * uint64(fs.Bsize) // #nosec G115 -- a block's size is positive
	if free >= bytes {
		return nil
	}
	return fmt.Errorf("%s has %.1f GB free, and %s needs about %.1f GB: make room there, or choose another disk", dir, gigabytes(free), what, gigabytes(bytes))
}

func gigabytes(bytes uint64) float64 { return float64(bytes) / 1e9 }
