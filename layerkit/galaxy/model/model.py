"""GalaxyModel: a net as an astronomer uses it, a model of galaxy images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.data.arrays import data_of, numbers
from layerkit.errors import NetError, brief
from layerkit.galaxy.model.masks import Scorers
from layerkit.galaxy.model.pixels import (
    Pixels,
    check_room,
    decode,
    draw,
    generator,
    infer_pixels,
    scores_of,
)
from layerkit.galaxy.model.population.noise import PixelNoise, check_noise
from layerkit.galaxy.model.population.prior import MixturePrior, check_prior
from layerkit.galaxy.model.posterior.importance import IMPORTANCE_SAMPLES, importance_bound
from layerkit.galaxy.model.posterior.posterior import (
    Posterior,
    check_images,
    check_posterior,
    check_temperature,
    encode,
    temper,
)
from layerkit.galaxy.model.roles import find_roles
from layerkit.galaxy.model.standardisation import standardise
from layerkit.inspection.display import html_grid
from layerkit.net import Net
from layerkit.settings import Closed, Truth, Whole, accept, fitting

if TYPE_CHECKING:
    from layerkit.galaxy.images.crop.crop import Settings


class GalaxyModel(Closed):
    """Encoder, decoder, sampler and judge of galaxy images, all run by one net of phase "test".

    The net needs one layer that scores pixels, GaussianReconstruction or StudentReconstruction,
    whose bottoms are the image, its mean, its log-variance and optionally its skew, and at least
    one Reparameterize layer, the first of which makes z, whose prior is N(0, I).  The scoring layer
    and all GaussianKL layers together must be the negative bound; further loss layers may help
    training and are not part of it.

    **Several stochastic layers.**  Reparameterize layers after the first make lower latent layers
    such as h, which training samples from q(h | x, z).  Without an image, h comes from its prior
    p(h | z), whose moments are the last two bottoms of the GaussianKL layer that compares q with p.
    `decode` therefore infers the mean of p from z, and then the image from z and h.  With an image,
    `reconstruct` takes the means of q layer by layer.

    **Masks.**  Images may be a masked array: masked pixels count for nothing in likelihoods and
    bounds.  The encoder sees what is under the mask.

    **Posteriors.**  Methods that need q(z | x) use the encoder's, g(x), unless they are given
    another, such as `refine` returns.

    **Temperature.**  The likelihood does not know about noise that pixels share, nor about noise
    that moves the crop, so z scatters more than it says.  `latent_coverage` measures how much more;
    a temperature for each axis of z accounts for it: `encode` and `refine` return the standard
    deviations of a likelihood to the power of 1 / temperature (see `temper`).  Bounds and
    reconstructions are never tempered.

    **Population.**  `fit_population` replaces N(0, I) by a prior fitted to the galaxies, and learns
    how noise goes together from pixel to pixel.  Samples are then drawn with both, and bounds are
    those with this prior: KL(q || p) becomes E_q[log q - log p], estimated from the samples of z.

    Args:
        net: the net; `Net(layers, phase="test", share=training_net)` follows training.
        temperature: of each axis of z, (latent,), or of all; 1, the default, is the likelihood's.
        prior: of z; None, the default, is N(0, I), with which the net was trained.
        noise: how the noise of pixels goes together; None, the default, is independent noise.
        preparation: how pictures become images for the model; None, the default, if unknown.

    Attributes:
        net: the net.
        roles: the names of the blobs that the model works with.
        temperature, prior, noise, preparation: as above; may be set.
        latent: number of dimensions of z.
        pixels: number of pixels of an image.

    Raises:
        NetError: the net lacks these layers, has a latent layer without a prior, or makes images
            from more than its latent layers; or the temperature has another shape or is below 1; or
            the prior or the noise is of other dimensions.
    """

    @fitting(NetError)
    def __init__(
        self,
        net: Net,
        temperature: float | Sequence[float] | np.ndarray = 1.0,
        prior: MixturePrior | None = None,
        noise: PixelNoise | None = None,
        preparation: Settings | None = None,
    ):
        if not isinstance(net, Net):
            raise NetError(f"GalaxyModel: expected a net, got {brief(net)}")
        self.net, self.roles = net, find_roles(net)
        self._scorers = Scorers(net, self.roles.x)
        self.latent = int(np.prod(net.blobs[self.roles.z].shape))
        self.pixels = int(np.prod(net.blobs[self.roles.x].shape))
        self.temperature, self.prior, self.noise = temperature, prior, noise
        self.preparation = preparation
        try:
            self.decode(np.zeros((1, self.latent)))
        except NetError as error:
            raise NetError(
                f"a galaxy net must make images from its latent layers and nothing else: {error}"
            ) from error
        self.close()

    def __repr__(self) -> str:
        sizes = f"{self.pixels} pixels from {self.latent} latents"
        return f"GalaxyModel({sizes}, {self.roles.likelihood!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return GalaxyModel, (self.net, self.temperature, self.prior, self.noise, self.preparation)

    def _repr_html_(self) -> str:
        hot = self.temperature.max()
        facts = {
            "images": f"{self.pixels:,} pixels",
            "z": f"{self.latent} dimensions, temperature "
            + (f"{self.temperature.min():.3g} to {hot:.3g}" if hot > 1 else "1"),
            "lower latent layers": ", ".join(self.roles.priors) or "none",
            "prior": "N(0, I)" if self.prior is None else f"{len(self.prior.weights)} Gaussians",
            "likelihood": repr(self.roles.likelihood),
            "parameters": f"{sum(p.data.size for p in self.net.params.values()):,}, "
            f"{self.net.dtype} on {self.net.backend.name}",
        }
        return html_grid("GalaxyModel", [], {name: [fact] for name, fact in facts.items()})

    @property
    def temperature(self) -> np.ndarray:
        """The temperature of each axis of z, (latent,)."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float | Sequence[float] | np.ndarray) -> None:
        self._temperature = check_temperature(value, self.latent)

    @property
    def prior(self) -> MixturePrior | None:
        """The prior of z; None is N(0, I)."""
        return self._prior

    @prior.setter
    def prior(self, value: MixturePrior | None) -> None:
        self._prior = check_prior(value, self.latent)

    @property
    def noise(self) -> PixelNoise | None:
        """The correlation of the pixels' noise; None is independent noise."""
        return self._noise

    @noise.setter
    def noise(self, value: PixelNoise | None) -> None:
        self._noise = check_noise(value, self.pixels)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def encode(self, images: np.ndarray, tempered: bool = True) -> Posterior:
        """Encode images: means g_mu(x) and standard deviations of z, each (n, latent).

        Args:
            images: (n, ...) with as many pixels as the net takes, prepared as for training.
            tempered: returns standard deviations at the model's temperature, the default, rather
                than those that maximise the bound.

        Raises:
            DataError: images of another shape, not finite, or of counts rather than intensities.
        """
        tempered = accept(Truth(), tempered, "tempered", "encode")
        found = encode(self.net, self.roles, check_images(images, self.pixels))
        return self.temper(found) if tempered else found

    @fitting(NetError)
    def temper(self, posterior: Posterior) -> Posterior:
        """Widen the standard deviations s of q(z | x) to those at the model's temperature t.

        1 / sd^2 = 1 + (1 / s^2 - 1) / t, as t divides the precision that the image adds to the
        prior's of 1.  So an axis of which the image says nothing stays as it is.
        """
        return temper(posterior, self.temperature)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def decode(
        self, z: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode z into images: means f_mu(z) and variances f_Sigma(z), each (n, pixels).

        Args:
            z: (n, latent).
            rng: draws lower latent layers from p(h | z); None, the default, takes the means of
                p(h | z).  The variances are those of an image around f_mu(h), for this one h.
        """
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise NetError(f"decode: rng must be a NumPy generator, or None, got {brief(rng)}")
        return decode(self.net, self.roles, z, rng)[:2]

    @fitting(NetError)
    def reconstruct(
        self, images: np.ndarray, posterior: Posterior | None = None, sample: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reconstruct images: f_mu and f_Sigma at the mean of q(z | x), both of their shape.

        Lower latent layers are at the means of q(h | x, z), given the means of those above.

        Args:
            images: (n, ...), prepared as for training.
            posterior: q(z | x) of the images; None, the default, takes the encoder's.
            sample: draws z and the lower latent layers from q instead, anew in each call.
        """
        images = check_images(images, self.pixels)
        mean, variance, _ = self._infer_pixels(images, posterior, sample)
        return mean.reshape(images.shape), variance.reshape(images.shape)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def scores(self, images: np.ndarray, posterior: Posterior | None = None) -> np.ndarray:
        """Score pixels by their distance from the reconstruction, in standard deviations.

        If the predicted noise is right, Gaussian or not, the scores are standard normal.

        Args:
            images, posterior: see reconstruct.

        Returns:
            An array of the shape of the images, masked as they are.
        """
        images = check_images(images, self.pixels)
        return scores_of(self.roles.likelihood, images, self._infer_pixels(images, posterior))

    @fitting(NetError)
    @np.errstate(under="ignore")
    def log_likelihood(self, images: np.ndarray, posterior: Posterior | None = None) -> np.ndarray:
        """Compute log p(x | z) of each image at the mean of q(z | x), (n,), in nats.

        Args:
            images, posterior: see reconstruct.
        """
        given = self._blobs(images, posterior)
        with self._scorers.of(given) as net:
            return -net.infer(self.roles.bound_terms[0], False, **given)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def bound(
        self, images: np.ndarray, samples: int = 1, posterior: Posterior | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the evidence lower bound and the sum of its KL terms, each (n,), in nats.

        With a fitted prior, log p(z) - log N(z; 0, I) of each sample is added to the bound, and
        taken from the KL terms.

        Args:
            images, posterior: see reconstruct.
            samples: of the latent layers for each image, over which the terms are averaged.
        """
        samples = accept(Whole(least=1), samples, "samples", "bound")
        given = self._blobs(images, posterior)
        terms = self.roles.bound_terms
        totals = np.zeros((len(terms) + 1, len(given[self.roles.x])))
        with self._scorers.of(given) as net:
            for _ in range(samples):
                *found, z = net.infer([*terms, self.roles.z], sample=True, **given)
                totals[:-1] += np.stack(found)
                if self.prior is not None:
                    totals[-1] -= self.prior.gain(z.reshape(len(z), -1))
        totals /= samples
        return -totals.sum(axis=0), totals[1:].sum(axis=0)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def importance_bound(
        self,
        images: np.ndarray,
        samples: int = IMPORTANCE_SAMPLES,
        progress: bool = False,
        posterior: Posterior | None = None,
    ) -> np.ndarray:
        """Compute the importance weighted bound on log p(x) of each image, (n,), in nats.

        log 1/K sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x): its mean rises with K from the
        evidence lower bound, at K = 1, to log p(x).  With several stochastic layers, z stands for
        all of them.  The encoder runs once, the decoder K times.

        Args:
            images, posterior: see reconstruct.
            samples: K, default 1000.
            progress: shows a bar.

        Raises:
            NetError: no GaussianKL layer reads the mean and log-variance of a Reparameterize layer,
                so that its prior is unknown.

        Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8.
        """
        samples = accept(Whole(least=1), samples, "samples", "importance_bound")
        given = self._blobs(images, posterior)
        with self._scorers.of(given) as net:
            return importance_bound(net, self.roles, given, samples, progress, self.prior)

    @fitting(NetError)
    def standardise(self, images: np.ndarray) -> bool:
        """Move and scale axes of z so that over these images they have the prior's moments.

        The layers that read z undo the change, so no reconstruction changes.  The KL term falls,
        and samples from the prior come to lie where galaxies do.  Training alone gets there too
        slowly: the gradient of the KL by an axis' scale is faint beside the reconstruction's noise.

        If z is assembled by Concat and taken apart by Slice, each piece is treated separately, and
        a piece with a meaning of its own, such as a pose, is left alone.

        Args:
            images: (n, ...), prepared as for training.

        Returns:
            True if any axis was free to move: the encoder must end, and whatever reads z begin,
            with Dense layers, and only one sampling layer may make z.

        Raises:
            NetError: the mean or standard deviation of an axis is not finite, zero or too large, as
                after training that diverged; the axes concerned are left as they were.
        """
        return standardise(self.net, self.roles, data_of(check_images(images, self.pixels)))

    @fitting(NetError)
    @np.errstate(under="ignore")
    def sample(self, count: int, seed: int = 0, noise: bool = False) -> np.ndarray:
        """Draw galaxies from the prior, layer by layer, (count, pixels).

        Args:
            count: number of galaxies.
            seed: of the draw.
            noise: False, the default, returns f_mu(z); True adds noise of the variance f_Sigma(z),
                as the model expects of real images, which goes together from pixel to pixel as the
                model's `noise` says, and is not cut off at the range of prepared galaxies.
        """
        count = accept(Whole(least=1), count, "count", "sample")
        noise = accept(Truth(), noise, "noise", "sample")
        check_room(count, self.pixels, self.net.dtype)
        rng = generator(seed, "sample")
        z = self._draw_z(count, rng)
        mean, variance, skew = decode(self.net, self.roles, z, rng)
        return draw(self.roles.likelihood, rng, mean, variance, skew, self.noise) if noise else mean

    @fitting(NetError)
    def sample_z(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw z from the prior, (count, latent): those of `sample` with this count and seed."""
        count = accept(Whole(least=1), count, "count", "sample_z")
        return self._draw_z(count, generator(seed, "sample_z"))

    def _draw_z(self, count: int, rng: np.random.Generator) -> np.ndarray:
        own = self.prior
        return rng.standard_normal((count, self.latent)) if own is None else own.sample(count, rng)

    @fitting(NetError)
    def traverse(self, values: np.ndarray) -> np.ndarray:
        """Decode z along each of its axes, the others at zero: (latent, len(values), pixels).

        Lower latent layers are at the means of p(h | z).

        Args:
            values: of the axis that is traversed, one-dimensional.
        """
        values = numbers(values, "traverse: values")
        if values.ndim != 1:
            raise NetError(f"traverse: values must be a list of numbers, got {brief(values)}")
        z = np.zeros((self.latent, len(values), self.latent))
        z[range(self.latent), :, range(self.latent)] = values
        mean, _ = self.decode(z.reshape(-1, self.latent))
        return mean.reshape(self.latent, len(values), -1)

    def _blobs(self, images: np.ndarray, posterior: Posterior | None) -> dict[str, Any]:
        """Return blobs to infer from: the images, and q(z | x) unless it is the encoder's."""
        given = self._scorers.blobs(check_images(images, self.pixels))
        if posterior is None:
            return given
        mean, sd = check_posterior(posterior, len(given[self.roles.x]), self.latent)
        z_mean, z_log_variance = self.roles.z_mean, self.roles.z_log_variance
        return {**given, z_mean: mean, z_log_variance: 2 * np.log(sd)}

    def _infer_pixels(
        self, images: np.ndarray, posterior: Posterior | None, sample: bool = False
    ) -> Pixels:
        return infer_pixels(self.net, self.roles, self._blobs(data_of(images), posterior), sample)
