"""The figures: what is drawn, where, on which scale, and that nothing global is touched."""

import itertools
import re
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from layerkit.errors import DataError
from layerkit.galaxy.evaluation.bounds import Bounds, ImportanceBounds
from layerkit.galaxy.evaluation.calibration import calibrate
from layerkit.galaxy.evaluation.comparison import (
    Baselines,
    Comparison,
    ModelReconstructions,
    Reconstructions,
)
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage
from layerkit.galaxy.evaluation.evaluate import Evaluation
from layerkit.galaxy.evaluation.morphology import MorphologyComparison
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.report import figures
from layerkit.galaxy.report.captions import CAPTIONS
from layerkit.galaxy.report.figures.style import round_numbers
from layerkit.galaxy.report.gallery import draw_figures
from layerkit.galaxy.report.page.plates import marks, plate


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
        "outliers": figures.outliers(images, rng.normal(size=30)),
        "learning_curves": figures.learning_curves(
            {"iteration": steps, "train_elbo": np.log(steps + 1), "kl": np.sqrt(steps)}
        ),
        "squared_error": figures.comparison(error, error * rng.lognormal(1, 1, 50)),
        "likelihood": figures.comparison(
            error, -error, quantity="log likelihood", higher_is_better=True
        ),
        "sersic_squared_error": figures.comparison(error, error * 2, "Sersic profile"),
        "calibration": figures.calibration(calibrate(rng.normal(size=images.shape), images)),
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
        assert name in CAPTIONS
    assert len(list(tmp_path.iterdir())) == len(CAPTIONS)
    assert dict(matplotlib.rcParams) == before


def test_notebooks_show_figures_without_pyplot(rng):
    image = figures.samples(rng.random((4, 9, 9)))._repr_png_()
    with Image.open(BytesIO(image)) as picture:
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize(
    "own",
    [
        {"text.usetex": True},
        {
            "image.origin": "lower", "figure.constrained_layout.use": True, "savefig.bbox": "tight",
            "font.size": 30, "axes.grid": True, "axes.unicode_minus": False, "figure.dpi": 30,
        },
    ],
)  # fmt: skip
def test_figures_do_not_depend_on_the_settings_of_matplotlib(own, tmp_path):
    """A matplotlibrc may turn pictures upside down, or ask for a TeX that is not there."""
    images = galaxies(np.random.default_rng(0), 14)

    def drawings():
        yield figures.traversal(images.reshape(2, 7, 16, 16), np.arange(-3, 4))
        yield figures.learning_curves({"iteration": [1, 2, 3], "train_elbo": [-1e5, -2, -1]})

    expected = [plate(figure, tmp_path / "a.png", "", "").dark for figure in drawings()]
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        for figure, known in zip(drawings(), expected, strict=True):
            assert plate(figure, tmp_path / "a.png", "", "").dark == known
        assert dict(matplotlib.rcParams) == before


def test_the_first_row_of_a_picture_is_drawn_at_the_top(rng, tmp_path):
    bright = np.zeros((4, 16, 16))
    bright[:, :8] = 1
    with matplotlib.rc_context({"image.origin": "lower"}):
        path = figures.save(figures.samples(bright, columns=4), tmp_path / "a.png")
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))[60:-50, 30:-30]  # without the words
    half = len(grey) // 2
    assert grey[:half].mean() > grey[half:].mean() + 100


def test_reconstructions_share_one_scale_in_a_row(rng):
    x = galaxies(rng, 3) * np.array([1, 10, 100]).reshape(3, 1, 1)
    shown = pictures(figures.reconstructions(x, x / 2, np.ones_like(x), residuals=False))
    assert len(shown) == 3
    for i in range(3):
        rows = slice(18 * i, 18 * i + 16)
        low, span = x[i].min(), np.ptp(x[i])
        np.testing.assert_allclose(shown[0][rows], (x[i] - low) / span, atol=1e-12)
        np.testing.assert_allclose(shown[1][rows], (x[i] / 2 - low) / span, atol=1e-12)


