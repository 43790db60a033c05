"""Roles: which blobs of a net are the image, its mean, z, and so on."""

from __future__ import annotations

from dataclasses import dataclass

from layerkit.errors import NetError
from layerkit.layers import GaussianKL, Reparameterize
from layerkit.layers.likelihoods.reconstruction import Reconstruction
from layerkit.net import Net


@dataclass(frozen=True)
class Roles:
    """The likelihood layer of a net, and the names of the blobs that a galaxy model works with.

    Attributes:
        likelihood: the layer that scores pixels.
        x: the image.
        mask: the blob that a net made by `with_mask` takes beside the image; else None.
        pixel_outputs: mean and log-variance of the pixels, and their skew if the likelihood has
            one.
        z: the top latent layer, whose prior is N(0, I).
        z_mean, z_log_variance: the moments of q(z | x).
        bound_terms: blobs that sum to the negative bound, the likelihood's first, then the KLs'.
        priors: for each lower latent blob, the two blobs that hold the mean and the log-variance
            of its prior; none for N(0, I).
    """

    likelihood: Reconstruction
    x: str
    mask: str | None
    pixel_outputs: list[str]
    z: str
    z_mean: str
    z_log_variance: str
    bound_terms: list[str]
    priors: dict[str, list[str]]

    @property
    def x_mean(self) -> str:
        """The mean of the pixels."""
        return self.pixel_outputs[0]


def find_roles(net: Net) -> Roles:
    """Find the roles of a net's blobs from its layers.

    Raises:
        NetError: the net does not have exactly one likelihood layer and at least one
            Reparameterize layer; z has a prior other than N(0, I); or the prior of a lower latent
            layer is unknown.
    """
    layers = list(net.layers.values())
    likelihoods = [x for x in layers if isinstance(x, Reconstruction)]
    samplers = [x for x in layers if isinstance(x, Reparameterize)]
    penalties = [x for x in layers if isinstance(x, GaussianKL)]
    if len(likelihoods) != 1 or not samplers:
        raise NetError(
            "a galaxy net needs exactly one GaussianReconstruction or StudentReconstruction layer "
            "and at least one Reparameterize layer; this one has "
            f"{len(likelihoods)} and {len(samplers)}"
        )
    (likelihood,), top = likelihoods, samplers[0]
    if _prior_of(top, penalties, required=False):
        raise NetError(
            f"layer {top.name!r} (Reparameterize): the first sampling layer makes z, whose prior "
            "must be N(0, I), but its GaussianKL layer has a prior of its own"
        )
    x, mean, log_variance, skew, mask = likelihood.parts(likelihood.bottoms)
    z_mean, z_log_variance = top.bottoms
    return Roles(
        likelihood=likelihood,
        x=x,
        mask=mask,
        pixel_outputs=[mean, log_variance, *([] if skew is None else [skew])],
        z=top.tops[0],
        z_mean=z_mean,
        z_log_variance=z_log_variance,
        bound_terms=[likelihood.tops[0], *(layer.tops[0] for layer in penalties)],
        priors={s.tops[0]: _prior_of(s, penalties, required=True) for s in samplers[1:]},
    )


def _prior_of(sampler: Reparameterize, penalties: list[GaussianKL], *, required: bool) -> list[str]:
    """Return the blobs with the mean and log-variance of a latent layer's prior; [] for N(0, I)."""
    own = [x for x in penalties if x.bottoms[:2] == sampler.bottoms]
    if required and len(own) != 1:
        raise NetError(
            f"layer {sampler.name!r} (Reparameterize): its prior is unknown; expected one "
            f"GaussianKL layer with bottoms {', '.join(map(repr, sampler.bottoms))}, which "
            f"defines it, and there are {len(own)}"
        )
    return own[0].bottoms[2:] if own else []
