"""Cutting out: what scales a galaxy comes from its own square, and gaps in the data are no data."""

from dataclasses import replace

import numpy as np
import pytest
from simulated import profile

from layerkit.galaxy.images.crop import crop as cutting
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.crop.scaling import unstretch
from layerkit.galaxy.images.decode.blank import JPEG_BLOCK, bad_pixels, no_data
from layerkit.galaxy.images.decode.bounds import UnusableImageError


def stamp(rng, side=128, scale=5.0, sky=50.0, noise=1.0, peak=100.0):
    y, x = side / 2 + rng.uniform(-3, 3, 2)
    return profile(side, y, x, scale, peak=peak) + rng.normal(sky, noise, (side, side))


def reason(image, **settings):
    with pytest.raises(UnusableImageError) as caught:
        cut_out(image, Settings(**settings))
    return str(caught.value)


def outside(cut, side, y, x, margin):
    """Tell whether a pixel lies off the square by more than `margin`."""
    middle = cut.y0 + cut.side / 2, cut.x0 + cut.side / 2
    away = max(abs(y + 0.5 - middle[0]), abs(x + 0.5 - middle[1]))
    return away > cut.side / 2 + margin and min(y, x) >= 0 and max(y, x) < side


def check_unchanged(found, view, cut):
    """Say whether a galaxy is equal to the last bit; where it is not, it is nearly."""
    again, same = found
    # The first look is at the whole picture, and very rarely a trifle there takes the square by
    # which the galaxy is measured across the border between two of its sizes.
    assert same.side == pytest.approx(cut.side, rel=0.03)
    np.testing.assert_allclose(again, view, atol=0.1)
    return same == cut and np.array_equal(again, view)


def test_nothing_outside_the_square_changes_the_galaxy():
    rng, equal = np.random.default_rng(11), []
    for _ in range(12):
        image = stamp(rng)
        view, cut = cut_out(image, Settings())
        for brightness in (1e2, 1e4, 1e8, -1e4):
            y, x = next(p for p in rng.integers(0, 128, (500, 2)) if outside(cut, 128, *p, 8))
            hot, star = image.copy(), image.copy()
            hot[y, x] += brightness
            dy, dx = np.mgrid[:128, :128] - np.array([y, x])[:, None, None]
            star += np.where(np.hypot(dy, dx) < 5, abs(brightness), 0) / (1 + dy**2 + dx**2)
            for changed in (hot, star):
                equal.append(check_unchanged(cut_out(changed, Settings()), view, cut))
    assert len(equal) == 12 * 8
    assert np.mean(equal) >= 0.95


def test_a_hot_pixel_inside_does_not_dim_the_galaxy(rng):
    changes = []
    for _ in range(10):
        image = stamp(rng)
        view, cut = cut_out(image, Settings(overlap=np.inf))
        y, x = np.rint(cut.side / 2 + np.array([cut.y0, cut.x0]) + rng.uniform(8, 12, 2))
        image[int(y), int(x)] = 1e6
        again, other = cut_out(image, Settings(overlap=np.inf))
        changes.append(abs(other.side / cut.side - 1))
        assert other.white == pytest.approx(cut.white, rel=0.02)
        assert abs(np.median(again - view)) < 0.03
    assert np.median(changes) < 0.02
    assert max(changes) < 0.15


def test_sky_spread_and_white_are_those_of_the_picture_and_undo_the_stretch(rng):
    image = stamp(rng, side=200, scale=6, sky=-30, noise=2.5, peak=900)
    view, cut = cut_out(image, Settings())
    assert cut.sky == pytest.approx(-30, abs=4)  # with some of the galaxy's wings
    assert cut.spread == pytest.approx(2.5, rel=0.25)
    assert view.max() == pytest.approx(1, abs=1e-6)
    back = unstretch(view, [cut.sky, cut.spread, cut.white])
    # An independent way to the numbers: the pixels themselves, by nearest neighbour.
    step = cut.side / 69
    rows, columns = (
        np.floor(start + step * (np.arange(69) + 0.5)).astype(int) for start in (cut.y0, cut.x0)
    )
    nearest = image[np.ix_(rows, columns)]
    inside = (view > 0) & (view < 1)
    assert inside.mean() > 0.95
    assert np.median(np.abs(back - nearest)[inside]) < 2.5
    assert np.corrcoef(back[inside], nearest[inside])[0, 1] > 0.99


