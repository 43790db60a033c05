"""Prepared sets: loading, splitting, contact sheets."""

import contextlib
import hashlib
import io
import json
import os

import h5py
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import is_prepared, load, split
from layerkit.galaxy.images.sources.sources import open_source


def test_load(prepared):
    galaxies = load(prepared)
    assert len(galaxies) == len(galaxies.ids) == len(galaxies.images) > 20
    assert galaxies.images.shape[1:] == (69, 69)
    assert galaxies.images.dtype == np.float32
    assert len(galaxies) + len(galaxies.excluded) == galaxies.read == 120
    assert sum(galaxies.excluded_counts.values()) == len(galaxies.excluded)
    few = load(prepared, limit=7)
    assert few.ids == galaxies.ids[:7]
    np.testing.assert_array_equal(few.images, galaxies.images[:7])
    np.testing.assert_array_equal(few.crops, galaxies.crops[:7])
    assert few.scales.shape == (7,)


def test_built_in_galaxies_are_all_different(prepared):
    galaxies, source = load(prepared), open_source(None)
    corners = np.array([source.boxes[source.ids.index(name)][:2] for name in galaxies.ids])
    centres = corners + galaxies.crops[:, :2] + galaxies.crops[:, 2:] / 2
    apart = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1))
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 3


def test_what_cannot_be_loaded(prepared, rng, tmp_path):
    def message(path):
        with pytest.raises(DataError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in message(tmp_path / "gone.h5")
    content = prepared.read_bytes()
    broken = tmp_path / "broken.h5"
    for length in (0, 100, len(content) // 2, len(content) - 1000):
        broken.write_bytes(content[:length])
        assert "truncated" in message(broken)
    broken.write_text("galaxies")
    assert "not a galaxy set" in message(broken)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((3, 69, 69))
    assert "not a galaxy set" in message(tmp_path / "other.h5")
    for place in rng.integers(len(content), size=20):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        broken.write_bytes(damaged)
        assert "damaged" in message(broken) or "not a galaxy set" in message(broken)
    # Files of version 1, told from their attributes.
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["format"], file.attrs["version"] = "layerkit galaxy set", 1
    assert "older version" in message(tmp_path / "old.h5")


@contextlib.contextmanager
def edited(path):
    """The inside of a set, to be changed; its checksum is then made right again."""
    image = io.BytesIO(path.read_bytes()[:-32])
    with h5py.File(image, "r+") as file:
        yield file
    path.write_bytes(image.getvalue() + hashlib.sha256(image.getvalue()).digest())


def change(name, value):
    def action(file):
        del file[name]
        if value is not None:
            file[name] = value

    return action


def attribute(name, value):
    def action(file):
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return action


def about(**values):
    def action(file):
        file.attrs["about"] = json.dumps(json.loads(file.attrs["about"]) | values)

    return action


def claims(shape):
    def action(file):
        del file["images"]
        file.create_dataset("images", shape, "f4")

    return action


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (change("images", None), "'images'"),
        (change("images", np.zeros((6, 69, 69), "f4")), "shape"),
        (change("images", np.zeros((5, 69, 68), "f4")), "square"),
        (change("images", np.zeros((5, 0, 0), "f4")), "square"),
        (change("images", np.zeros((5, 9, 9), "i4")), "floats"),
        (change("images", np.full((5, 9, 9), np.nan)), "finite"),
        (claims((5, 2**15, 2**15)), "more than the file can hold"),
        (change("crops", np.zeros((5, 2))), "shape"),
        (change("crops", np.full((5, 3), np.inf)), "finite"),
        (change("scales", np.zeros(4)), "shape"),
        (change("scales", h5py.ExternalLink("a.h5", "b")), "link"),
        (attribute("ids", None), "'ids'"),
        (attribute("ids", '["a", "b", "c", "d"]'), "shape"),
        (attribute("ids", '["a", "b", "c", "d", "d"]'), "twice"),
        (attribute("ids", '["a", "b", "c", "d", 5]'), "strings"),
        (attribute("ids", '{"a": 1}'), "list"),
        (attribute("ids", "["), "JSON"),
        (attribute("excluded", '["a"]'), "dict"),
        (attribute("excluded", '{"a": 5}'), "strings"),
        (attribute("about", "[]"), "dict"),
        (attribute("about", "{}"), "'source'"),
        (about(read="x"), "'read'"),
        (about(read=True), "'read'"),
        (about(settings=[1]), "'settings'"),
        (about(origin=3), "'origin'"),
        (attribute("version", 99), "version 99"),
        (attribute("version", 1), "prepare the set again"),
        (attribute("version", "two"), "'version'"),
        (attribute("version", None), "'version'"),
    ],
)
def test_parts_that_are_missing_or_wrong(damage, word, tmp_path):
    path = tmp_path / "set.h5"
    prepare(Squares(5), path, progress=False)
    with edited(path) as file:
        damage(file)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert is_prepared(path)


