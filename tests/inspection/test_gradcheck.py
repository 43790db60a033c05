"""The gradient checker itself: it must find what is wrong, and leave alone what is right."""

import re

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import GradientError, NetError
from layerkit.inspection.gradcheck import settled_difference

FACTORS = [1 + 1e-3, 1 - 1e-3, 2.001 / 2, 1 + 1e-4]


class Swish(lk.Layer):
    """y = x * sigmoid(beta * x), with one learned beta: a complete layer of a user's own."""

    def __init__(self, name, bottom, *, beta=1.0, tops=None):
        super().__init__(name, [bottom], tops)
        self.beta_init = beta

    def setup(self, shapes):
        self.beta = self.parameter("beta", (1,), self.beta_init)
        return shapes

    def forward(self, bottoms, tops):
        x = bottoms[0].data
        tops[0].data[...] = x / (1 + self.xp.exp(-self.beta.data * x))

    def backward(self, bottoms, tops):
        x, dy = bottoms[0].data, tops[0].diff
        s = 1 / (1 + self.xp.exp(-self.beta.data * x))
        slope = s * (1 - s)
        self.beta.diff[...] = (dy * x * x * slope).sum()
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = dy * (s + self.beta.data * x * slope)


class Bilinear(lk.Layer):
    """y = scale * a * b^2, with a backward pass that `spoil` can make wrong."""

    def __init__(self, name, a, b, *, spoil=lambda layer, a, b, dy: None):
        super().__init__(name, [a, b])
        self.spoil = spoil

    def setup(self, shapes):
        self.scale = self.parameter("scale", shapes[0], lk.initializers.Normal(1.0))
        return shapes[:1]

    def forward(self, bottoms, tops):
        a, b = (x.data for x in bottoms)
        tops[0].data[...] = self.scale.data * a * b * b

    def backward(self, bottoms, tops):
        (a, b), dy = bottoms, tops[0].diff
        self.scale.diff[...] = (dy * a.data * b.data**2).sum(axis=0)
        a.diff[...] = dy * self.scale.data * b.data**2
        b.diff[...] = dy * self.scale.data * a.data * b.data * 2
        self.spoil(self, a, b, dy)


def spoiled(rng, spoil, shape=(3, 4), **settings):
    """Checks a Bilinear layer on random numbers."""
    a, b = rng.standard_normal((2, *shape))
    layers = [
        L.Input("a", shape=shape[1:]),
        L.Input("b", shape=shape[1:]),
        Bilinear("y", "a", "b", spoil=spoil),
    ]
    seed = int(rng.integers(2**31))
    return lk.check_gradients(lk.Net(layers, seed=seed), seed=seed, a=a, b=b, **settings)


def test_a_layer_of_ones_own_in_one_line(rng):
    array = rng.standard_normal((3, 4))
    report = lk.check_gradients(Swish("y", "x"), x=array)
    assert set(report.errors) == {"y/beta", "input x"}
    # 4 directions through each array, and each of 1 + 12 elements
    assert (report.checked, report.kinks, report.failures) == (8 + 13, 0, [])
    assert max(report.errors.values()) < 1e-8
    assert str(report).startswith("21 derivatives of 2 arrays agree; the largest relative error")


def test_correct_gradients_pass(rng):
    report = spoiled(rng, lambda layer, a, b, dy: None)
    assert set(report.errors) == {"input a", "input b", "y/scale"}
    assert report.kinks == 0
    assert max(report.errors.values()) < 1e-7


def scale_parameter(factor):
    def spoil(layer, a, b, dy):
        layer.scale.diff[...] *= factor

    return spoil


def scale_bottom(factor):
    def spoil(layer, a, b, dy):
        b.diff[...] *= factor

    return spoil


