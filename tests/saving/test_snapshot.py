"""Snapshots: whole or not at all, and training continues as if nothing had happened."""

import contextlib
import enum
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import h5py
import numpy as np
import pytest
from astropy.utils.masked import Masked

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError, SnapshotError

PIXELS = 12


def autoencoder(source, hidden=6):
    """A small galaxy net with everything that draws random numbers."""
    return [
        source,
        L.Dense("g1", "x", units=hidden, neuron="relu"),
        L.Dropout("kept", "g1", ratio=0.3),
        L.Dense("z_mean", "kept", units=2),
        L.Dense("z_log_variance", "kept", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("f1", "z", units=hidden, neuron="tanh", l2=0.01),
        L.Dense("x_mean", "f1", units=PIXELS),
        L.Dense("x_log_variance", "f1", units=PIXELS),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]


def from_input():
    return L.Input("x", shape=(PIXELS,))


def make(layers, solver=lk.Adam, seed=5, batch_size=8, **settings):
    net = lk.Net(layers, batch_size=batch_size, seed=seed)
    return net, solver(net, rate=lk.rates.Exponential(0.01, 0.99), **settings)


def content(net, solver=None):
    """Everything a snapshot is about, as bytes and numbers."""
    arrays = {name: p.data.tobytes() for name, p in net.params.items()}
    if solver is None:
        return arrays, net.state()
    history = {name: flat.tobytes() for name, flat in solver.history.items()}
    return arrays, net.state(), history, solver.iteration


@pytest.fixture
def images(rng):
    return rng.random((30, PIXELS)).astype("float32")


@pytest.fixture
def saved(tmp_path, images):
    """(path, net, solver) of a net that has been trained a little, and saved."""
    net, solver = make(autoencoder(from_input()))
    for _ in range(3):
        solver.step(x=images[:8])
    lk.save(tmp_path / "model.h5", net, solver, {"note": "good"})
    return tmp_path / "model.h5", net, solver


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text


# There and back.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", [lk.SGD, lk.Nesterov, lk.Adam])
def test_what_is_saved_comes_back(solver, dtype, tmp_path, rng):
    x = rng.random((5, PIXELS))
    net, other = (lk.Net(autoencoder(from_input()), 8, dtype=dtype, seed=s) for s in (1, 2))
    trained, fresh = solver(net, rate=0.01), solver(other, rate=0.01)
    for _ in range(3):
        trained.step(x=x)
    extra = {"history": [1.5, 2.5], "seconds": 3, "text": "ø", "long": list(range(20_000))}
    lk.save(tmp_path / "model.h5", net, trained, extra)
    assert content(net, trained) != content(other, fresh)
    assert lk.load(tmp_path / "model.h5", other, fresh) == extra
    assert content(net, trained) == content(other, fresh)
    assert trained.step(x=x) == fresh.step(x=x)
    assert content(net, trained) == content(other, fresh)
    assert lk.snapshot.read_extra(tmp_path / "model.h5") == extra


def test_any_program_that_reads_hdf5_can_look_inside(saved):
    path, net, solver = saved
    with h5py.File(path, "r") as file:
        assert file.attrs["net"].decode() == str(net)
        for name, p in net.params.items():
            np.testing.assert_array_equal(file[f"params/{name}"], p.data)
            kept = solver.history["v"][p.offset : p.offset + p.size]
            np.testing.assert_array_equal(file[f"history/v/{name}"], kept)


def test_a_net_alone_can_be_saved_and_loaded(saved, tmp_path):
    path, net, _ = saved
    other, other_solver = make(autoencoder(from_input()), seed=6)
    lk.load(path, other)  # saved with a solver, loaded without
    assert content(other) == content(net)
    assert other_solver.iteration == 0
    lk.save(tmp_path / "alone.h5", net)
    other, _ = make(autoencoder(from_input()), seed=6)
    assert lk.load(tmp_path / "alone.h5", other) == {}
    assert content(other) == content(net)


def test_a_net_to_use_need_not_have_the_data_layers_of_the_one_that_was_trained(tmp_path, images):
    net, solver = make(autoencoder(L.MemoryData("x", data=images)))
    for _ in range(3):
        solver.step()
    lk.save(tmp_path / "model.h5", net, solver)
    to_use, _ = make(autoencoder(from_input()))
    lk.load(tmp_path / "model.h5", to_use)
    assert content(to_use)[0] == content(net)[0]
    other, other_solver = make(autoencoder(from_input()))
    before = content(other, other_solver)
    with pytest.raises(SnapshotError, match="other data layers") as message:
        lk.load(tmp_path / "model.h5", other, other_solver)
    one_line(message, "model.h5", "position/x")
    assert content(other, other_solver) == before


def test_nets_that_share_parameters_save_their_own(tmp_path, images):
    """The solver's history is found by where the parameters of the shared arena lie."""
    whole, _ = make(autoencoder(from_input()))
    encoder = [
        *autoencoder(from_input())[:4],
        L.Input("t", shape=(2,)),
        L.SquareLoss("loss", "z_mean", "t"),
    ]
    nets = [lk.Net(encoder, 8, share=whole) for _ in range(2)]
    solvers = [lk.Adam(net) for net in nets]
    solvers[0].step(x=images[:8], t=np.ones((8, 2)))
    lk.save(tmp_path / "part.h5", nets[0], solvers[0])
    lk.load(tmp_path / "part.h5", nets[1], solvers[1])
    assert content(nets[0], solvers[0]) == content(nets[1], solvers[1])
    assert np.count_nonzero(solvers[1].history["v"]) > 2


NAMES = [
    "/a", "a/", "/", "//", "a//b", ".", "..", "...", "./a", "../a", "conv1/7x7_s2", "%", "%2F",
    "g1", "g1/weight", "g1/weight/weight", "weight", "params", "history/m", "a b", "å", "銀河",
    "a\nb", "x" * 300, "a.b", "~", "-", "\\", "*", "[a]",
]  # fmt: skip


def linear(dtype="float32"):
    layers = [L.Input("x", shape=(40,)), L.Dense("y", "x", units=5, bias=None)]
    return lk.Net(layers, batch_size=4, dtype=dtype)


# Scales at which numbers keep their digits, do not, and are too large, and the type they are in.
SCALES = {"float16": ("float32", 1e-3, 1e-6, 1e6), "float32": ("float64", 1e-36, 1e-43, 1e40)}


@pytest.mark.parametrize("dtype", SCALES)
def test_parameters_keep_their_digits_or_are_refused(dtype, tmp_path, rng):
    """Small ones as well as large ones; at each size the outputs of the net are the judges."""
    own, good, *bad = SCALES[dtype]
    net, path = linear(own), tmp_path / "small.h5"
    w = net.params["y/weight"].data
    drawn = rng.standard_normal(w.shape)
    for scale in (1, good):
        w[...] = drawn * scale
        w[0, 0], w[1, 0] = 0, 1e-6 * scale  # a few small ones do no harm
        lk.save(path, net, dtype=dtype)
        other = linear(own)
        lk.load(path, other)
        x = rng.standard_normal((4, 40)) / scale
        y = net.infer("y", x=x)
        error = np.abs(other.infer("y", x=x) - y).max() / np.abs(y).max()
        assert error < 1e-3 if dtype == "float16" else error < 1e-5
    kept = path.read_bytes()
    for scale, word in zip(bad, ("small", "large"), strict=True):
        w[...] = drawn * scale
        with pytest.raises(SnapshotError, match=rf"'y/weight' .*too {word} for {dtype}; .*{own}"):
            lk.save(path, net, dtype=dtype)
    w[...] = 0
    assert path.read_bytes() == kept
    lk.save(path, net, dtype=dtype)


def test_small_parameters_that_a_net_cannot_hold_are_refused(tmp_path, rng):
    net, other = linear("float64"), linear()
    net.params["y/weight"].data[...] = rng.standard_normal((40, 5)) * 1e-43
    before = other.arena.data.copy()
    lk.save(tmp_path / "a.h5", net)
    for settings in ({}, {"only": "y"}):
        with pytest.raises(SnapshotError, match=r"y/weight.* too small for float32"):
            lk.load(tmp_path / "a.h5", other, **settings)
    with pytest.raises(NetError, match=r"'y/weight': .* too small for float32"):
        net.rebuild(dtype="float32")
    np.testing.assert_array_equal(other.arena.data, before)


def test_an_amended_snapshot_is_the_old_one_but_for_what_was_given(tmp_path, images):
    net, solver = make(autoencoder(L.MemoryData("x", data=images)))
    solver.step()
    file, arrays = tmp_path / "s.h5", {"a/b": np.arange(3.0), "c": np.eye(2)}
    lk.save(file, net, solver, {"kept": 1, "old": [1, 2]}, arrays)
    lk.snapshot.amend(file, extra={"old": np.array([3.0]), "new": "text"})
    assert lk.snapshot.read_extra(file) == {"kept": 1, "old": [3.0], "new": "text"}
    assert lk.snapshot.read_arrays(file).keys() == arrays.keys()
    lk.snapshot.amend(file, arrays={"d": np.ones(1)})
    assert lk.snapshot.read_arrays(file) == {"d": np.ones(1)}
    assert lk.snapshot.read_extra(file)["new"] == "text"
    before = content(net, solver)
    solver.step()
    lk.load(file, net, solver)
    assert content(net, solver) == before
    whole = file.read_bytes()
    with pytest.raises(SnapshotError, match="extra"):
        lk.snapshot.amend(file, extra={"bad": {1, 2}})
    assert file.read_bytes() == whole


def test_layers_may_have_any_name(rng, tmp_path):
    def build(seed):
        layers = [from_input()]
        layers += [L.Dense(name, "x", units=1 + i % 3) for i, name in enumerate(NAMES)]
        layers += [L.SquareLoss(f"loss{i}", n, n) for i, n in enumerate(NAMES)]
        return make(layers, seed=seed)

    net, solver = build(1)
    for flat in (net.arena.data, *solver.history.values()):
        flat[...] = rng.random(flat.shape)
    lk.save(tmp_path / "names.h5", net, solver)
    other, fresh = build(2)
    lk.load(tmp_path / "names.h5", other, fresh)
    for name, p in net.params.items():
        np.testing.assert_array_equal(other.params[name].data, p.data)
        span = slice(p.offset, p.offset + p.size)
        for key, flat in solver.history.items():
            np.testing.assert_array_equal(fresh.history[key][span], flat[span])


def test_data_layers_may_have_any_name(tmp_path, images):
    for name in ("/", "seed", "å"):
        net, solver = make([L.MemoryData(name, data=images), L.Dense("y", name, units=1),
                            L.SquareLoss("loss", "y", "y")])  # fmt: skip
        solver.steps(3)
        lk.save(tmp_path / "names.h5", net, solver)
        state = net.state()
        solver.step()
        lk.load(tmp_path / "names.h5", net, solver)
        assert net.state() == state


def write_format_1(path, net, solver, extra, damage=lambda file: None):
    """A snapshot as the first version of the format had it."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["format"] = 1
        file.attrs["net"] = str(net)
        file.attrs["state"] = json.dumps(net.state())
        file.attrs["extra"] = json.dumps(extra)
        file.attrs["solver"] = type(solver).__name__
        file.attrs["iteration"] = solver.iteration
        for name, p in net.params.items():
            file[f"params/{name}"] = p.data
            for key, flat in solver.history.items():
                file[f"history/{key}/{name}"] = flat[p.offset : p.offset + p.size]
        damage(file)
    path.write_bytes(image.getvalue() + hashlib.sha256(image.getvalue()).digest())


def with_a_slash(hidden=6):
    return [
        L.Dense("conv1/7x7_s2", "x", units=hidden, tops="x2"),
        *autoencoder(L.Dense("x3", "x2", units=3)), from_input(),
    ]  # fmt: skip


def test_snapshots_of_format_1_can_be_loaded(tmp_path, images):
    net, solver = make(with_a_slash())
    for _ in range(3):
        solver.step(x=images[:8])
    write_format_1(tmp_path / "old.h5", net, solver, {"note": 1})
    other, fresh = make(with_a_slash(), seed=9)
    assert lk.load(tmp_path / "old.h5", other, fresh) == {"note": 1}
    assert content(other, fresh) == content(net, solver)
    assert lk.snapshot.read_extra(tmp_path / "old.h5") == {"note": 1}


def many_circles(file):
    for name in "abcdefgh":
        file[f"params/{name}"] = file["params"]


def many_ways(file):
    """Groups without a circle, but with 2 ** 30 ways through them."""
    group = file["params"]
    for _ in range(30):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (many_circles, "without end"),
        (many_ways, "without end"),
        (lambda f: f.__delitem__("params/g1/bias"), "g1/bias"),
        (lambda f: f.__setitem__("params/g1/more", np.zeros(3, "f4")), "g1/more"),
        (lambda f: f.__setitem__("params/g2", h5py.ExternalLink("a.h5", "/")), "link"),
        (lambda f: f["params/g1"].__setitem__("more", h5py.SoftLink("/params")), "link"),
        (lambda f: f.attrs.__setitem__("extra", ["a", "b"]), "string"),
        (lambda f: f.attrs.__setitem__("extra", np.array(b"\xff", h5py.string_dtype())), "UTF-8"),
        (lambda f: f.__delitem__("history"), "none, but Adam"),
    ],
)
def test_damage_to_format_1(damage, word, tmp_path):
    net, solver = make(autoencoder(from_input()))
    write_format_1(tmp_path / "old.h5", net, solver, {}, damage)
    assert_refused(tmp_path / "old.h5", autoencoder(from_input()), word)


# Training that is stopped and continues.


def hdf5_data(tmp_path, images):
    if not (tmp_path / "images.h5").exists():
        with h5py.File(tmp_path / "images.h5", "w") as file:
            file["images"] = images
    return L.HDF5Data("x", path=tmp_path / "images.h5", block=4, mixed=3)


def memory_data(tmp_path, images):
    return L.MemoryData("x", data=(255 * images).astype("uint8"), scale=1 / 255)


def augmented_data(tmp_path, images):
    return L.MemoryData("square", data=images[:, :9].reshape(-1, 3, 3), augment="dihedral")


SOURCES = pytest.mark.parametrize("source", [memory_data, hdf5_data, augmented_data])


def build(source, tmp_path, images, **settings):
    data = source(tmp_path, images)
    if data.name == "square":  # 3 x 3 pixels that can be turned, and something to fill up with
        layers = [data, L.Dense("x", "square", units=PIXELS), *autoencoder(data)[1:]]
        return make(layers, clip=2.0, **settings)
    return make(autoencoder(data), **settings)


@SOURCES
@pytest.mark.parametrize("solver", [lk.Nesterov, lk.Adam])
def test_resumed_training_equals_training_that_never_stopped(source, solver, rng, tmp_path, images):
    stop, total = int(rng.integers(1, 20)), 25
    never, steadily = build(source, tmp_path, images, solver=solver)
    losses = [steadily.step() for _ in range(total)]

    net, stopped = build(source, tmp_path, images, solver=solver)
    resumed_losses = [stopped.step() for _ in range(stop)]
    lk.save(tmp_path / "model.h5", net, stopped)
    for _ in range(3):
        stopped.step()  # lost, as in a crash
    # Another seed, to show that the snapshot's counts.
    net, resumed = build(source, tmp_path, images, solver=solver, seed=77)
    lk.load(tmp_path / "model.h5", net, resumed)
    resumed_losses += [resumed.step() for _ in range(total - stop)]
    assert resumed_losses == losses
    assert content(net, resumed) == content(never, steadily)


def test_a_net_in_use_can_go_back_to_a_snapshot(tmp_path, images):
    """A data layer keeps in memory what belongs to a seed and an epoch, not to the net."""
    for source in (memory_data, hdf5_data):
        net, solver = build(source, tmp_path, images)
        solver.step()
        lk.save(tmp_path / "model.h5", net, solver)
        expected = [solver.step() for _ in range(6)]
        other, again = build(source, tmp_path, images, seed=99)
        again.step()
        lk.load(tmp_path / "model.h5", other, again)
        assert [again.step() for _ in range(6)] == expected


TRAIN = """
import sys, numpy as np, layerkit as lk
sys.path.insert(0, {tests!r})
from test_snapshot import autoencoder, make
from layerkit import layers as L
images = np.load({images!r})
net, solver = make(autoencoder(L.MemoryData("x", data=images)))
for _ in range(7):
    solver.step()
lk.save({path!r}, net, solver)
"""


def script(text, **values):
    """The command and environment of a process that runs `text`, with strings hashed afresh."""
    here = os.path.dirname(os.path.abspath(__file__))
    code = text.format(tests=here, **{key: str(value) for key, value in values.items()})
    return [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": "random"}


def test_training_goes_on_in_another_process(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    path = tmp_path / "model.h5"
    command, environment = script(TRAIN, images=tmp_path / "images.npy", path=path)
    subprocess.run(command, env=environment, check=True)
    never, steadily = make(autoencoder(L.MemoryData("x", data=images)))
    for _ in range(12):
        steadily.step()
    net, resumed = make(autoencoder(L.MemoryData("x", data=images)))
    lk.load(path, net, resumed)
    for _ in range(5):
        resumed.step()
    assert content(net, resumed) == content(never, steadily)


# Saving that is cut short.


SAVE_AND_HANG = """
import os, sys, time, layerkit as lk
from layerkit.saving.hdf5.draft import Draft
sys.path.insert(0, {tests!r})
from test_snapshot import autoencoder, from_input, make

def hang(*_):
    print("here", flush=True)
    time.sleep(600)

def half_and_hang(self, start, stop):
    yield bytes(stop // 2)
    hang()

if {where!r} == "write":
    Draft.content = half_and_hang
else:
    setattr(os, {where!r}, hang)
net, solver = make(autoencoder(from_input()), seed=6)
lk.save({path!r}, net, solver)
"""


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_kill_9_while_saving_leaves_the_old_snapshot(where, saved):
    path = saved[0]
    before = path.read_bytes()
    command, environment = script(SAVE_AND_HANG, where=where, path=path)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"here\n"
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    (left,) = path.parent.glob(".*.part")
    name, _, token = left.name.rpartition(f"-{child.pid}-")
    of_others = [
        path.with_name(f"{name}-{os.getppid()}-{token}"),  # who lives
        path.with_name(f".other-{left.name[1:]}"),
        path.with_name(left.name.replace(name, f"{name}-elsewhere")),  # another computer's
    ]
    for other in of_others:
        other.write_bytes(b"")
    other, fresh = make(autoencoder(from_input()))
    assert lk.load(path, other, fresh) == {"note": "good"}
    lk.save(path, other, fresh)  # and the next process can save there, and cleans up
    assert not left.exists()
    assert all(other.exists() for other in of_others)


SAVE_FOREVER = """
import sys, layerkit as lk
sys.path.insert(0, {tests!r})
from test_snapshot import autoencoder, from_input, make
net, solver = make(autoencoder(from_input(), hidden=200))
while True:
    net.arena.data += 1
    solver.history["m"] += 1
    solver.iteration += 1
    lk.save({path!r}, net, solver)
    print("saved", flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_whole_snapshot(rng, tmp_path):
    path = tmp_path / "model.h5"
    command, environment = script(SAVE_FOREVER, path=path)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        try:
            child.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.2)))
        finally:
            child.send_signal(signal.SIGKILL)
    net, solver = make(autoencoder(from_input(), hidden=200))
    start = net.arena.data.copy()
    lk.load(path, net, solver)
    assert solver.iteration >= 1
    for p in net.params.values():  # all of one and the same save
        piece = slice(p.offset, p.offset + p.size)
        moved = net.arena.data[piece] - start[piece]
        np.testing.assert_allclose(moved, solver.iteration, rtol=1e-4)
        assert (solver.history["m"][piece] == solver.iteration).all()


