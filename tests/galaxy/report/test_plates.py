"""Figures on the report: their dark colours, and the places of the galaxies in them."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy.report import figures
from layerkit.galaxy.report.figures.style import BACKGROUND
from layerkit.galaxy.report.page.plates import DARK, marks, plate

COUNT = 6
IDS = [f"galaxy {k}" for k in range(COUNT)]


def levels():
    """Pictures with a square of another brightness each, (6, 24, 24)."""
    images = np.zeros((COUNT, 24, 24))
    images[:, 6:18, 6:18] = np.linspace(0.3, 1, COUNT).reshape(-1, 1, 1)
    return images


def pixels(data):
    with Image.open(data) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


@pytest.mark.parametrize("name", ["reconstructions", "embedding", "samples"])
def test_a_galaxy_is_seen_where_its_mark_is(rng, tmp_path, name):
    x = levels()
    figure = {
        "reconstructions": lambda: figures.reconstructions(
            x, x, np.ones_like(x), residuals=False, ids=IDS, most=5
        ),
        "embedding": lambda: figures.embedding(rng.normal(size=(COUNT, 2)), x, ids=IDS),
        "samples": lambda: figures.samples(x[::-1], x, columns=4, ids=IDS),
    }[name]()
    made = plate(figure, tmp_path / "figure.png", "", "")
    shown = [mark.galaxy for mark in made.marks]
    if name == "embedding":
        assert sorted(shown) == IDS
    else:
        assert list(dict.fromkeys(shown)) == (IDS[:5] if name == "reconstructions" else IDS)
    picture = pixels(made.path)
    height, width, _ = picture.shape
    seen = {}
    for galaxy, left, top, across, down in made.marks:
        row, column = round(height * (top + down / 2)), round(width * (left + across / 2))
        colour = picture[row, column]
        if np.ptp(colour) == 0:  # the variance has colours
            seen.setdefault(galaxy, colour[0])
        # A picture is as wide as its mark, within a pixel of the figure.
        assert abs(across * width - down * height) < 2
    if name != "reconstructions":  # whose rows have scales of their own
        brightness = [seen[galaxy] for galaxy in sorted(seen)]
        assert np.all(np.diff(brightness) > 10)


def test_figures_without_ids_have_no_marks(rng):
    x = levels()
    assert marks(figures.samples(x, x)) == []
    assert marks(figures.embedding(rng.normal(size=(COUNT, 2)), x)) == []


def test_ids_that_are_too_few_are_refused(rng):
    x = levels()
    with pytest.raises(DataError, match="samples: got 5 ids for 6 images"):
        figures.samples(x, x, ids=IDS[1:])
    with pytest.raises(DataError, match="embedding: got 5 ids for 6 images"):
        figures.embedding(rng.normal(size=(COUNT, 2)), x, ids=IDS[1:])


def test_dark_figures_have_dark_paper_and_light_words_and_the_pictures_they_had(tmp_path):
    x = levels()
    made = plate(figures.samples(x, x, columns=3), tmp_path / "figure.png", "", "")
    light, dark = pixels(made.path), pixels(BytesIO(made.dark))
    assert light.shape == dark.shape
    head = slice(0, 40)  # words, and no pictures
    paper = (light[head] == 255).all(axis=-1)
    assert paper.mean() > 0.8
    assert np.unique(dark[head][paper], axis=0).tolist() == [
        [round(255 * value) for value in to_rgb(DARK[BACKGROUND])]
    ]
    assert light[head].min() < 50
    assert dark[head].max() > 200
    square = light[90:106, 52:68]
    assert square.min() > 50
    np.testing.assert_array_equal(dark[90:106, 52:68], square)


def test_nothing_of_a_diagram_stays_light(rng, tmp_path):
    """Legends, grids, spines, open marks, hatched bars and filled histograms."""
    error = rng.lognormal(size=300)
    for figure in (
        figures.comparison(error, error * rng.lognormal(1, 1, 300)),
        figures.morphology(rng.normal(size=(40, 4)), rng.standard_cauchy(size=(30, 4))),
    ):
        assert isinstance(figure, Figure)
        light = pixels(figures.save(figure, tmp_path / "light.png"))
        dark = pixels(BytesIO(plate(figure, tmp_path / "figure.png", "", "").dark))
        white = (light > 250).all(axis=-1)
        assert white.mean() > 0.5
        assert dark[white].max() < 90
        black = (light < 20).all(axis=-1)
        assert black.any()
        assert dark[black].min() > 150
