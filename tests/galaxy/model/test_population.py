"""The population of a model: a prior fitted to galaxies, and noise that pixels share."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal

from layerkit import galaxy
from layerkit.errors import DataError, NetError
from layerkit.galaxy.evaluation import population as evaluation
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.model.pixels import residuals, scores
from layerkit.galaxy.model.population.noise import learn_noise
from layerkit.galaxy.model.population.prior import fit_mixture
from layerkit.galaxy.model.population.stored import population_arrays, restore_population
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.layers import GaussianReconstruction, StudentReconstruction

LATENT, SIDE = 3, 12


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setattr(evaluation, "TREES", 60)


def mixture(rng, components=2, latent=LATENT):
    roots = rng.standard_normal((components, latent, latent))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(latent)
    means = rng.standard_normal((components, latent))
    return galaxy.MixturePrior(rng.uniform(0.5, 1, components), means, covariances)


def some_noise(rng, side=SIDE):
    lags = 0.5 ** np.add.outer(np.arange(5), np.arange(5))
    components = 0.2 * rng.standard_normal((2, side, side))
    return galaxy.PixelNoise(components, [lags, lags**2], 0.1 * np.ones((1, side, side)))


def test_density_of_a_mixture(rng):
    prior, z = mixture(rng), rng.standard_normal((20, LATENT))
    expected = sum(
        w * multivariate_normal(m, c).pdf(z)
        for w, m, c in zip(prior.weights, prior.means, prior.covariances, strict=True)
    )
    np.testing.assert_allclose(np.exp(prior.log_density(z)), expected, rtol=1e-9)
    normal = multivariate_normal(np.zeros(LATENT), np.eye(LATENT))
    np.testing.assert_allclose(prior.gain(z), np.log(expected) - normal.logpdf(z), rtol=1e-9)


def test_draws_of_a_mixture(rng):
    prior = mixture(rng)
    z = prior.sample(200_000, rng)
    mean = prior.weights @ prior.means
    second = np.einsum("k,kij->ij", prior.weights, prior.covariances)
    second += np.einsum("k,ki,kj->ij", prior.weights, prior.means, prior.means)
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(z.T @ z / len(z), second, atol=0.15)


def test_a_fitted_prior_has_the_moments_of_the_aggregate_posterior(rng):
    n = 4000
    mean = rng.standard_normal((n, 2)) @ np.array([[1, 0.9], [0, 0.3]])
    sd = np.full((n, 2), 0.5)  # variances of posteriors count too
    prior = fit_mixture(Posterior(mean, sd), Posterior(mean[:100], sd[:100]), [1])
    np.testing.assert_allclose(
        prior.covariances[0], np.cov(mean.T) + 0.25 * np.eye(2), rtol=0.05, atol=0.02
    )


def test_the_number_of_gaussians_is_what_others_ask_for(rng):
    def two_clumps(n):
        mean = 0.3 * rng.standard_normal((n, 2)) + 3 * rng.choice([-1, 1], (n, 1))
        return Posterior(mean, np.full((n, 2), 0.1))

    prior = fit_mixture(two_clumps(3000), two_clumps(300), [1, 2])
    assert len(prior.weights) == 2
    np.testing.assert_allclose(np.sort(prior.means[:, 0]), [-3, 3], atol=0.1)


def test_the_bound_is_that_with_the_prior(net, rng):
    """KL of two Gaussians in closed form, against samples."""
    model = galaxy.GalaxyModel(net)
    images = rng.random((3, SIDE, SIDE))
    model.net.run.passes = 0
    before, kl_before = model.bound(images, 300)
    centre, variance = rng.standard_normal(LATENT), rng.uniform(0.5, 2, LATENT)
    model.prior = galaxy.MixturePrior([1.0], [centre], [np.diag(variance)])
    model.net.run.passes = 0  # noise of the likelihood as before
    bound, kl = model.bound(images, 300)
    mean, sd = model.encode(images)
    terms = np.log(variance / sd**2) + (sd**2 + (mean - centre) ** 2) / variance - 1
    np.testing.assert_allclose(kl, 0.5 * terms.sum(axis=1), rtol=0.1, atol=0.2)
    np.testing.assert_allclose(bound - before, kl_before - kl, rtol=1e-6)


def test_the_normal_prior_as_a_mixture_changes_no_bound(net, rng):
    model = galaxy.GalaxyModel(net)
    images = rng.random((3, SIDE, SIDE))

    def bounds():
        model.net.run.passes = 0
        return [*model.bound(images, 3), model.importance_bound(images, 5)]

    before = bounds()
    model.prior = galaxy.MixturePrior([1.0], np.zeros((1, LATENT)), [np.eye(LATENT)])
    np.testing.assert_allclose(bounds(), before, rtol=1e-10)
    model.prior = galaxy.MixturePrior([1.0], np.ones((1, LATENT)), [np.eye(LATENT)])
    assert np.abs(bounds()[2] - before[2]).max() > 0.01


def test_samples_have_the_prior_and_repeat(net, rng):
    prior = galaxy.MixturePrior([1.0], 5 * np.ones((1, LATENT)), [0.01 * np.eye(LATENT)])
    model = galaxy.GalaxyModel(net, prior=prior)
    z = model.sample_z(6, seed=3)
    assert np.abs(z - 5).max() < 1
    np.testing.assert_allclose(model.sample(6, seed=3), model.decode(z)[0], rtol=1e-12)


@pytest.mark.parametrize("skew", [-0.8, 0.0, 0.5])
def test_residuals_undo_scores(rng, skew):
    for layer in (
        GaussianReconstruction("r", "x", "m", "v"),
        StudentReconstruction("r", "x", "m", "v", "s", degrees=5),
    ):
        given = np.linspace(-6, 6, 61)
        found = residuals(layer, given, skew)
        np.testing.assert_allclose(scores(layer, found, skew), given, rtol=1e-6, atol=1e-8)


def test_noise_has_the_correlations_that_it_says(rng):
    """The field and the components have closed forms; each pixel alone is standard normal."""
    side, n = 10, 20_000
    lags = 0.6 ** np.add.outer(np.arange(4), np.arange(4))
    lags *= np.outer([1, 1, 0.6, 0.2], [1, 1, 0.6, 0.2])
    component = 0.5 * np.ones((1, side, side))
    noise = galaxy.PixelNoise(component, [lags], np.zeros((0, side, side)))
    drawn = noise.draw(n, rng).reshape(n, side, side)
    assert kstest(drawn[:, 4, 4], "norm").pvalue > 1e-3
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 6)):
        field = lags[dy, dx] if max(dy, dx) < 4 else 0
        found = (drawn[:, 2, 3] * drawn[:, 2 + dy, 3 + dx]).mean()
        assert found == pytest.approx(0.25 + 0.75 * field, abs=0.04)


def test_noise_of_changing_amplitude_keeps_its_variance(rng):
    drawn = some_noise(rng).draw(20_000, rng)
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1, atol=0.08)


def test_noise_is_learned(rng):
    """Scores with known correlations: what is learned draws others alike."""
    side, n = 16, 3000
    lags = 0.7 ** np.add.outer(np.arange(4), np.arange(4))
    lags *= np.outer([1, 0.8, 0.4, 0.1], [1, 0.8, 0.4, 0.1])
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    blob = 0.6 * np.exp(-(x**2 + y**2) / 18)
    true = galaxy.PixelNoise([blob], [lags], 0.3 * np.ones((1, side, side)))
    given = true.draw(n, rng).reshape(n, side, side)
    drawn = learn_noise(given, components=1).draw(n, rng).reshape(n, side, side)
    for a, b in (((8, 8), (8, 9)), ((8, 8), (5, 8)), ((1, 1), (1, 2)), ((1, 1), (12, 12))):
        wanted, found = ((s[:, *a] * s[:, *b]).mean() for s in (given, drawn))
        assert found == pytest.approx(wanted, abs=0.1)
    spread = [np.log((s**2).mean(axis=(1, 2))).std() for s in (given, drawn)]
    assert spread[1] == pytest.approx(spread[0], rel=0.15)


def test_a_population_is_stored(net, rng):
    model = galaxy.GalaxyModel(net, prior=mixture(rng), noise=some_noise(rng))
    other = galaxy.GalaxyModel(net)
    restore_population(other, population_arrays(model))
    np.testing.assert_allclose(other.sample_z(5), model.sample_z(5), rtol=1e-4)
    found, wanted = other.sample(5, noise=True), model.sample(5, noise=True)
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)
    arrays = population_arrays(model)
    del arrays["prior/means"]
    with pytest.raises(NetError, match="'prior/means' of the population is missing"):
        restore_population(other, arrays)


def test_a_population_is_fitted_to_a_model(net, rng):
    model = galaxy.GalaxyModel(net)
    images = model.sample(300, noise=True).clip(0, 1).reshape(-1, SIDE, SIDE)
    prior, noise = galaxy.fit_population(model, images[:200], images[200:], components=[1])
    assert (prior.latent, noise.pixels) == (LATENT, SIDE * SIDE)
    model.net.run.passes = 0
    before = model.bound(images[200:], 50)[0].mean()
    model.prior, model.noise = prior, noise
    model.net.run.passes = 0
    assert model.bound(images[200:], 50)[0].mean() > before
    assert np.isfinite(model.sample(4, noise=True)).all()
    found = galaxy.evaluate_population(model, images[200:])
    assert found.metrics()["told_apart"]["z"] == found.z
    assert found.prior_gain > 0
    assert "told apart" in repr(found)


def test_images_of_linear_units_are_not_told_from_themselves(net, rng):
    """The sky of what is drawn keeps its negative half."""
    model = galaxy.GalaxyModel(net, preparation=Settings(size=SIDE, units="linear"))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    images = np.array([np.exp(-np.hypot(x, y / q) / 2) for q in rng.uniform(0.4, 1, 100)])
    images += 0.1 * rng.standard_normal(images.shape)
    model.open()
    model.sample = lambda count, seed=0, noise=False: images[50:][:count].reshape(count, -1)
    assert galaxy.evaluate_population(model, images[:50]).images < 0.75


def test_two_draws_of_one_population_are_not_told_apart_and_two_populations_are(rng):
    from layerkit.galaxy.evaluation.population import told_apart

    a, b = rng.standard_normal((2, 300, 5))
    assert abs(told_apart(a, b) - 0.5) < 0.1
    assert told_apart(a, b + 3) > 0.95


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([1.0], np.zeros((1, 2)), np.eye(2)), "expected K weights"),
        (([-1.0], np.zeros((1, 2)), [np.eye(2)]), "weights must be above 0"),
        (([1.0], np.zeros((1, 2)), [[[1, 0.5], [0, 1]]]), "symmetric"),
        (([1.0], np.zeros((1, 2)), [-np.eye(2)]), "positive definite"),
        (([1.0], [[np.nan, 0]], [np.eye(2)]), "all numbers finite"),
    ],
)
def test_what_is_no_mixture(given, message):
    with pytest.raises(NetError, match=message):
        galaxy.MixturePrior(*given)


def test_what_is_no_noise(rng):
    none, lags = np.zeros((0, 4, 4)), np.ones((1, 2, 2))
    with pytest.raises(NetError, match=r"components \(K, side, side\)"):
        galaxy.PixelNoise(np.zeros((1, 3, 4)), lags, none)
    with pytest.raises(NetError, match="reach of 1 to 4"):
        galaxy.PixelNoise(none, np.ones((1, 5, 5)), none)
    with pytest.raises(NetError, match=r"amplitudes \(A, 4, 4\)"):
        galaxy.PixelNoise(none, lags, np.zeros((1, 3, 3)))
    with pytest.raises(NetError, match="variances above 0"):
        galaxy.PixelNoise(none, np.zeros((1, 2, 2)), none)


def test_a_population_of_another_model_is_refused(net, rng):
    model = galaxy.GalaxyModel(net)
    with pytest.raises(NetError, match="2 dimensions, and z has 3"):
        model.prior = mixture(rng, latent=2)
    with pytest.raises(NetError, match="expected a MixturePrior"):
        model.prior = "normal"
    with pytest.raises(NetError, match="100 pixels, and the model's have 144"):
        model.noise = some_noise(rng, side=10)
    with pytest.raises(NetError, match="expected a PixelNoise"):
        model.noise = 1
    with pytest.raises(DataError, match="give 100 or more"):
        galaxy.fit_population(model, np.zeros((9, SIDE, SIDE)), np.zeros((9, SIDE, SIDE)))
    with pytest.raises(DataError, match="50 or more"):
        galaxy.evaluate_population(model, np.zeros((9, SIDE, SIDE)))
