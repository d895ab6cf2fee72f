# Every target sets up what it needs: `setup` makes .venv from requirements.lock and does nothing where that stands.
# PYTHON=/path/to/python3.11 names the Python to use; without it the first CPython 3.11 or 3.12 on the PATH is taken.

bin := .venv/bin

# Feast takes four seconds to import, and two more in every process if nothing may be kept compiled.
unexport PYTHONDONTWRITEBYTECODE
# A module of the project must never be shadowed by what the caller's shell points at.
unexport PYTHONPATH PYTHONHOME

# Tests wait for Redis and for servers more than they compute, so two processes suit two cores. Each takes whole files,
# whose tests share what takes seconds to make. TESTERS=0 runs all in one process, for a debugger.
TESTERS ?= 2
at_once := --numprocesses $(TESTERS) --dist loadfile

.PHONY: help setup demo serve test test-all feast-suite bench bench-offline bench-online bench-materialize bench-beside bench-windows bench-monitor check static lint types imports format lock
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: ## make .venv, or bring it up to date
	@tools/setup

demo: setup ## the whole job on real flights: train, materialize, serve, compare
	@$(bin)/larder demo

serve: setup ## a server on 127.0.0.1:6566 with the demo's data, on the demo's clock, and the stream's worker
	@$(bin)/larder demo --prepare-only
	@export LARDER_CLOCK=replay; $(bin)/larder ingest --repo feature_repo & worker=$$!; \
		trap 'kill $$worker 2>/dev/null; wait $$worker' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP; \
		LARDER_CLOCK=replay $(bin)/larder serve --repo feature_repo

test: setup ## the tests, long ones left out
	$(bin)/python -m pytest -m "not long" $(at_once)

test-all: setup ## the tests, long ones too
	$(bin)/python -m pytest $(at_once)

feast-suite: setup ## Feast's own tests, offline and online, with Feast's stores and with ours (needs access to github.com)
	$(bin)/python tools/feast_suite $(ARGS)

bench: bench-offline bench-online bench-materialize bench-beside bench-windows bench-monitor ## every benchmark, each beside its peers

bench-offline: setup ## training sets beside Feast's store, Polars and hand-written SQL: 11 GB of files, an hour at most
	$(bin)/python -m bench.offline $(ARGS)

bench-online: setup ## lookups beside Feast's server, a bare FastAPI app and plain Redis commands: six minutes
	$(bin)/python -m bench.online $(ARGS)

bench-materialize: setup ## materializations beside Feast's and beside plain commands: 6 GB of files, ten minutes
	$(bin)/python -m bench.materialize $(ARGS)

bench-beside: setup ## lookups beside training sets over HTTP and a materialization: what these cost those
	$(bin)/python -m bench.beside $(ARGS)

bench-windows: setup ## windowed features beside window frames written by hand: half an hour
	$(bin)/python -m bench.windows $(ARGS)

bench-monitor: setup ## profiles beside one SELECT and beside Feast's, pages, lookups that are watched: half an hour
	$(bin)/python -m bench.monitor $(ARGS)

check: static test ## all that CI runs: lint, types, import rules, tests

static: lint types imports ## lint, types and import rules, without the tests

lint: setup ## ruff: rules and formatting
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types: setup ## mypy, strict
	$(bin)/mypy

imports: setup ## who may import whom
	$(bin)/lint-imports

format: setup ## rewrite the files as `make lint` wants them, where that is safe
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

lock: setup ## write requirements.lock anew from pyproject.toml
	$(bin)/uv pip compile --quiet --no-config --universal --python-version 3.11 --all-extras \
		--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml
