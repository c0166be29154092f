# Two commands do everything from a fresh clone: `make demo` and `make test`. PYTHON names the Python to use.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test weights benchmark clean

demo: .venv/package
	$(BIN)/nimbus-sd demo

test: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

# Trains the bundled model anew: about three hours on two CPU cores, resumes where it was stopped.
# Its figures come from `benchmarks/bundled_model.py --model runs/compact/compact.safetensors --card runs/compact/compact.json`.
weights: .venv/test
	$(BIN)/python -m nimbus_sd.train.compact runs/compact

# The bundled model on 200 simulated images that were fixed before it was trained.
benchmark: .venv/test
	$(BIN)/python benchmarks/bundled_model.py

.venv/package: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nimbus-sd needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (torch and spatialdata: some minutes the first time) ..."
	$(INSTALL) --editable .
	touch $@

.venv/test: .venv/package
	$(INSTALL) --editable '.[train,leiden,flowsom,test]'
	touch $@

clean:
	rm -rf .venv demo dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
