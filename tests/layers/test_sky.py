"""Layers of pictures of the sky: how exact they are, what they keep, and what they refuse."""

import numpy as np
import pytest
from scipy import signal

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError


def run(layer, **inputs):
    """The net of one layer after a forward pass."""
    given = [L.Input(name, shape=np.shape(a)[1:]) for name, a in inputs.items()]
    rows = len(next(iter(inputs.values())))
    net = lk.Net([*given, layer], rows, dtype="float64", gradients="all", kernels="array")
    net.forward(**inputs)
    return net


def gaussian(size, fwhm, x, y):
    rows, columns = np.mgrid[:size, :size]
    sd = fwhm / np.sqrt(8 * np.log(2))
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sd * sd))


@pytest.mark.parametrize(("fwhm", "error"), [(3.0, 0.004), (4.0, 0.0006)])
def test_a_blurred_star_lies_between_pixels(fwhm, error, rng):
    size, n = 33, 20
    places = rng.uniform(12, 20, (n, 2))
    star = L.PlaceSources("star", "one", "place", shape=(size, size))
    layers = [
        L.Input("one", shape=(1, 1)),
        L.Input("place", shape=(2,)),
        L.Input("psf", shape=(31, 31)),
        star,
        L.ConvolvePSF("y", "star", "psf"),
    ]
    psf = np.tile(gaussian(31, fwhm, 15, 15), (n, 1, 1))
    y = lk.Net(layers, n, dtype="float64").infer("y", one=np.ones((n, 1, 1)), place=places, psf=psf)
    for found, (x_place, y_place) in zip(y[:, 0], places, strict=True):
        assert np.abs(found - gaussian(size, fwhm, x_place, y_place)).max() < error


def test_light_is_kept_with_its_centre_and_its_width(rng):
    picture, place = rng.uniform(size=(3, 5, 4)), rng.uniform(9, 20, (3, 2))
    layer = L.PlaceSources("y", "x", "p", "f", shape=(30, 30))
    flux = rng.uniform(1, 2, (3, 2))
    y = run(layer, x=picture, p=place, f=flux).blobs["y"].data
    total = picture.sum((1, 2))
    np.testing.assert_allclose(y.sum((2, 3)), flux * total[:, None], rtol=1e-12)
    for row in range(3):
        for axis in (0, 1):
            line, small = y[row, 0].sum(1 - axis), picture[row].sum(1 - axis)
            at = np.arange(len(small)) - (len(small) - 1) / 2 + place[row, 1 - axis]
            for power in (1, 2, 3, 4):
                moment = (line * (np.arange(30) - 15) ** power).sum() / flux[row, 0]
                expected = (small * (at - 15) ** power).sum()
                assert moment == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_whole_pixels_are_copied(rng):
    picture = rng.uniform(size=(1, 3, 5))
    layer = L.PlaceSources("y", "x", "p", shape=(9, 12))
    y = run(layer, x=picture, p=np.array([[7.0, 2.0]])).blobs["y"].data[0, 0]
    expected = np.zeros((9, 12))
    expected[1:4, 5:10] = picture[0]
    np.testing.assert_allclose(y, expected, atol=1e-15)


def test_cutting_is_the_transpose_of_placing(rng):
    """<place(x), y> = <x, cut(y)>, wherever sources lie, beyond the canvas too."""
    x, y = rng.standard_normal((2, 4, 3, 5, 4)), rng.standard_normal((2, 3, 11, 9))
    places = rng.uniform(-9, 19, (2, 4, 2))
    placed = run(L.PlaceSources("p", "x", "at", shape=(11, 9)), x=x, at=places).blobs["p"].data
    cut = run(L.CutSources("c", "y", "at", shape=(5, 4)), y=y, at=places).blobs["c"].data
    np.testing.assert_allclose((placed * y).sum((1, 2, 3)), (x * cut).sum((1, 2, 3, 4)), rtol=1e-10)
    assert np.abs(placed).sum() > 0


