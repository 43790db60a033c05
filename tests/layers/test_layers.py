"""Every layer, row by row of cases.py: values, gradients, and the contract of the Layer class."""

import inspect
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, WITH_KERNELS, Case

import layerkit as lk
from layerkit import layers as L
from layerkit.backends import philox
from layerkit.backends.numpy import NumpyBackend
from layerkit.blob import Arena, Blob
from layerkit.engines import cpu
from layerkit.engines.base import ArrayEngine
from layerkit.errors import DataError, NetError
from layerkit.layers.elementwise.neuron import Neuron
from layerkit.run import Run
from layerkit.wiring.sharing import resolve


def rows_where(condition):
    """Runs a test on the rows whose layer meets a condition."""
    rows = [case for case in WITH_KERNELS if condition(case.layer())]
    return pytest.mark.parametrize("case", rows, ids=lambda case: case.id)


every_case = rows_where(lambda layer: True)
with_and_without_kernels = pytest.mark.parametrize("kernels", ["array", "auto"])


class Bench:
    """A layer alone on the bench, without a net, in blobs that all have a diff.

    The blobs have as many rows as `arrays`, of which `rows` are used.
    """

    def __init__(self, case: Case, rng, arrays, rows, seed=1):
        self.case, capacity = case, len(next(iter(arrays.values()))) if arrays else rows
        run = Run(NumpyBackend(), np.dtype("float64"), capacity, seed, case.phase == "train")
        run.passes = 1
        self.layer = case.layer().attach(run)
        shapes = [arrays[b].shape[1:] for b in self.layer.bottoms]
        others = [layer.attach(run) for layer in case.beside()]
        for other in others:
            other.setup([arrays[b].shape[1:] for b in other.bottoms])
            run.declared[other.name] = other.parameters
        tops = self.layer.setup(shapes)
        resolve([*others, self.layer])
        engine = cpu.engine() if case.kernels == "auto" else None
        self.runner = (engine or ArrayEngine(np)).bind(self.layer)
        arena = Arena(list(self.layer.parameters.values()), run.backend, "float64", True)
        self.parameters = list(arena.parameters.values())
        for p in self.parameters:
            p.data[...] = np.random.default_rng(seed).standard_normal(p.shape)

        def blob(name, shape):
            return Blob.allocate(name, capacity, shape, run.backend, "float64", gradient=True)

        self.bottoms = [blob(*pair) for pair in zip(self.layer.bottoms, shapes, strict=True)]
        self.tops = [blob(*pair) for pair in zip(self.layer.tops, tops, strict=True)]
        for b in self.bottoms:
            b.data[...] = arrays[b.name]
        for top in self.tops:  # an Input layer's top is filled by the net
            top.data[...] = arrays.get(top.name, np.nan)
            top.diff[...] = np.random.default_rng(seed).standard_normal(top.diff.shape)
        self.resize(rows)
        self.fill_diffs(rng)

    def resize(self, rows):
        for blob in (*self.bottoms, *self.tops, *self.layer.buffers):
            blob.resize(rows)

    def fill_diffs(self, rng):
        """Leaves garbage in every diff that the layer should write."""
        for x in (*self.bottoms, *self.parameters):
            if x.diff is not None:
                x.diff[...] = rng.choice([np.nan, 1e30, -7.0], size=x.diff.shape)

    def forward(self):
        self.runner.forward(self.bottoms, self.tops)
        return [top.data.copy() for top in self.tops]

    def backward(self):
        self.runner.backward(self.bottoms, self.tops)
        return [
            x.diff.copy()
            for i, x in enumerate([*self.bottoms, *self.parameters])
            if x.diff is not None and (i >= len(self.bottoms) or self.layer.differentiable(i))
        ]


def assert_same(some, others, **tolerance):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-12, "atol": 1e-13, **tolerance})


def test_every_layer_has_a_row():
    assert {type(case.layer()).__name__ for case in CASES} == set(L.__all__)
    assert len({case.id for case in CASES}) == len(CASES)


def test_every_layer_is_in_the_catalogue():
    text = (Path(lk.__file__).parent.parent / "docs" / "layers.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^Layers: (.*?)\.$", text, re.M | re.S)))
    assert sorted(named) == sorted(L.__all__)
    names = dict(re.findall(r'`"(\w+)"` \| `(\w+)`', text))
    ours = {
        n: c.__name__ for n, c in Neuron.registry.items() if c.__module__.startswith("layerkit.")
    }
    assert names == ours


@every_case
def test_forward_equals_the_reference(case, rng):
    arrays = case.draw(rng, rows=int(rng.integers(2, 7)))
    net = case.net(rng, arrays)
    for _ in range(2):  # the second pass draws other noise
        objective = net.forward(**arrays)
        layer = net.layers["y"]
        tops = [net.blobs[name].data for name in layer.tops]
        expected = case.expected(net, arrays)
        assert_same(tops, expected, rtol=1e-10, atol=1e-12)
        reported = {**net.losses, **net.metrics}
        if layer.is_loss or layer.is_metric:
            assert reported["y"] == pytest.approx(expected[0].mean(), rel=1e-10, abs=1e-12)
        share = case.weight * expected[0].mean() if layer.is_loss else 0
        assert objective == pytest.approx(share + net.regularisation, rel=1e-10, abs=1e-12)


@rows_where(lambda layer: any(map(layer.differentiable, range(len(layer.bottoms)))))
def test_gradients_agree_with_differences(case, rng):
    arrays = case.draw(rng, rows=int(rng.integers(2, 4)))
    net = case.net(rng, arrays)
    report = lk.check_gradients(net, elements=10**6, seed=int(rng.integers(2**31)), **arrays)
    layer = net.layers["y"]
    readers = [layer, *case.beside()]
    inputs = {b for x in readers for i, b in enumerate(x.bottoms) if x.differentiable(i)}
    assert set(report.errors) == {f"input {b}" for b in inputs} | set(net.params)
    elements = sum(arrays[b].size for b in inputs) + sum(p.size for p in net.params.values())
    assert report.checked + report.kinks == elements + 4 * len(report.errors)


def test_input_diff_is_what_the_net_gives(rng):
    x, weight = rng.standard_normal((2, 4, 3))
    net = lk.Net([L.Input("x", shape=(3,))], dtype="float64", gradients="all")
    net.forward(x=x)
    net.backward(x=weight)
    np.testing.assert_array_equal(net.blobs["x"].diff, weight)


# The contract on top of the Layer class.


