"""The GPU's benchmark: its command line, tables and time budget, and its checks of a new GPU."""

import ctypes
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import cuda_host
import numpy as np
import pytest
from PIL import Image

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import BackendError

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def there_is_a_gpu():
    try:
        lk.Net([L.Input("x", shape=(1,))], backend="cupy")
    except BackendError:
        return False
    return True


def run(program, *words, **environment):
    return subprocess.run(
        [sys.executable, FOLDER / program, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import gpu

    return gpu


@pytest.fixture
def smoke(monkeypatch):
    """The checks, made small, on the stand-in."""
    if reason := cuda_host.missing():
        pytest.skip(reason)
    monkeypatch.syspath_prepend(FOLDER)
    import smoke

    for name, value in {"SIDE": 6, "HIDDEN": 4, "STEPS": 3, "BATCH": 2, "OTHERS": []}.items():
        monkeypatch.setattr(smoke, name, value)
    with cuda_host.installed(races=False):
        yield smoke


def backend_class():
    return type(lk.Net([L.Input("x", shape=(1,))], backend="cupy").backend)


def verdicts(capsys):
    """Line by line: name -> verdict and text."""
    lines = capsys.readouterr().out.splitlines()
    found = {line[9:].split(": ")[0]: (line.split()[0], line) for line in lines[:-1]}
    assert len(found) == len(lines) - 1
    assert lines[-1].startswith(f"{len(found)} checks: ")
    return found


# The command line.


@pytest.mark.parametrize("words", [(), ("--smoke",)], ids=["", "smoke"])
def test_the_benchmark_says_that_there_is_no_gpu(words):
    if there_is_a_gpu():
        pytest.skip("there is one")
    done = run("gpu.py", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this benchmark needs a GPU: backend cupy: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "--batches 1,two",
        "--batches 0",
        "--batches 1,",
        "--batches 9000",
        "--rounds 0",
        "--seconds -1",
        "--warm-up -3",
        "--colour red",
        "extra",
    ],
)
@pytest.mark.parametrize("program", ["cpu.py", "gpu.py"])
def test_a_bad_argument_is_one_line(program, words, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [program, *words.split()])
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(FOLDER / program), run_name="__main__")
    out, err = capsys.readouterr()
    assert status.value.code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words.split()[-1].split(",")[-1] in err
    assert not out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--programs layerkit,theano", "pytorch-eager"),
        ("--precisions half", "float32, tf32"),
        ("--minutes 0", "above 0"),
        ("--minutes nan", "above 0"),
    ],
)
def test_a_bad_choice_says_what_there_is(gpu, words, told, capsys):
    with pytest.raises(SystemExit) as status:
        gpu.main(words.split())
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


