"""The figures: what is drawn, where, on which scale, and that nothing global is touched."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy import figures
from layerkit.galaxy.calibration import calibrate
from layerkit.galaxy.redraws import LatentCoverage


def galaxies(rng, count, size=16):
    rows, columns = np.mgrid[:size, :size] - size / 2
    width = rng.uniform(1, 4, (count, 1, 1))
    images = rng.uniform(0.3, 1, (count, 1, 1)) * np.exp(-np.hypot(rows, columns) / width)
    return images + rng.normal(0, 0.01, images.shape)


def drawn(figure):
    """The pixels of a figure, (height, width, 3), 0 to 255."""
    data = BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return np.asarray(Image.open(data).convert("RGB")).astype(float)


def pictures(figure):
    """The arrays shown by imshow, axes by axes, with the colour bars left out."""
    return [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images]


def every_figure(rng):
    images = galaxies(rng, 30)
    mean, variance = images * 0.9, np.full_like(images, 1e-3) * rng.uniform(0.1, 10, images.shape)
    steps = np.arange(0.0, 3000, 10)
    error = rng.lognormal(size=50)
    return {
        "reconstructions": figures.reconstructions(images, mean, variance, baseline=mean),
        "embedding": figures.embedding(rng.normal(size=(30, 8)), images),
        "traversal": figures.traversal(images[:28].reshape(4, 7, 16, 16), np.arange(-3, 4)),
        "samples": figures.samples(mean, images),
        "learning_curves": figures.learning_curves(
            {"iteration": steps, "train_elbo": np.log(steps + 1), "kl": np.sqrt(steps)}
        ),
        "squared_error": figures.comparison(error, error * rng.lognormal(1, 1, 50)),
        "likelihood": figures.comparison(
            error, -error, quantity="log likelihood", higher_is_better=True
        ),
        "sersic_squared_error": figures.comparison(error, error * 2, "Sersic profile"),
        "calibration": figures.calibration(
            calibrate(rng.normal(size=images.shape), images)
        ),
        "morphology": figures.morphology(rng.normal(size=(40, 4)), rng.normal(size=(30, 4))),
        "latent_coverage": figures.latent_coverage(
            LatentCoverage(np.arange(30), rng.normal(size=(30, 8, 5)), np.full((30, 8, 5), 0.9)),
            np.full(5, 4.0),
        ),
    }


def test_every_figure_is_saved_large_enough_and_not_blank(rng, tmp_path):
    before = dict(matplotlib.rcParams)
    for name, figure in every_figure(rng).items():
        path = figures.save(figure, tmp_path / f"{name}.png")
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 250, name
            assert np.asarray(picture.convert("L")).std() > 5, name
        assert name in figures.CAPTIONS
    assert len(list(tmp_path.iterdir())) == len(figures.CAPTIONS)
    assert dict(matplotlib.rcParams) == before


def test_reconstructions_share_one_scale_in_a_row(rng):
    x = galaxies(rng, 3) * np.array([1, 10, 100]).reshape(3, 1, 1)
    shown = pictures(figures.reconstructions(x, x / 2, np.ones_like(x), residuals=False))
    assert len(shown) == 3
    for i in range(3):
        rows = slice(18 * i, 18 * i + 16)
        low, span = x[i].min(), np.ptp(x[i])
        np.testing.assert_allclose(shown[0][rows], (x[i] - low) / span, atol=1e-12)
        np.testing.assert_allclose(shown[1][rows], (x[i] / 2 - low) / span, atol=1e-12)


def test_reconstructions_show_residuals_and_the_baseline(rng):
    x, baseline = galaxies(rng, 9), galaxies(rng, 9)
    figure = figures.reconstructions(x, x * 0.5, np.ones_like(x), baseline, "PCA", most=2)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[4:] == ["PCA", "$x$ \N{MINUS SIGN} PCA"]
    shown = pictures(figure)
    assert shown[0].shape == (2 * 16 + 2, 16)
    np.testing.assert_allclose(shown[3][:16], x[0] * 0.5)
    np.testing.assert_allclose(shown[5][:16], x[0] - baseline[0])


def test_reconstructions_of_an_untrained_net_do_not_fail(rng):
    x = galaxies(rng, 2)
    variance = np.full_like(x, np.inf)
    variance[0], variance[1, :8] = 0.0, np.nan
    drawn(figures.reconstructions(x, np.full_like(x, np.nan), variance))
    drawn(figures.reconstructions(np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 60])
def test_embedding_leaves_no_galaxy_out_and_draws_none_over_another(rng, count):
    # A picture of one value tells which galaxy it is.
    images = np.arange(1.0, count + 1).reshape(-1, 1, 1) * np.ones((count, 4, 4))
    (shown,) = pictures(figures.embedding(rng.normal(size=(count, 3)), images))
    cells = shown.reshape(shown.shape[0] // 4, 4, -1, 4).transpose(0, 2, 1, 3).reshape(-1, 16)
    assert (np.ptp(cells, axis=1) == 0).all()
    values = np.sort(cells[np.isin(cells[:, 0], np.arange(1.0, count + 1)), 0])
    np.testing.assert_array_equal(np.unique(values), np.arange(1.0, count + 1))


def test_embedding_keeps_two_clusters_apart_and_repeats(rng):
    cluster = np.arange(80) % 2
    z = rng.normal(size=(80, 8)) + 30 * cluster[:, None]
    images = np.ones((80, 2, 2)) + cluster[:, None, None]
    (shown,) = pictures(figures.embedding(z, images, seed=3))
    (again,) = pictures(figures.embedding(z, images, seed=3))
    np.testing.assert_array_equal(shown, again)
    first, second = (np.argwhere(shown[::2, ::2] == value) for value in (1.0, 2.0))
    # Empty cells are as dark as the darkest galaxy, so only the second cluster is unmistakable:
    # it must fill its own bounding box, with no room for forty of the first in it.
    assert len(second) == 40
    assert np.prod(np.ptp(second, axis=0) + 1) < 80
    assert len(first) >= 40


def test_embedding_takes_a_part_of_many(rng):
    images = galaxies(rng, 50)
    (shown,) = pictures(figures.embedding(rng.normal(size=(50, 1)), images, most=9))
    # Nine galaxies have a grid of 4 x 4 cells.
    assert max(shown.shape) <= 4 * 16


def test_traversal_puts_dimensions_in_rows_and_labels_the_steps(rng):
    decoded = rng.random((3, 5, 8, 8))
    figure = figures.traversal(decoded, [-3, -1.5, 0, 1.5, 3])
    (shown,) = pictures(figure)
    np.testing.assert_array_equal(shown[10:18, 40:48], decoded[1, 4])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["\N{MINUS SIGN}3", "\N{MINUS SIGN}1.5", "0", "+1.5", "+3"]
    with pytest.raises(DataError, match="4 steps"):
        figures.traversal(decoded, [0, 1, 2, 3])


def test_samples_have_as_many_real_ones_beside(rng):
    images = galaxies(rng, 20)
    left, right = pictures(figures.samples(images[:10], images, columns=4))
    assert left.shape == right.shape == (3 * 18 - 2, 4 * 18 - 2)
    np.testing.assert_array_equal(right[:16, 18:34], images[1])
    assert np.isnan(right[36:, 36:]).all()


def test_learning_curves_are_not_squashed_by_the_first_iterations(rng):
    iteration = np.arange(1000.0)
    elbo = 12_000 + rng.normal(0, 5, 1000)
    elbo[:20] = -1e7
    held_out = np.full(1000, np.nan)
    held_out[::100] = 11_900.0
    figure = figures.learning_curves(
        {"iteration": iteration, "train_elbo": elbo, "held_out_elbo": held_out, "kl": elbo / 1000}
    )
    low, high = figure.axes[0].get_ylim()
    assert 11_800 < low < 11_900 < 12_000 < high < 12_100
    drawn(figure)


def test_learning_curves_of_a_single_iteration_or_none(rng):
    drawn(figures.learning_curves({"iteration": [3], "train_elbo": [1.0]}))
    drawn(figures.learning_curves({"iteration": [3, 4], "kl": [np.nan, np.nan]}))
    with pytest.raises(DataError, match="iteration"):
        figures.learning_curves({"train_elbo": [1.0]})


def test_comparison_counts_the_wins(rng):
    model, baseline = rng.random(40), rng.random(40)
    wins = sum(m < b for m, b in zip(model, baseline, strict=True))
    title = figures.comparison(model, baseline).get_suptitle()
    assert f"better on {wins} of 40" in title
    title = figures.comparison(model, baseline, higher_is_better=True).get_suptitle()
    assert f"better on {40 - wins} of 40" in title


def test_comparison_histogram_holds_every_image_on_its_side(rng):
    model, baseline = rng.lognormal(size=200), rng.lognormal(size=200)
    right = figures.comparison(model, baseline).axes[1]
    left_of_one = sum(bar.get_height() for bar in right.patches if bar.get_x() < -1e-9)
    assert left_of_one == np.count_nonzero(model > baseline)
    assert sum(bar.get_height() for bar in right.patches) == 200


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_comparison_of_equal_or_perfect_models(higher_is_better):
    for model, baseline in (([0.0], [0.0]), ([1.0, 1.0], [1.0, 1.0]), ([0.0, 2.0], [3.0, 1.0])):
        drawn(figures.comparison(model, baseline, higher_is_better=higher_is_better))


def test_wrong_shapes_are_named(rng):
    images = galaxies(rng, 4)
    with pytest.raises(DataError, match="expected mean"):
        figures.reconstructions(images, images[0], images)
    with pytest.raises(DataError, match=r"\(4, latent\)"):
        figures.embedding(rng.normal(size=(3, 8)), images)
    with pytest.raises(DataError, match=r"arrays of \(3,\) and \(4,\)"):
        figures.comparison(np.ones(3), np.ones(4))