@pytest.mark.parametrize("factor", [*FACTORS, -1, 0, 2])
@pytest.mark.parametrize(
    ("spoil", "name"), [(scale_parameter, "y/scale"), (scale_bottom, "input b")]
)
def test_wrong_factors_are_caught(spoil, name, factor, rng):
    with pytest.raises(GradientError) as caught:
        spoiled(rng, spoil(factor))
    lines = str(caught.value).split("\n")[1:]
    assert all(line.strip().startswith((name, "...")) for line in lines)


def one_of_two_bottoms(layer, a, b, dy):
    a.diff[...] = 0


def missing_term(layer, a, b, dy):
    b.diff[...] /= 2  # d(b * b) is b twice


def first_example_only(layer, a, b, dy):
    a.diff[...] = dy[0] * layer.scale.data * b.data**2


@pytest.mark.parametrize("spoil", [one_of_two_bottoms, missing_term, first_example_only])
def test_usual_mistakes_are_caught(spoil, rng):
    with pytest.raises(GradientError):
        spoiled(rng, spoil)


class AddsToParameter(Swish):
    """Adds to a diff instead of overwriting it."""

    def backward(self, bottoms, tops):
        before = self.beta.diff.copy()
        super().backward(bottoms, tops)
        self.beta.diff += before


class AddsToBottom(Swish):
    """The same for the other diff."""

    def backward(self, bottoms, tops):
        before = bottoms[0].diff.copy()
        super().backward(bottoms, tops)
        bottoms[0].diff += before


class Gaps(Swish):
    """Writes only where x > 0, and trusts that there was zero elsewhere."""

    def backward(self, bottoms, tops):
        before = bottoms[0].diff.copy()
        super().backward(bottoms, tops)
        bottoms[0].diff[...] = np.where(bottoms[0].data > 0, bottoms[0].diff, before)

    def forward(self, bottoms, tops):
        super().forward(bottoms, tops)
        tops[0].data[...] *= bottoms[0].data > 0


@pytest.mark.parametrize("layer", [AddsToParameter, AddsToBottom, Gaps])
def test_diffs_that_are_not_overwritten_are_caught_and_explained(layer, rng):
    with pytest.raises(GradientError, match="backward must write every diff in full, with ="):
        lk.check_gradients(layer("y", "x"), x=rng.uniform(-2, 2, size=(3, 4)) + 0.1)


class OneScale(L.SquareLoss):
    """Scales all examples alike: right for a plain mean, wrong in general."""

    def backward(self, bottoms, tops):
        mean = np.full_like(tops[0].diff, tops[0].diff.mean())
        super().backward(bottoms, [lk.Blob("y", tops[0].data, mean)])


def test_a_loss_must_scale_each_example_by_itself(rng):
    x, t = rng.standard_normal((2, 3, 4))
    lk.check_gradients(L.SquareLoss("y", "x", "t"), x=x, t=t)
    with pytest.raises(GradientError):
        lk.check_gradients(OneScale("y", "x", "t"), x=x, t=t)


# How small an error shows.


def one_element(error):
    def spoil(layer, a, b, dy):
        typical = np.sqrt(np.mean(a.diff**2))
        a.diff[-1, -1] += error * typical

    return spoil


@pytest.mark.parametrize("error", [1e-3, 1.0])
def test_one_wrong_element_of_a_small_array(error, rng):
    with pytest.raises(GradientError, match=r"input a\[2, 3\]: "):
        spoiled(rng, one_element(error))


def test_one_wrong_element_of_a_large_array(rng):
    """Found by the random directions, as the error is far above tolerance * sqrt(size)."""
    with pytest.raises(GradientError, match="input a along a random direction"):
        spoiled(rng, one_element(0.1), shape=(100, 200), elements=0)


def test_what_random_directions_cannot_see(rng):
    """One element in 20,000, wrong by much less than tolerance * sqrt(size) = 1.4e-4 of typical."""
    spoiled(rng, one_element(1e-5), shape=(100, 200), elements=0)