def test_a_hot_and_a_dead_pixel_do_not_turn_a_galaxy_black(rng):
    x = galaxies(rng, 2)
    x[1, 0, 0], x[1, 0, 1] = 10, -10
    shown = figures.reconstructions(x, x / 2, np.ones_like(x), limits=(-1, 1))
    low, high = x[0].min(), x[0].max()
    first, second = pictures(shown)[0][:16], pictures(shown)[0][18:]
    np.testing.assert_allclose(first, (x[0] - low) / (high - low), atol=1e-12)
    np.testing.assert_allclose(second, (x[1] + 1) / 2, atol=1e-12)
    labels = [label.get_text().strip() for label in shown.axes[0].get_yticklabels()]
    assert labels[1] == "\N{MINUS SIGN}1 to 1"


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
    # The middle of a picture tells which galaxy it is; the sky is another in each.
    images = rng.random((count, 1, 1)) * np.ones((count, 4, 4))
    images[:, 1:3, 1:3] += np.arange(1.0, count + 1).reshape(-1, 1, 1)
    (shown,) = pictures(figures.embedding(rng.normal(size=(count, 3)), images))
    cells = shown.reshape(shown.shape[0] // 4, 4, -1, 4).transpose(0, 2, 1, 3)
    cells = cells.reshape(-1, 4, 4)[cells.any(axis=(2, 3)).reshape(-1)]
    assert len(cells) == count
    inner = cells[:, 1:3, 1:3].reshape(count, 4)
    np.testing.assert_allclose(np.sort(inner[:, 0]), np.arange(1.0, count + 1))
    np.testing.assert_allclose(inner, inner[:, :1] * np.ones(4))


def test_the_pictures_of_the_embedding_have_no_seams(rng):
    """Skies from 0 to 1 and noise up to every edge; galaxies in the middle stay as they are."""
    sky = np.arange(9.0).reshape(9, 1, 1) / 8
    images = sky + rng.normal(0, 0.01, (9, 64, 64))
    images[:, 28:36, 28:36] = sky + 1
    figure = figures.embedding(rng.normal(size=(9, 2)), images)
    (shown,) = pictures(figure)
    # Noise that fades is black from edge to edge; two of a hundred pixels of sky are not.
    assert 0.015 < figure.axes[0].images[0].norm.vmin < 0.025
    cells = shown.reshape(shown.shape[0] // 64, 64, -1, 64).transpose(0, 2, 1, 3)
    cells = cells.reshape(-1, 64, 64)[cells.any(axis=(2, 3)).reshape(-1)]
    assert len(cells) == 9
    edges = np.concatenate([cells[:, [0, -1]], cells[:, :, [0, -1]].transpose(0, 2, 1)])
    assert np.abs(edges).max() < 1e-3
    np.testing.assert_allclose(cells[:, 28:36, 28:36], 1, atol=0.01)
    assert 0.009 < cells[:, 9:25, 9:55].std() < 0.011


def test_embedding_keeps_two_clusters_apart_and_repeats(rng):
    cluster = np.arange(80) % 2
    z = rng.normal(size=(80, 8)) + 30 * cluster[:, None]
    images = np.zeros((80, 3, 3))
    images[:, 1, 1] = 1 + cluster
    (shown,) = pictures(figures.embedding(z, images, seed=3))
    (again,) = pictures(figures.embedding(z, images, seed=3))
    np.testing.assert_array_equal(shown, again)
    for value in (1.0, 2.0):
        # Each fills its own bounding box, with no room for forty of the other in it.
        places = np.argwhere(shown[1::3, 1::3] == value)
        assert len(places) == 40
        assert np.prod(np.ptp(places, axis=0) + 1) < 80


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
    left, right = pictures(figures.samples(images, images[:3]))
    assert left.shape == right.shape == (16, 3 * 18 - 2)


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


def words(figure):
    """All texts of a figure that are shown, as strings."""
    return [t.get_text() for t in figure.findobj(Text) if t.get_visible() and t.get_text()]


def shown_ticks(axis):
    """The boxes of an axis's tick labels, once drawn, in pixels."""
    low, high = sorted(axis.get_view_interval())
    inside = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return [t.label1.get_window_extent() for t in inside if t.label1.get_text()]


@pytest.mark.parametrize("size", [1, 12_000, 123_456, 3e9])
@pytest.mark.parametrize("spread", [0.01, 1])
def test_ticks_of_a_likelihood_do_not_collide(rng, size, spread):
    model = size * (1 + spread * rng.normal(size=400))
    baseline = model - size * spread * rng.normal(0.3, 1, 400)
    figure = figures.comparison(model, baseline, quantity="log likelihood", higher_is_better=True)
    figure.draw_without_rendering()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis, figure.axes[1].xaxis):
        boxes = shown_ticks(axis)
        assert len(boxes) >= 2
        for a, b in itertools.combinations(boxes, 2):
            assert not a.overlaps(b)
    edge = figure.bbox.x0
    assert all(t.x0 >= edge for t in shown_ticks(figure.axes[0].yaxis))


def test_comparison_says_how_many_are_beyond_the_histogram_and_the_axes(rng):
    advantage = np.concatenate([rng.uniform(-1, 1, 996), [-50, -60, 70, 80]])
    figure = figures.comparison(
        advantage, np.zeros(1000), quantity="log likelihood", higher_is_better=True
    )
    bars = figure.axes[1].patches
    low = min(bar.get_x() for bar in bars if not bar.get_hatch())
    high = max(bar.get_x() + bar.get_width() for bar in bars if not bar.get_hatch())
    below, above = np.sum(advantage < low), np.sum(advantage > high)
    assert min(below, above) >= 2
    assert -2 < low < high < 2
    assert [bar.get_height() for bar in bars if bar.get_hatch()] == [below, above]
    assert {f"{below} below", f"{above} above"} <= set(words(figure))
    (left,) = [text for text in words(figure) if "below these axes" in text]
    low = figure.axes[0].get_ylim()[0]
    assert left == f"{np.sum(np.minimum(advantage, 0) < low)} below these axes"


def test_a_few_losses_stay_on_their_side_of_the_histogram():
    model, baseline = np.full(1000, 1.0), np.full(1000, 2.0)
    model[0] = 2.1
    right = figures.comparison(model, baseline).axes[1]
    assert [
        bar.get_height() for bar in right.patches if bar.get_x() < -1e-9 and bar.get_height()
    ] == [1]


def test_calibration_says_what_is_beyond_the_scale(rng):
    scores = rng.normal(size=(1, 100, 100))
    scores[0, 0, :20], scores[0, 1, :5] = 9.0, -12.0
    figure = figures.calibration(calibrate(scores, np.zeros_like(scores)))
    assert {"above 8 sd:\n0.2%", "below \N{MINUS SIGN}8 sd:\n0.05%"} <= set(words(figure))
    everything = np.full((1, 4, 4), 100.0)
    drawn(figures.calibration(calibrate(everything, everything)))


def test_morphology_counts_every_galaxy_once(rng):
    real, sampled = rng.normal(size=(400, 4)), rng.normal(size=(300, 4))
    real[0], real[1] = 1000, -1000
    figure = figures.morphology(real, sampled)
    for axes in figure.axes:
        outside = [bar for bar in axes.patches if bar.get_hatch()]
        assert len(outside) == 4
        assert {"below", "above"} <= {t.get_text() for t in axes.texts}
        low = sum(
            np.sum(v < np.percentile(np.concatenate([real, sampled])[:, 0], 0.5)) / len(v)
            for v in (real[:, 0], sampled[:, 0])
        )
        if axes is figure.axes[0]:
            below = [bar.get_height() for bar in outside if bar.get_x() < 0]
            assert sum(below) == pytest.approx(low)


@pytest.mark.parametrize("scale", [1e-30, 3e-4, 5e8])
@pytest.mark.parametrize("ratio", [1.0, 37.0, 1e5])
def test_every_column_of_the_reconstructions_has_a_scale(rng, scale, ratio):
    x = galaxies(rng, 3)
    variance = scale * np.exp(rng.uniform(0, np.log(ratio), x.shape))
    figure = figures.reconstructions(x, x * 0.9, variance, baseline=x * 0.8)
    figure.draw_without_rendering()
    bars = [axes for axes in figure.axes if axes.get_xlabel()]
    assert [bar.get_xlabel() for bar in bars] == [
        "range of x",
        "range of x",
        "variance",
        "residual",
        "range of x",
        "residual",
    ]
    for bar in bars:
        boxes = shown_ticks(bar.xaxis)
        assert len(boxes) >= 2
        for a, b in itertools.combinations(boxes, 2):
            assert not a.overlaps(b)


def test_reconstructions_have_ids_and_the_range_of_each_row(rng):
    x = np.zeros((3, 8, 8))
    x[0, 0, 0], x[1, 0, 0], x[2, 0, :2] = 0.5, 120.0, [-0.25, 0.75]
    ids = ["100008", "a/very/long/path/to/a/galaxy.fits", "co$t_{\n"]
    figure = figures.reconstructions(x, x, np.ones_like(x), ids=ids)
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [label.rsplit("\n", 1)[-1] for label in labels] == [
        "0 to 0.5",
        "0 to 120",
        "\N{MINUS SIGN}0.25 to 0.75",
    ]
    assert labels[0].startswith("100008\n")
    assert len(labels[1].splitlines()[0]) == 18
    assert labels[1].startswith("a/very/")
    assert labels[1].splitlines()[0].endswith("laxy.fits")
    with pytest.raises(DataError, match="2 ids for 3 images"):
        figures.reconstructions(x, x, np.ones_like(x), ids=ids[:2])


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(1e-4, 2e-3, [1e-4, 3e-4, 1e-3]), (0.8, 4, [1, 2]), (1e-9, 1e3, None), (2, 50, [3, 10, 30])],
)
def test_round_numbers_are_few_and_inside(low, high, found):
    ticks = round_numbers(low, high, 3)
    assert 2 <= len(ticks) <= 3
    assert all(low <= tick <= high for tick in ticks)
    if found:
        np.testing.assert_allclose(ticks, found)


