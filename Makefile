# Everything runs from here; a fresh clone needs Python 3.11+, git and make.
PYTHON ?= python3
VENV ?= .venv
# One more than there are CPUs: tests also wait, for databases and for time to pass.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST_ARGS ?=
# Which versions test-wheel installs: pinned, 2.0 or 2.1 (the newest SQLAlchemy of it), lowest.
VERSIONS ?= pinned
# What it installs beside the wheel.
WHEEL_GROUPS ?= --group test --group typing

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CACHE := .cache
WHEEL_TESTS := $(CACHE)/wheel-tests

# Without --no-compile a third of the time goes into modules that nobody imports.
PIP := python -m pip --disable-pip-version-check install -qq --no-compile
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
PYTEST := python -m pytest -n $(WORKERS) --maxprocesses 8
# For tests that pyproject.toml leaves out: its options without the folders to ignore.
APART := --override-ini="addopts=-ra -p no:queryguard --strict-markers --strict-config"

# Compiled modules are kept, even where the environment says not to: otherwise each worker, and each
# of the many programs that tests start, would compile SQLAlchemy and the tests again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(CACHE)/bytecode

.DEFAULT_GOAL := help
.PHONY: help install pins codegen check-codegen fmt lint type test test-async contract test-2.0 test-wheel \
	test-all test-plain test-sync chaos test-strict test-cluster cov bench bench-quick bench-check \
	bench-scaling bench-docs docs serve-docs build demo serve check check-wheel clean

help: ## List the targets
	@sed -n 's/^\([a-z][a-z0-9.-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## Set up .venv: the library (editable), its extras, the tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 install"; exit 1; }
	@echo "Setting up $(VENV), which takes about a minute:"
	@echo "  1/3 a virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/$(PIP) --constraint constraints.txt pip
	@echo "  2/3 the library and its drivers"
	@$(BIN)/$(PIP) --constraint constraints.txt --editable '.[all]'
	@echo "  3/3 the tools for tests, types, documentation and benchmarks"
	@$(BIN)/$(PIP) --constraint constraints.txt --group dev
	@touch $@

pins: ## Renew constraints.txt: the newest versions of everything
	@rm -rf $(CACHE)/venv-pins && $(PYTHON) -m venv $(CACHE)/venv-pins
	@$(CACHE)/venv-pins/bin/$(PIP) --upgrade pip
	@$(CACHE)/venv-pins/bin/$(PIP) '.[all]' --group dev
	@$(CACHE)/venv-pins/bin/python -m pip freeze --all --exclude sqlmodel-crud-utils --exclude setuptools \
		| tr '[:upper:]_' '[:lower:]-' | sort > constraints.txt
	@git diff --stat -- constraints.txt

codegen: $(INSTALLED) ## Generate the sync twins in src, tests, benchmarks
	@$(BIN)/python scripts/codegen.py

check-codegen: $(INSTALLED) ## Fail if the generated trees differ from their sources
	@$(BIN)/python scripts/codegen.py --check

fmt: $(INSTALLED) ## Format and fix what can be fixed, then generate
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/python scripts/codegen.py

lint: $(INSTALLED) ## Lint, check the format and the words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python scripts/words.py

type: $(INSTALLED) ## Check the types: mypy --strict and pyright
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

test: $(INSTALLED) ## Run the suite; starts a PostgreSQL by itself (MySQL: see CONTRIBUTING.md)
	@$(BIN)/$(PYTEST) --generated-on sqlite $(PYTEST_ARGS)

test-async: $(INSTALLED) ## Run all but the generated tests, and what make type checks
	@$(BIN)/$(PYTEST) --ignore=tests/_sync --ignore=tests/typing/test_user_program.py $(PYTEST_ARGS)

chaos: $(INSTALLED) ## Run the tests that kill servers, connections and tasks (MySQL: see CONTRIBUTING.md)
	@$(BIN)/$(PYTEST) $(APART) $(PYTEST_ARGS) tests/chaos

test-cluster: $(INSTALLED) ## Run the tests on clusters: standbys, PgBouncer, Galera (see CONTRIBUTING.md)
	@$(BIN)/$(PYTEST) $(APART) $(PYTEST_ARGS) tests/cluster

contract: $(INSTALLED) ## Try routes of crud_router with what their OpenAPI document allows, and what not
	@$(BIN)/$(PYTEST) $(APART) $(PYTEST_ARGS) tests/contract

cov: ## Run all but the generated tests and measure coverage of lines and branches
	@$(MAKE) --no-print-directory test-async \
		PYTEST_ARGS="$(PYTEST_ARGS) --cov --cov-report=term --cov-report=html"

test-sync: $(INSTALLED) ## Run the generated tests
	@$(BIN)/$(PYTEST) $(PYTEST_ARGS) tests/_sync

test-2.0: .venv-sqlalchemy-2.0/.installed ## Run the whole suite on the newest SQLAlchemy 2.0
	@$(<D)/bin/$(PYTEST) $(PYTEST_ARGS)

.venv-sqlalchemy-2.0/.installed: pyproject.toml constraints.txt
	@echo "Setting up $(@D) ..."
	@$(PYTHON) -m venv $(@D)
	@$(PYTHON) scripts/pins.py 2.0 > $(@D)/constraints.txt
	@$(@D)/bin/$(PIP) --constraint $(@D)/constraints.txt pip
	@$(@D)/bin/$(PIP) --constraint $(@D)/constraints.txt \
		--editable '.[all]' --group test --group typing
	@touch $@

