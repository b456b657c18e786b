# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Torch's threads are set by the programs themselves; this keeps BLAS from adding its own.
export OMP_NUM_THREADS ?= 2
# What is made, written, judged and run; not what the newest versions of a dependency bring.
LOWEST := tests/api/test_harden.py tests/api/test_hardened_shadow.py tests/cli/test_end_to_end.py \
    tests/corpus/test_traits.py tests/data tests/evaluation tests/execution/test_light_models.py \
    tests/graph tests/release/test_versions.py tests/pipeline tests/rewriting tests/runtime
# The first two are about onnx 1.21 itself: a model in its wheel, and its reference of Resize. Of the
# third ONNX Runtime 1.25 changes bits where evidence is read, so that it gets one stage, with a warning.
LOWEST += --deselect tests/rewriting/test_surgeon.py::test_unedited_models_of_the_onnx_wheel_survive_byte_for_byte \
    --deselect tests/graph/test_inference.py::test_the_expected_shapes_are_those_that_a_run_has \
    --deselect 'tests/corpus/test_traits.py::test_its_detector_goes_by_evidence_in_two_stages[BatchNormalization that is not folded]'

.PHONY: demo seeds portability test test-lowest pages docs lint types format dist smoke clean

demo: $(STAMP)
	$(BIN)/python examples/demo/run.py --output build/demo --force

# The demo for five seeds; about ten minutes.
seeds: $(STAMP)
	$(BIN)/python benchmarks/demo_seeds.py

# Which other runtimes take the graphs, and decide alike; about five minutes.
portability: $(STAMP)
	$(BIN)/python -m benchmarks.portability

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

# With the lowest versions that pyproject.toml declares, in an environment of its own.
test-lowest:
	test -x build/lowest/bin/python || $(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable ".[cpu,export]" \
	    $$(sed -n 's/^\(filelock\|jsonschema\|packaging\|pytest\|pytest-xdist\|PyYAML\|scikit-learn\)==/&/p' constraints.txt)
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -n 2 --dist worksteal -p no:cacheprovider $(LOWEST)

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

# sdist and wheel as they are released, and whether they hold what they should.
dist: $(STAMP)
	rm -rf dist build/dist build/lib build/bdist.*
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir build/dist .
	$(BIN)/python tests/release/check_dist.py dist build/dist
	$(BIN)/python -m twine check --strict dist/*

# A pip-installed wheel, away from the checkout, on the demo's model.
smoke: dist
	bash tests/smoke_wheel.sh dist build/demo

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,dev,examples]"
	touch $(STAMP)

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache
