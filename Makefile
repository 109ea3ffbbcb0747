# Everything runs in a virtual environment of this folder's own; `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=

# A `python3` that is too old is passed over for a newer one beside it; a PYTHON named by the caller never is.
NEWER := $(if $(filter file default,$(origin PYTHON)),python3.11 python3.12 python3.13 python3.14)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
# One worker a core, and one BLAS thread a worker.
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
INSTALLED := $(VENV)/.installed
INSTALLED_TESTS := $(VENV)/.installed-tests

# Compiling is most of a short run. By default jax keeps nothing that compiled in under a second; keep it all.
CACHED := JAX_COMPILATION_CACHE_DIR='$(CURDIR)/.cache/jax' \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-all lint format figures bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

quickstart: $(INSTALLED) ## a first result: a picture and a table, in a minute or two
	@$(CACHED) $(BIN)/python -m experiments quickstart $(ARGS)

test: lint ## lint, types, doctests and all tests not marked slow (one file: make test ARGS=tests/test_x.py)
	@$(CACHED) $(PYTEST) $(ARGS)

test-all: lint ## the same with the slow tests and more examples for the property tests
	@$(CACHED) $(PYTEST) -m 'slow or not slow' --hypothesis-profile=thorough $(ARGS)

lint: $(INSTALLED_TESTS) ## ruff and pyrefly
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted: run make format"; exit 1; }
	@$(BIN)/pyrefly check --summary=none --progress-bar no

format: $(INSTALLED_TESTS) ## format the code and apply ruff's safe fixes
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

figures: $(INSTALLED) ## every figure of paper_figures at its quick scale (ARGS=--full for the papers' own)
	@set -e; for script in $$(find paper_figures -name '[!_]*.py' | sort); do \
		echo "== $$script"; $(CACHED) $(BIN)/python "$$script" $(or $(ARGS),--quick); \
	done

# Without the cache: what a benchmark says of compiling must be of compiling.
bench: $(INSTALLED) ## every benchmark of benchmarks/ (some: make bench ARGS='w1 w4')
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove the environment, caches and builds; outputs/ stays
	rm -rf $(VENV) .cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV) ..."
	@$(PIP) --editable '.[experiments,cluster,solvers]'
	@touch $@

$(INSTALLED_TESTS): $(INSTALLED)
	@echo "installing the test tools into $(VENV) ..."
	@$(PIP) --editable '.[experiments,cluster,solvers,tests]'
	@touch $@

$(VENV)/pyvenv.cfg:
	@for python in $(PYTHON) $(NEWER); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { lacking="$${lacking:-$$python}"; continue; }; \
		"$$python" -m venv '$(VENV)' && exit 0; \
		rm -rf '$(VENV)'; echo "adozoo: $$python could not make the virtual environment $(VENV), see above" >&2; exit 1; \
	done; \
	if [ -n "$$lacking" ]; then \
		echo "adozoo needs Python's venv and ensurepip modules, which $$lacking lacks: install them (on Debian, apt install python3-venv) or run make PYTHON=/path/to/another/python" >&2; \
	else \
		found=$$($(PYTHON) -c 'import sys; print("is %d.%d.%d" % sys.version_info[:3])' 2>/dev/null || echo "cannot be run"); \
		echo "adozoo needs Python 3.11 or newer; $(PYTHON) $$found: run make PYTHON=python3.12, or with the path of another" >&2; \
	fi; exit 1
