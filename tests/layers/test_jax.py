"""Every layer, and the whole galaxy net, against JAX: values and gradients in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
from cases import CASES

import layerkit as lk
from layerkit.backends import philox

jax = pytest.importorskip("jax", reason="jax, a dependency of the tests only, is not installed")
pytest.importorskip("jax.scipy.stats")  # which `import jax` leaves out
compiled = pytest.importorskip("quick_jax").compiled
jnp = jax.numpy

GALAXY_NET = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"


@pytest.fixture(autouse=True)
def _float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def assert_close(ours, theirs):
    """To 1e-9, relative to each number or, where it is small, to a thousandth of the largest."""
    theirs = np.asarray(theirs)
    assert theirs.dtype == np.float64
    largest = float(np.abs(theirs).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * max(1e-3, largest))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layer(case, rng):
    """Array code and kernels, in nets that are otherwise equal, against one JAX function."""
    arrays = case.draw(rng, rows=int(rng.integers(2, 6)))
    seed = int(rng.integers(2**40))
    kinds = ("array", "auto") if case.has_kernels else ("array",)
    nets = [case.net(rng, arrays, seed=seed, kernels=kernels) for kernels in kinds]
    values = [net.forward(**arrays) for net in nets]
    net, layer = nets[0], nets[0].layers["y"]
    # The objective, plus a random weighting of the tops so that each element counts by itself.
    weights = [rng.standard_normal(net.blobs[t].data.shape) for t in layer.tops]
    params = {name: p.data.copy() for name, p in layer.parameters.items()}
    noise = case.drawn(net)

    def objective(params, arrays):
        tops = case.jax(jax, params, *(arrays[a] for a in case.arguments), **noise)
        tops = tops if isinstance(tops, tuple) else (tops,)
        if layer.is_source:
            tops = tuple(jnp.resize(top, w.shape) for top, w in zip(tops, weights, strict=True))
        total = case.weight * tops[0].mean() if layer.is_loss else 0.0
        for name, p in layer.parameters.items():
            total += p.l1 * jnp.abs(params[name]).sum() + p.l2 / 2 * (params[name] ** 2).sum()
        weighted = sum((w * top).sum() for w, top in zip(weights, tops, strict=True))
        return total + weighted, (total, tops)

    differentiate = compiled(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))
    (_, (total, tops)), (dparams, darrays) = differentiate(params, arrays)
    for kernels, net, value in zip(kinds, nets, values, strict=True):
        print(f"kernels={kernels}")  # shown where something below fails
        layer = net.layers["y"]
        assert_close(value, np.float64(total))
        for name, top in zip(layer.tops, tops, strict=True):
            assert_close(net.blobs[name].data, top)
        if layer.is_metric:
            continue
        net.backward(**dict(zip(layer.tops, weights, strict=True)))
        for name, p in layer.parameters.items():
            assert_close(p.diff, dparams[name])
        for i, name in enumerate(case.arguments):
            if layer.differentiable(i):
                assert_close(net.blobs[name].diff, darrays[name])


def galaxy_objective(params, x, noise, kl_weight):
    """Section 3.1 of the paper, from its equations: minus the bound, a mean over the pictures."""

    def dense(name, x):
        return x @ params[f"{name}/weight"] + params[f"{name}/bias"]

    g = jax.nn.relu(dense("g2", jax.nn.relu(dense("g1", x))))
    mean, variance = dense("z_mean", g), jnp.exp(dense("z_log_variance", g))
    z = mean + jnp.sqrt(variance) * noise
    f = jax.nn.relu(dense("f2", jax.nn.relu(dense("f1", z))))
    x_mean = dense("x_mean", f)
    x_sd = jnp.sqrt(jnp.exp(dense("x_log_variance", f)) + 1 / (255**2 * 12))
    likelihood = jax.scipy.stats.norm.logpdf(x, x_mean, x_sd).sum(axis=1)
    kl = 0.5 * (mean**2 + variance - jnp.log(variance) - 1).sum(axis=1)
    return (kl_weight * kl - likelihood).mean()


@pytest.mark.parametrize("kernels", ["array", "auto"])
def test_galaxy_net(kernels, rng):
    pixels, latent, rows, kl_weight = 50, 3, 5, 0.6
    layers = lk.load_net(GALAXY_NET, pixels=pixels, hidden=16, latent=latent, kl_weight=kl_weight)
    net = lk.Net(
        layers,
        batch_size=rows,
        dtype="float64",
        seed=int(rng.integers(2**40)),
        gradients="all",
        kernels=kernels,
    )
    for p in net.params.values():  # biases too
        p.data[...] += rng.normal(scale=0.1, size=p.shape)
    x = rng.uniform(size=(rows, pixels))
    value = net.forward(x=x)
    net.backward()
    noise = philox.normal(np, (rows, latent), net.run.seed, philox.stream_of("z"), net.run.passes)
    params = {name: p.data for name, p in net.params.items()}
    differentiate = compiled(jax.value_and_grad(galaxy_objective, argnums=(0, 1)))
    expected, (dparams, dx) = differentiate(params, x, noise, kl_weight)
    assert math.isfinite(value)
    assert_close(value, np.float64(expected))
    assert_close(net.blobs["x"].diff, dx)
    assert set(dparams) == set(net.params)
    for name, p in net.params.items():
        assert_close(p.diff, dparams[name])
