// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"isthmus.dev/isthmus/test/lab/rootless"
	"isthmus.dev/isthmus/test/labtest"
)

// TestALabWithoutRoot starts a second lab beside the shared one, as a user without any rights, and ends it again.
func TestALabWithoutRoot(t *testing.T) {
	folder := t.TempDir()
	dir := filepath.Join(folder, "lab")
	t.Cleanup(func() {
		if h, err := rootless.Find(dir); err == nil && h != nil {
			require.NoError(t, h.End(dir))
			t.Error("the lab was still there")
		}
	})
	require.NoError(t, os.Chmod(filepath.Dir(folder), 0o755)) // the user has to pass
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "testdata/as-user.sh", folder, "bash", "-euxc", `
		lab() { "$0" --dir "$1" "${@:2}"; }
		lab "$1" up --no-mesh --no-hub --members eks
		lab "$1" status
		lab "$1" exec -- kubectl --context eks -n sample exec deploy/helloworld -- cat /proc/self/uid_map
		lab "$1" exec -- kubectl --context eks -n sample logs deploy/helloworld
		lab "$1" down`, filepath.Join(labtest.Lab.Dir, "bin", "isthmus-lab"), dir)
	said, err := cmd.CombinedOutput()
	t.Logf("%s", said)
	if err != nil && strings.Contains(string(said), "the lab without root needs") {
		t.Skip("this machine has no user namespaces for users, see above")
	}
	require.NoError(t, err)
	require.Contains(t, string(said), "This lab runs without root:")
	require.Contains(t, strings.Join(strings.Fields(string(said)), " "), " 0 54321 1 ", "a pod is in the user's namespace")
	require.Contains(t, string(said), "helloworld listens on")
	require.False(t, rootless.Left(dir))
	require.NoDirExists(t, filepath.Join(dir, "run"))
}
