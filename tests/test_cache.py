"""Compiled kernels on disk: damage, full disks and other users' folders cost time, no results."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import layerkit

pytest.importorskip("numba", reason="there are no kernels without Numba")

import numba

from layerkit.backends import cache, threads
from layerkit.backends.cache import CacheFile, keep_on_disk

DAMAGES = {
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "short": lambda content: content[:7],
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "another file": lambda content: b"#!/bin/sh\n" * 50,
}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(cache, "_said", [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_as_good_as_none(damage, tmp_path):
    file = CacheFile(str(tmp_path), "f-1.py3", ("a", 1))
    assert file.load("int64") is None
    file.save("int64", [1, "code" * 100])
    file.save("float64", [2])
    assert file.load("int64") == [1, "code" * 100]
    assert file.load("float64") == [2]
    path = file._path("int64")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert file.load("int64") is None
    file.save("int64", [3])
    assert file.load("int64") == [3]
    assert {p.suffix for p in tmp_path.iterdir()} == {".nbc"}, "nothing is left lying about"


def test_code_of_other_sources_is_not_loaded_but_removed(tmp_path):
    old, new = (CacheFile(str(tmp_path), "f-1.py3", stamp) for stamp in (1, 2))
    other = CacheFile(str(tmp_path), "g-1.py3", 1)
    old.save("int64", "old")
    other.save("int64", "other")
    assert new.load("int64") is None
    new.save("int64", "new")
    assert (old.load("int64"), new.load("int64")) == (None, "new")
    assert other.load("int64") == "other"


def test_a_folder_in_the_place_of_a_file(tmp_path):
    file = CacheFile(str(tmp_path), "f-1.py3", 1)
    file._path("int64").mkdir()
    assert file.load("int64") is None
    with pytest.raises(IsADirectoryError):
        file.save("int64", 1)
    assert [p.suffix for p in tmp_path.iterdir()] == [".nbc"]


@pytest.fixture
def plus_one(tmp_path):
    """A function of a file of its own, compiled when called, and that file."""
    path = tmp_path / "module.py"
    path.write_text("def plus_one(x):\n    return x + 1\n")
    spec = importlib.util.spec_from_file_location("module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return numba.njit(module.plus_one), path


def test_code_is_kept(plus_one):
    function, path = plus_one
    keep_on_disk(function, str(path), 1)
    assert function(1) == 2
    again = numba.njit(function.py_func)
    keep_on_disk(again, str(path), 1)
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 1
    changed = numba.njit(function.py_func)
    keep_on_disk(changed, str(path), 2)
    assert changed(1) == 2
    assert sum(changed.stats.cache_hits.values()) == 0


def test_no_place_is_warned_about_once(plus_one, monkeypatch):
    function, path = plus_one
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    (path.parent / "__pycache__").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    with pytest.warns(RuntimeWarning, match="not kept on disk .*NUMBA_CACHE_DIR") as seen:
        keep_on_disk(function, str(path), 1)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep_on_disk(numba.njit(function.py_func), str(path), 1)
    assert function(1) == 2


def test_a_full_disk_is_warned_about_once(plus_one, monkeypatch):
    function, path = plus_one
    keep_on_disk(function, str(path), 1)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as seen:
        assert function(1) == 2
    assert len(seen) == 1
    assert function(1.5) == 2.5, "without a second warning"


@pytest.mark.skipif(not hasattr(os, "chown") or os.getuid() != 0, reason="only root can give away")
def test_code_from_somebody_elses_folder_is_not_run(plus_one, monkeypatch):
    function, path = plus_one
    folder = path.parent / "theirs"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    keep_on_disk(function, str(path), 1)
    assert function(1) == 2
    for left in [folder, *folder.rglob("*")]:
        os.chown(left, 12345, 12345)
    again = numba.njit(function.py_func)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        keep_on_disk(again, str(path), 1)
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 0


TRAIN = """
import zlib
import numpy as np
import layerkit as lk
from layerkit import layers as L
data = np.random.default_rng(0).random((9, 6)).astype("float32")
net = lk.Net([
    L.MemoryData("x", data=data), L.Dense("h", "x", units=5, neuron="relu"),
    L.Dense("y", "h", units=6), L.SquareLoss("loss", "y", "x"),
], 3, seed=1)
lk.Adam(net).steps(5)
print(net.run.team is not None, zlib.crc32(net.arena.data.tobytes()))
"""


def train(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment}, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_a_damaged_cache_is_made_anew(tmp_path):
    """Of a whole installation: each damage in another file, all at once."""
    package = tmp_path / "layerkit"
    shutil.copytree(Path(layerkit.__file__).parent, package)
    expected, _ = train(tmp_path)
    kernels = {
        "native._state": "one bit", "native._set_state": "cut in half",
        "memory_data.gather": "empty",
    }
    damaged = {}
    for kernel, damage in kernels.items():
        for path in package.rglob(f"{kernel}-*.nbc"):  # of other types and processors, too
            damaged[path] = path.read_bytes()
            path.write_bytes(DAMAGES[damage](damaged[path]))
    assert damaged
    found, errors = train(tmp_path)
    assert (found, errors) == (expected, "")
    sizes = {p: len(p.read_bytes()) / len(content) for p, content in damaged.items()}
    for kernel in kernels:
        assert any(
            size == pytest.approx(1, rel=0.1) for p, size in sizes.items()
            if p.name.startswith(f"{kernel}-")
        ), f"{kernel} has not been written again: {sizes}"


@pytest.mark.parametrize("value", ["all", "-2", "4,2", " 1 ", "", "²", "9" * 5000, "1e3", "0x2"])
def test_numbers_of_threads_that_are_no_numbers(value, monkeypatch):
    for name in threads.LIMITS:
        monkeypatch.delenv(name, raising=False)
    available = threads.thread_count()
    for name in threads.LIMITS:
        monkeypatch.setenv(name, value)
        limit = {"4,2": 4, " 1 ": 1}.get(value, available)
        assert threads.thread_count() == min(limit, available)
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS"])
def test_without_numba_one_line_says_so_and_array_code_runs(name):
    """Turned off, or unable to start."""
    root = Path(layerkit.__file__).parent.parent
    value = "1" if name == "NUMBA_DISABLE_JIT" else "-1"
    (kernels, checksum), errors = train(root, **{name: value})
    assert kernels == "False"
    assert int(checksum)
    (line,) = (line for line in errors.splitlines() if "Warning" in line)
    assert "RuntimeWarning: nets run on array code" in line
    assert "Numba" in line
    assert "Traceback" not in errors
