"""Updates beyond one per step: accumulation, averages, hooks, gradients and apply, more solvers."""

import copy
import functools
import math
import pickle
import threading
from importlib.util import find_spec

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit import rates
from layerkit.errors import LayerkitError, NetError, NotFiniteError, SnapshotError

jax = pytest.importorskip("jax", reason="jax, a dependency of the tests only, is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
compiled = pytest.importorskip("quick_jax").compiled
jnp = jax.numpy

ROWS, STEPS = 6, 40
COMPILED = find_spec("layerkit.engines.cpu._cpu") is not None
COSINE = optax.cosine_decay_schedule(0.02, 30)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["array", "auto", "cupy"])
def engine(request):
    """Settings of a net for each engine; a GPU is the stand-in of cuda_host."""
    if request.param == "cupy":
        request.getfixturevalue("cupy_on_host")
        return {"backend": "cupy"}
    return {"kernels": request.param}


def regression(units=7):
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,)),
        L.Dense("h", "x", units=units, neuron="tanh", l2=0.01),
        L.Dense("y", "h", units=3),
        L.SquareLoss("loss", "y", "t"),
    ]


def make(dtype="float64", layers=None, **settings):
    return lk.Net(layers or regression(), ROWS, dtype=dtype, seed=3, **settings)


def host(net, array):
    return net.backend.to_host(array)


def values(net):
    return {name: host(net, p.data) for name, p in net.params.items()}


@compiled
@jax.grad
def gradient(params, x, t):
    """The gradient of the objective of `regression`, by JAX."""
    h = jnp.tanh(x @ params["h/weight"] + params["h/bias"])
    error = h @ params["y/weight"] + params["y/bias"] - t
    return 0.5 * (error**2).sum() / len(x) + 0.005 * (params["h/weight"] ** 2).sum()


@pytest.fixture
def batches(rng):
    w = rng.standard_normal((5, 3))
    x = rng.standard_normal((STEPS, ROWS, 5))
    return [{"x": a, "t": a @ w + 0.1 * rng.standard_normal((ROWS, 3))} for a in x]


compiled_update = functools.cache(lambda peer: compiled(peer.update))
made = functools.cache(lambda make_peer: make_peer())  # once for all engines


def follow(solver, peer, batches, grouped=1):
    """Steps of both from one start; the peer's by the mean gradient of so many batches."""
    net = solver.net
    params = {name: jnp.asarray(v) for name, v in values(net).items()}
    state, update = peer.init(params), compiled_update(peer)
    for first in range(0, len(batches), grouped):
        some = batches[first : first + grouped]
        for batch in some:
            solver.step(**batch)
        each = [gradient(params, **batch) for batch in some]
        mean = jax.tree.map(lambda *g: sum(g) / len(g), *each)
        updates, state = update(mean, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in values(net).items():
            np.testing.assert_allclose(value, params[name], rtol=1e-8, atol=1e-11, err_msg=name)
    return params


# Solvers.


@pytest.mark.parametrize(
    ("make_solver", "make_peer"),
    [
        (lk.AdamW, lambda: optax.adamw(1e-3, weight_decay=0.01)),
        (
            lambda net: lk.AdamW(
                net, rates.Cosine(0.02, 30), 0.8, 0.95, 1e-4, weight_decay=0.3, clip=0.5
            ),
            lambda: optax.chain(
                optax.clip_by_global_norm(0.5),
                optax.adamw(COSINE, 0.8, 0.95, 1e-4, weight_decay=0.3),
            ),
        ),
        (lk.RMSProp, lambda: optax.rmsprop(1e-3, eps_in_sqrt=False)),
        (
            lambda net: lk.RMSProp(net, 0.01, decay=0.6, epsilon=1e-3),
            lambda: optax.rmsprop(0.01, decay=0.6, eps=1e-3, eps_in_sqrt=False),
        ),
    ],
    ids=["AdamW", "AdamW's settings", "RMSProp", "RMSProp's settings"],
)
def test_solvers_follow_optax(engine, make_solver, make_peer, batches):
    follow(make_solver(make(**engine)), made(make_peer), batches[:25])


@pytest.mark.parametrize("units", [7, 15_000])
@pytest.mark.parametrize("solver", [lk.AdamW, lk.RMSProp])
def test_kernels_agree_with_array_code(solver, units, batches):
    """Also where Dense changes its weights by itself, without filling their diffs."""
    layers = regression(units)
    layers[2].l2 = 0.0
    ends = []
    for kernels in ("array", "auto"):
        net = make(layers=layers, kernels=kernels)
        training = solver(net, 1e-3)
        for batch in batches[:5]:
            training.step(**batch)
        ends.append(net.arena.data)
    assert bool(training.plan().updated) == (units > 7 and COMPILED)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-10, atol=1e-13)


