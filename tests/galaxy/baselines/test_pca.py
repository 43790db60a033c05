"""The PCA baseline against a singular value decomposition."""

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.baselines.pca import PCABaseline


@pytest.mark.parametrize("count", [2, 5, 200])
@pytest.mark.parametrize("components", [1, 4, 30])
def test_pca_is_the_truncated_svd(rng, count, components):
    train = rng.normal(size=(count, 6, 5)) * rng.uniform(0.1, 3, (6, 5))
    held_out = rng.normal(size=(7, 6, 5))
    mean = train.reshape(count, 30).mean(axis=0)
    _, _, basis = np.linalg.svd(train.reshape(count, 30) - mean, full_matrices=False)
    kept = min(components, count - 1, 30)
    basis = basis[:kept]
    expected = (held_out.reshape(7, 30) - mean) @ basis.T @ basis + mean
    model = PCABaseline.fit(train, components)
    assert model.components == kept
    np.testing.assert_allclose(model.reconstruct(held_out).reshape(7, 30), expected, atol=1e-6)


def test_pca_refuses_what_it_cannot_do(rng):
    with pytest.raises(DataError, match=r"at least 2 training images.* got 1 images"):
        PCABaseline.fit(rng.random((1, 4, 4)), 2)
    with pytest.raises(DataError, match=r"at least 1 component, .* 0 components"):
        PCABaseline.fit(rng.random((5, 4, 4)), 0)
    with pytest.raises(DataError, match=r"fitted to images of shape \(4, 4\)"):
        PCABaseline.fit(rng.random((5, 4, 4)), 2).reconstruct(rng.random((5, 16)))
