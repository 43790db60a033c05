"""The importance weighted bound: many samples of z for each image, the encoder run only once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import NetError
from layerkit.galaxy.model.population.prior import MixturePrior
from layerkit.galaxy.model.roles import Roles
from layerkit.layers import GaussianKL, Reparameterize
from layerkit.net import Net
from layerkit.system.bars import bar

IMPORTANCE_SAMPLES = 1000


class LatentBlobs(NamedTuple):
    """The blobs of one latent layer: a sample, the moments of q, and those of the prior.

    Attributes:
        sample, mean, log_variance: names of blobs.
        prior: names of the blobs with the prior's mean and log-variance; none for N(0, I).
    """

    sample: str
    mean: str
    log_variance: str
    prior: list[str]


def importance_bound(
    net: Net,
    roles: Roles,
    given: dict[str, np.ndarray],
    samples: int,
    progress: bool,
    prior: MixturePrior | None = None,
) -> np.ndarray:
    """Compute log 1/K sum_k p(x, z_k) / q(z_k | x) of each image, (n,), in nats.

    Args:
        net: the net.
        roles: of its blobs.
        given: images, and moments of q(z | x) if they are not the encoder's; blobs by name.
        samples: K.
        progress: shows a bar.
        prior: of z; None, the default, is N(0, I).

    Raises:
        NetError: a latent layer without a prior.
    """
    latents = _latent_blobs(net)
    loss = roles.bound_terms[0]
    outputs = [loss, *(b for z in latents for b in (*z[:3], *z.prior))]
    images = given[roles.x]
    moments = {name: array for name, array in given.items() if name != roles.x}
    brought = {roles.x, *net.input_names()}
    encoded = [name for name in _noise_free_inputs(net) if name not in brought]
    bounds = np.empty(len(images))
    size = net.run.batch_size
    before, after = net.run.beside(len(images))
    looks = samples + bool(encoded)
    net.run.skip_looks(before * looks)
    with (
        net.run.part(0, 0),  # each batch is inferred from by itself
        bar(len(images), "importance samples", "images", shown=progress) as moving,
    ):
        for start in range(0, len(images), size):
            x = images[start : start + size]
            blobs: dict[str, Any] = {roles.x: net.backend.asarray(x, net.dtype)}
            if encoded:
                blobs |= zip(encoded, net.infer(encoded, **blobs), strict=True)
            blobs |= {name: array[start : start + size] for name, array in moments.items()}
            log_sum = np.full(len(x), -np.inf)
            for _ in range(samples):
                found = {
                    name: values.reshape(len(x), -1).astype("float64")
                    for name, values in zip(
                        outputs, net.infer(outputs, sample=True, **blobs), strict=True
                    )
                }
                log_weight = -found[loss][:, 0]
                if prior is not None:
                    log_weight += prior.gain(found[roles.z])
                for z in latents:
                    sample = found[z.sample]
                    log_weight += _log_density(sample, *(found[p] for p in z.prior))
                    log_weight -= _log_density(sample, found[z.mean], found[z.log_variance])
                np.logaddexp(log_sum, log_weight, out=log_sum)
            bounds[start : start + size] = log_sum - np.log(samples)
            moving.update(len(x))
    net.run.skip_looks(after * looks)
    return bounds


def _latent_blobs(net: Net) -> list[LatentBlobs]:
    """Return the blobs of each latent layer, from the top."""
    layers = list(net.layers.values())
    priors = {tuple(x.bottoms[:2]): x.bottoms[2:] for x in layers if isinstance(x, GaussianKL)}
    latents = []
    for layer in layers:
        if isinstance(layer, Reparameterize):
            if tuple(layer.bottoms) not in priors:
                raise NetError(
                    f"importance_bound: the prior of layer {layer.name!r} (Reparameterize) is "
                    "unknown; add a GaussianKL layer with bottoms "
                    f"{', '.join(map(repr, layer.bottoms))}"
                )
            mean, log_variance = layer.bottoms
            prior = priors[mean, log_variance]
            latents.append(LatentBlobs(layer.tops[0], mean, log_variance, prior))
    return latents


def _noise_free_inputs(net: Net) -> list[str]:
    """Return the blobs without noise that layers with noise read: given them, the encoder rests."""
    noise_free: set[str] = set()
    inputs: dict[str, None] = {}
    for layer in net.layers.values():
        if isinstance(layer, Reparameterize) or not noise_free.issuperset(layer.bottoms):
            inputs.update(dict.fromkeys(b for b in layer.bottoms if b in noise_free))
        else:
            noise_free.update(layer.tops)
    return list(inputs)


def _log_density(z: np.ndarray, mean: Any = 0.0, log_variance: Any = 0.0) -> np.ndarray:
    """Compute log N(z; mean, diag exp(log_variance)) of each row, without -D/2 log(2 pi)."""
    terms = log_variance + (z - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * np.broadcast_to(terms, z.shape).sum(axis=1)
