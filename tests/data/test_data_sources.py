"""Data layers prefetch, standardise, cut, mirror and resume; files and folders as sources."""

import contextlib
import copy
import csv
import gc
import itertools
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import stats

import layerkit as lk
from layerkit import layers as L
from layerkit.data import prefetch
from layerkit.errors import DataError, NetError

UNLIKELY = 1e-6
COUNT = 23


class Sequence:
    """Examples by number, a function that can be pickled."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __call__(self, start):
        for n in itertools.count(start):
            yield self.images[n % COUNT], self.labels[n % COUNT]


class Epoch(Sequence):
    def __call__(self):
        return zip(self.images, self.labels, strict=True)


def levels(rng, count=COUNT, shape=(3, 8, 6)):
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def memory(path, images, **settings):
    return L.MemoryData("d", data=[images, np.arange(len(images))], tops=["x", "t"], **settings)


def hdf5(path, images, **settings):
    """Three files."""
    names = []
    for i, part in enumerate(np.array_split(np.arange(len(images)), 3)):
        names.append(path / f"{i}.h5")
        if not names[-1].exists():
            with h5py.File(names[-1], "w") as file:
                file["x"], file["t"] = images[part], part
    tops = ["x", "t"]
    return L.HDF5Data("d", path=names, datasets=tops, tops=tops, block=4, mixed=2, **settings)


def folder(path, images, **settings):
    pairs = []
    for i, image in enumerate(images):
        Image.fromarray(np.moveaxis(image, 0, -1)).save(path / f"{i:02}.png")
        pairs.append((f"{i:02}.png", i))
    return L.ImageData("d", folder=path, table=pairs, tops=["x", "t"], **settings)


def generator(path, images, **settings):
    make = Sequence(images, np.arange(len(images)))
    return L.GeneratorData("d", make=make, count=len(images), tops=["x", "t"], **settings)


def epochs(path, images, **settings):
    make = Epoch(images, np.arange(len(images)))
    return L.GeneratorData("d", make=make, tops=["x", "t"], **settings)


KINDS = {"memory": memory, "hdf5": hdf5, "folder": folder, "generator": generator, "epochs": epochs}
ALL = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def passes(net, count):
    """Return the examples that the next passes of a net see."""
    found = []
    for _ in range(count):
        net.forward()
        found.append((net.blobs["x"].data.copy(), net.blobs["t"].data.copy()))
    return found


def assert_equal(a, b):
    for (x, t), (other, label) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, other)
        np.testing.assert_array_equal(t, label)


def everything(make, path, images, **settings):
    """A layer that does all that it can."""
    group = {} if make in (generator, epochs) else {"mean": "channel", "deviation": "element"}
    return make(path, images, crop=(5, 4), mirror=True, **group, **settings)


# Batches prepared by a thread.


@ALL
@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_prefetched_batches_are_equal_bit_for_bit(make, phase, kernels, rng, tmp_path):
    images = levels(rng)
    nets = []
    for depth in (0, 1, 3):
        layer = everything(make, tmp_path, images, prefetch=depth)
        nets.append(lk.Net([layer], 5, phase=phase, seed=4, kernels=kernels))
    plain, *ahead = (passes(net, 12) for net in nets)
    assert_equal(plain, ahead[0])
    assert_equal(plain, ahead[1])


@ALL
def test_denormal_numbers_are_treated_alike_in_the_thread(make, rng, tmp_path):
    images = levels(rng)
    nets = [lk.Net([make(tmp_path, images, scale=1e-40, prefetch=k)], 4) for k in (0, 2)]
    assert_equal(*(passes(net, 3) for net in nets))


@ALL
@pytest.mark.parametrize("depth", [0, 2])
def test_a_run_is_resumed_bit_for_bit(make, depth, rng, tmp_path):
    images = levels(rng)

    def net():
        return lk.Net(
            [
                everything(make, tmp_path, images, prefetch=depth),
                L.Dense("y", "x", units=2),
                L.SquareLoss("loss", "y", "y"),
            ],
            5,
            seed=4,
        )

    first = net()
    passes(first, int(rng.integers(1, 12)))
    lk.save(tmp_path / "s.h5", first)
    resumed, copied, unpickled = net(), copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    passes(resumed, 2)
    lk.load(tmp_path / "s.h5", resumed)
    after = passes(first, 9)
    for other in (resumed, copied, unpickled):
        assert_equal(after, passes(other, 9))


@ALL
@pytest.mark.parametrize("batch", [1, 4, COUNT, 50])
def test_evaluation_sees_each_example_once(make, batch, rng, tmp_path):
    images = levels(rng)
    layer = make(tmp_path, images)
    tail = [L.Input("zero", shape=()), L.SquareLoss("loss", "t", "zero")]
    squares = 0.5 * np.mean(np.arange(COUNT) ** 2.0)
    zeros = L.MemoryData("zero", data=np.zeros(COUNT))
    net = lk.Net(lk.with_data([layer, *tail], zeros), batch, dtype="float64", phase="test")
    assert net.evaluate()["loss"] == pytest.approx(squares, rel=1e-12)
    inputs = [L.Input("x", shape=(3, 8, 6)), L.Input("t", shape=()), L.Reduce("m", "x")]
    other = lk.Net([*inputs, L.SquareLoss("loss", "t", "t")], batch, dtype="float64")
    other.evaluate(layer)
    seen = lk.Net([layer], batch, phase="test", dtype="float64")
    labels = []
    while len(labels) < COUNT:
        labels.extend(passes(seen, 1)[0][1])
    assert labels == list(range(COUNT))


def test_a_new_state_is_followed_at_once(rng, tmp_path):
    layer = everything(hdf5, tmp_path, levels(rng), prefetch=3)
    net, fresh = lk.Net([layer], 4, seed=1), lk.Net([layer], 4, seed=2)
    start = net.state()
    first = passes(net, 4)
    net.set_state({**net.state(), "seed": 2})
    fresh.set_state(net.state())
    assert_equal(passes(net, 4), passes(fresh, 4))
    net.set_state(start)
    assert_equal(first, passes(net, 4))


def test_batches_that_were_prepared_with_other_moments_are_not_served(rng, tmp_path):
    layer = everything(hdf5, tmp_path, levels(rng), prefetch=3)
    net, other = lk.Net([layer], 4), lk.Net([layer], 4)
    passes(net, 2)
    passes(other, 2)
    time.sleep(0.2)  # until the next are ready
    net.statistics["d/mean"].data[...] += 100
    (x, t), (changed, label) = passes(other, 1)[0], passes(net, 1)[0]
    np.testing.assert_array_equal(t, label)
    assert (changed < x).all()


@pytest.mark.parametrize(("phase", "batches"), [("train", 7), ("test", 6)])
def test_what_is_prepared_is_used(phase, batches, rng):
    """Each batch is made once, those that end an epoch of a test net with fewer rows among them."""
    calls = []

    class Counted(L.MemoryData):
        def host(self, epoch, start, stop):
            calls.append((epoch, start, stop))
            return super().host(epoch, start, stop)

    settings = {"augment": "dihedral", "prefetch": 2}
    net = lk.Net([Counted("x", data=rng.random((10, 4, 4)), **settings)], 4, phase=phase)
    for _ in range(batches):
        net.forward()
    spans = [(10 * epoch + start, 10 * epoch + stop) for epoch, start, stop in list(calls)]
    made = [n for start, stop in spans for n in range(start, stop)]
    assert made == list(range(len(made))), "made twice, or never used"
    assert len(made) >= (28 if phase == "train" else 20)


class Faulty:
    def __init__(self, number, error):
        self.number, self.error = number, error

    def __call__(self, start):
        for n in itertools.count(start):
            if n == self.number:
                raise self.error
            yield np.full(2, n)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_errors_reach_the_caller_in_the_pass_that_they_belong_to(depth):
    layer = L.GeneratorData("d", make=Faulty(10, ValueError("no such star")), prefetch=depth)
    net = lk.Net([layer], 4)
    for _ in range(2):
        net.forward()
        time.sleep(0.01)
    for _ in range(2):
        with pytest.raises(DataError) as message:
            net.forward()
        for word in ("'d'", "GeneratorData", "example 10", "ValueError", "no such star"):
            assert word in str(message.value)
    net.set_state({**net.state(), "position/d": 20})
    net.forward()
    np.testing.assert_array_equal(net.blobs["d"].data[:, 0], [20, 21, 22, 23])


@pytest.mark.parametrize("depth", [0, 2])
def test_a_program_that_ends_in_a_generator_ends(depth):
    net = lk.Net([L.GeneratorData("d", make=Faulty(4, SystemExit(3)), prefetch=depth)], 4)
    net.forward()
    with pytest.raises(SystemExit):
        net.forward()


def threads():
    return [t for t in threading.enumerate() if t.name == "layerkit data"]


def test_a_net_that_is_dropped_takes_its_thread_along(rng, tmp_path):
    before = threads()
    net = lk.Net([hdf5(tmp_path, levels(rng), prefetch=2)], 4)
    passes(net, 3)
    (own,) = set(threads()) - set(before)
    layer = weakref.ref(net.layers["d"])
    del net
    deadline = time.monotonic() + 20
    while (layer() or own.is_alive()) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert layer() is None
    assert not own.is_alive()


STUCK = """
import itertools, signal, sys, threading, time
import numpy as np
import layerkit as lk
from layerkit import layers as L
from layerkit.data import prefetch

