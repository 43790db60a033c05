"""The compiled engine for CPUs: kernels against the array code that they stand for, and threads."""

import inspect
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from scipy import special, stats

import layerkit as lk
from layerkit import layers as L
from layerkit.backends import philox
from layerkit.engines import activations, cpu
from layerkit.engines.cpu.runners import RUNNERS, base, formulas
from layerkit.engines.cpu.runners.weights import dense as runners
from layerkit.layers.elementwise.neuron import Neuron

KERNELS = cpu.extension()
if KERNELS is None:
    pytest.skip("the compiled engine was not built", allow_module_level=True)

USUAL = KERNELS.name()
SETS = [name for name in ("baseline", "avx2", "avx512") if KERNELS.choose(name)]
KERNELS.choose(USUAL)
GALAXY = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 1e-6}, "float64": {"rtol": 1e-12, "atol": 1e-13}}


@pytest.fixture(params=SETS)
def instructions(request):
    """Each set of instructions that this processor has."""
    assert KERNELS.choose(request.param)
    yield request.param
    KERNELS.choose(USUAL)


def both(layers, batch_size, seed, **settings):
    """The same net with kernels and with array code."""
    pair = [
        lk.Net(layers, batch_size=batch_size, seed=seed, kernels=kernels, **settings)
        for kernels in ("auto", "array")
    ]
    assert pair[0].engine.name == "cpu"
    assert pair[1].engine.name == "array"
    for name, p in pair[1].params.items():
        np.testing.assert_array_equal(pair[0].params[name].data, p.data)
    return pair


def compare(layers, rng, inputs, dtype, batch_size=None, **settings):
    """Forward and backward by kernels and array code, with diffs poisoned beforehand.

    The first pass also checks the contract, and takes diffs; the second records what it calls,
    and the third makes these calls again.
    """
    rows = len(next(iter(inputs.values())))
    seed = int(rng.integers(2**31))
    settings = {"dtype": dtype, "gradients": "all", **settings}
    net = lk.Net(layers, batch_size=rows, **settings)
    read = {b for layer in net.layers.values() for b in layer.bottoms}
    ends = [x for x in net.layers.values() if not x.is_loss and read.isdisjoint(x.tops)]
    for top in [top for layer in ends for top in layer.tops if net.gradients != "none"]:
        layers = [
            *layers,
            L.Input(f"{top} target", shape=net.blobs[top].shape),
            L.SquareLoss(f"{top} loss", top, f"{top} target", weight=0.3),
        ]
        inputs[f"{top} target"] = rng.standard_normal((rows, *net.blobs[top].shape))
    pair = both(layers, batch_size or rows, seed, **settings)
    weights = {
        top: rng.standard_normal((rows, *net.blobs[top].shape))
        for layer in net.layers.values()
        for top in layer.tops
        if net.blobs[top].diff is not None
    }
    for given in (weights, {}, {}):
        values = []
        for net in pair:
            for blob in net.blobs.values():
                blob._data.fill(np.nan)
                if blob._diff is not None:
                    blob._diff.fill(np.nan)
            for p in net.params.values():
                if p.diff is not None:
                    p.diff.fill(np.nan)
            values.append(net.forward(**inputs))
            net.backward(**given)
        assert_alike(pair, values, dtype)
    return pair


def magnitudes(net):
    """Add up the magnitudes of what layers with weights or gains add up, in float64.

    The error of a sum is relative to the sum of its terms' magnitudes, of which little may be left
    in the sum itself (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).

    Returns:
        (a blob's or parameter's name, "data" or "diff") -> an array, of those that are such sums.
    """
    sizes = {}
    for layer in net.layers.values():
        if isinstance(layer, L.LayerNorm):
            d = np.abs(net.blobs[layer.tops[0]].diff.astype("float64"))
            for p, terms in ((layer.g, d * np.abs(layer.normalized.data)), (layer.b, d)):
                if p is not None:
                    sizes[p.name, "diff"] = terms.sum(axis=tuple(range(d.ndim - p.data.ndim)))
        if type(layer) not in (L.Dense, L.Convolution, L.Deconvolution):
            continue
        # Before its activation a layer is linear: that of absolute values adds up magnitudes.
        x, y = net.blobs[layer.bottoms[0]], net.blobs[layer.tops[0]]
        linear = next(each for each in net.descriptions if each.name == layer.name).copied()
        linear.neuron = None
        layers = [L.Input(x.name, shape=x.shape), linear]
        alike = lk.Net(layers, len(x.data), dtype="float64", kernels="array", gradients="all")
        for name, p in alike.params.items():
            p.data[...] = np.abs(net.params[name].data)
        alike.forward(**{x.name: np.abs(x.data)})
        sizes[y.name, "data"] = alike.blobs[y.name].data
        d = layer.before.data.reshape(y.data.shape) if layer.neuron else y.diff
        alike.backward(**{y.name: np.abs(d)})
        sizes.update({(name, "diff"): p.diff for name, p in alike.params.items()})
        sizes[x.name, "diff"] = sizes.get((x.name, "diff"), 0) + alike.blobs[x.name].diff
    return sizes


def assert_alike(pair, values, dtype):
    """All that two passes have left behind."""
    tolerance, sizes = TOLERANCE[dtype], magnitudes(pair[1])
    assert values[0] == pytest.approx(values[1], rel=1e-5 if dtype == "float32" else 1e-12)
    for kind in ("blobs", "params"):
        for name, expected in getattr(pair[1], kind).items():
            found = getattr(pair[0], kind)[name]
            for what in ("data", "diff"):
                a, b = getattr(found, what), getattr(expected, what)
                if b is not None:
                    largest = max(1.0, float(np.abs(b).max()))
                    size = np.maximum(largest, sizes.get((name, what), 0))
                    np.testing.assert_allclose(
                        a / size, b / size, err_msg=f"{what} of {name}", **tolerance
                    )


# The layers.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("inputs", "units"), [(1, 1), (5, 3), (3, 130), (130, 3), (33, 700), (700, 33), (520, 530)]
)
@pytest.mark.parametrize("rows", [1, 2, 65])
def test_dense(rows, inputs, units, dtype, rng):
    layers = [
        L.Dense("y", "x", units=units, neuron="relu", bias=lk.initializers.Normal(1.0)),
        L.Input("x", shape=(inputs,)),
    ]
    compare(layers, rng, {"x": rng.standard_normal((rows, inputs))}, dtype)


@pytest.mark.parametrize(("rows", "units"), [(2, 2900), (20, 2500), (300, 2500)])
def test_a_wide_dense_is_cut_into_blocks(rows, units, rng):
    layers = [
        L.Input("x", shape=(7,)),
        L.Input("target", shape=(units,)),
        L.Dense("h", "x", units=130, neuron="relu"),
        L.Dense("y", "h", units=units),
        L.SquareLoss("loss", "y", "target", weight=1e-3),
    ]
    inputs = {"x": rng.standard_normal((rows, 7)), "target": rng.standard_normal((rows, units))}
    compare(layers, rng, inputs, "float64", batch_size=rows + 40)
    solvers = [lk.Adam(net, 1e-2) for net in both(layers, rows, 3, dtype="float64")]
    for _ in range(3):
        losses = [solver.step(**inputs) for solver in solvers]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    for name, p in solvers[1].net.params.items():
        np.testing.assert_allclose(
            solvers[0].net.params[name].data, p.data, rtol=1e-7, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("neuron", [None, *Neuron.registry])
def test_dense_with_any_neuron(neuron, rng):
    layers = [L.Input("x", shape=(3, 4)), L.Dense("y", "x", units=17, neuron=neuron)]
    compare(layers, rng, {"x": rng.standard_normal((5, 3, 4))}, "float64", batch_size=9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 19])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(transposed, rows, dtype, rng):
    for _ in range(6):
        axes, groups, channels, inputs = (int(n) for n in rng.integers(1, (3, 4, 4, 4)))
        kernel, stride, dilation = rng.integers(1, (6, 6, 3), (axes, 3)).T
        pad = rng.integers(0, np.minimum(kernel, 3))
        reach = (kernel - 1) * dilation + 1
        size = tuple(int(n) for n in rng.integers(reach, reach + 7))
        settings = {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation}
        if transposed and rng.random() < 0.5:
            least = (np.array(size) - 1) * stride + reach - 2 * pad
            settings["shape"] = np.maximum(least, 1) + rng.integers(stride)
        layer = (L.Deconvolution if transposed else L.Convolution)(
            "y",
            "x",
            channels=groups * channels,
            groups=groups,
            neuron=rng.choice(["relu", "leaky_relu", "softplus", "gelu", None]),
            bias=rng.choice([lk.initializers.Normal(1.0), None]),
            **{
                k: v.tolist() if axes == 2 or k == "shape" else int(v[0])
                for k, v in settings.items()
            },
        )
        x = rng.standard_normal((rows, groups * inputs, *size))
        compare([L.Input("x", shape=x.shape[1:]), layer], rng, {"x": x}, dtype, rows + 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 190])
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_pooling(mode, rows, dtype, rng):
    for _ in range(6):
        kernel, stride = rng.integers(1, 5, (2, 2))
        pad = rng.integers(0, kernel)
        size = tuple(int(n) for n in rng.integers(kernel, 12))
        layers = [
            L.Input("x", shape=(int(rng.integers(1, 4)), *size)),
            L.Pooling(
                "y",
                "x",
                kernel=kernel.tolist(),
                stride=stride.tolist(),
                pad=pad.tolist(),
                ceil=rng.random() < 0.5,
                mode=mode,
            ),
            L.GlobalPooling("z", "x", mode=mode),
        ]
        x = rng.integers(-3, 3, (rows, *layers[0].shape)).astype(dtype)  # with many ties
        compare(layers, rng, {"x": x}, dtype, rows + 2)


