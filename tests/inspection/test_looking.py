"""Looking at a net changes nothing in it, and one thread at a time uses it."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import cases
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import LayerkitError, NetError

ROWS, STEPS = 6, 5
KERNELS = pytest.mark.parametrize("kernels", ["auto", "array"])


def noisy():
    """Noise, Dropout, convolution, data that are shuffled and turned, and two losses."""
    return [
        L.Reshape("flat", "pictures", shape=(36,)),
        L.Convolution("c", "pictures", channels=2, kernel=3, neuron="tanh"),
        L.Dense("g", "c", units=8, neuron="tanh"),
        L.Dropout("kept", "g", ratio=0.3),
        L.Dense("m", "kept", units=3),
        L.Dense("v", "kept", units=3),
        L.Reparameterize("z", "m", "v"),
        L.Dense("f", "z", units=36, neuron="sigmoid"),
        L.SquareLoss("loss", "f", "flat"),
        L.GaussianKL("kl", "m", "v", weight=0.1),
    ]


def with_input():
    return [L.Input("pictures", shape=(1, 6, 6)), *noisy()]


def with_data(rng, **settings):
    data = rng.random((23, 1, 6, 6)).astype("float32")
    return [L.MemoryData("pictures", data=data, **{"augment": "dihedral", **settings}), *noisy()]


LOOKS = {
    "means": lambda net, x: net.infer("f", sample=False, pictures=x[:3]),
    "samples": lambda net, x: net.infer(["z", "f"], pictures=x),
    "more rows": lambda net, x: net.infer("kl", pictures=np.concatenate([x, x, x])[:15]),
    "from the middle": lambda net, x: net.infer("f", g=np.ones((4, 8))),
    "all losses": lambda net, x: net.infer(["loss", "kl"], pictures=x, flat=x),
    "printing": lambda net, x: [str(net), repr(net.layers["g"]), net.first_non_finite()],
    "state": lambda net, x: net.set_state(net.state()) if not net.passed else net.state(),
    "another net": lambda net, x: net.rebuild(dtype="float64"),
    "a test net": lambda net, x: lk.Net(net.descriptions, 4, phase="test", share=net).infer(
        "f", pictures=x
    ),
    "the gradient check": lambda net, x: lk.check_gradients(
        net, directions=1, elements=0, tolerance=1e-2, **({} if net.sources() else {"pictures": x})
    ),
    "a wrong look": lambda net, x: wrong_look(net),
}


def wrong_look(net):
    for names, given in (("f", {"pictures": np.zeros((2, 5))}), ("q", {"g": np.zeros((2, 8))})):
        with pytest.raises(NetError):
            net.infer(names, **given)


def visible(net):
    """All that a user can see of a net, as copies."""
    arrays = {f"data {name}": b.data.copy() for name, b in net.blobs.items()}
    arrays |= {f"diff {name}": b.diff.copy() for name, b in net.blobs.items() if b.diff is not None}
    arrays |= {name: p.data.copy() for name, p in net.params.items()}
    arrays |= {f"diff of {name}": p.diff.copy() for name, p in net.params.items()}
    return arrays, (net.state(), net.rows, dict(net.losses), net.run.training, net.run.sample)


def assert_same(some, others):
    (arrays, rest), (other_arrays, other_rest) = some, others
    assert rest == other_rest
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name], name)


def trained(layers, look, x, kernels, inputs):
    """Parameters after steps of a solver and of one's own, with a look at every place."""
    net = lk.Net(layers, ROWS, seed=3, kernels=kernels)
    solver = lk.Adam(net, 1e-2)
    losses = []
    look(net, x)
    for step in range(STEPS):
        losses.append(solver.step(**inputs))
        look(net, x)
        if step % 4 == 0:
            losses.append(net.forward(**inputs))
            before = visible(net)
            look(net, x)
            assert_same(visible(net), before)
            net.backward()
            before = visible(net)
            look(net, x)
            assert_same(visible(net), before)
            net.arena.data[...] -= 1e-3 * net.arena.diff
    return losses, net.arena.data.copy(), net.arena.diff.copy()


