"""Every CUDA source compiles, without a GPU and without a warning, for GPUs old and new."""

import itertools
import re

import numpy as np
import pytest

import layerkit as lk
from layerkit.backends import cuda
from layerkit.layers import add, dense, multiply
from layerkit.layers.neuron import ELEMENTS, Neuron
from layerkit.solvers import adam, recorded, sgd

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs the package cuda-bindings")

ARCHITECTURES = ["sm_75", "sm_80", "sm_90"]
UPDATES = {"adam": adam.CUDA, "sgd": sgd.CUDA}


def sources():
    """All that a net can launch, by name."""
    for i, code in enumerate(cuda.SOURCES):
        first = re.search(r"KERNEL (\w+)\(", code)[1]
        typed = re.search(r"typedef (.+) number;", code)
        yield f"{first}-{typed[1].replace(' ', '-')}" if typed else f"{first}-{i}", code
    for name in Neuron.registry:
        functions = Neuron.named(name).functions()
        yield f"neuron-{name}", functions + ELEMENTS + dense.CUDA
    for count in (1, 3):
        yield f"add-{count}", add.source(count)
        yield f"multiply-{count}", multiply.source(count)
    linear = dense.FUNCTIONS % ("x", "dy")
    yield "dense-linear", linear + dense.CUDA
    for name, update in UPDATES.items():
        yield f"update-{name}", update + recorded.UPDATE_FLAT
        for rows in (1, dense.FEW_CUDA):
            few = f"#define ROWS {rows}u\n#define SPAN {dense.SPAN}u\n{linear}"
            yield f"few-{rows}-{name}", update + few + dense.FEW_FORWARD + dense.FEW_BACKWARD


SOURCES = dict(sources())


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:
        pytest.skip(f"NVRTC cannot be loaded ({error}); pip install nvidia-cuda-nvrtc")


def compile_source(code, dtype, architecture):
    """(success, log) of a source with the prelude."""
    whole = (cuda.PRELUDE + code).encode()
    status, program = nvrtc.nvrtcCreateProgram(whole, b"layerkit.cu", 0, [], [])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    options = [o.encode() for o in (*cuda.options(np.dtype(dtype)), f"-arch={architecture}")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    return status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode().strip("\0 \n")


def test_there_is_a_source_for_each_of_the_layers():
    text = "".join(SOURCES.values())
    for kernel in (
        "likelihood", "divergence", "reparameterize", "columns", "few_backward", "gather", "dropout"
    ):
        assert f"KERNEL {kernel}(" in text
    assert len([name for name in SOURCES if name.startswith("sum_pairs")]) == 2
    assert all(hasattr(solver, "update_cuda") for solver in (lk.Adam, lk.SGD, lk.Nesterov))


@pytest.mark.parametrize("name", SOURCES)
def test_it_compiles_without_a_warning(name):
    kinds = [*itertools.product(["float32"], ARCHITECTURES), ("float64", ARCHITECTURES[-1])]
    if name.startswith("gather") and name not in ("gather-float", "gather-unsigned-char"):
        kinds = kinds[-1:]
    for dtype, architecture in kinds:
        success, log = compile_source(SOURCES[name], dtype, architecture)
        assert success, f"{dtype} {architecture}:\n{log}"
        assert not log, f"{dtype} {architecture}:\n{log}"


@pytest.mark.parametrize(
    "code", ["KERNEL bad(real* x) { x[0] = y; }", "KERNEL bad(real* x) { int unused; x[0] = 1; }"]
)
def test_what_is_wrong_is_seen(code):
    success, log = compile_source(code, "float32", "sm_80")
    assert not success or log