def make(start):
    for n in itertools.count(start):
        if n >= 8:
            print("stuck", flush=True)
            threading.Event().wait()
        yield np.zeros(2)

net = lk.Net([L.GeneratorData("d", make=make, prefetch=2)], 4)
net.forward()
net.forward()
if sys.argv[1] == "exit":
    sys.exit(7)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    net.forward()
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_nothing_hangs_where_the_thread_does(how):
    done = subprocess.run([sys.executable, "-c", STUCK, how], timeout=60)
    assert done.returncode == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
@ALL
def test_a_fork_goes_on_by_itself(make, rng, tmp_path):
    net = lk.Net([everything(make, tmp_path, levels(rng), prefetch=2)], 5, kernels="array")
    passes(net, 3)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            np.savez(tmp_path / "child.npz", *(x for pair in passes(net, 6) for x in pair))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with np.load(tmp_path / "child.npz") as found:
        arrays = list(found.values())
    assert_equal(list(zip(arrays[::2], arrays[1::2], strict=True)), passes(net, 6))


def test_without_a_thread_batches_are_made_as_they_are_needed(rng, tmp_path, monkeypatch):
    layer = everything(hdf5, tmp_path, levels(rng), prefetch=2)
    expected = passes(lk.Net([layer], 5), 4)

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert_equal(passes(lk.Net([layer], 5), 4), expected)


