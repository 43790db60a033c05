"""The data layers: every example once an epoch, in a fresh order, turned fairly."""

import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.nddata import CCDData, NDDataArray
from scipy import sparse, stats

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError, NetError

UNLIKELY = 1e-6  # a p-value below this is taken for a fault; correct code all but never is


def memory(path, arrays, **settings):
    return L.MemoryData("d", data=arrays, **settings)


class OwnData(L.MemoryData):
    """A class that engines have no kernels for."""


def without_kernels(path, arrays, **settings):
    """The array code of MemoryData."""
    return OwnData("d", data=arrays, **settings)


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
        tmp_path,
        [images.astype("float32"), np.arange(3.0)],
        tops=["x", "label"],
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
        [L.MemoryData("d", data=np.stack([image] * 100), augment="dihedral")],
        batch_size=100,
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
        net.layers["d"].opened[0][0].file.close()


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


# An epoch of a test net.


@MAKERS
def test_an_epoch_of_a_test_net_serves_each_example_once(make, tmp_path):
    """2,500 rows in batches of 999: 999, 999 and 502, and then the next epoch."""
    net = lk.Net([make(tmp_path, numbered(2500))], batch_size=999, phase="test")
    for _ in range(2):
        batches = []
        for _ in range(3):
            net.forward()
            batches.append(net.blobs["d"].data.copy())
        assert [len(b) for b in batches] == [999, 999, 502]
        np.testing.assert_array_equal(np.concatenate(batches), np.arange(2500))
    net.set_state({**net.state(), "position/d": 2499})
    net.forward()
    assert net.blobs["d"].data.tolist() == [2499]


def test_repeated_examples_of_a_test_net_end_with_the_epoch(rng):
    net = lk.Net([L.MemoryData("x", data=np.arange(5.0), repeat=3)], 4, phase="test")
    values = []
    for _ in range(4):
        net.forward()
        values.extend(net.blobs["x"].data)
    assert values == np.repeat(np.arange(5.0), 3).tolist()
    assert net.layers["x"].position == 15


def test_a_data_set_smaller_than_a_batch(rng):
    net = lk.Net([L.MemoryData("x", data=np.arange(3.0))], 8, phase="test")
    for _ in range(2):
        net.forward()
        assert net.blobs["x"].data.tolist() == [0, 1, 2]


def scored(data, labels):
    return [
        L.MemoryData("d", data=[data, labels], tops=["x", "t"]),
        L.Dense("y", "x", units=3),
        L.SoftmaxLoss("loss", "y", "t"),
        L.Accuracy("right", "y", "t"),
    ]


@pytest.mark.parametrize("batch", [1, 7, 999, 2500, 4000])
def test_evaluation_is_the_mean_over_all_examples(batch, rng):
    data, labels = rng.standard_normal((2500, 4)), rng.integers(0, 3, 2500)
    train = lk.Net(scored(data, labels), 16, dtype="float64")
    lk.Adam(train, 1e-2).steps(20)
    net = lk.Net(scored(data, labels), batch, dtype="float64", phase="test", share=train)
    net.forward()
    state, losses = net.state(), dict(net.losses)
    logits = data @ train.params["y/weight"].data + train.params["y/bias"].data
    loss = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(2500), labels]).mean()
    right = (logits.argmax(axis=1) == labels).mean()
    for _ in range(2):
        means = net.evaluate()
        assert means == {
            "loss": pytest.approx(loss, rel=1e-12),
            "right": pytest.approx(right, rel=1e-12),
        }
    assert (net.state(), net.losses) == (state, losses)


@pytest.mark.parametrize(
    ("layers", "phase", "words"),
    [
        (scored(np.zeros((4, 2)), np.zeros(4)), "train", ["phase 'test'", "share="]),
        ([L.Input("x", shape=(2,)), L.ReLU("y", "x")], "test", ["with_data", "'x'"]),
        (
            [
                L.MemoryData("x", data=np.zeros(4)),
                L.MemoryData("t", data=np.zeros(5)),
                L.SquareLoss("loss", "x", "t"),
            ],
            "test",
            ["equal length", "4", "5"],
        ),
    ],
    ids=["train", "inputs", "lengths"],
)
def test_what_cannot_be_evaluated(layers, phase, words):
    with pytest.raises(NetError) as message:
        lk.Net(layers, phase=phase).evaluate()
    one_line(message, "evaluate", *words)


