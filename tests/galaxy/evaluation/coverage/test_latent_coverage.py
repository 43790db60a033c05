"""Scatter of z over redrawn noise, against closed forms of linear models and against GalSim."""

import numpy as np
import pytest
from scipy.stats import norm

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError, NetError
from layerkit.galaxy.evaluation.coverage.latent_coverage import DRAWS, NOISE_SHARE
from layerkit.galaxy.evaluation.coverage.redraws import redraw
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.report import figures

SIDE, LATENT, NOISE = 6, 2, 0.3


@pytest.fixture
def rng():
    """Equal numbers in every run: bounds on scatter leave little room for chance."""
    return np.random.default_rng(20)


def exact(rng, temperature=1.0):
    """A linear model whose g is the exact posterior; its W and the posterior's precision.

    W is constant over squares of 2 x 2 pixels, as enlarged pictures and their noise are.  With
    orthogonal columns of W the posterior has independent axes: precision 1 + |w|^2 / s^2, and mean
    w . x / s^2 over it.
    """
    pixels = SIDE * SIDE
    net = lk.Net(
        [
            L.Input("x", shape=(pixels,)),
            L.Dense("z_mean", "x", units=LATENT),
            L.Dense("z_log_variance", "x", units=LATENT, weight=0.0),
            L.Reparameterize("z", "z_mean", "z_log_variance"),
            L.Dense("x_mean", "z", units=pixels),
            L.Dense("x_log_variance", "z", units=pixels, weight=0.0, bias=2 * np.log(NOISE)),
            L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance", floor=0.0),
            L.GaussianKL("kl", "z_mean", "z_log_variance"),
        ],
        16,
        dtype="float64",
        phase="test",
    )
    smooth = rng.standard_normal((LATENT, SIDE // 2, SIDE // 2)).repeat(2, 1).repeat(2, 2)
    w = np.linalg.qr(smooth.reshape(LATENT, pixels).T)[0] * [0.4, 1.5]
    precision = 1 + (w**2).sum(axis=0) / NOISE**2
    net.params["x_mean/weight"].data[...] = w.T
    net.params["z_mean/weight"].data[...] = w / NOISE**2 / precision
    net.params["z_log_variance/bias"].data[...] = -np.log(precision)
    return galaxy.GalaxyModel(net, temperature), w, precision


def enlarged(picture):
    """Each pixel as four: noise is shared by squares of 2 x 2."""
    return picture.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("cut", [np.copy, enlarged])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_scatter_of_an_exact_posterior_is_the_closed_form(cut, share, rng):
    """W' C W of the noise's covariance C, over the posterior's precision, squared."""
    model, w, precision = exact(rng)
    small = SIDE if cut is np.copy else SIDE // 2
    a = np.stack([cut(x).ravel() for x in np.eye(small**2).reshape(-1, small, small)], axis=1)
    c = NOISE**2 * a @ a.T
    scatter = np.sqrt(np.einsum("pk,pq,qk->k", w, c, w)) / NOISE**2 / precision
    pictures = rng.standard_normal((300, small, small))
    found = galaxy.latent_coverage(
        model, pictures, NOISE, cut=cut, share=share, refine_steps=0, seed=1
    )
    assert found.deviation.shape == found.sd.shape == (300, DRAWS, LATENT)
    np.testing.assert_allclose(found.sd, precision**-0.5 * np.ones_like(found.sd))
    total = np.sqrt((found.deviation**2).mean(axis=(0, 1)))
    np.testing.assert_allclose(total, scatter, rtol=0.06)
    # The median of 8 draws' standard deviations is 0.95 of the true one (chi square, 7 degrees).
    np.testing.assert_allclose(found.ratio, 0.952 * scatter * precision**0.5, rtol=0.08)


def test_independent_noise_has_the_coverage_that_the_posterior_says(rng):
    """The sd is of z given x; the mean scatters less, by the share that the prior decides."""
    model, _, precision = exact(rng)
    found = galaxy.latent_coverage(
        model, rng.standard_normal((400, SIDE, SIDE)), NOISE, cut=np.copy, refine_steps=0
    )
    shrunk = np.sqrt(1 - 1 / precision)
    for k, within in enumerate(found.within, start=1):
        np.testing.assert_allclose(within, 1 - 2 * norm.sf(k / shrunk), atol=0.03)
    np.testing.assert_allclose(found.temperature(), 1.0, atol=0.2)


def test_the_temperature_makes_coverage_nominal(rng):
    model, _, precision = exact(rng)

    def measure(seed, **settings):
        return galaxy.latent_coverage(
            model,
            rng.standard_normal((300, SIDE // 2, SIDE // 2)),
            NOISE,
            cut=enlarged,
            refine_steps=0,
            seed=seed,
            **settings,
        )

    before = measure(1)
    assert (before.within[0] < 0.6).any()
    model.temperature = before.temperature()
    after = measure(2)
    assert (after.within[0] >= 0.65).all()
    assert (after.within[1] >= 0.94).all()
    assert (after.ratio < 1.1).all()
    # Standard deviations as the likelihood has them are still to be had, and bounds use them.
    np.testing.assert_allclose(measure(2, tempered=False).sd[0, 0], precision**-0.5)
    hot = model.temperature > 1
    assert hot.any()
    np.testing.assert_allclose(
        after.sd[0, 0][hot], (1 + (precision - 1) / model.temperature)[hot] ** -0.5
    )


def test_posteriors_are_tempered_where_they_are_reported_only(rng):
    model, *_ = exact(rng)
    images = rng.standard_normal((5, SIDE, SIDE))
    plain = {"encode": model.encode(images), "refine": galaxy.refine(model, images, 3)}
    model.net.run.passes = 0
    bound = model.bound(images)[0]
    model.temperature = [1.0, 9.0]
    model.net.run.passes = 0
    np.testing.assert_array_equal(model.bound(images)[0], bound)
    found = {"encode": model.encode(images), "refine": galaxy.refine(model, images, 3)}
    own = {
        "encode": model.encode(images, tempered=False),
        "refine": galaxy.refine(model, images, 3, tempered=False),
    }
    for name, tempered in found.items():
        same = own[name]
        np.testing.assert_array_equal(same.sd, plain[name].sd)
        np.testing.assert_array_equal(tempered.mean, plain[name].mean)
        np.testing.assert_array_equal(tempered.sd[:, 0], plain[name].sd[:, 0])
        expected = (1 + (plain[name].sd[:, 1] ** -2 - 1) / 9) ** -0.5
        np.testing.assert_allclose(tempered.sd[:, 1], expected)


@pytest.mark.parametrize("bad", [0.5, [1, 2, 3], np.nan, "hot", [1, np.inf]])
def test_temperatures_that_are_none(bad, rng):
    with pytest.raises(NetError, match="2 axes"):
        exact(rng, bad)


def test_pictures_that_fail_under_a_draw_are_left_out(rng):
    model, *_ = exact(rng)

    def fails(picture):
        if picture[0, 0] > 50:
            raise UnusableImageError("too bright")
        return picture

    pictures = rng.standard_normal((4, SIDE, SIDE))
    pictures[1] += 100
    found = galaxy.latent_coverage(model, pictures, [0.1, 0.2, 0.3, 0.4], cut=fails, refine_steps=0)
    assert found.kept.tolist() == [0, 2, 3]
    assert not found.is_sufficient
    assert found.temperature().tolist() == [1, 1]
    with pytest.raises(DataError, match="no picture"):
        galaxy.latent_coverage(model, pictures[1:2], 0.1, cut=fails)


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": 0.0},
        {"noise": [0.1, -1.0]},
        {"noise": np.nan},
        {"noise": [0.1]},
        {"draws": 1},
        {"share": 0.0},
        {"share": np.nan},
    ],
)
def test_settings_that_make_no_sense(settings, rng):
    model, *_ = exact(rng)
    pictures = rng.standard_normal((2, SIDE, SIDE))
    with pytest.raises(DataError, match="latent_coverage"):
        galaxy.latent_coverage(model, pictures, **{"noise": 0.1, "cut": np.copy, **settings})


def test_the_figure_shows_every_axis_with_and_without_temperature(rng):
    model, *_ = exact(rng)
    model.temperature = [1.0, 4.0]
    found = galaxy.latent_coverage(
        model, rng.standard_normal((20, SIDE, SIDE)), NOISE, cut=np.copy, refine_steps=0
    )
    raw = galaxy.latent_coverage(
        model,
        rng.standard_normal((20, SIDE, SIDE)),
        NOISE,
        cut=np.copy,
        refine_steps=0,
        tempered=False,
    )
    np.testing.assert_allclose(found.untempered(model.temperature).sd, raw.sd)
    left, right = figures.latent_coverage(found, model.temperature).axes
    bars = [c.lines[0].get_ydata() for c in left.containers]
    np.testing.assert_allclose(bars, [found.ratio, found.untempered(model.temperature).ratio])
    drawn = [
        line.get_ydata()
        for line in right.lines
        if len(line.get_ydata()) == LATENT and line.get_marker() in "os"
    ]
    np.testing.assert_allclose(drawn[:2], found.within)
    assert len(figures.latent_coverage(raw, np.ones(2)).axes[0].containers) == 1


def stamps(rng, count, side=100):
    """Galaxies of exponential profiles without noise, in 0..1, whose crops have 25 to 50 pixels."""
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    out = []
    for _ in range(count):
        angle, scale, ratio = rng.uniform(0, np.pi), rng.uniform(2.2, 4.5), rng.uniform(0.4, 1)
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        u = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
        v = (y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)
        light = np.exp(-np.hypot(np.hypot(u, v / ratio), 1) / scale)
        out.append(0.06 + rng.uniform(0.7, 0.9) * light)
    return np.array(out, "float32")


def test_pictures_are_prepared_as_the_model_says(rng):
    """In linear units rather than stretched, as galaxies were that it was trained on."""
    model, *_ = exact(rng)
    pictures = 1000 * stamps(rng, 4).astype("float64") + rng.standard_normal((4, 100, 100))
    settings = Settings(size=SIDE, frame=5.0, units="linear")
    model.preparation = Settings(size=69, frame=5.0, units="linear")
    options = {"share": NOISE_SHARE, "refine_steps": 0}
    found = galaxy.latent_coverage(model, pictures, **options)
    wanted = galaxy.latent_coverage(
        model, pictures, cut=lambda picture: cut_out(picture, settings)[0], **options
    )
    assert len(found.kept) >= 3
    np.testing.assert_array_equal(found.deviation, wanted.deviation)


def test_standard_deviations_are_right_where_small_crops_are_enlarged(rng):
    """End to end: pictures, crops, training and refining, at twice the size that crops have."""
    size, noise = 60, 0.02
    truth = stamps(rng, 240)
    noisy = (truth + noise * rng.standard_normal(truth.shape)).astype("float32")

    def cut(picture):
        return cut_out(picture, Settings(size=size))[0]

    views, kept = redraw(noisy[:160], 1e-9, 2, share=1.0, cut=cut)
    assert len(kept) > 140
    layers = lk.load_net("nets/galaxy_gdae.py", pixels=size * size, hidden=32, latent=4)
    data = L.MemoryData("x", data=views[:, 0], augment="dihedral")
    net = lk.Net(lk.with_data(layers, data), 32, seed=1)
    lk.Adam(net, lk.rates.Cosine(3e-3, 600, final=1e-5)).steps(600)
    model = galaxy.GalaxyModel(lk.Net(layers, 256, phase="test", share=net))
    model.standardise(views[:, 0])
    before = galaxy.latent_coverage(model, noisy[160:200], share=NOISE_SHARE, cut=cut)
    model.temperature = before.temperature()
    after = galaxy.latent_coverage(model, truth[200:], noise, cut=cut, seed=1)
    assert len(after.kept) > 30
    raw = after.untempered(model.temperature)
    print(raw.ratio, after.ratio, after.within)
    assert raw.ratio.max() > 1.5
    assert after.ratio.max() < 1.3
    assert after.within[0].min() > 0.55
    assert after.within[1].min() > 0.88


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"draws": 8.0}, "draws must be a whole number, at least 2, got 8.0"),
        ({"draws": "8"}, "draws must be a whole number"),
        ({"draws": True}, "draws must be a whole number"),
        ({"share": "x"}, "share must be a finite number, above 0 and at most 1"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"refine_steps": 2.5}, "refine_steps must be a whole number"),
        ({"tempered": "no"}, "tempered must be True or False"),
        ({"noise": "a"}, "noise must be a finite number, above 0, or None"),
        ({"noise": [[1.0]]}, r"noise must be one number, or one for each picture.*\(1, 1\)"),
        ({"noise": [1.0]}, "noise has 1 numbers and there are more pictures"),
        ({"noise": ["a", "b"]}, "noise: expected an array of numbers"),
        ({"cut": 3}, "cut must be a function that prepares a picture, or None, got 3"),
        ({"cut": lambda p: (p, 1)}, "the result of cut: expected an array of numbers"),
        ({"cut": lambda p: p[: 2 + int(abs(1e6 * p[0, 0])) % 3]}, "cut must return images of one"),
        ({"pictures": None}, "pictures must be a sequence of arrays, got None"),
        ({"pictures": 5}, "pictures must be a sequence of arrays, got 5"),
        ({"pictures": [5, 6]}, r"picture 0 must be an array \(height, width\), got shape \(\)"),
        ({"pictures": np.ones((6, 6))}, r"picture 0 must be .* got shape \(6,\); give a list"),
        ({"pictures": ["a"]}, "picture 0: expected an array of numbers"),
        ({"model": None}, "model must be a GalaxyModel, got None"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(fault, words, rng):
    given = {
        "model": exact(rng)[0], "pictures": list(rng.random((2, SIDE, SIDE))), "noise": NOISE,
        "refine_steps": 0, "cut": np.copy, **fault,
    }  # fmt: skip
    with pytest.raises(DataError, match=words):
        galaxy.latent_coverage(**given)


def test_pictures_may_be_nested_lists(rng):
    model, pictures = exact(rng)[0], rng.random((2, SIDE, SIDE))
    found, expected = (
        galaxy.latent_coverage(model, given, NOISE, 2, cut=np.copy, refine_steps=0)
        for given in (pictures.tolist(), pictures)
    )
    np.testing.assert_array_equal(found.deviation, expected.deviation)