def test_adam_is_adamw_without_decay(engine, batches):
    ends = []
    for make_solver in (lk.Adam, lambda net: lk.AdamW(net, weight_decay=0.0)):
        net = make("float32", **engine)
        solver = make_solver(net)
        for batch in batches[:5]:
            solver.step(**batch)
        ends.append(host(net, net.arena.data))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("solver", [lk.AdamW, lk.RMSProp])
def test_settings_that_the_dtype_cannot_hold(solver, batches):
    with pytest.raises(NetError, match=f"{solver.__name__}: epsilon must be at least"):
        solver(make("float32"), epsilon=1e-60).step(**batches[0])
    layers = [*regression()[:4], L.SquareLoss("loss", "y", "t", weight=1e200)]
    large = solver(make(layers=layers))
    with pytest.raises(NotFiniteError, match="gradient is too large"):
        large.step(**batches[0])


# Accumulation.


@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulated_steps_follow_the_mean_gradient(engine, clip, batches):
    solver = lk.Adam(make(**engine), 0.01, clip=clip, accumulate=4)
    peer = optax.adam(0.01)
    if clip:
        peer = optax.chain(optax.clip_by_global_norm(clip), peer)
    follow(solver, peer, batches[:20], 4)
    assert (solver.iteration, solver.accumulated) == (5, 0)


def test_accumulation_follows_that_of_optax(batches):
    """Parameters move with every third step, and the rate follows the number of updates."""
    net = make()
    solver = lk.SGD(net, rates.Exponential(0.05, 0.9), accumulate=3)
    inner = optax.sgd(lambda i: 0.05 * jnp.float64(0.9) ** i, momentum=0.9)
    peer = optax.MultiSteps(inner, 3, accumulator_dtype=jnp.float64)
    params = {name: jnp.asarray(v) for name, v in values(net).items()}
    state, update = peer.init(params), compiled(peer.update)
    for i, batch in enumerate(batches[:20]):
        solver.step(**batch)
        updates, state = update(gradient(params, **batch), state, params)
        params = optax.apply_updates(params, updates)
        assert (solver.iteration, solver.accumulated) == divmod(i + 1, 3)
        for name, value in values(net).items():
            np.testing.assert_allclose(value, params[name], rtol=1e-9, atol=1e-12)


def test_accumulation_equals_one_large_minibatch(batches):
    small, large = make(), lk.Net(regression(), 2 * ROWS, dtype="float64", seed=3)
    solvers = lk.Adam(small, accumulate=2), lk.Adam(large)
    for a, b in zip(batches[0:10:2], batches[1:10:2], strict=True):
        losses = [solvers[0].step(**batch) for batch in (a, b)]
        loss = solvers[1].step(**{k: np.concatenate([a[k], b[k]]) for k in a})
        assert np.mean(losses) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(small.arena.data, large.arena.data, rtol=1e-9, atol=1e-13)


def test_the_sum_is_in_the_order_of_the_steps(batches):
    net, found = make("float32"), []
    layer = lk.SGD(net, 1.0, momentum=0.0, accumulate=3)
    before = net.arena.data.copy()
    for batch in batches[:3]:
        net.forward(**batch)
        net.backward()
        found.append(net.arena.diff.copy())
    for batch in batches[:3]:
        layer.step(**batch)
    mean = ((found[0] + found[1]) + found[2]) * np.float32(1 / 3)
    np.testing.assert_array_equal(net.arena.data, before - mean)


def test_steps_that_fail_add_nothing(batches):
    net = make()
    solver = lk.SGD(net, 0.05, accumulate=2)
    solver.step(**batches[0])
    kept = solver.history["accumulated"].copy()
    with pytest.raises(NotFiniteError):
        solver.step(x=np.full((ROWS, 5), np.inf), t=batches[0]["t"])
    assert solver.accumulated == 1
    np.testing.assert_array_equal(solver.history["accumulated"], kept)
    other = make()
    its = lk.SGD(other, 0.05, accumulate=2)
    for batch in batches[:2]:
        its.step(**batch)
    solver.step(**batches[1])
    np.testing.assert_array_equal(net.arena.data, other.arena.data)


