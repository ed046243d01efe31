# The door for people. `make demo` runs the main job for real; `make test` passes every test. Both install
# what they need (Debian, as root) or say what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test build setup-demo setup-test fmt lint doc deny proto-lint unit e2e fuzz bench load chaos clean

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools/bin
ARGS ?=
DURATION ?= 30
export PATH := $(TOOLS):$(PATH)

help: ## What there is
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup-demo:
	@tests/tools/setup.sh demo

setup-test:
	@tests/tools/setup.sh test

build: ## The programs, for development
	$(CARGO) build --workspace --bins

demo: setup-demo build ## A fleet on this machine, for real (ARGS=--once: check and end)
	@$(CARGO) run --quiet -p fleet-tests --bin fleet-demo -- $(ARGS)

# Each part is timed, so that the slow one is known by name.
test: setup-test ## fmt, clippy, docs, deny, buf lint, every test
	@total=$$SECONDS; \
	part() { local name=$$1; shift; local from=$$SECONDS; echo "== $$name"; "$$@"; echo "== $$name: $$((SECONDS - from)) s"; }; \
	part fmt $(MAKE) --no-print-directory fmt; \
	part deny $(MAKE) --no-print-directory deny; \
	part proto-lint $(MAKE) --no-print-directory proto-lint; \
	part lint $(MAKE) --no-print-directory lint; \
	part doc $(MAKE) --no-print-directory doc; \
	part build $(MAKE) --no-print-directory build; \
	part tests $(MAKE) --no-print-directory unit; \
	echo "== all: $$((SECONDS - total)) s"

fmt: ## Is everything formatted?
	$(CARGO) fmt --all --check

lint: ## clippy, warnings are errors
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) clippy -p rsync --no-default-features --quiet -- -D warnings

doc: ## API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

deny: ## Licences, sources, versions that must be one
	cargo-deny --log-level error check bans licenses sources

proto-lint: ## The wire contract by buf's rules
	cd proto && buf lint

unit: build ## All tests, end to end included (T=NAME: only those)
	cargo-nextest nextest run --workspace --profile $(if $(CI),ci,default) $(T)
	$(CARGO) test --workspace --doc --quiet

e2e: build ## The end-to-end tests alone (T=NAME: only those)
	cargo-nextest nextest run -p fleet-tests $(T)

fuzz: ## libFuzzer, each target for DURATION seconds (T=NAME: only that one)
	@fuzz/run.sh $(DURATION) $(T)

bench: ## criterion: the engine and the store, each beside its floor
	$(CARGO) bench -p fleet -p mirror-coordinator

load: ## Real processes, real TLS: latencies and memory beside their floors (ARGS="--quick trigger": a look at one part)
	$(CARGO) build --workspace --bins --release
	@"$${CARGO_TARGET_DIR:-target}"/release/fleet-load $(ARGS)

# DURATION is in seconds, for the fleet under faults and for the torture of the store each; the kills come on top.
chaos: build ## A fleet under seeded faults, 300 kill -9, the store tortured (DURATION=60 SEED=n)
	$(CARGO) run --quiet -p fleet-tests --bin fleet-chaos -- --duration $(or $(DURATION),60) $(if $(SEED),--seed $(SEED))
	STORE_KILL_ROUNDS=300 TORTURE_SECONDS=$(or $(DURATION),60) $(if $(SEED),TORTURE_SEED=$(SEED)) \
	  $(CARGO) test --quiet -p mirror-coordinator --test store_crash --test store_torture --test store_power -- --nocapture
	KILL_ROUNDS=300 $(CARGO) test --quiet -p fleet-tests --test it -- --nocapture no_acknowledged_write_is_lost

clean: ## Everything built
	$(CARGO) clean
