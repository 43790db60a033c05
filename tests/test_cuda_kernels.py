"""Every layer on the CuPy backend, by the stand-in of tests/cuda_host: CUDA kernels, where a layer
has any, and its array code on CuPy, against the array code on NumPy."""

import dataclasses
import re

import cuda_host
import numpy as np
import pytest
from cases import CASES
from cuda_host import KernelError, module

import layerkit as lk
from layerkit import layers as L
from layerkit.layer import KERNELS

TOLERANCE = {"float32": {"rtol": 3e-5, "atol": 3e-6}, "float64": {"rtol": 1e-11, "atol": 1e-12}}
ROWS = (1, 3, 33, 300)  # 300 is more than a block has threads
GALAXY = "nets/galaxy_gdae.py"


def has_cuda(case):
    """Whether a layer has kernels of its own for the GPU."""
    return any(hasattr(case.layer(), f"{name}_cuda") for name in KERNELS)


def wide(case):
    """The case with examples of more elements than a block has threads."""
    bottoms = {
        name: dataclasses.replace(bottom, shape=bottom.shape or (333,))
        for name, bottom in case.bottoms.items()
    }
    return dataclasses.replace(case, bottoms=bottoms)


def poison(net):
    """Leaves NaN wherever a pass should write."""
    for blob in net.blobs.values():
        blob._data.fill(np.nan)
        if blob._diff is not None:
            blob._diff.fill(np.nan)
    for p in net.params.values():
        p.diff.fill(np.nan)
    for layer in net.layers.values():
        for buffer in layer.buffers:
            if buffer._data.dtype.kind == "f":
                buffer._data.fill(np.nan)


def on_host(net, array):
    return None if array is None else net.backend.to_host(array)


def run(net, case, arrays, weights, passes):
    """What the passes leave behind: the objective and all arrays, by name."""
    poison(net)
    for _ in range(passes):
        objective = net.forward(**{n: a for n, a in arrays.items() if n in net.blobs})
        net.backward(**{
            n: w for n, w in weights.items() if net.blobs[n].diff is not None
        })
    found = {"objective": np.array(objective)}
    layer = net.layers["y"]
    for name in layer.tops:
        found[name] = on_host(net, net.blobs[name].data)
    for i, name in enumerate(layer.bottoms):
        if layer.differentiable(i):
            found[f"d {name}"] = on_host(net, net.blobs[name].diff)
    for name, p in net.params.items():
        found[f"d {name}"] = on_host(net, p.diff)
    return found


def assert_alike(found, expected, dtype):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        size = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(
            found[name] / size, value / size, err_msg=name, **TOLERANCE[dtype]
        )


def compare(case, rng, rows, dtype, capacity=None):
    """The case on both backends with the same numbers; returns the net on the GPU."""
    arrays = case.draw(rng, rows)
    seed = int(rng.integers(2**31))
    nets = [
        case.net(
            rng, arrays, backend=backend, kernels=kernels, dtype=dtype, seed=seed,
            batch_size=capacity or rows,
        )
        for backend, kernels in (("numpy", "array"), ("cupy", "auto"))
    ]
    for name, p in nets[0].params.items():
        np.testing.assert_array_equal(on_host(nets[1], nets[1].params[name].data), p.data)
    weights = {
        top: rng.standard_normal((capacity or rows if case.layer().is_source else rows,
                                  *nets[0].blobs[top].shape))
        for top in nets[0].layers["y"].tops
    }
    expected, found = (run(net, case, arrays, weights, passes=2) for net in nets)
    assert_alike(found, expected, dtype)
    return nets[1]


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
with_cuda = pytest.mark.parametrize(
    "case", [case for case in CASES if has_cuda(case)], ids=lambda case: case.id
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_case
def test_every_layer_agrees_with_its_array_code_on_numpy(case, dtype, cupy_on_host, rng):
    for rows in ROWS:
        compare(case, rng, rows, dtype)
    compare(case, rng, 5, dtype, capacity=9)
    if has_cuda(case):
        assert cuda_host.launches(), "its kernels were not used"


@with_cuda
def test_examples_of_more_elements_than_a_block_has_threads(case, cupy_on_host, rng):
    for rows in (1, 3):
        compare(wide(case), rng, rows, "float32")


@pytest.fixture
def mutate(monkeypatch):
    """Makes every source that is compiled pass through a substitution; counts those changed."""
    original, changed = module.RawModule.__init__, []

    def plant(pattern, replacement):
        def made(self, *, code, **settings):
            other = re.sub(pattern, replacement, code)
            changed.extend([code] * (other != code))
            original(self, code=other, **settings)

        monkeypatch.setattr(module.RawModule, "__init__", made)
        return changed

    return plant


@with_cuda
def test_one_element_too_many_is_seen(case, cupy_on_host, mutate, rng):
    changed = mutate(r"if \((i|row|j|column) < (\w+)\)", r"if (\1 <= \2)")
    try:
        compare(case, rng, 3, "float32")
    except (KernelError, AssertionError):
        return
    if changed:
        pytest.fail("a kernel that goes one element too far was not noticed")
    pytest.skip("the layer's kernels have no guard of this form")


def small_vae():
    return lk.load_net(GALAXY, pixels=144, hidden=33, latent=3)


def trained(backend, make_solver, data, steps, **settings):
    source = L.MemoryData("x", data=data, augment="dihedral", scale=1 / 255)
    net = lk.Net(
        lk.with_data(small_vae(), source), batch_size=6, seed=4, dtype="float64", backend=backend,
        **settings,
    )
    solver = make_solver(net)
    losses = [solver.step() for _ in range(steps)]
    return losses, {name: on_host(net, p.data) for name, p in net.params.items()}


@pytest.mark.parametrize(
    "make_solver",
    [
        lambda net: lk.Adam(net, 1e-3), lambda net: lk.Adam(net, 1e-3, clip=0.5),
        lambda net: lk.SGD(net, 1e-6), lambda net: lk.Nesterov(net, 1e-6, momentum=0.5),
    ],
    ids=["Adam", "Adam clipped", "SGD", "Nesterov"],
)
def test_training_agrees_with_numpy(make_solver, cupy_on_host, rng):
    """Over the end of an epoch, with shuffling, augmentation and sampling."""
    data = rng.integers(256, size=(20, 12, 12), dtype="uint8")
    expected = trained("numpy", make_solver, data, 8, kernels="array")
    found = trained("cupy", make_solver, data, 8)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-7, atol=1e-9, err_msg=name)