def test_a_layer_without_host_arrays_cannot_be_prefetched():
    from layerkit.layers.sources.data import Data

    class Ones(Data):
        def __init__(self, name, prefetch):
            super().__init__(name, None, True, None, 1.0, prefetch=prefetch)
            self.count = 9

        def example_shapes(self):
            return [(2,)]

        def fetch(self, epoch, start, stop):
            return [np.ones((stop - start, 2))]

    lk.Net([Ones("d", 0)], 2).forward()
    with pytest.raises(NetError, match="prefetch needs a method host"):
        lk.Net([Ones("d", 1)], 2)


# Means and deviations.


def standardised(x, axes, scale=1.0):
    x = x.astype("float64") * scale
    mean = x.mean(axis=axes, keepdims=True)
    deviation = x.std(axis=axes, keepdims=True)
    return (x - mean) / np.where(deviation < 1e-9, 1, deviation)


AXES = {"all": None, "channel": (0, 2, 3), "element": 0}


@pytest.mark.parametrize("make", [memory, hdf5, folder])
@pytest.mark.parametrize("group", AXES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_measured_moments_are_those_of_the_whole_set(make, group, prefetch, rng, tmp_path):
    images = levels(rng, shape=(3, 4, 5))
    images[:, :, 2, 2] = 7  # one pixel never varies
    layer = make(
        tmp_path, images, mean=group, deviation=group, scale=3.0, shuffle=False, prefetch=prefetch
    )
    net = lk.Net([layer], COUNT, dtype="float64")
    assert np.isnan(net.statistics["d/mean"].data).all()
    stored = images / 255 if make is folder else images
    expected = standardised(stored, AXES[group], 3.0)
    np.testing.assert_allclose(passes(net, 1)[0][0], expected, atol=1e-6)


def test_moments_are_measured_in_pieces(rng, monkeypatch):
    from layerkit.layers.sources import standard

    monkeypatch.setattr(standard, "PIECE", 100)
    x = 1e6 + rng.standard_normal((57, 3, 2, 2))
    for group, axes in AXES.items():
        layer = L.MemoryData("x", data=x, mean=group, deviation=group, shuffle=False)
        net = lk.Net([layer], 57, dtype="float64")
        net.forward()
        np.testing.assert_allclose(net.blobs["x"].data, standardised(x, axes), atol=1e-7)


@pytest.mark.parametrize("crop", [None, (2, 3)])
@pytest.mark.parametrize(
    "mean", [0.25, np.array([0.1, 0.2, 0.3]), "whole", np.array([[[0.1]], [[0.2]], [[0.3]]])]
)
def test_given_moments(mean, crop, rng):
    x = rng.random((6, 3, 4, 5))
    mean = rng.random((3, 4, 5)) if isinstance(mean, str) else mean
    by_axes = mean[:, None, None] if np.ndim(mean) == 1 else mean
    expected = (2 * x - by_axes) / 0.5
    if crop:
        expected = expected[..., 1:3, 1:4]
    layer = L.MemoryData("x", data=x, scale=2.0, mean=mean, deviation=0.5, crop=crop)
    net = lk.Net([layer], 6, dtype="float64", phase="test")
    net.forward()
    np.testing.assert_allclose(net.blobs["x"].data, expected, rtol=1e-14)
    assert not net.statistics


def test_a_test_net_uses_the_moments_of_the_training_set(rng, tmp_path):
    train, test = rng.random((20, 3)), 5 + rng.random((10, 3))

    def layers(data):
        return [L.MemoryData("x", data=data, mean="channel"), L.SquareLoss("loss", "x", "x")]

    net = lk.Net(layers(train), 10, dtype="float64")
    other = lk.Net(layers(test), 10, dtype="float64", phase="test", share=net)
    with pytest.raises(NetError) as message:
        other.forward()
    assert "has not measured it yet" in str(message.value)
    net.forward()
    other.forward()
    np.testing.assert_allclose(other.blobs["x"].data, test - train.mean(axis=0), rtol=1e-14)
    lk.save(tmp_path / "s.h5", net)
    third = lk.Net(layers(test), 10, dtype="float64", phase="test")
    lk.load(tmp_path / "s.h5", third)
    third.forward()
    np.testing.assert_array_equal(third.blobs["x"].data, other.blobs["x"].data)
    # Evaluation of a layer takes the net's, and measures none.
    scored = [*layers(train)[:1], L.Input("zero", shape=(3,)), L.SquareLoss("loss", "x", "zero")]
    net = lk.Net(scored, 10, dtype="float64")
    net.forward(zero=np.zeros((10, 3)))
    data = L.MemoryData("x", data=[test, test * 0], tops=["x", "zero"], mean="channel")
    expected = 0.5 * ((test - train.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert net.evaluate(data)["loss"] == pytest.approx(expected, rel=1e-12)
    data = L.MemoryData("y", data=[test, test * 0], tops=["x", "zero"], mean="channel")
    with pytest.raises(NetError, match="no mean of that layer"):
        net.evaluate(data)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mean": "pixel"}, ["mean", "'channel'", "'pixel'"]),
        ({"mean": np.nan}, ["mean", "nan"]),
        ({"deviation": 0}, ["deviation", "positive", "got 0"]),
        ({"deviation": np.array([1.0, -1, 1])}, ["deviation", "positive"]),
        ({"mean": np.zeros(2)}, ["mean", "(2, 1, 1)", "(3, 4, 5)"]),
        ({"mean": np.zeros((3, 4, 5, 1))}, ["mean", "(3, 4, 5)"]),
        ({"mean": []}, ["mean"]),
        ({"mean": True}, ["mean", "True"]),
        ({"deviation": 1e-60}, ["deviation", "float32"]),
        ({"mean": 1e60}, ["mean", "float32"]),
        ({"crop": (5, 5)}, ["crop is (5, 5)", "(4, 5)"]),
        ({"crop": 0}, ["crop", "at least 1"]),
        ({"crop": (1, 2, 3)}, ["crop", "pair"]),
        ({"prefetch": -1}, ["prefetch", "at least 0"]),
        ({"mirror": 1}, ["mirror", "True or False"]),
        ({"data": np.zeros((4, 3)), "mirror": True}, ["pictures", "(3,)"]),
    ],
)
def test_settings_that_do_not_fit(settings, words):
    with pytest.raises(NetError) as message:
        lk.Net([L.MemoryData("d", **{"data": np.zeros((6, 3, 4, 5)), **settings})], 2)
    for word in ("'d'", *words):
        assert word in str(message.value)


def test_what_cannot_be_measured(rng):
    data = rng.random((5, 3))
    data[3, 1] = np.inf
    net = lk.Net([L.MemoryData("d", data=data, mean="channel")], 2)
    with pytest.raises(DataError, match="not finite"):
        net.forward()
    with pytest.raises(NetError, match="give numbers"):
        lk.Net([L.GeneratorData("d", make=lambda: iter(data), mean="all")], 2)


# Windows and mirror images.


def test_windows_are_cut_everywhere_alike_and_half_are_mirrored(rng):
    image = np.arange(5.0 * 6).reshape(1, 1, 5, 6)
    layer = L.MemoryData("x", data=image, crop=(3, 4), mirror=True)
    net = lk.Net([layer], 100, seed=int(rng.integers(1e9)), dtype="float64")
    windows = {}
    for i, (top, left) in enumerate(itertools.product(range(3), range(3))):
        window = image[0, :, top : top + 3, left : left + 4]
        windows[window.tobytes()] = 2 * i
        windows[np.ascontiguousarray(window[..., ::-1]).tobytes()] = 2 * i + 1
    counts = np.zeros(18, int)
    draws = []
    for _ in range(40):
        net.forward()
        draws += [windows[x.tobytes()] for x in net.blobs["x"].data]
    counts = np.bincount(draws, minlength=18)
    assert stats.chisquare(counts).pvalue > UNLIKELY
    pairs = np.histogram2d(draws[:-1], draws[1:], bins=18)[0]
    assert stats.chi2_contingency(pairs).pvalue > UNLIKELY


@ALL
def test_windows_do_not_depend_on_the_batch_size(make, rng, tmp_path):
    images = levels(rng)
    layer = make(tmp_path, images, crop=(5, 4), mirror=True)
    small, large = lk.Net([layer], 3, seed=9), lk.Net([layer], 12, seed=9)
    few = passes(small, 16)
    whole = np.concatenate([x for x, _ in few])
    np.testing.assert_array_equal(whole, np.concatenate([x for x, _ in passes(large, 4)]))


def test_symmetries_and_windows_together(rng):
    images = rng.random((4, 2, 7, 7))
    layer = L.MemoryData("x", data=images, augment="dihedral", crop=(3, 5), mean="element")
    net = lk.Net([layer], 40, dtype="float64", seed=3)
    net.forward()
    centred = images - images.mean(axis=0)
    possible = set()
    for image in centred:
        for turned in (np.rot90(m, k, (1, 2)) for m in (image, image[..., ::-1]) for k in range(4)):
            for top, left in itertools.product(range(5), range(3)):
                possible.add(turned[:, top : top + 3, left : left + 5].round(9).tobytes())
    for window in net.blobs["x"].data:
        assert np.ascontiguousarray(window.round(9)).tobytes() in possible


# Lists of HDF5 files.


@pytest.mark.parametrize("shuffle", [True, False])
def test_several_files_are_read_like_one(shuffle, rng, tmp_path):
    images = levels(rng, 40)
    for _ in range(8):
        sizes = rng.multinomial(36, np.ones(4) / 4) + 1
        ends = np.cumsum(sizes)
        paths = []
        for i, (start, stop) in enumerate(zip(ends - sizes, ends, strict=True)):
            paths.append(tmp_path / f"part{i}.h5")
            paths[-1].unlink(missing_ok=True)
            with h5py.File(paths[-1], "w") as file:
                file["x"], file["t"] = images[start:stop], np.arange(start, stop)
        (tmp_path / "whole.h5").unlink(missing_ok=True)
        with h5py.File(tmp_path / "whole.h5", "w") as file:
            file["x"], file["t"] = images, np.arange(40)
        block, mixed, batch = (int(n) for n in rng.integers(1, [20, 5, 30]))
        nets = []
        for path in (paths, tmp_path / "whole.h5"):
            layer = L.HDF5Data(
                "d",
                path=path,
                datasets=["x", "t"],
                tops=["x", "t"],
                block=block,
                mixed=mixed,
                shuffle=shuffle,
            )
            nets.append(lk.Net([layer], batch, seed=5))
        assert_equal(*(passes(net, 5) for net in nets))
        for net in nets:
            for file, _ in net.layers["d"].opened.values():
                file.file.close()


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"x": np.zeros((3, 2, 2), "f4"), "t": np.arange(3)}, ["do not fit", "(2, 3)", "(2, 2)"]),
        ({"x": np.zeros((3, 2, 3), "u1"), "t": np.arange(3)}, ["do not fit", "float32", "uint8"]),
        ({"x": np.zeros((3, 2, 3), "f4"), "t": np.arange(4)}, ["equal", "[3, 4]"]),
        ({"x": np.zeros((0, 2, 3), "f4"), "t": np.arange(0)}, ["non-zero"]),
        ({"x": np.zeros((3, 2, 3), "f4")}, ["no data set 't'", "'x'"]),
        (None, ["No such file"]),
    ],
)
def test_files_that_do_not_fit_each_other(second, words, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["t"] = np.zeros((5, 2, 3), ">f4"), np.arange(5)
    if second is not None:
        with h5py.File(tmp_path / "b.h5", "w") as file:
            for name, array in second.items():
                file[name] = array
    paths, names = [tmp_path / "a.h5", tmp_path / "b.h5"], ["x", "t"]
    with pytest.raises(DataError) as message:
        lk.Net([L.HDF5Data("d", path=paths, datasets=names, tops=names)], 2)
    for word in ("'d'", "b.h5", *words):
        assert word in str(message.value)


# Generators.


def test_an_unbroken_run_uses_one_iterator():
    starts = []

    def make(start):
        starts.append(start)
        return (np.full(2, n) for n in itertools.count(start))

    net = lk.Net([L.GeneratorData("d", make=make, count=7)], 4)
    for _ in range(6):
        net.forward()
    assert starts == [0]
    np.testing.assert_array_equal(net.blobs["d"].data[:, 0], [20, 21, 22, 23])
    net.set_state({**net.state(), "position/d": 9})
    net.forward()
    assert starts == [0, 9]


def test_iterators_that_end_are_followed_by_others():
    def make(start):
        return (np.float32(n) for n in range(start, start + 3))

    net = lk.Net([L.GeneratorData("d", make=make)], 8)
    net.forward()
    np.testing.assert_array_equal(net.blobs["d"].data, np.arange(8))
    assert net.layers["d"].endless
    test = lk.Net([L.GeneratorData("d", make=make), L.SquareLoss("l", "d", "d")], 2, phase="test")
    with pytest.raises(NetError, match=r"no end; give count="):
        test.evaluate()


def test_a_count_smaller_than_what_is_made_ends_the_epoch():
    net = lk.Net([L.GeneratorData("d", make=lambda: iter(np.arange(9.0)), count=4)], 3)
    found = []
    for _ in range(4):
        net.forward()
        found += net.blobs["d"].data.tolist()
    assert found == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_count_larger_than_what_is_made_is_refused(prefetch):
    """Or else evaluation would count some examples twice, and no snapshot could be resumed."""

    def layers(make):
        source = L.GeneratorData("d", make=make, count=10, prefetch=prefetch)
        return [source, L.SquareLoss("l", "d", "d")]

    for made, batch, good in ((7, 4, 1), (7, 7, 1), (3, 4, 0)):
        net = lk.Net(layers(lambda made=made: iter(np.arange(float(made)))), batch)
        for _ in range(good):
            net.forward()
        for _ in range(2):  # the same again, and not another iterator
            with pytest.raises(DataError, match=rf"layer 'd' .* made {made} .* count= says 10"):
                net.forward()
        test = lk.Net(layers(lambda made=made: iter(np.arange(float(made)))), batch, phase="test")
        with pytest.raises(DataError, match=r"count= says 10"):
            test.evaluate()
    calls = []

    def fewer():
        calls.append(1)
        return iter(np.arange(5.0 if len(calls) < 4 else 3.0))

    net = lk.Net([L.GeneratorData("d", make=fewer, prefetch=prefetch)], 4)  # counted: 5

    def go_on():
        for _ in range(4):
            net.forward()

    with pytest.raises(DataError, match=r"made 3 examples this time, but 5 before"):
        go_on()


def test_examples_are_copied_as_they_come():
    """A generator may fill one array again and again."""

    def make(start):
        array = np.zeros(2)
        for n in itertools.count(start):
            array[...] = n
            yield array

    net = lk.Net([L.GeneratorData("d", make=make)], 3)
    net.forward()
    np.testing.assert_array_equal(net.blobs["d"].data[:, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (iter([1.0]), ["must be a function", "new iterator"]),
        (lambda: 5, ["example 0", "TypeError"]),
        (lambda: iter(()), ["without examples"]),
        (lambda: iter([np.zeros(2), np.zeros(3)] * 9), ["example 1", "(3,)", "(2,)"]),
        (lambda: iter([np.zeros(2, int), np.zeros(2)] * 9), ["example 1", "float64", "int64"]),
        (lambda: iter([(np.zeros(2), 1)] * 9), ["example 0", "2 arrays for 1 tops"]),
        (lambda: iter(["a"] * 9), ["example 0", "numbers"]),
        (lambda *, start: iter(()), ["start", "make(*, start)"]),
    ],
)
def test_generators_that_cannot_be_served(make, words):
    with pytest.raises((NetError, DataError)) as message:
        lk.Net([L.GeneratorData("d", make=make)], 4).forward()
    for word in ("'d'", *words):
        assert word in str(message.value)
    assert "\n" not in str(message.value)


# Folders of pictures.


def test_each_sub_folder_is_a_class(rng, tmp_path):
    expected = []
    for label, kind in enumerate(["elliptical", "irregular", "spiral"]):
        (tmp_path / kind / "deep").mkdir(parents=True)
        for i in range(2):
            picture = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
            place = tmp_path / kind / ("deep" if i else "")
            Image.fromarray(picture).save(place / f"{i}.{'PNG' if i else 'tif'}")
            expected.append((np.moveaxis(picture, -1, 0) / 255, label))
        (tmp_path / kind / "notes.txt").write_text("no picture")
        (tmp_path / kind / "._0.png").write_text("no picture either")
    (tmp_path / "empty").mkdir()
    layer = L.ImageData("d", folder=tmp_path, tops=["x", "t"])
    net = lk.Net([layer], 6, phase="test", dtype="float64")
    x, t = passes(net, 1)[0]
    assert net.layers["d"].classes == ["elliptical", "irregular", "spiral"]
    assert t.tolist() == [label for _, label in expected]
    np.testing.assert_allclose(
        np.sort(x.reshape(3, 2, -1), 1),
        np.sort(np.reshape([p for p, _ in expected], (3, 2, -1)), 1),
        atol=1e-7,
    )
    alone = lk.Net([L.ImageData("x", folder=tmp_path)], 6, phase="test", dtype="float64")
    alone.forward()
    np.testing.assert_array_equal(alone.blobs["x"].data, x)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"loose.png lies beside the sub-folders"):
        lk.Net([layer], 6)