def test_pictures_of_the_prior_say_which_intensities_are_black_and_white(rng):
    images = np.linspace(0.1, 0.9, 10 * 64).reshape(10, 8, 8)
    for figure in (
        figures.samples(images, images),
        figures.traversal(images.reshape(2, 5, 8, 8), range(5)),
    ):
        low, high = np.percentile(images, [1, 99.7])
        assert f"intensity: black {low:.3g}, white {high:.3g}" in words(figure)


@pytest.mark.parametrize("row_order", ["top", "bottom"])
def test_the_first_row_of_fits_images_is_drawn_at_the_bottom(rng, tmp_path, monkeypatch, row_order):
    """Every picture with the first row marked, through the figures of a whole run."""

    def marked(count):
        images = 0.1 * rng.random((count, 12, 12))
        images[:, 0] = 1
        return images

    held_out, given = marked(64), []
    if row_order == "bottom":
        held_out[7, 0, 3] = 10  # a hot pixel, as linear units have
    encoded, sd = rng.normal(5, 10, (8, 300)), rng.uniform(1e-3, 1e-2, (8, 300))

    class Model:
        prior = "a mixture" if row_order == "bottom" else None
        preparation = Settings(units="linear") if row_order == "bottom" else None

        def traverse(self, steps):
            np.testing.assert_array_equal(steps, [-3, -2, -1, 0, 1, 2, 3])
            return marked(2 * len(steps)).reshape(2, len(steps), 144)

        def sample(self, count):
            return marked(count).reshape(count, 144)

        def encode(self, images, tempered=True):
            if len(images) == len(held_out):
                return posterior
            np.testing.assert_array_equal(images, held_out[:8])
            assert not tempered
            return Posterior(encoded, sd)

        def reconstruct(self, images, posterior):
            np.testing.assert_array_equal(images, held_out[:8])
            given.append((posterior.mean - encoded) / sd)
            return marked(8), marked(8)

    numbers = rng.random((2, 64)) + 1
    posterior = Posterior(rng.random((64, 2)), rng.random((64, 2)))
    model = ModelReconstructions(marked(64), *numbers, marked(64))
    fits = Reconstructions(marked(64), *(numbers + rng.random((2, 64))))
    result = Evaluation(
        encoded_bound=rng.random(64),
        bounds=Bounds(posterior, *rng.random((3, 64))),
        importance=ImportanceBounds(rng.random(64), 10),
        comparison=Comparison(model, model, rng.random(64), Baselines(fits, fits, fits, 2)),
        calibration=calibrate(held_out, held_out),
        morphology=MorphologyComparison(rng.random((64, 4)), rng.random((64, 4))),
        refine_steps=3,
        temperature=np.ones(2),
    )
    kept, captions = {}, {}

    def plate(figure, path, title, caption):
        kept[path.stem], captions[path.stem] = figure, caption

    monkeypatch.setattr("layerkit.galaxy.report.gallery.plate", plate)
    history = {"iteration": [1, 2], "kl": [1.0, 2.0]}
    draw_figures(tmp_path, Model(), result, held_out, history, row_order=row_order)
    assert ("mixture of Gaussians" in captions["samples"]) == (Model.prior is not None)
    first = -1 if row_order == "bottom" else 0
    for name in ("samples", "traversal"):
        for picture in pictures(kept[name]):
            np.testing.assert_array_equal(picture[first, :12], np.ones(12))
    cells = pictures(kept["embedding"])[0]
    bright = np.argwhere(cells > 0.5 * cells.max())[:, 0]
    assert set(bright % 12) == {first % 12}
    for i in (0, 1, 2, 4):
        assert (pictures(kept["reconstructions"])[i][first] > 0.9).all()
    # Figure 3 decodes samples of the encoder's posterior: these are of a standard normal.
    (sampled,) = given
    assert stats.kstest(sampled.reshape(-1), "norm").pvalue > 1e-3
    with pytest.raises(DataError, match="row_order"):
        draw_figures(tmp_path, Model(), result, held_out, history, row_order="up")