def test_pooling_before_a_first_forward_pass_writes_within_its_arrays():
    layers = [L.Input("x", shape=(1, 4, 4)), L.Pooling("y", "x", kernel=2, stride=2)]
    net = lk.Net(layers, batch_size=1, gradients="all")
    runner = cpu.engine().bind(net.layers["y"])
    for place in (-1, 16, -(2**31), 2**31 - 1):
        net.layers["y"].places.data[...] = place
        net.blobs["y"].diff[...] = 1
        runner.backward([net.blobs["x"]], [net.blobs["y"]])
        assert not net.blobs["x"].diff.any()


@pytest.mark.parametrize("frozen", [["y/weight"], ["y/bias"], ["y"]])
@pytest.mark.parametrize("layer", [L.Convolution, L.Deconvolution])
def test_convolutions_with_frozen_parameters(layer, frozen, rng):
    layers = [
        L.Input("x", shape=(2, 5, 5)),
        layer("h", "x", channels=2, kernel=3, neuron="relu"),
        layer("y", "h", channels=1, kernel=3),
        L.SquareLoss("loss", "y", "y"),
    ]
    x = rng.standard_normal((4, 2, 5, 5))
    pair = both(layers, 4, 1, dtype="float64")
    for net in pair:
        net.freeze(*frozen)
        net.arena.diff[...] = 7
        net.forward(x=x)
        net.backward(y=np.ones_like(net.blobs["y"].data))
    for name, p in pair[1].params.items():
        np.testing.assert_allclose(pair[0].params[name].diff, p.diff, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("frozen", [["y/weight"], ["y/bias"], ["y"]])
def test_dense_with_frozen_parameters(frozen, rng):
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("h", "x", units=5),
        L.Dense("y", "h", units=300),
        L.SquareLoss("loss", "y", "t"),
        L.Input("t", shape=(300,)),
    ]
    x, t = rng.standard_normal((4, 6)), rng.standard_normal((4, 300))
    pair = both(layers, 4, 1, dtype="float64")
    for net in pair:
        net.freeze(*frozen)
        net.forward(x=x, t=t)
        net.backward()
    for name, p in pair[1].params.items():
        np.testing.assert_allclose(pair[0].params[name].diff, p.diff, rtol=1e-12, atol=1e-13)


def test_relu_lets_nan_through(rng):
    layers = [L.Input("x", shape=(4,)), L.Dense("y", "x", units=3, neuron="relu")]
    net = lk.Net(layers, batch_size=2)
    x = rng.standard_normal((2, 4))
    x[0, 1] = np.nan
    net.forward(x=x)
    assert np.isnan(net.blobs["y"].data[0]).all()
    assert np.isfinite(net.blobs["y"].data[1]).all()


def test_relu_of_minus_infinity_is_zero():
    x = np.array([-np.inf, -1.0, 2.0, np.inf]).reshape(4, 1, 1, 1)
    layers = [
        L.Input("x", shape=(1, 1, 1)),
        L.Dense("dense", "x", units=1, neuron="relu", weight=1.0),
        L.Convolution("picture", "x", channels=1, kernel=1, neuron="relu", weight=1.0),
        L.Dense("leaky", "x", units=1, neuron="leaky_relu", weight=1.0),
    ]
    net = lk.Net(layers, batch_size=4)
    net.forward(x=x)
    assert net.blobs["dense"].data.ravel().tolist() == [0, 0, 2, np.inf]
    assert net.blobs["picture"].data.ravel().tolist() == [0, 0, 2, np.inf]
    np.testing.assert_allclose(net.blobs["leaky"].data.ravel(), [-np.inf, -0.01, 2, np.inf])


def test_pictures_and_poses_without_bounds(rng):
    """In array code, too, places beyond all bounds are at the border; infinite light has no sky."""
    layers = [
        L.Input("x", shape=(5, 5)),
        L.Input("u", shape=(4,)),
        L.ImagePose("pose", "x", side=5, size=1),
        L.SpatialTransform("y", "x", "u", side=5, inverse=True),
    ]
    x, u = rng.random((4, 5, 5)), rng.standard_normal((4, 4))
    x[1, 0, :] = x[1, :, 0] = -np.inf
    x[2, 0, :] = x[2, :, 4] = np.inf
    u[0, 2:] = np.inf, -np.inf
    u[1] = 0
    u[3, 3] = np.nan
    for net in both(layers, 4, 1, dtype="float64"):
        with np.errstate(all="ignore"):
            net.forward(x=x, u=u)
        y, pose = net.blobs["y"].data, net.blobs["pose"].data
        assert (y[0] == x[0, 0, 4]).all()
        assert np.isnan(y[3]).all()
        assert np.isfinite(pose[[0, 3]]).all()
        assert np.isnan(pose[[1, 2]]).any(axis=1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (17,), (4, 5), (1003,)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("floor", [0.0, 1e-3])
@pytest.mark.parametrize("kind", [L.GaussianReconstruction, L.StudentReconstruction])
def test_reconstruction(kind, floor, rows, shape, dtype, rng):
    layers = [
        *(L.Input(name, shape=shape) for name in ("x", "mean", "log_variance")),
        kind("y", "x", "mean", "log_variance", floor=floor),
    ]
    arrays = {
        "x": rng.random((rows, *shape)),
        "mean": rng.random((rows, *shape)),
        "log_variance": rng.uniform(-4, 2, (rows, *shape)),
    }
    compare(layers, rng, arrays, dtype, batch_size=rows + 2)


@pytest.mark.parametrize("wanted", [["mean"], ["log_variance"], ["x"], ["x", "log_variance"]])
@pytest.mark.parametrize("kind", [L.GaussianReconstruction, L.StudentReconstruction])
def test_reconstruction_with_some_diffs(kind, wanted, rng):
    """Only what leads to a parameter has a diff."""
    bottoms = {n: f"{n}_in" if n in wanted else n for n in ("x", "mean", "log_variance")}
    layers = [
        *(L.Input(name, shape=(7,)) for name in bottoms.values()),
        *(L.Dense(n, bottoms[n], units=7) for n in wanted),
        kind("y", "x", "mean", "log_variance"),
    ]
    arrays = {name: rng.random((3, 7)) for name in bottoms.values()}
    pair = compare(layers, rng, arrays, "float64", gradients="parameters")
    assert [n for n in bottoms if pair[0].blobs[n].diff is not None] == [
        n for n in bottoms if n in wanted
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 5), (70, 9)])
def test_latent_layers(rows, size, dtype, rng):
    layers = [
        L.Input("m", shape=(size,)),
        L.Input("v", shape=(size,)),
        L.Reparameterize("z", "m", "v"),
        L.GaussianKL("kl", "m", "v", weight=0.7),
    ]
    arrays = {"m": rng.standard_normal((rows, size)), "v": rng.uniform(-3, 2, (rows, size))}
    pair = compare(layers, rng, arrays, dtype)
    means = [net.infer("z", sample=False, **arrays) for net in pair]
    for mean in means:
        np.testing.assert_array_equal(mean, arrays["m"].astype(dtype))


