"""GalaxyModel: a trained net seen as what it is to an astronomer, a model of galaxy images."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from layerkit.errors import NetError
from layerkit.layers import Dense, GaussianKL, GaussianReconstruction, Reparameterize
from layerkit.net import Net


class GalaxyModel:
    """Encodes, decodes, samples and scores galaxy images with a net of phase "test".

    The net needs one GaussianReconstruction layer, whose bottoms are the image, its mean and its
    log-variance, and at least one Reparameterize layer, the first of which makes z.  Its loss
    layers together must be the negative bound: reconstruction plus KL terms.

    Args:
        net: the net; `Net(layers, phase="test", share=training_net)` follows training.

    Attributes:
        latent: number of dimensions of z.
        pixels: number of pixels of an image.

    Raises:
        NetError: the net has no such layers.
    """

    def __init__(self, net: Net):
        layers = list(net.layers.values())
        likelihoods = [x for x in layers if isinstance(x, GaussianReconstruction)]
        samplers = [x for x in layers if isinstance(x, Reparameterize)]
        if len(likelihoods) != 1 or not samplers:
            raise NetError(
                "a galaxy net needs one GaussianReconstruction layer and at least one "
                f"Reparameterize layer; this one has {len(likelihoods)} and {len(samplers)}"
            )
        self.net = net
        self.likelihood = likelihoods[0]
        self.x, self.x_mean, self.x_log_variance = self.likelihood.bottoms
        self.z = samplers[0].tops[0]
        self.z_mean, self.z_log_variance = samplers[0].bottoms
        self.penalties = [x.tops[0] for x in layers if x.is_loss and x is not self.likelihood]
        self.latent = int(np.prod(net.blobs[self.z].shape))
        self.pixels = int(np.prod(net.blobs[self.x].shape))

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What images say of z: means g_mu(x) and standard deviations, each (n, latent)."""
        outputs = [self.z_mean, self.z_log_variance]
        mean, log_variance = self.net.infer(outputs, sample=False, **{self.x: images})
        return mean.reshape(len(mean), -1), np.exp(0.5 * log_variance.reshape(len(mean), -1))

    def decode(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images that z describes: means f_mu(z) and variances f_Sigma(z), each (n, pixels)."""
        return self._pixels(**{self.z: z})

    def reconstruct(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f_mu(g_mu(x)) and f_Sigma(g_mu(x)) of images (n, ...): two arrays of the same shape."""
        mean, variance = self._pixels(**{self.x: images})
        return mean.reshape(images.shape), variance.reshape(images.shape)

    def _pixels(self, **given: Any) -> tuple[np.ndarray, np.ndarray]:
        outputs = [self.x_mean, self.x_log_variance]
        mean, log_variance = self.net.infer(outputs, sample=False, **given)
        variance = np.exp(log_variance) + self.likelihood.floor
        return mean.reshape(len(mean), -1), variance.reshape(len(mean), -1)

    def log_likelihood(self, images: np.ndarray) -> np.ndarray:
        """log N(x; f_mu(g_mu(x)), f_Sigma(g_mu(x))) of each image, (n,), in nats."""
        return -self.net.infer(self.likelihood.tops[0], sample=False, **{self.x: images})

    def bound(self, images: np.ndarray, samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The evidence lower bound and its KL term for each image, each (n,), in nats.

        Args:
            images: (n, ...).
            samples: of z for each image, over which the reconstruction term is averaged.
        """
        names = [self.likelihood.tops[0], *self.penalties]
        totals = np.zeros((len(names), len(images)))
        for _ in range(samples):
            totals += np.stack(self.net.infer(names, sample=True, **{self.x: images}))
        totals /= samples
        return -totals.sum(axis=0), totals[1:].sum(axis=0)

    def importance_bound(
        self, images: np.ndarray, samples: int = 1000, progress: bool = False
    ) -> np.ndarray:
        """A tighter bound on log p(x) of each image, (n,), in nats.

        log 1/K sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x): its mean rises with K from the
        evidence lower bound, at K = 1, to log p(x).  Where noise enters in several places, z is
        all of it.  The encoder runs once, the decoder K times.

        Args:
            images: (n, ...).
            samples: K.
            progress: shows a bar.

        Raises:
            NetError: a Reparameterize layer whose mean and log-variance no GaussianKL reads, so
                that its prior is unknown.

        Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8.
        """
        drawn = self._sampled()
        names = [self.likelihood.tops[0], *(name for group in drawn for name in group)]
        known = self._decided_by_images()
        encoded = [name for name in known if name != self.x]
        bounds = np.empty(len(images))
        size = self.net.run.batch_size
        with tqdm(
            total=len(images), desc="importance samples", unit="image", disable=not progress
        ) as bar:
            for start in range(0, len(images), size):
                x = images[start : start + size]
                given = {self.x: self.net.backend.asarray(x, self.net.dtype)}
                if encoded:
                    given |= zip(encoded, self.net.infer(encoded, **given), strict=True)
                total = np.full(len(x), -np.inf)  # log of the sum so far
                for _ in range(samples):
                    values = self.net.infer(names, sample=True, **given)
                    found = {
                        n: v.reshape(len(x), -1).astype("float64")
                        for n, v in zip(names, values, strict=True)
                    }
                    log_weight = -found[names[0]][:, 0]
                    for z, mean, log_variance, *prior in drawn:
                        log_weight += _log_density(found[z], *(found[p] for p in prior))
                        log_weight -= _log_density(found[z], found[mean], found[log_variance])
                    np.logaddexp(total, log_weight, out=total)
                bounds[start : start + size] = total - np.log(samples)
                bar.update(len(x))
        return bounds

    def _sampled(self) -> list[list[str]]:
        """For each Reparameterize layer: z, mean and log-variance, and those of another prior."""
        layers = list(self.net.layers.values())
        priors = {tuple(x.bottoms[:2]): x.bottoms[2:] for x in layers if isinstance(x, GaussianKL)}
        drawn = []
        for layer in layers:
            if isinstance(layer, Reparameterize):
                if tuple(layer.bottoms) not in priors:
                    raise NetError(
                        f"importance_bound: layer {layer.name!r} samples {layer.bottoms}, and no "
                        "GaussianKL layer says what prior they have; add one"
                    )
                drawn.append([layer.tops[0], *layer.bottoms, *priors[tuple(layer.bottoms)]])
        return drawn

    def _decided_by_images(self) -> list[str]:
        """Blobs without noise, read by layers that noise reaches: given them, g need not run."""
        decided: set[str] = set()
        read: dict[str, None] = {}
        for layer in self.net.layers.values():
            if isinstance(layer, Reparameterize) or not decided.issuperset(layer.bottoms):
                read.update(dict.fromkeys(b for b in layer.bottoms if b in decided))
            else:
                decided.update(layer.tops)
        return list(read)

    def standardise(self, images: np.ndarray) -> bool:
        """Moves and scales each axis of z so that over these images it has the prior's moments.

        No reconstruction changes: what is done to z where it is made is undone where it is read,
        in the weights of the layers around it.  The KL term falls, and samples from the prior come
        to lie where galaxies do.  Training gets there too slowly: the KL's gradient along these
        two directions of each axis is faint beside the noise of the reconstruction's.

        With m the mean of g_mu(x) and s^2 the variance of g_mu(x) plus the mean of g_Sigma(x), the
        map z -> (z - m) / s makes the KL term, averaged over the images, least.

        Returns:
            Whether it could be done: g must end, and f begin, with Dense layers, and z be made by
            one sampling layer only.
        """
        layers = list(self.net.layers.values())
        makers = [x for x in layers if {self.z_mean, self.z_log_variance} & set(x.tops)]
        readers = [x for x in layers if self.z in x.bottoms]
        others = [
            x for x in layers if {self.z_mean, self.z_log_variance} & set(x.bottoms)
            and not isinstance(x, Reparameterize | GaussianKL)
        ]
        linear = [x for x in [*makers, *readers] if isinstance(x, Dense)]
        if others or len(makers) != 2 or linear != [*makers, *readers]:
            return False
        if any(x.neuron for x in linear if x in makers):
            return False
        mean, sd = self.encode(images)
        shift = mean.mean(axis=0, dtype="float64")
        scale = np.sqrt(mean.var(axis=0, dtype="float64") + (sd**2).mean(axis=0, dtype="float64"))

        def array(values: np.ndarray) -> Any:
            return self.net.backend.asarray(values, self.net.dtype)

        for layer in linear:
            w, b = layer.parameters["weight"].data, layer.parameters["bias"].data
            if layer in readers:
                b += array(shift) @ w
                w *= array(scale)[:, None]
            elif self.z_mean in layer.tops:
                b -= array(shift)
                b /= array(scale)
                w /= array(scale)
            else:
                b -= array(2 * np.log(scale))
        return True

    def sample(self, count: int, seed: int = 0, noise: bool = False) -> np.ndarray:
        """Galaxies drawn from the prior, (count, pixels).

        Args:
            count: how many.
            seed: of the draw.
            noise: adds to each pixel of f_mu(z) Gaussian noise of the variance f_Sigma(z), as the
                model says pictures have; without it, the default, the means.
        """
        rng = np.random.default_rng(seed)
        mean, variance = self.decode(rng.standard_normal((count, self.latent)))
        return mean + rng.normal(0, np.sqrt(variance)) if noise else mean

    def traverse(self, values: np.ndarray) -> np.ndarray:
        """Mean images along each axis of z, the others at zero: (latent, len(values), pixels)."""
        z = np.zeros((self.latent, len(values), self.latent))
        for axis in range(self.latent):
            z[axis, :, axis] = values
        mean, _ = self.decode(z.reshape(-1, self.latent))
        return mean.reshape(self.latent, len(values), -1)


def _log_density(z: np.ndarray, mean: Any = 0.0, log_variance: Any = 0.0) -> np.ndarray:
    """log N(z; mean, diag exp(log_variance)) of each row, without the constant -D/2 log(2 pi)."""
    terms = log_variance + (z - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * np.broadcast_to(terms, z.shape).sum(axis=1)
