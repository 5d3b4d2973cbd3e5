// SPDX-License-Identifier: Apache-2.0

// Package docs is prose; its test keeps the prose true where it can be compared with the code.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/federation"
)

func TestEveryConditionAndReasonIsExplained(t *testing.T) {
	page := read(t, "reference/conditions.md")
	file, err := parser.ParseFile(token.NewFileSet(), "../api/v1alpha1/conditions.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			require.True(t, strings.Contains(page, "`"+value+"`"), "docs/reference/conditions.md says nothing of %s", value)
		}
		return true
	})
}

func TestEveryMetricIsExplained(t *testing.T) {
	page := read(t, "reference/metrics.md")
	name := regexp.MustCompile(`Name:\s+"(isthmus_[a-z_]+)"`)
	inCode := map[string]bool{}
	walk(t, "../controllers", ".go", func(file string) {
		for _, match := range name.FindAllStringSubmatch(read(t, file), -1) {
			inCode[match[1]] = true
			require.True(t, strings.Contains(page, "`"+match[1]+"`"), "docs/reference/metrics.md says nothing of %s", match[1])
		}
	})
	for _, match := range regexp.MustCompile("(?m)^\\| `(isthmus_[a-z_]+)`").FindAllStringSubmatch(page, -1) {
		require.True(t, inCode[match[1]], "docs/reference/metrics.md explains %s, which no code has", match[1])
	}
}

func TestAlertRulesAreAboutMetricsThatExistAndAreExplained(t *testing.T) {
	metrics, page := read(t, "reference/metrics.md"), read(t, "reference/alerts.md")
	var file struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Annotations map[string]string
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "../config/prometheus/rules.yaml")), &file))
	rules := file.Spec.Groups[0].Rules
	require.NotEmpty(t, rules)
	for _, rule := range rules {
		row := "| `" + rule.Alert + "` |"
		require.True(t, strings.Contains(page, row), "docs/reference/alerts.md says nothing of %s", rule.Alert)
		page = strings.Replace(page, row, "", 1)
		names := regexp.MustCompile(`isthmus_[a-z_]+`).FindAllString(rule.Expr, -1)
		require.NotEmpty(t, names, rule.Alert)
		for _, name := range names {
			require.True(t, strings.Contains(metrics, "| `"+name+"` |"), "%s is about %s, which no code has", rule.Alert, name)
		}
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		require.FileExists(t, existing(filepath.Join("..", rule.Annotations["runbook"])), rule.Alert)
	}
	require.NotContains(t, page, "| `Isthmus", "explained, and no rule")
}

func TestEveryAlertIsExplained(t *testing.T) {
	page := read(t, "reference/alerts.md")
	for reason, severity := range federation.AlertReasons {
		row := regexp.MustCompile("(?m)^\\| [^|]*`" + reason + "`[^|]*\\| [^|]*" + severity)
		require.True(t, row.MatchString(page), "docs/reference/alerts.md says nothing of %s, %s", reason, severity)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	walk(t, "..", ".md", func(file string) {
		for _, match := range link.FindAllStringSubmatch(read(t, file), -1) {
			if !strings.Contains(match[1], "://") {
				require.FileExists(t, existing(filepath.Join(filepath.Dir(file), match[1])), "%s links to it", file)
			}
		}
	})
}

// existing stands a folder's link on any file in it.
func existing(path string) string {
	if files, err := filepath.Glob(filepath.Join(path, "*")); err == nil && len(files) > 0 {
		return files[0]
	}
	return path
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(data)
}

func walk(t *testing.T, root, suffix string, visit func(file string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..":
			return fs.SkipDir // .git, .lab
		case !entry.IsDir() && strings.HasSuffix(path, suffix):
			visit(path)
		}
		return nil
	}))
}