DTYPES = ["float32", "float64", "uint8", "int16", ">f4", "float16", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("augment", [None, "dihedral"])
def test_memory_data(augment, dtype, rng):
    images = (rng.random((7, 2, 5, 5)) * 200).astype(dtype)
    labels = rng.integers(0, 9, 7)
    layers = [
        L.MemoryData("x", data=[images, labels], tops=["x", "t"], augment=augment, scale=1 / 255)
    ]
    pair = both(layers, 5, int(rng.integers(2**31)))
    for _ in range(6):  # several epochs, with batches across their ends
        for net in pair:
            net.forward()
        for name in ("x", "t"):
            np.testing.assert_allclose(
                pair[0].blobs[name].data, pair[1].blobs[name].data, rtol=1e-6
            )
    assert pair[0].state() == pair[1].state()


VIEWS = {
    "in Fortran's order": lambda a: a.reshape(5, 6, order="F"),
    "transposed": lambda a: a.reshape(6, 5).T,
    "mirrored": lambda a: a.reshape(5, 6)[:, ::-1],
    "every other column": lambda a: a.reshape(5, 6)[:, ::2],
    "every other row, backwards": lambda a: a.reshape(5, 6)[::-2],
    "a field": lambda a: a.view([("id", "u4"), ("x", "f4", 4)])["x"],
    "a field between bytes": lambda a: a.view("u1")[:108].view([("x", "f4", 4), ("y", "u2")])["x"],
    "not aligned": lambda a: a.view("u1")[3:115].view("f4").reshape(4, 7),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_of_an_array_in_a_file(view, rng, tmp_path):
    np.save(tmp_path / "a.npy", rng.standard_normal(30).astype("float32"))
    mapped = view(np.load(tmp_path / "a.npy", mmap_mode="r"))
    net = lk.Net([L.MemoryData("x", data=mapped, shuffle=False)], batch_size=len(mapped))
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, np.array(mapped))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_array_code_is_right_too(case, rng):
    """Other tests run what a user gets, which is kernels; here is the specification."""
    arrays = case.draw(rng, 3)
    net = case.net(rng, arrays, kernels="array")
    inputs = {k: v for k, v in arrays.items() if k in net.layers}
    net.forward(**inputs)
    expected = case.expected(net, arrays)
    for top, values in zip(net.layers["y"].tops, expected, strict=True):
        np.testing.assert_allclose(net.blobs[top].data, values, rtol=1e-10, atol=1e-12)


LABELLED = [
    L.SoftmaxLoss("y", "x", "t", ignore=3),
    L.Accuracy("y", "x", "t", ignore=3),
    L.HingeLoss("y", "x", "t"),
    L.Embed("y", "t", count=5, units=2),
    L.OneHot("y", "t", count=5),
]


@pytest.mark.parametrize("layer", LABELLED, ids=lambda layer: type(layer).__name__)
def test_kernels_read_labels_that_are_integers(layer, rng):
    x, t = rng.standard_normal((20, 5)), rng.integers(5, size=20)
    tops = []
    for integers in (True, False):
        layers = [L.Input("x", shape=(5,)), L.Input("t", shape=(), integers=integers), layer]
        net = lk.Net(layers, batch_size=20, seed=1)
        assert isinstance(net.runners["y"], base.KernelRunner)
        net.forward(x=x, t=t)
        tops.append(net.blobs["y"].data)
    np.testing.assert_array_equal(*tops)


def test_layers_without_kernels():
    sky = {"ConvolvePSF", "CutSources", "Normalise", "PlaceSources"}
    known_noise = {"KnownVarianceReconstruction", "PoissonReconstruction"}
    sources = {"GeneratorData", "HDF5Data", "ImageData"}
    have = {kind.__name__ for kind in RUNNERS}
    assert set(L.__all__) - have == sky | known_noise | sources


# (classes, places after them): with classes or places abreast, in whole vectors and not.
CLASSES = [(1, 1), (3, 1), (31, 1), (32, 1), (77, 1), (4, 16), (5, 40), (6, 7), (40, 3)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", CLASSES, ids=str)
def test_softmax_of_any_layout(shape, dtype, rng, instructions):
    count, places = shape
    layers = [
        L.Input("x", shape=(count, places)),
        L.Input("t", shape=(places,)),
        L.Softmax("y", "x", axis=0),
        L.SoftmaxLoss("loss", "x", "t", axis=0, smoothing=0.1),
    ]
    x, t = 3 * rng.standard_normal((18, count, places)), rng.integers(count, size=(18, places))
    compare(layers, rng, {"x": x, "t": t}, dtype)


@pytest.mark.parametrize("size", [3, 40, 128, 130, 5000])
def test_layer_norm_of_any_size(size, rng, instructions):
    layers = [
        L.Input("x", shape=(7, size)),
        L.LayerNorm("y", "x"),
        L.LayerNorm("z", "x", gain=lk.initializers.Normal(1.0), bias=lk.initializers.Normal(1.0)),
    ]
    compare(layers, rng, {"x": 2 + rng.standard_normal((23, 7, size))}, "float32")


# Parts of kernels.


FUNCTIONS = {"exp": KERNELS.exponential, "log": KERNELS.logarithm}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exp_and_log_are_good_to_two_units_in_the_last_place(name, rng, instructions):
    x = np.concatenate([rng.uniform(-87, 88.7, 200_000), rng.uniform(0.5, 2, 100_000)])
    x = (x if name == "exp" else np.exp(np.minimum(x, 88))).astype(np.float32)
    y = np.empty_like(x)
    FUNCTIONS[name](x, y)
    right = getattr(np, name)(x.astype(np.float64))
    unit = np.spacing(np.abs(right).astype(np.float32)).astype(np.float64)
    assert (np.abs(y - right) / unit).max() <= 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exp_and_log_at_the_edges(name, instructions):
    """Denormal numbers count as zero: what would be one is zero, and its logarithm infinite."""
    x = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, 1e-45, -1, 89, 200, -104, -200], np.float32)
    y = np.empty_like(x)
    FUNCTIONS[name](x, y)
    with np.errstate(all="ignore"):
        right = getattr(np, name)(np.where(np.abs(x) < 2.0**-126, 0, x))
    right[np.abs(right) < 2.0**-126] = 0
    np.testing.assert_allclose(y, right, rtol=3e-7)


