"""PixelNoise: noise that is correlated between the pixels of a picture.

The likelihood scores each pixel by itself, as the paper's does.  But pixels of pictures share what
the model does not explain: noise that resampling, compression and the telescope have spread over
neighbours, and structure of the galaxy itself, such as arms.  Drawn one by one, pixels would be
grainier than those of any picture.

The scores of pixels, Phi^-1(F((x - f_mu) / sd)), are standard normal if F, the likelihood's
distribution, is right (see `pixels.scores`).  So scores that go together as those of real pictures
do are drawn, and turned back into pixels by F^-1(Phi(score)), a copula.  Their parts:

    score = T(sum_k a_k component_k + sqrt(rest) * field),  a_k ~ N(0, 1)

The components are principal ones, for the structure of galaxies; the field is stationary, with one
of several covariances, as some pictures are smoother than others.  Their sum is Gaussian, and the
scores of one picture are not: some pictures, or parts of them, are explained worse than others, and
a neighbour at the edge makes a tail on one side.  T gives each zone of the picture, from the middle
to the edge, the distribution of scores that this zone has in a galaxy drawn from those of training,
the same galaxy for all zones: it is a monotone function in each zone, from quantiles to quantiles,
and zones fade into each other.  Before that, the part of the scores that a half turn of the picture
reverses, the odd one, is given the size beside the even one that it has in this galaxy, as most
galaxies are more symmetric than their noise is, and a few far less so.  All of it is independent of
z.  Over many pictures, scores are as nearly standard normal as those of real pictures are.

Source: Nelsen, "An introduction to copulas" (2006), section 2; Dietrich and Newsam (1997) for the
field, drawn on a torus by the fast Fourier transform.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.data.arrays import numbers
from layerkit.errors import NetError, brief
from layerkit.inspection.display import short_repr

COMPONENTS = 40
KINDS = 4  # of fields
REACH = 20  # pixels, beyond which the field counts as independent
ZONES = 6  # square rings of a picture, each with a distribution of its own
RING = 11  # pixels on a side for each zone, at least: several that do not go together
GALAXIES = 1000  # whose distributions are kept, which takes 160 kB of a model's file
LEVELS = np.array([0, 0.005, 0.02, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.98, 0.995, 1])
MEDIAN = 6  # the index of 0.5
MOST_SHARED = 0.95  # of a pixel's variance, by the components


class PixelNoise:
    """Standard normal scores of pixels that go together; see the top of this module.

    Args:
        components: (K, side, side), each by its standard deviation; K may be 0.
        covariances: of the kinds of fields, equally frequent, (kinds, reach, reach), at distances
            0, 1, ... pixels down and across, relative to that at distance 0; alike in all
            directions.
        distributions: of the scores of galaxies in each zone, from the middle to the edge,
            (galaxies, zones, 13): their quantiles at LEVELS, which do not fall; without galaxies,
            the scores of each picture stay Gaussian.
        parities: of the same galaxies in each zone, (galaxies, zones): log rms of the part of the
            scores that a half turn reverses, less that of the part that it keeps.

    Raises:
        NetError: other shapes, or numbers that are not finite.
    """

    __repr__ = short_repr

    def __init__(self, components: Any, covariances: Any, distributions: Any, parities: Any):
        given = {
            "components": components,
            "covariances": covariances,
            "distributions": distributions,
            "parities": parities,
        }
        c, lags, each, odd = (
            np.asarray(numbers(array, f"noise: {name}"), "float64") for name, array in given.items()
        )
        if c.ndim != 3 or c.shape[1] != c.shape[2] or not c.shape[1]:
            raise NetError(f"noise: expected components (K, side, side), got shape {c.shape}")
        side = c.shape[1]
        if lags.ndim != 3 or not 0 < lags.shape[1] == lags.shape[2] <= side or not len(lags):
            raise NetError(
                f"noise: expected covariances (kinds, reach, reach) with a reach of 1 to {side}, "
                f"got shape {lags.shape}"
            )
        if each.ndim != 3 or not each.shape[1] or each.shape[2] != len(LEVELS):
            raise NetError(
                f"noise: expected distributions (galaxies, zones, {len(LEVELS)}), got shape "
                f"{each.shape}"
            )
        if odd.shape != each.shape[:2]:
            raise NetError(f"noise: expected parities {each.shape[:2]}, got shape {odd.shape}")
        finite = all(np.isfinite(a).all() for a in (c, lags, each, odd))
        if not (finite and (lags[:, 0, 0] > 0).all()):
            raise NetError("noise: all numbers must be finite, and variances above 0")
        if (np.diff(each) < 0).any():
            raise NetError("noise: the quantiles of distributions must not fall")
        knots = _knots(side, each.shape[1])
        if len(each) and len(np.unique(_zones(side, knots))) < len(knots):
            raise NetError(f"noise: {side} x {side} pixels have no room for {len(knots)} zones")
        self.components, self.distributions, self.parities = c, each, odd
        self.covariances = lags / lags[:, :1, :1]
        self.side, self.pixels = side, side * side
        # The field has the part of each pixel's variance that the components leave.
        shared = (c**2).sum(axis=0)
        self._own = np.sqrt(1 - np.minimum(shared, MOST_SHARED))
        self._shared = c * np.sqrt(np.minimum(1, MOST_SHARED / np.maximum(shared, 1e-12)))
        self._waves = np.stack([_waves(covariance, side) for covariance in self.covariances])

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw scores, (count, pixels)."""
        shared = self._shared.reshape(len(self._shared), self.pixels)
        found = rng.standard_normal((count, len(shared))) @ shared
        kinds = rng.integers(len(self._waves), size=count)
        shape = (2 * self.side, 2 * self.side)
        for score, kind in zip(found, kinds, strict=True):
            white = np.fft.rfft2(rng.standard_normal(shape))
            field = np.fft.irfft2(white * self._waves[kind], shape)[: self.side, : self.side]
            score += (self._own * field).ravel()
        return self._distribute(found, rng) if len(self.distributions) else found

    def _distribute(self, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Give each picture of scores (n, pixels) the distributions and parities of some galaxy."""
        which = rng.integers(len(self.distributions), size=len(scores))
        wanted, side = self.distributions[which], self.side
        knots = _knots(side, wanted.shape[1])
        # Gaussian scores are as likely as their reverse: take those whose middle is on the side of
        # the galaxy's, or a core too bright would become one too faint with bright pixels around.
        middle = (_zones(side, knots) == 0).ravel()
        other_side = np.median(scores[:, middle], axis=1) * wanted[:, 0, MEDIAN] < 0
        scores = np.where(other_side[:, None], -scores, scores)
        # Each zone has weight 1 at its knot, and 0 at the next ones.
        distance = _distance(side).ravel()
        weights = np.stack([np.interp(distance, knots, one) for one in np.eye(len(knots))])
        missing = self.parities[which] - _parities(scores.reshape(-1, side, side), knots)
        growth = np.exp(0.5 * missing @ weights)
        even, odd = _by_parity(scores)
        scores = even / growth + odd * growth
        present = _quantiles(scores.reshape(-1, side, side), knots)
        found = np.zeros_like(scores)
        for k, weight in enumerate(weights):
            within = np.flatnonzero(weight)
            for i, score in enumerate(scores):
                mapped = np.interp(score[within], present[i, k], wanted[i, k])
                found[i, within] += weight[within] * mapped
        return found


def check_noise(noise: Any, pixels: int) -> PixelNoise | None:
    """Return the noise given for images of so many pixels, or None for independent noise.

    Raises:
        NetError: it is something else, or for images of another size.
    """
    if noise is not None and not isinstance(noise, PixelNoise):
        raise NetError(
            f"noise: expected a PixelNoise, or None for independent noise, got {brief(noise)}"
        )
    if noise is not None and noise.pixels != pixels:
        raise NetError(
            f"noise: it is for images of {noise.pixels} pixels, and the model's have {pixels}; "
            "learn it from this model with fit_population"
        )
    return noise


def _waves(covariance: np.ndarray, side: int) -> np.ndarray:
    """Return the amplitude of each wave of a field of variance 1 on a torus of twice the side."""
    torus, reach = np.zeros((2 * side, 2 * side)), len(covariance)
    distance = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    near = np.flatnonzero(distance < reach)
    torus[np.ix_(near, near)] = covariance[np.ix_(distance[near], distance[near])]
    power = np.fft.rfft2(torus).real.clip(0)
    whole = np.fft.irfft2(power, torus.shape)[0, 0]  # the variance, which clipping may change
    return np.sqrt(power / whole)


def learn_noise(scores: np.ndarray, components: int = COMPONENTS, seed: int = 0) -> PixelNoise:
    """Learn how noise is correlated between pixels.

    Args:
        scores: (n, side, side), standard normal each by itself; see `GalaxyModel.scores`.  Galaxies
            have no up and no left, so each is turned and mirrored at random.
        components: principal components, fewer where there are few scores.
        seed: of turning, of the search for components, and of the choice of galaxies whose
            distributions are kept.
    """
    from sklearn.utils.extmath import randomized_svd  # slow to import

    rng = np.random.default_rng(seed)
    count, side, _ = scores.shape
    turned = np.stack(
        [np.rot90(s[:, :: rng.choice([-1, 1])], int(rng.integers(4))) for s in scores]
    ).astype("float64")
    own: np.ndarray = turned.reshape(count, -1)
    found = np.zeros((0, side, side))
    if components := min(components, count // 10):
        _, size, axes = randomized_svd(own, components, random_state=seed)
        own = own - (own @ axes.T) @ axes
        found = (axes * size[:, None] / math.sqrt(count)).reshape(-1, side, side)
    own = own.reshape(turned.shape)
    smooth = (own[:, 1:] * own[:, :-1]).mean(axis=(1, 2)) / (own**2).mean(axis=(1, 2))
    kinds = np.array_split(np.argsort(smooth), min(KINDS, count))
    lags = np.stack([_covariance(own[kind]) for kind in kinds])
    # Masked pixels, whose scores are 0, say nothing of a distribution: whole pictures come first.
    order = rng.permutation(count)
    whole = np.argsort((turned[order] == 0).sum(axis=(1, 2)), kind="stable")
    kept = turned[order[whole[:GALAXIES]]]
    knots = _knots(side, min(ZONES, max(1, side // RING)))
    return PixelNoise(found, lags, _quantiles(kept, knots), _parities(kept, knots))


def _distance(side: int) -> np.ndarray:
    """Return how far each pixel is from the middle, along its row or column, the larger of both."""
    along = np.abs(np.arange(side) - 0.5 * (side - 1))
    return np.maximum(along[:, None], along)


def _knots(side: int, zones: int) -> np.ndarray:
    """Return the distances from the middle of zones that are equally wide, in their midst."""
    return (np.arange(zones) + 0.5) * side / (2 * zones)


def _zones(side: int, knots: np.ndarray) -> np.ndarray:
    """Return the zone of each pixel, that of the nearest knot."""
    return np.digitize(_distance(side), 0.5 * (knots[1:] + knots[:-1]))


def _quantiles(scores: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Measure the distributions of scores (n, side, side), (n, zones, levels)."""
    zones = _zones(scores.shape[1], knots)
    each = [np.quantile(scores[:, zones == k], LEVELS, axis=1).T for k in range(len(knots))]
    return np.stack(each, axis=1)


def _by_parity(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split scores (n, pixels) into what a half turn of the picture keeps, and what it reverses."""
    turned = scores[:, ::-1]
    return 0.5 * (scores + turned), 0.5 * (scores - turned)


def _parities(scores: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Measure log rms(odd part) - log rms(even part) of scores (n, side, side), (n, zones)."""
    zones = _zones(scores.shape[1], knots).ravel()
    even, odd = (part**2 + 1e-12 for part in _by_parity(scores.reshape(len(scores), -1)))
    each = [
        odd[:, zones == k].mean(axis=1) / even[:, zones == k].mean(axis=1)
        for k in range(len(knots))
    ]
    return 0.5 * np.log(np.stack(each, axis=1))


def _covariance(fields: np.ndarray) -> np.ndarray:
    """Measure the covariance of fields (n, side, side) at distances down and across."""
    count, side, _ = fields.shape
    reach, shape = min(REACH, side), (2 * side, 2 * side)
    # At all distances at once: a correlation is a product of Fourier transforms.
    power = np.zeros((2 * side, side + 1))
    for field in fields:
        power += np.abs(np.fft.rfft2(field, shape)) ** 2
    lags = np.fft.irfft2(power, shape)
    lags = 0.5 * (lags[:reach, :reach] + lags[-np.arange(reach), :reach])  # down, and up
    overlap = side - np.arange(reach)
    lags = 0.5 * (lags + lags.T) / (count * np.outer(overlap, overlap))
    fade = np.cos(0.5 * np.pi * np.arange(reach) / reach) ** 2
    return lags * np.outer(fade, fade)
