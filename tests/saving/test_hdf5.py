"""Sealed files, and the reader that looks before it reads."""

import contextlib
import hashlib
import io
import json
import tracemalloc

import h5py
import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.saving import hdf5
from layerkit.saving.hdf5.draft import PAGE, Draft


def test_a_draft_is_a_file(rng):
    draft, real = Draft(), io.BytesIO()
    for _ in range(300):
        place = int(rng.integers(0, 5 * PAGE))
        assert draft.seek(place) == real.seek(place)
        length = int(rng.choice([0, 1, 100, PAGE, 2 * PAGE + 3]))
        if rng.random() < 0.6:
            data = rng.bytes(length)
            assert draft.write(data) == real.write(data)
        else:
            assert draft.read(length) == real.read(length)
        assert draft.tell() == real.tell()
    assert draft.seek(0, io.SEEK_END) == real.seek(0, io.SEEK_END) == draft.length
    assert b"".join(draft.content(0, draft.length)) == real.getvalue()


def test_rows_of_a_big_data_set_take_no_memory(rng, tmp_path):
    path, row = tmp_path / "big.h5", rng.random((100, 1000)).astype("f4")
    tracemalloc.start()
    with hdf5.Rows(tmp_path, row.shape, "<f4") as rows:
        for i in range(100):
            rows.append(row + np.float32(i))

        def fill(file):
            rows.reserve(file, "images")
            file["more"] = np.arange(3)

        hdf5.write_sealed(path, "kind", fill, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 40_000_000
    assert peak < 15_000_000
    with h5py.File(path) as file:
        for i in (0, 57, 99):
            np.testing.assert_array_equal(file["images"][i], row + np.float32(i))
        np.testing.assert_array_equal(file["more"], np.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["big.h5"]
    with hdf5.open_sealed(path, "kind", "a kind", DataError) as reader:
        found = reader.array("images", kinds="f", shape=(100, 100, 1000), rows=2)
    np.testing.assert_array_equal(found[1], row + np.float32(1))


def test_rows_of_another_shape_are_refused(tmp_path):
    with hdf5.Rows(tmp_path, (2, 3), "<f4") as rows, pytest.raises(ValueError, match="shape"):
        rows.append(np.zeros((3, 2)))


def test_the_checksum_is_that_of_all_bytes_before_it(rng, tmp_path):
    path = tmp_path / "a.h5"
    hdf5.write_sealed(path, "a kind of file", lambda file: file.__setitem__("a", np.arange(9)))
    content = path.read_bytes()
    assert content.startswith(b"a kind of file\n\0")
    assert content[hdf5.HEADER :].startswith(hdf5.SIGNATURE)
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    assert hdf5.is_sealed(path, "a kind of file")
    assert not hdf5.is_sealed(path, "another kind")
    flipped = bytearray(content)
    flipped[rng.integers(hdf5.HEADER, len(content))] ^= 4
    for damaged in (content + b"\0", content[:-1], content[1:], flipped, content[: hdf5.HEADER]):
        path.write_bytes(damaged)
        with (
            pytest.raises(DataError, match=r"truncated.*; do so$"),
            hdf5.open_sealed(path, "a kind of file", "a file", DataError, "; do so"),
        ):
            pass


def test_a_fault_while_a_file_is_made_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.h5"
    hdf5.write_sealed(path, "kind", lambda file: None)
    before = path.read_bytes()

    def fail(file):
        file["a"] = np.zeros(10**5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hdf5.write_sealed(path, "kind", fail)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@contextlib.contextmanager
def reader(path, fill, size=None):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        fill(file)
    with hdf5.open_unsealed(path, DataError) as found:
        found.size = size or found.size
        yield found


def test_texts_and_numbers_come_back(tmp_path):
    def fill(file):
        hdf5.attribute(file, "text", "å \n 銀河" * 20_000)
        hdf5.attribute(file, "number", 2**40)
        hdf5.attribute(file, "json", json.dumps({"a": [1, None, "\udcff"]}))
        file.attrs["any length"] = "å"
        file.attrs.create("ascii", "abc", dtype=h5py.string_dtype("ascii", 10))

    with reader(tmp_path / "a.h5", fill) as file:
        assert file.text("text") == "å \n 銀河" * 20_000
        assert file.integer("number") == 2**40
        assert file.json("json") == {"a": [1, None, "\udcff"]}
        assert file.text("any length") == "å"
        assert file.text("ascii") == "abc"
        assert file.has("text")
        assert not file.has("none")


def test_an_attribute_larger_than_the_file_is_not_read(tmp_path):
    with (
        reader(
            tmp_path / "a.h5", lambda f: hdf5.attribute(f, "text", "x" * 1000), size=999
        ) as file,
        pytest.raises(DataError, match="claims to be of 1,000 bytes"),
    ):
        file.text("text")


def test_a_damaged_heap_is_not_walked(tmp_path):
    """Objects of a heap that do not follow each other: HDF5 would go round for ever."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["text"] = "hello"
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    for size in (2**64 - 16, 2**64 - 1, 2**63, 10**6):
        content[heap + 24 : heap + 32] = size.to_bytes(8, "little")
        path.write_bytes(content)
        with hdf5.open_unsealed(path, DataError) as file, pytest.raises(DataError, match="heap"):
            file.text("text")


def test_names_that_are_not_utf_8(tmp_path):
    def fill(file):
        group = file.create_group("g")
        group.id.links.create_soft(b"\xff\xfe", b"/")

    with reader(tmp_path / "a.h5", fill) as file, pytest.raises(DataError, match="'g'"):
        file.names("g")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "none"])
def test_names_that_lead_nowhere(name, tmp_path):
    with reader(tmp_path / "a.h5", lambda f: f.create_group("a/b")) as file:
        assert not file.is_group(name)
        assert not file.is_dataset("a", name)
        assert file.names("a", name) == []
        with pytest.raises(DataError, match="missing"):
            file.dataset(name, kinds="f")


def test_unknown_and_repeated_filters_are_refused(tmp_path):
    def fill(file):
        for name, filters in {"twice": [(1, (9,)), (1, (9,))], "unknown": [(32004, ())]}.items():
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((10,))
            for number, values in filters:
                plan.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
            space = h5py.h5s.create_simple((10,))
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=plan)

    with reader(tmp_path / "a.h5", fill) as file:
        for name in ("twice", "unknown"):
            with pytest.raises(DataError, match=f"'{name}' is compressed by filters"):
                file.dataset(name, kinds="f")


def test_foreign_byte_order_is_turned(tmp_path):
    with reader(tmp_path / "a.h5", lambda f: f.__setitem__("a", np.arange(3, dtype=">f8"))) as file:
        found = file.array("a", kinds="f", shape=(None,))
    np.testing.assert_array_equal(found, [0, 1, 2])
    assert found.dtype == np.dtype("=f8")
