# Everything a newcomer types: `make demo`, `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Tests wait for real time more than they compute, so there are more processes than cores. JOBS=0: no other process.
JOBS ?= 4
PYTEST := -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-all coverage lint format check-python schema clean

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: .venv/installed ## hear the recording that ships, live, and compare it with the truth
	$(BIN)/earwitness demo

test: .venv/installed-dev tests/node/node_modules ## the tests that take minutes; installs what they need
	sh tests/install.sh
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report
else
	$(BIN)/python $(PYTEST)
endif

test-all: .venv/installed-dev tests/node/node_modules ## the slow tests too
	sh tests/install.sh
	sh tests/install.sh image
	sh tests/install.sh browser
	$(BIN)/python $(PYTEST) -m "slow or not slow" --timeout 3600

coverage: ## the same tests with branch coverage; fails under 90 %
	$(MAKE) test COVERAGE=1

lint: .venv/installed-dev ## ruff, mypy (strict, tests too), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed ## write the generated files anew: docs/messages.schema.json, docs/metrics.md, the config's schema
	$(BIN)/python -m streamer.sinks.wire > docs/messages.schema.json
	$(BIN)/python -m streamer.runtime.metrics_page > docs/metrics.md
	$(BIN)/python -m streamer.config.schema > configs/daemon/schema.json

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "earwitness needs Python 3.11 to 3.13: install python3.11 and python3.11-venv, or name one with 'make PYTHON=/path/to/python3.11'"; exit 1; }

.venv/bin/python: | check-python
	@$(PYTHON) -m venv .venv || { echo "Python has no venv: apt-get install python3-venv (or python3.11-venv)"; rm -rf .venv; exit 1; }

# Minutes of silence look like a hang: pip shows what it downloads.
INSTALL = echo "Setting up .venv. Torch alone is several GB: the first time takes minutes."; \
  $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@$(INSTALL) .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@PYTHON="$(PYTHON)" sh tests/install.sh compiler
	@$(INSTALL) '.[dev]'
	@touch $@ .venv/installed

tests/node/node_modules: tests/node/package.json tests/node/package-lock.json | tests/install-node
	cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: tests/install-node
tests/install-node:
	@sh tests/install.sh node

clean: ## remove what was installed and built here
	rm -rf .venv build dist *.egg-info tests/node/node_modules