@KERNELS
@pytest.mark.parametrize("source", ["input", "data"])
@pytest.mark.parametrize("look", LOOKS)
def test_training_is_the_same_bit_for_bit(look, source, kernels, rng):
    x = rng.random((ROWS, 1, 6, 6)).astype("float32")
    layers = with_input() if source == "input" else with_data(rng)
    inputs = {"pictures": x} if source == "input" else {}
    losses, data, diff = trained(layers, lambda net, x: None, x, kernels, inputs)
    losses_of_looks, data_of_looks, diff_of_looks = trained(layers, LOOKS[look], x, kernels, inputs)
    assert losses_of_looks == losses
    np.testing.assert_array_equal(data_of_looks, data)
    np.testing.assert_array_equal(diff_of_looks, diff)


@pytest.mark.parametrize(
    "case", [c for c in cases.WITH_KERNELS if "Data" not in c.id], ids=lambda case: case.id
)
def test_no_layer_loses_what_it_keeps_for_its_backward_pass(case, rng):
    """A backward pass after inference on other rows gives the diffs of the forward pass before."""
    arrays = case.draw(rng, 3)
    nets = [case.net(np.random.default_rng(1), arrays) for _ in range(2)]
    inputs = {b: arrays[b] for b in arrays if any(x.tops == [b] for x in nets[0].inputs)}
    other = {name: array[[2, 0]] for name, array in inputs.items()}
    for net in nets:
        net.forward(**inputs)
        if net is nets[1] and inputs:
            net.infer(net.layers["y"].tops, **other)
        net.backward(
            **{
                top: np.ones_like(net.blobs[top].data)
                for top in net.layers["y"].tops
                if net.blobs[top].diff is not None
            }
        )
    first, second = (
        {
            **{name: b.diff for name, b in net.blobs.items() if b.diff is not None},
            **{name: p.diff for name, p in net.params.items()},
        }
        for net in nets
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)


class Keeps(lk.Layer):
    """Keeps what its backward pass needs in an attribute of its own, and counts its passes."""

    calls = 0

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        self.x, self.calls = bottoms[0].data.copy(), self.calls + 1
        tops[0].data[...] = self.x**2

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = 2 * self.x * tops[0].diff


def test_layers_that_keep_things_to_themselves(rng):
    net = lk.Net(
        [
            L.Input("x", shape=(3,)),
            Keeps("y", ["x"]),
            L.Accuracy("a", "y", "t"),
            L.Input("t", shape=()),
        ],
        4,
        dtype="float64",
        gradients="all",
    )
    x = rng.standard_normal((4, 3))
    net.forward(x=x, t=np.zeros(4))
    net.infer("y", x=rng.standard_normal((9, 3)))
    assert net.layers["y"].calls == 1
    net.backward(y=np.ones((4, 3)))
    np.testing.assert_allclose(net.blobs["x"].diff, 2 * x, rtol=1e-15)


# In inference layers act as in phase "test".


@KERNELS
def test_inference_leaves_nothing_out(kernels, rng):
    """Equal rows through Dropout give equal values: the ones that a test net gives."""
    layers = [L.Input("x", shape=(5,)), L.Dropout("d", "x", ratio=0.8), L.Dense("y", "d", units=3)]
    net = lk.Net(layers, 4, kernels=kernels, dtype="float64")
    x = np.tile(rng.standard_normal(5), (8, 1))
    w, b = net.params["y/weight"].data, net.params["y/bias"].data
    for sample in (True, False):
        np.testing.assert_allclose(net.infer("y", sample, x=x), x @ w + b, rtol=1e-13)
    assert net.run.training
    net.forward(x=x[:4])
    assert (net.blobs["d"].data == 0).any()


class Reads(lk.Layer):
    """Writes which phase it runs in."""

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data.fill(self.run.training)


def test_layers_of_ones_own_are_told_the_phase():
    net = lk.Net([L.Input("x", shape=(1,)), Reads("y", ["x"])], 2)
    x = np.zeros((2, 1))
    net.forward(x=x)
    assert net.blobs["y"].data.tolist() == [[1], [1]]
    assert net.infer("y", x=x).tolist() == [[0], [0]]
    net.forward(x=x)
    assert net.blobs["y"].data.tolist() == [[1], [1]]


@KERNELS
def test_each_look_draws_noise_of_its_own_which_can_be_repeated(kernels, rng):
    net = lk.Net(with_input(), 4, kernels=kernels, seed=5)
    x = rng.random((10, 1, 6, 6))
    net.forward(pictures=x[:4])
    first, second = net.infer("z", pictures=x), net.infer("z", pictures=x)
    assert (first != second).all()
    net.set_state(net.state())
    np.testing.assert_array_equal(net.infer("z", pictures=x), first)
    net.forward(pictures=x[:4])
    assert (net.infer("z", pictures=x) != first).all()
    net.run.passes = 1
    np.testing.assert_array_equal(net.infer("z", pictures=x), first)