def given(data, labels):
    """`scored` with Input layers."""
    inputs = [L.Input("x", shape=data.shape[1:]), L.Input("t", shape=())]
    return [*inputs, *scored(data, labels)[1:]]


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("batch", [1, 7, 250, 4000])
def test_evaluation_of_what_is_given_is_the_mean_over_all_of_it(phase, batch, rng, tmp_path):
    data, labels = rng.standard_normal((250, 4)), rng.integers(0, 3, 250)
    net = lk.Net(given(data, labels), batch, dtype="float64", phase=phase)
    net.forward(x=data[:1], t=labels[:1])
    before = net.state(), dict(net.losses), net.rows, net.blobs["y"].data.copy()
    logits = data @ net.params["y/weight"].data + net.params["y/bias"].data
    loss = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(250), labels]).mean()
    right = (logits.argmax(axis=1) == labels).mean()
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["x"], file["t"] = data, labels
        for examples in (
            {"x": data, "t": labels},
            {"t": list(labels), "x": file["x"]},
            L.MemoryData("d", data=[data, labels], tops=["x", "t"]),
            L.HDF5Data("t", path=tmp_path / "set.h5", datasets=["t", "x"], tops=["t", "x"]),
        ):
            means = net.evaluate(examples)
            assert list(means) == ["loss", "right"]
            assert means["loss"] == pytest.approx(loss, rel=1e-12)
            assert means["right"] == pytest.approx(right, rel=1e-12)
    after = net.state(), dict(net.losses), net.rows, net.blobs["y"].data.copy()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    if phase == "train":
        net.backward()  # of the pass before the evaluations


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_labels_to_be_ignored_count_in_no_batch_of_an_evaluation(batch, rng):
    data, labels = rng.standard_normal((30, 3)), rng.integers(0, 3, (30, 2))
    labels[:15] = labels[16, 0] = 255
    data = np.stack([data, rng.standard_normal((30, 3))], axis=2)
    layers = [
        L.Accuracy("right", "x", "t", axis=0, ignore=255),
        L.SoftmaxLoss("loss", "x", "t", axis=0, ignore=255),
    ]
    inputs = [L.Input("x", shape=(3, 2)), L.Input("t", shape=(2,))]
    counts = labels != 255
    right = (data.argmax(axis=1) == labels)[counts].mean()
    net = lk.Net([*inputs, *layers], batch)
    assert net.evaluate({"x": data, "t": labels})["right"] == pytest.approx(right, rel=1e-6)
    source = L.MemoryData("d", data=[data, labels], tops=["x", "t"])
    own = lk.Net([source, *layers], batch, phase="test").evaluate()
    assert own["right"] == pytest.approx(right, rel=1e-6)
    logs = data - np.log(np.exp(data).sum(axis=1, keepdims=True))
    each = np.take_along_axis(logs, np.where(counts, labels, 0)[:, None], axis=1)[:, 0]
    assert own["loss"] == pytest.approx(-(each * counts).sum() / 30, rel=1e-6)
    assert np.isnan(net.evaluate({"x": data[:15], "t": labels[:15]})["right"])


def test_a_net_that_trains_on_data_of_its_own_is_evaluated_on_others(rng):
    data, labels = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)
    net = lk.Net(scored(data, labels), 8, dtype="float64")
    solver = lk.Adam(net, 1e-2)
    solver.steps(3)
    other = lk.Net(given(data, labels), 8, dtype="float64", phase="test", share=net)
    new = {"x": rng.standard_normal((11, 4)), "t": rng.integers(0, 3, 11)}
    assert net.evaluate(new) == other.evaluate(new)
    assert net.layers["d"].position == 24


