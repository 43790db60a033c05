"""Fits of many images over several processes: in order, reproducible, and checked first."""

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.baselines.fitting import ProfileFit, fit_profiles


def brightest(image, level):
    """A stand-in for a fit, quick and exact."""
    parameters = np.array([image.max(), level])
    return ProfileFit(parameters, np.full(image.shape, level), float(image.sum()), level > 3)


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_are_in_the_order_of_the_images(workers, rng):
    images, levels = rng.random((37, 5, 4)), np.arange(37.0)  # several tasks, the last not full
    found = fit_profiles(brightest, "fits", workers, False, images, levels)
    np.testing.assert_array_equal(found.parameters, np.stack([images.max((1, 2)), levels], axis=1))
    np.testing.assert_array_equal(found.models, np.broadcast_to(levels[:, None, None], (37, 5, 4)))
    np.testing.assert_allclose(found.squared_errors, images.sum((1, 2)))
    np.testing.assert_array_equal(found.converged, levels > 3)


def test_images_that_cannot_be_fitted_are_named():
    images = np.zeros((3, 5, 5))
    images[1, 2, 2] = np.nan
    with pytest.raises(DataError, match="fits: image 1 has pixels that are not finite"):
        fit_profiles(brightest, "fits", 1, False, images)
    with pytest.raises(DataError, match=r"\(N, H, W\)"):
        fit_profiles(brightest, "fits", 1, False, images[0])