@every_case
def test_forward_overwrites_its_tops_and_nothing_else(case, rng):
    bench = Bench(case, rng, case.draw(rng, 4), 4)
    before = [b.data.copy() for b in bench.bottoms]
    diffs = [x.diff.copy() for x in (*bench.bottoms, *bench.tops, *bench.parameters)]
    values = [p.data.copy() for p in bench.parameters]
    held = [x.data for x in (*bench.bottoms, *bench.tops, *bench.parameters)]
    out = bench.forward()
    assert all(np.isfinite(t).all() for t in out)
    assert_same(out, bench.forward() if not bench.layer.is_source else out, rtol=0, atol=0)
    assert_same([b.data for b in bench.bottoms], before, rtol=0, atol=0)
    assert_same([p.data for p in bench.parameters], values, rtol=0, atol=0)
    after = [x.diff for x in (*bench.bottoms, *bench.tops, *bench.parameters)]
    assert_same(after, diffs, rtol=0, atol=0)
    now = [x.data for x in (*bench.bottoms, *bench.tops, *bench.parameters)]
    assert all(a is b for a, b in zip(now, held, strict=True)), "an array was rebound"


@every_case
def test_backward_overwrites_its_diffs_and_nothing_else(case, rng):
    bench = Bench(case, rng, case.draw(rng, 4), 4)
    bench.forward()
    blobs = (*bench.bottoms, *bench.tops, *bench.parameters)
    given = (*bench.bottoms, *bench.parameters)
    data, diffs = [x.data.copy() for x in given], [t.diff.copy() for t in bench.tops]
    out = [t.data.copy() for t in bench.tops]
    held = [(x.data, x.diff) for x in blobs]
    first = bench.backward()
    assert all(np.isfinite(d).all() for d in first)
    bench.fill_diffs(rng)
    assert_same(bench.backward(), first, rtol=0, atol=0)
    assert_same([x.data for x in given], data, rtol=0, atol=0)
    assert_same([t.diff for t in bench.tops], diffs, rtol=0, atol=0)
    assert_same([t.data for t in bench.tops], out)  # a kernel may compute them over again
    for x, (its_data, its_diff) in zip(blobs, held, strict=True):
        assert x.data is its_data, f"the data of {x.name} was rebound"
        assert x.diff is its_diff, f"the diff of {x.name} was rebound"


@every_case
def test_backward_skips_bottoms_without_a_diff(case, rng):
    arrays = case.draw(rng, 3)
    whole = Bench(case, rng, arrays, 3)
    whole.forward()
    whole.backward()
    for left_out in range(len(whole.bottoms)):
        bench = Bench(case, rng, arrays, 3)
        bench.forward()
        bench.bottoms[left_out].set_diff(None)
        bench.backward()
        assert bench.bottoms[left_out].diff is None
        for i, (b, other) in enumerate(zip(bench.bottoms, whole.bottoms, strict=True)):
            if i != left_out and bench.layer.differentiable(i):
                assert_same([b.diff], [other.diff])
        assert_same([p.diff for p in bench.parameters], [p.diff for p in whole.parameters])


@every_case
@pytest.mark.parametrize("rows", [1, 3])
def test_a_partial_batch_is_as_good_as_a_net_of_that_size(case, rows, rng):
    arrays = case.draw(rng, 7)
    exact = Bench(case, rng, {k: a[:rows] for k, a in arrays.items()}, rows)
    garbage = {k: np.r_[a[:rows], np.full_like(a[rows:], np.nan)] for k, a in arrays.items()}
    partial = Bench(case, rng, garbage, 7)
    partial.layer.check_data = lambda bottoms: None  # which would refuse labels that are garbage
    with suppress(DataError):  # of kernels, which look at labels themselves
        partial.forward()
        partial.backward()  # which leaves garbage in every array of the layer
    del partial.layer.check_data
    partial.resize(rows)
    partial.layer.position = 0  # of a data layer
    for top, other in zip(partial.tops, exact.tops, strict=True):
        top.diff[...] = other.diff
    assert_same(partial.forward(), exact.forward())
    assert_same(partial.backward(), exact.backward())


@rows_where(lambda layer: layer.bottoms or isinstance(layer, L.Input))  # else batches are full
@pytest.mark.parametrize("rows", [1, 4])
def test_a_net_takes_fewer_rows_than_its_batch_size(case, rows, rng):
    arrays = case.draw(rng, 7)
    few = {k: a[:rows] for k, a in arrays.items()}
    seed = int(rng.integers(2**31))
    large = case.net(rng, arrays, seed=seed)
    start = large.state()
    large.forward(**arrays)
    large.set_state(start)
    small = case.net(rng, few, seed=seed)
    results = []
    for net in (large, small):
        held = net.blobs["y"]
        value = net.forward(**few)
        assert net.blobs["y"] is held
        assert {len(b.data) for b in net.blobs.values()} == {rows}
        net.backward()
        results.append([np.array(value), *(b.data for b in net.blobs.values())])
        results[-1] += [b.diff for b in net.blobs.values() if b.diff is not None]
        results[-1] += [p.diff for p in net.params.values()]
    assert_same(*results)


@every_case
def test_inputs_need_not_be_contiguous(case, rng):
    arrays = case.draw(rng, 4)
    net = case.net(rng, arrays)
    start = net.state()
    value = net.forward(**arrays)
    tops = [net.blobs[t].data.copy() for t in net.layers["y"].tops]
    for rearrange in (
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
        np.asfortranarray,
        np.ndarray.tolist,
    ):
        strange = {k: rearrange(a) for k, a in arrays.items()}
        kept = {k: np.array(a) for k, a in strange.items()}
        net.set_state(start)
        assert net.forward(**strange) == value
        assert_same([net.blobs[t].data for t in net.layers["y"].tops], tops, rtol=0, atol=0)
        assert_same([*strange.values()], [*kept.values()], rtol=0, atol=0)


@every_case
def test_arrays_stay_where_they_are(case, rng):
    arrays = case.draw(rng, 3)
    net = case.net(rng, arrays)
    things = [*net.blobs.values(), *net.params.values()]
    net.forward(**arrays)
    held = [(x.data, x.diff) for x in things]
    for _ in range(3):
        net.forward(**arrays)
        net.backward()
    for x, (data, diff) in zip(things, held, strict=True):
        assert x.data is data
        assert x.diff is diff


@every_case
def test_float32_follows_float64(case, rng):
    arrays = {k: a.astype("float32") for k, a in case.draw(rng, 5).items()}
    double = case.net(rng, arrays)
    single = double.rebuild(dtype="float32")
    results = []
    for net in (double, single):
        value = net.forward(**arrays)
        tops = [net.blobs[t] for t in net.layers["y"].tops]
        if not net.layers["y"].is_metric:
            net.backward(**{t.name: philox.normal(np, t.data.shape, 0, 1, 2) for t in tops})
        assert {b.data.dtype for b in net.blobs.values()} == {net.dtype}
        results.append([np.array(value), *(b.data for b in net.blobs.values())])
        results[-1] += [b.diff for b in net.blobs.values() if b.diff is not None]
        results[-1] += [p.diff for p in net.params.values()]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * max(1e-3, float(np.abs(a).max())))