@pytest.mark.parametrize("labels", [["b", "a", "b"], ["3", "-1", "7"]])
def test_a_table_says_which_label_a_file_has(labels, rng, tmp_path):
    for i in range(3):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    with open(tmp_path / "t.csv", "w", newline="") as file:
        rows = [(i, labels[i], f"{i}.png") for i in (2, 0, 1)]
        csv.writer(file).writerows([("id", "label", "file"), *rows])
    layer = L.ImageData(
        "d", folder=tmp_path, table=tmp_path / "t.csv", tops=["x", "t"], channels=1, scale=255.0
    )
    net = lk.Net([layer], 3, phase="test")
    x, t = passes(net, 1)[0]
    assert x[:, 0, 0, 0].tolist() == [2, 0, 1]
    names = net.layers["d"].classes
    assert [names[int(k)] if names else str(int(k)) for k in t] == [labels[i] for i in (2, 0, 1)]


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        (["0.0", "10.0", "2.0"], [0, 10, 2], []),  # as spreadsheets write whole numbers
        ([3.0, np.float32(11), np.int64(-1)], [3, 11, -1], []),
        (["1_0", "0", "2"], [1, 0, 2], ["0", "1_0", "2"]),  # a name
        (["10.0", "2.0", "spiral"], [0, 1, 2], ["10.0", "2.0", "spiral"]),
    ],
)
def test_labels_are_whole_numbers_or_names(labels, expected, classes, tmp_path):
    """Numbers taken for names would be classes in the order of their letters, 10.0 before 2.0."""
    for i in range(3):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    table = [(f"{i}.png", label) for i, label in enumerate(labels)]
    net = lk.Net([L.ImageData("d", folder=tmp_path, table=table, tops=["x", "t"])], 3, phase="test")
    assert passes(net, 1)[0][1].tolist() == expected
    assert net.layers["d"].classes == classes


