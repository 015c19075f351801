# Two commands do all set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help quickstart test test-slow lint env clean

help:
	@echo "make quickstart   environment, installation, and the main job on embedded data (CPU, offline)"
	@echo "make test         environment and the default test suite"
	@echo "make test-slow    longer checks on real data (needs the data sets)"
	@echo "make lint         ruff and mypy"
	@echo "make clean        remove the environment"

env: $(STAMP)

# The environment is made anew when what the project needs changes, and only then.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "depthbench needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: env
	$(BIN)/bench run configs/quickstart.yaml

test: env lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: env
	$(BIN)/python -m pytest -m slow -n 2

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