# formula -> (the function of x in float64, its derivative, relative error allowed)
ACTIVATIONS = {
    "ReLU": (lambda x: np.maximum(x, 0), lambda x: x > 0, 0),
    "LeakyReLU": (lambda x: np.where(x > 0, x, 0.3 * x), lambda x: np.where(x > 0, 1, 0.3), 2e-7),
    "ELU": (
        lambda x: np.where(x > 0, x, 0.3 * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, 0.3 * np.exp(np.minimum(x, 0))),
        5e-7,
    ),
    "Sigmoid": (special.expit, lambda x: special.expit(x) * special.expit(-x), 3e-7),
    "Tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2, 3e-7),
    "Softplus": (lambda x: np.logaddexp(0, x), special.expit, 5e-7),
    "Exponential": (np.exp, np.exp, 3e-7),
    "GELU": (
        lambda x: x * special.ndtr(x),
        lambda x: special.ndtr(x) + x * stats.norm.pdf(x),
        2e-6,
    ),
    "SiLU": (
        lambda x: x * special.expit(x),
        lambda x: special.expit(x) * (1 + x * special.expit(-x)),
        5e-7,
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_good_to_a_few_units_in_the_last_place(name, rng, instructions):
    """In float32; the tails that approach 0 are as good as exp(-x^2) is."""
    (function, slope, relative), kind = ACTIVATIONS[name], base.numbers()[name]
    tiny = np.exp(rng.uniform(-30, 0, 30_000)) * rng.choice([-1, 1], 30_000)
    x = np.concatenate([rng.uniform(-9, 9, 100_000), tiny, [0, 5, -5]]).astype(np.float32)
    y, dx = np.empty_like(x), np.empty_like(x)
    KERNELS.activate(kind, 0.3, x, y)
    right = function(x.astype(np.float64))
    np.testing.assert_allclose(y, right, rtol=relative, atol=1e-12)
    KERNELS.differentiate(kind, 0.3, x if name in ("GELU", "SiLU") else y, np.full_like(x, 2), dx)
    np.testing.assert_allclose(dx, 2 * slope(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    KERNELS.activate(kind, 0.3, x, x)  # in place
    np.testing.assert_array_equal(x, y)


def test_activations_at_the_edges(instructions):
    x = np.array([np.inf, -np.inf, np.nan, 200, -200, -0.0, 0], np.float32)
    y, right = np.empty_like(x), np.empty_like(x)
    for kind in activations.SETTINGS:
        neuron = kind("y", "x")
        base.following(neuron).activate(None, x, y)
        with np.errstate(all="ignore"):
            neuron.activate(np, x, right)
        np.testing.assert_allclose(y, right, rtol=3e-7, err_msg=kind.__name__)


def test_a_neuron_derived_from_one_with_kernels_runs_its_own_code(rng):
    class Twice(L.ReLU):
        """A ReLU of slope 2."""

        def activate(self, xp, x, y):
            y[...] = 2 * xp.maximum(x, 0)

        def differentiate(self, xp, known, dy, dx):
            dx[...] = 2 * dy * (known > 0)

    layers = [L.Input("x", shape=(1, 3, 4)), L.Dense("y", "x", units=7, neuron=Twice.of())]
    layers += [L.Convolution("z", "x", channels=2, kernel=2, neuron=Twice.of())]
    compare(layers, rng, {"x": rng.standard_normal((5, 1, 3, 4))}, "float64", batch_size=9)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_the_likelihood_of_strange_log_variances(floor, rng):
    """Infinite variances, none at all and NaN, each in a picture of its own.

    A variance of exp(-95) is a denormal number.  Kernels count it as zero, and so make NaN of a
    loss that is infinite in array code.
    """
    shape = (5, 203)
    inputs = {name: rng.standard_normal(shape).astype(np.float32) for name in "xmv"}
    for row, value in enumerate((200, -200, np.nan, -95)):
        at = row, rng.integers(203)
        inputs["v"][at] = value
        inputs["m"][at] = inputs["x"][at] + 1  # so far off that its loss by exp(-95) is infinite
    losses = []
    layers = [L.Input(n, shape=(203,)) for n in "xmv"]
    layers.append(L.GaussianReconstruction("loss", "x", "m", "v", floor=floor))
    for net in both(layers, 5, 1, gradients="all"):
        with np.errstate(all="ignore"):
            net.forward(**inputs)
            net.backward()
        losses.append([net.blobs["loss"].data.copy(), *(net.blobs[n].diff.copy() for n in "xmv")])
    for a, b in zip(*losses, strict=True):
        finite = np.isfinite(b)
        if floor == 0:
            assert not finite[3].all()
            a, b, finite = (np.delete(array, 3, axis=0) for array in (a, b, finite))
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_allclose(a[finite], b[finite], rtol=2e-5, atol=1e-6)
        np.testing.assert_array_equal(a[~finite], b[~finite])


def test_philox_is_that_of_the_array_code(rng):
    seed, stream, step = (int(n) for n in rng.integers(2**62, size=3))
    stream %= 2**32
    zeros, scaled, numbers = np.zeros((3, 40))
    clock = np.array([seed, step, True], np.uint64)
    KERNELS.reparameterize(zeros, zeros, scaled, numbers, stream, clock)
    np.testing.assert_allclose(numbers, philox.normal(np, (40,), seed, stream, step), rtol=1e-12)
    rows = np.arange(8.0)[None]  # each is its own place in the table of a symmetry
    table = np.array([np.roll(np.arange(8), k) for k in range(8)])
    out = np.empty((40, 8))
    KERNELS.gather(rows, np.zeros(40, np.int64), out, 0, 1.0, table, seed, stream, step)
    which = philox.bits(np, 40, seed, stream, step) & 7
    np.testing.assert_array_equal(out, table[which])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1),
        (1, 5, 3),
        (4, 1, 7),
        (6, 5, 1),
        (30, 40, 50),
        # Few rows, or few terms: tiles of four rows and three vectors, and what is left over.
        (1, 9, 700),
        (3, 30, 9700),
        (4, 8, 24),
        (7, 70, 25),
        (9, 3, 601),
        (19, 700, 11),
        (40, 5, 61),
        (23, 1300, 8),
        (64, 64, 64),
        # Panels of less than a vector, and more rows and terms than are copied at a time.
        (25, 25, 4),
        (31, 530, 14),
        (197, 300, 77),
        (390, 21, 50),
        (3, 0, 5),
        (40, 0, 5),
    ],
)
def test_products_of_any_layout(sizes, dtype, rng, instructions):
    m, k, n = sizes
    # The error of k products and a first value, added in any order, relative to the sum of their
    # magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
    rounding = (k + 1) * np.finfo(dtype).eps / 2
    bound = rounding / (1 - rounding)

    def layouts(values):
        rows, columns = values.shape
        wide = np.full((rows, columns + 3), np.nan, dtype)
        high = np.full((columns + 3, rows), np.nan, dtype)
        wide[:, 2:-1], high[2:-1] = values, values.T
        return values, values.T.copy().T, wide[:, 2:-1], high[2:-1].T

    exact = np.float64 if dtype == "float32" else np.longdouble  # as good as
    left, right = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    product = left.astype(exact) @ right.astype(exact)
    magnitude = np.abs(left.astype("float64")) @ np.abs(right.astype("float64"))
    for a in layouts(left):
        for b in layouts(right):
            whole = rng.standard_normal((m + 1, n + 2)).astype(dtype)
            for add in (False, True):
                before = whole.copy()
                KERNELS.multiply(a, b, whole[:m, 1:-1], add)
                first = before[:m, 1:-1].astype(exact) * add
                expected = product + first
                size = magnitude + np.abs(first)
                error = np.abs(whole[:m, 1:-1] - expected)
                assert (error <= bound * size).all()
                before[:m, 1:-1] = whole[:m, 1:-1]
                np.testing.assert_array_equal(whole, before)


# name -> what it computes of a, b and c, with the setting 0.7
FORMULAS = {
    "copy": lambda a, b, c: a,
    "scale": lambda a, b, c: 0.7 * a,
    "add": lambda a, b, c: a + b,
    "subtract": lambda a, b, c: a - b,
    "multiply": lambda a, b, c: a * b,
    "multiply_three": lambda a, b, c: a * b * c,
    "divide": lambda a, b, c: a / b,
    "divide_slope": lambda a, b, c: -a * c / b,
    "affine": lambda a, b, c: a * b + c,
    "prelu": lambda a, b, c: np.where(a > 0, a, b * a),
    "prelu_slope": lambda a, b, c: np.where(a > 0, b, c * b),
    "prelu_steepness": lambda a, b, c: np.where(a > 0, 0, a) * b,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_of_arrays_of_any_strides(name, dtype, rng, instructions):
    """Operands are transposed, repeated and reversed; results are summed over some axes."""
    assert list(FORMULAS) == list(formulas.NAMES)
    for turn in range(30):
        # Some of more than one piece, and of more than one part of a sum.
        shape = tuple(int(n) for n in rng.integers(1, 80 if turn % 10 == 0 else 7, 3))
        shape = shape if turn % 2 else (*shape, 2, 3)

        def operand(shape=shape):
            order = rng.permutation(len(shape))
            sizes = [1 if rng.random() < 0.3 else shape[axis] for axis in order]
            array = rng.uniform(0.5, 2, sizes) * rng.choice([-1, 1], sizes)
            array = array.astype(dtype).transpose(np.argsort(order))
            return array[::-1] if rng.random() < 0.3 else array

        a, b, c = (np.broadcast_to(operand(), shape) for _ in range(3))
        over = tuple(int(axis) for axis in np.flatnonzero(rng.random(len(shape)) < 0.4))
        kept = [1 if axis in over else size for axis, size in enumerate(shape)]
        out = np.full(kept, np.nan, dtype)
        formulas.combine(KERNELS, name, np.broadcast_to(out, shape), a, b, c, setting=0.7)
        terms = FORMULAS[name](*(x.astype("float64") for x in (a, b, c)))
        size = np.abs(terms).sum(axis=over, keepdims=True) + 1
        expected = terms.sum(axis=over, keepdims=True)
        np.testing.assert_allclose(out / size, expected / size, **TOLERANCE[dtype])


@pytest.mark.parametrize("pause", [0, 0.02], ids=["awake", "asleep"])
@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 1000])
def test_each_piece_is_done_once(pieces, pause):
    counts = np.zeros(pieces, np.int64)
    for turn in range(1, 20 if pause else 200):
        time.sleep(pause)
        KERNELS.count(counts)
        assert (counts == turn).all()