def test_evaluation_repeats_its_noise_and_changes_none_that_follows(rng):
    layers = [
        L.Input("x", shape=(4,)),
        L.Dropout("d", "x"),
        L.Reparameterize("z", "d", "d"),
        L.SquareLoss("loss", "z", "x"),
    ]
    x = rng.standard_normal((30, 4))
    net, other = lk.Net(layers, 8, seed=3), lk.Net(layers, 8, seed=3)
    first = net.evaluate({"x": x})
    assert net.evaluate({"x": x}) == first
    assert net.forward(x=x[:8]) == other.forward(x=x[:8])
    assert net.evaluate({"x": x}) != first
    np.testing.assert_array_equal(net.infer("z", x=x), other.infer("z", x=x))


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        ([1, 2], ["arrays by blob", "[1, 2]"]),
        ({}, ["at least one blob"]),
        ({"x": np.zeros((3, 4))}, ["'t' is needed", "t="]),
        ({"x": np.zeros((3, 4)), "t": np.zeros(2)}, ["number of rows", "3", "2"]),
        ({"x": np.zeros((3, 5)), "t": np.zeros(3)}, ["'x'", "(3, 5)"]),
        ({"x": np.zeros((3, 4)), "u": np.zeros(3)}, ["no blob 'u'"]),
        (L.ReLU("a", "x"), ["'a' (ReLU) is no data layer"]),
        (L.MemoryData("x", data=np.zeros((3, 4))), ["'t' is needed"]),
        (L.MemoryData("w", data=np.zeros((3, 4))), ["'w' (MemoryData)", "no blob 'w'"]),
        (L.MemoryData("x", data=np.zeros((3, 5))), ["'x' (MemoryData)", "(5,)", "(4,)"]),
    ],
)
def test_examples_that_cannot_be_evaluated(examples, words):
    net = lk.Net(given(np.zeros((4, 4)), np.zeros(4)), 2)
    with pytest.raises(NetError) as message:
        net.evaluate(examples)
    one_line(message, *words)
    with pytest.raises(NetError, match="no loss or metric layer"):
        lk.Net([L.Input("x", shape=(2,))], 2).evaluate({"x": np.zeros((3, 2))})


def test_inputs_beside_data_end_with_the_epoch(rng):
    net = lk.Net(
        [
            L.MemoryData("x", data=np.arange(5.0)),
            L.Input("t", shape=()),
            L.SquareLoss("loss", "x", "t"),
        ],
        4,
        phase="test",
        dtype="float64",
    )
    assert net.forward(t=np.zeros(4)) == 0.5 * (0 + 1 + 4 + 9) / 4
    with pytest.raises(NetError) as message:
        net.forward(t=np.zeros(4))
    one_line(message, "'t'", "4 rows", "1 left", "epoch")
    assert net.forward(t=np.zeros(1)) == 0.5 * 16


def test_a_solver_of_a_test_net_steps_over_short_batches(rng):
    data = rng.standard_normal((7, 3))
    net = lk.Net(
        [L.MemoryData("x", data=data), L.Dense("y", "x", units=3), L.SquareLoss("loss", "y", "x")],
        4,
        phase="test",
        gradients="parameters",
        dtype="float64",
    )
    solver = lk.SGD(net, 1e-9)
    losses = solver.steps(4)
    y = data @ net.params["y/weight"].data + net.params["y/bias"].data
    each = 0.5 * ((y - data) ** 2).sum(axis=1)
    np.testing.assert_allclose(losses, [each[:4].mean(), each[4:].mean()] * 2, rtol=1e-6)


# Arrays that come from outside.


def test_the_callers_array_is_copied(rng, tmp_path):
    array = rng.random((6, 3))
    expected = array.copy()
    layers = [L.MemoryData("x", data=array, shuffle=False)]
    array[...] = -1
    net = lk.Net(layers, 6, dtype="float64")
    array[...] = -2
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, expected)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_a_mapped_file_stays_on_disk(kernels, rng, tmp_path):
    images = rng.random((20, 4, 4)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    layer = L.MemoryData("x", data=mapped, shuffle=False)
    assert np.may_share_memory(layer.arrays[0], mapped)
    net = lk.Net([layer], 20, kernels=kernels)
    assert np.may_share_memory(net.layers["x"].arrays[0], mapped)
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, images)
    writeable = np.load(tmp_path / "images.npy", mmap_mode="r+")
    assert not np.may_share_memory(L.MemoryData("x", data=writeable).arrays[0], writeable)


