# make study   sets up .venv and makes the report
# make test    sets up .venv and runs the tests
# Both need Python 3.11 or newer and nothing else.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: study test lint bench prove clean

study: .venv/study
	$(BIN)/alphabar study --force -o study

test: .venv/test
	@sh tests/browser.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Ratios in one run; an absolute time of a shared machine proves nothing.
bench: .venv/study
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/targets.py
	$(BIN)/python benchmarks/samplers.py
	$(BIN)/python benchmarks/fitted.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/mixture.py
	$(BIN)/python benchmarks/check.py

# What is too long for CI.
prove: .venv/test
	$(BIN)/python -m pytest -m prove $(PYTEST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version): alphabar needs Python 3.11 or newer (make PYTHON=python3.12 …)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/study: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@touch $@

.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[dev]'
	@touch $@ .venv/study

clean:
	rm -rf .venv study
