"""The population of a model: a prior fitted to galaxies, and noise that pixels share."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

from layerkit import galaxy
from layerkit.errors import DataError, NetError
from layerkit.galaxy.evaluation import population as evaluation
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.model.pixels import residuals, scores
from layerkit.galaxy.model.population.noise import LEVELS, learn_noise
from layerkit.galaxy.model.population.prior import fit_mixture
from layerkit.galaxy.model.population.stored import population_arrays, restore_population
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.layers import GaussianReconstruction, StudentReconstruction

LATENT, SIDE = 3, 12
# Distributions and parities of no galaxies: scores stay Gaussian.
NONE = np.zeros((0, 1, len(LEVELS))), np.zeros((0, 1))
GAUSSIAN = norm.ppf(LEVELS.clip(0.001, 0.999))  # quantiles of a picture's scores


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
    widths = np.exp(0.1 * rng.standard_normal((50, 1, 1)))
    return galaxy.PixelNoise(components, [lags, lags**2], widths * GAUSSIAN, np.zeros((50, 1)))


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
    noise = galaxy.PixelNoise(component, [lags], *NONE)
    drawn = noise.draw(n, rng).reshape(n, side, side)
    assert kstest(drawn[:, 4, 4], "norm").pvalue > 1e-3
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 6)):
        field = lags[dy, dx] if max(dy, dx) < 4 else 0
        found = (drawn[:, 2, 3] * drawn[:, 2 + dy, 3 + dx]).mean()
        assert found == pytest.approx(0.25 + 0.75 * field, abs=0.04)


def test_each_picture_has_the_distributions_of_one_galaxy(rng):
    """In the middle and at the edge; in between the two fade into each other."""
    side, n = 16, 300
    wide, skewed = 2 * GAUSSIAN, np.exp(GAUSSIAN) - 1
    galaxies = np.array([[GAUSSIAN, skewed], [wide, GAUSSIAN]])
    lags = 0.5 ** np.add.outer(np.arange(4), np.arange(4))
    noise = galaxy.PixelNoise(np.zeros((0, side, side)), [lags], galaxies, np.zeros((2, 2)))
    drawn = noise.draw(n, rng).reshape(n, side, side)
    middle, edge = (np.sort(part) for part in (drawn[:, 7:9, 7:9].reshape(n, -1), rim(drawn)))
    is_wide = np.isclose(edge[:, -1], GAUSSIAN[-1]) | (edge[:, 0] < -1)  # exp - 1 is above -1
    assert 0.4 < is_wide.mean() < 0.6
    assert (edge[~is_wide].min(axis=1) > -1).all()
    # Four pixels of a Gaussian of which the zone has 64.
    assert np.std(middle[is_wide]) == pytest.approx(2, rel=0.25)
    assert np.std(middle[~is_wide]) == pytest.approx(1, rel=0.25)
    for which, wanted in ((is_wide, GAUSSIAN), (~is_wide, skewed)):
        found = np.quantile(edge[which], [0.3, 0.5, 0.7])
        np.testing.assert_allclose(found, wanted[5:8], atol=0.12)


def rim(scores):
    """Return the outermost pixels of pictures (n, side, side), (n, pixels)."""
    edge = np.ones(scores.shape[1:], bool)
    edge[1:-1, 1:-1] = False
    return scores[:, edge]


def moved(scores):
    """Measure how much a half turn changes pictures at the rim, and in the middle third, (n, 2)."""
    side = scores.shape[1]
    change = np.abs(scores - np.rot90(scores, 2, (1, 2)))
    middle = slice(side // 3, side - side // 3)
    return np.stack([rim(change).mean(axis=1), change[:, middle, middle].mean(axis=(1, 2))], axis=1)


def test_neighbours_and_calm_skies_come_back(rng):
    """Some pictures have a neighbour at the edge, on one side: a half turn moves more light there.

    Others are calmer in the middle than at the edge.  Gaussian scores, of whatever covariance, have
    the means of these over all pictures, and neither extreme.
    """
    side, n = 44, 1200
    given = rng.standard_normal((n, side, side))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    middle = np.maximum(abs(x), abs(y)) < 11
    given[:, middle] *= rng.choice([0.4, 1.4], (n, 1))
    for k in rng.permutation(n)[: n // 4]:
        corner = rng.choice([0, side - 8], 2)
        given[k, corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] += 8
    noise = learn_noise(given, components=4)
    drawn = noise.draw(n, rng).reshape(n, side, side)
    shares = [0.05, 0.25, 0.9]  # a quarter has neighbours, half is calm
    wanted = np.quantile(moved(given), shares, axis=0)
    np.testing.assert_allclose(np.quantile(moved(drawn), shares, axis=0), wanted, atol=0.3)
    gaussian = galaxy.PixelNoise(noise.components, noise.covariances, *NONE)
    drawn = gaussian.draw(n, rng).reshape(n, side, side)
    missed = wanted - np.quantile(moved(drawn), shares, axis=0)
    assert missed[2, 0] > 0.7  # too few with a neighbour
    assert missed[0, 1] < -0.4  # none that is calm


def test_amplitudes_of_parities_come_back(rng):
    """Some galaxies are symmetric, others are not, whatever the size of their scores."""
    side, n = 24, 1200

    def odd_over_even(scores):
        turned = np.rot90(scores, 2, (1, 2))
        middle = slice(side // 4, side - side // 4)
        odd, even = (((scores + sign * turned)[:, middle, middle] ** 2) for sign in (-1, 1))
        return 0.5 * np.log(odd.mean(axis=(1, 2)) / even.mean(axis=(1, 2)))

    white = rng.standard_normal((n, side, side))
    turned = np.rot90(white, 2, (1, 2))
    odd = np.where(rng.random((n, 1, 1)) < 0.7, 0.6, 1.6)
    given = (0.5 * (white + turned) + odd * 0.5 * (white - turned)) / np.sqrt(0.5 + 0.5 * odd**2)
    noise = learn_noise(given, components=0)
    shares = [0.1, 0.3, 0.6, 0.8, 0.95]
    wanted = np.quantile(odd_over_even(given), shares)
    drawn = noise.draw(n, rng).reshape(n, side, side)
    np.testing.assert_allclose(np.quantile(odd_over_even(drawn), shares), wanted, atol=0.1)
    gaussian = galaxy.PixelNoise(noise.components, noise.covariances, *NONE)
    drawn = gaussian.draw(n, rng).reshape(n, side, side)
    assert np.ptp(np.quantile(odd_over_even(drawn), shares)) < 0.5 * np.ptp(wanted)


def test_masked_pixels_have_no_part_in_distributions(rng):
    scores = rng.standard_normal((1200, 16, 16))
    scores[:200, :, :6] = 0  # as fit_population hands them over
    noise = learn_noise(scores, components=0)
    assert noise.distributions.shape == (1000, 1, len(LEVELS))
    assert np.abs(noise.distributions[:, :, 5] - norm.ppf(0.3)).max() < 0.5


def test_noise_is_learned(rng):
    """Scores with known correlations: what is learned draws others alike.

    The planted component is wider than a zone: of smaller ones in the middle, a part is lost, as
    the brightest pixels of a zone then lie where those of another galaxy do.
    """
    side, n = 32, 3000
    lags = 0.7 ** np.add.outer(np.arange(4), np.arange(4))
    lags *= np.outer([1, 0.8, 0.4, 0.1], [1, 0.8, 0.4, 0.1])
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    blob = 0.6 * np.exp(-(x**2 + y**2) / 100)
    true = galaxy.PixelNoise([blob], [lags], *NONE)
    given = true.draw(n, rng).reshape(n, side, side)
    given *= np.exp(0.3 * rng.standard_normal((n, 1, 1)) - 0.09)  # amplitudes of pictures
    drawn = learn_noise(given, components=1).draw(n, rng).reshape(n, side, side)

    def together(scores, a, b):
        """Average over the eight positions of a picture, which are alike."""
        views = [np.rot90(v, k, (1, 2)) for v in (scores, scores[:, :, ::-1]) for k in range(4)]
        return np.mean([(v[:, *a] * v[:, *b]).mean() for v in views])

    pairs = (((16, 16), (16, 17)), ((16, 16), (13, 16)), ((1, 1), (1, 2)), ((1, 1), (24, 24)))
    for a, b in (*pairs, ((16, 16), (16, 16)), ((1, 1), (1, 1))):
        wanted, found = together(given, a, b), together(drawn, a, b)
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


def test_noise_of_an_earlier_version_is_left_out_with_a_warning(net, rng):
    model = galaxy.GalaxyModel(net, prior=mixture(rng), noise=some_noise(rng))
    arrays = population_arrays(model)
    del arrays["noise/distributions"]
    arrays["noise/amplitudes"] = np.zeros((1, SIDE, SIDE))
    with pytest.warns(RuntimeWarning, match="Fit it again with `layerkit galaxy populate`"):
        restore_population(model, arrays)
    assert model.noise is None
    assert model.prior is not None


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
    none, lags, levels = np.zeros((0, 4, 4)), np.ones((1, 2, 2)), len(LEVELS)
    with pytest.raises(NetError, match=r"components \(K, side, side\)"):
        galaxy.PixelNoise(np.zeros((1, 3, 4)), lags, *NONE)
    with pytest.raises(NetError, match="reach of 1 to 4"):
        galaxy.PixelNoise(none, np.ones((1, 5, 5)), *NONE)
    with pytest.raises(NetError, match=r"distributions \(galaxies, zones, 13\)"):
        galaxy.PixelNoise(none, lags, np.zeros((1, 3, 3)), [[0]])
    with pytest.raises(NetError, match=r"parities \(1, 1\), got shape \(1, 2\)"):
        galaxy.PixelNoise(none, lags, np.zeros((1, 1, levels)), [[0, 0]])
    with pytest.raises(NetError, match="must not fall"):
        galaxy.PixelNoise(none, lags, [[-np.arange(levels)]], [[0]])
    with pytest.raises(NetError, match="4 x 4 pixels have no room for 6 zones"):
        galaxy.PixelNoise(none, lags, np.zeros((1, 6, levels)), np.zeros((1, 6)))
    with pytest.raises(NetError, match="variances above 0"):
        galaxy.PixelNoise(none, np.zeros((1, 2, 2)), *NONE)


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
