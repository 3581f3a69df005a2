# Everything runs in .venv, which `make setup` builds from the package index alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help setup demo quick test nightly format lint types unit docs wheel bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'daft>=0.7'  # it asks for pyarrow < 26, and reads 26
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python  # of imagecorruptions-imaug: wants libGL
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps 'opencv-python-headless>=4.11'
	touch $(READY)

setup: $(READY)  ## make .venv and install plstore with all extras

demo: $(READY)  ## Noisy Student on real images: table, demo/result.json, demo/report.html
	$(BIN)/plstore run fashion_mnist --store demo/store

test: lint types unit docs wheel  ## everything that CI runs

QUICK := tests/codec tests/exchange tests/selection/test_rules.py tests/query/test_session.py \
  tests/report tests/store/test_store.py tests/labels/test_fusion.py tests/store/test_versions.py

quick: $(READY)  ## ruff and the fast tests, for the edit loop
	$(BIN)/ruff check .
	$(BIN)/pytest -n 2 -q -m "not slow" $(QUICK)

format: $(READY)  ## rewrite the code in its format
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

lint: $(READY)  ## ruff, import layers, SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint queries plstore/selection/steps

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

unit: $(READY)  ## the tests, with a smoke run of the whole loop
	$(BIN)/pytest -n 2 -m "not nightly"

nightly: $(READY)  ## all tests, with those that are slow and rarely telling
	$(BIN)/pytest -n 2

docs: $(READY)  ## the documentation, its notebook run: docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

wheel: $(READY)  ## the wheel works alone: core, in an empty environment
	$(BIN)/python tests/check_wheel.py

bench: $(READY)  ## every benchmark, quickly
	@for name in choosing codec gain labeling loaders requests scale select store; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name --quick || exit 1; \
	done

clean:  ## remove what make made
	rm -rf $(VENV) demo dist docs/_build .mypy_cache .ruff_cache .pytest_cache