@pytest.mark.parametrize("label", [None, "nan", float("nan"), "0.5", 1.5, " ", "9" * 30])
def test_labels_that_are_no_class(label, tmp_path):
    for i in range(2):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    table = [("0.png", 1), ("1.png", label)]
    with pytest.raises(DataError, match=r"1\.png has (no|the) label|too large"):
        lk.Net([L.ImageData("d", folder=tmp_path, table=table, tops=["x", "t"])], 2)


def test_pictures_of_many_kinds_have_the_values_that_they_show(rng, tmp_path):
    grey = rng.integers(0, 256, (6, 5), dtype=np.uint8)
    deep = rng.integers(0, 65536, (6, 5), dtype=np.uint16)
    floats = rng.standard_normal((6, 5)).astype("float32")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    tifffile.imwrite(tmp_path / "floats.tif", floats)
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    turned = Image.fromarray(np.rot90(grey).copy())
    exif = turned.getexif()
    exif[274] = 6  # to be shown turned clockwise by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = {
        "grey.png": grey / 255,
        "deep.png": deep / 65535,
        "deep.tif": deep / 65535,
        "floats.tif": floats,
        "bits.png": grey > 99,
        "turned.png": grey / 255,
    }
    for name, values in expected.items():
        for channels in (1, 3):
            layer = L.ImageData(
                "d", folder=tmp_path, table=[(name, 0)], tops=["x", "t"], channels=channels
            )
            x, _ = passes(lk.Net([layer], 1, dtype="float64"), 1)[0]
            np.testing.assert_allclose(x[0], np.stack([values] * channels), atol=1e-7)