# Single layers.


def test_activations_of_large_numbers():
    far = np.array([[-1e4, -200.0, 200.0, 1e4]])
    expected_of = {
        L.Softplus: np.maximum(far, 0),
        L.ELU: np.maximum(far, -1),
        L.Sigmoid: (far > 0).astype(float),
        L.Tanh: np.sign(far),
        L.GELU: np.maximum(far, 0),
        L.SiLU: np.maximum(far, 0),
    }
    for cls, expected in expected_of.items():
        for dtype in ("float32", "float64"):
            net = lk.Net([L.Input("x", shape=(4,)), cls("y", "x")], dtype=dtype, gradients="all")
            net.forward(x=far)
            net.backward(y=np.ones((1, 4)))
            np.testing.assert_allclose(net.blobs["y"].data, expected, atol=1e-30)
            slope = (far > 0) if cls not in (L.Sigmoid, L.Tanh) else np.zeros((1, 4))
            np.testing.assert_allclose(net.blobs["x"].diff, slope, atol=1e-30)


def loss_of(layer, kernels="auto", **inputs):
    given = [L.Input(k, shape=np.shape(a)[1:]) for k, a in inputs.items()]
    net = lk.Net([*given, layer], dtype="float64", gradients="all", kernels=kernels)
    value = net.forward(**inputs)
    net.backward()
    return value, net


def test_cross_entropies_of_confident_guesses():
    sure = np.array([[1e4, -1e4]])
    value, net = loss_of(L.BinaryCrossEntropy("y", "x", "t"), x=sure, t=np.array([[0.0, 0.0]]))
    assert value == 1e4
    np.testing.assert_array_equal(net.blobs["x"].diff, [[1.0, 0.0]])
    value, net = loss_of(L.SoftmaxLoss("y", "x", "t"), x=sure, t=np.array([1.0]))
    assert value == 2e4
    np.testing.assert_array_equal(net.blobs["x"].diff, [[1.0, -1.0]])


@pytest.mark.parametrize("logits", [np.zeros((2, 3)), np.full((2, 3), np.nan)])
def test_accuracy_gives_nothing_for_ties_and_nan(logits):
    _, net = loss_of(L.Accuracy("y", "x", "t"), x=logits, t=np.array([0, 2]))
    assert net.metrics["y"] == 0


@with_and_without_kernels
def test_gaussian_kl_close_to_the_prior(kernels):
    """There the terms cancel: exp(v) - v - 1 is v^2 / 2, up to rounding of v."""
    v = 1e-9
    layer, m = L.GaussianKL("y", "m", "v"), np.zeros((1, 1))
    value, net = loss_of(layer, kernels, m=m, v=m + v)
    assert value == pytest.approx(v * v / 4, rel=1e-5, abs=0)
    assert net.blobs["v"].diff.item() == pytest.approx(v / 2, rel=1e-6, abs=0)


@with_and_without_kernels
def test_reconstruction_of_a_constant_pixel_is_bounded(kernels):
    """With the default floor, however small the variance the net asks for."""
    flat = np.zeros((1, 1))
    layer = L.GaussianReconstruction("y", "x", "m", "v")
    value, net = loss_of(layer, kernels, x=flat, m=flat, v=flat - 1e4)
    assert value == pytest.approx(0.5 * math.log(2 * math.pi / (255**2 * 12)))
    assert net.blobs["v"].diff.item() == 0


def test_dropout_leaves_out_its_share_and_keeps_the_mean(rng):
    ratio, shape = float(rng.uniform(0.1, 0.9)), (400, 500)
    net = lk.Net(
        [L.Input("x", shape=shape[1:]), L.Dropout("y", "x", ratio=ratio)],
        batch_size=shape[0],
        seed=int(rng.integers(2**31)),
    )
    net.forward(x=np.ones(shape))
    y = net.blobs["y"].data
    sd = math.sqrt(ratio * (1 - ratio) / y.size)
    assert np.mean(y == 0) == pytest.approx(ratio, abs=6 * sd)
    assert y.mean(dtype="float64") == pytest.approx(1, abs=6 * sd / (1 - ratio) + 1e-6)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - ratio))}


@pytest.mark.parametrize(
    "layer",
    [L.Dropout("y", "x"), L.Normal("y", shape=(9,)), L.Reparameterize("y", "x", "v")],
    ids=lambda x: type(x).__name__,
)
def test_noise_differs_from_pass_to_pass_and_repeats_with_the_seed(layer, rng):
    inputs = {b: rng.uniform(1, 2, (8, 9)) for b in layer.bottoms}
    net = lk.Net([*(L.Input(b, shape=(9,)) for b in inputs), layer], seed=int(rng.integers(2**31)))
    runs = []
    for twin in (net, net.rebuild(), net.rebuild(seed=net.run.seed + 1)):
        for _ in range(2):
            twin.forward(**inputs)
            runs.append(twin.blobs["y"].data.copy())
    first, second, again, and_again, other, _ = runs
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(second, and_again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


@with_and_without_kernels
def test_reparameterize_samples_the_gaussian_it_is_given(kernels, rng):
    n, mean, log_variance = 100_000, rng.normal(size=3), rng.normal(size=3)
    net = lk.Net(
        [*(L.Input(b, shape=(3,)) for b in "mv"), L.Reparameterize("z", "m", "v")],
        batch_size=n,
        dtype="float64",
        seed=int(rng.integers(2**31)),
        kernels=kernels,
    )
    inputs = {"m": np.tile(mean, (n, 1)), "v": np.tile(log_variance, (n, 1))}
    z = net.infer("z", **inputs)
    variance = np.exp(log_variance)
    assert np.all(np.abs(z.mean(0) - mean) < 6 * np.sqrt(variance / n))
    assert np.all(np.abs(z.var(0) / variance - 1) < 6 * math.sqrt(2 / n))
    assert np.all(np.abs(np.corrcoef(z.T) - np.eye(3)) < 6 / math.sqrt(n))
    np.testing.assert_array_equal(net.infer("z", sample=False, **inputs), inputs["m"])


@with_and_without_kernels
def test_frozen_parameters_keep_their_diff(kernels, rng):
    layers = [L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)]
    net = lk.Net(layers, dtype="float64", kernels=kernels)
    x = rng.standard_normal((4, 3))
    for frozen, trained in (("y/weight", "y/bias"), ("y/bias", "y/weight")):
        net.unfreeze("y")
        net.freeze(frozen)
        net.arena.diff[...] = 7
        net.forward(x=x)
        net.backward(y=np.ones((4, 2)))
        assert np.all(net.params[frozen].diff == 7)
        assert not np.any(net.params[trained].diff == 7)


