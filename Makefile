# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists what there is. Whatever is built once is kept outside the checkout, keyed by its pins:
# $ISTHMUS_CACHE, else $XDG_CACHE_HOME/isthmus, else ~/.cache/isthmus.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
IMG ?= isthmus-hub:dev
KUBECTL ?= $(shell command -v kubectl || echo $(CURDIR)/bin/kubectl)
FUZZTIME ?= 30s
# The tests' schedules are the same each time, so that a red test is about the change; make fuzz draws new ones.
RAPID_SEED ?= 1
RAPID_CHECKS ?= 20000
SUITES ?= unit apiserver node e2e
RESULTS ?= bin/results
VERBOSE ?=

CACHE := $(or $(ISTHMUS_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/isthmus,$(HOME)/.cache/isthmus))

# A development tool is a module of its own below test/tools. It is built into the cache under the hash of its pins.
tool_key = $(shell { cat test/tools/$(1)/go.mod test/tools/$(1)/go.sum; $(GO) env GOVERSION GOARCH; } 2>/dev/null | sha256sum | cut -c1-16)
CONTROLLER_GEN = $(CACHE)/tools/controller-gen-$(call tool_key,controller-gen)/controller-gen
GOLANGCI_LINT = $(CACHE)/tools/golangci-lint-$(call tool_key,golangci-lint)/golangci-lint
# build_tool NAME FILE: into a temporary folder, renamed when complete, so that an interrupted build leaves nothing half.
build_tool = if [ ! -x $(2) ]; then \
	  echo "$(1): building it, once"; \
	  tmp=$$(mkdir -p $(CACHE)/tools && mktemp -d $(CACHE)/tools/.$(1)-XXXXXX); trap "rm -rf $$tmp" EXIT; \
	  (cd test/tools/$(1) && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $$tmp/ tool); \
	  mkdir -p $(dir $(2)) && mv -f $$tmp/$(1) $(2); \
	fi

# The race detector needs a C compiler, which nothing else here does.
RACE := $(if $(shell command -v gcc || command -v clang),-race)

REPORT := bin/report
SUITE = $(REPORT) run $(if $(VERBOSE),-v) -results $(RESULTS)

-include test/lab/lab.mk

##@ Everyday

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][-a-z0-9]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: need-go ## Build bin/isthmus-hub, bin/isthmus and bin/isthmus-lab.
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

##@ Tests

.PHONY: test
test: need-go $(REPORT) ## Run every suite (SUITES="unit apiserver node e2e") and count them; node and e2e need root.
	@rm -f $(RESULTS); mkdir -p bin; failed=0; \
	for suite in $(SUITES); do \
	  $(MAKE) test-$$suite && continue; failed=1; \
	  grep -qs "\"name\":\"$$suite\"" $(RESULTS) || echo "{\"name\":\"$$suite\",\"failed\":1}" >>$(RESULTS); \
	done; \
	$(REPORT) total $(RESULTS) && exit $$failed

.PHONY: test-unit
test-unit: need-go $(REPORT) ## Unit, golden and property tests: seconds, no root, no network.
	@RAPID_SEED=$(RAPID_SEED) $(SUITE) unit -- $(GO) test -json -timeout 5m ./...

.PHONY: test-apiserver
test-apiserver: need-go $(REPORT) ## The controllers against real API servers, with the race detector.
	@$(if $(RACE),,echo "without the race detector, which needs a C compiler: apt-get install gcc libc6-dev";) \
	assets=$${KUBEBUILDER_ASSETS:-$$($(GO) run ./cmd/isthmus-lab tools --envtest)}; \
	KUBEBUILDER_ASSETS=$$assets $(SUITE) apiserver -- $(GO) test -json $(RACE) -count=1 -p 2 -timeout 25m -tags apiserver ./cmd/isthmus ./config/... ./controllers/... ./test/apiserver/...

.PHONY: test-node
test-node: need-go need-root $(REPORT) ## The lab's node agent with real pods. Needs root.
	@assets=$${KUBEBUILDER_ASSETS:-$$($(GO) run ./cmd/isthmus-lab tools --envtest)}; \
	KUBEBUILDER_ASSETS=$$assets $(SUITE) node -- $(GO) test -json -count=1 -timeout 10m -run '^TestNode$$' ./test/lab/node

.PHONY: test-e2e
test-e2e: need-go need-root tools $(REPORT) ## The whole story in the lab, with real requests counted. Needs root.
	@$(SUITE) $(if $(VERBOSE),,-v) e2e -- $(GO) test -json -count=1 -timeout 40m -tags e2e ./test/e2e/...

.PHONY: test-argo
test-argo: need-go need-root tools $(REPORT) ## A stock Argo Rollouts controller drives the lab's hub. Needs root; builds the controller, once.
	@$(SUITE) $(if $(VERBOSE),,-v) argo -- $(GO) test -json -count=1 -timeout 60m -tags argo ./test/argotest/...

.PHONY: test-verify
test-verify: $(REPORT)
	@$(SUITE) -plain verify -- $(MAKE) verify

.PHONY: test-lint
test-lint: $(REPORT)
	@$(SUITE) -plain lint -- $(MAKE) lint

.PHONY: golden
golden: need-go ## Rewrite the golden files of the core, the command and the tour; look at the difference before you commit it.
	$(GO) test ./federation/... ./cmd/isthmus ./test/lab/tour -update
	@git --no-pager diff --stat -- federation cmd/isthmus test/lab/tour

.PHONY: fuzz
fuzz: need-go ## Search at random: RAPID_CHECKS schedules a property, and each fuzz test for FUZZTIME (30s).
	RAPID_SEED=0 RAPID_CHECKS=$(RAPID_CHECKS) $(GO) test -count=1 -timeout 60m ./federation/...
	@for pkg in $$($(GO) list ./federation/... ./controllers/...); do \
	  for name in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