@pytest.mark.parametrize("place", [-1e30, -50.0, 60.0, 1e30, np.inf])
def test_a_source_far_away_leaves_the_canvas_dark(place):
    net = run(
        L.PlaceSources("y", "x", "p", shape=(7, 7)), x=np.ones((1, 3, 3)), p=np.full((1, 2), place)
    )
    assert not net.blobs["y"].data.any()


def test_a_place_that_is_no_number_is_seen():
    net = run(
        L.PlaceSources("y", "x", "p", shape=(7, 7)), x=np.ones((1, 3, 3)), p=np.array([[3, np.nan]])
    )
    assert np.isnan(net.blobs["y"].data).any()


def test_nothing_wraps_around(rng):
    """A star in a corner, blurred by a PSF larger than the picture."""
    picture, psf = np.zeros((1, 6, 7)), rng.uniform(size=(1, 21, 21))
    picture[0, 0, 0] = 1
    y = run(L.ConvolvePSF("y", "x", "psf"), x=picture, psf=psf).blobs["y"].data[0]
    np.testing.assert_allclose(y, psf[0, 10:16, 10:17], atol=1e-14)


@pytest.mark.parametrize("size", [(31, 40), (128, 97)])
def test_large_pictures_are_convolved(size, rng):
    x, psf = rng.standard_normal((1, *size)), rng.standard_normal((1, 15, 41))
    y = run(L.ConvolvePSF("y", "x", "psf"), x=x, psf=psf).blobs["y"].data[0]
    full = signal.convolve2d(x[0], psf[0])[7 : 7 + size[0], 20 : 20 + size[1]]
    np.testing.assert_allclose(y, full, atol=1e-11)


MASK = np.array([[1.0, 0.0, 1.0]])


def known_variance(x, v):
    layer = L.KnownVarianceReconstruction("y", "x", "mean", "v", "m")
    return run(layer, x=x, mean=np.zeros((1, 3)), v=v, m=MASK)


def poisson(x, rate):
    return run(L.PoissonReconstruction("y", "x", "rate", "m"), x=x, rate=rate, m=MASK)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("make", [known_variance, poisson])
def test_masked_pixels_count_for_nothing(make, bad):
    good = make(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 3.0]]))
    other = make(np.array([[1.0, bad, 3.0]]), np.array([[1.0, bad, 3.0]]))
    for net in (good, other):
        net.backward()
    assert other.losses["y"] == good.losses["y"]
    assert good.losses["y"] != 0
    for name in ("x", "mean") if make is known_variance else ("rate",):
        np.testing.assert_array_equal(other.blobs[name].diff, good.blobs[name].diff)


def test_wrong_numbers_are_refused():
    three = np.ones((1, 3))
    wrong = np.array([[1.0, 1.0, -2.0]])
    for make, says in (
        (lambda: known_variance(three, wrong), "row 0 of 'v' holds -2 at place 2; a variance is"),
        (lambda: poisson(wrong, three), "row 0 of 'x' holds -2 at place 2; counts are"),
        (lambda: poisson(three, wrong), "row 0 of 'rate' holds -2 at place 2; a rate is"),
        (lambda: poisson(three, 0 * three), "row 0 of 'rate' holds 0 at place 0"),
        (
            lambda: run(L.PoissonReconstruction("y", "x", "x", "m"), x=three, m=wrong),
            "row 0 of 'm' holds -2 at place 2; a mask is",
        ),
        (lambda: run(L.Normalise("y", "x"), x=np.array([[1.0, -1.0]])), "row 0 of 'x' have a sum"),
    ):
        with pytest.raises(DataError) as caught:
            make()
        assert str(caught.value).startswith("layer 'y' (")
        assert says in str(caught.value)


def test_no_counts_need_no_rate():
    net = poisson(np.zeros((1, 3)), np.zeros((1, 3)))
    net.backward()
    assert net.losses["y"] == 0
    np.testing.assert_array_equal(net.blobs["rate"].diff, MASK)