def test_dense_default_initialisers(rng):
    """He before a rectifier, Xavier otherwise, zero for the bias."""
    variances = {None: 2 / 300, "tanh": 2 / 300, "relu": 2 / 100, "leaky_relu": 2 / 100}
    for neuron, variance in variances.items():
        dense = L.Dense("y", "x", units=200, neuron=neuron)
        net = lk.Net([L.Input("x", shape=(100,)), dense], seed=int(rng.integers(2**31)))
        weight = net.params["y/weight"].data
        assert weight.var() == pytest.approx(variance, rel=6 * math.sqrt(2 / weight.size))
        assert not net.params["y/bias"].data.any()


def test_convolution_and_deconvolution_are_each_others_transpose(rng):
    """<W x, y> = <x, W^T y>, with one set of weights, for any size, stride, pad and kernel."""
    for _ in range(20):
        kernel, stride = (int(n) for n in rng.integers(1, 5, 2))
        pad, channels, inputs = (int(n) for n in rng.integers((0, 1, 1), 4))
        h, w = (int(n) for n in rng.integers(kernel, kernel + 7, 2))
        settings = {"kernel": kernel, "stride": stride, "pad": pad}
        there = lk.Net(
            [
                L.Input("x", shape=(inputs, h, w)),
                L.Convolution("y", "x", channels=channels, **settings),
            ],
            dtype="float64",
            seed=int(rng.integers(2**31)),
        )
        small = there.blobs["y"].shape
        back = lk.Net(
            [
                L.Input("y", shape=small),
                L.Deconvolution("x", "y", channels=inputs, shape=(h, w), **settings),
            ],
            dtype="float64",
        )
        weight = there.params["y/weight"].data  # (kernel, kernel, inputs, channels)
        back.params["x/weight"].data[...] = weight.transpose(3, 0, 1, 2)
        x, y = rng.standard_normal((3, inputs, h, w)), rng.standard_normal((3, *small))
        np.testing.assert_allclose(
            (there.infer("y", x=x) * y).sum((1, 2, 3)),
            (back.infer("x", y=y) * x).sum((1, 2, 3)),
            rtol=1e-9,
            atol=1e-9,
        )


def test_convolutions_start_with_tops_as_large_as_their_bottoms(rng):
    """He's variance 2 / fan-in before a rectifier keeps the mean square from layer to layer."""
    net = lk.Net(
        [
            L.Input("x", shape=(20, 21, 21)),
            L.Convolution("c", "x", channels=300, kernel=3, stride=2, neuron="relu"),
            L.Deconvolution("d", "x", channels=300, kernel=4, stride=2, pad=3, neuron="relu"),
        ],
        batch_size=2,
        seed=int(rng.integers(2**31)),
    )
    net.forward(x=rng.standard_normal((2, 20, 21, 21)))
    for name in "cd":
        assert np.square(net.blobs[name].data).mean() == pytest.approx(1, rel=0.25)
        assert not net.params[f"{name}/bias"].data.any()


@with_and_without_kernels
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_of_equal_pixels_has_the_gradient_of_a_maximum(dtype, kernels):
    """Infinities are no exception; a pixel of the border never has it, though it is as large."""
    x = np.array([[1, 2, 2], [2, 0, 2], [-5, 7, 7]])
    x = np.stack([x, np.where(x == 7, np.nan, x), np.full((3, 3), -np.inf), np.full((3, 3), 4)])
    net = lk.Net(
        [
            L.Input("x", shape=(4, 3, 3)),
            L.Pooling("y", "x", kernel=2, pad=1, stride=2),
            L.GlobalPooling("z", "x", mode="max"),
        ],
        batch_size=1,
        dtype=dtype,
        gradients="all",
        kernels=kernels,
    )
    net.forward(x=x[None])
    nan, inf = np.nan, np.inf
    y = [[[1, 2], [2, 7]], [[1, 2], [2, nan]], [[-inf] * 2] * 2, [[4, 4], [4, 4]]]
    np.testing.assert_array_equal(net.blobs["y"].data[0], np.array(y))
    np.testing.assert_array_equal(net.blobs["z"].data[0], np.array([7, nan, -inf, 4]))
    dy = np.arange(1.0, 17).reshape(1, 4, 2, 2)
    net.backward(y=dy, z=np.zeros((1, 4)))
    firsts = [[(0, 0), (0, 1), (1, 0), (2, 1)], [(0, 0), (0, 1), (1, 0), (2, 1)]]
    firsts += 2 * [[(0, 0), (0, 1), (1, 0), (1, 1)]]
    expected = np.zeros((4, 3, 3))
    for channel, places in enumerate(firsts):
        for k, place in enumerate(places):
            expected[(channel, *place)] += dy[0, channel].flat[k]
    np.testing.assert_array_equal(net.blobs["x"].diff[0], expected)
    net.backward(y=np.zeros((1, 4, 2, 2)), z=np.array([[1.0, 2, 3, 4]]))
    expected = np.zeros((4, 9))
    expected[[0, 1, 2, 3], [7, 7, 0, 0]] = 1, 2, 3, 4
    np.testing.assert_array_equal(net.blobs["x"].diff[0].reshape(4, 9), expected)


def test_a_partial_window_begins_within_the_picture_and_its_first_pad():
    """Caffe's rule, for a window that would have nothing but the border behind the picture."""
    sizes = {}
    for ceil in (False, True):
        for n in range(3, 10):
            layer = L.Pooling("y", "x", kernel=3, stride=4, pad=1, ceil=ceil, mode="mean")
            net = lk.Net([L.Input("x", shape=(1, n)), layer], batch_size=1)
            sizes[ceil, n] = net.blobs["y"].shape[1]
            net.forward(x=np.ones((1, 1, n)))
            assert (net.blobs["y"].data > 0).all()
    # ceil((n + 2 - 3) / 4) + 1, less 1 if the last window begins at n + 1 or later
    assert [sizes[True, n] for n in range(3, 10)] == [1, 2, 2, 2, 2, 3, 3]
    assert [sizes[False, n] for n in range(3, 10)] == [1, 1, 2, 2, 2, 2, 3]


def test_a_neuron_of_ones_own_leaves_its_parent_in_place():
    class Rectifier(L.ReLU):
        """Not "relu" to Dense, though it inherits that name."""

    class Twice(L.ReLU):
        neuron_name = "twice"

    try:
        assert Neuron.registry["relu"] is L.ReLU
        assert type(L.Dense("y", "x", units=1, neuron="twice").neuron) is Twice
    finally:
        del Neuron.registry["twice"]


