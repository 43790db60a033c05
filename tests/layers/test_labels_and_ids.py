"""SoftmaxLoss and Accuracy on labels of many kinds: bad ones, odd ones, and which code runs."""

import cuda_host
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError


def net_of(layer, dtype="float64", **shapes):
    inputs = [L.Input(name, shape=shape) for name, shape in shapes.items()]
    return lk.Net([*inputs, layer], 8, dtype=dtype, gradients="all")


def test_labels_that_are_no_class_are_named_with_their_place():
    for layer in (
        L.SoftmaxLoss("y", "x", "t", axis=0, ignore=-1),
        L.Accuracy("y", "x", "t", axis=0, ignore=-1),
    ):
        net = net_of(layer, x=(3, 2, 2), t=(2, 2))
        t = np.zeros((4, 2, 2))
        t[0, 0, 0] = -1  # which is ignored
        net.forward(x=np.zeros((4, 3, 2, 2)), t=t)
        t[2, 1, 0] = 3
        with pytest.raises(
            DataError, match=r"row 2 of 't' holds 3 at place 2, .* from 0 to 2, .* or -1 to be ign"
        ):
            net.forward(x=np.zeros((4, 3, 2, 2)), t=t)


@pytest.mark.parametrize("bad", [[0.5, 0.6], [1.5, -0.5], [0, 0], [np.nan, 1]])
def test_soft_labels_that_are_no_probabilities_are_named(bad):
    layers = [L.Input("x", shape=(2,)), L.Input("t", shape=(2,))]
    layers += [L.Dense("z", "x", units=2), L.SoftmaxLoss("y", "z", "t")]
    net = lk.Net(layers, 3)
    good = np.array([[0.25, 0.75], [1, 0], [0.3334, 0.6667]])  # rounded a little
    net.forward(x=np.zeros((3, 2)), t=good)
    good[1] = bad
    with pytest.raises(DataError, match=r"row 1 of 't' holds soft labels .* 2 classes"):
        net.forward(x=np.zeros((3, 2)), t=good)


@pytest.mark.parametrize(
    ("layer", "t", "says"),
    [
        (L.HingeLoss("y", "x", "t"), [0, 1, 3], "row 2 of 't' holds 3, which is no class"),
        (L.HingeLoss("y", "x", "t"), [[1, 1, -1], [0, 1, 1]], "row 1 of 't' holds 0; signs, -1 or"),
        (L.ContrastiveLoss("y", "x", "x", "t"), [0, 1, 0.5], "row 2 of 't' holds 0.5; .* 0 or 1"),
    ],
)
def test_labels_that_margins_cannot_take_are_named(layer, t, says):
    net = net_of(layer, x=(3,), t=np.shape(t)[1:])
    with pytest.raises(DataError, match=says):
        net.forward(x=np.ones((len(t), 3)), t=np.array(t))


def test_points_that_coincide_are_not_driven_apart():
    net = net_of(L.ContrastiveLoss("y", "a", "b", "s", margin=2), a=(2,), b=(2,), s=())
    net.forward(a=np.ones((2, 2)), b=np.ones((2, 2)), s=np.array([0, 1]))
    net.backward()
    np.testing.assert_array_equal(net.blobs["y"].data, [2, 0])
    np.testing.assert_array_equal(net.blobs["a"].diff, np.zeros((2, 2)))


def test_labels_of_classes_without_probability_cost_infinitely_much_and_others_nothing():
    x = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    net = net_of(L.SoftmaxLoss("y", "x", "t"), x=(2,), t=())
    net.forward(x=x, t=np.array([0, 1]))
    np.testing.assert_array_equal(net.blobs["y"].data, [0, np.inf])
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, [[0, 0], [0.5, -0.5]])


def test_examples_without_labels_that_count_have_no_loss_and_no_gradient(rng):
    net = net_of(L.SoftmaxLoss("y", "x", "t", ignore=255), x=(3,), t=())
    net.forward(x=rng.standard_normal((3, 3)), t=np.array([0, 255, 2]))
    net.backward()
    assert (net.blobs["y"].data == 0).tolist() == [False, True, False]
    assert (net.blobs["x"].diff == 0).all(axis=1).tolist() == [False, True, False]