def decoded(path, channels=1):
    table = [(path.name, 0)]
    layer = L.ImageData("d", folder=path.parent, table=table, tops=["x", "t"], channels=channels)
    return passes(lk.Net([layer], 1, dtype="float64"), 1)[0][0][0]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("white", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f4"])
def test_grey_tiff_files_have_the_values_that_they_show(
    kind, order, white, compression, rng, tmp_path
):
    """Whatever Pillow makes of them; some it does not read at all."""
    if kind == "f4":
        a = rng.standard_normal((6, 5)).astype(kind)
        expected = a
    else:
        limits = np.iinfo(kind)
        a = rng.integers(limits.min, limits.max, (6, 5), dtype=kind, endpoint=True)
        a[0, :2] = 0, limits.max
        expected = a / limits.max if white == "minisblack" else 1 - a / limits.max
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, a, byteorder=order, photometric=white, compression=compression)
    np.testing.assert_array_equal(tifffile.imread(path), a)
    unread = (kind, order, white) == ("u2", ">", "miniswhite") or (
        kind == "u4" and (order, white) != ("<", "minisblack")
    )
    if kind[0] == "i" or unread:
        with pytest.raises(DataError, match=r"a\.tif cannot be read as a picture"):
            decoded(path)
    else:
        np.testing.assert_allclose(decoded(path), expected[None], rtol=1e-6, atol=1e-7)