def wrong_weight(factor):
    class WrongWeight(L.Dense):
        def backward(self, bottoms, tops):
            super().backward(bottoms, tops)
            self.w.diff[...] *= factor

    return WrongWeight


@pytest.mark.parametrize("factor", [1, 1 + 1e-3])
def test_small_gradients_of_a_net_full_of_relus(factor, rng):
    """A small weight leaves gradients of about 1e-3; a factor 1.001 must show even there."""
    layers = [
        L.Input("x", shape=(30,)),
        wrong_weight(factor)("h1", "x", units=20, neuron="relu"),
        L.Dense("h2", "h1", units=20, neuron="relu"),
        L.Dense("out", "h2", units=30),
        L.SquareLoss("loss", "out", "x", weight=1e-3),
    ]
    net = lk.Net(layers, batch_size=16, seed=int(rng.integers(2**31)))
    x = 0.3 * rng.standard_normal((16, 30))
    if factor == 1:
        report = lk.check_gradients(net, x=x, elements=16)
        assert report.checked > 4 * report.kinks
        return
    with pytest.raises(GradientError) as caught:
        lk.check_gradients(net, x=x, elements=16)
    lines = str(caught.value).split("\n")[1:]
    assert all(line.strip().startswith(("h1/weight", "...")) for line in lines)


@pytest.mark.parametrize("size", [1e-3, 1, 1e2, 1e4])
def test_losses_of_any_size(size, rng):
    """Rounding of a loss of 1e10 is no wrong gradient, and hides none that is off by 1e-3."""
    x = size * rng.standard_normal((4, 60))

    seed = int(rng.integers(2**31))

    def net(out):
        layers = [
            L.Input("x", shape=(60,)),
            L.Dense("h", "x", units=10, neuron="tanh"),
            out,
            L.SquareLoss("loss", "out", "x"),
        ]
        return lk.Net(layers, batch_size=4, seed=seed)

    class WrongBias(L.Dense):
        def backward(self, bottoms, tops):
            super().backward(bottoms, tops)
            self.b.diff[...] *= 1.001

    report = lk.check_gradients(net(L.Dense("out", "h", units=60)), x=x, elements=16)
    # With weights times 1e4, even the shortest step can be too long for a tanh.
    assert report.kinks <= (0 if size < 1e4 else report.checked / 10)
    with pytest.raises(GradientError, match="out/bias"):
        lk.check_gradients(net(WrongBias("out", "h", units=60)), x=x, elements=16)


# Kinks.


class WrongSlope(L.ReLU):
    """A ReLU whose gradient is too large by 1e-3."""

    def differentiate(self, xp, y, dy, dx):
        super().differentiate(xp, y, dy, dx)
        dx *= 1.001


def at_kinks(rng):
    """Inputs of a rectifier: at zero, very near it, near it, and away from it."""
    away = rng.uniform(0.1, 1, size=(6, 4)) * rng.choice([-1, 1], size=(6, 4))
    near = [0.0, 1e-9, -1e-7, 1e-6, -1e-5, 3e-5, 1e-4, -2e-4, 3e-4, 4e-4, 1e-3, 2e-3]
    away.flat[:6] = rng.permutation(near)[:6]
    return away


@pytest.mark.parametrize("layer", [L.ReLU, L.LeakyReLU])
def test_kinks_raise_no_alarm(layer, rng):
    for _ in range(5):
        report = lk.check_gradients(layer("y", "x"), x=at_kinks(rng), seed=int(rng.integers(2**31)))
        assert report.checked >= 18
        assert report.kinks <= 4 + 6


def test_a_wrong_gradient_is_caught_beside_kinks(rng):
    with pytest.raises(GradientError) as caught:
        lk.check_gradients(WrongSlope("y", "x"), x=at_kinks(rng))
    assert "(relative error 1.0e-03, allowed 1e-06)" in str(caught.value)


