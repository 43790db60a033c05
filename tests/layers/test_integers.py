"""Blobs of integers: labels and ids that keep their values, on all engines and from all sources."""

import cuda_host
import h5py
import numpy as np
import pytest
from PIL import Image

import layerkit as lk
from layerkit import layers as L
from layerkit.engines.base import EngineRunner
from layerkit.errors import DataError, NetError

LARGE = np.array([2**24 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 7, 0])  # no float32 has the first
WAYS = {
    "array": {"kernels": "array"},
    "kernels": {},
    "float64": {"dtype": "float64"},
    "cuda": {"backend": "cupy"},
}


@pytest.fixture(params=WAYS)
def way(request):
    """Settings of a net that runs on one of the engines."""
    if request.param != "cuda":
        yield WAYS[request.param]
        return
    if reason := cuda_host.missing():
        pytest.skip(reason)
    with cuda_host.installed(seed=1):
        yield WAYS["cuda"]


def host(net, name):
    return net.backend.to_host(net.blobs[name].data)


def classifier(integers):
    """Two losses and a metric of labels, of which one is embedded and one becomes an indicator."""
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,), integers=integers),
        L.Slice("cut", "t", tops=["a", "b", "c"]),
        L.Reshape("a0", "a", shape=()),
        L.Embed("e", "b", count=4, units=2),
        L.OneHot("o", "c", count=4),
        L.Reshape("e1", "e", shape=(2,)),
        L.Reshape("o1", "o", shape=(4,)),
        L.Concat("all", "x", "e1", "o1"),
        L.Dense("y", "all", units=4, neuron="tanh"),
        L.Dense("s", "y", units=2),
        L.SoftmaxLoss("loss", "y", "a0"),
        L.SoftmaxLoss("other", "y", "a0", smoothing=0.1, ignore=3),
        L.HingeLoss("hinge", "y", "b"),
        L.Slice("halves", "y", tops=["y1", "y2"]),
        L.Input("like", shape=(), integers=integers),
        L.ContrastiveLoss("pairs", "y1", "y2", "like"),
        L.Accuracy("right", "y", "c"),
    ]


def batches(rng, count):
    return [
        {
            "x": rng.standard_normal((6, 5)),
            "t": rng.integers(4, size=(6, 3)),
            "like": rng.integers(2, size=6),
        }
        for _ in range(count)
    ]


def test_integers_pass_through_layers_that_keep_them(way):
    layers = [
        L.Input("t", shape=(2, 3), integers=True),
        L.Permute("turned", "t", order=(1, 0)),
        L.Reshape("flat", "turned", shape=(6,)),
        L.Slice("cut", "flat", tops=["head", "tail"], sizes=[1, 5]),
        L.Concat("back", "tail", "head"),
    ]
    net = lk.Net(layers, 4, gradients="all", **way)
    t = np.stack([LARGE, LARGE[::-1]]).reshape(2, 2, 3)
    net.forward(t=t)
    flat = t.transpose(0, 2, 1).reshape(2, 6)
    expected = np.concatenate([flat[:, 1:], flat[:, :1]], axis=1)
    np.testing.assert_array_equal(host(net, "back"), expected)
    found = net.infer(["back", "t"], t=np.repeat(t, 3, axis=0))
    assert all(array.dtype == np.int64 for array in found)
    np.testing.assert_array_equal(found[0], np.repeat(expected, 3, axis=0))
    assert all(blob.diff is None and blob.integers for blob in net.blobs.values())
    assert net.first_non_finite() is None


def test_ids_that_floats_would_confuse_name_their_own_row(way):
    first = 2**24
    layers = [
        L.Input("t", shape=(), integers=True),
        L.Embed("y", "t", count=first + 3, units=1, weight=0.0),
    ]
    net = lk.Net(layers, 2, gradients="all", **way)
    net.params["y/weight"].data[first] = 3
    net.params["y/weight"].data[first + 1] = 5
    net.forward(t=[first + 1, first])
    assert host(net, "y").ravel().tolist() == [5, 3]
    net.backward(y=np.array([[2.0], [0.0]]))
    diff = net.backend.to_host(net.params["y/weight"].diff)
    assert np.flatnonzero(diff).tolist() == [first + 1]
    with pytest.raises(NetError, match=r"16777217 in row 0 .* keep theirs with integers= of the"):
        lk.Net([L.Input("t", shape=())], 2, **{**way, "dtype": "float32"}).forward(t=[first + 1, 0])