LAYOUTS = {
    "bool": lambda a: a > 0.5,
    "float16": lambda a: a.astype("float16"),
    "longdouble": lambda a: a.astype("longdouble"),
    "big": lambda a: a.astype(">f8"),
    "big integers": lambda a: (100 * a).astype(">i4"),
    "uint8": lambda a: (200 * a).astype("uint8"),
    "int64": lambda a: (200 * a).astype("int64"),
    "Fortran": np.asfortranarray,
    "stride": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(map(tuple, a)),
    "matrix": lambda a: np.asmatrix(a),
    "masked nowhere": lambda a: np.ma.masked_array(a),
    "read only": lambda a: read_only(a),
    "object with __array__": lambda a: Wrapped(a),
}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class Wrapped:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, place):
        return Wrapped(self.array[place])


@pytest.mark.filterwarnings("ignore:.*matrix subclass.*:PendingDeprecationWarning")
@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_of_any_layout_keep_their_values(layout, kernels, rng):
    given = LAYOUTS[layout](rng.random((6, 4)))
    plain = given.array if layout == "object with __array__" else given
    expected = np.array(np.asarray(plain), "float64").astype("float32")
    data = given if layout not in ("list", "tuple") else [given]
    net = lk.Net([L.MemoryData("x", data=data, shuffle=False)], 6, kernels=kernels)
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, expected)
    net = lk.Net([L.Input("x", shape=(4,)), L.Add("y", "x")], 6, kernels=kernels)
    net.forward(x=given)
    np.testing.assert_array_equal(net.blobs["x"].data, expected)
    np.testing.assert_array_equal(net.infer("y", x=given), expected)


def masked():
    return np.ma.masked_array(np.ones((6, 4)), np.arange(24).reshape(6, 4) == 9)


REFUSED = {
    "masked": masked,
    "masked by Astropy": lambda: CCDData(np.ones((6, 4)), unit="adu", mask=masked().mask),
    "masked rows by Astropy": lambda: [NDDataArray(row.data, mask=row.mask) for row in masked()],
    "masked rows": lambda: [row for row in masked()],
    "masked in a list": lambda: [list(row) for row in masked()],
    "masked integers": lambda: np.ma.masked_equal(np.arange(24).reshape(6, 4), 3),
    "complex": lambda: np.ones((6, 4), complex),
    "text": lambda: np.full((6, 4), "a"),
    "objects": lambda: np.full((6, 4), None),
    "dates": lambda: np.zeros((6, 4), "datetime64[s]"),
    "records": lambda: np.zeros((6, 4), [("a", "f4")]),
    "bytes": lambda: np.full((6, 4), b"1"),
    "ragged": lambda: [[1.0] * 4, [1.0] * 3],
    "sparse": lambda: sparse.eye_array(6, 4),
    "a dictionary": lambda: {"x": np.ones((6, 4))},
    "a set": lambda: {1.0, 2.0},
    "a generator": lambda: (np.ones(4) for _ in range(6)),
    "None": lambda: None,
    "large numbers": lambda: [[10**30] * 4] * 6,
    "a word": lambda: "pictures",
    "an array that cannot be had": lambda: Wrapped(None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_holds_no_numbers_is_refused_everywhere(what, rng):
    layers = [L.Input("x", shape=(4,)), L.Dense("y", "x", units=4), L.SquareLoss("loss", "y", "x")]
    net = lk.Net(layers, 6)
    solver = lk.SGD(net, 0.1)
    for use in (
        lambda a: net.forward(x=a),
        lambda a: net.infer("y", x=a),
        lambda a: solver.step(x=a),
        lambda a: solver.steps(2, x=a),
        lambda a: lk.check_gradients(net, x=a),
        lambda a: lk.check_gradients(L.Tanh("y", "x"), x=a),
        lambda a: lk.Net([L.MemoryData("d", data=a)]),
        lambda a: diffs(net, a),
    ):
        with pytest.raises(NetError) as message:
            use(REFUSED[what]())
        one_line(message)
        if what.startswith("masked"):
            one_line(message, "mask")


def diffs(net, array):
    net.forward(x=np.ones((6, 4)))
    net.backward(y=array)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("float64", 53)])
