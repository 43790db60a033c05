"""fit: the posterior of all sources of a field together, by one net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.ndimage import gaussian_filter

from layerkit.galaxy.scene.model.layout import Layout, Source
from layerkit.galaxy.scene.model.light import Light, Spergel
from layerkit.galaxy.scene.model.posterior import GaussianDraws, GaussianPrior
from layerkit.galaxy.scene.model.sources import SourceImages
from layerkit.layers.likelihoods.known_noise import KnownVarianceReconstruction
from layerkit.layers.sources.input import Input
from layerkit.net import Net
from layerkit.solvers.sgd import SGD

ENOUGH = 0.003  # nats that a step must still promise
MOST_DAMPING = 1e6
LARGEST = 0.7  # change of a number in one step: pixels, or logarithms


@dataclass
class Pixels:
    """A field, or a part of one, ready to be fitted.

    Attributes:
        values: background-subtracted brightness, shape (bands, height, width); 0 where masked.
        weights: inverse variances, 0 where masked, shape (bands, height, width).
        psfs: shape (bands, p, p), p odd, each of unit sum.
        width: full width at half maximum of the PSF, in pixels, a mean over bands.
        light: what galaxies look like before the PSF.
    """

    values: np.ndarray
    weights: np.ndarray
    psfs: np.ndarray
    width: float
    light: Light = field(default_factory=Spergel)

    @property
    def noise(self) -> np.ndarray:
        """The standard deviation of a typical pixel of each band, shape (bands,)."""
        return np.array(
            [np.median(w[w > 0]) ** -0.5 if (w > 0).any() else 1.0 for w in self.weights]
        )

    def inputs(self) -> dict[str, np.ndarray]:
        """Return values, variance and mask as inputs of the net, one row of each."""
        used = self.weights > 0
        variance = 1 / np.where(used, self.weights, 1)
        return {"values": self.values[None], "variance": variance[None], "mask": used[None]}


@dataclass
class Fit:
    """Result of a fit.

    Attributes:
        layout: the sources, as the fit ended.
        mean, covariance: of the Gaussian posterior over the layout's vector.
        bound: evidence lower bound, up to a constant of the pixels, in nats.
        image: the model, shape (bands, height, width).
        images: the layer that draws it.
    """

    layout: Layout
    mean: np.ndarray
    covariance: np.ndarray
    bound: float
    image: np.ndarray
    images: SourceImages

    @property
    def sources(self) -> list[Source]:
        """The sources at the posterior's mean, each with its pieces."""
        return self.layout.updated(self.mean)

    @property
    def parts(self) -> list[Source]:
        """The sources and after them all pieces, as the layout counts them."""
        return self.layout.parts(self.mean)


def build(pixels: Pixels, layout: Layout) -> Net:
    """Make the net of a field: draws of the sources' numbers, the image, likelihood and prior.

    Its inputs are `noise`, shape (1, layout.size), and `pixels.inputs()`.
    """
    mean, precision = layout.prior()
    shape = pixels.values.shape
    return Net(
        [
            Input("noise", shape=(layout.size,)),
            *(Input(name, shape=shape) for name in ("values", "variance", "mask")),
            GaussianDraws("theta", "noise"),
            SourceImages(
                "image",
                "theta",
                layout=layout,
                psfs=pixels.psfs,
                sky=pixels.noise,
                height=shape[1],
                width=shape[2],
            ),
            KnownVarianceReconstruction("pixels", "values", "image", "variance", "mask"),
            GaussianPrior("prior", "theta", mean=mean, precision=precision),
        ],
        batch_size=1,
        dtype="float64",
    )