def test_an_array_that_cannot_be_checked_is_no_success(rng):
    """All its inputs are at the kink: nothing was compared, and that is said."""
    a, b = np.zeros((3, 4)), rng.uniform(1, 2, size=(3, 4))
    layers = [
        L.Input("a", shape=(4,)),
        L.Input("b", shape=(4,)),
        L.ReLU("r", "a"),
        L.Add("y", "r", "b"),
    ]
    with pytest.raises(GradientError, match=r"input a: 12 of 12 derivatives cannot be compared"):
        lk.check_gradients(layers, a=a, b=b)


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e6])
def test_one_kink_at_any_distance(size, rng):
    """A settled derivative of slope t + jump |t - d| / 2 is right to the tolerance."""
    tolerance, settled = 1e-6, 0
    for _ in range(3000):
        d = 10.0 ** rng.uniform(-7, -2.5) * rng.choice([-1, 1])
        jump = 10.0 ** rng.uniform(-7, 1)
        slope, bend = size * rng.standard_normal(), size * rng.standard_normal()

        def f(t, d=d, jump=size * jump, slope=slope, bend=bend):
            return slope * t + bend * t * t + jump * abs(t - d) / 2

        true = slope - size * jump * np.sign(d) / 2
        result = settled_difference(f, f(0.0), abs(f(0.0)), size, tolerance)
        if result is not None:
            settled += 1
            numeric, rounding = result
            scale = max(abs(true), abs(numeric), size)
            assert abs(numeric - true) <= tolerance * scale + rounding
    assert settled > 1000


# Layers that cannot be checked.


class Unseeded(L.Tanh):
    """Adds noise of its own, which is not held fixed."""

    noise = np.random.default_rng()

    def activate(self, xp, x, y):
        super().activate(xp, x, y)
        y += 1e-6 * self.noise.standard_normal(y.shape)


class Remembers(L.Tanh):
    """Keeps something from pass to pass."""

    calls = 0

    def activate(self, xp, x, y):
        self.calls += 1
        super().activate(xp, x, y)
        y += self.calls


@pytest.mark.parametrize("layer", [Unseeded, Remembers])
def test_a_forward_pass_that_changes_is_reported(layer, rng):
    with pytest.raises(GradientError, match="changes from call to call; draw noise with self"):
        lk.check_gradients(layer("y", "x"), x=rng.standard_normal((3, 4)))


class Kept(L.Tanh):
    """Keeps the slope of its first forward pass."""

    slope = None

    def forward(self, bottoms, tops):
        if self.slope is None:
            self.slope = (bottoms[0].data > 0) * 2.0
        tops[0].data[...] = self.slope * bottoms[0].data

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = self.slope * tops[0].diff


class KeptScale(Kept):
    """Keeps the scale of its first inputs, which is that of their rows in any order."""

    def forward(self, bottoms, tops):
        if self.slope is None:
            self.slope = 1 / bottoms[0].data.std()
        tops[0].data[...] = self.slope * bottoms[0].data


class KeptBackward(L.Tanh):
    """Keeps the derivative of its first backward pass."""

    slope = None

    def backward(self, bottoms, tops):
        if self.slope is None:
            self.slope = 1 - tops[0].data ** 2
        bottoms[0].diff[...] = self.slope * tops[0].diff


class Lazy(L.Tanh):
    """Makes its work space in its first pass, which is no fault."""

    space = None

    def forward(self, bottoms, tops):
        if self.space is None:
            self.space = np.empty_like(bottoms[0].data)
        np.tanh(bottoms[0].data, out=self.space)
        tops[0].data[...] = self.space


@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_kept_from_the_first_pass_is_found(rows, rng):
    x = rng.standard_normal((rows, 4))
    x[0, 0] = 1.5
    with pytest.raises(GradientError, match="depends on the inputs of the passes before"):
        lk.check_gradients(KeptScale("y", "x"), x=x)
    with pytest.raises(GradientError, match="failures of the gradient check"):
        lk.check_gradients(KeptBackward("y", "x"), x=x)
    if rows > 1:
        with pytest.raises(GradientError, match="depends on the inputs of the passes before"):
            lk.check_gradients(Kept("y", "x"), x=x)
    lk.check_gradients(Lazy("y", "x"), x=x)


