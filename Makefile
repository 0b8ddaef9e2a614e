# Everything runs in an environment of its own: `make demo` and `make test` need only python3 and make.
#   PYTHON=python3.13 make test     another interpreter
#   VENV=.venv-3.13 make test       another environment folder

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
CONSTRAINTS ?=

BIN := $(VENV)/bin
# The stamp carries the interpreter's version, so that a change of PYTHON rebuilds the environment.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
CREATED := $(VENV)/.created-$(PYTHON_VERSION)
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_DOCS := $(VENV)/.installed-docs
NOTEBOOKS = $(wildcard notebooks/*.ipynb)
BENCHMARKS = benchmarks/main_job.py benchmarks/transition.py
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-oldest notebooks docs benchmarks lint clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' Makefile
	@echo "  PYTHON=python3.13 make test picks the interpreter; VENV=folder the environment"

demo: $(INSTALLED) ## fit the neural-ODE theophylline model; tables here, figures and the fit in demo/
	$(BIN)/python -m pymc_saem.demo

# One process per core, each with its own files; tests of one file share models and fits.
test: $(INSTALLED_DEV) ## run the tests that take a moment each, in minutes
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile $(PYTEST_ARGS)

test-all: $(INSTALLED_DEV) ## run all tests, notebooks and pages among them, in half an hour
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

# Python 3.11, because the oldest PyMC and Numba have no wheels for later ones.
test-oldest: ## run the tests of `make test` with the lower bounds of all requirements, in .venv-oldest
	$(MAKE) test VENV=.venv-oldest PYTHON=python3.11 CONSTRAINTS="-c tests/oldest.txt"

notebooks: $(INSTALLED_DEV) ## execute the notebooks in place
	@test -n "$(NOTEBOOKS)" || { echo "there are no notebooks"; exit 1; }
	$(BIN)/python -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.timeout=1800 \
		--ExecutePreprocessor.record_timing=False $(NOTEBOOKS)

docs: $(INSTALLED_DOCS) docs/_outputs/.done ## build the documentation in docs/_build/html; every warning is an error
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# What pages show is printed and drawn anew when a page or the package has changed; the rest of a build takes seconds.
docs/_outputs/.done: $(INSTALLED_DOCS) docs/run_pages.py $(wildcard docs/*.md docs/*/*.md) $(shell find pymc_saem -name '*.py')
	$(BIN)/python docs/run_pages.py
	@touch "$@"

benchmarks: $(INSTALLED) ## run the benchmark scripts
	@test -n "$(BENCHMARKS)" || { echo "there are no benchmarks"; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

lint: $(INSTALLED_DEV) ## check style, format and types
	$(BIN)/python -m ruff check pymc_saem tests benchmarks
	$(BIN)/python -m ruff format --check pymc_saem tests benchmarks
	$(BIN)/python -m mypy

clean: ## remove the environments, caches and demo outputs
	rm -rf .venv .venv-* demo build dist .pytest_cache .ruff_cache .mypy_cache
	rm -rf docs/_build docs/_outputs docs/notebooks docs/reference
	find pymc_saem tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Never empties a folder that is not a virtual environment, whatever VENV says.
$(CREATED):
	@test -n "$(PYTHON_VERSION)" || { echo "PYTHON=$(PYTHON) does not run; name another interpreter"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python $(PYTHON_VERSION) is too old, 3.11 is needed: PYTHON=python3.13 make ..."; exit 1; }
	@test ! -e "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || \
		{ echo "$(VENV) exists and is no virtual environment; name another folder with VENV="; exit 1; }
	rm -rf "$(VENV)"
	$(PYTHON) -m venv "$(VENV)"
	@touch "$@"

$(INSTALLED): pyproject.toml $(CREATED)
	$(PIP) install --quiet -e .
	$(BIN)/python -m pymc_saem.precompile
	@touch "$@"

# The development install contains the plain one.
$(INSTALLED_DEV): pyproject.toml $(CREATED)
	$(PIP) install --quiet -e ".[dev]" $(CONSTRAINTS)
	$(BIN)/python -m pymc_saem.precompile
	@touch "$(INSTALLED)" "$@"

# Beside the development install, which it leaves as it is.
$(INSTALLED_DOCS): pyproject.toml $(CREATED)
	$(PIP) install --quiet -e ".[docs]"
	$(BIN)/python -m pymc_saem.precompile
	@touch "$(INSTALLED)" "$@"
