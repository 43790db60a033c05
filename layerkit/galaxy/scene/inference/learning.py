"""Learning the light of galaxies from stamps, each with its own PSF, noise and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from layerkit.errors import DataError
from layerkit.galaxy.scene.images.detection import Detection
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels, fit
from layerkit.galaxy.scene.inference.proposing import new_source
from layerkit.galaxy.scene.model.layout import Source
from layerkit.galaxy.scene.model.learned import Learned, half_light, spreads
from layerkit.galaxy.scene.model.light import Spergel
from layerkit.net import Net
from layerkit.netfile import load_net
from layerkit.settings import Whole, accept
from layerkit.solvers.adam import Adam
from layerkit.solvers.rates import Cosine

JITTER = 1e-6  # of the mean curvature, so that Cholesky's root exists
BATCH = 64


@dataclass
class Told:
    """Statements of stamps about the weights, given draws of all else; see nets/galaxy_profile.py.

    Attributes:
        z: shape (n, latents).
        root: shape (n, gaussians, gaussians).
        target: shape (n, gaussians, 1).
    """

    z: np.ndarray
    root: np.ndarray
    target: np.ndarray


def learn(
    stamps: Sequence[Pixels],
    *,
    latent: int = 3,
    hidden: int = 24,
    gaussians: int = 10,
    sweeps: int = 6,
    steps: int = 2000,
    draws: int = 3,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Net:
    """Return a net of nets/galaxy_profile.py, trained on stamps of a galaxy each, in the middle.

    Variational expectation maximisation: a sweep fits each stamp with the light as it is, for a
    Gaussian posterior of the galaxy's numbers, z among them; then the net is trained on draws from
    these posteriors.  At first the light is a Spergel profile, with its index in z.  After each
    sweep z is moved and scaled so that over all galaxies it is N(0, I) again.

    Args:
        stamps: of one band each; their light does not matter.
        latent, hidden, gaussians: see the net.
        sweeps: how often all stamps are fitted.
        steps: of training in a sweep.
        draws: from the posterior of each stamp.
        seed: of the net's first parameters and all draws.
        tell: called with a line about each sweep.

    Raises:
        DataError: fewer than two stamps, which tell of no scatter among galaxies, something that is
            no stamp of one band, or a setting out of range.

    Source: Neal and Hinton (1998), "A view of the EM algorithm that justifies incremental, sparse,
    and other variants"; Liu, Rubin and Wu (1998), "Parameter expansion to accelerate EM", for the
    moving and scaling of z.
    """
    for name, count, least in (
        *(("latent", latent, 1), ("hidden", hidden, 1), ("gaussians", gaussians, 1)),
        *(("sweeps", sweeps, 0), ("steps", steps, 1), ("draws", draws, 1), ("seed", seed, 0)),
    ):
        accept(Whole(least), count, name, "learn", DataError)
    given = [isinstance(stamp, Pixels) and len(stamp.values) == 1 for stamp in stamps]
    if len(given) < 2 or not all(given):
        odd = "" if all(given) else f", the one at {given.index(False)} something else"
        raise DataError(f"learn: expected two stamps of one band or more, got {len(given)}{odd}")
    rng = np.random.default_rng(seed)
    layers = load_net("galaxy_profile", latent=latent, hidden=hidden, gaussians=gaussians)
    net = Net(layers, BATCH, dtype="float64", seed=seed)
    train(net, of_spergel(latent, gaussians, 4000, rng), 2 * steps, rng)
    sources: list[Source] = []
    for sweep in range(sweeps):
        light = as_light(net, latent, hidden, gaussians)
        lit = [replace(stamp, light=light) for stamp in stamps]
        sources = sources or [source_in(stamp) for stamp in lit]
        fits = [fit(s, [source], 30) for s, source in zip(lit, sources, strict=True)]
        sources = [found.sources[0] for found in fits]
        bound = float(np.mean([found.bound for found in fits]))
        spread = standardise(net, fits)
        told = [t for s, f in zip(lit, fits, strict=True) for t in tellings(s, f, draws, rng)]
        every = Told(*(np.stack([getattr(t, k) for t in told]) for k in ("z", "root", "target")))
        every.z = spread(every.z)
        sources = [
            replace(s, shape=np.append(s.shape[:3], spread(s.shape[None, 3:])[0])) for s in sources
        ]
        loss = train(net, every, steps, rng)
        tell(f"sweep {sweep + 1} of {sweeps}: bound {bound:.2f} nats a stamp, loss {loss:.2f}")
    return net


def as_light(net: Net, latent: int, hidden: int, gaussians: int) -> Learned:
    """Return the light of a net in training."""
    layers = load_net("galaxy_profile", latent=latent, hidden=hidden, gaussians=gaussians)
    copy = Net(layers, gaussians, dtype="float64", gradients="all")
    for name, parameter in copy.params.items():
        parameter.data[...] = net.params[name].data
    return Learned(copy)


def source_in(stamp: Pixels) -> Source:
    """Return a galaxy in the middle of a stamp to begin with, of the flux of its middle."""
    _, height, width = stamp.values.shape
    y, x = np.mgrid[:height, :width]
    window = np.exp(-((x - width // 2) ** 2 + (y - height // 2) ** 2) / (2 * stamp.width**2))
    used = window * (stamp.weights[0] > 0)
    flux = (used * stamp.values[0]).sum() * window.sum() / (used * window).sum() / 1.5
    return new_source(Detection(width // 2, height // 2, 0.0, np.array([abs(flux)])), stamp)


def of_spergel(latent: int, gaussians: int, count: int, rng: np.random.Generator) -> Told:
    """Return what noise-free Spergel profiles of random index say of the weights.

    The index is in the first latent; the others decide nothing.
    """
    light = Spergel()
    k = np.geomspace(0.05, 30, 120)
    weight = 1e3 * np.gradient(k) * k / (1 + k**2)
    z = rng.normal(size=(count, latent))
    index = light.mean[0] + light.deviation[0] * z[:, :1]
    profile = light.transform(np, index, np.tile(k, (count, 1)), np.zeros((count, len(k))))[0]
    basis = np.exp(-0.5 * (spreads(gaussians)[:, None] * k) ** 2)
    root, target = condensed(
        (basis * weight) @ basis.T, np.einsum("jk,nk->nj", basis * weight, profile)
    )
    return Told(z, np.tile(root, (count, 1, 1)), target[:, :, None])


def condensed(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return root and target of A, shape (j, j), and b, shape (n, j)."""
    size = len(a)
    lower = cholesky(a + JITTER * np.trace(a) / size * np.eye(size), lower=True)
    return lower.T, solve_triangular(lower, b.T, lower=True).T