def test_a_look_in_vain_is_forgotten(rng):
    net = lk.Net(with_input(), 4)
    with pytest.raises(NetError):
        net.infer("z", pictures=np.zeros((2, 5)))
    assert net.run.training
    assert net.run.sample
    assert net.run.passes == 0


@KERNELS
def test_profiling_puts_everything_back(kernels, rng):
    layers = with_data(rng)
    nets = [lk.Net(layers, ROWS, kernels=kernels) for _ in range(2)]
    solvers = [lk.Adam(net, 1e-2) for net in nets]
    for solver in solvers:
        solver.steps(3)
    assert solvers[1].profile(2).milliseconds > 0
    assert nets[0].state() == nets[1].state()
    assert solvers[0].iteration == solvers[1].iteration
    np.testing.assert_array_equal(*(solver.steps(5) for solver in solvers))
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)
    for name in solvers[0].history:
        np.testing.assert_array_equal(*(solver.history[name] for solver in solvers))


def test_saving_changes_nothing(rng, tmp_path):
    net = lk.Net(with_data(rng), ROWS)
    solver = lk.Adam(net)
    solver.step()
    net.forward()
    before = visible(net)
    lk.save(tmp_path / "net.h5", net, solver)
    assert_same(visible(net), before)
    net.backward()


# A backward pass belongs to a forward pass.


def test_backward_before_forward_is_refused(rng, tmp_path):
    x = {"pictures": rng.random((4, 1, 6, 6))}
    net = lk.Net(with_input(), 4)
    solver = lk.Adam(net)
    lk.save(tmp_path / "net.h5", net, solver)

    def refused():
        with pytest.raises(NetError) as message:
            net.backward()
        assert "\n" not in str(message.value)
        assert "call net.forward first" in str(message.value)

    refused()
    net.forward(**x)
    net.backward()
    net.backward()
    solver.step(**x)
    refused()  # the blobs are of the parameters before the step
    net.forward(**x)
    lk.load(tmp_path / "net.h5", net, solver)
    refused()
    net.forward(**x)
    with pytest.raises(NetError):
        net.forward(pictures=np.zeros((4, 7)))
    net.backward()  # nothing was overwritten
    solver.steps(2, **x)
    refused()


def test_backward_after_a_forward_pass_that_failed_is_refused(rng):
    class Fails(Keeps):
        def forward(self, bottoms, tops):
            super().forward(bottoms, tops)
            if self.calls == 2:
                raise RuntimeError("this one")

    net = lk.Net([L.Input("x", shape=(3,)), Fails("y", ["x"])], 4, gradients="all")
    net.forward(x=np.ones((4, 3)))
    with pytest.raises(RuntimeError):
        net.forward(x=np.zeros((4, 3)))
    with pytest.raises(NetError, match="an error has come after it"):
        net.backward()


# Several threads.


def in_threads(*calls):
    """Runs the calls at once, each in a thread; raises what one of them raised."""
    failures, start = [], threading.Barrier(len(calls))

    def run(call):
        start.wait()
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@KERNELS
def test_threads_that_infer_get_what_one_thread_gets(kernels, rng):
    net = lk.Net(with_input(), 4, kernels=kernels)
    shared = lk.Net(with_input(), 3, kernels=kernels, phase="test", share=net)
    pictures = rng.random((8, 5, 1, 6, 6))
    expected = [net.infer("f", False, pictures=x) for x in pictures]
    wrong = []

    def infer(i):
        for k in range(60):
            of = (net, shared)[k % 2]
            f = of.infer("f", False, pictures=pictures[i])
            if not np.allclose(f, expected[i], rtol=1e-5):
                wrong.append(i)

    in_threads(*(lambda i=i: infer(i) for i in range(8)))
    assert not wrong