def test_a_value_that_is_not_finite_is_reported():
    with pytest.raises(GradientError, match="nan: blob 'x'"):
        lk.check_gradients(L.Tanh("y", "x"), x=np.full((3, 4), np.nan))


class Log(lk.Layer):
    """y = log(scale * x), whose domain ends at zero."""

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])

    def setup(self, shapes):
        self.scale = self.parameter("scale", (1,), 1e-3)
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = self.xp.log(self.scale.data * bottoms[0].data)

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = tops[0].diff / bottoms[0].data
        self.scale.diff[...] = tops[0].diff.sum() / self.scale.data


def test_the_edge_of_a_domain(rng):
    """The first step leads to log(0), of which no warning comes either."""
    x = 10.0 ** rng.uniform(-3.5, 0, size=(5, 3))
    x[0, 0] = 1e-3
    assert lk.check_gradients(Log("y", "x"), x=x).kinks <= 4


def test_inputs_in_any_layout(rng):
    x = rng.standard_normal((3, 4))
    for strange in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x.tolist()):
        report = lk.check_gradients(L.Tanh("y", "x"), x=strange)
        assert report.errors == lk.check_gradients(L.Tanh("y", "x"), x=x).errors


def test_nothing_to_check_is_no_success(rng):
    with pytest.raises(NetError, match="nothing to check"):
        lk.check_gradients(L.Accuracy("y", "x", "t"), x=rng.standard_normal((3, 4)), t=np.zeros(3))


def test_inputs_that_do_not_fit():
    with pytest.raises(NetError, match=r"'x'.*the number 3"):
        lk.check_gradients(L.Tanh("y", "x"), x=3.0)
    with pytest.raises(NetError, match="bottom 'x'"):
        lk.check_gradients(L.Tanh("y", "x"))
    with pytest.raises(NetError, match="rows"):
        lk.check_gradients(L.Add("y", "x", "t"), x=np.zeros((2, 3)), t=np.zeros((3, 3)))


# Messages, and what is left behind.


def test_the_message_names_the_array_and_both_numbers():
    """y = 3 a b^2 at a = 1, b = 2, weighted at random: dy/da = 12 w, and backward says 12.012 w."""

    def spoil(layer, a, b, dy):
        a.diff[...] *= 1.001

    layer = Bilinear("y", "a", "b", spoil=spoil)
    net = lk.Net([L.Input("a", shape=(1,)), L.Input("b", shape=(1,)), layer])
    net.params["y/scale"].data[...] = 3
    with pytest.raises(GradientError) as caught:
        lk.check_gradients(net, a=[[1.0]], b=[[2.0]], directions=0)
    message = str(caught.value)
    assert message.startswith("1 failures of the gradient check:\n  input a[0, 0]: ")
    analytic, numeric = (float(x) for x in re.findall(r"says? (-?[\d.]+)", message))
    assert analytic / numeric == pytest.approx(1.001, rel=1e-7)
    assert "(relative error 1.0e-03, allowed 1e-06)" in message


def test_long_lists_are_cut(rng):
    with pytest.raises(GradientError) as caught:
        spoiled(rng, scale_bottom(2), directions=2)
    lines = str(caught.value).split("\n")
    assert lines[0] == "14 failures of the gradient check:"
    assert len(lines) == 12
    assert lines[-1].strip() == "... and 4 more"


def test_tolerance_and_counts_are_the_callers(rng):
    report = spoiled(rng, scale_bottom(1.001), tolerance=2e-3, directions=1, elements=12)
    assert report.checked == 1 + 12 + 1 + 12 + 1 + 4
    assert 9e-4 < report.errors["input b"] < 1.1e-3
    report = spoiled(rng, scale_bottom(1.001), tolerance=2e-3, directions=2, elements=3)
    assert report.checked == 3 * 5