def curvature(
    images: SourceImages, theta: np.ndarray, weights: np.ndarray, reach: float = 0.0
) -> np.ndarray:
    """Return the Fisher information of the pixels about the numbers, shape (size, size).

    Args:
        images: draws the sources.
        theta: the numbers, shape (size,).
        weights: inverse variances, shape (bands, height, width).
        reach: pixels over which what is weighted goes together: with J the derivatives of the
            image, J^T sqrt(w) G sqrt(w) J is returned, where G is a Gaussian of this deviation
            and of height 1, or the identity where reach is 0.
    """
    layout, root = images.layout, np.sqrt(weights)

    def prepared(pictures: np.ndarray) -> np.ndarray:
        if not reach:
            return pictures
        half = reach / np.sqrt(2)  # two such Gaussians make one of deviation `reach`
        blurred = gaussian_filter(pictures, half, axes=(-2, -1), mode="constant")
        return blurred * 2 * half * np.sqrt(np.pi)

    sky = prepared(np.asarray(images.sky)[:, None, None] * root)
    windows = [images.window(i)[0] for i in range(len(layout.sources))]
    jacobians = [
        prepared(images.jacobian(i, theta) * root[:, rows, columns])
        for i, (rows, columns) in enumerate(windows)
    ]
    out = np.zeros((layout.size, layout.size))
    own = np.arange(layout.sky, layout.size)
    out[own, own] = (sky**2).sum(axis=(1, 2))
    for i, (rows, columns) in enumerate(windows):
        mine = layout.part(i)
        out[mine, layout.sky :] = (jacobians[i] * sky[:, rows, columns]).sum(axis=(2, 3))
        out[layout.sky :, mine] = out[mine, layout.sky :].T
        for j in range(i + 1):
            top, bottom = max(rows.start, windows[j][0].start), min(rows.stop, windows[j][0].stop)
            left = max(columns.start, windows[j][1].start)
            right = min(columns.stop, windows[j][1].stop)
            if top >= bottom or left >= right:
                continue
            a = jacobians[i][:, :, top - rows.start : bottom - rows.start]
            a = a[..., left - columns.start : right - columns.start]
            b = jacobians[j][:, :, top - windows[j][0].start : bottom - windows[j][0].start]
            b = b[..., left - windows[j][1].start : right - windows[j][1].start]
            block = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
            theirs = layout.part(j)
            out[mine, theirs] = block
            out[theirs, mine] = block.T
    return out


def fit(pixels: Pixels, sources: Sequence[Source], steps: int = 60) -> Fit:
    """Fit all sources together, and return their Gaussian posterior.

    Each step sets the root of the posterior's covariance from the curvature at its mean, and lets
    the solver make one step of gradient descent in units of it; a step that does not raise the
    bound is taken back and damped (Levenberg and Marquardt).

    Args:
        pixels: the field.
        sources: where to start from.
        steps: at most so many.
    """
    layout = Layout(list(sources), len(pixels.values), pixels.width, pixels.light)
    net = build(pixels, layout)
    images = net.layers["image"]
    assert isinstance(images, SourceImages)
    precision = layout.prior()[1]
    centre, root = (net.statistics[f"theta/{k}"].data for k in ("centre", "root"))
    step = net.params["theta/step"].data
    solver = SGD(net, rate=1.0, momentum=0.0)
    given = {"noise": np.zeros((1, layout.size)), **pixels.inputs()}
    centre[...] = layout.values()
    damping = 1e-3
    information = curvature(images, centre, pixels.weights) + precision
    loss = net.forward(**given)
    for _ in range(steps):
        damped = information + damping * np.diag(np.diag(information))
        factor = cholesky(damped, lower=True)
        root[...] = solve_triangular(factor, np.eye(layout.size), lower=True).T
        solver.step(**given)
        change = root @ step
        expected = 0.5 * float(step @ step)  # nats, if the loss were quadratic
        for part in map(layout.part, range(len(layout.sources))):
            change[part] *= LARGEST / max(LARGEST, float(np.abs(change[part]).max()))
        before = centre.copy()
        centre += change
        step[...] = 0
        new = net.forward(**given)
        if new > loss:
            centre[...] = before
            if expected < ENOUGH or damping > MOST_DAMPING:
                break
            damping *= 8
            continue
        loss, used, damping = new, damping, max(damping / 5, 1e-9)
        information = curvature(images, centre, pixels.weights) + precision
        if expected < ENOUGH and used < 0.1:
            break
    loss = net.forward(**given)
    factor = cholesky(information, lower=True)
    covariance = cho_solve((factor, True), np.eye(layout.size))
    entropy = -np.log(np.diag(factor)).sum() + 0.5 * np.linalg.slogdet(precision)[1]
    return Fit(
        layout,
        np.array(centre),
        covariance,
        float(-loss + entropy),
        np.array(net.blobs["image"].data[0]),
        images,
    )