def test_frozen_parameters_stay_while_gradients_accumulate(batches):
    net = make()
    net.freeze("h/weight")
    before = values(net)
    solver = lk.AdamW(net, 0.1, accumulate=2, ema=0.5)
    for batch in batches[:6]:
        solver.step(**batch)
    for name, value in values(net).items():
        assert np.array_equal(value, before[name]) == (name == "h/weight")
    with solver.averaged():
        np.testing.assert_array_equal(net.params["h/weight"].data, before["h/weight"])


# Averages.


@pytest.mark.parametrize("solver", [lk.Adam, lk.SGD, lk.RMSProp])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_that_of_optax(engine, solver, accumulate, batches):
    net = make(**engine)
    training = solver(net, 0.01, ema=0.8, accumulate=accumulate)
    average = values(net)
    for batch in batches[:12]:
        before = training.iteration
        training.step(**batch)
        if training.iteration > before:
            average = optax.incremental_update(values(net), average, 1 - 0.8)
    kept = values(net)
    with training.averaged() as shown:
        assert shown is net
        for name, value in values(net).items():
            np.testing.assert_allclose(value, average[name], rtol=1e-9, atol=1e-13)
            assert not np.array_equal(value, kept[name])
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, kept[name])


def test_averages_on_a_gpu_are_recorded_with_the_step(cupy_on_host, batches):
    nets = [make(), make(backend="cupy")]
    solvers = [lk.Adam(net, 0.01, ema=0.9) for net in nets]
    for solver in solvers:
        solver.steps(6, **batches[0])
        with pytest.raises(NotFiniteError):
            solver.steps(3, x=np.full((ROWS, 5), np.nan), t=batches[0]["t"])
    averages = [host(s.net, s.history["average"]) for s in solvers]
    np.testing.assert_allclose(*averages, rtol=1e-9, atol=1e-13)


def test_an_average_in_its_block(tmp_path, batches):
    net = make()
    solver = lk.Adam(net, 0.05, ema=0.9)
    test = lk.Net(regression(), ROWS, dtype="float64", phase="test", share=net)
    net.params["y/bias"].data[...] = 0.5  # as a snapshot might, before the first step
    with solver.averaged():
        np.testing.assert_array_equal(net.params["y/bias"].data, 0.5)
    solver.step(**batches[0])
    first, moved = 0.5, net.params["y/bias"].data.copy()
    net.forward(**batches[0])
    with solver.averaged():
        np.testing.assert_allclose(net.params["y/bias"].data, 0.9 * first + 0.1 * moved)
        assert test.forward(**batches[1]) == net.forward(**batches[1])
        lk.save(tmp_path / "average.h5", net)
        for method in (solver.step, solver.gradients, lambda **batch: solver.steps(2, **batch)):
            with pytest.raises(NetError, match=r"average .* until the block .* has ended"):
                method(**batches[0])
        with pytest.raises(NetError, match="average"), solver.averaged():
            pass
        with pytest.raises(SnapshotError, match=r"save the net alone: .* average"):
            lk.save(tmp_path / "both.h5", net, solver)
    np.testing.assert_array_equal(net.params["y/bias"].data, moved)
    with pytest.raises(NetError, match="no forward pass"):
        net.backward()
    with pytest.raises(ZeroDivisionError), solver.averaged():
        raise ZeroDivisionError
    np.testing.assert_array_equal(net.params["y/bias"].data, moved)
    other = make()
    lk.load(tmp_path / "average.h5", other)
    np.testing.assert_allclose(other.params["y/bias"].data, 0.9 * first + 0.1 * moved)
    with pytest.raises(NetError, match=r"averaged: .*ema=0\.999"), lk.SGD(net).averaged():
        pass