def test_a_python_without_layerkit_is_told_so():
    done = subprocess.run(
        [sys.executable, "-S", FOLDER / "gpu.py", "--smoke"],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 2
    assert "cannot import layerkit" in done.stderr
    assert done.stderr.count("\n") == 1


def test_programs_are_named_in_any_case(gpu):
    choose = gpu.choice_of(["layerkit", *gpu.PEERS])
    assert choose("PyTorch graph, layerkit") == ["layerkit", "PyTorch graph"]
    assert choose("jax-jit") == ["JAX jit"]


# Tables and time.


def test_what_there_is_no_time_for_is_left_out_and_named(gpu, cupy_on_host, monkeypatch, capsys):
    """One program is quick, the other would take a minute; three seconds are given."""
    found = {"ms_per_iteration": 0.5, "gemm": 3e13, "copy": 2e12, "bound": 0.25}
    program = "import sys, time; time.sleep(int(sys.argv[1])); print(sys.argv[2])"
    lasting = {  # the last comes first in round 1
        name: [sys.executable, "-c", program, seconds, json.dumps(found)]
        for name, seconds in {"PyTorch eager": "60", "layerkit": "0"}.items()
    }
    monkeypatch.setattr(gpu, "find_programs", lambda *args: dict(lasting))
    monkeypatch.setattr(gpu, "save_images", lambda data, folder: folder / "images.npy")
    started = time.monotonic()
    words = "--batches 4 --precisions float32 --rounds 2 --minutes 0.05"
    assert gpu.main(words.split()) == 0
    assert time.monotonic() - started < 20
    out, err = capsys.readouterr()
    assert "round 1 layerkit, batch 4: 0.5000 ms" in err
    assert "Left out, as 0.05 minutes were over: PyTorch eager, batch 4 (rounds 1, 2)" in out
    row = next(line for line in out.splitlines() if line.startswith("| 4 |"))
    assert row.startswith("| 4 | 0.5000 | 8,000 |  |  |")
    assert row.endswith("| 30.0 | 2000 | 0.2500 | 50% |")
    assert "nan" not in out
    assert "TF32" not in out


def test_the_data_say_nothing_on_standard_output(gpu, tmp_path, monkeypatch, capsys):
    """It is for the tables, and may go to a file."""
    import cpu

    monkeypatch.setattr(cpu, "IMAGES", 3)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :90] - 45
    for i in range(4):
        light = 200 * np.exp(-np.hypot(x, (1.2 + 0.1 * i) * y) / 5) + rng.normal(9, 1, x.shape)
        Image.fromarray(light.clip(0, 255).astype("uint8")).save(tmp_path / f"{i}.png")
    path = cpu.save_images(str(tmp_path), tmp_path)
    assert len(np.load(path)) == 3
    out, err = capsys.readouterr()
    assert not out
    assert "images read" in err


def test_a_table_without_layerkit(gpu):
    results = {("JAX jit", True, 2): [{"ms_per_iteration": 3.0, "memory": 7.0}]}
    assert gpu.report(["JAX jit"], [2, 5], True, results).splitlines()[2:] == [
        "| batch | JAX jit, ms | JAX jit, MiB |",
        "| --- | --- | --- |",
        "| 2 | 3.0000 | 7 |",
        "| 5 |  |  |",
    ]


# The first checks on a new GPU.


def test_all_checks_pass(smoke, gpu, monkeypatch, capsys):
    monkeypatch.setattr(
        smoke, "OTHERS", ["galaxy_conv", "galaxy_ladder", "galaxy_pose", "galaxy_wide"]
    )
    monkeypatch.setattr(smoke, "STEPS", 2)
    status = gpu.main(["--smoke", "--batches", "3"])
    found = verdicts(capsys)
    assert not {line for verdict, line in found.values() if verdict == "FAILED"}
    assert status == 0
    assert found["galaxy_gdae, batch 3, recorded against called"][0] == "ok"
    for name in smoke.OTHERS:
        assert f"{name}, batch 2, recorded against called" in found
        assert found[f"{name}, float64, against NumPy"][0] == "ok"
    for check in ("two runs", "capture and replay", "resident against streamed data, uint8"):
        assert found[check][0] == "ok"


def test_a_wrong_product_is_found_and_nothing_stops(smoke, monkeypatch, capsys):
    """Factors stored by columns are taken for rows, in float64 only."""
    backend = backend_class()
    right = backend.gemm

    def gemm(self, a, b, out):
        right(self, a, b, out)
        if out.dtype == "float64" and not b.flags.c_contiguous:
            out *= 1.0001

    monkeypatch.setattr(backend, "gemm", gemm)
    assert smoke.run([2]) == 1
    found = verdicts(capsys)
    assert found["products, float64, a by rows, b by columns"][0] == "FAILED"
    assert "error 1.0e-04" in found["products, float64, a by rows, b by columns"][1]
    for good in (
        "products, float64, a by columns, b by rows",
        "products, float32, a by rows, b by columns",
        "two runs",
    ):
        assert found[good][0] == "ok"


def test_a_replay_that_differs_is_found(smoke, monkeypatch, capsys):
    backend = backend_class()
    right = backend.capture

    def capture(self, step):
        right(self, step)
        return lambda: None

    monkeypatch.setattr(backend, "capture", capture)
    assert smoke.run([2]) == 1
    found = verdicts(capsys)
    assert found["capture and replay"][0] == "FAILED"
    assert found["galaxy_gdae, batch 2, recorded against called"][0] == "FAILED"
    assert found["products, float32, a by rows, b by rows"][0] == "ok"


