"""Fixtures shared by all tests."""

import gc
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

# JAX is asked for each number once: it takes longer to optimise its code than to run it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Tests run on each core already: joblib starts no processes and threads of its own.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# Hundreds of processes that tests start, and each worker, would compile all modules once more.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Makes kernels use the instructions that LAYERKIT_TEST_INSTRUCTIONS names."""
    if name := os.environ.get("LAYERKIT_TEST_INSTRUCTIONS"):
        from layerkit.engines import cpu

        kernels = cpu.extension()
        if kernels is None or not kernels.choose(name):
            raise pytest.UsageError(f"LAYERKIT_TEST_INSTRUCTIONS={name}: no kernels run these here")


def pytest_collection(session):
    """Collects no garbage while tests are collected: thousands of objects, and all of them stay."""
    gc.disable()


def pytest_collection_finish(session):
    gc.freeze()  # else each collection of garbage visits them all again
    gc.enable()


@pytest.fixture
def rng(request):
    """Random numbers from a fixed seed, or from LAYERKIT_TEST_SEED, a number or "random"."""
    seed = os.environ.get("LAYERKIT_TEST_SEED") or "0"
    seed = np.random.SeedSequence().entropy % 2**32 if seed == "random" else int(seed)
    print(f"LAYERKIT_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def cupy_on_host(rng):
    """`cupy` on a machine without a GPU: the stand-in of tests/cuda_host while a test runs."""
    import cuda_host

    if reason := cuda_host.missing():
        pytest.skip(reason)
    with cuda_host.installed(seed=int(rng.integers(1, 2**31))) as cupy:
        yield cupy


@pytest.fixture
def small_disk(tmp_path):
    """Makes a folder on a disk of so many bytes, and none more."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no disk of its own can be mounted: {error}")
        if done.returncode:
            pytest.skip(f"no disk of its own can be mounted: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
