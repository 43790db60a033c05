"""A few hundred damaged files; `python tests/fuzz/files.py` tries as many as one likes."""

import numpy as np
import pytest

from fuzz import files


@pytest.mark.parametrize("part", range(2))
def test_damaged_files_are_refused_or_loaded_right(rng, part):
    seed = int(rng.integers(2**31))
    assert not files.fuzz(seed, 0, 150)


@pytest.mark.parametrize("kind", files.KINDS)
def test_the_fuzzer_sees_a_fault(kind, tmp_path):
    """Files that are intact pass, and other numbers in place of what was stored do not."""
    subject = kind(tmp_path)
    subject.check(True)
    if not issubclass(kind, files.UsersFile):  # which has no checksum
        subject.expected = None
        with pytest.raises(AssertionError, match="in silence"):
            subject.check(True)


def test_the_fuzzer_reports_hangs_crashes_and_errors(tmp_path, monkeypatch):
    """Each case that fails is named, and the ones after it are tried."""
    script = tmp_path / "bad.py"
    script.write_text(
        "import os, signal, sys\n"
        "for case in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    print(f'case {case} Snapshot', flush=True)\n"
        "    print('made', flush=True)\n"
        "    if case == 1: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if case == 3: sys.exit('ValueError: raw')\n"
    )
    monkeypatch.setattr(files, "__file__", str(script))
    faults = files.fuzz(7, 0, 6)
    assert faults == [
        "seed 7, case 1 Snapshot: signal 11", "seed 7, case 3 Snapshot: ValueError: raw"
    ]  # fmt: skip


def test_all_ways_of_damage_are_taken():
    changed = 0
    content = bytes(range(256)) * 30
    for case in range(60):
        rng = np.random.default_rng(case)
        damaged = files.BYTES[case % len(files.BYTES)](rng, content)
        changed += damaged != content
    assert changed > 40
