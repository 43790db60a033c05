# Everything sets itself up: `make galaxy` and `make test` on a fresh clone need only Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/galaxy
CUDA ?= cuda13

.PHONY: help galaxy test lint types bench gpu-test gpu-bench clean

help:
	@echo "make galaxy   train the galaxy model and draw the paper's figures into $(OUT)/"
	@echo "make test     lint, types and tests"
	@echo "make bench    training speed beside PyTorch and JAX, where these are installed"
	@echo "make gpu-test, make gpu-bench    the same on an NVIDIA GPU; they fail where none answers"
	@echo "make clean    remove the virtual environment and caches; what was trained stays"

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

galaxy: $(VENV)/run
	$(BIN)/python examples/galaxy_gdae.py --out $(OUT)

lint: $(VENV)/dev
	$(BIN)/ruff check .

types: $(VENV)/dev
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest

bench: $(VENV)/dev
	$(BIN)/python benchmarks/cpu.py $(BENCH)

$(VENV)/gpu: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(CUDA)]'
	@touch $@

gpu-test: $(VENV)/gpu
	LAYERKIT_GPU=required $(BIN)/python -m pytest tests/test_cuda.py tests/test_backends.py -k 'not stand-in'

gpu-bench: $(VENV)/gpu
	$(BIN)/python benchmarks/gpu.py $(BENCH)

clean:
	find layerkit nets examples tests benchmarks -name __pycache__ -exec rm -rf {} +
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
