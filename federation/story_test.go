// SPDX-License-Identifier: Apache-2.0

package federation_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files of the stories")

// TestStories plans each testdata/<story>/in.yaml and compares with out.yaml. The input is all that the plan
// depends on; the output is only the plan. `go test ./federation -update` rewrites the outputs.
func TestStories(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*/in.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		dir := filepath.Dir(input)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			in, err := os.ReadFile(input)
			require.NoError(t, err)
			got := readStory(t, in).tell(t)
			golden := filepath.Join(dir, "out.yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "run `go test ./federation -update` and look at what it wrote")
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the plan differs (-want +got); if it is right, run `go test ./federation -update`:\n%s", diff)
			}
		})
	}
}

// documents splits a multi-document YAML file.
func documents(in []byte) [][]byte {
	var docs [][]byte
	for _, doc := range bytes.Split(in, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) > 0 {
			docs = append(docs, doc)
		}
	}
	return docs
}

func decode(t *testing.T, doc []byte, into any) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalStrict(doc, into), "in\n%s", doc)
}
