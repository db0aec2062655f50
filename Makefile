PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo check test parity bench format

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-tests
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch $@

demo: install
	$(BIN)/python refine/train.py experiment=mosaic_misset

test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest $(ARGS)

parity: $(VENV)/.installed-tests
	$(BIN)/python -m pytest tests/nanobragg/test_parity.py -s $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-tests
	$(BIN)/python benchmarks/simulator.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
