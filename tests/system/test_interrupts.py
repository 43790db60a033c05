"""An exception from a signal's handler may come at any line, and leaves nothing half done."""

import contextlib
import os
import signal
import sys
import threading

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.system.files import open_regular
from layerkit.system.locks import lock
from layerkit.system.uninterrupted import HELD, Uninterrupted, undoing

ROWS = 4
OWN = os.path.dirname(lk.__file__)
CLOSED_AS_IT_IS_LOST = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


class TimeError(Exception):
    """Raised by a handler, as where a program has limited its time."""


def is_up(number, frame):
    raise TimeError


def at_each_line(call, act, after, within=OWN, stride=1, most=10000):
    """Make a call again and again, with `act` at its next line in layerkit; `after` each, check."""
    for place in range(0, most, stride):
        count, before = 0, sys.gettrace()

        def each_line(frame, event, argument, place=place):
            nonlocal count
            if not frame.f_code.co_filename.startswith(within):
                return None
            if event == "line":
                count += 1
                if count == place + 1:
                    act()
            return each_line

        sys.settrace(each_line)
        try:
            call()
        except (KeyboardInterrupt, TimeError):
            pass
        finally:
            sys.settrace(before)
        after()
        if count <= place:
            return place
    raise AssertionError(f"more than {most} lines")


def interrupt():
    raise KeyboardInterrupt


def nets(rng, kernels="auto"):
    data = rng.random((10, 6)).astype("float32")
    layers = [
        L.MemoryData("x", data=data),
        L.Dense("d", "x", units=5, neuron="relu"),
        L.Dropout("kept", "d", ratio=0.5),
        L.Dense("m", "kept", units=3),
        L.Dense("v", "kept", units=3),
        L.Reparameterize("z", "m", "v"),
        L.Dense("o", "z", units=6),
        L.SquareLoss("s", "o", "x"),
        L.GaussianKL("kl", "m", "v"),
    ]
    net = lk.Net(layers, ROWS, seed=1, kernels=kernels)
    return net, lk.Adam(net, 1e-2), lk.Net(layers, ROWS, phase="test", share=net, kernels=kernels)


def seen(net, solver):
    buffers = [b for layer in net.layers.values() for b in layer.buffers]
    return (
        net.state(),
        net.run.training,
        net.run.sample,
        net.rows,
        dict(net.losses),
        [(b.whole.ctypes.data, b.data.shape, b.data.tobytes()) for b in buffers],
        net.arena.data.tobytes(),
        solver.iteration,
        [h.tobytes() for h in solver.history.values()],
    )


def test_a_net_is_free_after_an_interrupt_while_it_is_taken_or_given_back(rng):
    net, solver, _ = nets(rng)
    solver.step()

    def after():
        found = []
        thread = threading.Thread(target=lambda: found.append(net.state()))
        thread.start()
        thread.join(10)
        assert len(found) == 1

    turns = os.path.join(OWN, "turns.py")
    at_each_line(solver.step, interrupt, after, within=turns)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("look", ["infer", "evaluate", "evaluate what is given"])
def test_a_look_that_is_interrupted_at_any_line_changes_nothing(look, kernels, rng):
    net, solver, test = nets(rng, kernels)
    solver.steps(3)
    x = rng.random((7, 6)).astype("float32")
    calls = {
        "infer": (net, lambda: net.infer("z", x=x)),
        "evaluate": (test, test.evaluate),
        "evaluate what is given": (net, lambda: net.evaluate({"x": x})),
    }
    looked_at, call = calls[look]
    call()

    def visible():
        state, training, sample, rows, losses, buffers, *learned = seen(looked_at, solver)
        own = () if look == "evaluate" else (rows, buffers)  # which its passes overwrite
        return state, training, sample, losses, own, learned

    before = visible()

    def after():
        assert visible() == before

    assert at_each_line(call, interrupt, after) > 100