def test_tiff_files_of_12_bits_have_the_values_that_they_show(rng, tmp_path):
    """Such as scientific cameras write: the largest of 4096 levels is white."""
    a = rng.integers(0, 4096, (6, 8))
    a[0, :2] = 0, 4095
    bits = np.array([[f"{v:012b}" for v in row] for row in a]).tolist()
    packed = b"".join(int("".join(row), 2).to_bytes(12, "big") for row in bits)
    tags = {256: 8, 257: 6, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 6, 279: len(packed)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + packed + directory)
    np.testing.assert_allclose(decoded(tmp_path / "a.tif"), a[None] / 4095, atol=1e-7)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_tiff_files_have_the_values_that_they_show(kind, planes, compression, rng, tmp_path):
    white = np.iinfo(kind).max
    a = rng.integers(0, white, (3, 6, 5), dtype=kind, endpoint=True)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        a if planes == "separate" else np.ascontiguousarray(np.moveaxis(a, 0, -1)),
        photometric="rgb",
        planarconfig=planes,
        compression=compression,
    )
    if (kind, planes, compression) == ("u2", "separate", None):
        with pytest.raises(DataError, match=r"a\.tif cannot be read .* save it with colours"):
            decoded(path, channels=3)
    else:
        np.testing.assert_allclose(decoded(path, channels=3), a / white, atol=1 / 255)


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha", "unspecified"])
def test_grey_tiff_files_lose_their_transparency(alpha, rng, tmp_path):
    a = rng.integers(0, 128, (6, 5, 2), dtype="u1")
    a[..., 1] += 128
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, a, photometric="minisblack", planarconfig="contig", extrasamples=[alpha])
    expected = a[..., 0] / (a[..., 1] if alpha == "assocalpha" else 255)  # it is times alpha
    np.testing.assert_allclose(decoded(path), expected[None], atol=1 / 255)


def test_sizes_are_checked_or_made(rng, tmp_path):
    for i, size in enumerate([(8, 12), (12, 8)]):
        ramp = np.broadcast_to(np.linspace(0, 255, size[1]), size).astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / f"{i}.png")

    def served(**settings):
        layer = L.ImageData("x", folder=tmp_path, channels=1, **settings)
        net = lk.Net([layer], 2, phase="test")
        net.forward()
        return net.blobs["x"].data[:, 0]

    with pytest.raises(DataError) as message:
        served()
    for word in ("1.png", "12 x 8", "8 x 12", "fit="):
        assert word in str(message.value)
    stretched, cut = served(size=(4, 6), fit="resize"), served(size=6, fit="crop")
    assert stretched.shape == (2, 4, 6)
    assert cut.shape == (2, 6, 6)
    for picture in (*stretched, *cut):  # rows alike, columns rising
        np.testing.assert_allclose(picture, np.tile(picture[:1], (len(picture), 1)), atol=1e-3)
        assert (np.diff(picture[0]) > 0).all()
    assert np.ptp(cut[0]) < 0.8 < np.ptp(stretched[0]), "the sides of a wide picture are cut off"
    with pytest.raises(DataError, match=r"0.png is of 8 x 12"):
        served(size=8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": "missing"}, ["there is no folder", "missing"]),
        ({"folder": "empty"}, ["no pictures", "empty"]),
        ({"folder": "bad"}, ["bad.png", "cannot be read as a picture"]),
        ({"folder": "cut"}, ["cut.jpg", "cannot be read as a picture"]),
        ({"folder": "several"}, ["several.tif", "2 pictures"]),
        ({"folder": "fifo"}, ["fifo.png", "egular file"]),
        ({"folder": "cut", "tops": ["x", "t"]}, ["no sub-folders"]),
        ({"folder": "cut", "table": []}, ["empty"]),
        ({"folder": "cut", "table": [("a.png", 1), ("b.png", 1)]}, ["a.png and 1 more"]),
        ({"folder": "cut", "table": [("a.png", "")]}, ["a.png", "no label"]),
        ({"folder": "cut", "table": "no.csv"}, ["no.csv", "No such file"]),
        ({"folder": "cut", "table": "bad.csv"}, ["bad.csv", "file and label"]),
        ({"folder": "cut", "table": "short.csv"}, ["short.csv", "row 1"]),
        ({"folder": "cut", "table": [("a.png",)]}, ["list of pairs"]),
        ({"folder": "cut", "fit": "stretch"}, ["fit", "'resize'"]),
        ({"folder": "cut", "tops": ["x", "t", "u"]}, ["two tops"]),
    ],
)
def test_folders_that_cannot_be_served(settings, words, rng, tmp_path):
    for name in ("empty", "bad", "cut", "several", "fifo"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    picture = Image.fromarray(levels(rng, 1, (40, 40))[0])
    picture.save(tmp_path / "cut" / "cut.jpg")
    whole = (tmp_path / "cut" / "cut.jpg").read_bytes()
    (tmp_path / "cut" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    picture.save(tmp_path / "several" / "several.tif", save_all=True, append_images=[picture])
    os.mkfifo(tmp_path / "fifo" / "fifo.png")
    (tmp_path / "bad.csv").write_text("a.png,1\nb.png,2\n")
    (tmp_path / "short.csv").write_text("file,label\na.png\n")
    settings = dict(settings)
    if "table" in settings:
        settings.setdefault("tops", ["x", "t"])
        if isinstance(settings["table"], str):
            settings["table"] = tmp_path / settings["table"]
    with pytest.raises((NetError, DataError)) as message:
        lk.Net([L.ImageData("d", **{**settings, "folder": tmp_path / settings["folder"]})], 2)
    for word in ("'d'", "ImageData", *words):
        assert word in str(message.value)
    assert "\n" not in str(message.value)


# On a GPU.


@pytest.mark.parametrize("make", [memory, hdf5, folder, generator])
@pytest.mark.parametrize("depth", [0, 2])
def test_a_gpu_is_served_equally(make, depth, rng, tmp_path, cupy_on_host):
    images = levels(rng)
    for layer in (
        everything(make, tmp_path, images, prefetch=depth),
        make(tmp_path, images, prefetch=depth),
    ):
        nets = [lk.Net([layer], 5, backend, seed=4) for backend in ("numpy", "cupy")]
        for _ in range(7):
            for net in nets:
                net.forward()
            for top in ("x", "t"):
                ours, theirs = (net.backend.to_host(net.blobs[top].data) for net in nets)
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (np.int8, np.array([300, 2]), "holds 300 for top 'x', which the int8 of the first"),
        (np.uint8, np.array([256, 2], np.uint16), "holds 256 for top 'x', which the uint8"),
        (np.float32, np.array([1e300, 2]), "1e\\+300 is too large for float32"),
    ],
)
def test_an_example_that_the_type_of_the_first_cannot_hold(first, then, words):
    """Cast, 300 would be 44, in silence."""
    make = [np.array([1, 2], first), then]
    net = lk.Net([L.GeneratorData("x", make=lambda: iter(make))], 2, phase="test")
    with pytest.raises(DataError, match=words):
        net.forward()


