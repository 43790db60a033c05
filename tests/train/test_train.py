"""Training as a library: the trainer, its breaks, and going on as if nothing had happened."""

import csv
import json
import os
import signal
import subprocess
import sys
import types
import warnings

import h5py
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError, LayerkitError, NetError, SnapshotError
from layerkit.train.breaks import saving


def layers_of(data, **settings):
    return [
        L.MemoryData("x", data=data, **settings) if data is not None else L.Input("x", shape=(6,)),
        L.Dense("g", "x", units=5, neuron="tanh"),
        L.Dropout("d", "g"),
        L.Dense("z_mean", "d", units=2),
        L.Dense("z_log_variance", "d", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("y", "z", units=6),
        L.SquareLoss("loss", "y", "x"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]


def make(rng_seed=0, batch=7, backend="numpy"):
    """A net with noise of every kind, its solver, and examples to validate with."""
    rng = np.random.default_rng(rng_seed)
    data = rng.standard_normal((30, 6))
    net = lk.Net(layers_of(data), batch, backend, seed=4)
    return lk.Adam(net, lk.rates.Cosine(0.05, 100)), {"x": rng.standard_normal((11, 6))}


def one_trainer(folder, **snapshot):
    """A trainer with a break of each kind that remembers or writes something."""
    solver, held_out = make()
    test = lk.Net(layers_of(None), 4, phase="test", share=solver.net)
    folder.mkdir(exist_ok=True)
    best = lk.breaks.KeepBest(folder / "best.h5", "validation/loss")
    breaks = [
        lk.breaks.Snapshot(folder, **{"every": 20, "keep": 2, **snapshot}),
        lk.breaks.Log(folder / "log.csv", every=3),
        lk.breaks.Log(folder / "log.jsonl", every=7),
        lk.breaks.Plateau("own/kl", factor=0.7, patience=3, least=1e-5),
        best,
        lk.breaks.KeepBest(of="own/loss", mode="max"),
        lk.breaks.EarlyStop("validation/loss", patience=1000),
        lk.breaks.Validate(test, held_out, every=5),
        lk.breaks.Validate(solver.net, held_out, every=4, name="own"),
        lk.breaks.Schedule("kl", lk.rates.WarmUp(0.3, 50)),
    ]
    return lk.Trainer(solver, breaks)


def content(path):
    """All that is in a file; HDF5 adds the time."""
    if path.suffix != ".h5":
        return path.read_bytes()
    found = {}
    with h5py.File(path) as file:
        found.update({f"attribute {k}": v for k, v in file.attrs.items()})
        file.visititems(lambda k, v: found.update({k: getattr(v, "dtype", "") and v[()].tobytes()}))
    return found


def contents(folder):
    return {path.name: content(path) for path in folder.iterdir()}


def same(a, b):
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name] == b[name], name


@pytest.mark.parametrize("stop", [40, 47, 3, 99])
def test_training_that_is_resumed_equals_training_in_one_go(stop, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer = one_trainer(whole)
    assert trainer.run(steps=100) == "done"
    first = one_trainer(parts)
    assert first.run(steps=stop) == "done"
    second = one_trainer(parts)
    assert second.resume(parts) == {}
    assert second.iteration == stop
    assert second.run(until=100) == "done"
    same(contents(whole), contents(parts))
    np.testing.assert_array_equal(trainer.net.arena.data, second.net.arena.data)
    for a, b in zip(trainer.breaks, second.breaks, strict=True):
        assert a.state() == b.state()
    remembered = {type(one).__name__: one for one in second.breaks}
    assert remembered["Plateau"].drops > 0
    assert second.solver.rate(100) == trainer.solver.rate(100)
    assert remembered["EarlyStop"].waited == trainer.breaks[6].waited
    assert sorted(contents(whole)) == [
        "best.h5", "log.csv", "log.jsonl", "snapshot-000000080.h5", "snapshot-000000100.h5"
    ]  # fmt: skip
    assert 0 < trainer.breaks[4].iteration < 100


def test_one_trainer_can_run_twice(tmp_path):
    one_trainer(tmp_path / "whole").run(100)
    trainer = one_trainer(tmp_path / "parts")
    trainer.run(33)
    trainer.run(67)
    same(contents(tmp_path / "whole"), contents(tmp_path / "parts"))


def test_training_that_was_killed_goes_on_from_its_last_snapshot(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    one_trainer(whole).run(100)
    killed = one_trainer(parts)

    def kill(trainer):
        raise ZeroDivisionError

    killed = lk.Trainer(killed.solver, [*killed.breaks, lk.breaks.Call(kill, every=55)])
    with pytest.raises(ZeroDivisionError):
        killed.run(100)
    assert b"54," in (parts / "log.csv").read_bytes()
    second = one_trainer(parts)
    second.resume(parts)
    assert second.iteration == 40
    assert second.run(steps=0) == "done"
    assert b"\n54," not in (parts / "log.csv").read_bytes()
    second.run(until=100)
    same(contents(whole), contents(parts))


def test_what_a_log_says(tmp_path):
    trainer = one_trainer(tmp_path)
    trainer.run(30)
    solver, held_out = make()
    policy = solver.rate
    schedule = lk.rates.WarmUp(0.3, 50)
    rows, published = [], {}
    test = lk.Net(layers_of(None), 4, phase="test", share=solver.net)
    for i in range(1, 31):
        solver.net.layers["kl"].weight = schedule(i - 1)
        objective = solver.step()
        rows.append([objective, solver.net.losses["loss"], solver.net.losses["kl"]])
        if i % 5 == 0:
            test.run.passes = i
            found = test.evaluate(held_out)
            published.update({f"validation/{k}": (i, v) for k, v in found.items()})
        if i % 4 == 0:
            found = solver.net.evaluate(held_out)
            published.update({f"own/{k}": (i, v) for k, v in found.items()})
        if i == 8:
            break
    with open(tmp_path / "log.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in table] == list(range(3, 31, 3))
    for k in (0, 1):
        means = np.mean(rows[3 * k : 3 * k + 3], axis=0)
        found = [float(table[k][name]) for name in ("objective", "train/loss", "train/kl")]
        np.testing.assert_allclose(found, means, rtol=1e-12)
        assert float(table[k]["rate"]) == policy(3 * k + 2)
    at_5 = {name: v for name, (i, v) in published.items() if i == 5}
    assert set(at_5) == {"validation/loss", "validation/kl"}
    for name, value in at_5.items():
        assert float(table[1][name]) == value
        assert table[0][name] == table[2][name] == ""
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [7, 14, 21, 28]
    assert lines[0].keys() == {
        "iteration", "rate", "objective", "train/loss", "train/kl",
        "validation/loss", "validation/kl", "own/loss", "own/kl",
    }  # fmt: skip
    assert lines[0]["validation/loss"] == at_5["validation/loss"]
    np.testing.assert_allclose(lines[0]["train/kl"], np.mean(rows[:7], axis=0)[2], rtol=1e-12)


class Say(lk.breaks.Break):
    """Publishes values that are known beforehand."""

    place = 20
    memory = ("said",)

    def __init__(self, values):
        super().__init__(every=1)
        self.values, self.said = values, 0

    def publishes(self, trainer):
        return ["value"]

    def take(self, trainer):
        trainer.publish("value", self.values[self.said])
        self.said += 1


def test_two_breaks_do_not_write_to_one_place_or_publish_one_name(tmp_path):
    """One would delete the other's snapshots, or hide its values, in silence."""
    solver = make()[0]
    net, inputs = solver.net, {"x": np.zeros((2, 4))}
    validate = [lk.breaks.Validate(net, inputs, name=name) for name in ("a", "a", "b")]
    folder, file = tmp_path / "run", tmp_path / "run" / "best.h5"
    (tmp_path / "link").symlink_to(folder)
    for pair, words in (
        (validate[:2], "two breaks publish 'a/"),
        ([Say([1.0]), Say([2.0])], "two breaks publish 'value'"),
        ([lk.breaks.Snapshot(folder), lk.breaks.Snapshot(folder, 3)], "two breaks write to"),
        ([lk.breaks.Snapshot(folder), lk.breaks.Snapshot(tmp_path / "link")], "two breaks write"),
        ([lk.breaks.KeepBest(file, "a"), lk.breaks.KeepBest(file, "b")], r"write to .*best\.h5"),
        (
            [lk.breaks.Log(tmp_path / "a.csv"), lk.breaks.Log(tmp_path / "a.csv")],
            "two breaks write",
        ),
    ):
        with pytest.raises(NetError, match=words):
            lk.Trainer(solver, every=pair)
    apart = [lk.breaks.KeepBest(file, "a"), lk.breaks.KeepBest(None, "a"), lk.breaks.KeepBest()]
    lk.Trainer(solver, every=[*validate[1:], lk.breaks.Snapshot(folder), *apart])


VALUES = [5.0, 4.0, 4.5, float("nan"), 3.9, 3.9, 4.1, 3.0, 3.5, 3.2, 3.1, 2.0]


@pytest.mark.parametrize(
    ("settings", "ends", "best"),
    [
        ({"patience": 3}, 11, 3.0),
        ({"patience": 2}, 4, 4.0),
        ({"patience": 2, "margin": 0.5}, 4, 4.0),
        ({"patience": 4}, 12, 2.0),
        ({"patience": 4, "mode": "max"}, 5, 5.0),
    ],
)
def test_early_stop_counts_values_without_an_improvement(settings, ends, best):
    stop = lk.breaks.EarlyStop("value", **settings)
    trainer = lk.Trainer(make()[0], every=[stop, Say(VALUES)])
    ending = trainer.run(len(VALUES))
    assert trainer.iteration == ends
    assert (ending == "done") == (ends == len(VALUES))
    if ends < len(VALUES):
        assert ending == f"value has not improved for {settings['patience']} values"
        assert trainer.run(3) == ending  # it had been stopped
        assert trainer.iteration == ends
    assert stop.best == best


@pytest.mark.parametrize(("mode", "best"), [("min", 8), ("max", 1)])
def test_keep_best_keeps_the_parameters_of_the_best_value(mode, best, tmp_path):
    kept = lk.breaks.KeepBest(tmp_path / "new" / "best.h5", of="value", mode=mode)
    solver = make()[0]
    lk.Trainer(solver, [Say(VALUES), kept]).run(11)
    other = make()[0]
    other.steps(best)
    assert (kept.iteration, kept.best) == (best, VALUES[best - 1])
    for load in (kept.restore, lambda: lk.load(tmp_path / "new" / "best.h5", solver.net)):
        solver.net.arena.data[...] = 0
        load()
        np.testing.assert_array_equal(solver.net.arena.data, other.net.arena.data)
    extra = lk.snapshot.read_extra(tmp_path / "new" / "best.h5")
    assert extra == {"value": VALUES[best - 1], "iteration": best}


def test_plateau_drops_the_rate():
    solver = make()[0]
    solver.rate = 0.08
    rates = []
    breaks = [
        lk.breaks.Plateau("value", factor=0.5, patience=2, least=0.03),
        Say(VALUES),
        lk.breaks.Call(lambda t: rates.append(t.solver.rate_now()), every=1),
    ]
    trainer = lk.Trainer(solver, breaks)
    trainer.run(11)
    assert rates == [*[0.08] * 3, *[0.04] * 3, *[0.03] * 5]
    assert breaks[0].drops == 3
    solver.rate = 0.5  # a new rate has not dropped
    trainer.run(1)
    assert solver.rate_now() == 0.5


def test_a_schedule_sets_the_weight_before_each_step():
    solver, seen = make()[0], []
    watch = lk.breaks.Call(lambda t: seen.append(t.net.layers["kl"].weight), every=1)
    lk.Trainer(solver, [watch, lk.breaks.Schedule("kl", lk.rates.WarmUp(0.5, 4))]).run(6)
    assert seen == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    solver = make()[0]
    bad = lk.breaks.Schedule("kl", lambda iteration: 1.0 - iteration)
    with pytest.raises(NetError, match=r"'kl'.*weight must be.*at least 0, got -1"):
        lk.Trainer(solver, [bad]).run(5)
    assert solver.iteration == 2


def test_a_gpu_is_asked_for_the_steps_between_the_breaks(cupy_on_host, monkeypatch):
    asked, clock = [], [0.0]

    def tick():
        clock[0] += 1e-6
        return clock[0]

    monkeypatch.setattr("time.perf_counter", tick)
    steps = lk.Adam.steps

    def counted(solver, count, **inputs):
        asked.append(count)
        return steps(solver, count, **inputs)

    monkeypatch.setattr(lk.Adam, "steps", counted)
    found = []
    for at_once in (True, False):
        solver, held_out = make(backend="cupy")
        seen = []
        breaks = [
            lk.breaks.Call(lambda t, x=held_out, s=seen: s.append(t.net.evaluate(x)), every=10),
            lk.breaks.Schedule("kl", lk.rates.WarmUp(1.0, 4)),
        ]
        trainer = lk.Trainer(solver, breaks, inputs=None if at_once else lambda iteration: {})
        trainer.run(43)
        found.append((solver.net.backend.to_host(solver.net.arena.data), seen))
        if at_once:
            assert asked == [1, 1, 1, 7, 10, 10, 10, 3]
            asked.clear()
    assert asked == [1] * 43
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_inputs_are_given_alike_or_by_iteration(rng):
    x = rng.standard_normal((20, 5, 6)).astype("float32")
    nets = [lk.Net(layers_of(None), 5) for _ in range(3)]
    solvers = [lk.Adam(net) for net in nets]
    for batch in x:
        solvers[0].step(x=batch)
    lk.Trainer(solvers[1], inputs=lambda i: {"x": x[i]}).run(20)
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)
    lk.Trainer(solvers[2], inputs={"x": x[0]}).run(3)
    assert solvers[2].iteration == 3
    with pytest.raises(NetError, match="input 'x' is missing"):
        lk.Trainer(solvers[2]).run(3)


PROGRAM = """
import sys, time
import numpy as np
import layerkit as lk
from layerkit import layers as L

layers = [
    L.MemoryData("x", data=np.random.default_rng(0).standard_normal((30, 6))),
    L.Dropout("d", "x"), L.Dense("y", "d", units=6), L.SquareLoss("loss", "y", "x"),
]
solver = lk.Adam(lk.Net(layers, 7))
breaks = [
    lk.breaks.Progress(),
    lk.breaks.Snapshot(sys.argv[1], every=10**9, extra={"why": "a test"}),
    # A child that has said so waits for the signal: what it trains is trained again.
    lk.breaks.Call(lambda _: (print("ready", flush=True), time.sleep(0.2)), every=100),
]
trainer = lk.Trainer(solver, breaks)
trainer.resume(sys.argv[1], missing_ok=True)
print(trainer.run(until=int(sys.argv[2])), trainer.iteration, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_save_and_end_training(name, tmp_path):
    def start(folder, until):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(until)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with start(tmp_path / "a", 10**9) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(getattr(signal, name))
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "Traceback" not in err
    assert "training" in err  # the bar
    ending, iteration = out.splitlines()[-1].split()
    assert ending == "interrupted"
    (path,) = (tmp_path / "a").iterdir()
    assert path.name == f"snapshot-{int(iteration):09d}.h5"
    assert lk.snapshot.read_extra(path)["why"] == "a test"
    until = int(iteration) + 10
    for folder in (tmp_path / "a", tmp_path / "b"):
        with start(folder, until) as child:
            out, err = child.communicate(timeout=60)
        assert out.splitlines()[-1] == f"done {until}", err
    same(contents(tmp_path / "a"), contents(tmp_path / "b"))


# Files that cannot be written, or belong to others.


@pytest.fixture
def clock(monkeypatch):
    """Time that passes at 8 seconds a look."""
    seconds = iter(range(0, 10**9, 8))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))


def test_a_full_disk_is_a_warning_and_another_try(tmp_path, monkeypatch, clock):
    one_trainer(tmp_path / "whole").run(100)
    written, tries = saving.save, []

    def save(path, *arguments, **settings):
        tries.append(path.name)
        if path.name.endswith("80.h5") or (path.name == "best.h5" and len(tries) < 4):
            raise SnapshotError(f"cannot write snapshot {path}: no space left on device")
        written(path, *arguments, **settings)

    monkeypatch.setattr(saving, "save", save)
    trainer = one_trainer(tmp_path / "full")
    with pytest.warns(RuntimeWarning, match=r"no space left.*tri(es|ed) again in 20 s"):
        trainer.run(100)
    assert tries[:3] == ["best.h5"] * 3
    monkeypatch.undo()
    whole, found = contents(tmp_path / "whole"), contents(tmp_path / "full")
    del whole["snapshot-000000080.h5"]  # that came later, and gave way to the next
    del found["snapshot-000000060.h5"]  # and is kept in its place
    same(whole, found)


def test_a_disk_that_stays_full_saves_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    written = saving.save

    def save(path, *arguments, **settings):
        if path.parent.parent == tmp_path:
            raise SnapshotError(f"cannot write snapshot {path}: no space left on device")
        written(path, *arguments, **settings)

    monkeypatch.setattr(saving, "save", save)
    trainer = one_trainer(tmp_path / "full")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LayerkitError, match=r"best.h5.*; .*it is saved in .* instead") as error:
            trainer.run(30)
    assert "\n" not in str(error.value)
    (place,) = (tmp_path / "temporary").iterdir()
    monkeypatch.undo()
    (path,) = place.iterdir()
    assert str(path) in str(error.value)
    path.rename(tmp_path / "full" / path.name)
    trainer = one_trainer(tmp_path / "full")
    trainer.resume(tmp_path / "full")
    trainer.run(until=100)
    one_trainer(tmp_path / "whole").run(100)
    same(contents(tmp_path / "whole"), contents(tmp_path / "full"))


def test_a_log_on_a_full_disk_loses_no_row(tmp_path, small_disk):
    folder = small_disk(65536)
    solver = make()[0]
    (folder / "filler").write_bytes(bytes(65536 - 8192))

    def make_room(trainer):
        (folder / "filler").unlink(missing_ok=True)

    log = lk.breaks.Log(folder / "log.csv", every=1)
    trainer = lk.Trainer(solver, [log, lk.breaks.Call(make_room, every=300)])
    with pytest.warns(RuntimeWarning, match=r"cannot write .*log.csv.*next row") as noted:
        trainer.run(400)
    assert len(noted) == 1
    lk.Trainer(make()[0], [lk.breaks.Log(tmp_path / "log.csv", every=1)]).run(400)
    assert (folder / "log.csv").read_bytes() == (tmp_path / "log.csv").read_bytes()


def test_files_of_another_run_are_left_alone(tmp_path):
    one_trainer(tmp_path).run(40)
    before = contents(tmp_path)
    for break_, words in (
        (lk.breaks.Snapshot(tmp_path), "later than iteration 0.*snapshot-000000040.*resume"),
        (lk.breaks.Log(tmp_path / "log.csv"), "log.csv is there already.*resume"),
        (lk.breaks.KeepBest(tmp_path / "best.h5", "value"), "best.h5 is there already.*resume"),
    ):
        with pytest.raises(LayerkitError, match=words) as error:
            lk.Trainer(make()[0], [Say(VALUES), break_]).run(3)
        assert "\n" not in str(error.value)
    same(contents(tmp_path), before)
    (tmp_path / "log.csv").write_text("iteration,something else\n" * 1000)
    before = contents(tmp_path)
    trainer = one_trainer(tmp_path)
    trainer.resume(tmp_path)
    with pytest.raises(SnapshotError, match=r"log\.csv is not the file that was written"):
        trainer.run(3)
    same(contents(tmp_path), before)


def test_snapshots_that_cannot_be_resumed(tmp_path):
    solver = make()[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    trainer = lk.Trainer(solver)
    assert trainer.resume(empty, missing_ok=True) == {}
    assert trainer.resume(tmp_path / "none", missing_ok=True) == {}
    for path in (empty, tmp_path / "none"):
        with pytest.raises(SnapshotError, match="no snapshot"):
            trainer.resume(path)
    lk.save(tmp_path / "plain.h5", solver.net, solver)
    with pytest.raises(SnapshotError, match=r"no state of a trainer.*strict=False"):
        trainer.resume(tmp_path / "plain.h5")
    trainer.resume(tmp_path / "plain.h5", strict=False)
    full = one_trainer(tmp_path / "full")
    full.run(20)
    with pytest.raises(SnapshotError, match=r"other breaks.*EarlyStop, KeepBest.*none here"):
        trainer.resume(tmp_path / "full")
    trainer.resume(tmp_path / "full", strict=False)
    assert trainer.iteration == 20


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("EarlyStop", "waited", -1),
        ("EarlyStop", "waited", "many"),
        ("EarlyStop", "best", [1]),
        ("Plateau", "drops", None),
        ("KeepBest", "iteration", 0.5),
        ("KeepBest", "kept", 3),
        ("Log", "sums", None),
        ("Log", "sums", [1.0] * 99),
        ("Log", "columns", [3]),
        ("Log", "size", -1),
        ("Log", "pending", 3),
        ("Log 2", "other", 3),
    ],
)
def test_a_snapshot_with_no_state_of_a_break_changes_nothing(kind, name, value, tmp_path):
    trainer = one_trainer(tmp_path)
    trainer.run(20)
    path = tmp_path / "snapshot-000000020.h5"
    extra, arrays = lk.snapshot.read_extra(path), lk.snapshot.read_arrays(path)
    extra["trainer"]["breaks"][kind][name] = value
    lk.save(path, trainer.net, trainer.solver, extra, arrays)
    other = one_trainer(tmp_path)
    states = [one.state() for one in other.breaks]
    before = other.net.arena.data.copy(), other.net.state()
    with pytest.raises(SnapshotError) as error:
        other.resume(tmp_path)
    assert kind.split()[0] in str(error.value)
    assert [one.state() for one in other.breaks] == states
    np.testing.assert_array_equal(before[0], other.net.arena.data)
    assert (before[1], other.iteration) == (other.net.state(), 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: lk.Trainer(s.net), "expected a solver"),
        (lambda s: lk.Trainer(s, lk.breaks.Progress()), "a list of breaks"),
        (lambda s: lk.Trainer(s, [print]), "Call"),
        (lambda s: lk.Trainer(s, [lk.breaks.Progress()] * 2), "twice"),
        (lambda s: lk.Trainer(s, inputs=3), "inputs must be"),
        (lambda s: lk.Trainer(s).run(), "steps=.*until="),
        (lambda s: lk.Trainer(s).run(3, until=3), "steps=.*until="),
        (lambda s: lk.Trainer(s).run(-1), "steps must be a whole number"),
        (lambda s: lk.Trainer(s).resume("x", missing_ok=3), "missing_ok must be True or False"),
        (lambda s: lk.breaks.Log("log.txt"), r"\.jsonl or \.csv"),
        (lambda s: lk.breaks.Log("log.csv", every=0), "every must be"),
        (lambda s: lk.breaks.Snapshot("a", every=None), "every= or seconds="),
        (lambda s: lk.breaks.Call(print), "every= or seconds="),
        (lambda s: lk.breaks.Call(3, every=2), "a function"),
        (lambda s: lk.breaks.Schedule("kl", 0.5), "a function of the iteration"),
        (lambda s: lk.breaks.Plateau(factor=1), "factor must be"),
        (lambda s: lk.breaks.Validate(3), "expected a net"),
        (lambda s: lk.Trainer(s, [lk.breaks.Schedule("k", lambda i: 1)]).run(1), "mean 'kl'"),
        (lambda s: lk.Trainer(s, [lk.breaks.EarlyStop()]).run(1), "of=; there are none"),
        (lambda s: lk.Trainer(s, [Say([1]), lk.breaks.EarlyStop("val")]).run(1), "mean 'value'"),
        (lambda s: lk.Trainer(s, [lk.breaks.Break(every=1)]).run(1), "does not define take"),
        (lambda s: lk.breaks.KeepBest("a").restore(), "no best parameters yet"),
        (
            lambda s: lk.Trainer(s, [Say([1]), lk.breaks.KeepBest("value", of="value")]).run(1),
            "'value' is the name of a value, but the first argument is a file.*of='value'",
        ),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, words):
    with pytest.raises(LayerkitError, match=words) as error:
        call(make()[0])
    assert "\n" not in str(error.value)


def test_a_net_that_training_does_not_change_is_not_validated():
    solver, held_out = make()
    apart = lk.Net(layers_of(None), 4, phase="test")
    trainer = lk.Trainer(solver, [lk.breaks.Validate(apart, held_out, every=5)])
    with pytest.raises(NetError, match=r"Validate: .* shares no parameter .*share=net"):
        trainer.run(10)
    assert trainer.iteration == 0
    part = lk.Net(layers_of(None), 4, phase="test", share=solver.net, share_only="g")
    lk.Trainer(solver, [lk.breaks.Validate(part, held_out, every=5)]).run(10)


def test_best_parameters_are_not_restored_where_an_average_is_shown():
    net = make()[0].net
    solver, best = lk.SGD(net, 0.1, ema=0.5), lk.breaks.KeepBest(of="value")
    lk.Trainer(solver, [Say([1.0, 2.0, 3.0]), best]).run(3)
    trained = net.arena.data.copy()
    with solver.averaged(), pytest.raises(NetError, match=r"KeepBest.restore: .* average"):
        best.restore()
    np.testing.assert_array_equal(net.arena.data, trained)
    best.restore()
    assert not np.array_equal(net.arena.data, trained)


def test_progress_shows_objective_and_values(capsys):
    solver, held_out = make()
    breaks = [
        lk.breaks.Progress("learning", "images", each=7),
        lk.breaks.Validate(solver.net, held_out, every=5),
    ]
    lk.Trainer(solver, breaks).run(10)
    err = capsys.readouterr().err
    for word in ("learning: 100%", "70.0/70.0", "images/s", "objective=", "validation/loss="):
        assert word in err


def accumulated(accumulate, folder, inputs=None, interrupt=None, more=()):
    """A trainer of updates by 12 examples each, of which a step sees a part, with all breaks."""
    x = np.random.default_rng(3).standard_normal((60, 6))
    data = L.Input("x", shape=(6,)) if inputs else L.MemoryData("x", data=x, shuffle=False)
    layers = [data, L.Dense("y", "x", units=6), L.SquareLoss("loss", "y", "x")]
    net = lk.Net(layers, 12 // accumulate, dtype="float64", seed=4)

    def rate(iteration):
        assert iteration >= 0
        return 0.02 * 0.98**iteration

    solver = lk.Adam(net, rate, accumulate=accumulate)
    breaks = [
        lk.breaks.Validate(net, {"x": x[:7]}, every=4),
        lk.breaks.EarlyStop(patience=3),
        lk.breaks.Plateau(patience=2, factor=0.5, margin=1e6),
        lk.breaks.KeepBest(folder / "best.h5"),
        lk.breaks.Log(folder / "log.jsonl", every=2),
        lk.breaks.Snapshot(folder, every=10, keep=9),
        *more,
    ]
    return lk.Trainer(solver, breaks, inputs, interrupt)


def test_breaks_come_once_for_each_update(tmp_path, capsys):
    """Steps that are added up are as good as one that sees as many examples at once."""
    calls, ends, rows, files = [], [], [], []
    for accumulate in (1, 4):
        folder = tmp_path / str(accumulate)
        found = []
        more = lk.breaks.Call(lambda t, to=found: to.append(t.iteration), every=6)
        trainer = accumulated(accumulate, folder, more=[more, lk.breaks.Progress()])
        ends.append((trainer.run(30), trainer.iteration, trainer.breaks[2].drops))
        assert "30.0/30.0" in capsys.readouterr().err
        calls.append(found)
        lines = (folder / "log.jsonl").read_text().splitlines()
        rows.append([json.loads(line) for line in lines])
        files.append(sorted(path.name for path in folder.iterdir()))
    assert calls[0] == calls[1] == [6, 12, 18, 24, 30]
    assert ends[0] == ends[1]
    assert ends[0][:2] == ("done", 30)
    assert ends[0][2] > 0
    assert files[0] == files[1]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    assert [row["iteration"] for row in rows[0]] == list(range(2, 31, 2))


def test_inputs_are_numbered_by_steps(tmp_path):
    x = np.random.default_rng(8).standard_normal((120, 6))
    numbers, nets = [], []
    for accumulate in (1, 4):
        size, found = 12 // accumulate, []

        def inputs(i, size=size, found=found):
            found.append(i)
            return {"x": x[i * size : (i + 1) * size]}

        trainer = accumulated(accumulate, tmp_path / str(accumulate), inputs)
        assert trainer.run(10) == "done"
        numbers.append(found)
        nets.append(trainer.net.arena.data)
    assert numbers == [list(range(10)), list(range(40))]
    np.testing.assert_allclose(*nets, rtol=1e-9)


@pytest.mark.parametrize("stop", [2, 41, 42, 43, 44])
def test_training_that_ends_between_two_updates_goes_on(stop, tmp_path):
    class Stopping(lk.breaks.Break):
        """A signal that comes in a step."""

        def __init__(self, interrupt):
            super().__init__()
            self.interrupt, self.count = interrupt, 0

        def after(self, trainer, losses):
            self.count += len(losses)
            self.interrupt.requested = self.count == stop

    ends = []
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        interrupt = types.SimpleNamespace(requested=False)
        more = [Stopping(interrupt)] if folder.name == "parts" else []
        trainer = accumulated(4, folder, interrupt=interrupt, more=more)
        if more:
            assert trainer.run(until=20) == "interrupted"
            assert trainer.iteration == stop // 4
            trainer = accumulated(4, folder)
            trainer.resume(folder)
        assert trainer.run(until=20) == "done"
        ends.append((trainer.net.arena.data, (folder / "log.jsonl").read_text()))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_an_error_in_a_step_leaves_the_steps_before_it(tmp_path):
    solver = make()[0]
    solver.rate = 1e30
    trainer = lk.Trainer(solver, [lk.breaks.Progress(), lk.breaks.Log(tmp_path / "a.jsonl", 1)])
    with pytest.raises(lk.errors.NotFiniteError):
        trainer.run(50)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, solver.iteration + 1))
    assert trainer.breaks[0]._bar is None


def test_tensorboard_is_asked_for_by_a_path_without_a_suffix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(DataError, match=r"pip install tensorboardX.*jsonl") as error:
        lk.breaks.Log(tmp_path / "board")
    assert "\n" not in str(error.value)
    points, made = [], []

    class SummaryWriter:
        def __init__(self, logdir, purge_step):
            made.append((logdir, purge_step))

        def add_scalar(self, name, value, iteration):
            points.append((name, iteration, value))

        def flush(self):
            pass

        def close(self):
            made.append("closed")

    fake = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    breaks = [lk.breaks.Log(tmp_path / "board", 5), lk.breaks.Log(tmp_path / "log.jsonl", 5)]
    lk.Trainer(make()[0], breaks).run(10)
    assert made == [(str(tmp_path / "board"), 1), "closed"]
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert points == [
        (name, line["iteration"], value)
        for line in lines
        for name, value in line.items()
        if name != "iteration"
    ]


def test_a_trainer_shows_what_it_does():
    trainer = lk.Trainer(make()[0], [lk.breaks.Progress(), Say([])])
    assert repr(trainer).startswith("Trainer(Adam(")
    assert repr(trainer).endswith("[Progress, Say])")
