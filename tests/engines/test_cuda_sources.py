"""Every CUDA source compiles, without a GPU and without a warning, for GPUs old and new."""

import re
import tomllib

import numpy as np
import pytest

from layerkit.engines import activations, cuda
from layerkit.engines.cuda import sources
from layerkit.engines.cuda.runners import base, data, dense

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs the package cuda-bindings")

ARCHITECTURES = ["sm_75", "sm_90"]
NAMES = sorted(sources.SOURCES)
ACTIVATIONS = ["Linear", *(kind.__name__ for kind in activations.SETTINGS)]
FEW = {"ROWS": f"{dense.FEW}u", "SPAN": f"{dense.SPAN}u", "LANES": "32u"}
VARIANTS = {  # that a net can compile a source in
    "activation": [{"ACTIVATION": name} for name in ACTIVATIONS],
    "chain": [{"ROWS": "1u"}, {"ROWS": FEW["ROWS"]}],
    "data": [
        {"NUMBER": name, "OUT": out} for name in sources.NUMBERS.values() for out in ("real", "i64")
    ],
    "dense": [  # each activation is tried above
        {"ACTIVATION": "GELU", **FEW},
        {"ACTIVATION": "Linear", **FEW},
        {"ACTIVATION": "ReLU"},
        {"ACTIVATION": "ReLU", **FEW, "ROWS": "1u", "LANES": "4u"},
    ],
    "losses": [{}, {"LABEL": "i64"}],
    "step": [{"UPDATE": name} for name in cuda.UPDATES.values()],
    "windows": [{"ACTIVATION": "LeakyReLU"}],
}


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:
        pytest.skip(f"NVRTC cannot be loaded ({error}); pip install nvidia-cuda-nvrtc")


def compile_source(code, dtype, architecture, defines):
    """(success, log) of a source with its headers."""
    status, program = nvrtc.nvrtcCreateProgram(code.encode(), b"layerkit.cu", 0, [], [])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    options = [*sources.options(np.dtype(dtype), defines), f"-arch={architecture}"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    # NVRTC writes into these bytes.  Python has one object for all bytes of length 1.
    log = bytes(max(size, 2))
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    return status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode().strip("\0 \n")


@pytest.mark.parametrize(
    ("name", "defines"),
    [(name, defines) for name in NAMES for defines in VARIANTS.get(name, [{}])],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()) or "-",
)
def test_it_compiles_without_a_warning(name, defines):
    first = defines == VARIANTS.get(name, [{}])[0]
    # To machine code once, where registers and shared memory could run out; else as far as PTX.
    old, new = ARCHITECTURES if first else ["compute_90"] * 2
    for dtype, architecture in [("float32", old), ("float64", new)]:
        success, log = compile_source(sources.text(name), dtype, architecture, defines)
        assert success, f"{dtype} {architecture}:\n{log}"
        assert not log, f"{dtype} {architecture}:\n{log}"


@pytest.mark.parametrize(
    "code", ["KERNEL bad(real* x) { x[0] = y; }", "KERNEL bad(real* x) { int unused; x[0] = 1; }"]
)
def test_what_is_wrong_is_seen(code):
    prelude = (sources.FOLDER / "device.h").read_text(encoding="utf-8")
    code = prelude.replace("#pragma once", "") + code
    success, log = compile_source(code, "float32", "sm_80", {})
    assert not success or log


def test_all_sources_are_part_of_the_package():
    text = (sources.FOLDER.parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    globs = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["layerkit"]
    package = sources.FOLDER.parents[2]
    packed = {path for glob in globs for path in package.glob(glob)}
    read = {path for path in sources.FOLDER.rglob("*") if path.is_file()} | set(
        (package / "engines" / "formulas").rglob("*.h")
    )
    assert packed >= read
    assert all(any(package.glob(glob)) for glob in globs)


def test_headers_are_put_in_place_once():
    text = sources.text("dense")
    assert "#include" not in text
    assert text.count("typedef REAL real;") == 1


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("THREADS", base.THREADS),
        ("THREADS", cuda.THREADS),
        ("SLICE", dense.SLICE),
        ("CHUNK", data.CHUNK),
        ("HALTED", cuda.program.HALTED),
        ("STEP", cuda.program.STEP),
        ("PASS", cuda.program.PASS),
        ("POSITION", cuda.program.POSITION),
    ],
)
def test_constants_are_those_of_the_sources(constant, value):
    texts = [
        path.read_text(encoding="utf-8")
        for path in sources.FOLDER.rglob("*")
        if path.suffix in (".cu", ".h")
    ]
    found = [m[1] for text in texts for m in re.finditer(rf"#define {constant} (\d+)", text)]
    assert found
    assert {int(number) for number in found} == {value}