def test_a_neuron_with_settings_is_the_layers_own(rng):
    steep = L.LeakyReLU.of(slope=0.5)
    layers = [L.Input("x", shape=(4,))]
    layers += [L.Dense(name, "x", units=3, neuron=steep) for name in "ab"]
    layers += [L.Convolution("c", "p", channels=2, kernel=1, neuron=steep)]
    layers += [L.Reshape("p", "x", shape=(1, 2, 2))]
    net = lk.Net(layers, seed=int(rng.integers(2**31)))
    assert net.layers["a"].weight_init == "he"
    assert net.params["c/weight"].init == lk.initializers.He()
    net.layers["a"].neuron.slope = 0.25
    assert steep.slope == net.layers["b"].neuron.slope == net.layers["c"].neuron.slope == 0.5
    assert net.rebuild().layers["a"].neuron.slope == 0.25
    with pytest.raises(NetError, match=r"slope must be .* above 0"):
        L.LeakyReLU.of(slope=-1)
    with pytest.raises(NetError, match=r"'slop'.*it takes"):
        L.LeakyReLU.of(slop=1)


# Bad settings and shapes.


def x(*shape):
    return L.Input("x", shape=shape)


BAD = {
    "Accuracy": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.Accuracy("y", "x", "t")], "one label"),
        (lambda: [x(), L.Input("t", shape=()), L.Accuracy("y", "x", "t")], "(classes,)"),
        (lambda: [x(3), L.Input("t", shape=()), L.Accuracy("y", "x", "t", top=4)], "1 to 3"),
        (lambda: [x(3), L.Input("t", shape=()), L.Accuracy("y", "x", "t", top=0)], "got 0"),
        (
            lambda: [x(3, 2), L.Input("t", shape=()), L.Accuracy("y", "x", "t", axis=1)],
            "labels (3,) for logits (3, 2), got ()",
        ),
    ],
    "Add": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.Add("y", "x", "t")], "[(3,), (2,)]"),
        (lambda: [L.Add("y")], "at least one"),
    ],
    "Affine": [
        (lambda: [x(), L.Affine("y", "x")], "no axis"),
        (lambda: [x(3), L.Affine("y", "x", axis=1)], "from -1 to 0"),
        (lambda: [x(3), L.Affine("y", "x", gain=None, bias=None)], "nothing to do"),
    ],
    "BatchNorm": [
        (lambda: [x(), L.BatchNorm("y", "x")], "no axis"),
        (lambda: [x(3), L.BatchNorm("y", "x", axis=1)], "from -1 to 0"),
        (lambda: [x(3), L.BatchNorm("y", "x", momentum=1)], "below 1"),
        (lambda: [x(3), L.BatchNorm("y", "x", epsilon=0)], "above 0"),
    ],
    "BinaryCrossEntropy": [
        (lambda: [x(3), L.Input("t", shape=(1, 3)), L.BinaryCrossEntropy("y", "x", "t")], "(1, 3)")
    ],
    "Concat": [
        (lambda: [x(3, 2), L.Input("t", shape=(3, 1)), L.Concat("y", "x", "t")], "(3, 1)"),
        (lambda: [x(3, 2), L.Input("t", shape=(3,)), L.Concat("y", "x", "t")], "first"),
        (lambda: [x(), L.Concat("y", "x")], "()"),
        (lambda: [L.Concat("y")], "at least one"),
        (lambda: [x(3, 2), L.Concat("y", "x", axis=2)], "from -2 to 1"),
        (lambda: [x(3, 2), x(3, 2), L.Concat("y", "x", axis=1.5)], "whole number"),
    ],
    "ContrastiveLoss": [
        (
            lambda: [x(3), L.Input("s", shape=(2,)), L.ContrastiveLoss("y", "x", "x", "s")],
            "one number per example",
        ),
        (lambda: [x(), L.Input("b", shape=(1,)), L.ContrastiveLoss("y", "x", "b", "x")], "(1,)"),
        (lambda: [x(), L.ContrastiveLoss("y", "x", "x", "x", margin=0)], "above 0"),
    ],
    "Convolution": [
        (lambda: [x(9), L.Convolution("y", "x", channels=1, kernel=3)], "height, width), or lin"),
        (lambda: [x(9), L.Convolution("y", "x", channels=1, kernel=3)], "shape=(1, 9)"),
        (lambda: [x(9, 8), L.Convolution("y", "x", channels=1, kernel=(1, 3))], "got (1, 3)"),
        (lambda: [x(9, 8), L.Convolution("y", "x", channels=1, kernel=3, pad=(0, 1))], "pad must"),
        (lambda: [x(9, 8), L.Convolution("y", "x", channels=1, kernel=9)], "the picture, 8 with p"),
        (lambda: [x(1, 4, 9), L.Convolution("y", "x", channels=1, kernel=5)], "4 x 9 with pad 0"),
        (
            lambda: [x(1, 4, 9), L.Convolution("y", "x", channels=1, kernel=3, dilation=(2, 1))],
            "5 x 3 is larger than the picture, 4 x 9 with pad 0 x 0",
        ),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=0, kernel=5)], "channels"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1, kernel=2.5)], "got 2.5"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1, kernel=3, stride=0)], "stride"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1, kernel=3, pad=-1)], "got -1"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1, kernel=3, pad=True)], "True"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1, kernel=3, neuron="r")], "'relu'"),
        (lambda: [x(1, 9, 9), L.Convolution("y", "x", channels=1)], "kernel"),
        (lambda: [x(3, 9, 9), L.Convolution("y", "x", channels=2, kernel=3, groups=2)], "has 3"),
        (lambda: [x(2, 9, 9), L.Convolution("y", "x", channels=3, kernel=3, groups=2)], "is 3"),
    ],
    "Deconvolution": [
        (lambda: [x(9), L.Deconvolution("y", "x", channels=1, kernel=3)], "height, width), or lin"),
        (lambda: [x(1, 1, 1), L.Deconvolution("y", "x", channels=1, kernel=3, pad=2)], "[-1, -1]"),
        (lambda: [x(1, 1), L.Deconvolution("y", "x", channels=1, kernel=3, pad=2)], "be [-1]"),
        (
            lambda: [
                x(1, 4, 3),
                L.Deconvolution("y", "x", channels=1, kernel=3, stride=2, pad=1, shape=(9, 5)),
            ],
            "7 to 8 and 5 to 6",
        ),
        (
            lambda: [
                x(1, 4),
                L.Deconvolution("y", "x", channels=1, kernel=3, stride=3, dilation=2, shape=(9,)),
            ],
            "of 4; its length can be 14 to 16",
        ),
        (
            lambda: [x(1, 4, 3), L.Deconvolution("y", "x", channels=1, kernel=3, shape=(9,))],
            "(height, width), as its bottom is, got (9,)",
        ),
        (lambda: [x(1, 4, 3), L.Deconvolution("y", "x", channels=1, kernel=3, shape=7)], "got 7"),
        (lambda: [x(3, 9, 9), L.Deconvolution("y", "x", channels=2, kernel=3, groups=2)], "has 3"),
    ],
    "Pooling": [
        (lambda: [x(9), L.Pooling("y", "x", kernel=3)], "shape=(1, 9)"),
        (lambda: [x(1, 4, 9), L.Pooling("y", "x", kernel=5)], "4 x 9 with pad 0"),
        (lambda: [x(1, 3, 9), L.Pooling("y", "x", kernel=5, stride=2, ceil=True)], "3 x 9 with"),
        (
            lambda: [x(1, 9, 9), L.Pooling("y", "x", kernel=(3, 2), pad=2)],
            "pad 2 x 2 and kernel 3 x 2",
        ),
        (
            lambda: [x(9, 8), L.Pooling("y", "x", kernel=2, stride=(1, 2))],
            "stride must be one number",
        ),
        (lambda: [x(9, 8), L.Pooling("y", "x", kernel=2, mode="average")], "'max', 'mean'"),
        (lambda: [x(9, 8), L.Pooling("y", "x")], "kernel"),
    ],
    "GlobalPooling": [(lambda: [x(9), L.GlobalPooling("y", "x")], "got shape (9,)")],
    "Dense": [
        (lambda: [x(3), L.Dense("y", "x", units=0)], "got 0"),
        (lambda: [x(3), L.Dense("y", "x", units=2.5)], "got 2.5"),
        (lambda: [x(3), L.Dense("y", "x", units="2")], "got '2'"),
        (lambda: [x(3), L.Dense("y", "x")], "units"),
        (lambda: [x(3), L.Dense("y", "x", units=2, neuron="rellu")], "'relu', "),
        (lambda: [x(3), L.Dense("y", "x", units=2, neuron=L.ReLU)], "LeakyReLU.of("),
        (lambda: [x(3), L.Dense("y", "x", units=2, neuron=L.PReLU)], "LeakyReLU.of("),
        (
            lambda: [x(3), L.Dense("y", "x", units=2, neuron=L.PReLU.of(rate=2))],
            'Dense(..., rate={"slope"',
        ),
        (lambda: [x(3), L.Dense("y", "x", units=2, weight="glorot")], "xavier"),
        (lambda: [x(3), L.Dense("y", "x", units=2, bias="one")], "bias"),
        (lambda: [x(3), L.Dense("y", "x", units=2, tops=["a", "b"])], "['a', 'b']"),
    ],
    "Dropout": [
        (lambda: [x(3), L.Dropout("y", "x", ratio=1)], "at least 0 and below 1, got 1"),
        (lambda: [x(3), L.Dropout("y", "x", ratio=-0.1)], "-0.1"),
    ],
    "Divide": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.Divide("y", "x", "t")], "[(3,), (2,)]"),
        (lambda: [x(3), L.Divide("y", "x")], "'b'"),
    ],
    "ELU": [(lambda: [x(3), L.ELU("y", "x", alpha=0)], "above 0, got 0")],
    "Embed": [
        (lambda: [x(), L.Embed("y", "x", count=0, units=2)], "got 0"),
        (lambda: [x(), L.Embed("y", "x", count=3)], "units"),
    ],
    "Exponential": [(lambda: [L.Exponential("y", "x")], "'x'")],
    "GELU": [(lambda: [x(3), L.GELU("y", "x", slope=1)], "slope")],
    "GRU": [
        (lambda: [x(3), L.GRU("y", "x", units=2)], "(steps, features), got shape (3,)"),
        (lambda: [x(3, 2), L.GRU("y", "x", units=0)], "got 0"),
    ],
    "ConvolvePSF": [
        (lambda: [x(3), L.ConvolvePSF("y", "x", "x")], "(bands, height, width), got shape (3,)"),
        (lambda: [x(4, 3), L.ConvolvePSF("y", "x", "x")], "must be odd, got (4, 3)"),
        (
            lambda: [x(2, 3, 3), L.Input("p", shape=(3, 1, 1)), L.ConvolvePSF("y", "x", "p")],
            "'x' has 2 bands and 'p' 3",
        ),
    ],
    "CutSources": [
        (lambda: [x(3), L.CutSources("y", "x", "x", shape=(2, 2))], "got shape (3,)"),
        (lambda: [x(3, 3), L.CutSources("y", "x", "x", shape=(2, 2))], "(sources, 2), got (3, 3)"),
        (lambda: [x(3, 2), L.CutSources("y", "x", "x", shape=(2,))], "(height, width)"),
    ],
    "GaussianKL": [
        (lambda: [x(3), L.Input("v", shape=(2,)), L.GaussianKL("y", "x", "v")], "x, v"),
        (
            lambda: [x(3), L.Input("v", shape=(2,)), L.GaussianKL("y", "x", "x", "x", "v")],
            "x, x, x, v",
        ),
        (lambda: [x(3), L.GaussianKL("y", "x", "x", "x")], "both"),
        (lambda: [x(3), L.GaussianKL("y", "x", "x", prior_log_variance="x")], "both"),
    ],
    "GaussianReconstruction": [
        (
            lambda: [
                x(3),
                *(L.Input(v, shape=(2,)) for v in "mv"),
                L.GaussianReconstruction("y", "x", "m", "v"),
            ],
            "(2,)",
        ),
        (lambda: [x(3), L.GaussianReconstruction("y", "x", "x", "x", floor=-1)], "-1"),
    ],
    "GroupNorm": [
        (lambda: [x(3, 2), L.GroupNorm("y", "x", groups=2)], "divide the channels of (3, 2)"),
        (lambda: [x(), L.GroupNorm("y", "x", groups=1)], "()"),
        (lambda: [x(2), L.GroupNorm("y", "x", groups=2)], "no variance"),
        (lambda: [x(2), L.GroupNorm("y", "x")], "groups"),
    ],
    "GeneratorData": [
        (lambda: [L.GeneratorData("y", make=[1, 2])], "function"),
        (lambda: [L.GeneratorData("y", make=lambda a, b: a)], "start"),
    ],
    "HDF5Data": [(lambda: [L.HDF5Data("y", path="x.h5", block=0)], "at least 1")],
    "HingeLoss": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.HingeLoss("y", "x", "t")], "got (2,)"),
        (lambda: [x(3), L.HingeLoss("y", "x", "x", squared=2)], "True or False"),
    ],
    "HuberLoss": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.HuberLoss("y", "x", "t")], "x, t"),
        (lambda: [x(3), L.HuberLoss("y", "x", "x", delta=0)], "above 0"),
    ],
    "ImageData": [
        (lambda: [L.ImageData("y", folder=".", channels=2)], "1 for grey or 3"),
        (lambda: [L.ImageData("y", folder=".", table=3, tops=["x", "t"])], "CSV"),
    ],
    "ImagePose": [
        (lambda: [x(81), L.ImagePose("y", "x", side=2, size=1.0)], "at least 3, got 2"),
        (lambda: [x(81), L.ImagePose("y", "x", side=9, size=0.0)], "above 0, got 0.0"),
        (lambda: [x(81), L.ImagePose("y", "x", side=9, size=1.0, latents=5)], "at most 4, got 5"),
        (lambda: [x(81), L.ImagePose("y", "x", side=9, size=1.0, turns=2.0)], "turns"),
        (lambda: [x(9, 8), L.ImagePose("y", "x", side=9, size=1.0)], "9 x 9 pixels"),
    ],
    "Input": [
        (lambda: [L.Input("y", shape=3)], "got 3"),
        (lambda: [L.Input("y", shape=(3, -1))], "(3, -1)"),
        (lambda: [L.Input("y", shape=(3, 0))], "(3, 0)"),
        (lambda: [L.Input("y", shape=(2.5,))], "2.5"),
        (lambda: [L.Input("y")], "shape"),
    ],
    "LSTM": [
        (lambda: [x(3, 2, 2), L.LSTM("y", "x", units=2)], "(steps, features), got shape (3, 2, 2)"),
        (lambda: [x(3, 2), L.LSTM("y", "x", units=2, last=1)], "True or False"),
        (lambda: [x(3, 2), L.LSTM("y", "x")], "units"),
    ],
    "LayerNorm": [
        (lambda: [x(3, 2), L.LayerNorm("y", "x", axis=2)], "from -2 to 1"),
        (lambda: [x(3, 1), L.LayerNorm("y", "x")], "no variance"),
        (lambda: [x(3), L.LayerNorm("y", "x", gain="large")], "gain"),
    ],
    "LeakyReLU": [(lambda: [x(3), L.LeakyReLU("y", "x", slope=0)], "above 0, got 0")],
    "MatMul": [
        (lambda: [x(3, 2), L.MatMul("y", "x", "x")], "2 columns and 3 rows"),
        (lambda: [x(3), L.MatMul("y", "x", "x")], "expected matrices"),
        (
            lambda: [x(2, 2, 2), L.Input("b", shape=(2, 2)), L.MatMul("y", "x", "b")],
            "equal axes in front",
        ),
        (lambda: [x(3, 2), L.MatMul("y", "x", "x", transpose_a=1)], "True or False"),
    ],
    "MemoryData": [
        (lambda: [L.MemoryData("y", data=[])], "lengths"),
        (lambda: [L.MemoryData("y", data=[np.zeros(3), np.zeros(2)], tops=["a", "b"])], "[2, 3]"),
        (lambda: [L.MemoryData("y", data=np.zeros((3, 2)), augment="mirror")], "'mirror'"),
        (lambda: [L.MemoryData("y", data=np.zeros((3, 2, 1)), augment="dihedral")], "square"),
    ],
    "Multiply": [
        (lambda: [x(3), L.Input("t", shape=()), L.Multiply("y", "x", "t")], "[(3,), ()]"),
        (lambda: [L.Multiply("y")], "at least one"),
    ],
    "Normal": [(lambda: [L.Normal("y", shape=(0,))], "(0,)"), (lambda: [L.Normal("y")], "shape")],
    "OneHot": [
        (lambda: [x(3), L.OneHot("y", "x", count=0)], "got 0"),
        (lambda: [x(3), L.OneHot("y", "x", count=2, axis=2)], "from -2 to 1"),
    ],
    "PReLU": [
        (lambda: [x(), L.PReLU("y", "x")], "no axis"),
        (lambda: [x(3), L.PReLU("y", "x", slope="steep")], "slope"),
    ],
    "Permute": [
        (lambda: [x(3, 2), L.Permute("y", "x", order=(1, 1))], "each of the 2 axes"),
        (lambda: [x(3, 2), L.Permute("y", "x", order=(0,))], "got (0,)"),
        (lambda: [x(3, 2), L.Permute("y", "x", order=(0, -3))], "from -2 to 1"),
        (lambda: [x(3, 2), L.Permute("y", "x", order="10")], "a tuple of axes"),
    ],
    "ReLU": [(lambda: [x(3), L.ReLU("y", "x", slope=0.1)], "slope")],
    "KnownVarianceReconstruction": [
        (
            lambda: [
                x(3),
                L.Input("t", shape=(2,)),
                L.KnownVarianceReconstruction("y", "x", "t", "x"),
            ],
            "x, t must have one shape",
        ),
        (
            lambda: [
                x(3, 2),
                L.Input("v", shape=(2,)),
                L.KnownVarianceReconstruction("y", "x", "x", "v"),
            ],
            "'v' must have the shape (3, 2) of 'x', or size 1",
        ),
        (
            lambda: [
                x(1),
                L.Input("m", shape=(2,)),
                L.KnownVarianceReconstruction("y", "x", "x", "x", "m"),
            ],
            "'m' must have the shape (1,)",
        ),
    ],
    "Normalise": [
        (lambda: [x(3), L.Normalise("y", "x", axes=1)], "from -1 to 0"),
        (lambda: [x(3, 2), L.Normalise("y", "x", axes=(0, -2))], "each once"),
        (lambda: [x(), L.Normalise("y", "x")], "at least one axis"),
    ],
    "PlaceSources": [
        (lambda: [x(3), L.PlaceSources("y", "x", "x", shape=(4, 4))], "got shape (3,)"),
        (lambda: [x(3, 3), L.PlaceSources("y", "x", "x", shape=(4, 4))], "shape (2,), got (3, 3)"),
        (
            lambda: [
                x(3, 5, 5),
                L.Input("p", shape=(2, 2)),
                L.PlaceSources("y", "x", "p", shape=(4, 4)),
            ],
            "of shape (3, 2), got (2, 2)",
        ),
        (
            lambda: [
                x(3, 2, 5, 5),
                L.Input("p", shape=(3, 2)),
                L.Input("f", shape=(3, 4)),
                L.PlaceSources("y", "x", "p", "f", shape=(4, 4)),
            ],
            "shape (3, 2), got (3, 4)",
        ),
        (lambda: [x(3, 3), L.PlaceSources("y", "x", "x", shape=4)], "(height, width)"),
    ],
    "PoissonReconstruction": [
        (
            lambda: [x(3), L.Input("t", shape=(2,)), L.PoissonReconstruction("y", "x", "t")],
            "one shape",
        ),
        (
            lambda: [x(3), L.Input("t", shape=()), L.PoissonReconstruction("y", "x", "x", "t")],
            "'t' must have the shape (3,)",
        ),
    ],
    "Reduce": [
        (lambda: [x(3), L.Reduce("y", "x", mode="min")], "'max'"),
        (lambda: [x(3), L.Reduce("y", "x", axes=(0, -1))], "each once"),
        (lambda: [x(3), L.Reduce("y", "x", axes=1)], "from -1 to 0"),
        (lambda: [x(), L.Reduce("y", "x")], "at least one axis"),
    ],
    "Reparameterize": [
        (lambda: [x(3), L.Input("v", shape=(2,)), L.Reparameterize("y", "x", "v")], "(2,)")
    ],
    "Reshape": [
        (lambda: [x(6), L.Reshape("y", "x", shape=(4,))], "6 elements"),
        (lambda: [x(6), L.Reshape("y", "x", shape=(-1, 4))], "(-1, 4)"),
        (lambda: [x(6), L.Reshape("y", "x", shape=(-1, -1))], "(-1, -1)"),
        (lambda: [x(6), L.Reshape("y", "x", shape=(-2, -3))], "(-2, -3)"),
        (lambda: [x(6), L.Reshape("y", "x", shape=(0, -1))], "(0, -1)"),
        (lambda: [x(6), L.Reshape("y", "x", shape=6)], "got 6"),
    ],
    "SiLU": [(lambda: [L.SiLU("y", "x")], "'x'")],
    "Sigmoid": [(lambda: [x(3), L.Sigmoid("y", "x", "t")], "positional")],
    "Slice": [
        (lambda: [x(6), L.Slice("y", "x", tops=["a", "b"], sizes=[2, 3])], "[2, 3]"),
        (lambda: [x(6), L.Slice("y", "x", tops=["a", "b"], sizes=[6, 0])], "[6, 0]"),
        (lambda: [x(6), L.Slice("y", "x", tops=["a", "b"], sizes=[2.5, 3.5])], "[2.5, 3.5]"),
        (lambda: [x(6), L.Slice("y", "x", tops=["a", "b"], sizes=[1, 2, 3])], "2 tops"),
        (lambda: [x(7), L.Slice("y", "x", tops=["a", "b"])], "cannot cut 7"),
        (lambda: [x(1), L.Slice("y", "x", tops=["a", "b"])], "cannot cut 1"),
        (lambda: [x(6), L.Slice("y", "x", tops=["a", "b"], axis=-2)], "from -1 to 0"),
        (lambda: [x(), L.Slice("y", "x", tops=["a", "b"])], "nothing to slice"),
        (lambda: [x(6), L.Slice("y", "x")], "tops"),
    ],
    "SoftmaxLoss": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.SoftmaxLoss("y", "x", "t")], "one label"),
        (lambda: [x(3, 2), L.Input("t", shape=(3,)), L.SoftmaxLoss("y", "x", "t")], "axis="),
        (
            lambda: [x(3, 2), L.Input("t", shape=(3,)), L.SoftmaxLoss("y", "x", "t", axis=0)],
            "labels (2,) for logits (3, 2), got (3,)",
        ),
        (
            lambda: [x(3, 2), L.Input("t", shape=(2,)), L.SoftmaxLoss("y", "x", "t", axis=2)],
            "from -2 to 1",
        ),
        (
            lambda: [x(3), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t", weights=(1, 2))],
            "each of 3 classes, got 2",
        ),
        (
            lambda: [x(3), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t", weights=(1, -2))],
            "at least 0",
        ),
        (
            lambda: [x(3), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t", smoothing=1)],
            "below 1",
        ),
        (lambda: [x(3), L.SoftmaxLoss("y", "x", "x", ignore=-1)], "soft labels name none"),
        (
            lambda: [x(3), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t", "x")],
            "importance must be one number",
        ),
        (lambda: [x(), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t")], "(classes,)"),
    ],
    "Softmax": [
        (lambda: [x(), L.Softmax("y", "x")], "(classes,)"),
        (lambda: [x(3, 2), L.Softmax("y", "x", axis=-3)], "from -2 to 1"),
    ],
    "Softplus": [(lambda: [x(3), L.Softplus("y")], "bottom")],
    "SpatialTransform": [
        (lambda: [x(9), L.SpatialTransform("y", "x", "x", side=3, size_spread=0.0)], "size_spread"),
        (lambda: [x(9), L.SpatialTransform("y", "x", "x", side=3)], "(n, 1 to 4)"),
        (lambda: [x(9), L.SpatialTransform("y", "x", "x", side=4)], "4 x 4 pixels"),
    ],
    "Taper": [
        (lambda: [x(9), L.Taper("y", "x", side=4)], "4 x 4 pixels"),
        (lambda: [x(9), L.Taper("y", "x", side=3, flat=1.0)], "flat"),
    ],
    "SquareLoss": [
        (lambda: [x(3), L.Input("t", shape=(2,)), L.SquareLoss("y", "x", "t")], "x, t"),
        (lambda: [x(3), L.SquareLoss("y", "x", "x", tops=["a", "b"])], "['a', 'b']"),
    ],
    "StudentReconstruction": [
        (lambda: [x(3), L.StudentReconstruction("y", "x", "x", "x", degrees=2)], "above 2 and"),
        (
            lambda: [x(3), L.StudentReconstruction("y", "x", "x", "x", degrees=math.inf)],
            "GaussianReconstruction",
        ),
        (lambda: [x(3), L.StudentReconstruction("y", "x", "x", "x", floor=-1)], "-1"),
    ],
    "Subtract": [
        (lambda: [x(3, 2), L.Input("t", shape=(2,)), L.Subtract("y", "x", "t")], "(3, 2), (2,)")
    ],
    "Tanh": [(lambda: [x(3), L.Tanh("y", "x", tops=["y", ""])], "non-empty")],
    "TiedDense": [
        (lambda: [x(3), L.TiedDense("y", "x", to="f")], "there is no layer 'f'"),
        (lambda: [x(3), L.ReLU("f", "x"), L.TiedDense("y", "f", to="f")], "'weight'"),
        (
            lambda: [x(3), L.Dense("f", "x", units=2), L.TiedDense("y", "x", to="f")],
            "'x' has 3 numbers for each example, but layer 'f', whose weight it transposes, has 2",
        ),
        (
            lambda: [
                x(2, 3, 3),
                L.Convolution("f", "x", channels=2, kernel=3),
                L.TiedDense("y", "f", to="f"),
            ],
            "two axes",
        ),
    ],
}


def test_every_layer_has_a_bad_setting():
    assert set(BAD) == set(L.__all__)


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, rows in BAD.items() for n in range(len(rows))]
)
def test_bad_settings_name_the_layer(kind, number):
    make, says = BAD[kind][number]
    with pytest.raises(NetError) as caught:
        lk.Net(make())
    message = str(caught.value)
    assert message.startswith(f"layer 'y' ({kind}): ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", L.__all__)
def test_an_unknown_setting_names_the_layer_and_what_it_takes(kind):
    cls = getattr(L, kind)
    needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    names = ["y"] + ["x" for p in needed[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    settings = {p.name: 1 for p in needed if p.kind is p.KEYWORD_ONLY}
    with pytest.raises(NetError, match=rf"^layer 'y' \({kind}\): .*'colour'.*it takes \(name"):
        cls(*names, **settings, colour="red")