@MAKERS
def test_integers_keep_their_values_or_are_refused(make, dtype, bits, tmp_path):
    good = np.array([2**bits - 1, -(2**bits), 2**bits, 0])
    inputs = lk.Net([L.Input("id", shape=()), L.Add("y", "id")], 4, dtype=dtype)

    def served(ids):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        layer = make(folder, [np.zeros((4, 2), "uint8"), ids], tops=["x", "id"])
        net = lk.Net([layer], 4, dtype=dtype, phase="test")
        net.forward()
        return net.blobs["id"].data

    for kind in ("int64", ">i8"):
        assert [int(v) for v in served(good.astype(kind))] == good.tolist()
    for bad in (2**bits + 1, -(2**bits) - 1, 2**62 + 1):
        ids = np.array([1, 2, bad, 4])
        with pytest.raises(NetError) as message:
            served(ids)
        one_line(message, "'d'", "'id'", str(bad), "row 2", dtype)
        for use in (lambda a: inputs.forward(id=a), lambda a: inputs.infer("y", id=a)):
            with pytest.raises(NetError) as message:
                use(ids)
            one_line(message, "'id'", str(bad), "row 2", dtype)
            use(ids.astype(dtype))  # rounded on purpose


@MAKERS
def test_scaled_integers_are_rounded_like_other_numbers(make, tmp_path):
    counts = np.array([2**30 + 1, 3])
    net = lk.Net([make(tmp_path, [counts], scale=2.0**-30)], 2, phase="test")
    net.forward()
    np.testing.assert_allclose(net.blobs["d"].data, [1, 3 * 2.0**-30], rtol=1e-7)


@MAKERS
def test_numbers_too_large_for_the_net_are_refused(make, tmp_path):
    numbers = np.array([[1.0, np.inf], [-1e39, np.nan]])
    with pytest.raises(NetError) as message:
        lk.Net([make(tmp_path, [numbers])], 2).forward()
    one_line(message, "'d'", "1e+39", "float32", "3.4e+38")
    net = lk.Net([L.Input("x", shape=(2,)), L.Add("y", "x")], 2)
    for use in (lambda a: net.forward(x=a), lambda a: net.infer("y", x=a)):
        with pytest.raises(NetError) as message:
            use(numbers)
        one_line(message, "'x'", "1e+39", "float32")
        use(numbers[:1])  # infinite from the start
    net = lk.Net([L.Input("x", shape=(2,))], 2, dtype="float64")
    net.forward(x=numbers)
    np.testing.assert_array_equal(net.blobs["x"].data, numbers)
    if np.finfo("longdouble").max > np.longdouble("1e400"):  # not so everywhere
        with pytest.raises(NetError, match="float64"):
            net.forward(x=numbers.astype("longdouble") * np.longdouble("1e400"))


def test_unsigned_integers_beyond_the_signed_ones():
    net = lk.Net([L.Input("id", shape=())], 2, dtype="float64")
    with pytest.raises(NetError, match=str(2**64 - 1)):
        net.forward(id=np.array([1, 2**64 - 1], "uint64"))


# Data that cannot be served.


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
        "lengths",
        "empty",
        "scalar",
        "nothing",
        "too many tops",
        "too few tops",
        "augment",
        "flat image",
        "oblong image",
        "text",
        "unknown setting",
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
        "missing",
        "folder",
        "not HDF5",
        "truncated",
        "no data set",
        "no data set by name",
        "group",
        "lengths",
        "empty",
        "scalar",
        "text",
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
    [([], "[]"), (["a.h5", 3], "3"), ([["a.h5"]], "[["),
     (None, "None"), (3, "3"), ("", "not empty"), ("a\0b", "without NUL"),
     (b"", "not empty"), (io.BytesIO(), "BytesIO")],
)  # fmt: skip
def test_what_is_no_path_is_refused(path, word):
    with pytest.raises(NetError) as message:
        L.HDF5Data("d", path=path)
    one_line(message, "'d'", "path", word)


