# Each target does all of its own set-up: a virtual environment with the locked versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What wants the machine to itself.
ALONE := gpu or ray or flower
PARALLEL := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: help demo test unit lint wheel bench bench-generation base-model clean

help:
	@echo "make demo        three phantom hospitals, from scans to a report on one page"
	@echo "make test        every test that this machine can run"
	@echo "make unit        the tests that need no Ray, no Flower and little time"
	@echo "make lint        style, types, floors"
	@echo "make wheel       build the wheel and look into it"
	@echo "make bench       the figures that the README quotes"
	@echo "make bench-generation  CTFlow against ours on phantoms (hours on a CPU; resumes)"
	@echo "make base-model  train the shipped base model anew (two hours on a CPU)"

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/pip check
	@touch $@

demo: $(READY)
	$(BIN)/ctflow demo --out runs/demo

test: $(READY)
	$(PARALLEL) -m "not ($(ALONE))"
	$(BIN)/python -m pytest -m "$(ALONE)"

unit: $(READY)
	$(PARALLEL) -m "not (slow or $(ALONE))"

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --wheel
	$(BIN)/check-wheel-contents --toplevel ctflow_fed dist/*.whl

bench: $(READY)
	$(BIN)/python benchmarks/speed.py

bench-generation: $(READY)
	$(BIN)/python benchmarks/generation.py

base-model: $(READY)
	$(BIN)/python benchmarks/base_model.py --out runs/base
	cp runs/base/base/* ctflow_fed/model/base/

clean:
	rm -rf $(VENV) dist runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
