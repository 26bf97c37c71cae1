# Each target does its own set-up: `make demo` on a fresh machine needs Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo full test check clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(READY) ## make the virtual environment in .venv, with everything installed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "sslflow needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip  # what old Pythons bring is slow
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## run the pipeline of params.yaml, which ships as recipes/demo.yaml; ends with the leaderboard and the report's path
	@$(BIN)/python -m pipelines.runner --jobs $(JOBS)

full: $(READY) ## the same with recipes/full.yaml, which takes the place of an unchanged params.yaml: more methods, seeds and steps
	@cmp -s params.yaml recipes/full.yaml || { cmp -s params.yaml recipes/demo.yaml && cp recipes/full.yaml params.yaml; } || { \
		echo "params.yaml was changed: keep it elsewhere, then 'cp recipes/full.yaml params.yaml' and 'make full'"; exit 1; }
	@$(BIN)/python -m pipelines.runner --jobs $(JOBS)

test: $(READY) ## run the tests, a process for each core
	@$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

check: $(READY) ## check format, lint, types and known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/python tests/vulnerabilities.py

clean: ## remove what tools left behind (caches, scratch); the environment, data and artifacts stay
	rm -rf work build dist dvc_plots .pytest_cache .ruff_cache *.egg-info
	find sslflow pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