def test_evaluations_repeat_their_noise_after_one_that_was_interrupted(rng):
    net, solver, _ = nets(rng)
    solver.step()
    x = {"x": rng.random((7, 6)).astype("float32")}
    expected = net.evaluate(x)
    at_each_line(lambda: net.evaluate(x), interrupt, lambda: None)
    assert net.evaluate(x) == expected


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_a_step_that_is_interrupted_at_any_line_is_made_whole_or_not_at_all(number, kernels, rng):
    seed = rng.bit_generator.state
    net, solver, _ = nets(rng, kernels)
    rng.bit_generator.state = seed
    other, reference, _ = nets(rng, kernels)
    handler = signal.getsignal(number)
    if number != signal.SIGINT:
        signal.signal(number, is_up)
    within = signal.getsignal(number)

    def after():
        assert signal.getsignal(number) is within
        while reference.iteration < solver.iteration:
            reference.step()
        assert solver.iteration == reference.iteration
        assert net.state() == other.state()
        np.testing.assert_array_equal(net.arena.data, other.arena.data)
        for name, values in reference.history.items():
            np.testing.assert_array_equal(solver.history[name], values, name)

    try:
        lines = at_each_line(solver.step, lambda: signal.raise_signal(number), after)
    finally:
        signal.signal(number, handler)
    assert lines > 100
    assert solver.iteration > 2


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_rows_fit_each_other_after_a_forward_pass_that_was_interrupted(kernels, rng):
    layers = [L.Input("x", shape=(6,)), L.Dense("y", "x", units=2), L.SquareLoss("s", "y", "t")]
    net = lk.Net([*layers, L.Input("t", shape=(2,))], 9, kernels=kernels, dtype="float64")
    given = [{"x": rng.random((n, 6)), "t": rng.random((n, 2))} for n in (9, 4)]
    w, b = net.params["y/weight"].data, net.params["y/bias"].data
    turn = iter(range(10**6))

    def after():
        which = given[next(turn) % 2]  # of as many rows as are in use, or of others
        expected = ((which["x"] @ w + b - which["t"]) ** 2).sum() / len(which["x"])
        half = net.forward(**which)
        np.testing.assert_allclose(half, expected / 2, rtol=1e-12)
        net.forward(**given[0])

    assert at_each_line(lambda: net.forward(**given[1]), interrupt, after) > 50


def test_a_backward_pass_needs_a_forward_pass_that_was_not_interrupted(rng):
    net, _, _ = nets(rng)
    net.forward()

    def after():
        if net.passed:
            net.backward()  # of the pass before, or of this one
        net.forward()

    at_each_line(net.forward, interrupt, after)


@pytest.mark.parametrize("number", [n for n in HELD if n != signal.SIGINT])
def test_handlers_of_signals_wait_while_parameters_change(number, rng):
    class Slow(lk.SGD):
        formula = None

        def update(self, w, g, rate, **history):
            signal.raise_signal(number)
            w -= rate * g

    net, _, _ = nets(rng)
    before = net.arena.data.copy()
    solver = Slow(net, 0.1)
    solver.fuse = False
    former = signal.signal(number, is_up)
    try:
        with pytest.raises(TimeError):
            solver.step()
        assert signal.getsignal(number) is is_up
    finally:
        signal.signal(number, signal.SIG_DFL if former is None else former)
    assert solver.iteration == net.run.passes == 1
    np.testing.assert_array_equal(net.arena.data, before - np.float32(0.1) * net.arena.diff)


def test_every_handler_is_told_and_put_back_though_one_raises():
    told = []

    def notes(number, frame):
        told.append(number)
        raise TimeError

    numbers = [signal.SIGALRM, signal.SIGUSR1, signal.SIGTERM]
    former = {n: signal.signal(n, notes) for n in numbers}
    try:
        block = Uninterrupted()

        def held():
            with block:
                for number in numbers:
                    signal.raise_signal(number)
                assert told == []

        with pytest.raises(TimeError):
            held()
        assert sorted(told) == sorted(numbers)
        assert not block.requested
        assert all(signal.getsignal(n) is notes for n in numbers)
    finally:
        for n, handler in former.items():
            signal.signal(n, handler)


