"""The data layers: every example once an epoch, in a fresh order, turned fairly."""

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError, NetError

UNLIKELY = 1e-6  # a p-value below this is taken for a fault; correct code all but never is


def memory(path, arrays, **settings):
    return L.MemoryData("d", data=arrays, **settings)


def without_kernels(path, arrays, **settings):
    """The array code of MemoryData, where compiled kernels could do its work."""
    layer = memory(path, arrays, **settings)
    layer.can_use_kernels = lambda: False
    return layer


def hdf5(path, arrays, **settings):
    with h5py.File(path / "data.h5", "w") as file:
        for i, array in enumerate(arrays):
            file[f"a{i}"] = array
    names = [f"a{i}" for i in range(len(arrays))]
    return L.HDF5Data("d", path=path / "data.h5", datasets=names, **settings)


def small_blocks(path, arrays, **settings):
    """A file of which only a few rows are in memory at once."""
    return hdf5(path, arrays, block=3, mixed=2, **settings)


MAKERS = pytest.mark.parametrize("make", [memory, without_kernels, hdf5, small_blocks])


def served(net, count, top="d"):
    """The next `count` examples of a net's data layer."""
    batches = []
    while sum(map(len, batches)) < count:
        net.forward()
        batches.append(net.blobs[top].data.copy())
    return np.concatenate(batches)[:count]


def numbered(count):
    """Examples that tell their own number."""
    return [np.arange(count, dtype="float32")]


@MAKERS
def test_each_epoch_serves_each_example_once_in_a_new_order(make, rng, tmp_path):
    count, batch = (int(n) for n in rng.integers(20, 60, 2))
    net = lk.Net([make(tmp_path, numbered(count))], batch_size=batch, seed=int(rng.integers(1e9)))
    epochs = served(net, 4 * count).reshape(4, count)
    for epoch in epochs:
        assert np.sort(epoch).tolist() == list(range(count))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert net.layers["d"].position % batch == 0
    assert net.layers["d"].epoch == net.layers["d"].position / count


@MAKERS
def test_batches_larger_than_the_data_set_wrap_around(make, tmp_path):
    net = lk.Net([make(tmp_path, numbered(3))], batch_size=8)
    values = served(net, 24).reshape(8, 3)
    np.testing.assert_array_equal(np.sort(values, axis=1), np.tile([0, 1, 2], (8, 1)))


