.DEFAULT_GOAL := help
.PHONY: help train test units test-slow test-faults mutants test-beam test-ray coverage docs bench bench-gpu release-check lint format clean

PYTHON ?= python3
# Another Python has an environment of its own.
VENV := .venv$(patsubst %,-%,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Most of a test's time is compiling: XLA's older code generator and few passes take half of it, and
# one module a program is made sooner than many.
QUICK := XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1" \
	JAX_DISABLE_MOST_OPTIMIZATIONS=1

# Without bytecode on the disk each process compiles two thousand modules anew, for three seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(READY) ## Train on the embedded handwritten digits; logs and checkpoints go to runs/
	$(BIN)/python -m alexnet_jax.main --workdir runs/

test: $(READY) ## Lint, type check and run the tests (under 10 minutes on 2 cores)
	@$(MAKE) --no-print-directory --jobs=2 lint units

# Beside lint: half a minute of type checking fits where the tests wait.
units: $(READY)
	$(QUICK) $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-slow: $(READY) ## All tests, compiled as for users: full widths, long runs, hours
	$(BIN)/python -m pytest -m "slow or not slow"

test-faults: $(READY) ## Faults made and counted, an hour: docs/faults.md; FAULTS=quick in minutes
	$(BIN)/python -m tests.faults $(if $(filter quick,$(FAULTS)),--part=0.03)

mutants: $(READY) ## Errors made one by one, each of which a test must notice: 10 minutes on 2 cores
	$(QUICK) $(BIN)/python -m tests.mutants

test-beam: ## Preparing on Apache Beam, in an environment of its own: Beam needs protobuf below 7
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --disable-pip-version-check -e '.[prepare,dev]'
	$(VENV)-beam/bin/python -m pytest tests/data/test_beam.py

test-ray: ## Sweeps on Ray Tune, in an environment of its own
	$(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sweep,dev]'
	$(VENV)-ray/bin/python -m pytest tests/test_sweep.py -k ray

docs: ## This documentation as pages in site/, every link checked, in an environment of its own
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -r docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

coverage: $(READY) ## The lines of the package that no fast test reaches
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[coverage]'
	$(QUICK) $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --cov=alexnet_jax --cov-report=term-missing:skip-covered

bench: $(READY) ## Step, operations and start beside PyTorch's, on this machine: half an hour and more
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	$(BIN)/python -m experiments.speed.operations
	$(BIN)/python -m experiments.speed.start
	$(BIN)/python -m experiments.speed.step

bench-gpu: ## Measure what waits for a GPU; PYTHON has jax[cuda] and this package
	-$(PYTHON) -m experiments.speed.step --batch_size=128 --batch_size=512 --updates=20 --forms
	-$(PYTHON) -m experiments.speed.mesh_overhead
	-$(PYTHON) -m experiments.speed.steps_per_call
	-$(PYTHON) -m experiments.speed.reading --suffix=_gpu
	-$(PYTHON) -m experiments.speed.retrieval --gallery=1281167
	-$(PYTHON) -m experiments.paper.fine_tune --full
	-$(PYTHON) -m experiments.paper.figure1
	-$(PYTHON) -m experiments.paper.lrn_cifar
	-$(PYTHON) -m experiments.paper.ablations
	-$(PYTHON) -m experiments.paper.ensemble
	-$(PYTHON) -m alexnet_jax.main --workdir runs/cifar10 --config=cifar10
	-$(PYTHON) -m alexnet_jax.main --workdir runs/imagenette --config=imagenette

release-check: ## Build the last commit's sdist and wheel, check them, and use them elsewhere
	$(PYTHON) -m tests.release

lint: $(READY) ## Ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment, caches and runs
	rm -rf .venv .venv-* runs site build *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
