# Everything is installed into .venv. Ray keeps a token of this user in ~/.ray; `dev` keeps data in ~/.local/share.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# `make PYTHON=/path/to/python install` chooses the interpreter.
PYTHON ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## Install into .venv (does nothing when pyproject.toml has not changed)

# A pyenv shim may exist for a version that does not run: ask each candidate instead of looking for its name.
$(STAMP): pyproject.toml
	@found=; \
	for candidate in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3 python3.14); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make install needs Python 3.11 or newer, and found none$(if $(PYTHON), at $(PYTHON)); install one or name it with PYTHON=/path/to/python." >&2; \
		exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		"$$found" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install ## Watch a conversation survive everything that can be killed (ARGS=--json for machines)
	$(BIN)/conversation-actors demo $(ARGS)

test: install ## Run the tests (ARGS="-k fenced" for some)
	$(BIN)/pytest $(ARGS)

lint: install ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install ## Rewrite format and what can be fixed by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: install ## Check types
	$(BIN)/mypy

bench: install ## Measure a durable append against a bare actor call
	$(BIN)/python benchmarks/append.py $(ARGS)

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
