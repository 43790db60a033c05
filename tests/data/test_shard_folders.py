"""Folders of shards as data: read as one set, with rows left out, and from any position."""

import json

import h5py
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError
from layerkit.layers.sources import hdf5_data

LENGTHS = 7, 0, 12, 1, 9


@pytest.fixture
def shards(tmp_path):
    """A folder of shards of the numbers 0 to 28, one shard empty."""
    folder, start, parts = tmp_path / "shards", 0, []
    folder.mkdir()
    for k, rows in enumerate(LENGTHS):
        parts.append({"file": f"{k}.h5"})
        with h5py.File(folder / f"{k}.h5", "w") as file:
            file["n"] = np.arange(start, start + rows, dtype="float32").reshape(-1, 1)
        (folder / f"{k}.json").write_text(json.dumps({"kept": rows}))
        start += rows
    (folder / "index.json").write_text(json.dumps({"parts": parts}))
    return folder


def layer(path, **settings):
    return L.HDF5Data("x", path=path, datasets="n", **{"block": 3, "mixed": 2, **settings})


def served(layer, batch, passes, state=None, seed=4):
    net = lk.Net([layer], batch, seed=seed, gradients="none")
    if state:
        net.set_state(state)
    found = []
    for _ in range(passes):
        net.forward()
        found += net.blobs["x"].data[:, 0].astype(int).tolist()
    return found, net.state()


@pytest.mark.parametrize("lanes", [None, 2])
def test_shards_are_served_as_one_file(shards, lanes, tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["n"] = np.arange(29, dtype="float32").reshape(-1, 1)
    both = [served(layer(p, lanes=lanes), 3, 20) for p in (shards, tmp_path / "whole.h5")]
    assert both[0] == both[1]


@pytest.mark.parametrize("lanes", [None, 2])
def test_rows_are_left_out_and_runs_go_on_from_any_batch(shards, lanes, monkeypatch):
    monkeypatch.setattr(hdf5_data, "OPEN", 2)
    skip = [28, 0, 6, 7, 8, 20]
    left = set(range(29)) - set(skip)
    data = layer(shards, skip=skip, lanes=lanes)
    whole, end = served(data, 2, 40)
    epoch = 20 if lanes else 23
    for start in (0, epoch):
        rows = whole[start : start + epoch]
        assert len(set(rows)) == epoch
        assert set(rows) <= left
        assert rows != sorted(rows)
    assert whole[:epoch] != whole[epoch : 2 * epoch]
    for passes in (1, 7, 15):
        first, state = served(data, 2, passes)
        second, last = served(data, 2, 40 - passes, state)
        assert first + second == whole
        assert last == end
    assert len(served(data, 2, 1)[0]) == 2


@pytest.mark.parametrize("skip", [[], [0], [28], [3, 4, 5], [6, 7], list(range(28))])
def test_in_order_all_others_are_served(shards, skip):
    found, _ = served(layer(shards, skip=skip, shuffle=False), 1, 29 - len(set(skip)))
    assert found == sorted(set(range(29)) - set(skip))


def test_few_files_are_open_at_a_time(shards, monkeypatch):
    monkeypatch.setattr(hdf5_data, "OPEN", 2)
    net = lk.Net([layer(shards)], 5, gradients="none")
    for _ in range(12):
        net.forward()
        assert len(net.layers["x"].opened) <= 2


def test_training_on_shards_is_resumed_bit_for_bit(shards, tmp_path):
    def solver():
        layers = [
            layer(shards, skip=[1, 12], scale=0.1),
            L.Dense("h", "x", units=3, neuron="tanh"),
            L.Dense("y", "h", units=1),
            L.SquareLoss("loss", "y", "x"),
        ]
        return lk.Adam(lk.Net(layers, 4, seed=2), 0.01)

    whole = solver()
    losses = whole.steps(25)
    first, second = solver(), solver()
    before = first.steps(9)
    lk.save(tmp_path / "s.h5", first.net, first)
    lk.load(tmp_path / "s.h5", second.net, second)
    np.testing.assert_array_equal([*before, *second.steps(16)], losses)
    np.testing.assert_array_equal(second.net.arena.data, whole.net.arena.data)


def test_sets_that_cannot_be_served(shards):
    for skip, words in (([29], "row 29, and the files have 29"), (list(range(29)), "all 29 rows")):
        with pytest.raises(DataError, match=words):
            lk.Net([layer(shards, skip=skip)], 2)
    for skip in ([0.5], [-1], [[1]], "ab"):
        with pytest.raises(lk.errors.LayerkitError, match="numbers of rows"):
            layer(shards, skip=skip)
    (shards / "3.json").unlink()
    with pytest.raises(DataError, match="1 of 5 parts are missing"):
        lk.Net([layer(shards)], 2)
    for text in ("{", "[]", '{"parts": 3}', '{"parts": [{"file": "../0.h5"}]}'):
        (shards / "index.json").write_text(text)
        with pytest.raises(DataError, match="no index of a set in shards"):
            lk.Net([layer(shards)], 2)
    (shards / "index.json").unlink()
    with pytest.raises(DataError, match=r"without index\.json"):
        lk.Net([layer(shards)], 2)
