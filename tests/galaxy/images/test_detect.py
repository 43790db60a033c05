"""The galaxy in a picture is found, measured, and told from its neighbours."""

import numpy as np
import pytest
from simulated import SIDE, blob, picture
from skimage.transform import resize

from layerkit.galaxy.images.crop.crop import Cut, Settings, cut_out, resample
from layerkit.galaxy.images.crop.detect import Galaxy, Sky, find_galaxy, foreign_light
from layerkit.galaxy.images.decode.bounds import UnusableImageError


def reason(image, **settings):
    with pytest.raises(UnusableImageError) as caught:
        cut_out(image, Settings(**settings))
    return str(caught.value)


def test_place_and_size_are_those_of_the_galaxy(rng):
    for _ in range(5):
        y, x = rng.uniform(190, 234, 2)
        major, ratio, angle = rng.uniform(12, 25), rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        image = picture(rng, blob(y, x, major, ratio, angle))
        view, cut = cut_out(image, Settings())
        assert abs(cut.y0 + cut.side / 2 - y) < 0.5
        assert abs(cut.x0 + cut.side / 2 - x) < 0.5
        # Detection adds a smoothing of two pixels in quadrature; the faintest wings are lost.
        expected = Settings().frame * np.hypot(major, 2)
        assert 0.88 * expected < cut.side < 1.04 * expected
        assert view.shape == (69, 69)
        assert view.dtype == np.float32
        centre = np.array(np.unravel_index(view.argmax(), view.shape)) + 0.5
        assert np.abs(centre - 34.5).max() < 4


def test_small_galaxies_are_found_without_binning(rng):
    y, x = rng.uniform(28, 36, 2)
    image = picture(rng, blob(y, x, 3, side=64), side=64)
    view, cut = cut_out(image, Settings(size=69))
    assert abs(cut.y0 + cut.side / 2 - y) < 0.3
    assert abs(cut.x0 + cut.side / 2 - x) < 0.3
    assert cut.side < 69  # enlarged
    # As if it had been photographed at that resolution.
    step = cut.side / 69
    grid = (np.arange(69) + 0.5) * step
    wanted = 0.02 + 0.6 * np.exp(
        -(((cut.y0 + grid - y) ** 2)[:, None] + (cut.x0 + grid - x) ** 2) / 18
    )
    assert np.sqrt(np.mean((view - wanted) ** 2)) < 0.015  # the noise, and little else


def test_shrinking_agrees_with_scikit_image(rng):
    image = picture(rng, blob(210, 214, 20, 0.5, 0.7), blob(190, 240, 6), noise=0)
    y0, x0, side = (int(n) for n in rng.integers([90, 90, 180], [110, 110, 220]))
    ours = resample(image, Cut(y0, x0, side), 69)
    crop = image[y0 : y0 + side, x0 : x0 + side]
    np.testing.assert_allclose(ours, resize(crop, (69, 69), anti_aliasing=True), atol=0.01)
    assert abs(ours.mean() - crop.mean()) < 2e-3 * crop.mean()  # light is neither lost nor made
    # Noise is averaged away, not aliased: about `scale` times less of it in each pixel.
    noisy = resample(picture(rng, sky=0.5, noise=0.1), Cut(100, 100, 207), 69)
    assert noisy.std() < 0.1 / 3 * 1.2


def test_fractions_of_a_pixel_count(rng):
    shift = rng.uniform(0.2, 0.8)
    one = resample(picture(rng, blob(200, 200, 15), noise=0), Cut(100, 100, 200), 69)
    two = resample(
        picture(rng, blob(200 + shift, 200, 15), noise=0), Cut(100 + shift, 100, 200), 69
    )
    np.testing.assert_allclose(one, two, atol=2e-3)


def around(rng, distance):
    angle = rng.uniform(0, 2 * np.pi)
    return 212 + distance * np.sin(angle), 212 + distance * np.cos(angle)