@KERNELS
def test_training_in_threads_is_training(kernels, rng, tmp_path):
    """Steps of several threads follow one another, while others look, save and evaluate."""
    layers = with_data(rng, augment=None)
    nets = [lk.Net(layers, ROWS, kernels=kernels, seed=2) for _ in range(2)]
    solvers = [lk.Adam(net, 1e-2) for net in nets]
    test = lk.Net(layers, 4, kernels=kernels, phase="test", share=nets[1])
    found = []
    x = rng.random((5, 1, 6, 6))

    def look():
        for k in range(10):
            nets[1].infer("f", pictures=x)
            test.evaluate()
            lk.save(tmp_path / f"{threading.get_ident()}.h5", nets[1], solvers[1])
            nets[1].rebuild()
            if k % 3 == 0:
                with nets[1].lock:
                    nets[1].freeze("g/bias")
                    nets[1].unfreeze("g/bias")

    in_threads(*[lambda: found.extend(solvers[1].step() for _ in range(25))] * 4, look, look)
    assert sorted(found) == sorted(solvers[0].steps(100))
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)


def test_forward_and_backward_of_one_thread_can_be_kept_together(rng):
    net = lk.Net(
        [L.Input("x", shape=(3,)), L.Dense("y", "x", units=3), L.SquareLoss("loss", "y", "x")],
        4,
        dtype="float64",
    )
    inputs = rng.standard_normal((4, 4, 3))
    expected = []
    for x in inputs:
        net.forward(x=x)
        net.backward()
        expected.append(net.params["y/weight"].diff.copy())
    wrong = []

    def differentiate(i):
        for _ in range(50):
            with net.lock:
                net.forward(x=inputs[i])
                net.backward()
                if (net.params["y/weight"].diff != expected[i]).any():
                    wrong.append(i)

    in_threads(*(lambda i=i: differentiate(i) for i in range(4)))
    assert not wrong


