"""BatchNorm's running estimates: what moves them, who sees them, and that they are never lost."""

import cuda_host
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError, SnapshotError

KERNELS = pytest.mark.parametrize("kernels", ["array", "auto"])


def net_of(rows=6, shape=(3, 2, 2), seed=1, **settings):
    layers = [
        L.Input("x", shape=shape),
        L.BatchNorm("n", "x"),
        L.Dense("y", "n", units=2),
        L.SquareLoss("loss", "y", "t"),
        L.Input("t", shape=(2,)),
    ]
    return lk.Net(layers, rows, seed=seed, dtype="float64", **settings)


def inputs_of(rng, rows=6, shape=(3, 2, 2)):
    return {"x": rng.normal(2.0, 3.0, (rows, *shape)), "t": rng.standard_normal((rows, 2))}


def statistics_of(net):
    return {name: net.backend.to_host(statistic.data) for name, statistic in net.statistics.items()}


def assert_equal(some, others):
    assert some.keys() == others.keys()
    for name in some:
        np.testing.assert_array_equal(some[name], others[name], name)


@KERNELS
def test_running_estimates_follow_the_batches(kernels, rng):
    net, mean, variance = net_of(kernels=kernels), np.zeros(3), np.ones(3)
    assert_equal(statistics_of(net), {"n/mean": mean, "n/variance": variance})
    for rows in (6, 6, 4):
        inputs = inputs_of(rng, rows)
        net.forward(**inputs)
        channels = inputs["x"].swapaxes(0, 1).reshape(3, -1)
        mean = 0.9 * mean + 0.1 * channels.mean(axis=1)
        variance = 0.9 * variance + 0.1 * channels.var(axis=1, ddof=1)
        np.testing.assert_allclose(net.statistics["n/mean"].data, mean, rtol=1e-12)
        np.testing.assert_allclose(net.statistics["n/variance"].data, variance, rtol=1e-12)