def test_bright_neighbours_exclude(rng):
    galaxy = blob(212, 212, 20)
    star = dict(major=5, peak=0.5)
    assert reason(picture(rng, galaxy, blob(*around(rng, 45), **star))) == (
        "overlapping bright object"
    )
    assert reason(picture(rng, galaxy, blob(*around(rng, 30), **star))) == (
        "overlapping bright object"
    )
    cut_out(picture(rng, galaxy, blob(*around(rng, 45), major=5, peak=0.15)), Settings())
    cut_out(picture(rng, galaxy, blob(*around(rng, 130), **star)), Settings())
    faint = picture(rng, galaxy, blob(*around(rng, 45), major=5, peak=0.15))
    assert reason(faint, overlap=0.1) == "overlapping bright object"


def test_neighbours_do_not_move_or_widen_the_crop(rng):
    image = picture(rng, blob(212, 212, 20), blob(*around(rng, 70), 6, peak=0.25))
    alone = picture(rng, blob(212, 212, 20))
    found, wanted = find_galaxy(image, 4.0), find_galaxy(alone, 4.0)
    assert np.hypot(found.y - wanted.y, found.x - wanted.x) < 2
    assert abs(found.radius / wanted.radius - 1) < 0.05


def test_a_pair_of_equals_is_no_single_galaxy(rng):
    for distance in rng.uniform(1.5, 1.7, 5):  # from the middle, in standard deviations
        size = rng.uniform(10, 14)
        y, x = around(rng, distance * size)
        pair = picture(rng, blob(y, x, size), blob(424 - y, 424 - x, size))
        assert reason(pair) == "overlapping bright object"


def test_equals_on_both_sides_of_the_centre(rng):
    angle = rng.uniform(0, 2 * np.pi)
    dy, dx = 11 * np.sin(angle), 11 * np.cos(angle)
    one, two = (blob(34.5 + s * dy, 34.5 + s * dx, 6, side=69) for s in (1, -1))
    galaxy = Galaxy(y=0, x=0, radius=32, bins=2, sky=Sky(0, 0.01))
    assert foreign_light(one + two, galaxy, 207) == 1
    between = blob(34.5, 34.5, 6, side=69)  # a bar with a nucleus, then, and knots at its ends
    assert foreign_light(one + two + between, galaxy, 207) < 1e-6


def test_noise_beside_a_faint_galaxy_is_no_object(rng):
    found = []
    for _ in range(20):
        image = picture(rng, blob(30, 30, 2.5, side=60, peak=0.2), noise=0.02, side=60)
        galaxy = find_galaxy(image, 4.0)
        cut = Cut(galaxy.y - 8, galaxy.x - 8, 16)
        found.append(foreign_light(resample(image, cut, 69), galaxy, cut.side))
    assert np.median(found) < 0.3


def test_a_two_armed_spiral_is_one_galaxy(rng):
    turn = rng.uniform(0, np.pi)
    angle = np.linspace(0, 2.5, 40)
    arms = [
        blob(
            212 + sign * (15 + 12 * a) * np.sin(a + turn),
            212 + sign * (15 + 12 * a) * np.cos(a + turn),
            5,
            peak=0.02,
        )
        for a in angle
        for sign in (1, -1)
    ]
    cut_out(picture(rng, blob(212, 212, 15, peak=0.5), *arms), Settings())


def test_unusable_pictures(rng):
    galaxy = blob(212, 212, 20)
    assert reason(np.zeros((SIDE, SIDE), np.float32)) == "blank"
    assert reason(np.full((SIDE, SIDE), 0.3, np.float32)) == "blank"
    assert reason(np.zeros((0, 5), np.float32)) == "blank"
    assert reason(np.full((SIDE, SIDE), np.nan, np.float32)) == "blank"
    assert reason(picture(rng)) == "no galaxy near the centre"
    assert reason(picture(rng, blob(330, 330, 20))) == "no galaxy near the centre"
    assert reason(picture(rng, blob(212, 212, 2, peak=0.9))) == "too small"
    assert reason(picture(rng, blob(212, 212, 75, 0.3))) == "runs off the image edge"
    assert reason(picture(rng, galaxy, sky=0.2)) == "bright background"
    for side in (1, 2, 3, 8):
        assert reason(rng.random((side, side)).astype(np.float32))