def test_nothing_that_the_end_of_its_block_would_undo_is_done_to_an_average(tmp_path, batches):
    net = make()
    solver = lk.Adam(net, 0.05, ema=0.9)
    solver.steps(3, **batches[0])
    lk.save(tmp_path / "net.h5", net)
    lk.save_safetensors(tmp_path / "net.safetensors", net)
    sharing = lk.Net(regression(), ROWS, dtype="float64", share=net)
    others = lk.SGD(net, 0.1), lk.SGD(sharing, 0.1)
    kept = values(net)
    with solver.averaged():
        for other in others:
            with pytest.raises(NetError, match=r"average .* until the block .* has ended"):
                other.step(**batches[0])
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(NetError, match=r"Adam: cannot be copied: .* average"):
                way(solver)
        for shown in (net, sharing):
            for part in ({}, {"only": "y"}):
                with pytest.raises(SnapshotError, match=r"load: .* average"):
                    lk.load(tmp_path / "net.h5", shown, **part)
            with pytest.raises(SnapshotError, match=r"load_safetensors: .* average"):
                lk.load_safetensors(tmp_path / "net.safetensors", shown)
        averaged = copy.deepcopy(net)
        assert lk.SGD(averaged, 0.1).steps(2, **batches[0]).shape == (2,)
        saving = threading.Thread(target=lk.save, args=(tmp_path / "both.h5", net, solver))
        saving.start()
    saving.join()  # it has waited for the end of the block
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, kept[name])
    other = make()
    lk.load(tmp_path / "both.h5", other)
    for name, value in values(other).items():
        np.testing.assert_array_equal(value, kept[name])
    for trained in (*others, solver, copy.deepcopy(solver)):
        trained.step(**batches[0])


# Gradients and apply.


def test_gradients_and_apply_are_a_step(engine, batches):
    nets = [make(**engine) for _ in range(2)]
    one, other = [lk.Adam(net, 0.01, clip=1.0, accumulate=2, ema=0.9) for net in nets]
    for batch in batches[:6]:
        loss = one.step(**batch)
        assert other.gradients(**batch) == pytest.approx(loss, rel=1e-12)
        other.apply()
    assert (one.iteration, one.accumulated) == (other.iteration, other.accumulated) == (3, 0)
    for name, value in values(nets[0]).items():
        np.testing.assert_allclose(values(nets[1])[name], value, rtol=1e-9, atol=1e-13)
    for name, array in one.history.items():
        if name != "accumulated":
            found = host(nets[1], other.history[name])
            np.testing.assert_allclose(found, host(nets[0], array), rtol=1e-9, atol=1e-13)