test-wheel: build ## Run the suite against the built wheel, in a clean venv without src (VERSIONS=2.0|lowest)
	@rm -rf $(WHEEL_TESTS) && mkdir -p $(WHEEL_TESTS)
	@cp -R tests scripts examples benchmarks docs *.md *.yml .github pyproject.toml constraints.txt $(WHEEL_TESTS)
	@$(PYTHON) -m venv --clear .venv-wheel
	@$(PYTHON) scripts/pins.py $(VERSIONS) > .venv-wheel/constraints.txt
	@.venv-wheel/bin/$(PIP) --constraint .venv-wheel/constraints.txt pip
	@.venv-wheel/bin/$(PIP) --constraint .venv-wheel/constraints.txt \
		"$$(ls dist/*.whl)[all]" $(WHEEL_GROUPS)
	@cd $(WHEEL_TESTS) && $(CURDIR)/.venv-wheel/bin/python -c \
		"import sqlmodel_crud_utils as p; assert 'site-packages' in p.__file__, p.__file__"
	@cd $(WHEEL_TESTS) && $(CURDIR)/.venv-wheel/bin/$(PYTEST) $(PYTEST_ARGS)

test-all: test test-2.0 ## Run the whole suite on SQLAlchemy 2.1, then on 2.0

bench: $(INSTALLED) ## Compare with hand-written SQLAlchemy; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks --json benchmarks/results.json

bench-quick: $(INSTALLED) ## The same with few rounds, and no file
	@$(BIN)/python -m benchmarks --quick

bench-check: $(INSTALLED) ## Fail if a ratio is worse than in benchmarks/results.json by over 15 %, twice
	@$(BIN)/python -m benchmarks --seconds 2 --against benchmarks/results.json

bench-scaling: $(INSTALLED) ## Measure on clusters what docs/scaling.md says; needs what test-cluster needs
	@$(BIN)/python -m benchmarks.scaling

bench-docs: $(INSTALLED) ## Renew docs/performance.md and its plots from benchmarks/results.json
	@$(BIN)/python -m benchmarks.documentation

docs: $(INSTALLED) ## Build the documentation site, guides and reference, into site/
	@$(MKDOCS) build --strict
	@echo "Open site/index.html; its search needs a server: make serve-docs"

serve-docs: $(INSTALLED) ## Show the documentation site while you write, on http://127.0.0.1:8001
	@$(MKDOCS) serve --strict --dev-addr 127.0.0.1:8001

build: $(INSTALLED) ## Build the wheel and the sdist into dist/, and check the page of the package
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python -m twine check --strict dist/*

demo: $(INSTALLED) ## Run examples/quickstart.py
	@$(BIN)/python examples/quickstart.py

serve: $(INSTALLED) ## Start examples/fastapi_app, a web service (PORT=8000, DATABASE_URL=sqlite:///heroes.db)
	@PYTHONPATH=examples $(BIN)/python -m fastapi_app.main

# Shortcuts are ways of writing: what is about reading and what stands around it is left out.
NO_SHORTCUTS := cache* crud_router* filter* forged_cursors graphql keyset* rate_limits \
	soft_delete_leaks telemetry* url_parameters

test-plain: $(INSTALLED) ## Run the tests of behaviour with all shortcuts past the unit of work switched off
	@$(BIN)/$(PYTEST) --without-shortcuts --databases sqlite $(PYTEST_ARGS) \
		$(foreach part,$(NO_SHORTCUTS),--ignore-glob='*/test_$(part).py') tests/_sync

test-strict: $(INSTALLED) ## Run the async tests with all lazy loads refused, as aio.session_factory does
	@$(BIN)/$(PYTEST) --strict-loading --databases sqlite $(PYTEST_ARGS) tests/_async tests/async_only

CHECKS := check-codegen lint type docs demo test-async test-plain chaos contract test-cluster check-wheel

check: ## Everything that CI runs, in its order
	@for step in $(CHECKS); do \
		printf '\n=== make %s ===\n' $$step; \
		start=$$(date +%s); \
		$(MAKE) --no-print-directory $$step || exit 1; \
		printf '=== %s: %s seconds ===\n' $$step $$(($$(date +%s) - start)); \
	done

# What hardly depends on the version of SQLAlchemy, or takes long, is left to the workflow.
ANY_SQLALCHEMY := bad_input benchmarks cache* cancellation crud_router* event_loops filter* \
	forged_cursors graphql history_properties hooks* keyset_properties logs long_values \
	lost_connections names_of_columns observers parameter_names pools rate_limits repository \
	request_sessions telemetry* url_parameters written_values

# The sources are tested on every database and with all that is around them; the matrix of the
# workflow does the rest of the wheel's: all tests, and all versions of Python.
check-wheel:
	@$(MAKE) --no-print-directory test-wheel VERSIONS=2.0 WHEEL_GROUPS="--group test" \
		PYTEST_ARGS="--databases sqlite \
		$(foreach part,$(ANY_SQLALCHEMY),--ignore-glob=*/test_$(part).py) \
		tests/unit/test_surfaces.py tests/_async tests/async_only"

clean: ## Remove what the other targets made
	@rm -rf .venv* $(CACHE) .coverage* build dist htmlcov site .mypy_cache .pytest_cache .ruff_cache