def test_captions_say_that_the_gaussian_has_no_sky(rng):
    for name in ("squared_error", "likelihood"):
        assert re.search("(no|without a) sky term", CAPTIONS[name][1])


def test_wrong_shapes_are_named(rng):
    images = galaxies(rng, 4)
    with pytest.raises(DataError, match="expected mean"):
        figures.reconstructions(images, images[0], images)
    with pytest.raises(DataError, match=r"\(4, latent\)"):
        figures.embedding(rng.normal(size=(3, 8)), images)
    with pytest.raises(DataError, match=r"arrays of \(3,\) and \(4,\)"):
        figures.comparison(np.ones(3), np.ones(4))


@pytest.mark.parametrize("size", [12, 69])
def test_square_pictures_are_drawn_square(size):
    images = galaxies(np.random.default_rng(3), 8, size)
    figure = figures.reconstructions(images, images, images)
    left = figure.axes[0]
    across, up = left.get_position().size * figure.get_size_inches()
    (shown,) = left.images
    height, width = shown.get_array().shape
    assert width == size
    assert across / width == pytest.approx(up / height, rel=1e-6)


@pytest.mark.parametrize("decades", [0.2, 0.5, 1, 2, 6])
def test_ticks_of_an_error_do_not_collide(rng, decades):
    model = 3e-3 * 10 ** rng.uniform(0, decades, 60)
    figure = figures.comparison(model, model[::-1])
    figure.draw_without_rendering()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = shown_ticks(axis)
        assert len(boxes) >= 1
        for a, b in itertools.combinations(boxes, 2):
            assert not a.overlaps(b)
        assert not axis.get_minor_ticks()


