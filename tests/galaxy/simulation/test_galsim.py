"""Galaxies of a model as GalSim's profiles, drawn by GalSim."""

import numpy as np
import pytest

from layerkit import galaxy
from layerkit.errors import NetError

galsim = pytest.importorskip("galsim", reason="profiles are GalSim's: pip install galsim")
SCALE = 0.3


class Blob(galaxy.GalaxyModel):
    """A model of round Gaussian galaxies on a sky, whose first latent is the log of their size."""

    def decode(self, z, rng=None):
        y, x = np.mgrid[:12, :12] - 5.5
        r2 = (x**2 + y**2).ravel()
        sky = 0.1
        mean = sky + 0.5 * np.exp(-0.5 * r2 / np.exp(2 * np.asarray(z)[:, :1]))
        return mean, np.ones_like(mean)


@pytest.fixture
def model(net):
    return Blob(net)


def test_a_profile_has_the_flux_and_the_size(model):
    z = np.array([[0.1, 0, 0], [0.3, 0, 0]])
    profiles = galaxy.to_galsim(model, z, flux=1000.0, pixel_scale=SCALE, fade=0)
    assert [p.flux for p in profiles] == [pytest.approx(1000)] * 2
    for profile, (log_size, *_) in zip(profiles, z, strict=True):
        drawn = profile.drawImage(nx=40, ny=40, scale=SCALE, method="no_pixel").array
        y, x = np.mgrid[:40, :40] - 19.5
        found = np.sqrt((drawn * (x**2 + y**2)).sum() / drawn.sum() / 2)
        assert found == pytest.approx(np.exp(log_size), rel=0.05)
        assert drawn.sum() == pytest.approx(1000, rel=0.01)


def test_one_z_makes_one_profile_that_can_be_convolved(model):
    profile = galaxy.to_galsim(model, np.zeros(3), flux=5, pixel_scale=SCALE)
    image = galsim.Convolve(profile, galsim.Gaussian(sigma=0.5)).drawImage(
        nx=48, ny=48, scale=SCALE
    )
    assert image.array.sum() == pytest.approx(5, rel=0.02)


def test_an_image_keeps_its_directions(net, rng):
    """Rows of an image are GalSim's y."""

    class Corner(Blob):
        def decode(self, z, rng=None):
            image = np.zeros((len(z), 12, 12))
            image[:, 8, 5] = 1
            return image.reshape(len(z), -1), np.ones((len(z), 144))

    profile = galaxy.to_galsim(Corner(net), np.zeros(3))
    assert profile.centroid.y > 1 > abs(profile.centroid.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros(4)}, r"expected z of shape \(3,\)"),
        ({"flux": "1"}, "flux"),
        ({"pixel_scale": 0}, "pixel_scale"),
        ({"fade": 7}, "fade"),
    ],
)
def test_bad_arguments(model, change, message):
    with pytest.raises(NetError, match=message):
        galaxy.to_galsim(**{"model": model, "z": np.zeros(3), **change})


def test_no_light(net):
    class Dark(Blob):
        def decode(self, z, rng=None):
            return np.full((len(z), 144), 0.5), np.ones((len(z), 144))

    with pytest.raises(NetError, match="without light"):
        galaxy.to_galsim(Dark(net), np.zeros(3))
