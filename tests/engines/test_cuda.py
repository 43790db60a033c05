"""The GPU path against the array code on NumPy: kernels, recorded steps, data on the device.

Every test runs on the stand-in GPU of cuda_host, which runs the CUDA sources on the host, and once
more on a GPU where one answers; LAYERKIT_GPU=required (`make gpu-test`) makes it a failure if none
does.
"""

import math
import os
import signal
import warnings
from pathlib import Path

import cuda_host
import h5py
import numpy as np
import pytest
from cases import CASES

import layerkit as lk
from layerkit import backends, galaxy
from layerkit import layers as L
from layerkit.engines.base import EngineRunner
from layerkit.engines.cuda import CudaEngine, chain, program
from layerkit.engines.cuda.runners import data as cuda_data
from layerkit.engines.cuda.runners import dense
from layerkit.errors import BackendError, DataError, NetError, NotFiniteError

GALAXY = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"
LENET = GALAXY.parent.parent / "examples" / "lenet.py"
TOLERANCE = {"float32": {"rtol": 3e-5, "atol": 3e-6}, "float64": {"rtol": 1e-11, "atol": 1e-12}}


def no_gpu():
    """Why there is no GPU to test on, or None."""
    try:
        backends.get("cupy")
    except BackendError as error:
        return str(error)
    return None


NO_GPU, REQUIRED = no_gpu(), os.environ.get("LAYERKIT_GPU") == "required"


def test_a_gpu_answers():
    if NO_GPU and REQUIRED:
        pytest.fail(f"a GPU is required, but: {NO_GPU}")
    if NO_GPU:
        pytest.skip(f"the tests of this file run on the stand-in only: {NO_GPU}")


@pytest.fixture(params=["stand-in", "gpu"] if REQUIRED or not NO_GPU else ["stand-in"])
def gpu(request):
    """Makes the backend "cupy" available; its value says which GPU this is."""
    if request.param == "stand-in":
        if cuda_host.missing():
            pytest.skip(cuda_host.missing())
        seed = int(np.random.SeedSequence().entropy % 2**31)
        print(f"order of blocks and threads: {seed}")
        with cuda_host.installed(seed=seed):
            yield request.param
        return
    if NO_GPU:
        pytest.fail(f"a GPU is required, but: {NO_GPU}")
    yield request.param


def host(net, array):
    return net.backend.to_host(array)


def pair(layers, batch_size, seed, **settings):
    """The same net on the GPU, and in array code on NumPy."""
    settings = {"batch_size": batch_size, "seed": seed, **settings}
    return (
        lk.Net(layers, backend="cupy", **settings),
        lk.Net(layers, kernels="array", **{k: v for k, v in settings.items() if k != "kernels"}),
    )


def assert_alike(found, expected, dtype, label):
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found / size, expected / size, err_msg=label, **TOLERANCE[dtype])


def compare(nets, inputs, weights, dtype):
    """Forward and backward on both, with diffs poisoned beforehand."""
    values = []
    for net in nets:
        for array in [b._diff for b in net.blobs.values()] + [p.diff for p in net.params.values()]:
            if array is not None:
                array.fill(np.nan)
        values.append(net.forward(**inputs))
        net.backward(**weights)
    there, here = nets
    assert values[0] == pytest.approx(values[1], rel=1e-5 if dtype == "float32" else 1e-11)
    for kind in ("blobs", "params"):
        for name, expected in getattr(here, kind).items():
            found = getattr(there, kind)[name].data
            assert_alike(host(there, found), expected.data, dtype, f"data of {name}")
            if expected.diff is not None:
                found = getattr(there, kind)[name].diff
                assert_alike(host(there, found), expected.diff, dtype, f"diff of {name}")


def random_weights(net, inputs, rng):
    """A further objective for whatever no layer reads."""
    net.forward(**inputs)
    read = {b for layer in net.layers.values() for b in layer.bottoms}
    return {
        name: rng.standard_normal(blob.data.shape)
        for name, blob in net.blobs.items()
        if name not in read and blob.diff is not None
    }


# Layers.


# On the stand-in test_cuda_kernels.py tries them all, and more closely.
ONE_OF_EACH = {type(case.layer()): case for case in reversed(CASES)}.values()


@pytest.mark.parametrize("case", ONE_OF_EACH if NO_GPU else CASES, ids=lambda case: case.id)
def test_layers(gpu, case, rng):
    dtype, rows = "float32", int(rng.integers(1, 6))
    arrays = {k: v.astype(dtype).astype("float64") for k, v in case.draw(rng, rows).items()}
    seed = int(rng.integers(2**40))
    here = case.net(rng, arrays, dtype=dtype, seed=seed)
    there = case.net(rng, arrays, dtype=dtype, seed=seed, backend="cupy", kernels="auto")
    inputs = {k: v for k, v in arrays.items() if k in here.layers}
    state = here.state()
    weights = random_weights(here, inputs, rng)
    here.set_state(state)
    compare((there, here), inputs, weights, dtype)
    if case.has_cuda:
        assert isinstance(there.runners["y"], HAVING_KERNELS)


HAVING_KERNELS = (EngineRunner, cuda_data.DataRunner)


SCENE = ("galaxy_light", "galaxy_profile")


@pytest.mark.parametrize(
    "name",
    # Those of the scene take no pictures alone; layers of the sky are array code.
    sorted(path.name for path in GALAXY.parent.glob("*.py") if path.stem not in SCENE),
)
def test_every_layer_of_the_nets_that_ship_has_kernels(gpu, name):
    data = L.MemoryData("x", data=np.zeros((3, 69, 69), np.float32))
    layers = lk.with_data(lk.load_net(GALAXY.parent / name), data)
    net = lk.Net(layers, 2, "cupy")
    for runner in net.runners.values():
        assert isinstance(runner, HAVING_KERNELS), runner.layer
        assert runner.recordable


SIZES = [(1, 1, 1), (3, 40, 7), (17, 5, 33), (16, 30, 31), (70, 9, 40), (130, 3, 2), (2, 600, 300)]
# All neurons in one block and by cuBLAS, and "relu" in every size.
DENSE = [(size, "relu") for size in SIZES]
DENSE += [(SIZES[k], neuron) for k in (1, 4) for neuron in (None, "gelu")]


