"""GalaxyModel: a trained net seen as what it is to an astronomer, a model of galaxy images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from layerkit.arrays import numbers
from layerkit.display import short_repr
from layerkit.errors import DataError, NetError, brief
from layerkit.galaxy.model import pixel_noise
from layerkit.layers import Concat, Dense, GaussianKL, Reparameterize, Slice
from layerkit.layers.reconstruction import Reconstruction
from layerkit.memory import in_words, memory
from layerkit.net import Net
from layerkit.settings import Closed, Whole, accept, fitting

FAR_OUT = 10.0  # intensities beyond this, either way, are counts or bytes and not of 0..1


class Posterior(NamedTuple):
    """q(z | x) of n images: a Gaussian with independent axes.

    Attributes:
        mean, sd: (n, latent).
    """

    mean: np.ndarray
    sd: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)


class GalaxyModel(Closed):
    """Encodes, decodes, samples and scores galaxy images with a net of phase "test".

    The net needs one layer that scores pixels, GaussianReconstruction or StudentReconstruction,
    whose bottoms are the image, its mean, its log-variance and maybe its skew, and at least one
    Reparameterize layer, the first of which makes z, whose prior is N(0, I).  That layer and all
    GaussianKL layers together must be the negative bound; further loss layers may help training and
    are no part of it.

    **Several stochastic layers.**  Reparameterize layers after the first make lower latent layers,
    such as h, which training samples from q(h | x, z).  Where there is no image h comes from its
    prior p(h | z), and which blobs that is the net says itself: in the GaussianKL layer that
    compares q with p.  So `decode` infers the mean of p from z, and then the image from z and h.
    With an image, `reconstruct` takes the means of q layer by layer.

    **Posteriors.**  What needs q(z | x) takes g(x), or another that is given, such as `refine`
    returns (inference.py).

    **Temperature.**  Noise that the pixels of a picture share, or that preparation turns into
    another crop, moves z by more than the likelihood knows.  How much more `latent_coverage`
    measures, and a temperature for each axis of z takes it into account: `encode` and `refine` give
    standard deviations as of a likelihood to the power of 1 / temperature (see `temper`).  Bounds
    and reconstructions never do.

    Args:
        net: the net; `Net(layers, phase="test", share=training_net)` follows training.
        temperature: of each axis of z, (latent,), or of all; 1, the default, is the likelihood.

    Attributes:
        temperature: of each axis, (latent,); may be set.
        latent: number of dimensions of z.
        pixels: number of pixels of an image.
        terms: blobs that add up to the negative bound: the likelihood's, then those of the KLs.

    Raises:
        NetError: the net has no such layers, or a latent layer without a prior, or makes images
            from more than its latent layers; or the temperature has another shape or is below 1.
    """

    @fitting(NetError)
    def __init__(self, net: Net, temperature: float | Sequence[float] | np.ndarray = 1.0):
        if not isinstance(net, Net):
            raise NetError(f"GalaxyModel: expected a net, got {brief(net)}")
        layers = list(net.layers.values())
        likelihoods = [x for x in layers if isinstance(x, Reconstruction)]
        samplers = [x for x in layers if isinstance(x, Reparameterize)]
        if len(likelihoods) != 1 or not samplers:
            raise NetError(
                "a galaxy net needs one GaussianReconstruction or StudentReconstruction layer and "
                "at least one "
                f"Reparameterize layer; this one has {len(likelihoods)} and {len(samplers)}"
            )
        self.net = net
        self.likelihood = likelihoods[0]
        self.x, self.x_mean, self.x_log_variance, *self.x_skew = self.likelihood.bottoms
        self.z = samplers[0].tops[0]
        self.z_mean, self.z_log_variance = samplers[0].bottoms
        self.terms = [  # of the negative bound
            self.likelihood.tops[0],
            *(x.tops[0] for x in layers if isinstance(x, GaussianKL)),
        ]
        self.latent = int(np.prod(net.blobs[self.z].shape))
        self.temperature = temperature
        self.pixels = int(np.prod(net.blobs[self.x].shape))
        self.priors = {s.tops[0]: self._prior_of(s) for s in samplers}
        if self.priors.pop(self.z):
            raise NetError(
                f"layer {samplers[0].name!r} (Reparameterize): the first sampling layer makes z, "
                "whose prior must be N(0, I), but its GaussianKL layer has a prior of its own"
            )
        try:
            self.decode(np.zeros((1, self.latent)))
        except NetError as error:
            raise NetError(
                f"a galaxy net must make images from its latent layers and nothing else: {error}"
            ) from error
        self.close()

    def __repr__(self) -> str:
        return f"GalaxyModel({self.pixels} pixels from {self.latent} latents, {self.likelihood!r})"

    def _prior_of(self, sampler: Reparameterize) -> list[str]:
        """The blobs that hold the mean and log-variance of the prior; empty for N(0, I)."""
        penalties = [x for x in self.net.layers.values() if isinstance(x, GaussianKL)]
        own = [x for x in penalties if x.bottoms[:2] == sampler.bottoms]
        if len(own) != 1 and sampler.tops[0] != self.z:
            raise NetError(
                f"layer {sampler.name!r} (Reparameterize): its prior is not known; it takes one "
                f"GaussianKL layer with bottoms {', '.join(map(repr, sampler.bottoms))} to say "
                f"what it is, and there are {len(own)}"
            )
        return own[0].bottoms[2:] if own else []

    @property
    def temperature(self) -> np.ndarray:
        """The temperature of each axis of z, (latent,)."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float | Sequence[float] | np.ndarray) -> None:
        try:
            found = np.array(np.broadcast_to(np.asarray(value, "float64"), (self.latent,)))
        except (TypeError, ValueError):
            found = np.full(1, np.nan)
        if not (np.isfinite(found).all() and (found >= 1).all()):
            raise NetError(
                f"temperature: expected one number for each of the {self.latent} axes of z, or one "
                f"for all, each 1 or more, got {brief(value)}"
            )
        self._temperature = found

    @fitting(NetError)
    @np.errstate(under="ignore")
    def encode(self, images: np.ndarray, tempered: bool = True) -> Posterior:
        """Return what g says of z: means g_mu(x) and standard deviations, each (n, latent).

        Args:
            images: (n, ...) with as many pixels as the net takes, intensities in 0..1.
            tempered: gives standard deviations at the model's temperature, the default, and not
                those that g has from the bound.

        Raises:
            DataError: images of another shape, masked, not finite, or far outside 0..1.
        """
        outputs = [self.z_mean, self.z_log_variance]
        given = {self.x: self._checked(images)}
        mean, log_variance = self.net.infer(outputs, sample=False, **given)
        found = Posterior(
            mean.reshape(len(mean), -1), np.exp(0.5 * log_variance.reshape(len(mean), -1))
        )
        return self.temper(found) if tempered else found

    @fitting(NetError)
    def temper(self, posterior: Posterior) -> Posterior:
        """Widen the standard deviations of q(z | x) to those at the model's temperature.

        With t the temperature, what the picture adds to the prior's precision of 1 is divided by
        it: 1 / sd^2 = 1 + (1 / s^2 - 1) / t.  So an axis of which the picture says nothing stays
        as it is, and none becomes wider than the prior.  Means stay where they are.
        """
        if (self.temperature == 1).all():
            return posterior
        mean, sd = posterior
        told = (sd.astype("float64") ** -2 - 1).clip(0)
        wider = np.maximum(sd, (1 + told / self.temperature) ** -0.5)
        return Posterior(mean, wider.astype(sd.dtype))

    def _checked(self, images: Any) -> Any:
        """The images, if they can be what the net was trained on; of another scale they cannot."""
        if type(images).__module__.split(".")[0] not in ("numpy", "builtins"):
            return images  # on a GPU; the net looks at its shape
        images = numbers(images, "images", DataError)
        side = math.isqrt(self.pixels)
        pixels = f"{side}, {side}" if side * side == self.pixels else f"{self.pixels}"
        expected = f"expected intensities in 0..1, an array of shape (n, {pixels})"
        if images.ndim < 2 or math.prod(images.shape[1:]) != self.pixels:
            hint = ""
            if images.shape in ((side, side), (self.pixels,)):
                hint = "; for a single image give image[None]"
            raise DataError(f"images have shape {images.shape}; {expected}{hint}")
        if images.size:
            least, most = images.min(), images.max()  # NaN where there is one
            if not np.isfinite(least) or not np.isfinite(most):
                bad = ~np.isfinite(images.reshape(len(images), -1)).all(axis=1)
                raise DataError(
                    f"images have pixels that are not finite, {bad.sum()} of {len(images)}, the "
                    f"first of them image {int(np.argmax(bad))}; {expected}"
                )
            if max(-float(least), float(most)) > FAR_OUT:
                raise DataError(
                    f"images have intensities from {least:g} to {most:g}; {expected}, scaled as "
                    "galaxy.prepare does"
                )
        return images

    def _given(self, images: np.ndarray, posterior: Posterior | None) -> dict[str, np.ndarray]:
        """Blobs to infer from: images, and q(z | x) where it is not g's."""
        images = self._checked(images)
        if posterior is None:
            return {self.x: images}
        wanted = f"expected means and standard deviations of shape ({len(images)}, {self.latent})"
        if not isinstance(posterior, tuple | list) or len(posterior) != 2:
            raise DataError(f"posterior: {wanted}, as of encode or refine, got {brief(posterior)}")
        mean, sd = (numbers(a, "posterior", DataError) for a in posterior)
        if mean.shape != sd.shape or mean.shape != (len(images), self.latent):
            raise DataError(f"posterior: {wanted}, got {mean.shape} and {sd.shape}")
        if not np.isfinite(mean).all() or not (sd >= 0).all():
            raise DataError(f"posterior: {wanted}, finite, and none below 0; some are not so")
        return {self.x: images, self.z_mean: mean, self.z_log_variance: 2 * np.log(sd)}

    @fitting(NetError)
    @np.errstate(under="ignore")
    def decode(
        self, z: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The images that z describes: means f_mu(z) and variances f_Sigma(z), each (n, pixels).

        Args:
            z: (n, latent).
            rng: draws lower latent layers from p(h | z); without it they are the means of p(h | z).
                The variances are those of an image around f_mu(h), for this one h.
        """
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise NetError(f"decode: rng must be a NumPy generator, or None, got {brief(rng)}")
        return self._decode(z, rng)[:2]

    def _decode(
        self, z: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        """Means, variances and skews of pixels."""
        given = {self.z: numbers(z, "z")}
        for h, prior in self.priors.items():
            if prior:
                mean, log_variance = self.net.infer(prior, sample=False, **given)
            else:
                mean = np.zeros((len(z), *self.net.blobs[h].shape))
                log_variance = mean
            if rng is not None:
                mean = mean + np.exp(0.5 * log_variance) * rng.standard_normal(mean.shape)
            given[h] = mean
        return self._pixels(**given)

    @fitting(NetError)
    def reconstruct(
        self, images: np.ndarray, posterior: Posterior | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """f_mu and f_Sigma at the mean of q(z | x): two arrays of the shape of images, (n, ...).

        Lower latent layers are at the means of q(h | x, z), given the means of those above.
        """
        images = self._checked(images)
        mean, variance, _ = self._pixels(**self._given(images, posterior))
        return mean.reshape(images.shape), variance.reshape(images.shape)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def scores(self, images: np.ndarray, posterior: Posterior | None = None) -> np.ndarray:
        """How far pixels lie from where the mean of q(z | x) puts them, as for a normal noise.

        Of the shape of images; see pixel_noise.scores.
        """
        images = self._checked(images)
        mean, variance, skew = self._pixels(**self._given(images, posterior))
        residual = (images.reshape(len(images), -1) - mean) / np.sqrt(variance)
        return pixel_noise.scores(self.likelihood, residual, skew).reshape(images.shape)

    def _pixels(self, **given: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        """Means, variances and skews of pixels."""
        outputs = [self.x_mean, self.x_log_variance, *self.x_skew]
        mean, log_variance, *skew = (
            array.reshape(len(array), -1) for array in self.net.infer(outputs, False, **given)
        )
        return mean, np.exp(log_variance) + self.likelihood.floor, skew[0] if skew else 0.0

    @fitting(NetError)
    @np.errstate(under="ignore")
    def log_likelihood(self, images: np.ndarray, posterior: Posterior | None = None) -> np.ndarray:
        """log p(x | z) of each image at the mean of q(z | x), (n,), in nats."""
        return -self.net.infer(self.terms[0], False, **self._given(images, posterior))

    @fitting(NetError)
    @np.errstate(under="ignore")
    def bound(
        self, images: np.ndarray, samples: int = 1, posterior: Posterior | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The evidence lower bound and its KL terms' sum for each image, each (n,), in nats.

        Args:
            images: (n, ...).
            samples: of the latent layers for each image, over which the terms are averaged.
            posterior: of the images; None takes g's.
        """
        samples = accept(Whole(least=1), samples, "samples", "bound")
        images = self._checked(images)
        totals = np.zeros((len(self.terms), len(images)))
        for _ in range(samples):
            totals += np.stack(
                self.net.infer(self.terms, sample=True, **self._given(images, posterior))
            )
        totals /= samples
        return -totals.sum(axis=0), totals[1:].sum(axis=0)

    @fitting(NetError)
    @np.errstate(under="ignore")
    def importance_bound(
        self,
        images: np.ndarray,
        samples: int = 1000,
        progress: bool = False,
        posterior: Posterior | None = None,
    ) -> np.ndarray:
        """A tighter bound on log p(x) of each image, (n,), in nats.

        log 1/K sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x): its mean rises with K from the
        evidence lower bound, at K = 1, to log p(x).  Where noise enters in several places, z is
        all of it.  The encoder runs once, the decoder K times.

        Args:
            images: (n, ...).
            samples: K.
            progress: shows a bar.
            posterior: of the images; None takes g's.

        Raises:
            NetError: a Reparameterize layer whose mean and log-variance no GaussianKL reads, so
                that its prior is unknown.

        Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8.
        """
        samples = accept(Whole(least=1), samples, "samples", "importance_bound")
        images = self._checked(images)
        drawn = self._sampled()
        names = [self.terms[0], *(name for group in drawn for name in group)]
        moments = {k: v for k, v in self._given(images, posterior).items() if k != self.x}
        known = self._decided_by_images()
        encoded = [name for name in known if name != self.x]
        bounds = np.empty(len(images))
        size = self.net.run.batch_size
        with tqdm(
            total=len(images), desc="importance samples", unit="image", disable=not progress
        ) as bar:
            for start in range(0, len(images), size):
                x = images[start : start + size]
                given: dict[str, Any] = {self.x: self.net.backend.asarray(x, self.net.dtype)}
                if encoded:
                    given |= zip(encoded, self.net.infer(encoded, **given), strict=True)
                given |= {k: v[start : start + size] for k, v in moments.items()}
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

    @fitting(NetError)
    def standardise(self, images: np.ndarray) -> bool:
        """Moves and scales axes of z so that over these images they have the prior's moments.

        No reconstruction changes: what is done to z where it is made is undone where it is read,
        in the weights of the layers around it.  The KL term falls, and samples from the prior come
        to lie where galaxies do.  Training gets there too slowly: the KL's gradient along these
        two directions of each axis is faint beside the noise of the reconstruction's.

        With m the mean of g_mu(x) and s^2 the variance of g_mu(x) plus the mean of g_Sigma(x), the
        map z -> (z - m) / s makes the KL term, averaged over the images, least.

        Where z is put together by Concat and taken apart by Slice, each piece is looked at by
        itself, and a piece that means something, as a pose does, is left alone.

        Returns:
            Whether any axis was free to move: g must end there, and what reads z begin, with Dense
            layers, and z be made by one sampling layer only.

        Raises:
            NetError: a moment is no number that can be divided by, as after training that diverged;
                these axes are as they were.
        """
        means, log_variances = self._pieces(self.z_mean), self._pieces(self.z_log_variance)
        done = False
        for span, z in self._pieces_of_z().items():
            if span in means and span in log_variances:
                done |= self._standardise(images, span, means[span], log_variances[span], z)
        return done

    def _pieces(self, blob: str) -> dict[tuple[int, int], str]:
        """(start, stop) -> the blob that Concat takes those axes from, or all from this one."""
        for layer in self.net.layers.values():
            if isinstance(layer, Concat) and blob in layer.tops:
                spans = [(s.start, s.stop) for s in layer.spans]
                return dict(zip(spans, layer.bottoms, strict=True))
        return {(0, self.latent): blob}

    def _pieces_of_z(self) -> dict[tuple[int, int], str]:
        """(start, stop) -> the blob that Slice puts those axes into, or z for all."""
        readers = [x for x in self.net.layers.values() if self.z in x.bottoms]
        if len(readers) == 1 and isinstance(readers[0], Slice):
            spans = [(s.start, s.stop) for s in readers[0].spans]
            return dict(zip(spans, readers[0].tops, strict=True))
        return {(0, self.latent): self.z}

    def _standardise(
        self, images: np.ndarray, span: tuple[int, int], z_mean: str, z_log_variance: str, z: str
    ) -> bool:
        """Standardises the axes of `span`, made as z_mean and z_log_variance and read as z."""
        layers = list(self.net.layers.values())
        makers = [x for x in layers if {z_mean, z_log_variance} & set(x.tops)]
        readers = [x for x in layers if z in x.bottoms]
        on_the_way = {self.z_mean, self.z_log_variance, z_mean, z_log_variance}
        others = [
            x
            for x in layers
            if on_the_way & set(x.bottoms)
            and not {self.z_mean, self.z_log_variance} & set(x.tops)
            and not (
                isinstance(x, Reparameterize | GaussianKL)
                and x.bottoms == [self.z_mean, self.z_log_variance]
            )
        ]
        linear = [x for x in [*makers, *readers] if isinstance(x, Dense)]
        if others or len(makers) != 2 or linear != [*makers, *readers]:
            return False
        if any(x.neuron for x in linear if x in makers):
            return False
        with np.errstate(all="ignore"):
            mean, sd = (array[:, slice(*span)] for array in self.encode(images, tempered=False))
            shift = mean.mean(axis=0, dtype="float64")
            variance = mean.var(axis=0, dtype="float64") + (sd**2).mean(axis=0, dtype="float64")
            scale = np.sqrt(variance)
        limit = math.sqrt(np.finfo(self.net.dtype).max)
        usable = (np.abs(shift) < limit) & (1 / limit < scale) & (scale < limit)
        if not usable.all():
            axis = int(np.argmin(usable))
            raise NetError(
                f"standardise: over these images axis {span[0] + axis + 1} of z has mean "
                f"{shift[axis]:.3g} and standard deviation {scale[axis]:.3g}, so training has "
                "diverged; lower the rate, or clip the gradient"
            )

        def array(values: np.ndarray) -> Any:
            return self.net.backend.asarray(values, self.net.dtype)

        for layer in linear:
            w, b = layer.parameters["weight"].data, layer.parameters["bias"].data
            if layer in readers:
                b += array(shift) @ w
                w *= array(scale)[:, None]
            elif z_mean in layer.tops:
                b -= array(shift)
                b /= array(scale)
                w /= array(scale)
            else:
                b -= array(2 * np.log(scale))
        return True

    @fitting(NetError)
    @np.errstate(under="ignore")
    def sample(self, count: int, seed: int = 0, noise: bool = False) -> np.ndarray:
        """Galaxies drawn from the prior, layer by layer, (count, pixels).

        Args:
            count: how many.
            seed: of the draw.
            noise: adds to each pixel of f_mu(z) noise of the variance f_Sigma(z), as the model says
                pictures have; without it, the default, the means.
        """
        count = accept(Whole(least=1), count, "count", "sample")
        needed = count * self.pixels * 4 * self.net.dtype.itemsize  # means, variances, noise
        if needed > (free := memory()):
            raise NetError(
                f"sample: {count} pictures would take {in_words(needed)}, and {in_words(free)} are "
                "free; draw them in parts, each with a seed of its own"
            )
        try:
            rng = np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            raise NetError(f"sample: seed: {error}, got {brief(seed)}") from None
        mean, variance, skew = self._decode(rng.standard_normal((count, self.latent)), rng)
        if not noise:
            return mean
        return pixel_noise.draw(self.likelihood, rng, mean, variance, skew)

    @fitting(NetError)
    def traverse(self, values: np.ndarray) -> np.ndarray:
        """Mean images along each axis of z, the others at zero: (latent, len(values), pixels).

        Lower latent layers are at the means of p(h | z).
        """
        values = numbers(values, "traverse: values")
        if values.ndim != 1:
            raise NetError(f"traverse: values must be a list of numbers, got {brief(values)}")
        z = np.zeros((self.latent, len(values), self.latent))
        for axis in range(self.latent):
            z[axis, :, axis] = values
        mean, _ = self.decode(z.reshape(-1, self.latent))
        return mean.reshape(self.latent, len(values), -1)


def _log_density(z: np.ndarray, mean: Any = 0.0, log_variance: Any = 0.0) -> np.ndarray:
    """log N(z; mean, diag exp(log_variance)) of each row, without the constant -D/2 log(2 pi)."""
    terms = log_variance + (z - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * np.broadcast_to(terms, z.shape).sum(axis=1)