@pytest.mark.parametrize("datasets", [[], 5, None, [3], [["a"]], b"images", ["a", None]])
def test_what_names_no_data_sets_is_refused(datasets):
    with pytest.raises(NetError, match="a name, or a list of names") as message:
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


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "gzip", "shuffle": True},
        {"chunks": True},
        {"compression": "lzf"},
        {"fletcher32": True},
    ],
)
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
        with pytest.raises(NetError) as message:
            lk.Net([layer], 2).forward()
        one_line(message, "'d' (HDF5Data)", "16777217", "float64")
    layer = L.HDF5Data("d", path=tmp_path / "d.h5", datasets="labels", shuffle=False)
    assert served(lk.Net([layer], 2, dtype="float64"), 2)[0] == 2**24 + 1


@pytest.mark.parametrize("bad", [{"block": 0}, {"mixed": 0}, {"block": 2.5}, {"mixed": "3"}])
def test_a_window_of_nothing_is_refused(bad):
    with pytest.raises(NetError, match="at least 1") as message:
        L.HDF5Data("d", path="d.h5", **bad)
    one_line(message, "'d'")


@pytest.mark.parametrize("position", [-1, 2.5, "3", None, 2**63], ids=repr)
def test_what_is_no_position(position):
    net = lk.Net([L.MemoryData("d", data=np.ones((3, 2)))], 2)
    with pytest.raises(NetError) as message:
        net.layers["d"].position = position
    one_line(message, "'d'", "position must be a whole number, at least 0")


@MAKERS
@pytest.mark.parametrize(("scale", "words"), [(1e300, "inf"), (-1e-60, "0.0")])
def test_a_scale_that_the_floats_of_the_net_cannot_hold(make, scale, words, tmp_path):
    layer = make(tmp_path, [np.ones((3, 2))], scale=scale)
    with pytest.raises(NetError) as message:
        lk.Net([layer], 2)
    one_line(message, "'d'", "scale", "float32", words)
    assert lk.Net([layer], 2, dtype="float64").forward() == 0.0


def test_wrong_hints_about_data_sets_and_empty_arrays(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/a"] = np.zeros((5, 2))
        file.create_dataset("ragged", (5,), h5py.vlen_dtype("f4"))
    hints = {"g": "has 'g/a'", "g/b": "has 'g/a'", "h": "has 'g', 'ragged'", "ragged": "lengths"}
    for name, words in hints.items():
        with pytest.raises(DataError, match=words):
            lk.Net([L.HDF5Data("d", path=tmp_path / "a.h5", datasets=name)])
    with pytest.raises(NetError, match=r"array 1 has no numbers: its shape is \(5, 0\)"):
        L.MemoryData("d", data=[np.zeros((5, 2)), np.zeros((5, 0))], tops=["x", "y"])


def test_arrays_by_name_are_not_an_array(tmp_path):
    """A dict, or what `np.load` makes of an .npz: NumPy would take the latter for its names."""
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)))
    with np.load(tmp_path / "a.npz") as file:
        for given, kind in ((file, "NpzFile"), ({"x": np.ones((3, 2))}, "dict")):
            with pytest.raises(NetError) as message:
                L.MemoryData("x", data=given)
            one_line(message, kind, "by name")


def test_a_relative_path_is_that_of_when_the_layer_was_made(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.arange(6, dtype="float32").reshape(3, 2)
    monkeypatch.chdir(tmp_path)
    net = lk.Net([L.HDF5Data("x", path="data.h5", shuffle=False)], 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = net.rebuild()
    again.forward()
    np.testing.assert_array_equal(again.blobs["x"].data, [[0, 1], [2, 3], [4, 5]])


def test_scale_is_decided_with_the_net():
    """An integer that only a scale made fit would lose its last bit without one."""
    net = lk.Net([L.MemoryData("d", data=np.array([[2**24 + 1]]), scale=0.5)], 1)
    with pytest.raises(NetError, match="scale"):
        net.layers["d"].scale = 1.0
    assert net.layers["d"].scale == 0.5
