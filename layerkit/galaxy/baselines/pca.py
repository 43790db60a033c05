"""Principal components: the best linear model of galaxies with as many latents."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from sklearn.decomposition import PCA

from layerkit.data.arrays import data_of, hidden, numbers
from layerkit.errors import DataError, brief
from layerkit.settings import Whole, accept


class PCABaseline:
    """Principal components as a model of galaxies.

    Use ``PCABaseline.fit(train_images, components)``, then `reconstruct` held-out images and
    compare by `squared_errors` and `shared_variance_log_likelihood`.  PCA thus gets one variance
    per image, as the Gaussian does; the single noise variance of probabilistic PCA would make it
    the weaker baseline.

    Attributes:
        components: number of components.
        explained: their share of the training images' variance, 0 to 1.
    """

    def __init__(self, model: PCA, shape: tuple[int, ...]):
        if not isinstance(model, PCA):
            raise DataError(
                f"PCABaseline: expected a fitted PCA of scikit-learn, got {brief(model)}; fit "
                "one by PCABaseline.fit(images, components)"
            )
        self._model, self._shape = model, shape
        self.components = int(model.n_components_)
        self.explained = float(model.explained_variance_ratio_.sum())

    def __repr__(self) -> str:
        return f"PCABaseline({self.components} components, {self.explained:.1%} of the variance)"

    @classmethod
    def fit(cls, images: np.ndarray, components: int) -> Self:
        """Find the principal components of training images about their mean.

        Args:
            images: (N, ...) with N at least 2; what is under a mask counts as the rest.
            components: number of components; N images about their mean have at most N - 1.

        Raises:
            DataError: fewer than two images, or fewer than one component.
        """
        images = numbers(data_of(images), "PCA: the images", DataError)
        components = accept(Whole(), components, "components", "PCABaseline.fit", DataError)
        count, pixels = images.shape[0] if images.ndim else 0, math.prod(images.shape[1:])
        if count < 2 or components < 1:
            raise DataError(
                "PCA needs at least 2 training images and at least 1 component, got "
                f"{count} images and {components} components"
            )
        components = min(components, count - 1, pixels)
        # ARPACK finds a few components to full precision without the (P, P) covariance; it cannot
        # find all of them.
        solver = "arpack" if components < min(count, pixels) else "full"
        model = PCA(components, svd_solver=solver, random_state=0)
        return cls(model.fit(images.reshape(count, pixels)), images.shape[1:])

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Project images onto the components and back: (N, ...) to (N, ...).

        A masked image gives the sum of components that is closest to its other pixels.

        Raises:
            DataError: the images have another shape than those that PCA was fitted to.
        """
        mask = hidden(images)
        images = numbers(data_of(images), "PCA: the images", DataError)
        if images.shape[1:] != self._shape:
            raise DataError(
                f"PCA was fitted to images of shape {self._shape}, got {images.shape[1:]}"
            )
        scores = self._model.transform(images.reshape(len(images), -1))
        for i in [] if mask is None else np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)):
            seen = ~mask[i].reshape(-1)  # type: ignore[index]  # some are masked
            rest = images[i].reshape(-1)[seen] - self._model.mean_[seen]
            scores[i] = np.linalg.lstsq(self._model.components_[:, seen].T, rest, rcond=None)[0]
        return self._model.inverse_transform(scores).reshape(images.shape)
