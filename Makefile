# From a fresh clone: `make demo`, `make test`, `make docs`, `make wheel`. PYTHON names the Python to use.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

TUTORIALS := $(patsubst tutorials/%.md,docs/tutorials/%.ipynb,$(wildcard tutorials/*.md))
SOURCES := $(shell find src -name '*.py' -o -name '*.safetensors')

.PHONY: demo test docs tutorials page wheel weights benchmark clean
.DELETE_ON_ERROR:

demo: .venv/package
	$(BIN)/nimbus-sd demo

test: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m pytest -n auto --dist loadfile

# The site, in docs/_build/html. A warning, such as a link that leads nowhere, fails it.
docs: .venv/docs tutorials
	rm -rf docs/api/generated
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

# Runs each tutorial whose text, or the package, has changed since. Outputs stay out of git.
tutorials: $(TUTORIALS)

docs/tutorials/%.ipynb: tutorials/%.md $(SOURCES) | .venv/docs
	mkdir -p docs/tutorials
	$(BIN)/jupytext --quiet --to ipynb --output $@ $<
	PYTHONWARNINGS="ignore:IProgress not found,ignore:zarr v3 autosharding" $(BIN)/jupyter-execute --inplace $@

# The built page of `nimbus-sd review`, from its source. It is committed, so only who changes the source needs node.
page:
	cd src/nimbus_sd/_review/web && npm ci && npm run build

# Wheel and sdist, and a demo from the wheel in an environment that has nothing of this folder.
wheel:
	rm -rf dist .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check build
	.venv-wheel/bin/python -m build --outdir dist
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	cd dist && ../.venv-wheel/bin/nimbus-sd demo

# Trains the bundled model anew.
weights: .venv/test
	$(BIN)/python tools/compact/make.py

# The bundled model on 200 simulated images that were fixed before the last stage of its training.
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

.venv/docs: .venv/package
	$(INSTALL) --editable '.[leiden,train,docs]'
	touch $@

clean:
	rm -rf .venv .venv-wheel demo dist docs/_build docs/api/generated docs/tutorials runs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