@MAKERS
def test_the_order_depends_on_seed_and_name_only(make, rng, tmp_path):
    seed = int(rng.integers(1e9))
    layer = make(tmp_path, numbered(40))
    first, again, other = (
        served(lk.Net([layer], batch_size=7, seed=s), 120) for s in (seed, seed, seed + 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    in_other_batches = served(lk.Net([layer], batch_size=16, seed=seed), 120)
    np.testing.assert_array_equal(first, in_other_batches)


@MAKERS
def test_a_test_net_serves_the_arrays_as_they_are(make, rng, tmp_path):
    images = rng.random((11, 4, 4)).astype("float32")
    layer = make(tmp_path, [images], augment="dihedral")
    net = lk.Net([layer], batch_size=5, phase="test")
    np.testing.assert_array_equal(served(net, 22), np.concatenate([images, images]))
    assert (served(lk.Net([layer], batch_size=5), 22) != np.concatenate([images, images])).any()


@MAKERS
def test_without_shuffling_the_order_is_that_of_the_arrays(make, tmp_path):
    net = lk.Net([make(tmp_path, numbered(10), shuffle=False)], batch_size=4)
    np.testing.assert_array_equal(served(net, 30), np.tile(np.arange(10), 3))


@MAKERS
def test_arrays_stay_aligned_and_only_the_first_is_scaled(make, rng, tmp_path):
    images = rng.integers(0, 256, (30, 2, 3), dtype=np.uint8)
    labels = np.arange(30, dtype="int32")
    layer = make(tmp_path, [images, labels], tops=["x", "label"], scale=1 / 255)
    net = lk.Net([layer], batch_size=8, dtype="float64")
    for _ in range(12):
        net.forward()
        x, label = net.blobs["x"].data, net.blobs["label"].data
        np.testing.assert_allclose(x, images[label.astype(int)] / 255, rtol=1e-15)


@MAKERS
def test_the_position_resumes_in_the_middle_of_an_epoch(make, rng, tmp_path):
    layer = make(tmp_path, numbered(25))
    net, fresh = (lk.Net([layer], batch_size=4, seed=3) for _ in range(2))
    served(net, int(rng.integers(1, 60)))
    fresh.set_state(net.state())
    np.testing.assert_array_equal(served(net, 80), served(fresh, 80))
    net.set_state({**net.state(), "position/d": 0})  # and back to the start
    np.testing.assert_array_equal(served(net, 80), served(lk.Net([layer], 4, seed=3), 80))


def symmetries(image):
    """The eight, by numpy's own functions, on the last two axes."""
    mirrored = image[..., ::-1]
    return [np.rot90(m, k, axes=(-2, -1)) for m in (image, mirrored) for k in range(4)]


@MAKERS
def test_augmentation_uses_the_eight_symmetries_alike(make, rng, tmp_path):
    side = int(rng.integers(2, 6))
    images = rng.permuted(np.arange(3 * 2 * side * side)).reshape(3, 2, side, side)
    layer = make(
        tmp_path, [images.astype("float32"), np.arange(3.0)], tops=["x", "label"],
        augment="dihedral",
    )
    net = lk.Net([layer], batch_size=60, seed=int(rng.integers(1e9)))
    counts = np.zeros((3, 8), int)
    for _ in range(20):
        net.forward()
        labels = net.blobs["label"].data.astype(int)
        for image, label in zip(net.blobs["x"].data, labels, strict=True):
            # Both channels turn together, and every pixel is there once: it is one of the eight.
            matches = [np.array_equal(image, s) for s in symmetries(images[label])]
            assert sum(matches) == 1
            counts[label] += matches
    assert counts.sum(axis=1).tolist() == [400] * 3
    assert stats.chisquare(counts.reshape(-1)).pvalue > UNLIKELY


def test_augmentation_turns_each_image_by_its_own_draw(rng):
    """Neighbours in a batch and the same place in later batches are independent."""
    image = np.arange(4, dtype="float32").reshape(2, 2)
    net = lk.Net(
        [L.MemoryData("d", data=np.stack([image] * 100), augment="dihedral")], batch_size=100,
        seed=int(rng.integers(1e9)),
    )
    which = {s.tobytes(): i for i, s in enumerate(symmetries(image))}
    draws = np.array([which[x.tobytes()] for x in served(net, 6400)])
    for lag in (1, 100):
        pairs = np.histogram2d(draws[:-lag], draws[lag:], bins=8)[0]
        assert stats.chi2_contingency(pairs).pvalue > UNLIKELY


def test_augmented_images_can_fill_a_flat_input(rng):
    images = rng.random((5, 3, 3)).astype("float32")
    layers = [L.Input("x", shape=(9,)), L.Dense("y", "x", units=2)]
    net = lk.Net(lk.with_data(layers, L.MemoryData("x", data=images, augment="dihedral")), 5)
    net.forward()
    assert net.blobs["x"].shape == (9,)
    possible = {s.tobytes() for image in images for s in symmetries(image)}
    assert all(row.tobytes() in possible for row in net.blobs["x"].data)


def test_repeated_examples_follow_each_other_in_the_order_of_single_ones(rng):
    images = rng.random((10, 4, 4))
    nets = [
        lk.Net([L.MemoryData("x", data=images, repeat=k)], 3 * k, dtype="float64", seed=5)
        for k in (1, 4)
    ]
    for _ in range(9):  # over the ends of epochs
        for net in nets:
            net.forward()
        one, four = (net.blobs["x"].data for net in nets)
        np.testing.assert_array_equal(np.repeat(one, 4, axis=0), four)
    assert [net.layers["x"].epoch for net in nets] == [2.7, 2.7]


def test_each_repeated_image_is_turned_by_its_own_draw(rng):
    images = rng.random((3, 4, 4))
    net = lk.Net(
        [L.MemoryData("x", data=images, repeat=50, augment="dihedral")], 150, dtype="float64"
    )
    net.forward()
    turned = net.blobs["x"].data.reshape(3, 50, 16)
    for same in turned:
        np.testing.assert_allclose(np.sort(same, axis=1), np.sort(same[:1], axis=1).repeat(50, 0))
        assert len(np.unique(same, axis=0)) > 4


def test_shuffling_a_file_mixes_blocks_from_all_over_it(rng, tmp_path):
    layer = hdf5(tmp_path, numbered(1000), block=10, mixed=5)
    net = lk.Net([layer], batch_size=50, seed=int(rng.integers(1e9)))
    starts, orders = [], set()
    for _ in range(20):  # one epoch, window by window
        window = served(net, 50)
        blocks = np.unique(window // 10)
        assert len(blocks) == 5
        assert (np.diff(window) != 1).mean() > 0.5, "the rows of a window are not mixed"
        starts.extend(blocks)
        orders.add(tuple(window % 10))
    assert len(set(starts)) == 100
    assert len(orders) == 20, "each window is mixed in an order of its own"
    # The blocks themselves come in random order: no trend along the epoch.
    assert stats.spearmanr(np.arange(100), starts).pvalue > UNLIKELY


def test_odd_sizes_of_file_block_window_and_batch(rng, tmp_path):
    for _ in range(15):
        count, block, mixed, batch = (int(n) for n in rng.integers(1, [50, 20, 6, 40]))
        layer = hdf5(tmp_path, numbered(count), block=block, mixed=mixed)
        net = lk.Net([layer], batch_size=batch, seed=int(rng.integers(1e9)))
        epochs = served(net, 3 * count).reshape(3, count)
        expected = np.tile(np.arange(count), (3, 1))
        message = f"count {count}, block {block}, mixed {mixed}, batch {batch}"
        np.testing.assert_array_equal(np.sort(epochs, axis=1), expected, message)
        net.layers["d"].sets[0].file.close()


def test_a_file_larger_than_its_window_is_never_wholly_in_memory(rng, tmp_path):
    images = np.repeat(np.arange(4000, dtype="float32")[:, None], 500, axis=1)  # 8 MB
    layer = hdf5(tmp_path, [images], block=16, mixed=4)  # a window of 0.13 MB
    net = lk.Net([layer], batch_size=50, seed=int(rng.integers(1e9)))
    tracemalloc.start()
    try:
        numbers = []
        for _ in range(80):
            net.forward()
            numbers.extend(net.blobs["d"].data[:, 0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(numbers) == list(range(4000))
    assert peak < 1e6


# What cannot be served.


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": [np.zeros((3, 2)), np.zeros(4)], "tops": ["x", "t"]}, ["'d'", "[3, 4]"]),
        ({"data": np.zeros((0, 2))}, ["'d'", "non-zero"]),
        ({"data": np.float32(1)}, ["'d'", "non-zero"]),
        ({"data": []}, ["'d'"]),
        ({"data": np.zeros((3, 2)), "tops": ["x", "t"]}, ["'d'", "1 arrays", "'t'"]),
        ({"data": [np.zeros((3, 2))] * 2}, ["'d'", "2 arrays", "name them all"]),
        ({"data": np.zeros((3, 2)), "augment": "flip"}, ["'d'", "'flip'", "dihedral"]),
        ({"data": np.zeros((3, 9)), "augment": "dihedral"}, ["'d'", "square", "(9,)"]),
        ({"data": np.zeros((3, 2, 3)), "augment": "dihedral"}, ["'d'", "square", "(2, 3)"]),
        ({"data": np.array(["a", "b"])}, ["'d'", "numbers", "<U1"]),
        ({"data": np.zeros((3, 2)), "batch": 4}, ["'d'", "batch", "shuffle"]),
    ],
    ids=[
        "lengths", "empty", "scalar", "nothing", "too many tops", "too few tops", "augment",
        "flat image", "oblong image", "text", "unknown setting",
    ],
)
def test_memory_data_that_cannot_be_served(settings, words):
    with pytest.raises(NetError) as message:
        lk.Net([L.MemoryData("d", **settings)])
    one_line(message, *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "missing.h5"}, ["missing.h5", "No such file"]),
        ({"path": "."}, ["cannot open", "directory"]),
        ({"path": "text.h5"}, ["text.h5", "cannot open"]),
        ({"path": "truncated.h5"}, ["truncated.h5", "cannot open"]),
        ({"datasets": ["pictures"]}, ["good.h5", "'pictures'", "'images'"]),
        ({"datasets": "pictures"}, ["good.h5", "'pictures'", "'images'"]),
        ({"datasets": ["group"]}, ["good.h5", "'group'"]),
        ({"datasets": ["images", "labels"], "tops": ["x", "t"]}, ["equal", "5", "7"]),
        ({"datasets": ["empty"]}, ["non-zero"]),
        ({"datasets": ["scalar"]}, ["non-zero"]),
        ({"datasets": ["words"]}, ["numbers", "text"]),
    ],
    ids=[
        "missing", "folder", "not HDF5", "truncated", "no data set", "no data set by name", "group",
        "lengths", "empty", "scalar", "text",
    ],
)
def test_files_that_cannot_be_served(settings, words, tmp_path):
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["images"], file["labels"] = np.zeros((5, 2)), np.zeros(7)
        file["empty"], file["scalar"], file["words"] = np.zeros((0, 2)), 1.0, ["a", "b"]
        file.create_group("group")
    whole = (tmp_path / "good.h5").read_bytes()
    (tmp_path / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("not a data file")
    path = tmp_path / settings.get("path", "good.h5")
    with pytest.raises(DataError) as message:
        lk.Net([L.HDF5Data("d", **{**settings, "path": path})])
    one_line(message, "'d'", "HDF5Data", *words)


def test_a_data_set_can_be_named_without_a_list(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["pictures"] = np.arange(6.0)
    net = lk.Net([L.HDF5Data("d", path=tmp_path / "d.h5", datasets="pictures", shuffle=False)], 6)
    np.testing.assert_array_equal(served(net, 6), np.arange(6))


def test_a_file_damaged_inside_is_an_error_of_the_data(rng, tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        images = rng.random((64, 100))
        file.create_dataset("images", data=images, chunks=(8, 100), fletcher32=True)
        place = file["images"].id.get_chunk_info(5).byte_offset
    with open(tmp_path / "d.h5", "r+b") as file:
        file.seek(place + 40)
        file.write(b"\xff" * 16)
    net = lk.Net([L.HDF5Data("d", path=tmp_path / "d.h5")], batch_size=8)
    with pytest.raises(DataError) as message:
        served(net, 64)
    one_line(message, "'d'", "d.h5")


@pytest.mark.parametrize(
    ("path", "word"),
    [(["a.h5"], "['a.h5']"), (None, "None"), (3, "3"), ("", "empty"), ("a\0b", "null"),
     (b"", "empty"), (io.BytesIO(), "BytesIO")],
)  # fmt: skip
def test_what_is_no_path_is_refused(path, word):
    with pytest.raises(DataError) as message:
        L.HDF5Data("d", path=path)
    one_line(message, "'d'", "path", word)


@pytest.mark.parametrize("datasets", [[], 5, None, [3], [["a"]], b"images", ["a", None]])
def test_what_names_no_data_sets_is_refused(datasets):
    with pytest.raises(NetError, match="a name or a list of names") as message:
        L.HDF5Data("d", path="d.h5", datasets=datasets)
    one_line(message, "'d'")


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, np.str_])
def test_paths_of_any_kind(kind, tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["group/images"] = np.arange(6, dtype=">i2")
    for name in ("group/images", "/group/images"):
        layer = L.HDF5Data("d", path=kind(tmp_path / "d.h5"), datasets=name, shuffle=False)
        np.testing.assert_array_equal(served(lk.Net([layer], 6), 6), np.arange(6))


def refusal(path, **settings):
    with pytest.raises(DataError) as message:
        lk.Net([L.HDF5Data("d", path=path, **settings)])
    one_line(message, "'d'", str(path))
    return str(message.value)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "d.h5")
    assert "egular file" in refusal(tmp_path / "d.h5")


WRITE_ON = """
import sys, h5py, numpy as np
file = h5py.File(sys.argv[1], "w")
file["images"] = np.zeros((5, 2))
file.flush()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_that_somebody_writes_is_no_truncated_one(tmp_path):
    command = [sys.executable, "-c", WRITE_ON, tmp_path / "d.h5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"open\n"
        text = refusal(tmp_path / "d.h5")
        child.stdin.close()
    assert "open for writing" in text
    assert "truncated" not in text
    layer = L.HDF5Data("d", path=tmp_path / "d.h5")
    assert served(lk.Net([layer], 5), 5).shape == (5, 2)


def from_elsewhere(file):
    layout = h5py.VirtualLayout((5,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "images", (5,))
    file.create_virtual_dataset("images", layout)


def unlimited(file):
    """Two kilobytes that unpack to a few gigabytes."""
    file.create_dataset("images", (2**20, 2**10), "f4", chunks=(2**10, 2**10), compression="gzip")
    file["images"][:1024] = np.zeros((1024, 1024))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda f: f.create_dataset("images", (5,), "f4", external=[("secret", 0, 20)]), "other"),
        (from_elsewhere, "other files"),
        (lambda f: f.__setitem__("images", h5py.ExternalLink("secret.h5", "images")), "link"),
        (lambda f: f.__setitem__("images", h5py.SoftLink("/good")), "link"),
        (lambda f: f.__setitem__("images", h5py.SoftLink("/images")), "link"),
        (lambda f: f.create_dataset("images", (2**31,), "f4"), "can hold"),
        (lambda f: f.create_dataset("images", (2**62, 2**40), "f4", chunks=(1, 1)), "can hold"),
        (lambda f: f.create_dataset("images", (2**31,), "f4", chunks=True), "can hold"),
        (unlimited, "can hold"),
        (lambda f: f.__setitem__("images", np.zeros(5, "f4,i4")), "numbers"),
        (lambda f: f.__setitem__("images", np.zeros(5, complex)), "numbers"),
        (lambda f: f.create_dataset("images", (5,), np.dtype(("f4", (3,)))), "arrays"),
        (lambda f: f.create_dataset("images", (5,), h5py.enum_dtype({"a": 1})), "enumeration"),
        (lambda f: f.create_dataset("images", (5,), h5py.vlen_dtype("f4")), "numbers"),
        (lambda f: f.create_dataset("images", (5,), h5py.ref_dtype), "numbers"),
        (lambda f: f.create_dataset("images", data=h5py.Empty("f4")), "shape"),
        (lambda f: f.__setitem__("images", np.dtype("f4")), "no data set"),
        (lambda f: f.__setitem__("labels", f["/"]), "no data set"),
    ],
)  # fmt: skip
def test_files_of_strangers_can_do_no_harm(make, word, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["images"] = np.arange(5, dtype="f4")
    (tmp_path / "secret").write_bytes(bytes(range(20)))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["good"] = np.zeros(5)
        make(file)
    assert word in refusal(tmp_path / "d.h5")
    assert "no data set" in refusal(tmp_path / "d.h5", datasets="labels/labels/images")


@pytest.mark.parametrize("how", [{}, {"compression": "gzip", "shuffle": True}, {"chunks": True},
                                 {"compression": "lzf"}, {"fletcher32": True}])
def test_the_storage_that_h5py_offers_is_read(how, rng, tmp_path):
    images = rng.integers(0, 255, (50, 7)).astype("u1")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("images", data=images, maxshape=(None, 7) if how else None, **how)
    layer = L.HDF5Data("d", path=tmp_path / "d.h5", shuffle=False, block=7)
    np.testing.assert_array_equal(served(lk.Net([layer], 50), 50), images)


def test_whole_numbers_are_never_rounded(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["images"] = np.array([2**24, 3, -(2**24)])
        file["labels"] = np.array([2**24 + 1, 3], "u4")
        file["negative"] = np.array([-(2**24) - 1, 3])
    layer = L.HDF5Data("d", path=tmp_path / "d.h5", shuffle=False)
    np.testing.assert_array_equal(served(lk.Net([layer], 3), 3), [2**24, 3, -(2**24)])
    for name in ("labels", "negative"):
        layer = L.HDF5Data("d", path=tmp_path / "d.h5", datasets=name)
        with pytest.raises(DataError) as message:
            lk.Net([layer], 2).forward()
        one_line(message, "'d'", name, "16777217", "float64")
    layer = L.HDF5Data("d", path=tmp_path / "d.h5", datasets="labels", shuffle=False)
    assert served(lk.Net([layer], 2, dtype="float64"), 2)[0] == 2**24 + 1


@pytest.mark.parametrize("bad", [{"block": 0}, {"mixed": 0}, {"block": 2.5}, {"mixed": "3"}])
def test_a_window_of_nothing_is_refused(bad):
    with pytest.raises(NetError, match="at least 1") as message:
        L.HDF5Data("d", path="d.h5", **bad)
    one_line(message, "'d'")
