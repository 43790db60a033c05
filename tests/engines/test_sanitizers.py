"""Faults that are planted are found where the kernels were built by `make sanitize`."""

import os
import subprocess
import sys

import pytest

SANITIZER = os.environ.get("LAYERKIT_TEST_SANITIZER")

# sanitizer, what it says, a program with a fault.
FAULTS = [
    (
        "thread",
        "data race",
        """
import threading
programs, x, number = [kernels.Program() for _ in range(2)], np.zeros(1 << 16), np.zeros(1)
for program in programs:
    kernels.record(program)
    kernels.add_number(x, number)
    kernels.record(None)
def add(program):  # which lets others have Python's lock
    for _ in range(3000):
        program.run()
threads = [threading.Thread(target=add, args=[program]) for program in programs]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
    ),
    (
        "address",
        "heap-buffer-overflow",
        "kernels.count(np.lib.stride_tricks.as_strided(np.zeros(8, np.int64), (20,), (8,)))",
    ),
    ("address", "signed integer overflow", "kernels.count(np.full(2, 2**63 - 1))"),
]


@pytest.mark.parametrize(("sanitizer", "says", "fault"), FAULTS)
def test_a_fault_that_is_planted_is_found(sanitizer, says, fault):
    if sanitizer != SANITIZER:
        pytest.skip(f"kernels have no {sanitizer} sanitizer")
    code = "import numpy as np\nfrom layerkit.engines import cpu\nkernels = cpu.extension()\n"
    options = os.environ.get("TSAN_OPTIONS", "") + " halt_on_error=1"
    done = subprocess.run(
        [sys.executable, "-c", code + fault],
        capture_output=True,
        text=True,
        env={**os.environ, "TSAN_OPTIONS": options},
    )
    assert done.returncode != 0
    assert says in done.stderr