def test_the_zero_and_the_unit_of_counts_do_not_matter(rng):
    image = stamp(rng)
    view, cut = cut_out(image, Settings())
    for unit, zero in ((1e-17, 0), (1e20, -1e20), (1, 1e6), (-1e-3, 0)):
        if unit < 0:  # absorption is no galaxy
            assert reason(unit * image)
            continue
        again, other = cut_out(unit * image + zero, Settings())
        np.testing.assert_allclose(again, view, atol=1e-4)
        assert (other.white - zero) / unit == pytest.approx(cut.white, rel=1e-4)


def test_floats_in_0_to_1_have_the_rule_of_floats():
    rng = np.random.default_rng(15)
    image = stamp(rng)
    image = (image - image.min()) / np.ptp(image)
    view, cut = cut_out(image, Settings())
    image[3, 4] = -1e-6
    again, other = cut_out(image, Settings())
    assert cut.spread > 0
    assert other == cut
    np.testing.assert_array_equal(again, view)


def test_faint_is_not_small():
    rng, found = np.random.default_rng(12), []
    assert reason(stamp(rng, scale=0.4, peak=300)) == "too small"
    for _ in range(40):
        try:
            cut_out(stamp(rng, scale=1, peak=14), Settings())
            found.append("")
        except UnusableImageError as error:
            found.append(str(error))
    # Noise makes a few of them so bright that a size can be told.
    assert found.count("too faint") >= 0.8 * len(found)


@pytest.mark.parametrize("fill", [0.0, -999.0, 50.0, np.nan, np.inf, -np.inf, 1e38])
def test_blank_borders_are_no_data(fill):
    rng, equal = np.random.default_rng(13), []
    for k in range(12):
        image = stamp(rng)
        view, cut = cut_out(image, Settings())
        strip, corner, deep = image.copy(), image.copy(), image.copy()
        np.rot90(strip, k)[:20] = fill
        np.rot90(corner, k)[np.add.outer(np.arange(128), np.arange(128)) < 40] = fill
        for changed in (strip, corner):
            equal.append(check_unchanged(cut_out(changed, Settings()), view, cut))
        np.rot90(deep, k)[: int(min(cut.y0, cut.x0)) + 8] = fill
        assert reason(deep) == "reaches into blank border"
        again, moved = cut_out(np.pad(image, 40, constant_values=fill), Settings())
        # Sums of a place and the border's width are rounded.
        near = np.allclose((moved.y0, moved.x0), (cut.y0 + 40, cut.x0 + 40), rtol=1e-14, atol=0)
        moved = replace(moved, y0=cut.y0, x0=cut.x0) if near else moved
        equal.append(check_unchanged((again, moved), view, cut))
    assert np.mean(equal) >= 0.95


@pytest.mark.parametrize("value", [0.0, 7.5])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_dead_lines_of_a_detector_are_no_data(value, width, turned, rng):
    """Their zeros look like sky if the sky has been subtracted."""
    image = stamp(rng, sky=0.0)
    view, cut = cut_out(image, Settings())

    def dead(first):
        lines = image.copy()
        lines[:, first : first + width] = value
        return lines.T if turned else lines

    inside = round(cut.x0 + 0.6 * cut.side)
    assert reason(dead(inside)) in ("bad pixels", "reaches into blank border")
    for first in (3, round(cut.x0 + cut.side) + 6):
        found, _ = cut_out(dead(first), Settings())
        np.testing.assert_allclose(found.T if turned else found, view, atol=1e-5)


def test_lines_of_photons_that_happen_to_be_equal_are_data(rng):
    counts = rng.poisson(0.03, (64, 64))
    counts[20:44, 20:44] += rng.poisson(9.0, (24, 24))
    counts[:, [3, 9]] = counts[12] = 0
    assert not bad_pixels(counts.astype(np.float64)).any()
    still = np.zeros((64, 64))
    still[20:44, 20:44] = rng.normal(9.0, 1.0, (24, 24))
    assert not bad_pixels(still).any()