def test_a_step_that_cannot_be_recorded_is_found(smoke, monkeypatch):
    def capture(self, step):
        raise RuntimeError("no graphs today")

    monkeypatch.setattr(backend_class(), "capture", capture)
    with (
        pytest.warns(RuntimeWarning, match="cannot be recorded"),
        pytest.raises(smoke.Wrong, match="cannot be recorded: RuntimeError: no graphs today"),
    ):
        smoke.recorded_against_called(smoke.Nets(), smoke.PAPER, 2)


def test_the_papers_net_must_be_recorded(smoke):
    nothing = smoke.Trained(np.zeros(3), {}, [])
    with pytest.raises(smoke.Wrong, match="no step"):
        smoke.was_recorded(smoke.PAPER, nothing)
    with pytest.raises(smoke.Skipped, match="no step"):
        smoke.was_recorded("galaxy_conv", nothing)


def test_a_gpu_that_is_lost_is_said_once(smoke, monkeypatch, capsys):
    """After an illegal access, say, every call fails with its error."""

    def lost(self, *args):
        raise cuda_host.CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access")

    monkeypatch.setattr(backend_class(), "gemm", lost)
    monkeypatch.setattr(backend_class(), "synchronize", lost)
    assert smoke.run([2]) == 1
    found = [verdict for verdict, _ in verdicts(capsys).values()]
    assert found[:4] == ["ok", "ok", "FAILED", "skipped"]
    assert set(found[3:]) == {"skipped"}


class Driver:
    """CUDA's driver, as far as nodes are counted, over the stand-in."""

    def __init__(self, **functions):
        vars(self).update(functions)

    @staticmethod
    def info(stream, status, number, graph, *more):
        from cuda_host.device import state

        capturing = state.created[stream.value]
        assert capturing.capture is not None
        status._obj.value, number._obj.value, graph._obj.value = 1, 1, capturing.ptr
        assert all(place.value is None for place in more)
        return 0

    @staticmethod
    def nodes(graph, places, count):
        from cuda_host.device import state

        assert places.value is None
        count._obj.value = len(state.created[graph.value].capture)
        return 0


@pytest.mark.parametrize("name", ["cuStreamGetCaptureInfo_v2", "cuStreamGetCaptureInfo_v3"])
def test_nodes_are_counted_while_a_step_is_recorded(smoke, name, monkeypatch):
    driver = Driver(**{name: Driver.info, "cuGraphGetNodes": Driver.nodes})
    monkeypatch.setattr(smoke, "driver", lambda: driver)
    net = smoke.a_net()
    graphs, x = smoke.watch(net), net.xp.zeros(3)

    def step():
        for _ in range(7):
            x.fill(1)

    replay = net.backend.capture(step)
    replay()
    assert [graph.nodes for graph in graphs] == [7]
    np.testing.assert_array_equal(net.backend.to_host(x), 1)
    assert 5 < int(smoke.nodes(smoke.Nets(), smoke.PAPER, 2)) <= 15


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (Driver(), "knows no cuStreamGetCaptureInfo"),
        (Driver(cuStreamGetCaptureInfo_v2=lambda *args: 1), "failed with error 1"),
        (Driver(cuStreamGetCaptureInfo_v2=lambda *args: 0), "not the one that is recorded"),
    ],
)
def test_nodes_that_cannot_be_counted_fail_nothing(smoke, driver, why, monkeypatch):
    monkeypatch.setattr(smoke, "driver", lambda: driver)
    with pytest.raises(smoke.Skipped, match=why):
        smoke.nodes(smoke.Nets(), smoke.PAPER, 2)


def test_a_machine_without_a_driver(smoke, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(smoke.Skipped, match=r"libcuda\.so\.1: cannot open"):
        smoke.driver()