def test_the_mean_of_accuracy_is_over_the_labels_that_count():
    net = net_of(L.Accuracy("y", "x", "t", axis=0, ignore=-1), x=(2, 3), t=(3,))
    x = np.zeros((2, 2, 3))
    x[:, 1] = 1  # class 1 everywhere
    net.forward(x=x, t=np.array([[1, 1, 0], [1, -1, -1]]))
    assert net.metrics["y"] == pytest.approx(3 / 4)
    np.testing.assert_allclose(net.blobs["y"].data, [1, 0.5])
    net.forward(x=x, t=np.full((2, 3), -1))
    assert np.isnan(net.metrics["y"])


@pytest.mark.skipif(bool(cuda_host.missing()), reason=str(cuda_host.missing()))
def test_kernels_run_the_plain_case_and_array_code_the_others(rng):
    layers = [
        L.Input("x", shape=(3, 4)),
        L.Input("t", shape=()),
        L.SoftmaxLoss("plain", "x", "t"),
        L.SoftmaxLoss("smooth", "x", "t", smoothing=0.1),
        L.SoftmaxLoss("ignoring", "x", "t", ignore=5),
        L.SoftmaxLoss("weighted", "x", "t", weights=[1.0] * 12),
    ]
    x, t = rng.standard_normal((5, 3, 4)), rng.integers(12, size=5)
    with cuda_host.installed(seed=1):
        net = lk.Net(layers, 5, dtype="float64", backend="cupy")
        net.forward(x=x, t=t)
        assert cuda_host.launches().count("softmax_loss") == 1
        assert all(net.runners[x.name].recordable for x in net.reported)
    here = lk.Net(layers, 5, dtype="float64")
    here.forward(x=x, t=t)
    for name, loss in here.losses.items():
        assert net.losses[name] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(
    "layer",
    [L.Embed("y", "t", count=3, units=2), L.OneHot("y", "t", count=3)],
    ids=lambda x: x.name,
)
def test_ids_that_are_none_are_named(layer):
    net = net_of(layer, t=(2,))
    net.forward(t=np.array([[0, 1], [2, 0]]))
    for bad in (3, -1, 0.5):
        with pytest.raises(
            DataError, match=r"row 1 of 't' holds .* at place 1, which is no id; ids"
        ):
            net.forward(t=np.array([[0, 1], [2, bad]]))


def test_the_gradient_of_an_id_is_the_sum_over_its_places(rng):
    net = net_of(L.Embed("y", "t", count=6, units=3), t=(7,))
    t, dy = rng.integers(5, size=(8, 7)), rng.standard_normal((8, 7, 3))
    net.forward(t=t)
    net.backward(y=dy)
    expected = np.zeros((6, 3))
    np.add.at(expected, t, dy)
    np.testing.assert_allclose(net.params["y/weight"].diff, expected, rtol=1e-12)
    assert not net.params["y/weight"].diff[5].any()  # an id that does not occur


def test_normal_noise_is_that_of_a_sample_without_mean_or_spread():
    layers = [L.Normal("z", shape=(4,)), L.Affine("y", "z")]
    layers += [L.Input("x", shape=(4,)), L.Add("sum", "x", "z")]
    x = np.ones((500, 4))
    net, twin = (lk.Net(layers, 500, seed=seed, dtype="float64") for seed in (3, 4))
    for one in (net, twin):
        one.forward(x=x)
    z, other = net.blobs["z"].data, twin.blobs["z"].data
    assert abs(z.mean()) < 0.15
    assert abs(z.std() - 1) < 0.1
    assert not np.isclose(z, other).any()
    before = z.copy()
    net.forward(x=x)
    assert not np.isclose(net.blobs["z"].data, before).any()
    assert not net.infer("y", z=np.zeros((2, 4))).any()
    np.testing.assert_array_equal(net.infer("sum", sample=False, x=x[:3]), x[:3])
    assert not np.isclose(net.infer("sum", x=x[:3]), x[:3]).any()
