"""Standardisation: the axes of z moved and scaled to the moments of the prior, N(0, I).

With m the mean of g_mu(x) over the images, and s^2 the variance of g_mu(x) plus the mean of
g_Sigma(x), the map z -> (z - m) / s minimises the KL term averaged over the images.  The layers
that read z undo it, so that no reconstruction changes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import NetError
from layerkit.galaxy.model.posterior.posterior import encode
from layerkit.galaxy.model.roles import Roles
from layerkit.layer import Layer
from layerkit.layers import Concat, Dense, GaussianKL, Reparameterize, Slice
from layerkit.net import Net

Span = tuple[int, int]  # of axes of z, from the first to the one after the last


class LinearLayers(NamedTuple):
    """The Dense layers around some axes of z.

    Attributes:
        mean, log_variance: make the moments of q.
        readers: read z.
    """

    mean: Dense
    log_variance: Dense
    readers: list[Dense]


def standardise(net: Net, roles: Roles, images: np.ndarray) -> bool:
    """Standardise the axes of z that lie between Dense layers; see GalaxyModel.standardise.

    Args:
        net: the net, whose weights change.
        roles: of its blobs.
        images: (n, ...), checked.

    Returns:
        True if any axis was free to move.

    Raises:
        NetError: training has diverged; the axes concerned are left as they were.
    """
    means, log_variances = _pieces(net, roles.z_mean), _pieces(net, roles.z_log_variance)
    moved = False
    for span, z in _pieces_of_z(net, roles.z).items():
        if span in means and span in log_variances:
            layers = _linear_layers(net, roles, means[span], log_variances[span], z)
            if layers:
                _standardise_layers(net, layers, *_moments(net, roles, images, span))
                moved = True
    return moved


def _pieces(net: Net, blob: str) -> dict[Span, str]:
    """Return the blobs that Concat makes a blob of, by their axes; the blob itself if none does."""
    for layer in net.layers.values():
        if isinstance(layer, Concat) and blob in layer.tops:
            spans = [(s.start, s.stop) for s in layer.spans]
            return dict(zip(spans, layer.bottoms, strict=True))
    return {_all_axes(net, blob): blob}


def _pieces_of_z(net: Net, z: str) -> dict[Span, str]:
    """Return the blobs that Slice takes z apart into, by their axes; z itself if none does."""
    readers = [x for x in net.layers.values() if z in x.bottoms]
    if len(readers) == 1 and isinstance(readers[0], Slice):
        spans = [(s.start, s.stop) for s in readers[0].spans]
        return dict(zip(spans, readers[0].tops, strict=True))
    return {_all_axes(net, z): z}


def _all_axes(net: Net, blob: str) -> Span:
    return 0, math.prod(net.blobs[blob].shape)


def _linear_layers(
    net: Net, roles: Roles, z_mean: str, z_log_variance: str, z: str
) -> LinearLayers | None:
    """Find the Dense layers around a piece of z; None if anything else makes or reads the piece.

    Args:
        net: the net.
        roles: of its blobs.
        z_mean, z_log_variance, z: blobs of the piece.
    """
    layers = list(net.layers.values())
    readers = [x for x in layers if z in x.bottoms]
    makers = {t: x for x in layers for t in x.tops if t in (z_mean, z_log_variance)}
    mean, log_variance = makers.get(z_mean), makers.get(z_log_variance)
    if not isinstance(mean, Dense) or not isinstance(log_variance, Dense) or mean is log_variance:
        return None
    if mean.neuron or log_variance.neuron:
        return None
    moments = {roles.z_mean, roles.z_log_variance, z_mean, z_log_variance}
    if any(moments & set(x.bottoms) and not _keeps_moments(x, roles) for x in layers):
        return None
    linear = [x for x in readers if isinstance(x, Dense)]
    return LinearLayers(mean, log_variance, linear) if linear == readers else None


def _keeps_moments(layer: Layer, roles: Roles) -> bool:
    """Tell whether a layer only joins the moments of z, samples z, or compares q with the prior."""
    moments = [roles.z_mean, roles.z_log_variance]
    if set(moments) & set(layer.tops):
        return True
    return isinstance(layer, Reparameterize | GaussianKL) and layer.bottoms == moments


def _moments(
    net: Net, roles: Roles, images: np.ndarray, span: Span
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of z over the images, for the axes of a span."""
    with np.errstate(all="ignore"):
        mean, sd = (array[:, slice(*span)] for array in encode(net, roles, images))
        shift = mean.mean(axis=0, dtype="float64")
        variance = mean.var(axis=0, dtype="float64") + (sd**2).mean(axis=0, dtype="float64")
        scale = np.sqrt(variance)
    limit = math.sqrt(np.finfo(net.dtype).max)
    usable = (np.abs(shift) < limit) & (1 / limit < scale) & (scale < limit)
    if not usable.all():
        axis = int(np.argmin(usable))
        raise NetError(
            f"standardise: over these images axis {span[0] + axis + 1} of z has mean "
            f"{shift[axis]:.3g} and standard deviation {scale[axis]:.3g}, so training has "
            "diverged; lower the rate, or clip the gradient"
        )
    return shift, scale


def _standardise_layers(
    net: Net, layers: LinearLayers, shift: np.ndarray, scale: np.ndarray
) -> None:
    """Change the weights so that z becomes (z - shift) / scale, and what reads it stays."""

    def array(values: np.ndarray) -> Any:
        return net.backend.asarray(values, net.dtype)

    weight, bias = (layers.mean.parameters[key].data for key in ("weight", "bias"))
    bias -= array(shift)
    bias /= array(scale)
    weight /= array(scale)
    bias = layers.log_variance.parameters["bias"].data
    bias -= array(2 * np.log(scale))
    for reader in layers.readers:
        weight, bias = (reader.parameters[key].data for key in ("weight", "bias"))
        bias += array(shift) @ weight
        weight *= array(scale)[:, None]
