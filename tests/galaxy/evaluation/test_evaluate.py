"""A whole evaluation, and its parts called alone."""

import numpy as np
import pytest
from galaxy_runs import quicken
from scipy.stats import norm
from small_galaxy_nets import LATENT, SIDE

import layerkit as lk
from layerkit import galaxy
from layerkit.galaxy.evaluation.comparison import reconstruct
from layerkit.layers import GaussianReconstruction


def test_evaluate_counts_wins(net, rng):
    model = galaxy.GalaxyModel(net)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    train = rng.uniform(size=(20, SIDE, SIDE))
    # Pure Gaussians, which the baseline fits exactly, and what the model itself says, exactly.
    gaussians = [0.8 * np.exp(-0.5 * (x**2 + y**2) / s**2) for s in (2.0, 3.0)]
    z = rng.standard_normal(LATENT)
    net.params["z_mean/weight"].data[...] = 0
    net.params["z_mean/bias"].data[...] = z
    own = model.decode(z[None])[0].reshape(SIDE, SIDE)
    images = np.array([*gaussians, own, own, own])
    found = galaxy.evaluate(model, train, images, refine_steps=0)
    metrics, comparison = found.metrics(), found.comparison
    assert metrics["mse_wins"] == metrics["encoded_mse_wins"] == 3
    assert metrics["pca_mse_wins"] >= 3
    errors = comparison.refined.squared_errors
    assert metrics["held_out_mse"] == pytest.approx(errors.mean() / SIDE**2)
    assert 3 <= metrics["sersic_mse_wins"] <= 4
    assert metrics["held_out_iwae"] > metrics["held_out_elbo"]
    again = galaxy.evaluate(model, train, images, refine_steps=0)
    assert again.metrics() == metrics
    refined = galaxy.evaluate(model, train, images).metrics()
    for key, value in refined.items():
        if key.startswith(("encoded_", "closest_")):
            assert value == metrics[key], key
    assert refined["held_out_elbo"] > refined["encoded_held_out_elbo"]
    assert refined["closest_held_out_mse"] < refined["encoded_held_out_mse"]


def test_parts_called_alone_find_what_evaluate_finds(net, rng, monkeypatch):
    quicken(monkeypatch)
    model = galaxy.GalaxyModel(net)
    train, held_out = rng.random((8, SIDE, SIDE)), rng.random((4, SIDE, SIDE))
    found = galaxy.evaluate(model, train, held_out, False, 5, 3)
    posterior = found.bounds.posterior
    baselines = galaxy.fit_baselines(train, held_out, model.latent)
    for whole, alone in (
        (found.comparison.encoded, reconstruct(model, held_out)),
        (found.comparison.refined, reconstruct(model, held_out, posterior)),
        (found.comparison.baselines.gaussian, baselines.gaussian),
        (found.comparison.baselines.sersic, baselines.sersic),
        (found.comparison.baselines.pca, baselines.pca),
        (found.calibration, galaxy.evaluate_calibration(model, held_out, posterior)),
        (found.morphology, galaxy.evaluate_morphology(model, held_out)),
    ):
        some, others = (x._asdict() if isinstance(x, tuple) else vars(x) for x in (whole, alone))
        for name, values in some.items():
            np.testing.assert_array_equal(values, others[name], err_msg=name)
    # Refining draws its noise from the net's seed alone; bounds differ by their sampling only.
    bounds = galaxy.evaluate_bounds(model, train, held_out, 3)
    np.testing.assert_array_equal(bounds.posterior, posterior)
    np.testing.assert_array_equal(bounds.kl, found.bounds.kl)
    assert set(bounds.metrics()) < set(found.metrics())


@pytest.mark.parametrize("floor", [1e-9, 0.0])
def test_baselines_have_the_least_variance_of_the_model(rng, floor):
    """That of 8 bits is none of galaxies in linear units, which a net tells its likelihood."""
    layers = lk.load_net("nets/galaxy_gdae.py", pixels=SIDE * SIDE, hidden=7, latent=LATENT)
    (likelihood,) = (layer for layer in layers if isinstance(layer, GaussianReconstruction))
    likelihood.floor = floor
    model = galaxy.GalaxyModel(lk.Net(layers, batch_size=4, phase="test", dtype="float64"))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    images = np.array([np.exp(-0.5 * (x**2 + y**2) / s**2) for s in (1.5, 2.0, 2.5, 3.0)])
    images += 1e-4 * rng.standard_normal(images.shape)
    found = galaxy.evaluate(model, images, images, False, 2, 0).comparison.baselines
    for baseline in (found.gaussian, found.sersic):
        for image, own, value in zip(
            images, baseline.images, baseline.log_likelihoods, strict=True
        ):
            sd = np.sqrt(np.mean((image - own) ** 2))
            assert value == pytest.approx(norm(own, sd).logpdf(image).sum(), rel=1e-9)
    assert np.isfinite(found.pca.log_likelihoods).all()
    alone = galaxy.fit_baselines(images, images, LATENT, floor=floor)
    for name in ("gaussian", "sersic", "pca"):
        np.testing.assert_array_equal(
            getattr(alone, name).log_likelihoods, getattr(found, name).log_likelihoods
        )


def test_numpy_may_be_told_to_raise(net, rng):
    """Weights and wings of profiles that underflow are no errors, whatever NumPy is told."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    images = np.exp(-np.hypot(x, y) / rng.uniform(0.2, 0.6, (12, 1, 1)) ** 2)
    net.params["x_log_variance/bias"].data -= 9  # importance weights far apart

    def results():
        model = galaxy.GalaxyModel(net)
        found = galaxy.evaluate(model, images[:6], images[6:], False, 20, 3)
        return found.metrics(), galaxy.fit_gaussian(images[0]).model

    expected = results()
    with np.errstate(all="raise"):
        metrics, model = results()
    assert metrics == expected[0]
    np.testing.assert_array_equal(model, expected[1])
