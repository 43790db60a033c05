"""Finding a backend, and what is said when there is none."""

import subprocess
import sys
import types

import numpy as np
import pytest

import layerkit as lk
from layerkit import backends
from layerkit import layers as L
from layerkit.backends.numpy import NumpyBackend
from layerkit.errors import BackendError


def one_line(message):
    text = str(message.value)
    assert "\n" not in text
    return text


def fake_cupy(failure):
    """A CuPy that is installed, but whose driver answers with `failure`."""

    def fail():
        raise failure

    runtime = types.SimpleNamespace(getDeviceCount=fail)
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.0"
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    return cupy


class BrokenCupy:
    """Finds `cupy`, and fails to import it as CuPy does where a CUDA library is missing."""

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise ImportError(
                "\n================\nFailed to import CuPy.\n\nOriginal error:\n"
                "  ImportError: libcuda.so.1: cannot open shared object file\n================\n"
            )


def test_an_unknown_backend_is_named():
    with pytest.raises(BackendError, match=r"unknown backend 'torch'") as message:
        lk.Net([L.Input("x", shape=(2,))], backend="torch")
    for name in ("numpy", "cupy", "auto"):
        assert name in one_line(message)


def test_numpy_is_the_default():
    assert isinstance(backends.get(), NumpyBackend)
    assert lk.Net([L.Input("x", shape=(2,))]).backend.name == "numpy"


def test_without_cupy_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes "import cupy" fail
    with pytest.raises(BackendError, match="CuPy cannot be imported") as message:
        backends.get("cupy")
    assert "pip install '.[cuda13]'" in one_line(message)
    assert backends.get("auto").name == "numpy"


def test_a_cupy_that_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenCupy(), *sys.meta_path])
    with pytest.raises(BackendError, match=r"libcuda\.so\.1: cannot open") as message:
        backends.get("cupy")
    one_line(message)
    assert backends.get("auto").name == "numpy"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), "NoDevice"),
        (OSError("see the manual\ndriver too old\n"), "driver too old"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["no device", "two lines", "no words"],
)
def test_without_a_gpu_the_error_says_so(monkeypatch, failure, words):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(failure))
    with pytest.raises(BackendError, match=r"CuPy 14\.0 .* but no GPU answers") as message:
        backends.get("cupy")
    assert words in one_line(message)
    assert backends.get("auto").name == "numpy"


def test_importing_layerkit_imports_only_what_it_needs():
    heavy = ["cupy", "jax", "matplotlib", "astropy", "sklearn", "skimage", "PIL"]
    code = f"import sys, layerkit; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numpy_arrays_come_and_go(rng):
    backend = backends.get("numpy")
    a = rng.standard_normal((4, 3))
    assert backend.asarray(a) is a
    assert backend.asarray(a, "float32").dtype == np.float32
    host = backend.to_host(a)
    host[...] = 0
    assert a.any(), "to_host must copy"
    for left, right in ((a, a.T), (a.T, a)):  # transposed views, as in Dense
        out = np.empty((len(left), right.shape[1]))
        backend.gemm(left, right, out)
        np.testing.assert_allclose(out, np.einsum("ij,jk->ik", left, right), rtol=1e-13, atol=1e-13)


def gpu():
    try:
        return backends.get("cupy")
    except BackendError as error:
        pytest.skip(str(error))


def test_a_net_on_the_gpu_agrees_with_numpy(rng):
    gpu()
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("h", "x", units=5, neuron="relu"),
        L.Dense("mean", "h", units=2),
        L.Dense("log_variance", "h", units=2),
        L.Reparameterize("z", "mean", "log_variance"),
        L.Dense("y", "z", units=6),
        L.SquareLoss("loss", "y", "x"),
        L.GaussianKL("kl", "mean", "log_variance"),
    ]
    x = rng.standard_normal((4, 6))
    on_cpu, on_gpu = (
        lk.Net(layers, batch_size=4, backend=b, dtype="float64") for b in ("numpy", "cupy")
    )
    assert on_gpu.forward(x=x) == pytest.approx(on_cpu.forward(x=x), rel=1e-12)
    for net in (on_cpu, on_gpu):
        net.backward()
    for name, p in on_cpu.params.items():
        there = on_gpu.backend.to_host(on_gpu.params[name].diff)
        np.testing.assert_allclose(there, p.diff, rtol=1e-10, atol=1e-12)