def test_words_beyond_a_histogram_stay_in_its_frame(rng):
    few = figures.comparison(np.array([1.0, 1.0, 1.0]), np.array([2.0, 4.0, 30.0]))
    both = figures.morphology(rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    for figure in (few, both):
        figure.draw_without_rendering()
        found = 0
        for axes in figure.axes:
            for text in axes.texts:
                if re.search("below|above", text.get_text()):
                    found += 1
                    assert text.get_window_extent().y1 <= axes.bbox.y1
        assert found
    ticks = few.axes[1].get_yticks()
    assert (ticks == np.round(ticks)).all()  # images come whole


def test_calibration_writes_its_legend_off_the_lines(rng):
    figure = figures.calibration(calibrate(rng.normal(size=(2, 30, 30)), np.zeros((2, 30, 30))))
    figure.draw_without_rendering()
    left, right = figure.axes
    box = left.get_legend().get_window_extent()
    assert box.y0 >= left.bbox.y1
    assert box.y1 <= figure.bbox.y1
    assert box.x0 >= 0
    assert box.x1 < right.bbox.x0


def test_a_few_galaxies_of_the_embedding_are_not_drawn_larger_than_life(rng):
    width, height = figures.embedding(rng.normal(size=(3, 2)), galaxies(rng, 3)).get_size_inches()
    assert max(width, height) <= 3 * 1.2


def test_outliers_are_those_of_the_lowest_bounds_beside_those_in_the_middle(rng):
    images = galaxies(rng, 20)
    bounds = rng.permutation(20) * 10.0
    figure = figures.outliers(images, bounds, columns=2, most=4, ids=[f"b{b:.0f}" for b in bounds])
    assert [mark.galaxy for mark in marks(figure)][:4] == ["b0", "b10", "b20", "b30"]
    assert {mark.galaxy for mark in marks(figure)[4:]} == {"b80", "b90", "b100", "b110"}
    strangest, typical = pictures(figure)
    worst = images[np.argsort(bounds)]
    np.testing.assert_array_equal(strangest[:16, :16], worst[0])
    np.testing.assert_array_equal(strangest[-16:, -16:], worst[3])
    assert any(np.array_equal(typical[:16, :16], worst[k]) for k in (8, 9, 10, 11))
    with pytest.raises(DataError, match="a bound for each of 20 images"):
        figures.outliers(images, bounds[:5])
    alone = figures.outliers(images[:1], bounds[:1])
    assert len(pictures(alone)) == 2