@pytest.mark.skipif(cpu.thread_count() == 1, reason="there is one thread only")
def test_helpers_that_sleep_are_woken():
    """A piece that waits for another to be done, which a second thread must do."""
    for _ in range(5):
        time.sleep(0.02)
        assert KERNELS.meet()


class OwnForward(L.Dense):
    """A user's layer that builds on one with kernels."""

    def forward(self, bottoms, tops):
        super().forward(bottoms, tops)
        tops[0].data[...] += 1


def test_a_subclass_is_run_by_its_own_array_code(rng):
    x = rng.standard_normal((2, 3))
    nets = [
        lk.Net([L.Input("x", shape=(3,)), layer("y", "x", units=4)], batch_size=2, dtype="float64")
        for layer in (L.Dense, OwnForward)
    ]
    for net in nets:
        net.forward(x=x)
    plain, own = (net.blobs["y"].data for net in nets)
    np.testing.assert_allclose(own, plain + 1)
    lk.check_gradients(nets[1], x=x)


def test_kernels_is_auto_or_array():
    with pytest.raises(lk.errors.NetError, match="kernels must be one of 'auto', 'array'"):
        lk.Net([L.Input("x", shape=())], kernels="fast")


# Programs: calls that are made again without Python in between.


SCENE = ("galaxy_light", "galaxy_profile")


@pytest.mark.parametrize(
    "file",
    # Those of the scene take no pictures alone; layers of the sky are array code.
    [path for path in sorted(GALAXY.parent.glob("*.py")) if path.stem not in SCENE],
    ids=lambda file: file.stem,
)
def test_a_step_of_the_net_files_is_calls_of_kernels_alone(file, rng):
    net = lk.Net(lk.load_net(file), batch_size=2)
    solver, x = lk.Adam(net, 1e-4), rng.random((2, 4761))
    for _ in range(3):
        solver.step(x=x)
    for way, programs in solver.plan().programs.items():
        (program,) = programs.values()
        assert len(program.parts) == 1, way
        assert len(program.parts[0]) > 1, way


@pytest.mark.parametrize("case", [c for c in CASES if c.has_kernels], ids=lambda case: case.id)
def test_settings_that_change_between_passes_are_obeyed(case, rng):
    arrays = case.draw(rng, 4)
    pair = [case.net(rng, arrays, kernels=kernels, seed=5) for kernels in ("auto", "array")]
    top = pair[0].layers["y"].tops[0]
    diffs = {} if pair[0].layers["y"].is_loss else {top: rng.random(pair[0].blobs[top].data.shape)}
    for factor in (1, 1.5, 0.7):
        for net in pair:
            layer = net.layers["y"]
            for thing in (layer, getattr(layer, "neuron", None)):
                for name, value in vars(thing).items() if thing else ():
                    known = name in type(thing).rules() and name not in thing.fixed
                    if type(value) is float and known:
                        most = {"turns": 1.0, "momentum": 0.99}.get(name, np.inf)
                        setattr(thing, name, min(most, value * factor))
        for _ in range(3):
            values = []
            for net in pair:
                values.append(net.forward(**arrays))
                if pair[0].layers["y"].is_metric:
                    continue
                net.backward(**diffs)
            assert_alike(pair, values, "float64")


def test_weights_of_losses_rows_and_frozen_layers_change_between_steps(rng, monkeypatch):
    monkeypatch.setattr(runners, "LARGE", 1)
    nets = both(small_vae(), 6, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    changes = [
        lambda net: None,
        lambda net: setattr(net.layers["kl"], "weight", 0.2),
        lambda net: net.freeze("g1"),
        lambda net: net.unfreeze("g1"),
        lambda net: setattr(net.params["g1/weight"], "l2", 0.3),
        lambda net: setattr(net.run, "seed", 77),
    ]
    for change in changes:
        for net in nets:
            change(net)
        for rows in (6, 2, 6, 6, 2):
            x = rng.random((rows, 600))
            losses = [solver.step(x=x) for solver in solvers]
            np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    for name, p in nets[1].params.items():
        np.testing.assert_allclose(nets[0].params[name].data, p.data, rtol=1e-7, atol=1e-10)


def test_a_parameter_that_is_frozen_by_hand_and_trained_again_has_its_gradient(rng):
    layers = [
        L.Input("x", shape=(1, 4, 4)),
        L.Convolution("c", "x", channels=2, kernel=3),
        L.Dense("h", "c", units=5),
        L.Input("t", shape=(5,)),
        L.SquareLoss("loss", "h", "t"),
    ]
    pair = both(layers, 3, 1, dtype="float64")
    inputs = {"x": rng.random((3, 1, 4, 4)), "t": rng.random((3, 5))}
    for trained in (False, True):
        for net in pair:
            for name in ("c/weight", "h/bias"):
                net.params[name].trainable = trained
        for _ in range(3):
            for net in pair:
                net.params["c/weight"].diff[...] = net.params["h/bias"].diff[...] = -7
                net.forward(**inputs)
                net.backward()
            for name, p in pair[1].params.items():
                if p.trainable:
                    np.testing.assert_allclose(pair[0].params[name].diff, p.diff, rtol=1e-12)


class Halves(L.Tanh):
    """Array code of a user's own, in the middle of a net."""

    def activate(self, xp, x, y):
        xp.multiply(x, 0.5, out=y)

    def differentiate(self, xp, y, dy, dx):
        xp.multiply(dy, 0.5, out=dx)


def test_array_code_between_kernels_is_called_in_its_place(rng):
    layers = [
        L.Input("x", shape=(5,)),
        L.Dense("h", "x", units=7, neuron="relu"),
        Halves("s", "h"),
        L.Dense("y", "s", units=4, neuron="tanh"),
        L.Input("t", shape=(4,)),
        L.SquareLoss("loss", "y", "t"),
    ]
    inputs = {"x": rng.standard_normal((3, 5)), "t": rng.standard_normal((3, 4))}
    pair = compare(layers, rng, inputs, "float64")
    solvers = [lk.Adam(net, 1e-2) for net in pair]
    for _ in range(5):
        losses = [solver.step(**inputs) for solver in solvers]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_a_recorded_call_that_fails_names_its_layer(rng):
    net = lk.Net([L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)], batch_size=1)
    rows, index, out = rng.random((4, 9)), np.zeros(2, np.int64), np.zeros((2, 9))
    program = cpu.Program(KERNELS)

    def calls():
        for name, numbers in (("x", index.copy()), ("y", index)):
            arguments = (rows, numbers, out, 0, 1.0, np.zeros((0, 0)), 0, 0, 0)
            program.record(True, net.layers[name], KERNELS.gather, *arguments, way="forward")

    program.note(calls)
    out[:] = 0
    program.run()
    np.testing.assert_array_equal(out, rows[[0, 0]])
    index[1] = 4
    with pytest.raises(lk.errors.ContractError, match="layer 'y'"):
        program.run()
    program = cpu.Program(KERNELS)  # a call that is no layer's
    index[1] = 0
    program.note(lambda: KERNELS.gather(rows, index, out, 0, 1.0, np.zeros((0, 0)), 0, 0, 0))
    index[1] = 4
    with pytest.raises(KERNELS.MismatchError):
        program.run()


def test_an_error_while_calls_are_recorded_leaves_nothing_behind(rng):
    """The call is made again as if for the first time, and other kernels are not recorded."""
    net = lk.Net([L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)], batch_size=1)
    programs, made = {}, []

    def calls(make):
        make(True, net.layers["y"], made.append, 1, way="forward")
        if len(made) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net.engine.repeat(programs, "key", calls)
    assert not programs
    net.engine.repeat(programs, "key", calls)
    KERNELS.fill(np.zeros(3), np.ones(1))
    assert len(programs["key"].parts[0]) == 0
    assert made == [1, 1]


