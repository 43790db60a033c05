"""A fault that ends one process soon ends all, and the message names it."""

import json
import subprocess
import time

import h5py
import programs
import pytest
from processes import HERE, launcher, program, run

SAID = {
    "raise": "error: rank 1 of 2: ValueError: a shelf fell down",
    "bug": "LayerkitError: rank 1 of 2: TypeError: 'NoneType' object is not callable",
    "nan": "NotFiniteError: rank 1 of 2: the loss is nan at iteration 20: the data hold",
    "differ": "NetError: Distributed: rank 1 differs from rank 0 in its parameters; all",
    "leave": "error: rank 0 of 2: rank 1 has ended while this process goes on; all must",
    "hang": "error: rank 0 of 2: nothing has come from rank 1 for 3 s; it may have died",
}


OTHERS = {
    "rows": "NetError: Distributed: rank 1 differs from rank 0 in its data of layer 'x'; all",
    "examples": "NetError: Distributed: rank 1 differs from rank 0 in its data of layer 'x'; all",
    "missing": "error: rank 1 of 2: layer 'x' (HDF5Data): cannot open ",
    "ratio": "NetError: Distributed: rank 1 differs from rank 0 in its settings of layer 'kept'",
    "rate": "NetError: Distributed: rank 1 differs from rank 0 in its settings of the solver; all",
    "inputs": "NetError: step: rank 1 has shards of 8 rows, and rank 0 of 4; all",
}


@pytest.mark.parametrize("kind", SAID)
def test_one_message_names_the_rank_and_the_cause(kind):
    started = time.perf_counter()
    done = program(2, "fault", kind, limit=30)
    assert done.returncode
    assert done.stderr.count(SAID[kind]) == 1, done.stderr
    assert sum("rank" in line and "Error: " in line for line in done.stderr.splitlines()) <= 1
    assert time.perf_counter() - started < 20
    if kind in ("nan", "bug", "differ"):
        assert done.stdout.splitlines() == ["unchanged"] * 2


@pytest.mark.parametrize("kind", OTHERS)
def test_a_process_with_other_data_or_settings_ends_all(kind, tmp_path):
    images = programs.pictures(64)
    given = {"rows": images[:-1], "examples": images[::-1]}.get(kind)
    for rank, its in enumerate([images, given]):
        if its is not None:
            with h5py.File(tmp_path / f"{rank}.h5", "w") as file:
                file["images"] = its
    started = time.perf_counter()
    done = program(2, "differing", kind, tmp_path, limit=30)
    assert done.returncode
    assert done.stderr.count(OTHERS[kind]) == 1, done.stderr
    assert time.perf_counter() - started < 20


def test_a_killed_process_ends_all():
    done = program(2, "fault", "kill", limit=30)
    assert done.returncode
    assert "signal 9" in done.stdout + done.stderr  # as the launcher says


def test_others_end_too_where_the_launcher_lets_them_be():
    help = subprocess.run([launcher(), "-help"], capture_output=True, text=True, check=False)
    if "-disable-auto-cleanup" not in help.stdout:
        pytest.skip("this mpiexec always ends the others; that of MPICH can let them be")
    options = ["-disable-auto-cleanup"]
    assert run(2, HERE / "programs.py", "fault", "kill", options=options, limit=20).returncode


def test_a_signal_in_one_process_ends_all_after_one_step(tmp_path):
    done = program(2, "stopped", tmp_path)
    assert done.returncode == 0, done.stderr
    (ending, iteration), other = json.loads(done.stdout)
    assert (ending, iteration) == tuple(other) == ("interrupted", 7)
    assert [p.name for p in tmp_path.iterdir()] == ["snapshot-000000007.h5"]
    assert done.stderr.count("training:   0%") == 1  # one bar


def test_a_run_is_resumed_by_any_number_of_processes(tmp_path):
    found = {}
    for name, runs in {"whole": [(1, 12)], "parts": [(2, 7), (4, 9), (1, 12)]}.items():
        folder = tmp_path / name
        folder.mkdir()
        for processes, until in runs:
            done = program(processes, "resumed", folder, until)
            assert done.returncode == 0, done.stderr
        found[name] = [done.stdout, (folder / "log.csv").read_text()]
        found[name].append(sorted(p.name for p in folder.iterdir()))
    assert found["parts"] == found["whole"]