class Squares:
    """A source of round galaxies, each a little larger than the one before."""

    def __init__(self, count, peak=0.6):
        self.name, self.peak = "squares", peak
        self.ids = [f"s{i}" for i in range(count)]

    def __len__(self):
        return len(self.ids)

    def read(self, i):
        dy, dx = np.mgrid[:64, :64] - 31.5
        noise = np.random.default_rng(i).normal(0.02, 0.005, (64, 64))
        image = noise + self.peak * np.exp(-(dy**2 + dx**2) / (8 + i))
        return np.clip(image, 0, 1).astype("f4")


def test_the_digest_tells_sets_apart(tmp_path):
    def digest(source, **settings):
        prepare(source, tmp_path / "set.h5", progress=False, **settings)
        return load(tmp_path / "set.h5").digest

    first = digest(Squares(5))
    assert first == digest(Squares(5), origin={"other": 1})
    assert first == digest(Squares(6), limit=5)
    assert first == load(tmp_path / "set.h5", 5).digest
    renamed = Squares(5)
    renamed.ids[3] = "other"
    others = [digest(Squares(5, peak=0.61)), digest(renamed), digest(Squares(4))]
    assert len({first, *others}) == 4


def test_only_files_are_sets(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/null", "a\0b", tmp_path / "none", None):
        assert not is_prepared(path)
    with pytest.raises(DataError, match="not a regular file"):
        load(tmp_path / "fifo")
    with pytest.raises(DataError, match="a folder, and not one that prepare_shards"):
        load(tmp_path)
    with pytest.raises(DataError, match="file name too long"):
        load(tmp_path / ("x" * 300))


def test_hdf5_data_reads_prepared_sets(prepared):
    galaxies = load(prepared)
    data = L.HDF5Data("x", path=prepared, shuffle=False)
    net = lk.Net([data], batch_size=len(galaxies))
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, galaxies.images)


def held(ids, count, **settings):
    train, held_out = split(ids, count, **settings)
    assert len(held_out) == count
    assert train.dtype == held_out.dtype == np.int64
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(ids)))
    return {ids[i] for i in held_out}


def test_split_depends_on_the_ids_alone(rng):
    ids = [str(i) for i in rng.choice(10**6, 2000, replace=False)]
    chosen = held(ids, 200)
    assert chosen == held(list(rng.permutation(ids)), 200)
    assert chosen <= held(ids, 300)
    # With as many ids again, half of the 200 are expected to stay, and no other old one comes in.
    more = held([*ids, *(f"new{i}" for i in range(2000))], 200)
    assert {i for i in more if not i.startswith("new")} <= chosen
    assert 50 < len(more & chosen) < 150
    other = held(ids, 200, salt="validation")
    assert len(other & chosen) < 60
    # Not by place: the held out are spread over the set.
    order = np.array(sorted(split(ids, 200)[1])) / 2000
    assert abs(order.mean() - 0.5) < 0.1
    assert held(ids, 0) == set()


def test_split_leaves_enough_to_train_on():
    assert len(held(list("abcdefgh"), 4)) == 4
    with pytest.raises(DataError, match=r"held out 5 of 8 .* at most 4"):
        split(list("abcdefgh"), 5)
    with pytest.raises(DataError, match="held_out must be a whole number, at least 0, got -1"):
        split(list("abcdefgh"), -1)


@pytest.mark.parametrize("held_out", [True, 0.5, "1", None])
def test_a_count_to_hold_out_that_is_none(held_out):
    with pytest.raises(DataError, match="split: held_out must be a whole number"):
        split(["a", "b", "c"], held_out)