# Solvers.


def small_vae(**settings):
    return lk.load_net(GALAXY, pixels=600, hidden=33, latent=3, **settings)


SOLVERS = [
    lambda net, **k: lk.Adam(net, 1e-3, **k),
    lambda net, **k: lk.SGD(net, 1e-6, **k),
    lambda net, **k: lk.Nesterov(net, 1e-6, momentum=0.5, **k),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=["Adam", "SGD", "Nesterov"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_fused_unfused_and_array_code_agree(solver, rows, rng, monkeypatch):
    monkeypatch.setattr(runners, "LARGE", 1)
    x = rng.random((rows, 600))
    nets = [
        *both(small_vae(), rows, 3, dtype="float64"),
        lk.Net(small_vae(), batch_size=rows, seed=3, dtype="float64"),
    ]
    solvers = [solver(net) for net in nets]
    solvers[2].fuse = False
    for _ in range(8):
        losses = [s.step(x=x) for s in solvers]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-9)
    assert solvers[0].plan().updated == set(nets[0].params)
    assert solvers[2].plan().updated == set()
    for name, p in nets[1].params.items():
        for net in (nets[0], nets[2]):
            np.testing.assert_allclose(net.params[name].data, p.data, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(nets[2].params[name].diff, p.diff, rtol=1e-6, atol=1e-7)
    for name, flat in solvers[1].history.items():
        for s in (solvers[0], solvers[2]):
            np.testing.assert_allclose(s.history[name], flat, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 40])
def test_layers_without_bias_or_with_slopes_are_updated_too(rows, rng, monkeypatch):
    monkeypatch.setattr(runners, "LARGE", 1)
    layers = [
        L.Input("x", shape=(600,)),
        L.Dense("h", "x", units=33, neuron="relu", bias=None),
        L.Dense("g", "h", units=20, neuron="prelu"),
        L.Dense("f", "g", units=600, neuron="prelu", bias=None),
        L.Dense("y", "f", units=600, bias=None),
        L.SquareLoss("loss", "y", "x"),
    ]
    x = rng.random((rows, 600))
    nets = both(layers, rows, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    for _ in range(5):
        losses = [solver.step(x=x) for solver in solvers]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    assert solvers[0].plan().updated == {"h/weight", "y/weight"}
    for name, p in nets[1].params.items():
        np.testing.assert_allclose(nets[0].params[name].data, p.data, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("what", ["clip", "frozen", "l2", "l2 later"])
def test_what_cannot_be_fused_is_not(what, rng, monkeypatch):
    monkeypatch.setattr(runners, "LARGE", 1)
    x = rng.random((4, 600))
    pair = both(small_vae(), 4, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-2, clip=0.5 if what == "clip" else None) for net in pair]
    for net, solver in zip(pair, solvers, strict=True):
        if what == "l2 later":
            solver.step(x=x)
        if what == "frozen":
            net.freeze("g1/weight", "f2")
        if what.startswith("l2"):
            net.params["x_mean/weight"].l2 = 0.1
        for _ in range(5):
            solver.step(x=x)
    excluded = {"clip": "", "frozen": ("g1", "f2")}.get(what, "x_mean")
    assert solvers[0].plan().updated == {n for n in pair[0].params if not n.startswith(excluded)}
    for name, p in pair[1].params.items():
        np.testing.assert_allclose(pair[0].params[name].data, p.data, rtol=1e-7, atol=1e-9)


class HalfAdam(lk.Adam):
    """A user's solver that builds on one with a kernel."""

    def update(self, w, g, rate, **history):
        super().update(w, g, rate / 2, **history)


def test_a_subclass_of_a_solver_is_run_by_its_own_update(rng):
    x = rng.random((4, 600))
    nets = [lk.Net(small_vae(), batch_size=4) for _ in range(2)]
    for net, solver in zip(nets, (HalfAdam(nets[0], 1e-3), lk.Adam(nets[1], 5e-4)), strict=True):
        for _ in range(3):
            solver.step(x=x)
        assert np.isfinite(net.arena.data).all()
    np.testing.assert_allclose(nets[0].arena.data, nets[1].arena.data, rtol=1e-3, atol=1e-6)


def train(steps, kernels="auto", seed=5, batch_size=6, images=50):
    images = np.random.default_rng(seed).random((images, 600)) * 0.3
    source = L.MemoryData("x", data=images.astype(np.float32))
    net = lk.Net(
        lk.with_data(small_vae(), source), batch_size=batch_size, seed=seed, kernels=kernels
    )
    solver = lk.Adam(net, 1e-3)
    return net, solver, [solver.step() for _ in range(steps)]


def test_the_loss_curve_is_that_of_the_array_code():
    *_, fast = train(200)
    *_, plain = train(200, kernels="array")
    # A loss is a sum of terms of either sign, so its rounding is relative to the largest of them.
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5 * np.abs(plain).max())


def test_two_runs_are_identical_to_the_last_bit():
    (one, _, losses), (other, _, again) = train(50), train(50)
    assert losses == again
    np.testing.assert_array_equal(one.arena.data, other.arena.data)


def test_nets_in_two_threads_of_a_program(rng):
    """Only one can have the helpers; the other works alone, and both get the same as ever."""
    *_, expected = train(60)
    results = [None] * 3

    def work(i):
        results[i] = train(60)[2]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 3


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_step_allocates_nothing(batch_size):
    """No arrays: what is left is a few Python numbers.  A blob of the net is 2400 bytes or more."""
    _, solver, _ = train(20, batch_size=batch_size, images=1000)
    tracemalloc.start()
    try:
        solver.step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(5):  # the end of an epoch, when a new order is made, is far away
            solver.step()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000
    assert peak - before < 4000


# Processes: with other settings, without the compiled engine.


def script(code, **environment):
    """Return what a fresh process prints."""
    names = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=names, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


TRAIN = """
import sys, zlib
for blocked in {blocked}:
    sys.modules[blocked] = None
import numpy as np
import layerkit as lk
from layerkit import layers as L
GALAXY = {galaxy!r}
{functions}
net, _, losses = train(20)
print(net.engine.name == "cpu", net.runners["g1"].forward == net.layers["g1"].forward)
print(zlib.crc32(net.arena.data.tobytes()), losses[-1])
"""


def trained(*blocked, **environment):
    """Trains in a fresh process: kernels in use, Dense runs array code, checksum, last loss."""
    functions = "\n".join(map(inspect.getsource, (small_vae, train)))
    code = TRAIN.format(blocked=blocked, galaxy=str(GALAXY), functions=functions)
    used, array, checksum, loss = script(code, **environment)
    return used == "True", array == "True", int(checksum), float(loss)


def test_results_do_not_depend_on_the_number_of_threads():
    net, _, losses = train(20)
    own = (True, False, zlib.crc32(net.arena.data.tobytes()), losses[-1])
    one, two = (trained(OMP_NUM_THREADS=count) for count in ("1", "2"))
    assert one == two
    if "LAYERKIT_TEST_INSTRUCTIONS" not in os.environ:  # which other processes do not hear of
        assert own == one


CONVOLUTIONAL = """
import zlib
import numpy as np
import layerkit as lk
net = lk.Net(lk.load_net({file!r}, side=21, channels=(3, 5), hidden=9), 19, seed=3)
solver = lk.Adam(net, 1e-3)
x = np.random.default_rng(1).random((19, 441))
for _ in range(5):
    solver.step(x=x)
print(zlib.crc32(net.arena.data.tobytes()))
"""


def of_formulas_and_classes(rng):
    """Layers, many of them formulas and lookups, and inputs of more than one piece of work."""
    layers = [
        L.Input("x", shape=(6, 20, 20)),
        L.Input("t", shape=(20, 20)),
        L.Affine("a", "x"),
        L.PReLU("p", "a"),
        L.Dropout("d", "p"),
        L.Permute("q", "d", order=(1, 2, 0)),
        L.Embed("e", "t", count=7, units=6),
        L.Multiply("m", "q", "e"),
        L.Permute("c", "m", order=(2, 0, 1)),
        L.Reduce("r", "c", mode="mean", axes=0, keep=True),
        L.Divide("v", "c", "w"),
        L.Input("w", shape=(1, 20, 1)),
        L.Convolution("y", "v", channels=7, kernel=1),
        L.MatMul("z", "y", "y", transpose_b=True),
        L.Reduce("s", "z", mode="max", axes=-1),
        L.Softmax("o", "s", axis=0),
        L.Subtract("u", "o", "s"),
        L.HuberLoss("huber", "u", "s"),
        L.SoftmaxLoss("loss", "y", "t", axis=0, smoothing=0.1),
        L.Accuracy("right", "y", "t", axis=0),
    ]
    inputs = {
        "x": rng.random((90, 6, 20, 20)),
        "t": rng.integers(7, size=(90, 20, 20)),
        "w": 1 + rng.random((90, 1, 20, 1)),
    }
    return layers, inputs


def of_norms_and_sequences(rng):
    """Layers of most other kinds, and inputs."""
    layers = [
        L.Input("x", shape=(6, 20, 20)),
        L.Input("picture", shape=(20, 20)),
        L.Input("t", shape=()),
        L.BatchNorm("batch", "x"),
        L.GELU("gelu", "batch"),
        L.Pooling("max", "gelu", kernel=3, stride=2),
        L.Pooling("mean", "max", kernel=2, stride=2, mode="mean"),
        L.GroupNorm("group", "x", groups=3),
        L.ELU("elu", "group"),
        L.GlobalPooling("all", "elu"),
        L.Reshape("steps", "x", shape=(20, 120)),
        L.LayerNorm("layer", "steps"),
        L.LSTM("lstm", "layer", units=40),
        L.GRU("gru", "lstm", units=40),
        L.Dense("logits", "gru", units=7),
        L.HingeLoss("hinge", "logits", "t"),
        L.Deconvolution("up", "mean", channels=3, kernel=4, stride=2),
        L.Convolution("each", "x", channels=6, kernel=3, groups=6, neuron="softplus"),
        L.Dense("both", "up", units=60, neuron="tanh"),
        L.Dense("middle", "both", units=30),
        L.Dense("spread", "each", units=30),
        L.Reparameterize("z", "middle", "spread"),
        L.GaussianKL("kl", "middle", "spread"),
        L.Dense("light", "z", units=400, neuron="sigmoid"),
        L.Dense("variance", "all", units=400),
        L.Reshape("square", "light", shape=(20, 20)),
        L.Reshape("noise", "variance", shape=(20, 20)),
        L.ImagePose("pose", "picture", side=20, size=5.0),
        L.SpatialTransform("turned", "square", "pose", side=20),
        L.StudentReconstruction("student", "picture", "turned", "noise"),
        L.GaussianReconstruction("gauss", "picture", "square", "noise"),
        L.BinaryCrossEntropy("cross", "square", "picture"),
    ]
    inputs = {
        "x": rng.random((90, 6, 20, 20)),
        "picture": rng.random((90, 20, 20)),
        "t": rng.integers(7, size=90),
    }
    return layers, inputs


@pytest.mark.parametrize("make", [of_formulas_and_classes, of_norms_and_sequences])
def test_kernels_of_all_kinds_do_not_depend_on_the_number_of_threads(make, rng, instructions):
    layers, inputs = make(rng)
    usual, sums = KERNELS.threads(), []
    try:
        for threads in (1, 2):
            KERNELS.set_threads(threads)
            net = lk.Net(layers, 90, seed=3)
            solver = lk.Adam(net, 1e-3)
            for _ in range(4):
                assert np.isfinite(solver.step(**inputs))
            (program,) = solver.plan().programs["forward"].values()
            assert len(program.parts) == 1  # calls of kernels alone
            sums.append(zlib.crc32(net.arena.data.tobytes()))
    finally:
        KERNELS.set_threads(usual)
    assert sums[0] == sums[1]


BAD = [
    (L.SoftmaxLoss("y", "x", "t"), (4,), (), 4, "holds 4, which is no class"),
    (L.SoftmaxLoss("y", "x", "t", axis=0, ignore=-1), (3, 5), (5,), 0.5, "0.5 at place"),
    (L.Accuracy("y", "x", "t"), (4,), (), -1, "holds -1, which is no class"),
    (L.HingeLoss("y", "x", "t"), (4,), (), 9, "holds 9, which is no class"),
    (L.HingeLoss("y", "x", "t"), (4,), (4,), 0, "signs, -1 or 1"),
    (L.ContrastiveLoss("y", "x", "x", "t"), (4,), (), 2, "similar or not"),
    (L.BinaryCrossEntropy("y", "x", "t"), (4,), (4,), 1.5, "targets are from 0 to 1"),
    (L.Embed("y", "t", count=3, units=2), (1,), (5,), 3, "which is no id"),
    (L.OneHot("y", "t", count=3), (1,), (5,), np.nan, "which is no id"),
]


@pytest.mark.parametrize(("layer", "shape", "labels", "bad", "says"), BAD)
def test_labels_that_are_none_are_named_by_a_program_too(layer, shape, labels, bad, says, rng):
    layers = [L.Input("x", shape=shape), L.Input("t", shape=labels), layer]
    net = lk.Net(layers, batch_size=6)
    x, t = rng.standard_normal((6, *shape)), np.ones((6, *labels))
    for _ in range(3):
        net.forward(x=x, t=t)
    t[4] = bad
    with pytest.raises(lk.errors.DataError, match=rf"layer 'y' .*row 4 of 't' .*{says}"):
        net.forward(x=x, t=t)
    t[4] = 1
    net.forward(x=x, t=t)


def test_convolutions_do_not_depend_on_the_number_of_threads():
    code = CONVOLUTIONAL.format(file=str(GALAXY.with_name("galaxy_conv.py")))
    assert script(code, OMP_NUM_THREADS="1") == script(code, OMP_NUM_THREADS="2")


def test_sizes_that_are_changed_in_a_net_are_refused(rng):
    layers = [
        L.MemoryData("x", data=rng.random((9, 5, 5))),
        L.Input("u", shape=(4,)),
        L.SpatialTransform("y", "x", "u", side=5),
    ]
    for name, setting in [("x", "count"), ("y", "side")]:
        net = lk.Net(layers, batch_size=2)
        vars(net.layers[name])[setting] = 50  # past the check of assignments
        with pytest.raises(lk.LayerkitError, match=rf"layer '{name}' .* do not belong together"):
            [net.forward(u=np.zeros((2, 4))) for _ in range(25)]


@pytest.mark.parametrize("what", ["parameter", "blob", "type"])
def test_arrays_that_were_reshaped_in_place_are_refused(what, rng):
    layers = [L.Input("x", shape=(3,)), L.Dense("y", "x", units=4), L.Dense("z", "y", units=2)]
    net, x = lk.Net(layers, batch_size=2), rng.standard_normal((2, 3))
    net.forward(x=x)
    weight = net.params["y/weight"]
    if what == "parameter":
        weight.data.resize((4, 3), refcheck=False)
    elif what == "blob":
        net.blobs["y"].data.resize((4, 2), refcheck=False)
    else:
        weight._bind(weight.data.view("int32"), weight.diff)
    with pytest.raises(lk.LayerkitError, match=r"layer 'y' .* do not belong together"):
        net.forward(x=x)


def test_kernels_read_nothing_beyond_their_arrays(rng):
    f, i, n = rng.random((4, 9)), np.zeros(4, np.int64), np.zeros((0, 0))
    for kernel, *arrays in [
        ("multiply", f, f, f, False),
        ("update", 1, f, f[:3], f, f, np.ones(8)),
        ("update", 1, f, f, f, f, np.ones(7)),
        ("copy", f[:3], f),
        ("magnitude", f.T, f[0, :1]),
        ("magnitude", f, f[0]),
        ("mean", f.T, f[0, :1]),
        ("fill", f, f[0]),
        ("add_number", f.T, f[0, :1]),
        ("elementwise", 2, 0.0, f, f[:3], f, f),
        ("elementwise", 4, 0.0, f, f.astype("f4"), f, f),
        ("elementwise", 12, 0.0, f, f, f, f),
        ("elementwise", 0, 0.0, f, f, f, np.broadcast_to(f[:, ::2][:, :1], f.shape)),
        ("largest", f, f[0]),
        ("largest", f, f),
        ("largest_backward", f, f[:, 0].copy(), f[:3]),
        ("softmax", f, f),
        ("softmax_backward", f[None], f[None], f[:3]),
        ("softmax", f[None], f[:3]),
        ("softmax_loss", f[..., None], f[:3, 0].copy(), n, n, 0.0, 0.0, True, n, f[0, :4], n, n),
        ("softmax_loss", f[..., None], i, n, f[0], 0.0, 0.0, True, n, f[0, :3], n, n),
        ("softmax_loss", f[..., None], i, n, f[0, :8], 0.0, 0.0, True, n, f[0, :4], n, n),
        ("accuracy", f[..., None], i[:3], 0.0, 1, f[0, :4]),
        ("pair_loss", 5, 0.0, True, f, f, n, f[0, :4], n, n),
        ("pair_loss", 0, 0.0, True, f, f[:3], n, f[0, :4], n, n),
        ("pair_loss", 0, 0.0, True, f, f, n, f[0, :3], n, n),
        ("contrastive", f, f, i, 1.0, n, f[0, :4], f[:3], n),
        ("embed", i, f, f[:3]),
        ("embed_backward", i, f, f.T),
        ("one_hot", i, f[:, :, None][:3]),
        ("dropout", f, f[:3], f, 0.5, 0, np.zeros(3, np.uint64)),
        ("products", f[None], f[None], f[None]),
        ("copy_rows", f, f[:, 1:]),
        ("copy_rows", f.T, f.T),
        ("gradient_bound", f, f, 1.0, f[0]),
        ("gather", f, i + 4, f.copy(), 0, 1.0, np.zeros((0, 0)), 0, 0, 0),
        ("gather", f, i - 1, f.copy(), 0, 1.0, np.zeros((0, 0)), 0, 0, 0),
        ("gather", f, i, f.copy(), 1, 1.0, np.zeros((0, 0)), 0, 0, 0),
        ("gather", f[:, ::-1], i, f.copy(), 0, 1.0, np.zeros((0, 0)), 0, 0, 0),
        ("reparameterize", f, f[:3], f, f, 0, np.zeros(3, np.uint64)),
        ("reparameterize", f, f, f, f, 0, np.zeros(3)),
        ("resample", f, f[:, :2], 3, 1.0, 1.0, 1.0, False, f[:, :6], f),
        ("resample", f, f[:, :2].copy(), 3, 1.0, 1.0, 1.0, False, np.ones((4, 5)), f),
        ("resample", f, np.ones((4, 5)), 3, 1.0, 1.0, 1.0, False, np.ones((4, 6)), f),
        ("measure_poses", f[None], 3.0, 1.0, 1.0, 1.0, 1.0, f[:1]),
        ("dense_forward", f, f.T, f[0], 1.0, f),
        ("divergence", f, f, f, f, f[0]),
        ("gaussian", f, f, f.astype("f4"), n, 0.0, f[:, 0].copy(), f[:, 0].copy(), *[f[:0]] * 3),
        ("gaussian", f, f, f[:3], n, 0.0, f[0, :4], f[0, :4], *[f[:0]] * 3),
        ("gaussian", f, f, f, f[:3], 0.0, f[0, :4], f[0, :4], *[f[:0]] * 3),
        ("student", f, f, f, n, f[:3], 0.0, 9.0, 1.0, 0.0, f[0, :4], f[0, :4], *[f[:0]] * 4),
        (
            "windowed_forward",
            f.reshape(4, 1, 3, 3),
            f[:, :1],
            f[0, :1],
            1.0,
            f.reshape(4, 1, 3, 3),
            np.array([2, 1, 0, 3, 3]),
            False,
        ),
    ]:
        with pytest.raises(KERNELS.MismatchError):
            getattr(KERNELS, kernel)(*arrays)


def test_without_the_extension_array_code_runs():
    *_, losses = train(20)
    used, array, _, loss = trained("layerkit.engines.cpu._cpu")
    assert not used
    assert array
    assert loss == pytest.approx(losses[-1], rel=1e-5)


def test_without_the_extension_one_line_says_so():
    code = """
import sys
sys.modules["layerkit.engines.cpu._cpu"] = None
import layerkit as lk
for _ in range(2):
    lk.Net([lk.layers.Input("x", shape=())])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0
    assert done.stderr.count("compiled kernels are not installed") == 1, done.stderr


def test_importing_layerkit_is_light():
    heavy = {"h5py", "scipy", "matplotlib", "skimage", "sklearn", "astropy", "cupy"}
    assert script(f"import sys, layerkit; print(*{heavy}.intersection(sys.modules))") == []


FORK = """
import os, sys
import numpy as np, layerkit as lk
from layerkit import layers as L
net = lk.Net([L.Input("x", shape=(2000,)), L.Dense("y", "x", units=9)], batch_size=3)
x = np.ones((3, 2000))
net.forward(x=x)
before = net.blobs["y"].data.copy()
child = os.fork()
if child == 0:
    net.forward(x=x)
    os._exit(0 if (net.blobs["y"].data == before).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


NO_MEMORY = """
import resource
import numpy as np, layerkit as lk
from layerkit import layers as L
layers = [L.Input("x", shape=(4, 64, 64)), L.Convolution("y", "x", channels=2, kernel=33, pad=16)]
net = lk.Net(layers, batch_size=4, gradients="none")
x = np.ones((4, 4, 64, 64))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, before[1]))
try:
    net.forward(x=x)
except lk.LayerkitError as error:
    print("'y'" in str(error), "not enough memory" in str(error))
resource.setrlimit(resource.RLIMIT_AS, before)
net.forward(x=x)
total = net.params["y/weight"].data.sum((0, 1, 2))
print(np.allclose(net.blobs["y"].data[:, :, 32, 32], total, atol=1e-4))
"""

NO_THREADS = """
import os, resource
import layerkit as lk
from layerkit.engines import cpu
from layerkit.engines.cpu import _cpu
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setuid(65534)
_cpu.set_threads(4)
print(_cpu.threads())
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")


@LINUX
@pytest.mark.parametrize("threads", ["1", "2"])
def test_memory_that_runs_out_in_a_kernel_is_an_error(threads):
    assert script(NO_MEMORY, OMP_NUM_THREADS=threads) == ["True", "True", "True"]


@LINUX
def test_where_the_system_gives_no_threads_there_is_one():
    assert script(NO_THREADS) == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_can_go_on():
    assert script(FORK, PYTHONWARNINGS="ignore") == ["0"]


FORK_AMIDST = """
import os, threading, zlib
import numpy as np, layerkit as lk
from layerkit import layers as L
x = np.random.default_rng(0).random((20, 30)).astype("float32")
def make():
    data = L.MemoryData("x", data=x)
    layers = [data, L.Dense("h", "x", units=600), L.Dense("y", "h", units=30)]
    return lk.Adam(lk.Net([*layers, L.SquareLoss("l", "y", "x")], 8, seed=1))
def result():
    solver = make()
    solver.steps(5)
    return zlib.crc32(solver.net.arena.data.tobytes())
right, stop = result(), []
def work():
    solver = make()
    while not stop:
        solver.step()
worker = threading.Thread(target=work)
worker.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if result() == right else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.append(True)
worker.join()
print(int(result() == right))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_another_thread_is_in_a_kernel():
    assert script(FORK_AMIDST, PYTHONWARNINGS="ignore") == ["0"] * 5 + ["1"]


def test_the_number_of_threads_can_be_limited(monkeypatch):
    for name in cpu.LIMITS:
        monkeypatch.delenv(name, raising=False)
    available = cpu.thread_count()
    assert available >= 1
    for name in cpu.LIMITS:
        for value, expected in (
            ("1", 1),
            ("1,1", 1),
            ("1000", available),
            ("", available),
            ("all", available),
            ("0", available),
        ):
            monkeypatch.setenv(name, value)
            assert cpu.thread_count() == expected
        monkeypatch.delenv(name)


def test_a_program_may_end_while_other_threads_run_a_net():
    """Python ends such threads when they ask for its lock; the process must not abort then."""
    code = """
import threading, time
import numpy as np
import layerkit as lk
from layerkit import layers as L

def loop():
    net = lk.Net([L.Input("x", shape=(300,)), L.Dense("y", "x", units=300)], 256)
    x = np.ones((256, 300), "float32")
    while True:
        net.forward(x=x)

for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