@pytest.mark.parametrize(("sizes", "neuron"), DENSE, ids=str)
def test_dense(gpu, sizes, neuron, rng):
    rows, inputs, units = sizes
    layers = [
        L.Input("x", shape=(inputs,)),
        L.Dense("y", "x", units=units, neuron=neuron, bias=lk.initializers.Normal(0.3)),
    ]
    nets = pair(layers, rows + 1, 3, dtype="float64", gradients="all")
    for n in (rows, 1):
        x = {"x": rng.standard_normal((n, inputs))}
        compare(nets, x, random_weights(nets[1], x, rng), "float64")


@pytest.mark.parametrize("rows", [3, 9])
def test_kernels_with_room_for_more_examples_give_the_same_bits(gpu, rows, monkeypatch):
    """Those for few examples are compiled for 1, 2, 4, 8 and 16 of them only."""
    found = []
    for exact in (False, True):
        if exact:
            for module in (dense, chain):
                monkeypatch.setattr(module, "few_rows", lambda count: f"{count}u")
        else:
            assert dense.few_rows(rows) != f"{rows}u"
        net = lk.Net(small_vae(hidden=35), rows, backend="cupy", seed=2, gradients="all")
        solver = lk.Adam(net, 1e-2)
        for seed in range(3):
            loss = solver.step(x=galaxies(rows, seed))
        found.append((loss, host(net, net.arena.data), host(net, net.blobs["x"].diff)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [3, 20, 300])  # in one block, by cuBLAS, and with sums in slices
def test_layers_without_bias_or_with_slopes_are_trained(gpu, rows, rng):
    layers = [
        L.MemoryData("x", data=rng.standard_normal((2 * rows, 40))),
        L.Dense("a", "x", units=6, neuron="relu", bias=None),
        L.Dense("b", "x", units=6, neuron="relu"),  # run together with the one before
        L.Dense("c", "a", units=5, bias=None),  # in a chain with the next
        L.Dense("d", "c", units=5, neuron="prelu", bias=lk.initializers.Normal(0.3)),
        L.Dense("e", "b", units=5, neuron="gelu", bias=None),
        L.Add("sum", "d", "e"),
        L.TiedDense("f", "sum", to="c", neuron="tanh", bias=None),
        L.Concat("all", "f", "b"),
        L.Dense("y", "all", units=40, bias=None),
        L.SquareLoss("loss", "y", "x"),
    ]
    nets = pair(layers, rows, 3, dtype="float64")
    assert all(runner.recordable for runner in nets[0].runners.values())
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    np.testing.assert_allclose(*[s.steps(4) for s in solvers], rtol=1e-10)
    assert_same_training(solvers)


@pytest.mark.parametrize("size", [1, 40, 1024, 1025, 2500])
@pytest.mark.parametrize("rows", [1, 3])
def test_losses_of_any_size(gpu, rows, size, rng):
    arrays = {
        "x": rng.random((rows, size)),
        "m": rng.random((rows, size)),
        "v": rng.uniform(-9, 1, (rows, size)),
        "t": rng.integers(size, size=rows),
    }
    layers = [
        *(L.Input(name, shape=array.shape[1:]) for name, array in arrays.items()),
        L.SoftmaxLoss("softmax", "v", "t"),
        L.GaussianReconstruction("likelihood", "x", "m", "v", weight=0.3),
        L.GaussianKL("kl", "m", "v"),
        L.SquareLoss("square", "x", "m", weight=2.0),
        L.BinaryCrossEntropy("cross", "v", "x"),
    ]
    compare(pair(layers, rows, 3, dtype="float64", gradients="all"), arrays, {}, "float64")


@pytest.mark.parametrize("label", [-1, 3, 0.5, np.nan])
def test_a_label_that_is_no_class(gpu, label):
    layers = [L.Input("x", shape=(3,)), L.Input("t", shape=()), L.SoftmaxLoss("y", "x", "t")]
    net = lk.Net(layers, 2, "cupy")
    net.forward(x=np.ones((2, 3)), t=np.array([1, label]))
    np.testing.assert_allclose(host(net, net.blobs["y"].data), [np.log(3), np.inf], rtol=1e-6)


# Steps.


def galaxies(count, seed=5, pixels=300):
    return (np.random.default_rng(seed).random((count, pixels)) * 0.3).astype(np.float32)


def small_vae(**settings):
    return lk.load_net(GALAXY, **{"pixels": 300, "hidden": 33, "latent": 3, **settings})


def with_galaxies(count=23, **settings):
    data = L.MemoryData("x", data=galaxies(count, pixels=settings.get("pixels", 300)))
    return lk.with_data(small_vae(**settings), data)


SOLVERS = {
    "Adam": lambda net, **k: lk.Adam(net, 1e-3, **k),
    "SGD": lambda net, **k: lk.SGD(net, 1e-6, **k),
    "Nesterov": lambda net, **k: lk.Nesterov(net, 1e-6, momentum=0.5, **k),
}


def assert_same_training(solvers, dtype="float64"):
    there, here = solvers
    assert there.net.state() == here.net.state()
    assert there.iteration == here.iteration
    for name, p in here.net.params.items():
        assert_alike(host(there.net, there.net.params[name].data), p.data, dtype, name)
    for name, flat in here.history.items():
        assert_alike(host(there.net, there.history[name]), flat, dtype, name)
    for mine, expected in ((there.net.losses, here.net.losses),):
        assert mine == pytest.approx(expected, rel=1e-10 if dtype == "float64" else 1e-4)


# Each solver and each number of rows, in one block or by cuBLAS, but not each of each.
@pytest.mark.parametrize(
    ("rows", "solver"),
    [(1, "Adam"), (5, "Adam"), (17, "Adam"), (1, "SGD"), (17, "SGD"), (5, "Nesterov")],
)
def test_a_recorded_step_is_that_of_the_array_code(gpu, rows, solver):
    nets = pair(with_galaxies(), rows, 3, dtype="float64")
    solvers = [SOLVERS[solver](net) for net in nets]
    losses = [s.steps(7) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)
    assert_same_training(solvers)
    (recorded,) = solvers[0]._steps.recorded.values()
    assert recorded._replay is not None, "the step was not recorded"


def test_a_recorded_step_of_lenet_is_that_of_the_array_code(gpu, rng):
    x, t = rng.random((9, 1, 16, 16)), rng.integers(4, size=9)
    data = L.MemoryData("data", data=[x, t], tops=["x", "t"])
    layers = lk.with_data(lk.load_net(LENET, side=16, classes=4), data)
    nets = pair(layers, 5, 3, dtype="float64")
    assert all(runner.recordable for runner in nets[0].runners.values())
    solvers = [lk.Adam(net) for net in nets]
    losses = [s.steps(4) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)
    assert_same_training(solvers)


def sequences():
    """Normalization and recurrent layers, of a picture that is also read as a sequence."""
    data = np.random.default_rng(8).standard_normal((11, 6, 4, 3)).astype(np.float32)
    return [
        L.MemoryData("x", data=data),
        L.BatchNorm("b", "x"),
        L.GroupNorm("g", "b", groups=3),
        L.Reshape("s", "g", shape=(6, 12)),
        L.LSTM("h", "s", units=5),
        L.LayerNorm("n", "h"),
        L.GRU("k", "n", units=7, reverse=True),
        L.GRU("l", "k", units=4, last=True),
        L.Reshape("t", "x", shape=(6, 12)),
        L.LSTM("m", "t", units=4, last=True),
        L.HuberLoss("loss", "l", "m", delta=0.3),
    ]


def test_a_recorded_step_of_norms_and_recurrent_layers_is_that_of_the_array_code(gpu):
    nets = pair(sequences(), 5, 3, dtype="float64")
    own = [net.runners[x.name] for net in nets[:1] for x in net.layers.values() if not x.is_source]
    assert all(isinstance(runner, EngineRunner) for runner in own)
    solvers = [lk.Adam(net) for net in nets]
    losses = [s.steps(5) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert_same_training(solvers)
    for name in ("mean", "variance"):
        found, expected = (net.layers["b"].statistics[name].data for net in nets)
        assert_alike(host(nets[0], found), expected, "float64", name)
    (recorded,) = solvers[0]._steps.recorded.values()
    assert recorded._replay is not None, "the step was not recorded"


@pytest.mark.parametrize("kind", [L.LSTM, L.GRU])
def test_a_step_of_a_sequence_is_a_product_and_a_kernel(cupy_on_host, kind, monkeypatch, rng):
    counts, made = [], cuda_host.device.Graph.__init__

    def counting(self, work, *others):
        counts.append(len(work))
        made(self, work, *others)

    monkeypatch.setattr(cuda_host.device.Graph, "__init__", counting)
    for steps in (4, 9):
        data = L.MemoryData("x", data=rng.standard_normal((6, steps, 2)).astype("float32"))
        layers = [data, kind("y", "x", units=2), L.SquareLoss("loss", "y", "x")]
        lk.Adam(lk.Net(layers, 2, "cupy")).steps(2)
    assert counts[1] - counts[0] == 4 * (9 - 4)  # forward and backward


def test_the_papers_net_at_its_own_size(gpu):
    layers = lk.with_data(lk.load_net(GALAXY), L.MemoryData("x", data=galaxies(4, pixels=4761)))
    nets = pair(layers, 1, 3)
    solvers = [lk.Adam(net) for net in nets]
    losses = [s.steps(2) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for name, p in nets[1].params.items():
        # Adam's first steps are those of a sign: a gradient of nearly zero may have another.
        difference = np.abs(host(nets[0], nets[0].params[name].data) - p.data)
        assert np.median(difference) < 1e-7
        assert difference.max() < 6.1e-3


def test_the_loss_curve_of_a_long_run(gpu):
    nets = pair(with_galaxies(50, hidden=10, pixels=50), 6, 5)
    curves = [lk.Adam(net, 1e-3).steps(60) for net in nets]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


@pytest.mark.parametrize(("rows", "most"), [(1, 15), (17, 40)])  # as at 128
def test_nodes_of_a_recorded_step_of_the_papers_net(cupy_on_host, rows, most, monkeypatch):
    counts, made = [], cuda_host.device.Graph.__init__

    def counting(self, work, *others):
        counts.append(len(work))
        made(self, work, *others)

    monkeypatch.setattr(cuda_host.device.Graph, "__init__", counting)
    data = L.MemoryData("x", data=galaxies(2 * rows, pixels=4761).reshape(-1, 69, 69))
    lk.Adam(lk.Net(lk.with_data(lk.load_net(GALAXY), data), rows, "cupy")).steps(2)
    assert len(counts) == 1
    assert counts[0] <= most


@pytest.mark.parametrize(("rows", "dtype"), [(2, "float64"), (20, "float32")])
def test_replaying_equals_calling_bit_for_bit(gpu, rows, dtype):
    results = []
    for record in (True, False, True):
        layers = with_galaxies(hidden=12, pixels=300)
        net = lk.Net(layers, rows, "cupy", seed=4, dtype=dtype)
        solver = lk.Adam(net, 1e-3)
        solver.record = record
        losses = np.concatenate([solver.steps(4), [solver.step()], solver.steps(3)])
        results.append((losses, host(net, net.arena.data), host(net, solver.history["v"])))
        assert (next(iter(solver._steps.recorded.values()))._replay is not None) == record
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_rate_that_changes_and_a_table_that_is_used_up(gpu, monkeypatch):
    monkeypatch.setattr("layerkit.engines.cuda.program.STEPS", 4)
    nets = pair(with_galaxies(hidden=5, pixels=30), 3, 3, dtype="float64")
    solvers = [lk.Adam(net, lk.rates.Cosine(1e-2, 10)) for net in nets]
    np.testing.assert_allclose(*[s.steps(11) for s in solvers], rtol=1e-10)
    assert_same_training(solvers)


def test_inputs_given_to_each_step_may_have_other_rows(gpu, rng):
    nets = pair(small_vae(hidden=5, pixels=30), 4, 3, dtype="float64")
    solvers = [lk.Adam(net) for net in nets]
    for rows in (4, 2, 4, 1, 2, 4, 4):
        x = rng.random((rows, 30))
        losses = [s.step(x=x) for s in solvers]
        assert losses[0] == pytest.approx(losses[1], rel=1e-11)
    assert_same_training(solvers)


@pytest.mark.parametrize(
    "what", ["clip", "frozen", "l1 and l2", "weights", "array code between", "net calls between"]
)
@pytest.mark.parametrize("rows", [3, 18])
def test_whatever_changes_is_followed(gpu, rows, what):
    nets = pair(with_galaxies(hidden=7, pixels=50), rows, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-2, clip=0.5 if what == "clip" else None) for net in nets]
    for net, solver in zip(nets, solvers, strict=True):
        solver.steps(3)
        if what == "frozen":
            net.freeze("g1/weight", "f2")
        if what == "l1 and l2":
            net.params["x_mean/weight"].l2 = 0.1
            net.params["g2/weight"].l1 = 0.2
        if what == "weights":
            net.layers["kl"].weight = 0.25
        if what == "array code between":
            net.params["g2/weight"].data[...] *= 1.5
            solver.fuse = False
        if what == "net calls between":
            net.forward()
            net.backward()
            net.infer("z", x=galaxies(2, pixels=50))
    losses = [s.steps(4) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert nets[0].regularisation == pytest.approx(nets[1].regularisation, rel=1e-10)
    assert_same_training(solvers)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "in batches"])
@pytest.mark.parametrize(("rows", "bad"), [(2, 0), (2, 1), (2, 5), (18, 0), (18, 4)])
def test_a_loss_that_is_not_finite_stops_training_before_the_update(
    gpu, rows, bad, resident, monkeypatch
):
    """The same error, parameters and state as on the CPU, though the GPU is asked for ten steps."""
    if not resident:
        monkeypatch.setattr(cuda_data, "SHARE", 0)
    images = galaxies(6 * rows, pixels=50)
    images[rows * bad : rows * bad + rows] = np.inf
    data = L.MemoryData("x", data=images, shuffle=False)
    nets = pair(lk.with_data(small_vae(hidden=7, pixels=50), data), rows, 3, dtype="float64")
    solvers, messages = [lk.Adam(net, 1e-3) for net in nets], []
    for solver in solvers:
        with pytest.raises(NotFiniteError) as error, np.errstate(invalid="ignore"):
            solver.steps(10)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert f"at iteration {bad}" in messages[0]
    there, here = solvers
    assert there.iteration == here.iteration == bad
    assert there.net.state() == here.net.state()
    for name, p in here.net.params.items():
        assert_alike(host(there.net, there.net.params[name].data), p.data, "float64", name)


@pytest.mark.parametrize("clip", [None, 1.0], ids=["", "clipped"])
@pytest.mark.parametrize(("rows", "bad"), [(2, 0), (2, 3), (18, 2)])
def test_a_gradient_that_is_not_finite_stops_training_too(gpu, rows, bad, clip):
    """dW = x t overflows in one minibatch, where the loss is finite, as it was before it."""
    x, t = np.zeros((6 * rows, 9)), np.zeros((6 * rows, 4))
    x[rows * bad + 1], t[rows * bad + 1] = 1e200, 1e150
    x[rows * bad + rows :], t[rows * bad + rows :] = 1.0, 1.0  # from which could be learned
    layers = [
        L.MemoryData("data", data=[x, t], tops=["x", "t"], shuffle=False),
        L.Dense("y", "x", units=4, weight=0.0),
        L.SquareLoss("loss", "y", "t"),
    ]
    nets = pair(layers, rows, 3, dtype="float64")
    solvers, messages = [lk.Adam(net, 1e-3, clip=clip) for net in nets], []
    for solver in solvers:
        with pytest.raises(NotFiniteError) as error:
            solver.steps(10)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert f"a gradient is not finite at iteration {bad}" in messages[0]
    assert "first in the diff of parameter 'y/weight'" in messages[0]
    there, here = solvers
    assert there.iteration == here.iteration == bad
    assert there.net.state() == here.net.state()
    for solver in solvers:
        assert not host(solver.net, solver.net.arena.data).any()
        assert not any(host(solver.net, a).any() for a in solver.history.values())


@pytest.mark.parametrize("settings", [{}, {"ignore": -1, "smoothing": 0.1}])
def test_labels_that_are_no_class_are_named_on_a_gpu_too(gpu, settings):
    labels = np.array([0, 3, 1, 2, 4, 0])
    layers = [
        L.MemoryData("data", data=[np.ones((6, 5)), labels], tops=["x", "label"], shuffle=False),
        L.Dense("logits", "x", units=4),
        L.SoftmaxLoss("loss", "logits", "label", **settings),
    ]
    solver = lk.Adam(pair(layers, 3, 3)[0], 1e-3)
    with pytest.raises(DataError, match="row 1 of 'label' holds 4, which is no class"):
        solver.steps(9)
    assert solver.iteration == 1


def test_a_policy_that_fails_on_a_gpu(gpu):
    """The steps before it are made."""
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers = [lk.SGD(net, lambda i: 1e-5 if i < 4 else math.nan) for net in nets]
    for solver in solvers:
        with pytest.raises(NetError, match=r"rate: at iteration 4 .* gave nan"):
            solver.steps(9)
        assert solver.iteration == 4
    assert_same_training(solvers)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_training_goes_on_after_an_interruption(gpu, after, monkeypatch):
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers, calls = [lk.Adam(net, 1e-3) for net in nets], []
    prepare = cuda_data.ResidentData.prepare

    def interrupted(self):
        calls.append(self)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        prepare(self)

    monkeypatch.setattr(cuda_data.ResidentData, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solvers[0].steps(9)
    assert solvers[0].iteration == after
    losses = solvers[1].steps(9)
    np.testing.assert_allclose(solvers[0].steps(9 - after), losses[after:], rtol=1e-10)
    assert_same_training(solvers)


@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("call", ["forward", "backward"])
def test_a_layer_that_fails_leaves_iteration_pass_and_position_together(gpu, call, after):
    """Before anything is recorded, when layers are called one by one."""
    net = lk.Net(with_galaxies(hidden=7, pixels=50), 3, "cupy", seed=3)
    solver, calls, runner = lk.Adam(net, 1e-3), [], net.runners["f2"]
    solver.record = False
    solver.fuse = False
    original = getattr(runner, f"run_{call}")

    def interrupted(bottoms, tops):
        calls.append(call)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        original(bottoms, tops)

    setattr(runner, f"run_{call}", interrupted)
    net.rewire()
    with pytest.raises(KeyboardInterrupt):
        solver.steps(9)
    assert solver.iteration == after
    assert net.state() == {"seed": 3, "passes": after, "position/x": 3 * after}


def test_ctrl_c_is_heard_between_two_steps(gpu, monkeypatch):
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers, calls = [lk.Adam(net, 1e-3) for net in nets], []
    prepare = cuda_data.ResidentData.prepare

    def pressed(self):
        calls.append(self)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        prepare(self)

    monkeypatch.setattr(cuda_data.ResidentData, "prepare", pressed)
    with pytest.raises(KeyboardInterrupt):
        solvers[0].steps(9)
    assert solvers[0].iteration == 4
    losses = solvers[1].steps(9)
    np.testing.assert_allclose(solvers[0].steps(5), losses[4:], rtol=1e-10)
    assert_same_training(solvers)


def test_all_steps_are_made_where_ctrl_c_is_only_noted(gpu, monkeypatch):
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers, calls, noted = [lk.Adam(net, 1e-3) for net in nets], [], []
    prepare = cuda_data.ResidentData.prepare

    def pressed(self):
        calls.append(self)
        if len(calls) in (1, 4):
            signal.raise_signal(signal.SIGINT)
        prepare(self)

    monkeypatch.setattr(cuda_data.ResidentData, "prepare", pressed)
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        losses = solvers[0].steps(6)
    finally:
        signal.signal(signal.SIGINT, before)
    np.testing.assert_allclose(losses, solvers[1].steps(6), rtol=1e-10)
    assert noted == [signal.SIGINT] * 2
    assert_same_training(solvers)


def test_the_steps_before_a_rate_that_cannot_be_had_are_made(gpu):
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers = [
        lk.Adam(nets[0], lambda iteration: 1e-3 if iteration < 5 else 1 / 0),
        lk.Adam(nets[1], 1e-3),
    ]
    solvers[0].steps(3)
    for _ in range(2):
        with pytest.raises(lk.errors.NetError, match=r"at iteration 5 .*ZeroDivisionError"):
            solvers[0].steps(9)
        assert solvers[0].iteration == 5
    solvers[1].steps(5)
    assert nets[0].state() == nets[1].state()
    assert_same_training(solvers)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rows", [1, 18])
def test_an_update_makes_denormal_histories_zero(gpu, rows, solver):
    """Layers do it with few examples, flat arrays with many."""
    layers = [
        L.Input("x", shape=(3,)),
        L.Input("t", shape=(40,)),
        L.Dense("y", "x", units=40),
        L.SquareLoss("loss", "y", "t"),
    ]
    net = lk.Net(layers, rows, "cupy")
    training = SOLVERS[solver](net)
    start = host(net, net.params["y/weight"].data)
    for flat in training.history.values():
        flat.fill(1e-39)
    training.step(x=np.zeros((rows, 3)), t=np.zeros((rows, 40)))
    for name, flat in training.history.items():
        for p in net.params.values():
            assert not host(net, flat[p.offset : p.offset + p.size]).any(), name
    np.testing.assert_array_equal(host(net, net.params["y/weight"].data), start)


# Changes to what a step was recorded with.


def changes():
    """Return changes that can be made between steps, by name."""

    def setting(layer, name, value):
        return lambda net, solver: setattr(net.layers[layer], name, value)

    return {
        "seed": lambda net, solver: net.set_state({**net.state(), "seed": 77}),
        "sample": lambda net, solver: setattr(net.run, "sample", False),
        "training": lambda net, solver: setattr(net.run, "training", False),
        "ratio": setting("drop", "ratio", 0.7),
        "augment": setting("x", "augment", None),
        "floor": setting("reconstruction", "floor", 0.3),
        "slope": lambda net, solver: setattr(net.layers["h"].neuron, "slope", np.float32(0.25)),
        "slope of a layer": setting("leak", "slope", np.float64(0.5)),
        "weight": setting("kl", "weight", 0.25),
        "beta1": lambda net, solver: setattr(solver, "beta1", 0.5),
        "rate": lambda net, solver: setattr(solver, "rate", lk.rates.Fixed(0.003)),
        "clip": lambda net, solver: setattr(solver, "clip", 0.01),
    }


def changeable():
    """A net with a setting in every kernel that has one."""
    images = galaxies(11, pixels=36).reshape(11, 6, 6)
    return [
        L.MemoryData("x", data=images, augment="dihedral"),
        L.Dense("h", "flat", units=7, neuron="leaky_relu"),
        L.LeakyReLU("leak", "h"),
        L.Dropout("drop", "leak", ratio=0.2),
        L.Dense("m", "drop", units=3),
        L.Dense("v", "drop", units=3),
        L.Reparameterize("z", "m", "v"),
        L.Dense("e", "z", units=5, neuron="elu"),
        L.Dense("mean", "e", units=36),
        L.Dense("variance", "e", units=36),
        L.Reshape("flat", "x", shape=(36,)),
        L.GaussianReconstruction("reconstruction", "flat", "mean", "variance", floor=0.1),
        L.GaussianKL("kl", "m", "v"),
    ]


@pytest.mark.parametrize("rows", [3, 18])
@pytest.mark.parametrize("what", changes())
def test_a_recorded_step_follows_what_is_changed(gpu, rows, what):
    nets = pair(changeable(), rows, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    for solver in solvers:
        solver.steps(3)
    for solver in solvers:
        changes()[what](solver.net, solver)
    np.testing.assert_allclose(*[s.steps(4) for s in solvers], rtol=1e-9)
    assert_same_training(solvers)
    # All are recorded but, in phase "test", the one step that ends the epoch with fewer rows.
    recorded = [r._replay is not None for r in solvers[0]._steps.recorded.values()]
    assert recorded.count(False) == (what == "training")


def test_loading_another_seed_replays_its_noise(gpu, tmp_path):
    saved = pair(changeable(), 3, 41, dtype="float64")[1]
    solver = lk.Adam(saved, 1e-3)
    solver.steps(2)
    lk.save(tmp_path / "snapshot.h5", saved, solver)
    nets = pair(changeable(), 3, 5, dtype="float64")
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    solvers[0].steps(4)  # recorded with seed 5
    for net, training in zip(nets, solvers, strict=True):
        lk.load(tmp_path / "snapshot.h5", net, training)
        assert net.run.seed == 41
    np.testing.assert_allclose(*[s.steps(4) for s in solvers], rtol=1e-9)
    assert_same_training(solvers)


def test_a_weight_that_rises_does_not_record_again(gpu):
    net = lk.Net(changeable(), 3, "cupy")
    solver = lk.Adam(net, 1e-3)
    for i in range(6):
        net.layers["kl"].weight = i / 6
        solver.steps(1)
    (recorded,) = solver._steps.recorded.values()
    assert recorded._replay is not None


NUMBERS = [0.1, np.float64(0.1), np.float32(0.1), np.float16(0.125), 1, np.int64(1), 1e-30]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_settings_of_any_kind_of_number_compile(gpu, value, dtype, rng):
    layers = [
        L.Input("x", shape=(5,)),
        L.LeakyReLU("leaky", "x", slope=value),
        L.ELU("elu", "x", alpha=value),
    ]
    x = {"x": rng.standard_normal((3, 5))}
    nets = pair(layers, 3, 1, dtype=dtype, gradients="all")
    compare(nets, x, random_weights(nets[1], x, rng), dtype)


class Doubled(lk.Layer):
    """A user's layer in array code."""

    def __init__(self, name, bottom, *, tops=None):
        super().__init__(name, [bottom], tops)
        self.calls = 0

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        self.calls += 1
        tops[0].data[...] = 2 * bottoms[0].data + self.normal(tops[0].data.shape)

    def backward(self, bottoms, tops):
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = 2 * tops[0].diff


def test_a_layer_that_may_not_be_recorded_is_called_in_each_step(gpu, rng):
    layers = [
        L.MemoryData("x", data=rng.random((9, 6))),
        L.Dense("h", "x", units=4, neuron="relu"),
        Doubled("d", "h"),
        L.Dense("y", "d", units=6),
        L.SquareLoss("loss", "y", "x"),
    ]
    nets = pair(layers, 2, 3, dtype="float64")
    solvers = [lk.Adam(net) for net in nets]
    losses = [s.steps(6) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert nets[0].layers["d"].calls == 6
    assert_same_training(solvers)


class Careless(Doubled):
    """Claims what is not so: waiting for the GPU cannot be recorded."""

    recordable = True

    def forward(self, bottoms, tops):
        self.calls += 1
        tops[0].data[...] = bottoms[0].data * float(bottoms[0].data.max())

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = tops[0].diff


def test_a_layer_that_cannot_be_recorded_is_warned_about_and_trained(gpu, rng):
    layers = [
        L.MemoryData("x", data=rng.random((9, 6))),
        L.Dense("h", "x", units=4),
        Careless("d", "h"),
        L.Dense("y", "d", units=6),
        L.SquareLoss("loss", "y", "x"),
    ]
    nets = pair(layers, 2, 3, dtype="float64")
    solvers = [lk.Adam(net) for net in nets]
    with pytest.warns(RuntimeWarning, match="cannot be recorded"):
        losses = [s.steps(6) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)


class HalfAdam(lk.Adam):
    """A user's solver in array code."""

    def update(self, w, g, rate, **history):
        super().update(w, g, rate / 2, **history)


def test_a_solver_in_array_code(gpu):
    nets = pair(with_galaxies(hidden=7, pixels=50), 3, 3, dtype="float64")
    solvers = [HalfAdam(net, 1e-3) for net in nets]
    losses = [s.steps(4) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert_same_training(solvers)


def test_metrics_and_losses_that_others_read(gpu, rng):
    layers = [
        L.MemoryData("x", data=[rng.random((9, 6)), rng.integers(3, size=9)], tops=["x", "t"]),
        L.Dense("h", "x", units=4, neuron="elu"),
        L.Dropout("k", "h", ratio=0.3),
        L.Dense("y", "k", units=3),
        L.SoftmaxLoss("loss", "y", "t"),
        L.Accuracy("hits", "y", "t"),
        L.Dense("back", "k", units=6, neuron="sigmoid"),
        L.SquareLoss("square", "back", "x", weight=0.5),
        L.Dense("of_loss", "square", units=1),
        L.Dense("zero", "x", units=1, weight=0.0),
        L.SquareLoss("last", "of_loss", "zero"),
    ]
    nets = pair(layers, 4, 3, dtype="float64")
    solvers = [lk.Adam(net) for net in nets]
    for weight in (0.5, 0.5, 0.7):
        for net in nets:
            net.layers["square"].weight = weight
        np.testing.assert_allclose(*[s.steps(3) for s in solvers], rtol=1e-10)
    assert nets[0].metrics == nets[1].metrics
    assert solvers[0].curves.keys() == {"loss", "square", "last", "hits"}
    for name, curve in solvers[1].curves.items():
        np.testing.assert_allclose(solvers[0].curves[name], curve, rtol=1e-10)
        assert curve[-1] == {**nets[1].losses, **nets[1].metrics}[name]
    assert_same_training(solvers)


@pytest.mark.parametrize("first", ["cupy", "numpy"])
def test_snapshots_cross_between_backends(gpu, first, tmp_path):
    path = tmp_path / "snapshot.h5"
    second = {"cupy": "numpy", "numpy": "cupy"}[first]

    def solver(backend):
        return lk.Adam(
            lk.Net(
                with_galaxies(hidden=7, pixels=50),
                3,
                backend,
                seed=3,
                dtype="float64",
                kernels="array" if backend == "numpy" else "auto",
            ),
            1e-3,
        )

    whole, begun, resumed = solver("numpy"), solver(first), solver(second)
    begun.steps(4)
    lk.save(path, begun.net, begun)
    resumed.steps(2)  # to be forgotten
    lk.load(path, resumed.net, resumed)
    losses = whole.steps(9)[4:]
    np.testing.assert_allclose(resumed.steps(5), losses, rtol=1e-10)


# Data.


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "in batches"])
@pytest.mark.parametrize("batch", [2, 5, 16])
def test_images_are_gathered_turned_and_scaled(gpu, batch, resident, monkeypatch, rng):
    if not resident:
        monkeypatch.setattr(cuda_data, "SHARE", 0)
    images = (rng.random((7, 2, 5, 5)) * 200).astype("uint8")
    arrays = [images, rng.integers(0, 9, 7)]
    layers = [L.MemoryData("x", data=arrays, tops=["x", "t"], augment="dihedral", scale=1 / 255)]
    nets = pair(layers, batch, int(rng.integers(2**31)))
    for _ in range(6):  # several epochs, with batches across their ends
        for net in nets:
            net.forward()
        for name in ("x", "t"):
            assert_alike(
                host(nets[0], nets[0].blobs[name].data), nets[1].blobs[name].data, "float32", name
            )
    assert nets[0].state() == nets[1].state()
    assert isinstance(nets[0].runners["x"], cuda_data.ResidentData) == resident


TYPES = [
    "float64",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    ">f4",
    ">i2",
    "float16",
    "bool",
]


@pytest.mark.parametrize("dtype", TYPES)
def test_data_of_any_type(gpu, dtype, rng, monkeypatch):
    monkeypatch.setattr(cuda_data, "UPLOADED", 100)  # so that it is copied in slices
    layers = [L.MemoryData("x", data=(rng.random((7, 9)) * 100).astype(dtype))]
    nets = pair(layers, 3, 5, dtype="float64")
    for net in nets:
        net.forward()
    np.testing.assert_array_equal(host(nets[0], nets[0].blobs["x"].data), nets[1].blobs["x"].data)


@pytest.mark.parametrize("source", ["memory", "file"])
def test_training_on_what_comes_in_batches(gpu, source, monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_data, "SHARE", 0)
    images = galaxies(23, pixels=49).reshape(23, 7, 7)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = images
    data = (
        L.MemoryData("x", data=images, augment="dihedral")
        if source == "memory"
        else L.HDF5Data("x", path=tmp_path / "images.h5", block=3, mixed=2, augment="dihedral")
    )
    nets = pair(lk.with_data(small_vae(hidden=7, pixels=49), data), 4, 3, dtype="float64")
    solvers = [lk.Adam(net, 1e-3) for net in nets]
    np.testing.assert_allclose(*[s.steps(15) for s in solvers], rtol=1e-10)
    assert_same_training(solvers)
    assert next(iter(solvers[0]._steps.recorded.values()))._replay is not None
    state = nets[1].state()
    for net in nets:  # back, as loading a snapshot goes
        net.set_state({**state, "passes": 3, "position/x": 8})
    np.testing.assert_allclose(*[s.steps(4) for s in solvers], rtol=1e-10)


# Parts.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 5, 3), (4, 1, 7), (6, 5, 1), (3, 4, 5)], ids=str)
def test_gemm_of_any_layout(gpu, sizes, dtype, rng):
    backend = backends.get("cupy")
    m, k, n = sizes

    def layouts(rows, columns):
        for array in (rng.standard_normal((rows, columns)), rng.standard_normal((columns, rows)).T):
            array = array.astype(dtype)
            there = backend.asarray(np.ascontiguousarray(array.T)).T
            yield array, backend.asarray(np.ascontiguousarray(array))
            yield array, there

    for a, a_there in layouts(m, k):
        for b, b_there in layouts(k, n):
            out = backend.zeros((m, n), dtype)
            backend.gemm(a_there, b_there, out)
            np.testing.assert_allclose(backend.to_host(out), a @ b, rtol=1e-4, atol=1e-5)


def test_tf32_is_a_setting(gpu):
    net = lk.Net([L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)], 2, "cupy", tf32=True)
    assert net.backend.tf32
    assert net.rebuild().backend.tf32
    assert not lk.Net([L.Input("x", shape=(3,))], 2, "cupy").backend.tf32
    net.forward(x=np.ones((2, 3)))


def test_the_clock_is_written_only_when_it_is_wrong(gpu):
    device = CudaEngine(backends.get("cupy"), np.dtype("float32"))
    device.sources += [None, None]
    device.set_clock(5, [7, 9])
    np.testing.assert_array_equal(backends.get("cupy").to_host(device.clock), [0, 0, 5, 7, 9])
    device.clock.fill(1)
    device.set_clock(5, [7, 9])
    np.testing.assert_array_equal(backends.get("cupy").to_host(device.clock), [1] * 5)
    device.forget_clock()
    device.set_clock(5, [7, 9])
    np.testing.assert_array_equal(backends.get("cupy").to_host(device.clock), [0, 0, 5, 7, 9])


def test_gradients(gpu, rng):
    """The kernels' own gradients agree with finite differences, without array code between."""
    layers = [
        layer
        for layer in lk.load_net(GALAXY, pixels=11, hidden=5, latent=2)
        if layer.name not in ("g1", "f1")
    ]
    layers += [  # no kinks
        L.Dense("g1", "x", units=5, neuron="tanh"),
        L.Dense("f1", "z", units=5, neuron="softplus"),
    ]
    net = lk.Net(layers, 3, "cupy", seed=2, dtype="float64", gradients="parameters")
    x = rng.random((3, 11))
    net.forward(x=x)
    net.backward()
    state = {**net.state(), "passes": net.run.passes - 1}
    for p in net.params.values():
        data, diff = host(net, p.data), host(net, p.diff)
        direction = rng.standard_normal(data.shape)
        values = []
        for sign in (1, -1):
            p.data[...] = net.backend.asarray(data + sign * 1e-5 * direction)
            net.set_state(state)
            values.append(net.forward(x=x))
        p.data[...] = net.backend.asarray(data)
        numeric = (values[0] - values[1]) / 2e-5
        assert float((diff * direction).sum()) == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_posteriors_and_closest_pictures(gpu, rng, monkeypatch):
    """Found for each image by gradient steps, in batches, with the same noise; all are recorded."""
    made, original = [], program.Recorded.__init__

    def noted(self, *args):
        original(self, *args)
        made.append(self)

    monkeypatch.setattr(program.Recorded, "__init__", noted)
    monkeypatch.setattr("layerkit.galaxy.model.posterior.refinement.BATCH", 3)
    layers = lk.load_net(GALAXY, pixels=30, hidden=7, latent=2)
    nets = [
        lk.Net(layers, 4, backend, seed=5, phase="test", dtype="float64")
        for backend in ("cupy", "numpy")
    ]
    for name, p in nets[1].params.items():
        p.data += 0.3 * rng.standard_normal(p.shape)
        nets[0].params[name].data[...] = nets[0].backend.asarray(p.data)
    models = [galaxy.GalaxyModel(net) for net in nets]
    images = rng.random((6, 30))
    for there, here in zip(*(galaxy.refine(m, images, 9) for m in models), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-6)
    there, here = (galaxy.closest(m, images, 9) for m in models)
    np.testing.assert_allclose(there, here, rtol=1e-6)
    assert len(made) == 2  # one for each, though both have two batches
    assert all(recorded._replay is not None for recorded in made)


def test_steps_on_numpy_are_steps():
    layers = with_galaxies(hidden=7, pixels=50)
    nets = [lk.Net(layers, 3, seed=3, kernels="array") for _ in range(2)]
    solvers = [lk.Adam(net) for net in nets]
    losses, reconstruction = [], []
    for _ in range(5):
        losses.append(solvers[1].step())
        reconstruction.append(nets[1].losses["reconstruction"])
    np.testing.assert_array_equal(solvers[0].steps(5), losses)
    np.testing.assert_array_equal(solvers[0].curves["reconstruction"], reconstruction)
    with pytest.raises(lk.errors.NetError, match=r"steps: count must be .* at least 1, got 0"):
        solvers[0].steps(0)


def test_no_warning_where_all_is_recorded(gpu):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lk.Adam(lk.Net(with_galaxies(hidden=5, pixels=30), 3, "cupy")).steps(4)


# Looking changes nothing, and an epoch of a test net ends with a short batch.


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_inference_between_passes_leaves_no_trace(gpu, kernels, rng):
    """Layers that draw their noise again for the backward pass find the right one."""
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("g", "x", units=5, neuron="tanh"),
        L.Dropout("kept", "g", ratio=0.4),
        L.Dense("m", "kept", units=3),
        L.Dense("v", "kept", units=3),
        L.Reparameterize("z", "m", "v"),
        L.Dense("y", "z", units=6),
        L.SquareLoss("loss", "y", "x"),
        L.GaussianKL("kl", "m", "v"),
    ]
    nets = [lk.Net(layers, 4, "cupy", seed=2, kernels=kernels) for _ in range(2)]
    solvers = [lk.Adam(net, 1e-2) for net in nets]
    x = rng.random((4, 6)).astype("float32")
    found = []
    for net, solver in zip(nets, solvers, strict=True):
        looks = net is nets[1]

        def look(net=net, looks=looks):
            if looks:
                np.testing.assert_array_equal(
                    net.infer("kept", x=x), net.infer("g", x=x), "phase 'test'"
                )
                net.infer(["z", "loss"], x=x[:3])

        losses = []
        for _ in range(3):
            look()
            losses += [*solver.steps(2, x=x), net.forward(x=x)]
            look()
            net.backward()
            look()
            losses.append(solver.step(x=x))
        found.append((losses, host(net, net.arena.data), host(net, net.arena.diff), net.state()))
    for some, other in zip(*found, strict=True):
        np.testing.assert_array_equal(some, other)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("data", ["resident", "in batches", "file"])
@pytest.mark.parametrize("repeat", [1, 3])
def test_an_epoch_of_a_test_net_ends_with_a_short_batch(
    gpu, data, repeat, kernels, monkeypatch, tmp_path
):
    values = np.arange(10 // repeat * 10, dtype="float32").reshape(-1, 10)
    if data == "in batches":
        monkeypatch.setattr(cuda_data, "SHARE", 0)
    if data == "file":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["images"] = np.repeat(values, repeat, axis=0)
        layer = L.HDF5Data("x", path=tmp_path / "x.h5", block=3, mixed=2)
    else:
        layer = L.MemoryData("x", data=values, repeat=repeat)
    layers = [layer, L.Input("t", shape=(10,)), L.SquareLoss("loss", "x", "t")]
    net = lk.Net([layer], 4, "cupy", kernels=kernels, phase="test")
    for _ in range(2):
        batches = []
        for _ in range(3):
            net.forward()
            batches.append(host(net, net.blobs["x"].data))
        count = len(values) * repeat
        assert [len(b) for b in batches] == [4, 4, count - 8]
        np.testing.assert_array_equal(np.concatenate(batches), np.repeat(values, repeat, axis=0))
    zero = L.MemoryData("t", data=np.zeros((count, 10)))
    means = lk.Net(
        lk.with_data([L.Input("t", shape=(10,)), *layers[:1], layers[2]], zero),
        4,
        "cupy",
        kernels=kernels,
        phase="test",
    ).evaluate()
    assert means["loss"] == pytest.approx(0.5 * (values**2).sum(axis=1).mean(), rel=1e-6)
    given = lk.Net([L.Input("x", shape=(10,)), *layers[1:]], 4, "cupy", kernels=kernels)
    zeros = np.zeros((count, 10))
    for x in (np.repeat(values, repeat, axis=0), given.backend.asarray(values.repeat(repeat, 0))):
        means = given.evaluate({"x": x, "t": zeros})
        assert means["loss"] == pytest.approx(0.5 * (values**2).sum(axis=1).mean(), rel=1e-6)


def test_steps_of_a_test_net_over_short_batches(gpu):
    layers = with_galaxies(count=7, hidden=7, pixels=50)
    nets = pair(layers, 4, 3, dtype="float64", phase="test", gradients="parameters")
    solvers = [lk.Adam(net, 1e-2) for net in nets]
    losses = [s.steps(7) for s in solvers]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert_same_training(solvers)
    assert nets[0].layers["x"].position == 4 * 4 + 3 * 3


def test_what_arrays_may_hold_on_a_gpu(gpu):
    net = lk.Net([L.Input("x", shape=(2,))], 2, "cupy")
    xp = net.xp
    for array in (
        np.ones((2, 2), ">f8"),
        np.ones((2, 2), "longdouble"),
        [[1, 1], [1, 1]],
        xp.ones((2, 2), "float64"),
        np.ones((2, 4))[:, ::-2],
        np.ones((2, 2), bool),
    ):
        net.forward(x=array)
        np.testing.assert_array_equal(host(net, net.blobs["x"].data), 1)
        if isinstance(array, np.ndarray) and not isinstance(array, xp.ndarray):
            held = lk.Net([L.MemoryData("d", data=array)], 2, "cupy")
            held.forward()
            np.testing.assert_array_equal(host(held, held.blobs["d"].data), 1)
    for array, word in (
        (np.ma.masked_equal(np.ones((2, 2)), 1), "masked"),
        (xp.ones((2, 2), "complex64"), "complex"),
        (np.array([[1, 2**24 + 1], [0, 0]]), "16777217"),
        (np.full((2, 2), 1e39), "too large"),
        (xp.asarray(np.array([[1, 2**24 + 1], [0, 0]])), "16777217"),
    ):
        with pytest.raises(lk.errors.NetError, match=word):
            net.forward(x=array)
