# Everything a newcomer types: `make demo`, `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-all lint check-python schema clean

demo: .venv/installed
	$(BIN)/earwitness demo

test: .venv/installed-dev tests/node/node_modules
	sh tests/install.sh
	$(BIN)/python -m pytest

test-all: .venv/installed-dev tests/node/node_modules
	sh tests/install.sh
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 3600

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: .venv/installed
	$(BIN)/python -m streamer.sinks.wire > docs/messages.schema.json

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
	@$(INSTALL) '.[dev]'
	@touch $@ .venv/installed

tests/node/node_modules: tests/node/package.json tests/node/package-lock.json | tests/install-node
	cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: tests/install-node
tests/install-node:
	@sh tests/install.sh node

clean:
	rm -rf .venv build dist *.egg-info tests/node/node_modules