def test_labels_of_integers_train_as_those_of_floats(way, rng):
    pair = [lk.Net(classifier(integers), 6, seed=3, **way) for integers in (False, True)]
    solvers = [lk.Adam(net, 0.01) for net in pair]
    for batch in batches(rng, 4):
        losses = [solver.step(**batch) for solver in solvers]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert pair[0].metrics == pair[1].metrics
    for name, p in pair[0].params.items():
        one, other = (net.backend.to_host(net.params[name].data) for net in pair)
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-6, err_msg=p.name)
    assert pair[1].blobs["t"].diff is None
    batch = batches(rng, 1)[0]
    means = [net.evaluate(batch) for net in pair]
    assert means[1] == pytest.approx(means[0], rel=1e-5)


def test_gradients_beside_integers(rng):
    batch = batches(rng, 1)[0]
    report = lk.check_gradients(lk.Net(classifier(True), 6, seed=2), **batch)
    assert "input x" in report.errors
    assert not {"input t", "input like"} & set(report.errors)


def test_steps_with_integers_are_recorded(cupy_on_host, rng):
    x, t = rng.standard_normal((20, 5)), rng.integers(4, size=20)
    layers = [
        L.MemoryData("data", data=[x, t], tops=["x", "t"], integers="t"),
        L.Dense("y", "x", units=4),
        L.SoftmaxLoss("loss", "y", "t"),
        L.Accuracy("right", "y", "t"),
    ]
    there = lk.Net(layers, 6, seed=1, backend="cupy")
    assert all(runner.recordable for runner in there.runners.values())
    assert isinstance(there.runners["loss"], EngineRunner)
    here = lk.Net(layers, 6, seed=1, kernels="array")
    expected = lk.Adam(here, 0.01).steps(5)
    np.testing.assert_allclose(lk.Adam(there, 0.01).steps(5), expected, rtol=1e-5)
    np.testing.assert_array_equal(host(there, "t"), here.blobs["t"].data)
    assert there.metrics == here.metrics


def sources(folder):
    """Data layers with LARGE as labels, in this order, which say so or are told by an Input."""
    x = np.arange(12.0).reshape(6, 2)
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"], file["t"] = x, LARGE
    for i in range(6):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(folder / f"{i}.png")
    table = [(f"{i}.png", int(value)) for i, value in enumerate(LARGE)]
    both = {"tops": ["x", "t"], "integers": "t"}
    return {
        "memory": L.MemoryData("data", data=[x, LARGE], shuffle=False, **both),
        "ahead": L.MemoryData("data", data=[x, LARGE], shuffle=False, prefetch=2, **both),
        "hdf5": L.HDF5Data(
            "data", path=folder / "data.h5", datasets=["x", "t"], shuffle=False, **both
        ),
        "generator": L.GeneratorData("data", make=lambda: zip(x, LARGE, strict=True), **both),
        "pictures": L.ImageData(
            "data", folder=folder, table=table, channels=1, shuffle=False, **both
        ),
    }


@pytest.mark.parametrize("kind", ["memory", "ahead", "hdf5", "generator", "pictures"])
def test_every_data_layer_keeps_integers(kind, way, tmp_path):
    net = lk.Net([sources(tmp_path)[kind]], 4, **way)
    for position in (0, 4, 8):
        net.forward()
        rows = np.arange(position, position + 4) % 6
        np.testing.assert_array_equal(host(net, "t"), LARGE[rows])
        assert net.blobs["x"].data.dtype == net.dtype


