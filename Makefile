# The checks and the demo share one .venv, installed from hashed requirements.
PYTHON ?= python3
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
VENV := .venv
BIN := $(VENV)/bin

export RUNTIME__DLTHUB_TELEMETRY := false

# A venv made by uv holds no pip: each installer has its own proof of a usable one.
ifeq ($(UV),)
VENV_READY := $(BIN)/pip
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
VENV_READY := $(BIN)/python
CREATE = $(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
endif

# dev.txt holds every pin, the others take theirs from it, so that all fit one venv.
LOCKS := dev core container tests airflow dagster dbt lakes ducklake docs
UPGRADE ?=

WORKERS ?= 2
# Whoever has nothing left takes from the other: the last file would keep one alone.
XDIST = -m pytest -n $(WORKERS) --dist worksteal
PYTEST = $(BIN)/python $(XDIST)

# They reach next to nothing that no other test reaches: coverage would only slow them down.
UNMEASURED := tests/pipelines $(patsubst %,tests/integration/test_%.py,alerts ask_missing choices \
  container names poison questions report_page runs secrets signals source sync upgrade views)
MEASURED = $(BIN)/coverage run $(XDIST) $(UNMEASURED:%=--ignore=%)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-lengthy test-unit test-all coverage test-airflow test-dagster test-dbt test-lakes test-ducklake test-pipeline docs docs-site lint fmt types ci build bench bench-requirements requirements requirements-check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/tests.stamp ## Load from the bundled simulator; no account needed
	@$(BIN)/esms demo

test: $(VENV)/tests.stamp ## Run the tests, two at a time, but for the slow ones
	$(if $(COVERAGE),$(MEASURED) -m 'not slow')
	$(PYTEST) -m 'not slow' $(if $(COVERAGE),$(UNMEASURED))

test-slow: $(VENV)/tests.stamp ## Run the tests with kills, faults, real rates, PostgreSQL, Chromium
	$(if $(COVERAGE),$(MEASURED) -m 'slow and not lengthy')
	$(PYTEST) -m 'slow$(if $(COVERAGE), and not lengthy)' $(if $(COVERAGE),$(UNMEASURED))

test-lengthy: $(VENV)/tests.stamp ## Run those of the slow tests of which no coverage is measured
	$(PYTEST) -m lengthy

test-unit: $(VENV)/tests.stamp ## Run the quick tests of single modules only
	$(PYTEST) -m 'not slow' esms_source tests/unit

test-all: $(VENV)/tests.stamp ## Run all tests, with hundreds of kills and each fault alone
	ESMS_TEST_LONG=1 $(PYTEST) -o faulthandler_timeout=3600

coverage: $(VENV)/tests.stamp ## Report the branches that tests with COVERAGE=1 reached
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# What brings much along lives in a venv of its own.
test-airflow: ## Run the tests of the Airflow DAGs
	@$(MAKE) --no-print-directory VENV=.venv-airflow GROUP=airflow test-pipeline

test-dagster: ## Run the tests of the Dagster definitions
	@$(MAKE) --no-print-directory VENV=.venv-dagster GROUP=dagster test-pipeline

test-dbt: ## Run the tests of the dbt package
	@$(MAKE) --no-print-directory VENV=.venv-dbt .venv-dbt/dbt.stamp
	.venv-dbt/bin/python -m pytest tests/dbt

test-lakes: ## Run the tests with Delta, Iceberg and S3
	@$(MAKE) --no-print-directory VENV=.venv-lakes .venv-lakes/lakes.stamp
	.venv-lakes/bin/python -m pytest tests/lakes
	.venv-lakes/bin/python -m pytest -k 'delta or iceberg' \
	  tests/integration/test_lake.py tests/integration/test_random_kills.py

test-ducklake: ## Run the tests with DuckLake
	@$(MAKE) --no-print-directory VENV=.venv-ducklake .venv-ducklake/ducklake.stamp
	.venv-ducklake/bin/python -m pytest tests/ducklake

docs: $(VENV)/tests.stamp ## Write the pages and dbt models that are made of the code
	$(BIN)/python tools/generate.py

docs-site: ## Build the pages as a site into site/; any warning is an error
	@$(MAKE) --no-print-directory VENV=.venv-docs .venv-docs/docs.stamp
	.venv-docs/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet \
	  --conf-dir docs --doctree-dir site/.doctrees . site
	@echo 'The site is in site/docs/index.html'

test-pipeline: $(VENV)/tests.stamp $(VENV)/$(GROUP).stamp
	$(BIN)/python -m pytest tests/pipelines/test_$(GROUP)*.py

lint: $(VENV)/dev.stamp ## Check style, spelling, prose, the direction of imports, the Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/python tools/prose.py
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

fmt: $(VENV)/dev.stamp ## Format, and fix what ruff can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types: $(VENV)/dev.stamp ## Check the types
	$(BIN)/mypy

ci: ## Run everything that must pass before a merge
	.ci/run

build: $(VENV)/tests.stamp ## Build wheel and sdist into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

bench: $(VENV)/tests.stamp ## Measure against the peers
	$(BIN)/python benchmarks/run.py

bench-requirements: $(VENV)/dev.stamp ## Recompile the pins of the peers (UPGRADE=--upgrade for newer ones)
	@for lock in airbyte-cdk dlt singer-sdk; do requirements/compile $$lock $(UPGRADE) || exit 1; done

requirements: $(VENV)/dev.stamp ## Recompile requirements/*.txt (UPGRADE=--upgrade for newer pins)
	@for lock in $(LOCKS); do requirements/compile $$lock $(UPGRADE) || exit 1; done

requirements-check: $(VENV)/dev.stamp ## Tell whether requirements/*.txt fit pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --dry-run --no-index \
	  --requirements pyproject.toml --group dev \
	  || { echo 'requirements/*.txt are stale: make requirements' >&2; exit 1; }

clean: ## Remove the venvs and everything that was built
	rm -rf $(VENV) .venv-* dist site .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find esms_source tests pipelines -name __pycache__ -prune -exec rm -rf {} +

$(VENV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	$(CREATE)

$(VENV)/%.stamp: requirements/%.txt pyproject.toml | $(VENV_READY)
	$(INSTALL) --require-hashes --requirement $<
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