FORKED = """
import os, threading
import numpy as np, layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError
layers = [L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)]
held, free = lk.Net(layers, 4), lk.Net(layers, 4)
sharing = lk.Net(layers, 2, phase="test", share=held)
x = np.ones((4, 3))
inside, over = threading.Event(), threading.Event()
def work():
    with held.lock:
        inside.set()
        over.wait()
worker = threading.Thread(target=work)
worker.start()
inside.wait()
with free.lock:  # the thread that forks may hold a net itself
    child = os.fork()
    if child == 0:
        free.infer("y", x=x)
        said = []
        for net in (held, sharing):
            try:
                net.infer("y", x=x)
            except NetError as error:
                said.append("forked" in str(error))
        os._exit(0 if said == [True, True] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
worker.join()
held.infer("y", x=x)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_net_in_use_by_another_thread_cannot_be_used_in_the_child_of_a_fork():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


# Copies.


def pickled(value):
    return pickle.loads(pickle.dumps(value))


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickled}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", [lk.SGD, lk.Nesterov, lk.Adam])
def test_a_copy_goes_on_as_its_original_does(way, kind, rng):
    layers = with_data(rng)
    net = lk.Net(layers, ROWS, seed=2, dtype="float64")
    solver = kind(net, lk.rates.Cosine(1e-2, 50), clip=3.0)
    net.freeze("g/bias")
    loss = next(x for x in net.layers.values() if x.is_loss)
    loss.weight = 0.5
    net.params["f/weight"].l2 = 0.25
    solver.steps(5)
    if way == "copy":
        other = kind(COPIES[way](net), lk.rates.Cosine(1e-2, 50), clip=3.0)
        for name, flat in other.history.items():
            flat[...] = solver.history[name]
        other.iteration = 5
    else:
        other = COPIES[way](solver)
    assert type(other) is kind
    assert (other.iteration, other.clip, other.rate) == (5, 3.0, solver.rate)
    copied = other.net
    assert repr(copied) == repr(net)
    assert copied.state() == net.state()
    assert copied.layers[loss.name].weight == 0.5
    assert not copied.params["g/bias"].trainable
    before = copied.arena.data.copy()
    np.testing.assert_array_equal(before, net.arena.data)
    losses = solver.steps(7)
    np.testing.assert_array_equal(copied.arena.data, before)  # it has memory of its own
    np.testing.assert_array_equal(other.steps(7), losses)
    np.testing.assert_array_equal(copied.arena.data, net.arena.data)


@pytest.mark.parametrize("way", [*COPIES, "rebuild"])
def test_settings_changed_after_a_net_was_made_are_its_copies_too(way):
    """A copy that had the settings of the net's list would train to other numbers, in silence."""
    layers = [
        lk.layers.Input("x", shape=(3,)),
        lk.layers.Input("t", shape=()),
        lk.layers.Dense("d", "x", units=4, neuron=lk.layers.LeakyReLU.of(slope=0.1)),
        lk.layers.SoftmaxLoss("s", "d", "t", ignore=3, weights=(1, 2, 3, 4)),
    ]
    net = lk.Net(layers, 4)
    settings = {"l1": 0.1, "l2": 0.2, "rate": 2.0, "decay": 0.5, "max_norm": 3.0}
    for name, value in settings.items():
        setattr(net.params["d/weight"], name, value)
    net.layers["d"].neuron.slope = 0.4
    net.layers["s"].ignore = None
    copied = net.rebuild() if way == "rebuild" else COPIES[way](net)
    assert {k: getattr(copied.params["d/weight"], k) for k in settings} == settings
    assert (copied.layers["d"].neuron.slope, copied.layers["s"].ignore) == (0.4, None)
    inputs = {"x": np.eye(4, 3), "t": np.arange(4)}
    losses = [lk.SGD(one, 0.1).steps(3, **inputs) for one in (net, copied)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copied_solver_has_its_own_hooks_and_plateau(way):
    policy = lk.rates.WarmUp(lk.rates.Plateau(0.1, patience=1), 3)
    solver = lk.SGD(lk.Net(with_input(), 4), policy)
    other = COPIES[way](solver)
    other.hooks.append(print)
    for value in (1.0, 2.0):
        other.rate.policy.observe(value)
    assert (solver.hooks, solver.rate(9)) == ([], 0.1)
    assert other.rate(9) == pytest.approx(0.01)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_share_what_their_originals_share(way, rng):
    x = rng.random((4, 1, 6, 6))
    net = lk.Net(with_input(), 4, seed=1)
    test = lk.Net(with_input(), 4, phase="test", share=net)
    part = lk.Net(with_input(), 4, seed=3, share=net, share_only="g")
    solver = lk.Adam(part)
    copied = COPIES[way]({"solver": solver, "test": test, "net": net, "part": part})
    assert copied["solver"].net is copied["part"]
    g = [copied[name].params["g/weight"].data for name in ("net", "test", "part")]
    assert np.shares_memory(g[0], g[1])
    assert np.shares_memory(g[0], g[2])
    assert not np.shares_memory(g[0], net.params["g/weight"].data)
    assert not np.shares_memory(
        copied["part"].params["f/weight"].data, copied["net"].params["f/weight"].data
    )
    for name in ("net", "test", "part"):
        original = {"net": net, "test": test, "part": part}[name]
        assert copied[name].lock is copied["net"].lock
        np.testing.assert_array_equal(
            copied[name].infer("f", pictures=x), original.infer("f", pictures=x)
        )


class NotPickled(lk.layers.ReLU):
    def __init__(self, name, bottom):
        super().__init__(name, bottom)
        self.function = lambda x: x


class Forgetful(lk.SGD):
    def __init__(self, net, rate, secret):
        super().__init__(net, rate)


def test_what_cannot_be_copied_or_pickled_is_named():
    net = lk.Net(with_input(), 4)
    odd = lk.Net([*with_input(), NotPickled("odd", "f")], 4)
    assert copy.deepcopy(odd).blobs.keys() == odd.blobs.keys()
    for copied, what, words in (
        (copy.deepcopy, net.layers["g"], "belongs to a net and cannot be copied or pickled"),
        (pickle.dumps, {"net": odd}, r"'odd' \(NotPickled\) cannot be pickled"),
        (pickle.dumps, lk.Adam(net, lambda i: 1e-3), "Adam: rate, .* cannot be pickled"),
        (copy.deepcopy, Forgetful(net, 0.1, 3), "Forgetful: .* no attribute 'secret'"),
    ):
        with pytest.raises(LayerkitError, match=words) as message:
            copied(what)
        assert "\n" not in str(message.value)


def test_lists_of_layers_can_be_copied(rng):
    x = rng.random((4, 1, 6, 6))
    layers = with_input()
    expected = lk.Net(layers, 4).forward(pictures=x)
    assert lk.Net(copy.deepcopy(layers), 4).forward(pictures=x) == expected
    assert lk.Net(pickle.loads(pickle.dumps(layers)), 4).forward(pictures=x) == expected
