# SPDX-License-Identifier: Apache-2.0
# The lab: real clusters on this machine, without containers. Included by the Makefile; alone:
#   make -f test/lab/lab.mk lab

LAB_COMMAND := bin/isthmus-lab
LAB_ARGS ?=

.PHONY: lab lab-down lab-status lab-cycles tools lab-command

lab-command:
	@command -v go >/dev/null || { echo "go is missing: install Go 1.26 or newer, https://go.dev/dl" >&2; exit 1; }
	@mkdir -p bin
	@go build -o $(LAB_COMMAND) ./cmd/isthmus-lab

lab: lab-command ## start a hub, eks and gke with Isthmus and the example (root; LAB_ARGS="--members eks,gke,…")
	@$(LAB_COMMAND) up $(LAB_ARGS)

lab-down: lab-command ## end the lab and leave nothing behind (root)
	@$(LAB_COMMAND) down

lab-status: lab-command ## what runs in the lab and what it costs (root)
	@$(LAB_COMMAND) status

lab-cycles: lab-command ## start, crash and end labs ten times, and compare the machine before and after (root; an hour)
	@go test -count=1 -v -timeout 3h -tags cycles -run 'TestUpAndDownLeaveNothing|TestAStartThatIsKilled' ./test/lab

tools: lab-command ## build what the lab and the tests run, into the cache
	@$(LAB_COMMAND) tools
