"""Every layer on the CuPy backend, by the stand-in of tests/cuda_host: CUDA kernels, where a layer
has any, and its array code on CuPy, against the array code on NumPy."""

import dataclasses
import re

import cuda_host
import numpy as np
import pytest
from cases import CASES, Bottom
from cuda_host import module

from layerkit import layers as L
from layerkit.engines.cuda.runners import RUNNERS

TOLERANCE = {"float32": {"rtol": 3e-5, "atol": 3e-6}, "float64": {"rtol": 1e-11, "atol": 1e-12}}
NORMS = (L.BatchNorm, L.GroupNorm, L.LayerNorm)
WITHOUT = (L.Input, L.Accuracy, L.MatMul, L.Reshape)  # their runners launch no kernel
ROWS = {"float32": (1, 300), "float64": (1,)}  # 300: more than a block has threads


def has_cuda(case):
    """Tell whether a layer has kernels of its own for the GPU."""
    layer = case.layer()
    copies = isinstance(layer, L.Add | L.Multiply) and len(layer.bottoms) == 1
    own = case.plain and type(layer) in RUNNERS and not isinstance(layer, WITHOUT)
    return layer.is_source or (own and not copies)


def wide(case):
    """The case with examples of more elements than a block has threads."""
    bottoms = {
        name: dataclasses.replace(bottom, shape=(333,) if bottom.shape is None else bottom.shape)
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


def run(net, arrays, weights, at_once):
    """Return what two passes leave behind: the objective and all arrays, by name.

    With `at_once` a loss computes its diffs together with its value, as in a solver's step.
    """
    poison(net)
    plan = net.passes.plan(at_once=at_once)
    diffs = {name: net.backend.asarray(w, net.dtype) for name, w in weights.items()}
    for _ in range(2):
        objective = net.passes.forward(plan, arrays)
        net.passes.backward(plan, {} if at_once else diffs)
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
    """The case on both backends with the same numbers."""
    arrays = case.draw(rng, rows)
    seed = int(rng.integers(2**31))
    nets = [
        case.net(
            rng,
            arrays,
            backend=backend,
            kernels=kernels,
            dtype=dtype,
            seed=seed,
            batch_size=capacity or rows,
        )
        for backend, kernels in (("numpy", "array"), ("cupy", "auto"))
    ]
    for name, p in nets[0].params.items():
        np.testing.assert_array_equal(on_host(nets[1], nets[1].params[name].data), p.data)
    weights = {
        top: rng.standard_normal(
            (rows if case.bottoms else capacity or rows, *nets[0].blobs[top].shape)
        )
        for top in nets[0].layers["y"].tops
    }
    for at_once in (False, True) if case.layer().is_loss else (False,):
        expected, found = (run(net, arrays, weights, at_once) for net in nets)
        assert_alike(found, expected, dtype)


ONE_OF_EACH = list({type(case.layer()): case for case in reversed(CASES)}.values())
# Every variant in the precision that shows the smallest mistake; a GPU tries them in the other.
in_both_precisions = pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case.id}-{dtype}")
        for dtype, cases in (("float32", ONE_OF_EACH), ("float64", CASES))
        for case in cases
    ],
)
with_cuda = pytest.mark.parametrize(
    "case", [case for case in CASES if has_cuda(case)], ids=lambda case: case.id
)


@in_both_precisions
def test_every_layer_agrees_with_its_array_code_on_numpy(case, dtype, cupy_on_host, rng):
    for rows in ROWS[dtype]:
        compare(case, rng, rows, dtype)
    compare(case, rng, 33, dtype, capacity=37)  # more than a warp has; not all that there may be
    if has_cuda(case):
        assert cuda_host.launches(), "its kernels were not used"


@with_cuda
def test_examples_of_more_elements_than_a_block_has_threads(case, cupy_on_host, rng):
    for rows in (1, 3):
        compare(wide(case), rng, rows, "float32")


def test_the_first_of_equal_pixels_has_the_gradient_of_a_maximum(cupy_on_host, rng):
    maxima = [c for c in CASES if getattr(c.layer(), "mode", None) == "max"]
    assert len(maxima) > 5
    for case in maxima:
        few = Bottom(
            lambda rng, size: rng.integers(3, size=size).astype(float), case.bottoms["x"].shape
        )
        compare(dataclasses.replace(case, bottoms={"x": few}), rng, 7, "float32")


@pytest.fixture
def mutate(monkeypatch):
    """Makes sources pass through substitutions before they are compiled; lists those changed."""
    original, changed = module.RawModule.__init__, []

    def plant(*substitutions):
        def made(self, *, code, **settings):
            other = code
            for pattern, replacement in substitutions:
                other = re.sub(pattern, replacement, other)
            changed.extend([code] * (other != code))
            original(self, code=other, **settings)

        monkeypatch.setattr(module.RawModule, "__init__", made)
        return changed

    return plant


SIZES = r"((?:\(u32\))?(?:size|count|rows|units|inputs|stop|pixels|pieces|slices|groups)\b)"
MISTAKES = {
    "one too many": [(rf" < {SIZES}", r" <= \1"), (rf" >= {SIZES}", r" > \1")],
    "no barriers": [(r"__syncthreads\(\);", ";")],
}


def chances():
    """One case of each layer for each mistake that its kernels can make."""
    for case in {type(case.layer()): case for case in reversed(CASES) if has_cuda(case)}.values():
        yield pytest.param(case, "one too many", id=f"{case.id}-one too many")
        if case.layer().is_loss or isinstance(case.layer(), (L.Dense, *NORMS)):  # they sum
            yield pytest.param(case, "no barriers", id=f"{case.id}-no barriers")


@pytest.mark.parametrize(("case", "mistake"), [*chances()])
def test_mistakes_in_kernels_are_seen(case, mistake, cupy_on_host, mutate, rng):
    changed = mutate(*MISTAKES[mistake])
    with pytest.raises(AssertionError):  # a KernelError is one, and so are wrong numbers
        compare(case, rng, 3, "float32")
    assert changed, f"the kernels hold nothing of the form {MISTAKES[mistake]}"