@contextlib.contextmanager
def full_disk(size):
    """Files cannot grow beyond `size` bytes, as on a disk that is full."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_full_disk_leaves_the_old_snapshot(share, saved):
    path, net, solver = saved
    before = path.read_bytes()
    solver.step(x=np.ones((1, PIXELS)))
    with full_disk(int(share * len(before))), pytest.raises(SnapshotError) as message:
        lk.save(path, net, solver, {"note": "good"})
    one_line(message, "cannot write", "model.h5")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.h5"]


def test_a_disk_that_is_full_leaves_the_old_snapshot(saved, small_disk):
    path, net, solver = saved
    target = small_disk(2 * path.stat().st_size - 4096) / "model.h5"
    lk.save(target, net, solver)
    before = target.read_bytes()
    with pytest.raises(SnapshotError) as message:
        lk.save(target, net, solver, {"more": "x" * 9000})
    one_line(message, "cannot write", "model.h5", "No space left on device")
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["model.h5"]


def test_threads_that_save_to_one_path(tmp_path):
    """Each load, and the file in the end, is one of the snapshots whole."""
    path = tmp_path / "model.h5"
    pairs = [make(autoencoder(from_input(), hidden=30), seed=5) for _ in range(4)]
    whole = {}
    for net, solver in pairs[1:]:
        for p in net.params.values():
            p.data[...] = len(whole)
            solver.history["m"][p.offset : p.offset + p.size] = len(whole)
        whole[len(whole)] = content(net, solver)
    lk.save(path, *pairs[1])
    failures = []

    def save(net, solver):
        try:
            for _ in range(40):
                lk.save(path, net, solver)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=pair) for pair in pairs[1:]]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        lk.load(path, *pairs[0])
        which = int(pairs[0][1].history["m"][0])
        assert content(*pairs[0]) == whole[which]
        seen.add(which)
    for thread in threads:
        thread.join()
    assert not failures
    assert seen
    lk.load(path, *pairs[0])
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]


@pytest.mark.parametrize(
    ("path", "word"),
    [("", "empty"), (b"", "empty"), ("a\0b", "null"), (None, "None"), (3, "3"), (["a"], "['a']"),
     (io.BytesIO(), "BytesIO"), (np.zeros(2), "array")],
)  # fmt: skip
def test_what_is_no_path_is_refused(path, word, saved):
    _, net, solver = saved
    for call in (
        lambda: lk.save(path, net, solver), lambda: lk.load(path, net, solver),
        lambda: lk.snapshot.read_extra(path),
    ):  # fmt: skip
        with pytest.raises(SnapshotError) as message:
            call()
        one_line(message, "path", word)


def test_an_open_file_is_no_path(saved):
    path, net, _ = saved
    with h5py.File(path) as file, pytest.raises(SnapshotError, match="path of a file"):
        lk.save(file, net)
    with open(path) as file, pytest.raises(SnapshotError, match="path of a file"):
        lk.load(file, net)


@pytest.mark.parametrize("kind", [str, os.fsencode, np.str_])
def test_paths_of_any_kind(kind, saved):
    path, net, solver = saved
    lk.save(kind(path.with_name("other.h5")), net, solver, {"a": 1})
    assert lk.load(kind(path.with_name("other.h5")), net, solver) == {"a": 1}


def test_only_regular_files_are_read_and_replaced(saved):
    path, net, solver = saved
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    for call in (lk.save, lk.load):
        with pytest.raises(SnapshotError, match="egular file"):
            call(fifo, net, solver)
        with pytest.raises(SnapshotError, match="egular file"):
            call("/dev/null", net, solver)
    assert fifo.is_fifo()


def test_a_linked_snapshot_stays_a_link(saved):
    path, net, solver = saved
    link = path.with_name("latest.h5")
    link.symlink_to(path.name)
    before = path.read_bytes()
    lk.save(link, net, solver, {"new": True})
    assert link.is_symlink()
    assert path.read_bytes() != before
    assert lk.load(path, net, solver) == {"new": True}


def test_a_file_name_as_long_as_they_get(saved):
    path, net, solver = saved
    for name in ("x" * 255, "å" * 127):
        lk.save(path.with_name(name), net, solver)
        lk.load(path.with_name(name), net, solver)
    assert len(list(path.parent.iterdir())) == 3


def test_arguments_in_the_wrong_places(saved):
    path, net, solver = saved
    other, _ = make(autoencoder(from_input()))
    cases = ((solver,), "Net"), ((net, net), "solver"), ((other, solver), "another")
    for call in (lk.save, lk.load):
        for arguments, word in cases:
            with pytest.raises(SnapshotError, match=word):
                call(path, *arguments)


def test_an_interrupt_while_loading_puts_everything_back(saved, monkeypatch):
    path, _, _ = saved
    net, solver = make(autoencoder(from_input()), seed=8)
    before = content(net, solver)
    real, calls = net.set_state, []

    def interrupted(state):
        calls.append(state)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(state)

    monkeypatch.setattr(net, "set_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lk.load(path, net, solver)
    assert content(net, solver) == before


def test_a_seed_of_numpy_can_be_saved(tmp_path):
    net, solver = make(autoencoder(from_input()), seed=np.int64(3))
    lk.save(tmp_path / "a.h5", net, solver)
    lk.load(tmp_path / "a.h5", net, solver)
    assert net.run.seed == 3


def test_weights_that_are_not_finite_come_back(saved):
    path, net, solver = saved
    net.arena.data[:2] = np.nan, np.inf
    lk.save(path, net, solver)
    other, fresh = make(autoencoder(from_input()))
    lk.load(path, other, fresh)
    np.testing.assert_array_equal(other.arena.data, net.arena.data)


def test_saving_leaves_one_file_and_nothing_else(saved):
    path, net, solver = saved
    first = path.read_bytes()
    solver.step(x=np.ones((1, PIXELS)))
    lk.save(path, net, solver)
    assert path.read_bytes() != first
    assert [p.name for p in path.parent.iterdir()] == ["model.h5"]


@pytest.mark.parametrize("target", ["missing/model.h5", "model.h5/inside.h5", "folder"])
def test_a_target_that_cannot_be_written(target, saved):
    path, net, solver = saved
    (path.parent / "folder").mkdir()
    with pytest.raises(SnapshotError) as message:
        lk.save(path.parent / target, net, solver)
    one_line(message, "cannot write", target)
    assert sorted(p.name for p in path.parent.iterdir()) == ["folder", "model.h5"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"no JSON": object()}, ["extra['no JSON']", "object"]),
        ({"a": [1, {"b": {1, 2}}]}, ["extra['a'][1]['b']", "set"]),
        ({1: 2}, ["key 1", "strings"]),
        ({"a": b"bytes"}, ["extra['a']", "bytes"]),
        ({"a": 1j}, ["extra['a']", "complex"]),
        ({"a": 10**5000}, ["extra['a']", "digits"]),
        ({"a": Fraction(1, 3)}, ["extra['a']", "Fraction"]),
        ({"a": np.datetime64("2026-01-01")}, ["extra['a']", "datetime64"]),
        ({"a": np.ma.masked_array([1, 2], [True, False])}, ["extra['a']", "mask"]),
        ({"a": Masked(np.array([1, 2]), mask=[True, False])}, ["extra['a']", "mask"]),
        ({"a": np.array([object()])}, ["extra['a']", "ndarray"]),
        ([1], ["extra must be a dict", "list"]),
    ],
)
def test_an_extra_that_cannot_be_kept_leaves_the_old_snapshot(extra, words, saved):
    path, net, solver = saved
    before = path.read_bytes()
    with pytest.raises(SnapshotError) as message:
        lk.save(path, net, solver, extra)
    one_line(message, *words)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.h5"]


def test_an_extra_that_holds_itself(saved):
    endless = {}
    endless["again"] = [endless]
    with pytest.raises(SnapshotError, match="itself"):
        lk.save(saved[0], saved[1], extra=endless)


class Colour(enum.StrEnum):
    RED = "red"


def test_extras_come_back(saved):
    path, net, _ = saved
    extra = {
        "n": np.int64(3), "x": np.float32(0.5), "yes": np.True_, "none": None, "pair": (1, "two"),
        "array": np.arange(6).reshape(2, 3), "path": path, "inf": float("inf"), "big": 10**30,
        "colour": Colour.RED, "text": "\ud800 \u00e5 \0", "long": "x" * 200_000,
        "words": np.array(["a", "b"]),
    }  # fmt: skip
    lk.save(path, net, extra=extra | {"nan": np.nan})
    back = lk.load(path, net)
    assert np.isnan(back.pop("nan"))
    assert back == extra | {
        "pair": [1, "two"], "array": [[0, 1, 2], [3, 4, 5]], "path": str(path), "words": ["a", "b"],
    }  # fmt: skip
    assert type(back["n"]) is int
    assert type(back["yes"]) is bool
    assert type(back["colour"]) is str


# A file that cannot be loaded leaves everything as it was.


def assert_refused(path, layers, *words, solver=lk.Adam):
    net, fresh = make(layers, solver=solver, seed=6)
    fresh.step(**{x.name: np.ones((2, *x.shape)) for x in layers if isinstance(x, L.Input)})
    before = content(net, fresh)
    with pytest.raises(SnapshotError) as message:
        lk.load(path, net, fresh)
    one_line(message, path.name, *words)
    assert content(net, fresh) == before


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "none.h5", autoencoder(from_input()), "no snapshot at")
    with pytest.raises(SnapshotError, match="no snapshot at") as message:
        lk.snapshot.read_extra(tmp_path / "none.h5")
    one_line(message, "none.h5")


def test_a_folder(tmp_path):
    (tmp_path / "model.h5").mkdir()
    assert_refused(
        tmp_path / "model.h5", autoencoder(from_input()), "is a folder", "a snapshot in it"
    )


def test_a_truncated_file(saved, rng):
    path = saved[0]
    whole = path.read_bytes()
    lengths = {0, 1, 8, 512, len(whole) // 2, len(whole) - 1, *rng.integers(0, len(whole), 10)}
    for length in lengths:
        path.write_bytes(whole[:length])
        assert_refused(path, autoencoder(from_input()), "truncated")


def test_a_damaged_file(saved, rng):
    """HDF5 alone would load many of these, hang in some, and crash in some."""
    path = saved[0]
    whole = path.read_bytes()
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert_refused(path, autoencoder(from_input()), "damaged")


@contextlib.contextmanager
def edited(path):
    """The inside of a snapshot, to be changed; its checksum is then made right again."""
    image = io.BytesIO(path.read_bytes()[: -hashlib.sha256().digest_size])
    with h5py.File(image, "r+") as file:
        yield file
    path.write_bytes(image.getvalue() + hashlib.sha256(image.getvalue()).digest())


def test_files_of_something_else(saved, rng):
    path = saved[0]
    with edited(path) as file:
        file.clear()
        file.attrs.clear()
        file["images"] = np.zeros(3)
    assert_refused(path, autoencoder(from_input()), "'format'", "missing")
    for size in (1, 100, 30_000):
        path.write_bytes(rng.bytes(size))
        assert_refused(path, autoencoder(from_input()), "not a snapshot")
    path.write_text('{"format": 1}')
    assert_refused(path, autoencoder(from_input()), "not a snapshot")
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    assert_refused(path, autoencoder(from_input()), "not a snapshot")


def test_a_newer_format(saved):
    path = saved[0]
    with edited(path) as file:
        file.attrs["format"] = 99
    assert_refused(path, autoencoder(from_input()), "format 99", "newer layerkit")
    with pytest.raises(SnapshotError, match="format 99"):
        lk.snapshot.read_extra(path)


def test_another_solver(saved):
    path, net, _ = saved
    layers = autoencoder(from_input())
    assert_refused(path, layers, "Adam", "SGD", solver=lk.SGD)
    lk.save(path, net)
    assert_refused(path, layers, "none", "Adam")


def test_another_net(saved):
    path = saved[0]
    layers = autoencoder(from_input())
    assert_refused(path, autoencoder(from_input(), hidden=7), "another net", "f1/", "6", "7")
    more = [*layers, L.Dense("more", "z", units=1)]
    assert_refused(path, more, "another net", "more/bias", "none", "(1,)")
    fewer = [x for x in layers if x.name != "x_log_variance"]
    fewer = [
        L.SquareLoss("reconstruction", "x", "x_mean") if x.name == "reconstruction" else x
        for x in fewer
    ]
    assert_refused(path, fewer, "another net", "x_log_variance/bias", "none")
    renamed = [x for x in layers if x.name != "g1"]
    renamed.append(L.Dense("encoder", "x", units=6, tops="g1"))
    assert_refused(path, renamed, "another net", "encoder/bias")


def change(name, value, there=True):
    """Replaces a data set of a snapshot, or removes it, or adds one."""

    def action(file):
        if there:
            del file[name]
        if value is not None:
            file[name] = value

    return action


def change_attribute(name, value):
    def action(file):
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return action


def hard_link_in_a_circle(file):
    for name in ("a", "b"):
        file[f"params/{name}"] = file["params"]


def virtual(file):
    layout = h5py.VirtualLayout((PIXELS,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "bias", (PIXELS,))
    del file["params/x_mean/bias"]
    file.create_virtual_dataset("params/x_mean/bias", layout)


def external(file):
    del file["params/x_mean/bias"]
    file.create_dataset(
        "params/x_mean/bias", (PIXELS,), "f4", external=[("/etc/passwd", 0, 4 * PIXELS)]
    )


def claims(shape, **how):
    def action(file):
        del file["params/x_mean/bias"]
        file.create_dataset("params/x_mean/bias", shape, "f4", **how)

    return action


def array_typed(file):
    del file["params/x_mean/bias"]
    kind = np.dtype(("f4", (PIXELS,)))
    file.create_dataset("params/x_mean/bias", (1,), kind)[0] = np.ones(PIXELS)


def null_attribute(file):
    file.attrs["state"] = h5py.Empty("S10")


DAMAGES = {
    "text": (change("params/x_mean/bias", ["a"] * PIXELS), "floats"),
    "no parameters": (change("params", None), "'params'"),
    "no group": (change("params", np.zeros(3)), "'params'"),
    "a parameter as a group": (change("params/x_mean", np.zeros(3)), "'params/x_mean'"),
    "a group as a parameter": (
        lambda file: (
            file.__delitem__("params/x_mean/bias"),
            file.create_group("params/x_mean/bias/a"),
        ),
        "group",
    ),
    "integers": (change("params/x_mean/bias", np.zeros(PIXELS, int)), "floats"),
    "complex": (change("params/x_mean/bias", np.zeros(PIXELS, complex)), "floats"),
    "references": (
        change("params/x_mean/bias", np.full(PIXELS, h5py.Reference(), h5py.ref_dtype)),
        "floats",
    ),
    "records": (change("params/x_mean/bias", np.zeros(PIXELS, "f4,i4")), "floats"),
    "an enumeration": (
        change("params/x_mean/bias", np.zeros(PIXELS, h5py.enum_dtype({"a": 0}))),
        "floats",
    ),
    "arrays": (array_typed, "floats"),
    "no space": (change("params/x_mean/bias", h5py.Empty("f4")), "none"),
    "a scalar": (change("params/x_mean/bias", np.float32(1)), "another net"),
    "8 GB": (claims((2**31,)), "more than the file can hold"),
    "nothing written": (claims((PIXELS,)), "more than the file can hold"),
    "a huge chunk": (claims((PIXELS,), chunks=(2**27,), maxshape=(None,)), "can hold"),
    "virtual": (virtual, "other files"),
    "external": (external, "other files"),
    "soft link": (change("params/x_mean/bias", h5py.SoftLink("/params/x_mean/weight")), "link"),
    "external link": (change("params/x_mean/bias", h5py.ExternalLink("a.h5", "/b")), "link"),
    "circle": (hard_link_in_a_circle, "a group, not a data set"),
    "one too many": (change("params/x_mean/c", np.ones(3, "f4"), False), "another net"),
    "not escaped": (lambda f: f.move("params/g1", "params/g%31"), "no name"),
    "not to unescape": (lambda f: f.move("params/g1", "params/g%ff"), "no name"),
    "too large": (change("params/x_mean/bias", np.full(PIXELS, 1e300)), "too large"),
    "no history": (change("history/v/x_mean/bias", None), "missing"),
    "short history": (change("history/v/x_mean/bias", np.zeros(1, "f4")), "shape"),
    "broadcast history": (change("history/v/x_mean/bias", np.float32(1)), "shape"),
    "history in words": (change("history/v/x_mean/bias", ["a"] * PIXELS), "floats"),
    "no v": (change("history/v", None), "keeps 'm', 'v'"),
    "no history at all": (change("history", None), "none, but Adam"),
    "more history": (lambda f: f.create_group("history/w"), "w"),
    "no iteration": (change_attribute("iteration", None), "'iteration'"),
    "iteration soon": (change_attribute("iteration", "soon"), "whole number"),
    "iteration 1.5": (change_attribute("iteration", 1.5), "whole number"),
    "iteration -1": (change_attribute("iteration", -1), "from 0"),
    "iteration huge": (change_attribute("iteration", 2**63 - 1), "from 0"),
    "iterations": (change_attribute("iteration", [1, 2]), "whole number"),
    "iteration true": (change_attribute("iteration", True), "whole number"),
    "no state": (change_attribute("state", None), "'state'"),
    "empty state": (null_attribute, "string"),
    "state {": (change_attribute("state", "{"), "JSON"),
    "state [1]": (change_attribute("state", "[1]"), "dict"),
    "state 3": (change_attribute("state", 3), "string"),
    "state of words": (change_attribute("state", '{"seed": 0, "passes": "x"}'), "whole"),
    "state of none": (change_attribute("state", '{"seed": 0, "passes": null}'), "whole"),
    "state of truth": (change_attribute("state", '{"seed": 0, "passes": true}'), "whole"),
    "state NaN": (change_attribute("state", '{"seed": 0, "passes": NaN}'), "whole"),
    "state 1e400": (change_attribute("state", '{"seed": 0, "passes": 1e400}'), "whole"),
    "state -1": (change_attribute("state", '{"seed": 0, "passes": -1}'), "whole"),
    "state 2 ** 70": (change_attribute("state", f'{{"seed": 0, "passes": {2**70}}}'), "whole"),
    "state deep": (change_attribute("state", "[" * 100_000), "JSON"),
    "state digits": (change_attribute("state", "1" * 10_000), "JSON"),
    "less state": (change_attribute("state", '{"seed": 0}'), "other data layers"),
    "more state": (
        change_attribute("state", '{"seed": 0, "passes": 0, "position/y": 1}'),
        "other data layers",
    ),
    "state not UTF-8": (change_attribute("state", np.bytes_(b"\xff\xfe")), "UTF-8"),
    "no extra": (change_attribute("extra", None), "'extra'"),
    "extra {": (change_attribute("extra", "{"), "JSON"),
    "extra 1": (change_attribute("extra", "1"), "dict"),
    "no format": (change_attribute("format", None), "'format'"),
    "format one": (change_attribute("format", "one"), "'format'"),
    "format -1": (change_attribute("format", -1), "from 1"),
    "formats": (change_attribute("format", [1]), "'format'"),
    "solver of lines": (change_attribute("solver", "a\nb\n" * 999), "a b a b"),
    "history of lines": (lambda f: f.create_group("history/a\nb"), "a\\nb"),
    "state of lines": (change_attribute("state", '{"a\\nb": 0}'), "a\\nb"),
    "solver 3": (change_attribute("solver", 3), "string"),
}


@pytest.mark.parametrize(("damage", "word"), DAMAGES.values(), ids=DAMAGES.keys())
def test_parts_that_are_missing_or_wrong(damage, word, saved):
    path = saved[0]
    with edited(path) as file:
        damage(file)
    assert_refused(path, autoencoder(from_input()), word)


def test_small_histories_become_zero_whatever_numpy_is_told_to_raise(tmp_path):
    def made(dtype):
        layers = [
            L.Input("x", shape=(1,)),
            L.Input("t", shape=(1,)),
            L.Dense("y", "x", units=1),
            L.SquareLoss("l", "y", "t"),
        ]
        net = lk.Net(layers, 1, dtype=dtype)
        return net, lk.Adam(net)

    net, solver = made("float64")
    solver.history["m"][...] = 1e-50
    lk.save(tmp_path / "a.h5", net, solver)
    net, solver = made("float32")
    with np.errstate(all="raise"):
        lk.load(tmp_path / "a.h5", net, solver)
    assert not solver.history["m"].any()
