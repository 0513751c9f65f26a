# make check    what CI runs; a share alone: make lint, make test, ...
# make demo     the main job end to end, in demo/out
# make fix      apply the mechanical fixes
# Every share prints its time. What a machine cannot run prints a line that begins
# with NOT RUN:, and check counts these.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

export GOTOOLCHAIN = local
export GOFLAGS    ?= -buildvcs=false

# stringsbuilder turns three short += into worse code.
FIX        = go fix -stringsbuilder=false
TOOL       = go tool -modfile=$(CURDIR)/deploy/tools.mod
# Tests whose names end in Nightly run for long with "make nightly" and nowhere else.
NIGHTLY    = Nightly$$
COVER_MIN  = 95.0
COVERED    = log witness lineage rules evidence authz
FUZZTIME   = 30s
FUZZ_SMOKE = 120
PLATFORMS  = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# Data that is too large to keep here; what needs it is not run without.
PIPEROLL_DATA ?= ../shared/data
VULNDB        ?= $(PIPEROLL_DATA)/vulndb.tgz

# This module, and those inside it: nobody else inherits what they import.
MODULES = $(dir $(wildcard go.mod */go.mod */*/go.mod */*/*/go.mod))

# In the order that fails fastest. results-check comes before test, which writes the file that it reads.
CHECK  = fmt lint build results-check test cover race vuln python release-check fuzz-smoke demo-smoke
SHARES = $(CHECK) demo bench fuzz nightly nightly-tests results-close verifier-release

.PHONY: check fix deps $(SHARES) $(SHARES:%=do-%)

# All shares run even if one fails: one round tells everything that is wrong.
check:
	@mkdir -p bin; : >bin/check.log; failed=; start=$$SECONDS; \
	for share in $(CHECK); do \
		$(MAKE) $$share MEASURED=1 2>&1 | tee -a bin/check.log || failed="$$failed $$share"; \
	done; \
	echo; grep -E '^(== [a-z-]+: (ok|FAILED), |NOT RUN:)' bin/check.log; \
	echo "check: $$((SECONDS - start)) s, $$(grep -c '^NOT RUN:' bin/check.log || true) NOT RUN"; \
	if [ -n "$$failed" ]; then echo "check FAILED:$$failed"; exit 1; fi

$(SHARES):
	@start=$$SECONDS; state=ok; $(MAKE) do-$@ || state=FAILED; \
	echo "== $@: $$state, $$((SECONDS - start)) s"; [ $$state = ok ]

do-fmt:
	@bad=; \
	test -z "$$($(TOOL) gofumpt -l . | tee /dev/stderr)" || bad="$$bad gofumpt"; \
	go mod tidy -diff || bad="$$bad tidy"; \
	for module in $(MODULES); do \
		cd $(CURDIR)/$$module; $(FIX) -diff ./... || bad="$$bad fix:$$module"; \
	done; \
	if [ -n "$$bad" ]; then echo "not clean:$$bad; try make fix"; exit 1; fi

do-lint:
	@bad=; \
	for module in $(MODULES); do \
		cd $(CURDIR)/$$module; \
		go vet ./... || bad="$$bad vet:$$module"; \
		$(TOOL) staticcheck -checks all ./... || bad="$$bad staticcheck:$$module"; \
		$(TOOL) errcheck ./... || bad="$$bad errcheck:$$module"; \
		$(TOOL) nilness ./... || bad="$$bad nilness:$$module"; \
		test -z "$$($(TOOL) deadcode -test ./... | tee /dev/stderr)" || bad="$$bad deadcode:$$module"; \
	done; \
	if [ -n "$$bad" ]; then echo "not clean:$$bad"; exit 1; fi

do-build: bin
	go build ./...
	for command in cmd/*/; do \
		if [ -f $$command/main.go ]; then go build -trimpath -o bin/ ./$$command; fi; \
	done

# One run serves the tests of all modules, their results, and the coverage of this one.
do-test: bin bin/results
	rm -f bin/cover.out
	bin/results test -out pytest_results.json -profile bin/cover.out -- \
		go test -json -count=1 -skip '$(NIGHTLY)' -timeout 20m ./...

do-cover: bin/results
	@[ -n "$(MEASURED)" ] || $(MAKE) test
	bin/results cover -profile bin/cover.out -min $(COVER_MIN) -exclusions deploy/coverage-exclusions.txt $(COVERED)

# The committed file counts, not the one that make test has just written here.
# results-close also fails if Go code has changed since the commit that it names.
do-results-close: CLOSE = -close
do-results-check do-results-close: bin bin/results
	@if git rev-parse -q --verify HEAD >/dev/null 2>&1; then \
		rm -f bin/committed.json; \
		git show HEAD:pytest_results.json >bin/committed.json 2>/dev/null || rm -f bin/committed.json; \
	else \
		cp pytest_results.json bin/committed.json; \
	fi
	bin/results check $(CLOSE) -file bin/committed.json -- go test -json -vet=off -list . ./...

# The flips of every byte and the kills of a process have nothing to race with; they run in test.
do-race:
	go test -race -short -count=1 -skip '$(NIGHTLY)|^TestEveryByteMatters$$|^TestNothingAcknowledgedIsLostByKill9$$' -timeout 30m ./...

do-vuln: bin
	@if [ -f $(VULNDB) ]; then \
		rm -rf bin/vulndb; mkdir bin/vulndb; tar -xzf $(VULNDB) -C bin/vulndb; \
		$(TOOL) govulncheck -db=file://$(CURDIR)/bin/vulndb/db ./...; \
	else \
		echo "NOT RUN: vuln: no database in $(VULNDB)"; \
	fi

do-fuzz-smoke:
	@deploy/fuzz.sh -total $(FUZZ_SMOKE)

do-fuzz:
	@deploy/fuzz.sh -each $(FUZZTIME)

# unittest before Python 3.12 is content with no test at all.
do-python: bin
	@for dir in docs/second-verifier deploy/results/python; do \
		if [ -d $$dir ]; then \
			(cd $$dir && python3 -B -m unittest discover -p '*test*.py') 2>&1 | tee bin/python.log; \
			if grep -q '^Ran 0 tests' bin/python.log; then echo "$$dir has no tests"; exit 1; fi; \
		else \
			echo "NOT RUN: python: no $$dir yet"; \
		fi; \
	done

do-verifier-release:
	@if [ -f cmd/verifier/main.go ]; then \
		deploy/release.sh release $(PLATFORMS); \
	else \
		echo "NOT RUN: verifier-release: no cmd/verifier yet"; \
	fi

# One platform here; verifier-release compares all of them.
do-release-check: bin
	@if [ -f cmd/verifier/main.go ]; then \
		deploy/release.sh bin/release linux/amd64; \
	else \
		echo "NOT RUN: release-check: no cmd/verifier yet"; \
	fi

do-demo:
	@demo/run.sh

# What README.md tells a newcomer to type has to work as it stands there, with the commands that the demo built.
do-demo-smoke:
	@$(MAKE) demo
	@demo/readme.sh

# On the disk of this folder: that of temporary files may be memory. BENCH=-strict fails when a goal is missed.
do-bench: bin
	go build -o bin/ ./cmd/bench
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...
	bin/bench -dir bin $(BENCH)

do-nightly: FUZZTIME = 5m
do-nightly:
	@bad=; $(MAKE) nightly-tests || bad=1; $(MAKE) fuzz FUZZTIME=$(FUZZTIME) || bad=1; [ -z "$$bad" ]

do-nightly-tests:
	@bad=; for module in $(MODULES); do \
		cd $(CURDIR)/$$module; go test -count=1 -run '$(NIGHTLY)' -timeout 6h -v ./... || bad=1; \
	done; [ -z "$$bad" ]

fix:
	$(TOOL) gofumpt -w .
	for module in $(MODULES); do (cd $$module && $(FIX) ./...); done
	go mod tidy

# Debian packages by the command that shows they are missing.
deps:
	@missing=; for pair in python3:python3 openssl:openssl git:git gcc:gcc curl:curl; do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "missing:$$missing; install with: sudo make deps"; exit 1; fi; \
	apt-get update -q && apt-get install -q -y --no-install-recommends $$missing libc6-dev

bin:
	@mkdir -p bin

bin/results: $(wildcard deploy/results/*.go) | bin
	go build -o bin/results ./deploy/results
