"""Lanes of HDF5Data: each process reads the rows of its own shards only."""

import json

import h5py
import numpy as np
import programs
import pytest
from processes import program

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import LayerkitError


def served(path, lanes, rows, batches, seed=0, position=0, repeat=1):
    """Return the numbers that a layer serves in so many batches."""
    settings = {"block": 5, "mixed": 3, "lanes": lanes, "repeat": repeat}
    data = L.HDF5Data("x", path=path, datasets="n", **settings)
    net = lk.Net([data], rows, seed=seed, gradients="none")
    net.set_state({**net.state(), "position/x": position})
    found = []
    for _ in range(batches):
        net.forward()
        found.append(net.blobs["x"].data[:, 0].astype(int).tolist())
    return found


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "numbers.h5"
    with h5py.File(path, "w") as file:
        file["n"] = np.arange(203).reshape(-1, 1)
    return path


@pytest.mark.parametrize(("lanes", "rows"), [(1, 7), (2, 7), (4, 4), (4, 16), (8, 25)])
def test_an_epoch_serves_rows_once_and_lanes_have_their_own(numbers, lanes, rows):
    each = 203 // lanes // rows
    batches = served(numbers, lanes, rows, 2 * each * lanes)
    for epoch in (batches[: each * lanes], batches[each * lanes :]):
        flat = [n for batch in epoch for n in batch]
        assert len(set(flat)) == len(flat) == each * lanes * rows
        assert 203 - len(flat) < lanes * (rows + 1)
        assert flat != sorted(flat)
    assert batches[: each * lanes] != batches[each * lanes :]


def test_lanes_go_on_from_any_position(numbers):
    whole = served(numbers, 4, 6, 40)
    assert served(numbers, 4, 6, 17, position=23 * 6) == whole[23:]


@pytest.mark.parametrize(("lanes", "rows"), [(None, 4), (1, 4), (2, 6), (4, 10)])
def test_examples_are_repeated_in_their_lane(numbers, lanes, rows):
    """Batches of `rows` with each example twice are those of half as many."""
    each = 203 // (lanes or 1) // (rows // 2) * (lanes or 1)
    once = served(numbers, lanes, rows // 2, each)
    twice = served(numbers, lanes, rows, each, repeat=2)
    assert twice == [np.repeat(batch, 2).tolist() for batch in once]
    assert served(numbers, lanes, rows, each - 7, position=7 * rows, repeat=2) == twice[7:]


def test_an_example_may_be_cut_by_the_end_of_a_batch(numbers):
    whole = np.repeat(np.ravel(served(numbers, None, 7, 29)), 3)
    found = np.array(served(numbers, None, 10, 60, repeat=3)).ravel()
    np.testing.assert_array_equal(found, whole[:600])


def test_rows_of_a_lane_are_mixed_across_blocks(numbers):
    batches = served(numbers, 2, 15, 12)
    assert all(len({n // 5 for n in batch}) >= 3 for batch in batches)


def test_too_few_rows_for_the_lanes_are_refused(numbers):
    with pytest.raises(LayerkitError, match="203 rows do not fill a batch of 60 in each of 4"):
        served(numbers, 4, 60, 1)


def test_each_process_reads_the_rows_of_its_shards(tmp_path, monkeypatch):
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        file["images"] = programs.pictures(256)
    monkeypatch.setenv("LANES", str(path))
    found = {}
    for processes in (1, 2, 4):
        done = program(processes, "from_lanes", 8)  # an epoch
        assert done.returncode == 0, done.stderr
        found[processes] = json.loads(done.stdout)
    assert found[1][0] == found[2][0] == found[4][0]
    assert [rows for _, rows in found.values()] == [[256], [128] * 2, [64] * 4]
