// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The package's page lists every file of it, and no other.
func TestThePageListsTheFiles(t *testing.T) {
	page, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var listed, there []string
	for _, line := range regexp.MustCompile(`(?m)^//\t([a-z_]+\.go) +\S`).FindAllStringSubmatch(string(page), -1) {
		listed = append(listed, line[1])
	}
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if name != "doc.go" && !strings.HasSuffix(name, "_test.go") {
			there = append(there, name)
		}
	}
	require.ElementsMatch(t, there, listed)
}