def tellings(stamp: Pixels, found: Fit, draws: int, rng: np.random.Generator) -> list[Told]:
    """Return what a stamp says of the weights, for each of some draws from the posterior."""
    images, layout, light = found.images, found.layout, stamp.light
    assert isinstance(light, Learned)
    own = layout.part(0)
    outer, inner = images.window(0)
    weights = stamp.weights[0, outer[0], outer[1]].ravel()
    out = []
    for _ in range(draws):
        theta = rng.multivariate_normal(found.mean, found.covariance, method="cholesky")
        z = theta[own][-len(light.names) :]
        scale = half_light(light.weights(z)[0])
        basis = images.gaussians(0, theta, spreads(light.gaussians) / scale)
        basis = basis[:, inner[0], inner[1]].reshape(light.gaussians, -1)
        sky = theta[layout.sky] * stamp.noise[0]
        rest = (stamp.values[0, outer[0], outer[1]] - sky).ravel()
        weighted = basis * weights
        root, target = condensed(weighted @ basis.T, (weighted @ rest)[None])
        out.append(Told(z, root, target[0][:, None]))
    return out


def standardise(net: Net, fits: Sequence[Fit]) -> Callable[[np.ndarray], np.ndarray]:
    """Make the z of all posteriors together N(0, I), with the net's light as it was.

    Returns:
        The function that takes old z, shape (n, latents), to new ones.
    """
    latents = net.blobs["z"].shape[0]
    own = [found.layout.part(0) for found in fits]
    means = np.array([f.mean[o][-latents:] for f, o in zip(fits, own, strict=True)])
    covariances = [f.covariance[o, o][-latents:, -latents:] for f, o in zip(fits, own, strict=True)]
    middle = means.mean(axis=0)
    lower = cholesky(np.cov(means.T) + np.mean(covariances, axis=0), lower=True)
    weight, bias = net.params["f1/weight"].data, net.params["f1/bias"].data
    bias += middle @ weight
    weight[...] = lower.T @ weight
    return lambda z: solve_triangular(lower, (z - middle).T, lower=True).T


def train(net: Net, told: Told, steps: int, rng: np.random.Generator) -> float:
    """Train the net by Adam; return the mean loss of the last tenth of the steps."""
    solver = Adam(net, Cosine(5e-3, steps), clip=100.0)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(told.z), size=BATCH)
        losses.append(solver.step(z=told.z[rows], root=told.root[rows], target=told.target[rows]))
    return float(np.mean(losses[-max(1, steps // 10) :]))
