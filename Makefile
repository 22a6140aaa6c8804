# `make` lists what there is. Tools that tests and benches need are installed on demand by tests/tools/.

CARGO ?= cargo
SHELL := /bin/bash
MINUTES ?= 10

.DEFAULT_GOAL := help
.PHONY: help fmt fmt-check lint lint-shipped test soak bench run deb check-config clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

fmt: ## format the Rust code
	$(CARGO) fmt --all

fmt-check: ## fail when the Rust code is not formatted
	$(CARGO) fmt --all --check

lint: fmt-check lint-shipped ## formatting, image and compose files, clippy and rustdoc, all warnings denied
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --document-private-items --locked

lint-shipped: ## Dockerfile, compose files, load balancer, Prometheus, systemd unit
	@tests/tools/lint_shipped.sh

test: ## everything, on the real client, old server, S3 server, PostgreSQL and browser (the first run builds the S3 server: 10 minutes)
	@venv=$$(tests/tools/venv.sh --server) && garage=$$(tests/tools/garage.sh) && \
	postgres=$$(tests/tools/postgres.sh) && pgbouncer=$$(tests/tools/pgbouncer.sh) && \
	chromedriver=$$(tests/tools/chromium.sh) && export S3DEDUP_TEST_CHROMEDRIVER=$$chromedriver && \
	{ PATH=$$PATH:/usr/sbin:/sbin command -v ip && command -v curl || tests/tools/apt.sh iproute2 curl; } >/dev/null && \
	export S3DEDUP_TEST_VENV=$$venv S3DEDUP_TEST_GARAGE=$$garage && \
	export S3DEDUP_TEST_POSTGRES=$$postgres S3DEDUP_TEST_PGBOUNCER=$$pgbouncer && \
	$(CARGO) test --workspace --locked && \
	$(CARGO) test --locked --features failpoints --test crash -- --nocapture

soak: ## everything at once on all combinations of stores, with faults at random; MINUTES=10, SEED=7 for the same again
	@garage=$$(tests/tools/garage.sh) && postgres=$$(tests/tools/postgres.sh) && \
	seed=$(SEED); seed=$${seed:-$$RANDOM$$RANDOM}; echo "MINUTES=$(MINUTES) SEED=$$seed"; \
	S3DEDUP_TEST_GARAGE=$$garage S3DEDUP_TEST_POSTGRES=$$postgres \
	S3DEDUP_TEST_SEED=$$seed S3DEDUP_TEST_SECONDS=$$(( $(MINUTES) * 60 )) \
	$(CARGO) test --locked --test faults -- --nocapture everything_at_once

bench: ## our server beside the raw S3 server and the old server; ARGS="--quick" for three minutes, "--help" for more
	$(CARGO) build --release --locked
	@venv=$$(tests/tools/venv.sh --server) && garage=$$(tests/tools/garage.sh) && \
	{ command -v wrk && command -v curl || tests/tools/apt.sh wrk curl; } >/dev/null && \
	python3 benches/run.py --venv "$$venv" --garage "$$garage" $(ARGS)

run: ## build and serve on the embedded default: a folder and SQLite under ./data
	$(CARGO) run --release --locked -- server

deb: ## the Debian package, in target/debian (the first run builds cargo-deb, minutes)
	$(CARGO) build --release --locked
	@compose/packaging/deb.sh

check-config: ## print the effective configuration, and check every file in config/
	$(CARGO) run --release --quiet --locked -- check-config
	@for file in $(wildcard config/*); do \
		$(CARGO) run --release --quiet --locked -- check-config --config "$$file" >/dev/null || exit 1; echo "$$file is valid"; \
	done

clean: ## remove everything built, the test tools included
	$(CARGO) clean
