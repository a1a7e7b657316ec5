# Every target works as the first command in a fresh clone with Python 3.11 or newer, git and make.
# `make PYTHON=/path/to/python` chooses the interpreter of a new .venv. `make -j` is safe.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PYTEST := $(BIN)/python -m pytest
LOCKS := $(wildcard requirements/*.txt)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(VENV)/.demo ## a pilot on real flights from its first day to the end of its year: about three minutes
	@$(BIN)/mainstay demo

.PHONY: up
up: $(VENV)/.demo ## the demo's pilot left serving, with a curl that works; Ctrl-C ends it
	@$(BIN)/mainstay demo --serve

# On all cores; tests of one file stay together, as they share what is made for them once.
BY_FILE = -n auto --dist loadfile --no-loadscope-reorder
IN_MEMORY = PYTEST_DEBUG_TEMPROOT="$$($(BIN)/python tests/scratch.py)"

.PHONY: test
test: $(VENV)/.dev ## every test: the fast ones first, then those that start real processes
	@echo "-- fast tests"
	@$(IN_MEMORY) $(PYTEST) -q -m "not acceptance" $(BY_FILE) -o tmp_path_retention_policy=failed
	@echo "-- acceptance tests: real processes"
	@$(PYTEST) -q -m "acceptance and not alone" $(BY_FILE)
	@echo "-- acceptance tests that hold answers to times"
	@$(PYTEST) -q -m "acceptance and alone"

.PHONY: bench
bench: $(VENV)/.dev ## the figures of bench/README.md, measured here; wants a quiet machine
	@for name in decisions steps ledger proofs kills attacks validation contracts new dirty open_tables intake intake_kills batch ood overload drift drift_errors streams canary shadow rollback monitor_pass; do echo "-- bench/$$name.py"; $(BIN)/python bench/$$name.py || exit 1; done

.PHONY: lint
lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/python -m mypy

.PHONY: docs
docs: $(VENV)/.dev ## are the documents true: links, commands, options, targets
	@$(PYTEST) -q tests/docs

.PHONY: format
format: $(VENV)/.dev ## let ruff rewrite the format and what it can fix
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

# A version must have been public for a week before it is taken: most poisoned packages are found within days.
.PHONY: peers
peers: $(VENV)/.dev ## Mainstay beside other model servers, each in an environment of its own; installs 2 GB
	@$(BIN)/python bench/peers.py --tuned

# Pins that still fit are kept; `make lock UPGRADE=--upgrade` looks for newer ones.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --python $(BIN)/python --generate-hashes \
	--no-annotate --exclude-newer "1 week" --custom-compile-command "make lock" $(UPGRADE)

.PHONY: lock
lock: $(VENV)/.uv ## pin every dependency of pyproject.toml again; UPGRADE=--upgrade takes newer versions
	@$(COMPILE) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra sklearn --extra demo -c requirements/dev.txt -o requirements/demo.txt
	@$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	@$(COMPILE) --group build -o requirements/build.txt
	@$(COMPILE) --group bootstrap -o requirements/bootstrap.txt
	@for file in requirements/*.txt; do echo "-- $$file: $$(grep -c '^[a-z]' $$file) packages"; done

.PHONY: clean
clean: ## remove .venv and every cache; what a workspace holds stays
	@rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "-- removed $(VENV) and caches"

# What stands in .venv. Each stamp is younger than what it was made from; a changed lock installs again.
# .dev adds to .demo and never changes it, so that a demo may run while the tools are being installed.

$(VENV)/.uv: requirements/bootstrap.txt requirements/install
	@PYTHON="$(PYTHON)" requirements/install uv
	@touch $@

$(VENV)/.demo: $(VENV)/.uv pyproject.toml $(LOCKS)
	@requirements/install demo
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@requirements/install dev
	@touch $@