def test_an_example_of_a_wider_type_that_the_first_can_hold():
    make = [np.array([1, 2], np.int8), np.array([100, -5]), np.array([7, 8], np.int16)]
    net = lk.Net([L.GeneratorData("x", make=lambda: iter(make))], 3, phase="test")
    net.forward()
    assert net.blobs["x"].data.tolist() == [[1, 2], [100, -5], [7, 8]]


@pytest.mark.parametrize("attributes", [
    {"scale_factor": 0.01}, {"add_offset": np.array([5.0])}, {"_Unsigned": "true"},
    {"scale_factor": "x"},
])  # fmt: skip
def test_packed_numbers_of_netcdf_are_refused(attributes, tmp_path):
    """They stand for others: scale_factor * stored + add_offset."""
    stored = np.arange(12, dtype="i2").reshape(4, 3)
    plain = {"scale_factor": 1.0, "add_offset": np.array([0]), "_FillValue": -1}
    layers = []
    for name, added in (("packed", attributes), ("plain", plain)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = stored
            file["x"].attrs.update(added)
        layers.append(L.HDF5Data("x", path=tmp_path / f"{name}.h5", datasets="x"))
    words = f"'x' holds packed numbers, which its attribute {next(iter(attributes))} turns"
    with pytest.raises(DataError, match=words):
        lk.Net(layers[:1], 4, phase="test")
    net = lk.Net(layers[1:], 4, phase="test")
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, stored)


@pytest.mark.parametrize("inside", [True, False])
def test_the_end_of_a_program_waits_for_a_read_of_hdf5_alone(inside, monkeypatch):
    """HDF5 hangs where a program ends amid a call of it; a generator of data may never end."""
    monkeypatch.setattr(prefetch, "PATIENCE", 0.01)
    reads, let_go, made = threading.Event(), threading.Event(), []

    def make(key):
        with prefetch.whole() if inside else contextlib.nullcontext():
            reads.set()
            let_go.wait()
        with prefetch.whole():  # nobody wants what is left
            made.append(key)

    desk = prefetch.Desk()
    desk.wanted, desk.make = [1], make
    with desk.changed:
        desk.changed.notify_all()
    reads.wait()
    end = threading.Thread(target=prefetch._finish)
    end.start()
    end.join(0.5 if inside else None)
    assert end.is_alive() == inside
    let_go.set()
    end.join()
    desk.thread.join()
    assert made == []
    monkeypatch.setattr(prefetch, "_desks", prefetch.weakref.WeakSet())


def test_a_program_ends_while_a_thread_reads(tmp_path, rng):
    """Many small chunks take HDF5 long."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        images = rng.integers(0, 40, (300, 16, 16), dtype=np.uint8)
        file.create_dataset("images", data=images, chunks=(1, 1, 16), compression="gzip")
    program = f"""
import layerkit as lk
from layerkit import layers as L
from layerkit.data import prefetch
prefetch.PATIENCE = 0.001
data = L.HDF5Data("x", path={str(tmp_path / "a.h5")!r}, prefetch=2, block=300, mixed=1)
net = lk.Net([data], 150)
net.forward()
net.forward()
print(net.blobs["x"].data.shape, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "(150, 16, 16)\n"), done.stderr
