"""Objects show in a few lines what they are, in a notebook or a console."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import DataError, GradientError
from layerkit.galaxy import Evaluation, GalaxyModel, GalaxySet, PCABaseline, Posterior, open_source
from layerkit.galaxy.baselines.fitting import ProfileFits
from layerkit.galaxy.baselines.gaussian import fit_gaussian
from layerkit.galaxy.evaluation.bounds import Bounds, ImportanceBounds
from layerkit.galaxy.evaluation.calibration import calibrate
from layerkit.galaxy.evaluation.comparison import (
    Baselines,
    Comparison,
    ModelReconstructions,
    Reconstructions,
)
from layerkit.galaxy.evaluation.morphology import MorphologyComparison
from layerkit.inspection.display import Extra, brief


def net(**settings):
    return lk.Net(
        [
            L.Input("x", shape=(6,)),
            L.Dense("h<1>", "x", units=4, neuron="relu"),
            L.Dense("y", "h<1>", units=5),
            L.Input("t", shape=(5,)),
            L.SquareLoss("loss", "y", "t"),
        ],
        batch_size=3,
        **settings,
    )


class Text(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_a_net_shows_its_table_in_consoles_and_notebooks():
    shown = net()
    assert repr(shown) == str(shown)
    assert "SquareLoss" in repr(shown)
    page = Text(shown._repr_html_())
    assert page.tags == ["pre"]
    assert page.text == str(shown)


def test_errors_are_one_line_whatever_a_file_is_called(tmp_path):
    path = tmp_path / "a\nb.txt"
    path.write_text("not a picture")
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "a b.txt" in str(caught.value)
    assert str(GradientError("two\nlines")) == "two\nlines"  # a list of numbers that differ


def test_a_profile_shows_its_table(rng):
    profile = lk.Adam(net()).profile(1, x=rng.random((3, 6)), t=rng.random((3, 5)))
    assert Text(profile._repr_html_()).text == repr(profile) == str(profile)


def test_a_solver_and_its_plan_say_where_they_are(rng):
    solver = lk.Adam(net(), lk.rates.Cosine(0.1, 20))
    solver.steps(2, x=rng.random((3, 6)), t=rng.random((3, 5)))
    text = repr(solver)
    assert text.startswith("Adam(rate=Cosine(rate=0.1, iterations=20, final=0.0), clip=None")
    assert "iteration=2" in text
    assert "53 numbers in 4 parameters" in text  # 6 * 4 + 4 + 4 * 5 + 5
    assert repr(solver.plan()).startswith("Plan(5 forward calls, ")
    assert len(repr(solver.plan())) < 100
    solver.net.freeze("y/*")
    assert "28 numbers in 2 parameters" in repr(solver)


def galaxy_set(count):
    return GalaxySet(
        images=np.zeros((count, 9, 9), np.float32),
        ids=[f"galaxy {i}" for i in range(count)],
        crops=np.zeros((count, 3)),
        scales=np.ones(count),
        stretches=np.ones((count, 3)),
        excluded={f"other {i}": "too small" for i in range(count)},
        source="a.zip",
        read=2 * count,
        settings={"size": 9},
        path=Path("galaxies.h5"),
    )


def evaluation(rng, count):
    images = rng.random((count, 9, 9))
    model = ModelReconstructions(images, rng.random(count), rng.random(count), images)
    fits = Reconstructions(images, rng.random(count), rng.random(count))
    posterior = Posterior(rng.random((count, 2)), rng.random((count, 2)))
    return Evaluation(
        rng.random(count),
        Bounds(posterior, rng.random(count), rng.random(count), rng.random(count)),
        ImportanceBounds(rng.random(count), 10),
        Comparison(model, model, rng.random(count), Baselines(fits, fits, fits, 2)),
        calibrate(images, images),
        MorphologyComparison(rng.random((count, 4)), rng.random((count, 4))),
        refine_steps=3,
        temperature=np.ones(2),
    )


def test_results_show_sizes_instead_of_numbers(rng):
    images = rng.random((50, 9, 9))
    columns = [rng.random((50, 6)), images, rng.random(50), np.ones(50, bool)]
    for shown, expected in (
        (galaxy_set(50), ["float32 (50, 9, 9)", "ids=list of 50", "excluded=dict of 50"]),
        (evaluation(rng, 50), ["50 held-out images", "over Gaussian"]),
        (Posterior(images[:, 0], images[:, 1]), ["mean=float64 (50, 9)", "sd=float64 (50, 9)"]),
        (calibrate(images, images), ["density=float64 (128,)"]),
        (ProfileFits(*columns), ["models=float64 (50, 9, 9)"]),
        (fit_gaussian(images[0]), ["model=float64 (9, 9)"]),
        (PCABaseline.fit(images, 3), ["3 components"]),
    ):
        text = repr(shown)
        assert text.startswith(f"{type(shown).__name__}(")
        assert "\n" not in text
        assert len(text) < 800
        for words in expected:
            assert words in text


def test_an_evaluation_shows_its_bounds_and_wins_as_tables(rng):
    shown = evaluation(rng, 50)
    shown.bounds.held_out[:] = 1234.5
    shown.comparison.closest_errors[:] = -1.0
    page = Text(shown._repr_html_())
    assert page.tags.count("table") == 2
    assert page.tags.count("tr") == 5 + 1 + 3
    for words in ("50 held-out images", "1,234.5 nats", "10 samples", "68.3%", "asymmetry 0."):
        assert words in page.text
    assert page.text.count("50 (100.0%)") >= 3  # the closest images beat each baseline


def test_the_galaxy_model_says_how_large_it_is():
    path = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"
    model = GalaxyModel(lk.Net(lk.load_net(path, hidden=8, latent=3), 2, phase="test"))
    assert repr(model).startswith("GalaxyModel(4761 pixels from 3 latents")
    model.temperature = [1.0, 2.5, 1.0]
    page = Text(model._repr_html_())
    numbers = sum(p.data.size for p in model.net.params.values())
    for words in ("4,761 pixels", "3 dimensions", "1 to 2.5", "none", f"{numbers:,}, float32"):
        assert words in page.text


def test_what_came_with_a_snapshot_is_a_dictionary_that_fits_on_the_screen(tmp_path):
    extra = {"history": {"kl": list(range(5000))}, "recent": list(range(900)), "done": True}
    lk.save(tmp_path / "a.h5", net(), extra=extra)
    for found in (lk.load(tmp_path / "a.h5", net()), lk.snapshot.read_extra(tmp_path / "a.h5")):
        assert found == extra
        assert isinstance(found, dict)
        assert "recent=list of 900" in repr(found)
        assert "done=True" in repr(found)
        assert len(repr(found)) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a" * 70, repr("a" * 57 + "...")),
        ([1, 2], "[1, 2]"),
        ([1] * 7, "list of 7"),
        (np.float32(2), repr(np.float32(2))),
        (np.zeros((2, 3)), "float64 (2, 3)"),
        ({"a": [1] * 100}, "dict of 1"),
        (None, "None"),
        (Extra(a=1), "Extra(a=1)"),
        (np.array(1.5), "array(1.5)"),
    ],
)
def test_brief(value, text):
    assert brief(value) == text
