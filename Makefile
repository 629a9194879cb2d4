# Everything runs in .venv, which is made when it is missing and again when the dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: study studies test lint ui bench clean

study: $(INSTALLED)  ## run the digits study
	$(BIN)/tuner run studies/digits.py

studies: $(INSTALLED)  ## write the index of the studies again, from what they found
	$(BIN)/tuner report studies

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: $(INSTALLED)  ## open the MLflow UI on the results
	$(BIN)/tuner ui

bench: $(VENV)/bench  ## measure the claims on speed and write them into the README
	$(BIN)/python -m pytest tests/benchmarks -m benchmark; \
	failed=$$?; $(BIN)/python tests/benchmarks/table.py && exit $$failed

clean:  ## remove the environment and every cache, but no results
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[test,lint]"
	touch $@

$(VENV)/bench: $(INSTALLED)
	$(INSTALL) ".[bench]"
	touch $@