@pytest.mark.parametrize("kind", ["memory", "ahead", "hdf5", "generator"])
def test_training_on_integers_resumes_bit_for_bit(kind, tmp_path, rng):
    x, t = rng.standard_normal((30, 4)), rng.integers(3, size=30)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["t"] = x, t
    tops = {"tops": ["x", "t"]}
    source = {
        "memory": lambda: L.MemoryData("data", data=[x, t], **tops),
        "ahead": lambda: L.MemoryData("data", data=[x, t], prefetch=1, **tops),
        "hdf5": lambda: L.HDF5Data(
            "data", path=tmp_path / "data.h5", datasets=["x", "t"], block=4, mixed=2, **tops
        ),
        "generator": lambda: L.GeneratorData("data", make=lambda: zip(x, t, strict=True), **tops),
    }[kind]
    layers = [
        L.Input("x", shape=(4,)),
        L.Input("t", shape=(), integers=True),
        L.Dense("y", "x", units=3),
        L.SoftmaxLoss("loss", "y", "t"),
    ]

    def make():
        net = lk.Net(lk.with_data(layers, source()), 7, seed=2)
        assert net.blobs["t"].integers
        return net, lk.Adam(net, 0.05)

    whole, solver = make()
    expected = solver.steps(9)
    part, first = make()
    losses = list(first.steps(4))
    lk.save(tmp_path / "part.h5", part, first)
    rest, second = make()
    lk.load(tmp_path / "part.h5", rest, second)
    losses += list(second.steps(5))
    np.testing.assert_array_equal(losses, expected)
    np.testing.assert_array_equal(rest.arena.data, whole.arena.data)
    held = lk.Net(layers, 7, phase="test", share=whole)
    loss = held.evaluate(source())["loss"]
    assert loss == pytest.approx(held.evaluate({"x": x, "t": t})["loss"], rel=1e-6)


def x(*shape, **settings):
    return L.Input("x", shape=shape, **settings)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([x(3, integers=True), L.Dense("y", "x", units=2)], "'x' holds integers, and it computes"),
        ([x(3, integers=True), L.ReLU("y", "x")], "'y' .* leave integers= out where 'x' comes"),
        (
            [x(3, integers=True), L.Input("f", shape=(3,)), L.Concat("y", "x", "f")],
            "'x' holds integers, but 'f' floats",
        ),
        ([x(3), L.Input("f", shape=(3,), integers=True), L.SoftmaxLoss("y", "x", "f")], "'f' hold"),
        ([x(3, integers=True), L.SoftmaxLoss("y", "x", "x")], "'x' holds integers, and it"),
        (
            [L.MemoryData("d", data=np.arange(3), integers="x")],
            r"integers: 'x' is none of its tops, \['d'\]",
        ),
        ([L.MemoryData("d", data=np.arange(3), integers="d", scale=2)], "makes floats of its num"),
        ([L.MemoryData("d", data=np.arange(3), integers="d", mean="all")], "makes floats of its"),
        (
            [L.MemoryData("d", data=np.array([0.5, 1]), integers="d")],
            "top 'd': expected integers .* 0.5",
        ),
    ],
)
def test_what_cannot_hold_integers(layers, says):
    with pytest.raises(NetError, match=says):
        lk.Net(layers, 3)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([1, 2.5], "row 1 holds 2.5"),
        ([np.nan, 1], "row 0 holds nan"),
        ([1, np.inf], "row 1 holds inf"),
        ([1, 2.0**63], "row 1 holds 9.2"),
        (np.array([1, 2**63], np.uint64), "row 1 holds 9223372036854775808"),
    ],
)
def test_numbers_that_are_no_integers_are_named(given, shown, way):
    net = lk.Net([L.Input("t", shape=(), integers=True)], 3, **way)
    with pytest.raises(NetError, match=rf"blob 't': expected integers .*{shown}"):
        net.forward(t=given)
    for good in ([True, False], [1.0, -(2.0**53)], np.array([3, 2**40], ">u8"), np.float32([2, 3])):
        net.forward(t=good)
        assert host(net, "t").tolist() == [int(number) for number in np.asarray(good)]
    with pytest.raises(NetError, match="blob 't' has no diff"):
        net.backward(t=[1.0])


def test_a_large_label_that_is_no_class_is_shown_in_full():
    layers = [x(3), L.Input("t", shape=(), integers=True), L.SoftmaxLoss("y", "x", "t")]
    with pytest.raises(DataError, match="row 1 of 't' holds 9007199254740993, which is no class"):
        lk.Net(layers, 2).forward(x=np.zeros((2, 3)), t=[0, 2**53 + 1])


def test_onnx_models_take_integers(tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    layers = [L.Input("t", shape=(2,), integers=True), L.Slice("s", "t", tops=["a", "b"])]
    net = lk.Net([*layers, L.Embed("y", "b", count=3, units=2)], 2)
    lk.export_onnx(net, tmp_path / "net.onnx", ["a", "y"])
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    t = np.array([[2**53 + 1, 2], [-5, 0]])
    a, y = session.run(None, {"t": t})
    np.testing.assert_array_equal(a, t[:, :1])
    np.testing.assert_allclose(y, net.infer("y", t=t), rtol=1e-6)