def test_repeated_edges_are_no_data():
    rng = np.random.default_rng(16)
    image = stamp(rng)
    view, _ = cut_out(image, Settings())
    padded = np.pad(image, ((30, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(np.flatnonzero(no_data(padded).border.all(axis=1)), np.arange(31))
    np.testing.assert_allclose(cut_out(padded, Settings())[0], view, atol=1e-5)


def test_blank_strips_in_pictures_of_8_bits(rng):
    """A strip may move the crop by the rounding of its size, in few pictures by more than 1%."""
    side, changes = 300, []
    for _ in range(8):
        light = profile(side, 150, 150, 8, peak=1.6) + rng.normal(0.04, 0.02, (side, side))
        whole = (np.clip(np.rint(255 * light), 0, 255) / 255).astype(np.float32)
        view, cut = cut_out(whole, Settings())
        strip = whole.copy()
        strip[:, :25] = 0
        again, other = cut_out(strip, Settings())
        assert other.side == pytest.approx(cut.side, rel=0.03)
        changes.append(np.abs(again - view).max())
        strip[:, : int(cut.x0) + 10] = 0
        assert reason(strip) == "reaches into blank border"
    assert np.median(changes) < 0.03


def test_a_blank_corner_is_no_data_where_a_part_of_a_block_fits_in(rng):
    """A block has 32 pixels on a side here, and may reach beyond two edges of the picture."""
    light = rng.normal(0.5, 0.1, (200, 200)).astype(np.float32)
    light[:24, :36] = 0.5
    grown = np.zeros(light.shape, bool)
    grown[: 24 + JPEG_BLOCK, : 36 + JPEG_BLOCK] = True
    for k in range(4):
        np.testing.assert_array_equal(no_data(np.rot90(light, k)).border, np.rot90(grown, k))


def test_a_sky_without_noise_is_no_blank(rng):
    clean = profile(128, 64, 64, 4, peak=1.0)
    eight = (np.rint(255 * clean) / 255).astype(np.float32)  # black to the last bit around it
    assert no_data(eight) is None
    cut_out(eight, Settings())
    assert no_data(np.rint(3000 * clean)) is None
    _, cut = cut_out(np.rint(3000 * clean), Settings())
    assert 0 < cut.spread < cut.white
    photons = rng.poisson(20 * clean + 0.1).astype(float)  # nine pixels of ten are 0
    assert no_data(photons) is None
    dark = np.clip(rng.normal(-0.01, 0.01, (200, 200)), 0, 1)  # sky below black, with specks
    assert no_data((np.rint(255 * dark) / 255).astype(np.float32)) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -3.4e38])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_bad_pixels_count_where_the_square_is(bad, dtype):
    rng, equal = np.random.default_rng(14), []
    for _ in range(20):
        image = stamp(rng).astype(dtype)
        if dtype == "f4":
            image = (image - 45) / 120
        view, cut = cut_out(image, Settings())
        far = image.copy()
        far[5, 120] = bad
        found = cut_out(far, Settings())
        if dtype == "f8":
            equal.append(check_unchanged(found, view, cut))
        else:  # the sky of linear pictures is that of the whole
            assert found[1].side == pytest.approx(cut.side, rel=0.02)
        image[int(cut.y0 + cut.side * 0.3), int(cut.x0 + cut.side * 0.8)] = bad
        assert reason(image) == "bad pixels"
    assert dtype == "f4" or np.mean(equal) >= 0.95


@pytest.mark.parametrize("side", [128, 430])
@pytest.mark.parametrize("hole", ["pixel", "core", "rows"])
def test_holes_about_the_centre_are_no_second_object(hole, side, rng):
    """In linear units; pixels that are missing there are missing with their opposites."""
    scale, middle = side / 25, side // 2
    image = profile(side, middle + 0.3, middle - 0.2, scale, peak=200.0)
    image += rng.normal(50, 1, image.shape)
    view, cut = cut_out(image, Settings(units="linear"))
    wide = side // 128
    core = slice(middle - wide, middle + wide + 1)
    index = {
        "pixel": (middle, middle - 1),
        "core": (core, core),
        "rows": (slice(middle - wide, middle + wide), slice(None)),
    }
    image[index[hole]] = np.nan
    found, same = cut_out(image, Settings(units="linear"))
    assert same.side == pytest.approx(cut.side, rel=0.03)
    middles = [(c.y0 + c.side / 2, c.x0 + c.side / 2) for c in (same, cut)]
    np.testing.assert_allclose(*middles, atol=0.004 * cut.side)
    assert found.mask.any()
    assert found.max() * (same.white - same.sky) > 0.7 * view.max() * (cut.white - cut.sky)


@pytest.mark.parametrize("noise", [1.2, 2.0, 2.3, 3.3])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_whole_numbers_have_the_sky_and_noise_of_what_they_round(noise, gain):
    rng = np.random.default_rng(7)
    found = []
    for _ in range(8):
        image = stamp(rng, sky=50 + rng.uniform(), noise=noise, peak=100 * noise)
        exact = cut_out(image, Settings())[1]
        counts = cut_out(gain * np.rint(image), Settings())[1]
        found.append([counts.sky / gain - exact.sky, counts.spread / gain / exact.spread])
        assert counts.side == pytest.approx(exact.side, rel=0.05)
    found = np.array(found)
    np.testing.assert_allclose(found[:, 0], 0, atol=0.2 * noise)
    np.testing.assert_allclose(found[:, 1], 1, atol=0.2)  # of some hundred pixels each
    assert found[:, 1].mean() == pytest.approx(1, abs=0.1)


def test_counts_that_happen_to_be_floats_stay_as_they_are():
    pixels = np.random.default_rng(0).normal(size=400)
    assert cutting._off_steps(pixels) is pixels
    spread = cutting._off_steps(np.array([5.0, 3, 5, 3, 5, 3, 5, 3]))
    np.testing.assert_allclose(spread, [4.25, 2.25, 4.75, 2.75, 5.25, 3.25, 5.75, 3.75])


@pytest.mark.parametrize("floor", [0, 1, 2, 3])
@pytest.mark.parametrize("peak", [100, 500, 3000])
def test_a_sky_that_was_cut_away_makes_the_galaxy_no_brighter(floor, peak):
    """Noise below `floor` standard deviations is 0: half of the pixels, or nearly all of them."""
    rng = np.random.default_rng(18)
    for _ in range(4):
        image = stamp(rng, sky=0, peak=peak)
        cleaned = np.where(image > floor, image, 0)
        view, cut = cut_out(image, Settings())
        again, other = cut_out(cleaned, Settings())
        assert other.side == pytest.approx(cut.side, rel=0.2)
        assert other.white == pytest.approx(cut.white, rel=0.1)
        # Both stretches are of one picture, so crops of two sizes do not matter.
        shown = cutting.stretch(image, other.sky, other.spread, other.white)
        expected = cutting.stretch(image, cut.sky, cut.spread, cut.white)
        for low, high in ((0.2, 0.4), (0.4, 0.7), (0.7, 1.01)):
            some = (expected >= low) & (expected < high)
            assert np.median(shown[some] / expected[some]) == pytest.approx(1, abs=0.15)
        assert again.max() == pytest.approx(view.max(), abs=0.05)


@pytest.mark.parametrize("peak", [1000, 3000])
def test_a_galaxy_without_any_noise_is_scaled_as_if_it_had_a_thousandth(peak):
    clean = np.rint(profile(128, 64, 64, 4, peak=peak))
    _, cut = cut_out(clean, Settings())
    assert cut.sky == 0
    assert cut.white / 2000 < cut.spread < cut.white / 1000  # of its 99th percentile


@pytest.mark.parametrize("kind", ["f4", "u2", "f8", "i4"])
def test_the_order_of_bytes_says_nothing_of_what_numbers_mean(kind, rng):
    y, x = np.mgrid[-60:60, -60:60]
    light = 200 * np.exp(-np.hypot(x, 2 * y) / 8) + 10 + rng.normal(size=x.shape)
    picture = (light / 255 if kind == "f4" else 50 * light).astype(kind)
    settings = Settings(size=32)
    (view, cut), (other, its_cut) = (
        cut_out(picture.astype(order + kind), settings, white=2**14 - 1) for order in "<>"
    )
    assert cut == its_cut
    np.testing.assert_array_equal(view, other)


@pytest.mark.parametrize("kind", ["f4", "u2", "f8"])
def test_a_mask_is_no_galaxy(kind):
    y, x = np.mgrid[-60:60, -60:60]
    mask = np.where(np.hypot(x, 2 * y) < 20, 200, 0)
    picture = (mask / 255 if kind == "f4" else mask).astype(kind)
    assert reason(picture) == "a mask of only two values"
