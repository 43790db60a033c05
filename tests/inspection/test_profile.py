"""The table of where time goes: its bookkeeping, never the times themselves."""

import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.main import program
from layerkit.inspection import profile
from layerkit.passes import feeding
from layerkit.system import bars

NET = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"


def small(kernels, **settings):
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("h", "x", units=4, neuron="relu"),
        L.Dense("y", "h", units=5),
        L.Input("t", shape=(5,)),
        L.SquareLoss("loss", "y", "t"),
    ]
    return lk.Net(layers, batch_size=3, kernels=kernels, **settings)


@pytest.fixture
def inputs(rng):
    return {"x": rng.random((3, 6)), "t": rng.random((3, 5))}


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_work_is_counted_by_hand(kernels, inputs):
    net = small(kernels)
    solver = lk.Adam(net)
    solver.fuse = False
    report = solver.profile(3, **inputs)
    forward = {row.layer: row for row in report.forward}
    backward = {row.layer: row for row in report.backward}
    assert list(forward) == list(net.layers)
    # Kernels fill the diffs of a loss together with its value.
    assert list(backward) == [*(["loss"] if net.engine.name != "cpu" else []), "y", "h"]
    assert forward["h"].flops == 2 * 3 * 6 * 4
    assert forward["h"].bytes == 4 * (3 * 6 + 3 * 4 + 6 * 4 + 4)
    assert backward["h"].flops == 2 * 3 * 6 * 4  # the input needs no diff
    assert backward["y"].flops == 2 * 2 * 3 * 4 * 5
    # x, y, dx and dy once, the weights and the gradient of both parameters once
    assert backward["y"].bytes == 4 * (2 * 3 * 4 + 2 * 3 * 5 + 2 * (4 * 5 + 5))
    assert forward["loss"].flops == 0
    for row in (*report.forward, *report.backward):
        assert row.milliseconds > 0
    assert report.batch == 3
    assert report.milliseconds > 0


@pytest.mark.parametrize(("clip", "kernels"), [(None, "auto"), (0.1, "auto"), (None, "array")])
def test_rows_add_up_to_the_whole_step(clip, kernels, inputs):
    report = lk.Adam(small(kernels), clip=clip).profile(5, **inputs)
    rows = [*report.forward, *report.backward, *report.rest]
    assert math.fsum(row.milliseconds for row in rows) == pytest.approx(report.total, rel=1e-12)
    assert math.fsum(row.share for row in rows) == pytest.approx(1, rel=1e-12)
    assert all(0 < row.share < 1 for row in rows)


def test_what_is_no_layer_is_timed_where_it_happens(inputs, monkeypatch):
    """Taking the inputs and the update are made 20 ms slower in turn."""

    class Slow(lk.SGD):
        def update(self, w, g, rate, **history):
            time.sleep(0.02)
            super().update(w, g, rate, **history)

    def slow_feed(net, given, feed=feeding.feed):
        time.sleep(0.02)
        feed(net, given)

    for solver, feed, row in ((Slow, feeding.feed, "(update)"), (lk.SGD, slow_feed, "(inputs)")):
        with monkeypatch.context() as patch:
            patch.setattr(feeding, "feed", feed)
            report = solver(small("array"), 0.1).profile(2, **inputs)
        times = {r.layer: r.milliseconds for r in report.rest}
        assert times[row] >= 20
        assert report.total >= 20


def test_the_middle_half_leaves_out_the_fastest_and_the_slowest():
    measured = np.array([[1, 2], [100, 100], [3, 4], [0, 0], [5, 1], [3, 4], [90, 1], [0.1, 0]])
    np.testing.assert_array_equal(profile._middle_half(measured), [3, 2.75])
    np.testing.assert_array_equal(profile._middle_half(measured[:3]), [104 / 3, 106 / 3])


def test_an_update_reads_and_writes_parameters_and_histories(inputs, monkeypatch):
    pytest.importorskip("layerkit.engines.cpu._cpu", reason="array code makes no updates")
    monkeypatch.setattr("layerkit.engines.cpu.runners.weights.dense.LARGE", 1)
    net = small("auto")
    report = lk.Adam(net).profile(2, **inputs)
    row = next(r for r in report.backward if r.layer == "y")
    # Data and diffs, three arrays both ways, and once more the weights, for the bottom's diff.
    assert row.bytes == 4 * (2 * 3 * 4 + 2 * 3 * 5 + (2 * 3 + 1) * (4 * 5 + 5))


def test_profiling_leaves_nothing_behind(inputs):
    """It makes steps like any other, and takes them back."""
    nets = [small("auto", seed=4) for _ in range(2)]
    solvers = [lk.Adam(net) for net in nets]
    for solver in solvers:
        solver.step(**inputs)
    solvers[0].profile(4, **inputs)
    assert solvers[0].iteration == solvers[1].iteration
    assert solvers[0].step(**inputs) == solvers[1].step(**inputs)
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)


def test_the_table_names_every_layer_and_what_is_none(inputs):
    net = small("auto")
    if net.engine.name != "cpu":
        pytest.skip("without the compiled kernels the loss has a row of its own going backward")
    report = lk.Adam(net).profile(2, **inputs)
    lines = str(report).splitlines()
    names = [line[:16].rstrip() for line in lines if not line.startswith("-")]
    assert names[1:-2] == [
        "x",
        "h",
        "y",
        "t",
        "loss",  # with its diffs
        "y",
        "h",
        "(inputs)",
        "(losses)",
        "(update)",
        "(between layers)",
    ]
    assert "100.0%" in next(line for line in lines if line.startswith("step"))
    assert "a step of 3 takes" in lines[-1]
    assert repr(report) == str(report)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_peaks_are_rates(kernels):
    engine = small(kernels).engine
    assert 1e8 < profile.gemm_peak(engine) < 1e15
    assert 1e8 < profile.copy_peak(engine, 1 << 20) < 1e14
    assert profile.copy_peak(engine, 1) > 0


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process; returns its status, output and errors."""
    monkeypatch.setattr(bars, "DELAY", 300)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["layerkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program()
        return ended.value.code, *capsys.readouterr()

    return command


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_the_command_prints_the_table(run, kernels):
    status, out, err = run("time", NET, "--batch", 2, "--iterations", 2, "--kernels", kernels)
    assert (status, err) == (0, "")
    assert "GaussianReconstruction" in out
    assert "a step of 2 takes" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["time", "nowhere.py"], "nowhere.py"),
        (["time", NET, "--batch", "0"], "must be from 1"),
        (["time", NET, "--iterations", "0"], "must be from 1"),
        (["time", NET, "--kernels", "fast"], "invalid choice: 'fast'"),
        (["time", NET, "--backend", "abacus"], "invalid choice: 'abacus'"),
        (["time", NET, "--batch", "many"], "--batch"),
        (["time"], "NET"),
        ([], "COMMAND"),
    ],
)
def test_bad_arguments_are_one_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert message in err.splitlines()[-1]


def test_inputs_may_have_tops_of_another_name(run, tmp_path):
    (tmp_path / "net.py").write_text(
        "from layerkit import layers as L\n"
        "def net():\n"
        "    return [L.Input('first', tops='x', shape=(3,)), L.Dense('y', 'x', units=3),\n"
        "            L.SquareLoss('loss', 'y', 'x')]\n"
    )
    status, out, err = run("time", tmp_path / "net.py", "--iterations", 1)
    assert status == 0, err
    assert "first" in out
