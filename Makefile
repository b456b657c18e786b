# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Torch's threads are set by the programs themselves; this keeps BLAS from adding its own.
export OMP_NUM_THREADS ?= 2

.PHONY: demo seeds test pages docs lint types format wheel smoke clean

demo: $(STAMP)
	$(BIN)/python examples/demo/run.py --output build/demo --force

# The demo for five seeds; about ten minutes.
seeds: $(STAMP)
	$(BIN)/python benchmarks/demo_seeds.py

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

# Pages that are written from the code.
pages: $(STAMP)
	$(BIN)/python -m mmbm_onnx.execution.operator_table

# The site, in build/site; a broken link is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

# A pip-installed wheel, away from the checkout, on the demo's model.
smoke: wheel
	bash tests/smoke_wheel.sh dist build/demo

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,dev,examples]"
	touch $(STAMP)

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache
