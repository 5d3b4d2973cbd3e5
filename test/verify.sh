#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks that what commands write is as they would write it now, without changing the checkout: generated code and
# CRDs, golden files, go.mod, formatting. `make verify` calls it. Usage: verify.sh GO CONTROLLER_GEN
set -u
go=$1 controller_gen=$2
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

# complain WHAT COMMAND: the check failed, and what puts it right.
complain() {
	echo "verify: $1: run \`$2\` and commit the result" >&2
	failed=1
}

generated() {
	"$controller_gen" object:headerFile=config/boilerplate.go.txt crd:maxDescLen=512 paths=./api/... \
		output:crd:dir="$tmp/crd" output:object:dir="$tmp/object" || return 1
	diff -u api/v1alpha1/zz_generated.deepcopy.go "$tmp/object/zz_generated.deepcopy.go" || return 1
	for file in config/crd/isthmus.dev_*.yaml "$tmp"/crd/*.yaml; do
		diff -u "config/crd/$(basename "$file")" "$tmp/crd/$(basename "$file")" || return 1
		grep -q -- "- $(basename "$file")" config/crd/kustomization.yaml || {
			echo "config/crd/kustomization.yaml does not list $(basename "$file")"
			return 1
		}
	done
}

formatted() {
	local files
	files=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls 2>/dev/null | xargs gofmt -l)
	[ -z "$files" ] || { echo "$files"; return 1; }
}

generated || complain "the generated files differ from api/" "make generate"
formatted || complain "these files are not formatted" "make fmt"
"$go" mod tidy -diff || complain "go.mod or go.sum differs from what the sources import" "go mod tidy"
# The same schedules each time, as in the unit suite: what is red here is about golden files.
RAPID_SEED=${RAPID_SEED:-1} "$go" test -timeout 5m ./federation/... >"$tmp/golden" 2>&1 || {
	cat "$tmp/golden"
	complain "the core's tests fail; where only golden files differ and the difference is meant" "make golden"
}
[ "$failed" = 0 ] && echo "verify: all as generated"
exit "$failed"