def test_the_net_is_left_as_it_was(rng):
    x = rng.standard_normal((5, 3)).astype("float32")
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("m", "x", units=2),
        L.Reparameterize("y", "m", "m"),
        L.SquareLoss("loss", "y", "m"),
    ]
    net = lk.Net(layers, batch_size=8, seed=int(rng.integers(2**31)))
    net.forward(x=x)
    net.backward()
    before, diffs, state, kept = net.arena.data.copy(), net.arena.diff.copy(), net.state(), x.copy()
    lk.check_gradients(net, x=x)
    np.testing.assert_array_equal(net.arena.data, before)
    np.testing.assert_array_equal(net.arena.diff, diffs)
    np.testing.assert_array_equal(x, kept)
    assert net.state() == state


def test_frozen_parameters_are_left_out(rng):
    net = lk.Net([L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)])
    net.freeze("y/weight")
    report = lk.check_gradients(net, x=rng.standard_normal((4, 3)))
    assert set(report.errors) == {"y/bias", "input x"}


def test_a_net_that_brings_its_data(rng):
    layers = [
        L.MemoryData("x", data=rng.standard_normal((7, 3))),
        L.Dense("y", "x", units=2),
        L.SquareLoss("loss", "y", "y2"),
        L.Dense("y2", "x", units=2, neuron="tanh"),
    ]
    net = lk.Net(layers, batch_size=4, seed=int(rng.integers(2**31)))
    net.forward()
    report = lk.check_gradients(net)
    assert set(report.errors) == set(net.params)


class ByBatchSize(L.SquareLoss):
    """A loss whose backward divides by the batch size where there are fewer rows."""

    def backward(self, bottoms, tops):
        super().backward(bottoms, tops)
        bottoms[0].diff *= len(bottoms[0].data) / self.run.batch_size


class Centred(lk.Layer):
    """y = x - the mean of x over the batch, with a backward pass that takes either number."""

    def __init__(self, name, bottom, *, by_rows):
        super().__init__(name, [bottom])
        self.by_rows = by_rows

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = bottoms[0].data - bottoms[0].data.mean(axis=0)

    def backward(self, bottoms, tops):
        dy = tops[0].diff
        rows = len(dy) if self.by_rows else self.run.batch_size
        bottoms[0].diff[...] = dy - dy.sum(axis=0) / rows


def test_a_batch_size_in_place_of_the_number_of_rows_is_found(rng):
    x = rng.standard_normal((5, 3))
    lk.check_gradients(Centred("y", "x", by_rows=True), x=x)
    for layers in (
        Centred("y", "x", by_rows=False),
        ByBatchSize("s", "x", "t"),
        lk.Net([L.Input("x", shape=(3,)), Centred("y", "x", by_rows=False)], 5),
    ):
        inputs = {"x": x, "t": 2 * x} if isinstance(layers, L.SquareLoss) else {"x": x}
        with pytest.raises(GradientError, match="input x"):
            lk.check_gradients(layers, **inputs)


def test_an_input_that_some_reader_has_no_gradient_for_is_left_out(rng):
    """As counts are, which an encoder reads and a Poisson likelihood; but labels of a metric are
    no reason not to check the logits."""
    x = rng.integers(0, 9, (4, 3)).astype(float)
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("rate", "x", units=3, neuron="softplus"),
        L.PoissonReconstruction("s", "x", "rate"),
    ]
    assert set(lk.check_gradients(layers, x=x).errors) == {"rate/weight", "rate/bias"}
    logits = [
        L.Input("x", shape=(3,)),
        L.Input("t", shape=()),
        L.SoftmaxLoss("s", "x", "t"),
        L.Accuracy("a", "x", "t"),
    ]
    assert set(lk.check_gradients(logits, x=x, t=[0, 1, 2, 0]).errors) == {"input x"}
