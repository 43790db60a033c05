# Everything sets itself up: `make galaxy` and `make test` on a fresh clone need only Python 3.11+.
PYTHON ?= python3
VENV := .venv
OUT ?= out/galaxy
CUDA ?= cuda13

.PHONY: help galaxy scene docs test test-random fuzz sanitize sanitize-address sanitize-thread lint types bench gpu-test gpu-bench clean

help:
	@echo "make galaxy   train the galaxy model and draw the paper's figures into $(OUT)/"
	@echo "make scene    stars and galaxies of the Hubble picture, fitted together, into out/scene/"
	@echo "make docs     the documentation as a site, build/site/index.html; warnings are errors"
	@echo "make test     lint, types and tests"
	@echo "make test-random  the tests three times, each with other random numbers"
	@echo "make fuzz     random calls, files and command lines, FUZZ=20 times more than in the tests;"
	@echo "              SEED=random, or the number that an earlier run printed"
	@echo "make sanitize tests of the C++ kernels under address, undefined-behaviour and thread"
	@echo "              sanitizers, by each set of instructions (GCC on Linux); SETS=avx2 for one"
	@echo "make bench    training speed beside PyTorch and JAX, where these are installed"
	@echo "make gpu-test, make gpu-bench    the same on an NVIDIA GPU; they fail where none answers"
	@echo "              VENV=none PYTHON=python3: with the packages of this Python, nothing installed"
	@echo "make clean    remove the virtual environment and caches; what was trained stays"

# With VENV=none, $(PYTHON) runs what is here with the packages it has: nothing is installed.
ifeq ($(VENV),none)
RUN := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON)
else
RUN := $(VENV)/bin/python
HAS_RUN := $(VENV)/run
HAS_DEV := $(VENV)/dev
HAS_GPU := $(VENV)/gpu
HAS_DOCS := $(VENV)/docs
endif

SOURCES := $(shell find layerkit/engines -name '*.h' -o -name '*.inl' -o -name '*.cpp')

$(VENV)/run: pyproject.toml setup.py $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[galaxy]'
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

galaxy: $(HAS_RUN)
	$(RUN) examples/galaxy_gdae.py --out $(OUT)

scene: $(HAS_RUN)
	$(RUN) -m layerkit galaxy scene --out out/scene

$(VENV)/docs: $(VENV)/run
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(HAS_DOCS)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH="$(CURDIR)" $(RUN) -m mkdocs build --strict

lint: $(HAS_DEV)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(HAS_DEV)
	$(RUN) -m mypy

test: lint types
	$(RUN) -m pytest -n auto --dist worksteal

test-random: $(HAS_DEV)
	for run in 1 2 3; do LAYERKIT_TEST_SEED=random LAYERKIT_FUZZ_SEED=random \
		$(RUN) -m pytest -q -n auto --dist worksteal || exit 1; done

FUZZ ?= 20
SEED ?= random
fuzz: $(HAS_DEV)
	@seed=$(SEED); [ "$$seed" != random ] || \
		seed=$$($(RUN) -c 'import secrets; print(secrets.randbelow(2**32))'); \
	echo "seed $$seed; again: make fuzz SEED=$$seed FUZZ=$(FUZZ)"; \
	LAYERKIT_FUZZ=$(FUZZ) LAYERKIT_FUZZ_SEED=$$seed LAYERKIT_TEST_SEED=$$seed \
		$(RUN) -m pytest -s tests/fuzz

# Address, undefined-behaviour and thread sanitizers, by each set of instructions (SETS).  Without the
# tests in which memory runs out or Python unwinds the threads that are left as it ends (there the
# checks end the process), and one that reads the documentation.  Threads of OpenBLAS and JAX, which are
# built without the sanitizer, are kept out of its sight.
CHECKED := build/sanitize
UNCHECKED := runs_out or may_end_while or in_the_catalogue
TESTS_thread := tests/engines/test_sanitizers.py tests/engines/test_cpu.py
TESTS_address := $(TESTS_thread) tests/layers tests/solvers
THREADS_thread := GOTO_NUM_THREADS=1
SETS ?= $$($(RUN) -c 'from layerkit.engines import cpu; \
	print(*filter(cpu.extension().choose, ("baseline", "avx2", "avx512")))')
FLAGS_address := -O1 -g -fno-wrapv -fsanitize=address,undefined -fno-sanitize-recover=undefined
FLAGS_thread := -O1 -g -fsanitize=thread
LIBRARIES_address := asan ubsan stdc++
LIBRARIES_thread := tsan stdc++
sanitize: sanitize-address sanitize-thread

sanitize-address sanitize-thread: sanitize-%: $(VENV)/dev
	LAYERKIT_BUILD_FLAGS="$(FLAGS_$*)" $(RUN) setup.py -q build \
		--build-base $(CHECKED)/$* --build-lib $(CHECKED)/$*
	for set in $(SETS); do \
		LD_PRELOAD="$$(echo $$(for name in $(LIBRARIES_$*); do g++ -print-file-name=lib$$name.so; done))" \
		ASAN_OPTIONS=detect_leaks=0 \
		TSAN_OPTIONS=die_after_fork=0 \
		LAYERKIT_TEST_SANITIZER=$* LAYERKIT_TEST_INSTRUCTIONS=$$set \
		PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(CHECKED)/$* \
		$(THREADS_$*) $(VENV)/bin/pytest --capture=sys $(TESTS_$*) -k 'not ($(UNCHECKED))' || exit 1; \
	done

bench: $(HAS_DEV)
	$(RUN) benchmarks/cpu.py $(BENCH)

$(VENV)/gpu: $(VENV)/dev
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(CUDA)]'
	@touch $@

gpu-test: $(HAS_GPU)
	LAYERKIT_GPU=required $(RUN) -m pytest tests/engines/test_cuda.py tests/engines/test_backends.py -k 'not stand-in'

gpu-bench: $(HAS_GPU)
	$(RUN) benchmarks/gpu.py $(BENCH)

clean:
	find layerkit nets examples tests benchmarks -name __pycache__ -exec rm -rf {} +
	rm -rf $(filter-out none,$(VENV)) build *.egg-info layerkit/engines/cpu/*.so .pytest_cache .ruff_cache .mypy_cache