.PHONY: chaos
chaos: need-go need-root tools ## Break things in the lab under load, account for every request, and write docs/reference/failover.md's table.
	$(GO) test -count=1 -v -timeout 40m -tags chaos -run '^TestChaos$$' ./test/chaos -args -page=$(CURDIR)/docs/reference/failover.md

.PHONY: bench
bench: need-go need-root tools ## Time from a policy or endpoint change to the written weight and the switched traffic.
	$(GO) test -run '^$$' -bench . -benchmem ./federation/...
	$(GO) test -count=1 -v -timeout 40m -tags bench ./test/bench/...

##@ Code

.PHONY: generate
generate: need-go controller-gen ## Write deepcopy functions and CRDs from api/.
	$(CONTROLLER_GEN) object:headerFile=config/boilerplate.go.txt crd:maxDescLen=512 paths=./api/... output:crd:dir=config/crd

.PHONY: lint
lint: need-go golangci-lint ## golangci-lint, pinned, with the rules that keep the core pure.
	$(GOLANGCI_LINT) run ./...

.PHONY: fmt
fmt: need-go golangci-lint ## Format the sources the way that lint wants them.
	$(GOLANGCI_LINT) fmt ./...

.PHONY: verify
verify: need-go need-git controller-gen ## Check that what is generated, go.mod and the formatting are as their commands write them.
	@bash test/verify.sh $(GO) $(CONTROLLER_GEN)

.PHONY: controller-gen
controller-gen: need-go
	@$(call build_tool,controller-gen,$(CONTROLLER_GEN))

.PHONY: golangci-lint
golangci-lint: need-go
	@$(call build_tool,golangci-lint,$(GOLANGCI_LINT))

$(REPORT): $(wildcard test/report/*.go) | need-go
	@mkdir -p bin; $(GO) build -o $@ ./test/report

##@ Real clusters

.PHONY: install
install: need-kubectl need-kubeconfig ## Put Isthmus on the hub: make install KUBECONFIG=hub.yaml [IMG=…].
	@for crd in gatewayclasses.gateway.networking.k8s.io httproutes.gateway.networking.k8s.io serviceimports.multicluster.x-k8s.io; do \
	  $(KUBECTL) get crd $$crd >/dev/null || { \
	    echo "the cluster lacks $$crd: install the upstream CRDs first (make install-crds KUBECONFIG=$(KUBECONFIG))" >&2; exit 1; }; \
	done
	$(KUBECTL) kustomize config/default | sed 's|image: isthmus-hub:dev|image: $(IMG)|' | $(KUBECTL) apply --server-side -f -

.PHONY: uninstall
uninstall: need-kubectl need-kubeconfig ## Take Isthmus off the hub, with its kinds, once its MemberClusters are deleted.
	@left=$$($(KUBECTL) get memberclusters -o name 2>/dev/null || true); \
	if [ -n "$$left" ]; then \
	  echo "these still hold objects in the members:" $$left >&2; \
	  echo "delete the MemberClusters first, while the controller is there to clean up" >&2; exit 1; \
	fi
	$(KUBECTL) delete --ignore-not-found -k config/default

.PHONY: install-crds
install-crds: need-go need-kubectl need-kubeconfig ## Put the pinned upstream CRDs (Gateway API, MCS) on a cluster that lacks them.
	@$(GO) mod download sigs.k8s.io/gateway-api sigs.k8s.io/mcs-api
	$(KUBECTL) apply --server-side -f $$($(GO) list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard
	for crd in serviceexports serviceimports; do \
	  $(KUBECTL) apply --server-side -f $$($(GO) list -m -f '{{.Dir}}' sigs.k8s.io/mcs-api)/config/crd/multicluster.x-k8s.io_$$crd.yaml; \
	done

.PHONY: install-member
install-member: need-kubectl need-kubeconfig ## Give the hub its identity and rights in a member: make install-member KUBECONFIG=eks.yaml.
	$(KUBECTL) apply --server-side -k config/member

.PHONY: image
image: ## Build the controller's image: make image IMG=registry.example.com/isthmus-hub:v0.1.0.
	@command -v docker >/dev/null || { echo "docker is missing: https://docs.docker.com/engine/install, or build the Dockerfile with another builder (podman build -t $(IMG) .)" >&2; exit 1; }
	docker build -t $(IMG) .

# What is missing is named with the command that installs it.
.PHONY: need-go need-git need-root need-kubectl need-kubeconfig
need-go:
	@command -v $(GO) >/dev/null || { echo "go is missing: Go 1.26 or newer, https://go.dev/doc/install (tar -C /usr/local -xzf go1.26.*.tar.gz; export PATH=\$$PATH:/usr/local/go/bin)" >&2; exit 1; }
need-git:
	@command -v git >/dev/null || { echo "git is missing: apt-get install git" >&2; exit 1; }
need-root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root, for network namespaces and pods: sudo -E env PATH=\$$PATH make $(MAKECMDGOALS)" >&2; exit 1; }
need-kubectl:
	@command -v $(KUBECTL) >/dev/null || { echo "kubectl is missing: https://kubernetes.io/docs/tasks/tools, or build the pinned one into bin/ (make kubectl)" >&2; exit 1; }
need-kubeconfig:
	@[ -n "$(KUBECONFIG)" ] && [ -r "$(KUBECONFIG)" ] || { echo "say which cluster: make $(MAKECMDGOALS) KUBECONFIG=<file>" >&2; exit 1; }

.PHONY: kubectl
kubectl: need-go
	@mkdir -p bin; ln -sf "$$($(GO) run ./cmd/isthmus-lab tools --envtest)/kubectl" bin/kubectl