def test_test_phase_and_inference_use_them_and_leave_them_alone(rng):
    net = net_of()
    for _ in range(20):
        net.forward(**inputs_of(rng))
    before, inputs = statistics_of(net), inputs_of(rng)
    mean, variance = (before[f"n/{name}"][:, None, None] for name in ("mean", "variance"))
    expected = (inputs["x"] - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(net.infer("n", x=inputs["x"]), expected, rtol=1e-12)
    # One example alone has the values that it has among others.
    np.testing.assert_allclose(net.infer("n", x=inputs["x"][:1]), expected[:1], rtol=1e-12)
    test = net_of(phase="test", share=net)
    test.forward(**inputs)
    np.testing.assert_allclose(test.blobs["n"].data, expected, rtol=1e-12)
    assert_equal(statistics_of(net), before)
    frozen = lk.Net([L.Input("x", shape=(3, 2, 2)), L.BatchNorm("n", "x", frozen=True)], 6)
    before = statistics_of(frozen)
    frozen.forward(x=inputs["x"])
    assert_equal(statistics_of(frozen), before)


def test_nets_that_share_parameters_share_them(rng):
    net = net_of()
    other = net_of(seed=2, share=net)
    other.forward(**inputs_of(rng))
    assert np.abs(net.statistics["n/mean"].data).min() > 0
    assert_equal(statistics_of(net), statistics_of(other))
    layers = [L.Input("x", shape=(3, 2, 2)), L.BatchNorm("m", "x", gain=None, bias=None)]
    with pytest.raises(NetError, match=r"share: statistic 'm/mean' of shape \(3,\) is not in"):
        lk.Net(layers, dtype="float64", share=net)
    apart = net.rebuild(dtype="float32")
    np.testing.assert_array_equal(
        apart.statistics["n/mean"].data, net.statistics["n/mean"].data.astype("float32")
    )
    apart.forward(**inputs_of(rng))
    assert_equal(statistics_of(net), statistics_of(other))


def test_they_are_not_learned(rng):
    net = net_of()
    assert list(net.params) == ["n/gain", "n/bias", "y/weight", "y/bias"]
    net.freeze("n*")
    net.unfreeze("*")
    with pytest.raises(NetError, match="no parameter matches 'n/mean'"):
        net.unfreeze("n/mean")
    net.forward(**inputs_of(rng))
    before = statistics_of(net)
    net.backward()
    assert_equal(statistics_of(net), before)


@KERNELS
def test_snapshots_have_them(kernels, rng, tmp_path):
    batches = [inputs_of(rng) for _ in range(8)]
    net = net_of(kernels=kernels)
    solver = lk.Adam(net, rate=1e-2)
    for batch in batches[:4]:
        solver.step(**batch)
    lk.save(tmp_path / "net.h5", net, solver)
    resumed = net_of(kernels=kernels, seed=5)
    again = lk.Adam(resumed, rate=1e-2)
    lk.load(tmp_path / "net.h5", resumed, again)
    assert_equal(statistics_of(net), statistics_of(resumed))
    for batch in batches[4:]:
        assert solver.step(**batch) == again.step(**batch)
    assert_equal(statistics_of(net), statistics_of(resumed))
    np.testing.assert_array_equal(net.arena.data, resumed.arena.data)


def test_snapshots_of_nets_that_measure_something_else_are_refused(rng, tmp_path):
    plain = {"gain": None, "bias": None}
    net, other = (
        lk.Net([L.Input("x", shape=(3,)), layer, L.Dense("y", "n", units=2)])
        for layer in (L.BatchNorm("n", "x", **plain), L.LayerNorm("n", "x", **plain))
    )
    lk.save(tmp_path / "net.h5", net)
    lk.save(tmp_path / "less.h5", other)
    with pytest.raises(SnapshotError, match=r"statistic 'n/mean' has shape none there, and \(3,\)"):
        lk.load(tmp_path / "less.h5", net)
    with pytest.raises(SnapshotError, match=r"statistic 'n/mean' has shape \(3,\) there, and none"):
        lk.load(tmp_path / "net.h5", other)


def test_a_profile_puts_them_back(rng):
    net = net_of()
    solver, inputs = lk.Adam(net), inputs_of(rng)
    solver.step(**inputs)
    before = statistics_of(net)
    solver.profile(iterations=2, **inputs)
    assert_equal(statistics_of(net), before)


def test_batches_that_are_not_finite_leave_them_alone(rng):
    net, inputs = net_of(), inputs_of(rng)
    net.forward(**inputs)
    before = statistics_of(net)
    inputs["x"][2, 1] = np.nan
    net.forward(**inputs)
    now = statistics_of(net)
    for name in before:
        assert now[name][1] == before[name][1]
        assert (now[name][[0, 2]] != before[name][[0, 2]]).all()


def test_a_batch_of_one_number_for_each_channel_is_refused_in_training(rng):
    layers = [L.Input("x", shape=(4,)), L.BatchNorm("n", "x")]
    net = lk.Net(layers, 3)
    with pytest.raises(NetError, match=r"layer 'n' .*give more rows"):
        net.forward(x=np.ones((1, 4)))
    assert net.infer("n", x=np.ones((1, 4))).shape == (1, 4)


def test_inference_between_the_passes_leaves_the_gradient_alone(rng):
    net, twin = net_of(), net_of()
    inputs = inputs_of(rng)
    for one in (net, twin):
        one.forward(**inputs)
    net.infer("n", x=inputs_of(rng)["x"])
    for one in (net, twin):
        one.backward()
    np.testing.assert_array_equal(net.arena.diff, twin.arena.diff)


def test_units_get_mean_0_and_variance_1(rng):
    x = rng.normal(5.0, 2.0, (50, 4))
    net = lk.Net([L.Input("x", shape=(4,)), L.BatchNorm("n", "x")], 50, dtype="float64")
    net.forward(x=x)
    np.testing.assert_allclose(net.blobs["n"].data.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(net.blobs["n"].data.var(axis=0), 1, rtol=1e-4)
    report = lk.check_gradients(net, x=x[:5])
    assert set(report.errors) == {"input x", "n/gain", "n/bias"}


@pytest.mark.skipif(bool(cuda_host.missing()), reason=str(cuda_host.missing()))
def test_recorded_steps_of_a_gpu_move_them_as_well(rng):
    data, targets = rng.normal(1.0, 2.0, (12, 3, 2, 2)), rng.standard_normal((12, 2))
    layers = [
        L.MemoryData("x", data=data, tops="x", shuffle=False),
        L.MemoryData("t", data=targets, tops="t", shuffle=False),
        L.BatchNorm("n", "x"),
        L.Dense("y", "n", units=2),
        L.SquareLoss("loss", "y", "t"),
    ]
    here = lk.Net(layers, 4, dtype="float64", kernels="array")
    with cuda_host.installed(seed=3):
        there = lk.Net(layers, 4, dtype="float64", backend="cupy")
        assert there.runners["n"].recordable
        losses = [lk.SGD(net, rate=0.05).steps(5) for net in (here, there)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-10)
        for name, values in statistics_of(there).items():
            np.testing.assert_allclose(values, here.statistics[name].data, rtol=1e-10)


SHAPES = {
    "channels": (lambda: L.BatchNorm("n", "x", **AFFINE), (5, 9, 11)),
    "many units": (lambda: L.BatchNorm("n", "x", **AFFINE), (150,)),
    "steps": (lambda: L.BatchNorm("n", "x", axis=-1, gain=None, bias=0.3), (7, 70)),
    "middle": (lambda: L.BatchNorm("n", "x", axis=1, bias=None, gain=AFFINE["gain"]), (3, 4, 5)),
    "frozen": (lambda: L.BatchNorm("n", "x", frozen=True, **AFFINE), (3, 41)),
    "frozen units": (lambda: L.BatchNorm("n", "x", frozen=True, **AFFINE), (65,)),
    "last axis": (lambda: L.LayerNorm("n", "x", **AFFINE), (6, 150)),
    "no gain": (lambda: L.LayerNorm("n", "x", gain=None), (3, 67)),
    "plain": (lambda: L.LayerNorm("n", "x", gain=None, bias=None, axis=0), (5, 9, 101)),
    "groups": (lambda: L.GroupNorm("n", "x", groups=3, **AFFINE), (6, 9, 11)),
    "groups of units": (lambda: L.GroupNorm("n", "x", groups=2, **AFFINE), (134,)),
    "groups without gain": (lambda: L.GroupNorm("n", "x", groups=2, gain=None), (4, 3, 3)),
}
AFFINE = {"gain": lk.initializers.Normal(0.5, 1.0), "bias": lk.initializers.Normal(1.0)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_kernels_do_what_array_code_does(name, dtype, rng):
    make, shape = SHAPES[name]
    layers = [L.Input("x", shape=shape), make()]
    nets = [
        lk.Net(layers, 9, dtype=dtype, seed=3, gradients="all", kernels=kernels)
        for kernels in ("auto", "array")
    ]
    if nets[0].engine.name == "array":
        pytest.skip("the compiled engine was not built")
    tolerance = (
        {"rtol": 2e-4, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-10}
    )
    for rows in (9, 4, 2):
        x, dy = rng.normal(3.0, 2.0, (2, rows, *shape))
        for net in nets:
            net.forward(x=x)
            net.backward(n=dy)
        there, here = nets
        np.testing.assert_allclose(there.blobs["n"].data, here.blobs["n"].data, **tolerance)
        np.testing.assert_allclose(there.blobs["x"].diff, here.blobs["x"].diff, **tolerance)
        for key, p in here.params.items():
            scale = np.abs(p.diff).max() + 1
            np.testing.assert_allclose(there.params[key].diff / scale, p.diff / scale, **tolerance)
        for key, s in here.statistics.items():
            np.testing.assert_allclose(there.statistics[key].data, s.data, **tolerance)


def test_the_phase_can_change_between_passes(rng):
    """A recorded pass of one phase is not made again in the other."""
    nets = [net_of(kernels=kernels) for kernels in ("auto", "array")]
    inputs = inputs_of(rng)
    for training in (True, True, False, True, False):
        for net in nets:
            net.run.training = training
            net.forward(**inputs)
            net.backward()
        np.testing.assert_allclose(nets[0].arena.diff, nets[1].arena.diff, rtol=1e-9, atol=1e-12)
        for name, s in nets[1].statistics.items():
            np.testing.assert_allclose(nets[0].statistics[name].data, s.data, rtol=1e-10)