def test_gradients_that_accumulate_are_those_that_apply_is_given(batches, tmp_path):
    """Each as it was changed, mixed with whole steps, and resumed in the middle."""
    net, other = make(), make()
    solver = lk.SGD(net, 0.1, momentum=0.0, accumulate=3)
    before, counts, each = values(net), [], []
    for i, batch in enumerate(batches[:3]):
        each.append({k: np.array(g) for k, g in gradient(before, **batch).items()})
        if i == 1:
            solver.step(**batch)
        else:
            solver.gradients(**batch)
            net.params["h/weight"].diff[...] *= i + 2
            each[-1]["h/weight"] *= i + 2
            solver.apply()
        counts.append((solver.iteration, solver.accumulated))
        if i < 2:
            for name, value in values(net).items():
                np.testing.assert_array_equal(value, before[name])
        lk.save(tmp_path / "net.h5", net, solver)
        net = other if i == 0 else net
        solver = lk.SGD(net, 0.1, momentum=0.0, accumulate=3) if i == 0 else solver
        lk.load(tmp_path / "net.h5", net, solver)
    assert counts == [(0, 1), (0, 2), (1, 0)]
    for name, value in values(net).items():
        mean = sum(g[name] for g in each) / 3
        np.testing.assert_allclose(value, before[name] - 0.1 * mean, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(host(net, net.params[name].diff), mean, rtol=1e-9, atol=1e-13)


def test_gradients_may_be_looked_at_and_changed(batches):
    net = make()
    solver = lk.SGD(net, 0.1, momentum=0.0)
    before = values(net)
    solver.gradients(**batches[0])
    expected = gradient(before, **batches[0])
    for name, p in net.params.items():
        np.testing.assert_allclose(p.diff, expected[name], rtol=1e-9, atol=1e-12)
    net.params["y/weight"].diff[...] *= 0.5
    solver.apply()
    for name, value in values(net).items():
        share = 0.05 if name == "y/weight" else 0.1
        np.testing.assert_allclose(value, before[name] - share * expected[name], atol=1e-12)


def test_a_gradient_is_applied_once(tmp_path, batches):
    net = make()
    solver = lk.SGD(net)
    lk.save(tmp_path / "net.h5", net)

    def refused():
        before = net.arena.data.copy()
        with pytest.raises(NetError, match="no gradient that has not been applied"):
            solver.apply()
        np.testing.assert_array_equal(net.arena.data, before)

    refused()
    net.forward(**batches[0])
    refused()
    net.backward()
    solver.apply()
    refused()
    solver.gradients(**batches[0])
    solver.step(**batches[0])
    refused()
    solver.gradients(**batches[0])
    lk.load(tmp_path / "net.h5", net)
    refused()
    solver.gradients(**batches[0])
    net.params["h/weight"].diff[1, 2] = np.nan
    before = net.arena.data.copy()
    with pytest.raises(NotFiniteError, match="gradient is not finite at iteration 2: first in"):
        solver.apply()
    np.testing.assert_array_equal(net.arena.data, before)
    assert solver.iteration == 2


def test_a_rate_that_is_none_changes_nothing(batches):
    net = make()
    solver = lk.SGD(net, lambda i: math.nan)
    solver.gradients(**batches[0])
    before = net.arena.data.copy()
    with pytest.raises(NetError, match="rate: at iteration 0"):
        solver.apply()
    np.testing.assert_array_equal(net.arena.data, before)
    solver.rate = 0.1
    solver.apply()
    assert not np.array_equal(net.arena.data, before)


def test_a_generator_learns_from_a_discriminator(engine, rng):
    """Its net has no loss; derivatives by what it makes come from another net."""
    z, real = rng.standard_normal((ROWS, 2)), rng.standard_normal((ROWS, 3))
    generator = make(layers=[L.Input("z", shape=(2,)), L.Dense("image", "z", units=3)], **engine)
    judge = [
        L.Input("image", shape=(3,)),
        L.Input("t", shape=(1,)),
        L.Dense("score", "image", units=1, weight="normal"),
        L.BinaryCrossEntropy("loss", "score", "t"),
    ]
    discriminator = make(layers=judge, gradients="all", **engine)
    solvers = lk.SGD(generator, 0.1), lk.SGD(discriminator, 0.1)
    start = {**values(generator), **values(discriminator)}

    def loss(params):
        image = z @ params["image/weight"] + params["image/bias"]
        score = image @ params["score/weight"] + params["score/bias"]
        return jnp.log1p(jnp.exp(-score)).mean()

    generator.forward(z=z)
    discriminator.forward(image=host(generator, generator.blobs["image"].data), t=np.ones(ROWS))
    discriminator.backward()
    generator.backward(image=discriminator.blobs["image"].diff)
    solvers[0].apply()
    expected = jax.grad(loss)(start)
    for name, value in values(generator).items():
        np.testing.assert_allclose(value, start[name] - 0.1 * expected[name], atol=1e-12)
    for name, value in values(discriminator).items():
        np.testing.assert_array_equal(value, start[name])
    solvers[1].step(image=real, t=np.ones(ROWS))
    for method in (solvers[0].step, solvers[0].gradients, lambda **z: solvers[0].steps(2, **z)):
        with pytest.raises(NetError, match=r"no loss layer.*net\.backward\(blob=diff\)"):
            method(z=z)


# Hooks.


def test_hooks_see_and_change_the_gradient(engine, batches):
    nets = [make(**engine) for _ in range(2)]
    one, other = [lk.Adam(net, 0.01, clip=0.5) for net in nets]
    seen = []

    def halve(solver):
        assert solver is one
        seen.append(solver.iteration)
        solver.net.params["h/weight"].diff[...] *= 0.5

    one.hooks.append(halve)
    for batch in batches[:3]:
        one.step(**batch)
        other.gradients(**batch)
        nets[1].params["h/weight"].diff[...] *= 0.5
        other.apply()
    one.hooks.clear()
    losses = one.steps(3, **batches[3])
    np.testing.assert_allclose(other.steps(3, **batches[3]), losses, rtol=1e-9)
    assert seen == [0, 1, 2]
    for name, value in values(nets[0]).items():
        np.testing.assert_allclose(values(nets[1])[name], value, rtol=1e-9, atol=1e-13)


def test_hooks_come_with_updates_only(batches):
    net, seen = make(), []
    solver = lk.SGD(net, 0.01, accumulate=3)
    solver.hooks.append(lambda s: seen.append(net.params["y/bias"].diff.copy()))
    each = []
    for batch in batches[:3]:
        net.forward(**batch)
        net.backward()
        each.append(net.params["y/bias"].diff.copy())
    for batch in batches[:3]:
        solver.step(**batch)
    np.testing.assert_allclose(seen, [np.mean(each, axis=0)], rtol=1e-12)


def test_hooks_make_no_step_and_save_none(tmp_path, batches):
    """The state amid a step is none that training has been in."""
    net = make()
    solver, other = lk.Adam(net, 0.01), lk.SGD(net, 0.1)
    solver.step(**batches[0])
    before, state = values(net), net.state()
    for call in (
        lambda s: s.step(**batches[1]),
        lambda s: s.steps(2, **batches[1]),
        lambda s: other.step(**batches[1]),
        lambda s: other.gradients(**batches[1]),
        lambda s: s.apply(),
        lambda s: lk.save(tmp_path / "amid.h5", net, solver),
        copy.deepcopy,
    ):
        solver.hooks = [call]
        with pytest.raises(LayerkitError, match=r"in the middle of a step of this net.*hooks"):
            solver.step(**batches[1])
        assert (net.state(), solver.iteration) == (state, 1)
        assert all(np.array_equal(before[name], value) for name, value in values(net).items())
    apart = lk.SGD(make(), 0.1)
    solver.hooks = [lambda s: apart.step(**batches[1])]  # of another net
    solver.step(**batches[1])
    assert (solver.iteration, apart.iteration) == (2, 1)


@pytest.mark.parametrize("hooks", [print, None, (print,), [print, 3], "print"])
def test_hooks_are_a_list_of_functions(hooks, batches):
    solver = lk.Adam(make(), 0.01)
    with pytest.raises(NetError, match="hooks must be a list of functions"):
        solver.hooks = hooks
    solver.hooks.append(3)
    with pytest.raises(NetError, match=r"hooks must be a list of functions.* hold 3"):
        solver.step(**batches[0])
    assert solver.iteration == 0


def test_hooks_that_fail_leave_the_step_unmade(batches):
    net = make()
    solver = lk.SGD(net, 0.01, accumulate=2)
    solver.step(**batches[0])
    before, state = net.arena.data.copy(), net.state()

    def fail(solver):
        solver.net.params["h/bias"].diff[...] = np.inf
        if len(solver.hooks) == 2:
            raise ZeroDivisionError

    solver.hooks += [fail, print]
    with pytest.raises(ZeroDivisionError):
        solver.step(**batches[1])
    assert (net.state(), solver.accumulated) == (state, 1)
    solver.hooks.pop()
    with pytest.raises(NotFiniteError):
        solver.step(**batches[1])
    np.testing.assert_array_equal(net.arena.data, before)
    assert (solver.iteration, solver.accumulated) == (0, 1)


# Plateaus.


def test_plateaus_follow_optax(rng):
    """The same rates after each of many measures, in plateaus, noise and falls."""
    for settings in (
        {"patience": 3},
        {"patience": 2, "factor": 0.5, "cooldown": 2, "least": 0.01},
        {"patience": 1, "factor": 0.7, "tolerance": 0.05},
    ):
        policy = rates.Plateau(0.1, **settings)
        names = {"tolerance": "rtol"}
        least = settings.pop("least", 0.0)
        its = {names.get(k, k): v for k, v in settings.items()}
        peer = optax.contrib.reduce_on_plateau(**{"factor": 0.1, **its}, min_scale=least / 0.1)
        state, update = peer.init({"w": jnp.zeros(1)}), compiled(peer.update)
        measures = np.repeat(3 * 0.9 ** np.arange(12), 5) + 0.01 * rng.standard_normal(60)
        for i, value in enumerate([*measures, np.nan, *measures[:5]]):
            policy.observe(value)
            updates, state = update({"w": jnp.ones(1)}, state, value=value)
            assert policy(i) == pytest.approx(0.1 * float(updates["w"][0]), rel=1e-12), i
        assert policy(0) < 0.1


@pytest.mark.parametrize("value", ["0.1", None, [1.0], True, 1j])
def test_plateaus_take_numbers(value):
    policy = rates.Plateau(0.1, patience=1)
    with pytest.raises(NetError, match="observe takes a number"):
        policy.observe(value)
    assert policy.state() == rates.Plateau(0.1).state()


# Snapshots.


SETTINGS = {
    "AdamW": lambda net: lk.AdamW(net, 0.01, accumulate=3, ema=0.9, clip=1.0),
    "RMSProp": lambda net: lk.RMSProp(net, 0.01, ema=0.9),
    "SGD": lambda net: lk.SGD(net, 0.01, accumulate=2),
    "plateau": lambda net: lk.Nesterov(
        net, rates.WarmUp(rates.Plateau(0.01, 0.5, patience=2), 5), accumulate=2
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("stop", [4, 5])
def test_a_resumed_run_continues_bit_for_bit(engine, kind, stop, tmp_path, batches):
    def run(solver, some):
        for batch in some:
            loss = solver.step(**batch)
            if kind == "plateau":
                solver.rate.policy.observe(max(loss, 1.0))

    path, ends = tmp_path / "run.h5", []
    net = make("float32", **engine)
    solver = SETTINGS[kind](net)
    run(solver, batches[:stop])
    lk.save(path, net, solver)
    run(solver, batches[stop:12])
    other = lk.Net(regression(), ROWS, seed=8, **engine)
    its = SETTINGS[kind](other)
    run(its, batches[:1])
    lk.load(path, other, its)
    run(its, batches[stop:12])
    assert its.state() == solver.state()
    if kind == "plateau":
        assert 0 < solver.rate.policy(0) < 0.01
    for a, b in zip((net, *solver.history.values()), (other, *its.history.values()), strict=True):
        ends = [x.arena.data if isinstance(x, lk.Net) else x for x in (a, b)]
        np.testing.assert_array_equal(*[host(net, x) for x in ends])


def test_snapshots_of_solvers_with_other_settings_are_refused(tmp_path, batches):
    path = tmp_path / "run.h5"
    net = make()
    solver = lk.SGD(net, accumulate=4)
    for batch in batches[:3]:
        solver.step(**batch)
    lk.save(path, net, solver)
    for settings in ({}, {"ema": 0.5}, {"accumulate": 4, "ema": 0.5}):
        with pytest.raises(SnapshotError, match=r"'accumulated'.*accumulate=, ema="):
            lk.load(path, net, lk.SGD(net, **settings))
    other = lk.SGD(net, accumulate=3)
    before = net.arena.data.copy()
    with pytest.raises(SnapshotError, match=r"3 gradients are kept .* after 3"):
        lk.load(path, net, other)
    assert other.state() == lk.SGD(net).state()
    np.testing.assert_array_equal(net.arena.data, before)


@pytest.mark.parametrize(
    "state",
    [
        None,
        {"accumulated": -1},
        {"accumulated": 2},
        {"accumulated": "1"},
        {"iteration": 1.5},
        {"rate": 3},
        {"rate": {"now": -1}},
        {"rate": {"now": "0.1"}},
        {"rate": {"waited": 1.5}},
        {"rate": {"best": float("nan")}},
    ],
)
def test_states_that_are_none_change_nothing(state):
    solver = lk.SGD(make(), rates.Plateau(0.1), accumulate=2)
    before = solver.state()
    with pytest.raises(NetError):
        solver.set_state(state)
    assert solver.state() == before


def test_profiles_leave_no_trace(batches):
    nets = [make(), make()]
    one, other = [lk.Adam(net, 0.01, accumulate=3, ema=0.9) for net in nets]
    for solver in (one, other):
        solver.step(**batches[0])
    one.profile(3, **batches[0])
    assert one.state() == other.state()
    for solver in (one, other):
        for batch in batches[1:6]:
            solver.step(**batch)
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)


class Own(lk.Solver):
    """A solver of a user's own, in array code."""

    histories = ("last",)

    def update(self, w, g, rate, *, last):
        last[...] = g
        w -= rate * g


def test_solvers_of_ones_own_accumulate_and_average(engine, batches):
    solver = Own(make(**engine), 0.1, accumulate=2, ema=0.9)
    follow(solver, optax.sgd(0.1), batches[:8], 2)
    assert {*solver.history} == {"last", "accumulated", "average"}