@pytest.mark.parametrize("of", [signal.SIGINT, signal.SIGTERM])
def test_no_handler_is_lost_at_any_line(of):
    """An interrupt while handlers are taken away or put back leaves each where it was."""
    other = signal.SIGTERM if of == signal.SIGINT else signal.SIGINT
    former = {of: signal.signal(of, is_up)}
    former[other] = signal.getsignal(other)

    def block():
        with Uninterrupted():
            pass

    def after():
        assert signal.getsignal(of) is is_up
        assert signal.getsignal(other) is former[other]

    try:
        at_each_line(block, lambda: signal.raise_signal(of), after)
    finally:
        for n, handler in former.items():
            signal.signal(n, handler)


def test_what_is_undone_is_undone_wherever_an_exception_comes():
    values = [0]

    def call():
        values[0] = 1
        return "result"

    def undo():
        values[0] = 0

    assert undoing(call, undo) == "result"
    assert values == [0]
    undos = []

    def cut_short():
        undos.append(1)
        if len(undos) == 1:
            raise KeyboardInterrupt
        values[0] = 0

    with pytest.raises(KeyboardInterrupt):
        undoing(call, cut_short)
    assert values == [0]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs a list of open files")
@CLOSED_AS_IT_IS_LOST
def test_an_interrupt_while_a_file_is_opened_is_an_interrupt(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    before = descriptors()

    def call():
        with open_regular(path) as file:
            assert file.read() == b"content"

    def after():
        assert descriptors() == before

    at_each_line(call, interrupt, after)


def test_an_interrupt_while_a_snapshot_is_read_or_written_is_an_interrupt(tmp_path, rng):
    net, solver, _ = nets(rng)
    path = tmp_path / "net.h5"
    lk.save(path, net, solver)
    solver.steps(2)
    saved = [seen(net, solver)]
    lk.load(path, net, solver)
    saved.append(seen(net, solver))

    def after():  # all of it or nothing
        assert seen(net, solver) in saved
        assert os.listdir(tmp_path) == [path.name]

    press = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731
    at_each_line(lambda: lk.load(path, net, solver), press, after, stride=149)
    at_each_line(lambda: lk.save(path, net, solver), press, after, stride=149)


@CLOSED_AS_IT_IS_LOST
def test_a_folder_is_free_after_an_interrupt_at_any_line(tmp_path):
    def call():
        with lock(tmp_path, "a test"):
            pass

    def after():
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock(tmp_path, "another"))

    at_each_line(call, interrupt, after)


def test_a_profile_that_is_interrupted_leaves_the_plan_as_it_was(rng, monkeypatch):
    net, solver, _ = nets(rng)
    solver.steps(2)
    plan, before = solver.plan(), seen(net, solver)
    calls = [list(plan.forward), list(plan.backward), list(plan.updates), plan.programs]
    monkeypatch.setattr(net.backend, "synchronize", interrupt)  # called after each timed layer
    with pytest.raises(KeyboardInterrupt):
        solver.profile(1)
    assert [list(plan.forward), list(plan.backward), list(plan.updates), plan.programs] == calls
    assert solver.record
    after = seen(net, solver)
    assert after[0] == before[0]
    assert after[6:9] == before[6:9]


def test_an_interrupt_after_flushing_leaves_denormal_numbers_as_they_were():
    """Nobody then knows the state to restore, which `flush` returned."""
    engine = lk.Net([L.Input("x", shape=(2,))], 1).engine
    if engine.name != "cpu":
        pytest.skip("array code flushes nothing")
    tiny, own = np.full(4, 1e-42, np.float32), engine.kernels

    class Unlucky:
        restore = staticmethod(own.restore)

        @staticmethod
        def flush():
            own.flush()
            assert not (tiny * np.float32(0.5)).any()
            raise KeyboardInterrupt

    engine.kernels = Unlucky()
    try:
        with pytest.raises(KeyboardInterrupt), engine.flushed():
            pass
    finally:
        engine.kernels = own
    assert (tiny * np.float32(0.5)).all()
